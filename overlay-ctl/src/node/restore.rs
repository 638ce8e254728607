//! `overlay cluster restore`: makes the first node of a cluster from a backup.
//!
//! The cluster keeps its id, and the node keeps its name, its id and its endpoints. The generation rises, so that nobody takes
//! what is left of the cluster before for a part of this one.

#[cfg(test)]
mod tests;

use super::{
    Home, HomeError, Member, Record,
    asked::{Answering, ask},
    begin::{ClockError, First, FirstError, seconds},
    state_files,
};
use crate::{
    config::ClusterRestoreArgs,
    control::{
        backup::{self, Backup, BackupError},
        state::State,
    },
    faces::cli::Begun,
    model::{Generation, Invalid, Node, NodeName},
    proto::v1::StatusResponse,
};
use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Names that are listed.
const NAMED_MAX: usize = 16;
/// The least term of a restored log: what it says is newer than all that a mark, or another log of the cluster, can have. An
/// election takes a second, so that the terms before it last for ever.
const TERM_LEAST: u64 = 1 << 32;
/// Bits of the terms that each generation leaves to those before. Its number is the second in which it began.
const TERMS: u32 = 16;
/// What a file system has at its own root.
const LOST_AND_FOUND: &str = "lost+found";

/// Why nothing was restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The node's name is not valid.
    #[error(transparent)]
    Name(#[from] Invalid),
    /// The host's name can't be read.
    #[error("the host's name can't be read: give one with --name")]
    HostName(#[source] io::Error),
    /// The backup can't be used.
    #[error("{}: {why}", .file.display())]
    Backup {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: BackupError,
    },
    /// The backup is of another cluster.
    #[error("{}: it is of cluster {found}, not of {asked}: give the backup of that cluster, or another --cluster", .file.display())]
    AnotherCluster {
        /// The file.
        file: PathBuf,
        /// The backup's cluster.
        found: Uuid,
        /// The one that was asked for.
        asked: Uuid,
    },
    /// The backup knows no such node.
    #[error("{}: it knows no node {name}, but {known}: say with --name which of them this host is to be", .file.display())]
    NoSuchNode {
        /// The file.
        file: PathBuf,
        /// The name that was asked for.
        name: NodeName,
        /// The names that it has.
        known: String,
    },
    /// The cluster decides.
    #[error(
        "the cluster lives: {answer} answers and knows a leader, {leader}; let this host join it with `overlay node run --join`, or end its nodes first"
    )]
    Lives {
        /// The node that answered.
        answer: Answering,
        /// The leader's name.
        leader: String,
    },
    /// The cluster was restored or recovered since the backup was made.
    #[error(
        "{answer} answers and is of generation {theirs} of the cluster, newer than the backup's, {ours}: the cluster has been recovered or restored already; let this host join it with `overlay node run --join`"
    )]
    Restored {
        /// The node that answered.
        answer: Answering,
        /// Its generation.
        theirs: Generation,
        /// The backup's.
        ours: Generation,
    },
    /// The folder is in use.
    #[error("the state folder {} {holds}: a restore needs an empty one; give another --state-dir, or, if that node is to be given up, run `overlay node reset` first", .dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
        /// What it holds.
        holds: String,
    },
    /// The folder can't be read.
    #[error("can't read the state folder {}", .dir.display())]
    Unreadable {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The host's clock is wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The folder can't be locked.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The folder can't be written. What was written is removed again.
    #[error("nothing was restored")]
    Write(#[from] FirstError),
}

/// Makes the first node of a cluster from a backup.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(args: ClusterRestoreArgs) -> Result<Begun, RestoreError> {
    let ClusterRestoreArgs { file, state_dir, name: _, cluster } = &args;
    let name: NodeName = args.node_name().map_err(RestoreError::HostName)?.parse()?;
    check_empty(state_dir)?;
    let now = seconds()?;
    let failed = |why| RestoreError::Backup { file: file.clone(), why };
    let read = File::open(file).map_err(BackupError::from).and_then(backup::read);
    let Backup { head, state } = read.map_err(failed)?;
    if let Some(asked) = *cluster
        && asked != head.cluster
    {
        let (file, found) = (file.clone(), head.cluster);
        return Err(RestoreError::AnotherCluster { file, found, asked });
    }
    let Ok(node) = state.node_named(&name) else {
        let known = names(&state);
        return Err(RestoreError::NoSuchNode { file: file.clone(), name, known });
    };
    let places = state.nodes().map(|node| node.listen).collect();
    let greatest = check_dead(head.generation, ask(head.cluster, head.generation, places).await)?;
    let (id, instance) = (node.id, Uuid::from_bytes(node.instance));
    let known = state.revision();
    let state = state.restored(id, greatest.next(now));
    let Some(Node { epoch, raft_id, .. }) = state.node(id).cloned() else {
        unreachable!("a restore removes no row")
    };
    let member = Member { cluster: head.cluster, id, voter: true, epoch, raft_id };
    let record = Record { name, instance, member: Some(member.clone()), removed: false };
    // A crash from here on leaves a voter without a log, which does not start.
    let home = Home::make(state_dir, record)?;
    let term = first_term(state.generation());
    let first = First { cluster: head.cluster, member: &member, state: &state, known, term };
    if let Err(error) = first.write(&home, false) {
        // What stays is refused by every start.
        drop(state_files::clear(state_dir));
        return Err(error.into());
    }
    Ok(first.told(&home))
}

/// The term in which the log of a restored generation begins.
pub(crate) fn first_term(generation: Generation) -> u64 {
    (generation.number() << TERMS).max(TERM_LEAST)
}

/// Fails if a node that answered shows that the cluster lives. Returns the greatest generation that is known: agents may be of
/// one that began after the backup was made, and was lost, too.
pub(crate) fn check_dead(
    ours: Generation,
    answers: Vec<(SocketAddr, StatusResponse)>,
) -> Result<Generation, RestoreError> {
    let mut greatest = ours;
    for (place, status) in answers {
        let answer = Answering::new(place, &status);
        let theirs = Generation::from_wire(status.generation);
        if !status.leader.is_empty() {
            return Err(if theirs > ours {
                RestoreError::Restored { answer, theirs, ours }
            } else {
                RestoreError::Lives { answer, leader: status.leader }
            });
        }
        greatest = greatest.max(theirs);
    }
    Ok(greatest)
}

fn names(state: &State) -> String {
    let mut names: Vec<&str> = state.nodes().map(|node| node.name.as_str()).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

/// Fails unless the folder is empty, or not there.
fn check_empty(dir: &Path) -> Result<(), RestoreError> {
    let unreadable = |source| RestoreError::Unreadable { dir: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(unreadable)?,
    };
    let mut found = None;
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        if name != LOST_AND_FOUND {
            found = Some(name);
        }
    }
    let Some(found) = found else { return Ok(()) };
    let holds = match Home::record_in(dir) {
        Ok(Some(Record { name, member: Some(member), .. })) => {
            format!("is that of node {name} of cluster {}", member.cluster)
        }
        Ok(Some(Record { name, .. })) => format!("is that of node {name}"),
        _ => format!("is not empty ({found} is in it)"),
    };
    Err(RestoreError::NotEmpty { dir: dir.to_owned(), holds })
}
