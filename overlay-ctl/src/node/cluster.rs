//! How a node becomes, or comes back as, a member of a cluster.

use super::{
    Home, HomeError, Member,
    addresses::Addresses,
    error::ClusterError,
    lives::{self, Held},
    machine,
    registration::{ANSWER_DEADLINE, Registration, read_answer},
};
use crate::{
    control::{
        consensus::{
            self, Consensus, ConsensusConfig, FatalError, Identity, LogStore, OpenError, PeerQueues,
        },
        peers::{self, Directory, Peer},
        state::{Applied, Command, Mutation, State},
        voter::{Leaving, Machine, Quorum, StatusTable, VoterParts},
    },
    durable::{DiskFolder, Folder as _, Space},
    model::{Generation, Node, RaftId, SPEAKS, Voters},
};
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::sync::mpsc;
use uuid::Uuid;

/// How many messages may wait for one peer.
const PEER_QUEUE: usize = 4096;

/// Bytes that must be free in the state folder of a node that is new, or that begins a log. One that comes back starts without
/// room, so that its vote is there.
const FIRST_ROOM: u64 = 4 << 20;

/// What the node is in its cluster, and its log if it is a voter.
pub(super) struct Membership {
    pub(super) member: Member,
    pub(super) directory: Directory,
    pub(super) log: Option<LogStore>,
}

/// Becomes a member of the cluster at `join`, of the one that the state folder names, or of a new one, in which `voters` are
/// to vote. The content of `run_folder` lasts until the machine is started again.
///
/// # Errors
/// See [`ClusterError`].
pub(super) async fn enter(
    home: &mut Home,
    registration: &Registration,
    join: Option<SocketAddr>,
    voters: Voters,
    run_folder: &Path,
) -> Result<Membership, ClusterError> {
    let is_new = home.record().member.is_none();
    if is_new {
        check_room(home.dir())?;
    }
    let mut membership = match (home.record().member.clone(), join) {
        (Some(member), join) => come_back(home, registration, member, join, run_folder).await,
        (None, Some(join)) => join_first(home, registration, join, run_folder).await,
        (None, None) => bootstrap(home, registration.addresses, voters),
    }?;
    home.set_generation(membership.directory.generations().ours())?;
    membership.directory = membership.directory.run_by(registration.incarnation);
    machine::bind(home.dir());
    let Membership { member, directory, .. } = &membership;
    directory.introduce(member.id, registration.addresses.listen);
    if let Some(life) = member.life() {
        directory.note_life(member.id, life);
    }
    if is_new && let Some(log) = &mut membership.log {
        log.mark_beside(run_folder)?;
    }
    Ok(membership)
}

/// Fails if the state folder has no room for a log.
pub(super) fn check_room(dir: &Path) -> Result<(), ClusterError> {
    let free = DiskFolder::new(dir).space().unwrap_or(Space::UNKNOWN).common;
    if free < FIRST_ROOM {
        return Err(ClusterError::NoRoom { path: dir.to_owned(), free, needed: FIRST_ROOM });
    }
    Ok(())
}

fn identity(home: &Home, cluster: Uuid, life: RaftId) -> Identity {
    Identity { cluster, name: home.record().name.to_string(), raft_id: life.get() }
}

/// Fails if the log belongs to another member than the state folder names.
fn check_log(home: &Home, log: &LogStore, cluster: Uuid, life: RaftId) -> Result<(), ClusterError> {
    let found = log.identity();
    if found.raft_id == life.get() && found.cluster == cluster {
        return Ok(());
    }
    Err(OpenError::ForeignState {
        path: home.dir().to_owned(),
        expected: format!("member {life} of cluster {cluster}"),
        found: format!("member {} of cluster {}", found.raft_id, found.cluster),
    }
    .into())
}

/// Fails, now and at every later start, if the log is of an older generation than the cluster: what it has is no part of what
/// the cluster has.
fn check_generation(home: &Home, log: &LogStore, cluster: Generation) -> Result<(), ClusterError> {
    let found = Generation::from_wire(log.generation());
    if found < cluster {
        let why = older_generation(found, cluster);
        tracing::error!(state_dir = %home.dir().display(), %found, %cluster, "the log is of an older generation of the cluster");
        return Err(log.declare_unfit(why).into());
    }
    Ok(())
}

/// Why a log is of no use: the end of a sentence about it.
fn older_generation(log: Generation, cluster: Generation) -> String {
    format!(
        "it is of generation {log} of the cluster, which is at generation {cluster}: it was restored or recovered since"
    )
}

/// A new cluster, whose first revision is this node's registration. It begins at the newest version, since no node of it runs
/// an older program.
fn bootstrap(
    home: &mut Home,
    addresses: Addresses,
    voters: Voters,
) -> Result<Membership, ClusterError> {
    const FIRST_REVISION: u64 = 1;
    let mut state = State::new(SPEAKS.newest()).with_voters(voters);
    let command = Command::RegisterNode {
        instance: *home.record().instance.as_bytes(),
        name: home.record().name.clone(),
        vtep: addresses.vtep,
        listen: addresses.listen,
        returning: None,
        gateway: Some(addresses.gateway),
        metrics: addresses.metrics,
        local_listen: addresses.local_listen,
        speaks: Some(SPEAKS),
    };
    let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
    let entry = state.entry(request, command);
    let node = match state.apply(FIRST_REVISION, entry) {
        Ok(Applied::Node(node)) => node,
        other => unreachable!("an empty state takes any node in: {other:?}"),
    };
    let life = node.life().unwrap_or_else(|| unreachable!("the first node is a voter"));
    // A crash between the making of the log and the note in the folder leaves a log: its cluster is this node's.
    let log = match LogStore::open(home.dir(), None)? {
        Some(log) => log,
        None => {
            let identity = identity(home, Uuid::new_v4(), life);
            LogStore::bootstrap(home.dir(), identity, &state.snapshot())?
        }
    };
    let cluster = log.identity().cluster;
    check_log(home, &log, cluster, life)?;
    let Node { id, epoch, raft_id, .. } = node;
    let member = Member { cluster, id, voter: true, epoch, raft_id };
    home.set_member(member.clone())?;
    tracing::info!(%cluster, version = %SPEAKS.newest(), "a new cluster of one");
    let directory = Directory::new(cluster, [Peer::from(&node)]);
    Ok(Membership { member, directory, log: Some(log) })
}

async fn join_first(
    home: &mut Home,
    registration: &Registration,
    join: SocketAddr,
    run_folder: &Path,
) -> Result<Membership, ClusterError> {
    // A folder that can't be used is refused before the cluster is told of the node.
    let existing = LogStore::open(home.dir(), None)?;
    let answer = registration.join(join).await?;
    let (member, peers) = read_answer(join, &answer)?;
    let generation = Generation::from_wire(answer.generation);
    if let Some(life) = member.life().filter(|_| answer.life_used) {
        if let Some(log) = existing {
            check_log(home, &log, member.cluster, life)?;
        }
        // This folder is a copy from before the node joined, or no leader knows any more that nobody had the life.
        let directory = Directory::new(member.cluster, peers).of(generation);
        let why = format!("member {life} may have voted, and the state folder knows of no vote");
        let asks = (&member, &directory);
        let (member, log) =
            lives::begin_anew(home, registration, asks, &[join], run_folder, why).await?;
        let directory = Directory::new(member.cluster, home.peers()?).of(home.generation()?);
        return Ok(Membership { member, directory, log });
    }
    let log = match (member.life(), existing) {
        (None, _) => None,
        (Some(life), Some(log)) => {
            check_log(home, &log, member.cluster, life)?;
            check_generation(home, &log, generation)?;
            Some(log)
        }
        (Some(life), None) => {
            let identity = identity(home, member.cluster, life);
            Some(LogStore::join_generation(home.dir(), identity, generation.number())?)
        }
    };
    home.set_peers(&peers)?;
    home.set_member(member.clone())?;
    tracing::info!(cluster = %member.cluster, id = member.id, voter = member.voter, "joined");
    let directory = Directory::new(member.cluster, peers).of(generation);
    Ok(Membership { member, directory, log })
}

/// Comes back, also if no other node answers: a cluster that lost its quorum must be able to come back, one node after the
/// other. A voter whose log is lost can't: it needs a leader to get another life.
/// [`keep_registered`](super::registration::keep_registered) tells the other nodes once this one runs.
async fn come_back(
    home: &mut Home,
    registration: &Registration,
    member: Member,
    join: Option<SocketAddr>,
    run_folder: &Path,
) -> Result<Membership, ClusterError> {
    if let Some(join) = join
        && let Some(found) = cluster_at(join).await
        && found != member.cluster
    {
        return Err(HomeError::AnotherCluster {
            path: home.dir().to_owned(),
            found: member.cluster,
            asked: found,
            join,
        }
        .into());
    }
    let generation = home.generation()?;
    let directory = Directory::new(member.cluster, home.peers()?).of(generation);
    let places = lives::places(&member, &directory, join);
    let moved = machine::moved(home.dir());
    let Some(life) = member.life() else {
        lives::doubt(None, registration, &member, &directory, &places).await?;
        if let Some(moved) = moved {
            tracing::info!(%moved, "this node goes on here: an agent has no vote");
        }
        tracing::info!(cluster = %member.cluster, id = member.id, voter = false, "back");
        return Ok(Membership { member, directory, log: None });
    };
    let held = lives::held(home.dir(), member.cluster, life, run_folder)?;
    // A crash may have come between the making of a log and the note beside it.
    let generation = generation.max(held.generation());
    let directory = directory.of(generation);
    let why = match held {
        Held::Lost(why) => why,
        Held::Log(log) if Generation::from_wire(log.generation()) < generation => {
            older_generation(Generation::from_wire(log.generation()), generation)
        }
        Held::Log(log) => {
            let asked = Some((&*log, life));
            let doubt = lives::doubt(asked, registration, &member, &directory, &places).await?;
            if let Some(why) = &doubt {
                // At the next start no leader may be there to ask.
                drop(log.declare_unfit(why.clone()));
            }
            let doubt = match doubt {
                // Nobody spoke against the log: it is sound, and may be all that is left of the cluster. Until a leader gives
                // another life, each start finds again that the folder has moved, and `overlay cluster recover` may go on
                // with it.
                None => lives::distrust(&log, life, moved)?,
                doubt => doubt,
            };
            match doubt {
                Some(why) => why,
                None => {
                    tracing::info!(cluster = %member.cluster, id = member.id, member = %life, voter = true, "back");
                    return Ok(Membership { member, directory, log: Some(*log) });
                }
            }
        }
    };
    let asks = (&member, &directory);
    let (member, log) =
        lives::begin_anew(home, registration, asks, &places, run_folder, why).await?;
    // The answer said who the voters are now, and of which generation.
    let directory = Directory::new(member.cluster, home.peers()?).of(home.generation()?);
    Ok(Membership { member, directory, log })
}

async fn cluster_at(join: SocketAddr) -> Option<Uuid> {
    tokio::time::timeout(ANSWER_DEADLINE, peers::cluster_at(join)).await.ok()?
}

/// Starts the parts that only a voter has. The receiver gets the errors after which the node ends in order; any other
/// error after which consensus can't go on ends the process.
///
/// # Errors
/// The log can't be used.
pub(super) fn start_voter(
    log: LogStore,
) -> Result<(VoterParts, PeerQueues, mpsc::Receiver<FatalError>), ClusterError> {
    let (machine, state) = Machine::new();
    let queues = PeerQueues::new(PEER_QUEUE);
    let (sender, ended) = mpsc::channel(1);
    let folder = log.folder().to_owned();
    let on_fatal = move |error: FatalError| match error {
        error if error.ends_in_order() => drop(sender.try_send(error)),
        FatalError::Store(ref full) if full.is_no_room() => {
            let folder = folder.display();
            tracing::error!(%folder, "the disk of the state folder is full: make room and start the node again");
            consensus::abort(error);
        }
        error => consensus::abort(error),
    };
    let config = ConsensusConfig { on_fatal: Arc::new(on_fatal), ..ConsensusConfig::default() };
    let consensus = Consensus::start(config, log, machine, queues.clone())?;
    let (table, leaving, quorum) = (StatusTable::default(), Leaving::default(), Quorum::default());
    Ok((VoterParts { consensus, state, table, leaving, quorum }, queues, ended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::consensus::ProposeError;
    use std::time::Duration;
    use tokio::time::timeout;

    const BOUND: Duration = Duration::from_secs(60);

    /// The voter of a cluster of one, whose log a newer version wrote.
    #[tokio::test]
    async fn a_voter_ends_in_order_at_an_entry_that_it_can_not_read_and_so_does_its_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: Uuid::new_v4(), name: "h1".to_owned(), raft_id: 1 };
        let log = LogStore::bootstrap(dir.path(), identity, &State::default().snapshot()).unwrap();
        let (parts, _, mut ended) = start_voter(log).unwrap();
        let consensus = parts.consensus;
        let applied = consensus.status().borrow().applied;
        let answer = timeout(BOUND, consensus.propose(b"of a newer version".to_vec())).await;
        assert_eq!(answer.expect("an answer"), Err(ProposeError::Stopped));
        let why = timeout(BOUND, ended.recv()).await.expect("an end").expect("a reason");
        let said = ClusterError::from(why).to_string();
        let entry = format!("the entry at revision {} of the log can't be read: ", applied + 1);
        assert!(said.starts_with(&entry), "{said}");
        assert_eq!(parts.state.read(State::revision), 0, "nothing of it was applied");
        consensus.shutdown().await;

        let log = LogStore::open(dir.path(), None).unwrap().expect("a log");
        let again = start_voter(log).map(drop).unwrap_err();
        assert_eq!(again.to_string(), said);
    }

    #[tokio::test]
    async fn a_voter_whose_snapshot_is_newer_does_not_start_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: Uuid::new_v4(), name: "h1".to_owned(), raft_id: 1 };
        let mut snapshot = State::default().snapshot();
        let format = snapshot.iter().position(|byte| *byte == 4).expect("its format");
        snapshot[format] = 99;
        let log = LogStore::bootstrap(dir.path(), identity, &snapshot).unwrap();
        let said = start_voter(log).map(drop).unwrap_err().to_string();
        assert!(said.starts_with("the snapshot at revision 1 can't be read: "), "{said}");
        assert!(said.contains("Install the newer version"), "{said}");
    }
}
