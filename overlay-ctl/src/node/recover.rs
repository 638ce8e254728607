//! `overlay cluster recover`: makes a voter that has lived on the only one of its cluster, after the majority is lost for good.
//!
//! All that its log has counts, also what it does not know to be committed: the voters that are lost may have acknowledged it.

#[cfg(test)]
mod tests;

use super::{
    Home, HomeError, Record,
    asked::{Answering, ask},
    begin::{ClockError, First, FirstError, seconds},
    error::ClusterError,
};
use crate::{
    config::ClusterRecoverArgs,
    control::{
        consensus::{FatalError, LogStore, OpenError, Rest, StoreError, Voting},
        peers::Peer,
        state::State,
    },
    durable::FileError,
    faces::cli::Begun,
    model::{Generation, Node, NodeId, NodeName, RaftId},
    proto::v1::{NodeRole, StatusResponse},
};
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

/// Why nothing was recovered. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is no node in the folder.
    #[error("the state folder {} holds no member of a cluster: give the one of a voter with --state-dir", .0.display())]
    NoMember(PathBuf),
    /// The node in it is an agent.
    #[error(
        "node {name} is an agent, which has no log to go on with: recover on a voter that has lived on, or restore a backup (`overlay cluster restore`)"
    )]
    Agent {
        /// The node's name.
        name: NodeName,
    },
    /// The node in it has no vote.
    #[error(
        "node {name} has the log and no vote, so that its log may lack what was acknowledged: recover on a voter that has lived on, or restore a backup (`overlay cluster restore`)"
    )]
    Learner {
        /// The node's name.
        name: NodeName,
    },
    /// There is no need.
    #[error(
        "node {name} is the only voter: it needs no others, so start it with `overlay node run`"
    )]
    Alone {
        /// The node's name.
        name: NodeName,
    },
    /// The cluster decides without this node.
    #[error(
        "a majority of the voters lives: {answer} answers and knows a leader, {leader}; start this node with `overlay node run`"
    )]
    Led {
        /// The node that answered.
        answer: Answering,
        /// The leader's name.
        leader: String,
    },
    /// The cluster will decide as soon as this node runs.
    #[error("a majority of the voters lives: with node {name}, {} of {voters} do ({}); start it with `overlay node run`", .answers.len() + 1, listed(.answers))]
    Majority {
        /// The node's name.
        name: NodeName,
        /// How many vote.
        voters: usize,
        /// The voters that answered.
        answers: Vec<Answering>,
    },
    /// The cluster was recovered or restored already.
    #[error(
        "{answer} answers and is of generation {theirs} of the cluster, newer than this node's, {ours}: the cluster has been recovered or restored already; start this node with `overlay node run --join` and an address there"
    )]
    Newer {
        /// The node that answered.
        answer: Answering,
        /// Its generation.
        theirs: Generation,
        /// The log's.
        ours: Generation,
    },
    /// A node that answered was served with more than the log has.
    #[error(
        "{answer} knows revision {known}, and this log ends at {end}, so that what was decided after it would be lost: recover on a voter with a later log (`overlay cluster status` shows where each ends), or accept the loss with --accept-loss"
    )]
    Behind {
        /// The node that answered.
        answer: Answering,
        /// The revision of its view.
        known: u64,
        /// The last index of the log.
        end: u64,
    },
    /// The cluster has removed the node.
    #[error(
        "node {name} was removed from the cluster, so that nothing can go on from it: recover on a voter that has lived on"
    )]
    Removed {
        /// The node's name.
        name: NodeName,
    },
    /// The host's clock is wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The folder can't be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The log can't be used.
    #[error("the log can't be used, so that nothing can go on from it")]
    Log(#[from] OpenError),
    /// What is in the log can't be read.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The log can't be read.
    #[error("the log can't be read")]
    Store(#[from] StoreError),
    /// The folder can't be written. The log is the one before, or the new one.
    #[error("the node was not recovered")]
    Write(#[from] FirstError),
}

impl From<FileError> for RecoverError {
    fn from(error: FileError) -> Self {
        Self::Home(error.into())
    }
}

fn listed(answers: &[Answering]) -> String {
    answers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Makes the voter with this state folder the only one of its cluster.
///
/// # Errors
/// See [`RecoverError`].
pub async fn recover(args: ClusterRecoverArgs) -> Result<Begun, RecoverError> {
    let now = seconds()?;
    let ClusterRecoverArgs { state_dir: dir, accept_loss } = args;
    let Some(record) = Home::record_in(&dir)? else { return Err(RecoverError::NoMember(dir)) };
    let Record { name, member, removed, .. } = record;
    let Some(member) = member else { return Err(RecoverError::NoMember(dir)) };
    if removed {
        return Err(RecoverError::Removed { name });
    }
    if !member.voter {
        return Err(RecoverError::Agent { name });
    }
    let home = Home::open(&dir, &name)?;
    let log = LogStore::open(&dir, Some(member.cluster))?;
    let log = log.ok_or_else(|| OpenError::Amnesia {
        path: dir.clone(),
        raft_id: member.life().map_or(member.id, RaftId::get),
        detail: "the log is missing".to_owned(),
    })?;
    let rest = log.rest()?;
    let state = replayed(&log, &rest)?;
    if state.node(member.id).is_none() {
        return Err(RecoverError::Removed { name });
    }
    let own = log.identity().raft_id;
    if !rest.latest.has(own) && !rest.committed.has(own) {
        return Err(RecoverError::Learner { name });
    }
    let places = places(&home, &state, member.id)?;
    let ours = Generation::from_wire(log.generation());
    let answers = ask(member.cluster, ours, places).await;
    check_lost(&name, own, ours, &rest.committed, &state, &answers)?;
    if !accept_loss {
        check_latest(ours, log.last(), &answers)?;
    }
    let (known, term) = (state.revision(), rest.term + 1);
    let state = state.recovered(member.id, ours.next(now));
    // The database is closed before its file is replaced.
    drop(log);
    let first = First { cluster: member.cluster, member: &member, state: &state, known, term };
    first.write(&home, true)?;
    Ok(first.told(&home))
}

/// The state after all that the log has.
pub(crate) fn replayed(log: &LogStore, rest: &Rest) -> Result<State, RecoverError> {
    let index = log.snapshot_metadata().index;
    let unreadable = |index, why: String| {
        RecoverError::Cluster(ClusterError::from(FatalError::Unreadable { index, why }))
    };
    let mut state = State::from_snapshot(&log.snapshot_data()?)
        .map_err(|error| unreadable(index, error.to_string()))?;
    for (index, command) in &rest.commands {
        let entry = State::read(command).map_err(|why| unreadable(*index, why.to_string()))?;
        // A refusal is an outcome like any other.
        drop(state.apply(*index, entry));
    }
    Ok(state)
}

/// Where the other nodes may be: at all places that the folder and the rows know.
fn places(home: &Home, state: &State, own: NodeId) -> Result<BTreeSet<SocketAddr>, RecoverError> {
    let kept = home.peers()?.into_iter();
    let rows = state.nodes().map(Peer::from);
    let own_row = state.node(own).map(|node| node.listen);
    let others = kept.chain(rows).filter(|peer| peer.id != own).map(|peer| peer.listen);
    Ok(others.filter(|place| Some(*place) != own_row).collect())
}

/// Fails if the nodes that answered show that the cluster goes on, or can.
pub(crate) fn check_lost(
    name: &NodeName,
    own: u64,
    ours: Generation,
    voting: &Voting,
    state: &State,
    answers: &[(SocketAddr, StatusResponse)],
) -> Result<(), RecoverError> {
    if *voting == Voting::of([own].into()) {
        return Err(RecoverError::Alone { name: name.clone() });
    }
    let mut living = Vec::new();
    let mut counted = BTreeSet::from([own]);
    for (place, status) in answers {
        let answer = Answering::new(*place, status);
        let theirs = Generation::from_wire(status.generation);
        if theirs > ours {
            return Err(RecoverError::Newer { answer, theirs, ours });
        }
        if !status.leader.is_empty() {
            return Err(RecoverError::Led { answer, leader: status.leader.clone() });
        }
        // It had a seat as far as this log goes, and let go of its own log since.
        if status.role() == NodeRole::Agent {
            continue;
        }
        // By its row, or by its id as before Raft ids were others.
        let life = state.node(status.node_id).and_then(Node::life);
        let life = life.map_or(status.node_id, RaftId::get);
        if voting.has(life) && counted.insert(life) {
            living.push(answer);
        }
    }
    if voting.is_quorum(&counted) {
        let (name, voters) = (name.clone(), voting.voters.union(&voting.outgoing).count());
        return Err(RecoverError::Majority { name, voters, answers: living });
    }
    Ok(())
}

/// Fails if a node that answers, whether it votes or not, knows a revision behind the end of the log: what a node knows was
/// committed, and the log lacks it. An answer of an earlier generation counts the revisions of another history.
pub(crate) fn check_latest(
    ours: Generation,
    end: u64,
    answers: &[(SocketAddr, StatusResponse)],
) -> Result<(), RecoverError> {
    let same = answers.iter().filter(|(_, it)| Generation::from_wire(it.generation) == ours);
    match same.max_by_key(|(_, status)| status.revision) {
        Some((place, status)) if status.revision > end => Err(RecoverError::Behind {
            answer: Answering::new(*place, status),
            known: status.revision,
            end,
        }),
        Some(_) | None => Ok(()),
    }
}
