//! `overlay node reset`: takes away everything that a node which has ended made on this host, its state folder included.
//!
//! What the kernel and the files beside the socket hold goes first, since the state folder says what that is and what was
//! there before. The state folder goes only if all of it went, and in it the files that say whose it is go last: a reset
//! that fails or is killed can be repeated.

use super::{
    Home, HomeError, Record,
    error::StartError,
    remove::{self, Removal},
    run_file::{self, Places, RunFile},
    serve,
    state_files::clear,
};
use crate::{
    config::NodeResetArgs,
    control::peers::Peer,
    dataplane::{kernel::DeviceKind, netlink::Netlink},
    durable::FileError,
    error_chain,
    faces::cli::Reset,
};
use std::{
    io,
    path::{Path, PathBuf, absolute},
};

/// Why a node was not reset, or did not leave. Nothing was changed by this process.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The process does not run as root.
    #[error("a node's devices, programs and files are root's: try again with sudo")]
    NotRoot,
    /// A node holds one of its locks.
    #[error("a node runs here ({why}): end it, then run `overlay node reset` again")]
    Runs {
        /// What it holds.
        why: String,
    },
    /// Endpoints of another state folder's node still have their ports.
    #[error("{ports} endpoints have their ports here, and the state folder {} is of no node that could have them: give their node's with --state-dir or, if it is lost, add --force", .state_dir.display())]
    PortsStand {
        /// Number of their ports.
        ports: usize,
        /// The folder that was given.
        state_dir: PathBuf,
    },
    /// The node's devices are in another network namespace.
    #[error("the node of {} ran in another network namespace of this host, where its devices are: reset it there (`ip netns exec`, `nsenter --net`) or, if that namespace is gone, add --force", .state_dir.display())]
    OtherNamespace {
        /// The folder that was given.
        state_dir: PathBuf,
    },
    /// A path can't be made absolute.
    #[error("can't make {} absolute: give an absolute path", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A lock or the kernel can't be used.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl From<HomeError> for ResetError {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::InUse(path) => {
                Self::Runs { why: format!("it uses the state folder {}", path.display()) }
            }
            error => Self::Start(error.into()),
        }
    }
}

impl From<FileError> for ResetError {
    fn from(error: FileError) -> Self {
        HomeError::from(error).into()
    }
}

/// Takes away everything that the node with this state folder made on this host. Where there is nothing, nothing is done.
///
/// # Errors
/// See [`ResetError`]. What could not be removed after the reset had begun is in the answer.
pub async fn reset(args: NodeResetArgs) -> Result<Reset, ResetError> {
    serve::check_root().map_err(|_| ResetError::NotRoot)?;
    let lock = serve::lock_netns().map_err(held)?;
    let reset = reset_alone(args).await;
    // Whatever came of it: the next node makes the file again.
    let unlocked = serve::remove_netns_lock(lock);
    let mut reset = reset?;
    reset.errors.extend(unlocked.err().map(|error| error_chain(&error)));
    Ok(reset)
}

/// The caller holds the lock of the network namespace.
async fn reset_alone(args: NodeResetArgs) -> Result<Reset, ResetError> {
    let state_dir = absolute(&args.state_dir)
        .map_err(|source| ResetError::Path { path: args.state_dir.clone(), source })?;
    let mut known = Known::read(&state_dir);
    // A folder without a node's files is not touched: it is new, or somebody else's.
    let home = if known.is_nodes { Some(Home::lock(&state_dir)?) } else { None };
    let run = match known.run.take() {
        Some(run) => run,
        None => assumed(&args, known.record.as_ref())?,
    };
    if run.is_elsewhere() && !args.force {
        return Err(ResetError::OtherNamespace { state_dir });
    }
    let _pins = match run.places.first() {
        Some(Places { bpffs, .. }) if bpffs.exists() => {
            Some(serve::lock_folder(bpffs).map_err(held)?)
        }
        _ => None,
    };
    let netlink = Netlink::open().await.map_err(StartError::from)?;
    if !known.may_have_endpoints && !args.force {
        let devices = netlink.devices().await.map_err(StartError::from)?;
        let ports = devices.iter().filter(|device| device.id.kind == DeviceKind::Port).count();
        if ports > 0 {
            return Err(ResetError::PortsStand { ports, state_dir });
        }
    }
    let Removal { done, remarks, failures } =
        remove::everything(&netlink, &state_dir, &run, true).await;
    let mut reset = Reset { removed: done, remarks: known.remarks, errors: Vec::new() };
    if !known.is_nodes && !reset.removed.is_empty() {
        let state_dir = state_dir.display();
        reset.remarks.push(format!(
            "{state_dir} holds no node: what is gone was at the places of a node with {}",
            options(&run)
        ));
    }
    reset.remarks.extend(remarks);
    if !failures.is_empty() {
        reset.errors = failures.iter().map(|error| error_chain(error)).collect();
        if home.is_some() {
            let again =
                "the state folder stays, since it says what is left: see to these, and repeat";
            reset.errors.push(again.to_owned());
        }
        return Ok(reset);
    }
    if let Some(home) = home {
        match clear(&state_dir) {
            Ok(left) => note_cleared(&mut reset, &state_dir, &left),
            Err(source) => {
                reset.errors.push(error_chain(&FileError::Io { path: state_dir, source }));
            }
        }
        drop(home);
    }
    Ok(reset)
}

/// The node's files are gone from its state folder; `left` are other files in it.
fn note_cleared(reset: &mut Reset, state_dir: &Path, left: &[String]) {
    let state_dir = state_dir.display();
    if left.is_empty() {
        reset.removed.push(format!("removed the state folder {state_dir}"));
    } else {
        reset.removed.push(format!("removed the node's files in {state_dir}"));
        let left = left.join(", ");
        reset.remarks.push(format!("{state_dir} stays with what is not the node's: {left}"));
    }
}

/// A lock that somebody has is a node's.
fn held(error: StartError) -> ResetError {
    match error {
        StartError::NodeRuns => ResetError::Runs { why: "in this network namespace".to_owned() },
        StartError::PinsTaken(path) => {
            ResetError::Runs { why: format!("it uses the folder {}", path.display()) }
        }
        error => error.into(),
    }
}

/// What the state folder says of its node.
struct Known {
    run: Option<RunFile>,
    record: Option<Record>,
    /// It is a node's state folder: one of the two files is there, if only damaged.
    is_nodes: bool,
    /// Only a member of a cluster has any.
    may_have_endpoints: bool,
    remarks: Vec<String>,
}

impl Known {
    fn read(state_dir: &Path) -> Self {
        let (run, record) = (RunFile::read(state_dir), Home::record_in(state_dir));
        let is_nodes = !matches!((&run, &record), (Ok(None), Ok(None)));
        let may_have_endpoints = match &record {
            Ok(record) => record.as_ref().is_some_and(|record| record.member.is_some()),
            Err(_) => true,
        };
        let mut remarks = Vec::new();
        let mut damaged = |error: FileError| remarks.push(error_chain(&error));
        let run = run.map_err(&mut damaged).ok().flatten();
        let record = record.map_err(&mut damaged).ok().flatten();
        if is_nodes && run.is_none() {
            remarks.push(format!(
                "{} does not say what its node was started with (an earlier version's has no \
                 {}): what it made is looked for where the options of this command say",
                state_dir.display(),
                run_file::FILE
            ));
        }
        let peers = Home::peers_in(state_dir).unwrap_or_default();
        remarks.extend(record.as_ref().and_then(|record| still_a_member(record, &peers)));
        Self { run, record, is_nodes, may_have_endpoints, remarks }
    }
}

/// What is to be done elsewhere, where the node did not leave its cluster before. The last node of a cluster knows no
/// other.
fn still_a_member(record: &Record, peers: &[Peer]) -> Option<String> {
    let Record { name, member, removed, .. } = record;
    let member = member.as_ref().filter(|_| !removed)?;
    let other = peers.iter().find(|peer| peer.id != member.id)?;
    Some(format!(
        "its cluster still counts {name} as a node: run `overlay node rm {name}` on another one, as that at {}",
        other.listen
    ))
}

/// The run of a node of which nothing but the command's options is known.
fn assumed(args: &NodeResetArgs, record: Option<&Record>) -> Result<RunFile, ResetError> {
    let name = match record {
        Some(record) => record.name.clone(),
        None => {
            let name = args.node_name().map_err(StartError::HostName)?;
            name.parse().map_err(StartError::from)?
        }
    };
    let places = Places::new(&args.bpffs, &args.socket, args.vxlan_port)
        .map_err(|source| ResetError::Path { path: args.bpffs.clone(), source })?;
    Ok(RunFile { name, places: vec![places], made_netns_folder: false, namespace: None })
}

/// The options that lead to the places of a run.
fn options(run: &RunFile) -> String {
    let option = |places: &Places| {
        let Places { bpffs, socket, vxlan_port } = places;
        format!(
            "--bpffs {} --socket {} --vxlan-port {vxlan_port}",
            bpffs.display(),
            socket.display()
        )
    };
    run.places.iter().map(option).collect::<Vec<_>>().join(", and ")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Member, state_files::tests::voter},
        *,
    };
    use std::fs;
    use uuid::Uuid;

    fn record(removed: bool) -> Record {
        let member =
            Member { cluster: Uuid::from_u128(7), id: 2, voter: true, epoch: 9, raft_id: None };
        let name = "h2".parse().unwrap();
        Record { name, instance: Uuid::from_u128(1), member: Some(member), removed }
    }

    fn peer(id: u64) -> Peer {
        Peer { id, listen: ([10, 0, 0, 1], 7400).into(), voter: true, raft_id: None }
    }

    #[test]
    fn a_folder_says_whether_it_is_a_node_s_and_what_is_not_known() {
        let remark = |known: &Known, word: &str| {
            known.remarks.iter().filter(|remark| remark.contains(word)).count()
        };
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lock"), b"").unwrap();
        let known = Known::read(dir.path());
        assert!(!known.is_nodes && !known.may_have_endpoints);
        assert_eq!(known.remarks, Vec::<String>::new());

        voter(dir.path());
        let known = Known::read(dir.path());
        assert!(known.is_nodes && known.may_have_endpoints);
        assert!(known.run.is_some() && known.record.is_some());
        assert_eq!(remark(&known, "overlay node rm h2"), 1, "{:?}", known.remarks);
        assert_eq!(known.remarks.len(), 1);

        fs::remove_file(dir.path().join(run_file::FILE)).unwrap();
        let known = Known::read(dir.path());
        assert!(known.is_nodes && known.run.is_none());
        assert_eq!(remark(&known, "an earlier version"), 1, "{:?}", known.remarks);

        fs::write(dir.path().join("node.json"), b"{").unwrap();
        let known = Known::read(dir.path());
        assert!(known.is_nodes && known.may_have_endpoints && known.record.is_none());
        assert_eq!(remark(&known, "is damaged"), 1, "{:?}", known.remarks);

        // Its first join did not succeed.
        let new = tempfile::tempdir().unwrap();
        drop(Home::open(new.path(), &"h2".parse().unwrap()).unwrap());
        let known = Known::read(new.path());
        assert!(known.is_nodes && !known.may_have_endpoints);
    }

    #[test]
    fn only_others_have_to_hear_of_a_node_that_did_not_leave() {
        let no_member = Record { member: None, ..record(false) };
        for (record, peers, is_told) in [
            (record(false), vec![peer(1), peer(2)], true),
            (record(false), vec![peer(2)], false),
            (record(false), vec![], false),
            (record(true), vec![peer(1), peer(2)], false),
            (no_member, vec![peer(1)], false),
        ] {
            let told = still_a_member(&record, &peers);
            assert_eq!(told.is_some(), is_told, "{told:?}");
        }
    }
}
