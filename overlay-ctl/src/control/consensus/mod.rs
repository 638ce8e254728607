//! Replicates commands to every voter and applies them in one order.
//!
//! The engine is `raft`; storage, transport, membership and snapshots are ours. From the inside out:
//!
//! - [`storage`]: the durable log, one redb transaction a Ready, guarded by [`identity`];
//! - [`core`]: the node without threads, clocks or sockets. Messages, ticks and requests go in,
//!   messages and answers come out, so a test can run a whole cluster step by step;
//! - [`driver`]: the thread that feeds the core, and [`Consensus`], the handle everybody else holds;
//! - [`transport`]: where outgoing messages wait for the network.
//!
//! Invariants:
//!
//! - A message that promises something (a vote, an acknowledged entry) leaves after the transaction
//!   that makes it true is on disk.
//! - An answer to [`Consensus::propose`] leaves after the command is applied and published.
//! - A failed write ends the process: what the disk holds is unknown then, and only a restart that
//!   reads it again may vote.
//! - A node acts on a membership change only once the commit that made it effective is on disk, so
//!   that a restart can never fall back to an older, smaller quorum.

mod codec;
pub mod core;
pub mod driver;
#[cfg(test)]
pub(crate) mod golden;
pub mod identity;
mod reads;
mod recovery;
pub mod storage;
pub mod transport;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{
    core::Core,
    driver::Consensus,
    identity::Identity,
    storage::{LogStore, OpenError},
    transport::{Outgoing, PeerQueues, Transport, Undeliverable},
};

/// What consensus replicates. It lives in memory and is rebuilt from a snapshot and the log.
pub trait StateMachine: Send + 'static {
    /// The answer to one command.
    type Outcome: Clone + Send + 'static;

    /// A snapshot that was read and found good.
    type Snapshot: Send + 'static;

    /// Applies one committed command. Deterministic: no clock, no randomness, no I/O.
    /// `index` is its Raft index, which is the revision.
    fn apply(&mut self, index: u64, command: &[u8]) -> Self::Outcome;

    /// The members became these at `index`. In a joint configuration `outgoing` are those who voted before
    /// it, and vote in it too. Also called at start and after [`Self::restore`].
    fn membership(&mut self, index: u64, voters: &[u64], outgoing: &[u64], learners: &[u64]);

    /// The whole state, in a form that any later version can [`Self::read_snapshot`].
    fn snapshot(&self) -> Vec<u8>;

    /// Reads a snapshot, which changes nothing yet.
    ///
    /// # Errors
    /// The bytes are not a snapshot that this version reads. From a peer it is refused, as any bad
    /// message is. From the node's own log it ends the process: going on without the state would answer
    /// wrongly.
    fn read_snapshot(snapshot: &[u8]) -> Result<Self::Snapshot, RestoreError>;

    /// Replaces the whole state.
    fn restore(&mut self, snapshot: Self::Snapshot);

    /// A batch was applied, the last entry at `index`: the place to publish. Called before the
    /// batch's proposals are answered, so that whoever gets an answer can read what it wrote.
    fn batch_applied(&mut self, index: u64);
}

/// Why a snapshot could not be restored.
pub type RestoreError = Box<dyn std::error::Error + Send + Sync>;

/// How the node behaves; the defaults suit a cluster in one place.
#[derive(Clone)]
pub struct ConsensusConfig {
    /// The length of one tick; everything below counts in ticks.
    pub tick: Duration,
    /// A follower that hears no leader this long, up to `max_election_ticks`, campaigns.
    pub election_ticks: usize,
    /// Exclusive upper bound of the randomised election timeout.
    pub max_election_ticks: usize,
    /// A leader sends heartbeats this often.
    pub heartbeat_ticks: usize,
    /// A read that no quorum confirmed after this long fails with [`ProposeError::NoQuorum`].
    pub read_ticks: u64,
    /// A snapshot whose delivery nobody reported counts as lost after this long.
    pub snapshot_ticks: u64,
    /// The log is compacted behind a new snapshot after this many entries.
    pub snapshot_every: u64,
    /// Entries kept behind a snapshot, so that a follower slightly behind needs no snapshot.
    pub keep_entries: u64,
    /// The leader promotes learners that have caught up, in pairs, until there are this many voters.
    pub max_voters: usize,
    /// A learner this close to the end of the log has caught up.
    pub promote_distance: u64,
    /// Limit of one append message, and of one command, in bytes.
    pub max_message_bytes: u64,
    /// Proposals are refused as [`ProposeError::Overloaded`] above this many uncommitted bytes.
    pub max_uncommitted_bytes: u64,
    /// Requests and messages that may wait for the driver.
    pub queue: usize,
    /// Tells this start of the node from every other: the default is drawn at random, since the core draws
    /// nothing itself.
    pub start: [u8; 16],
    /// What to do when the disk fails. The default logs and aborts; a test replaces it.
    pub on_fatal: FatalHook,
}

/// Called when the node can't go on. If it returns, the node stops and every request answers
/// [`ProposeError::Stopped`].
pub type FatalHook = Arc<dyn Fn(FatalError) + Send + Sync>;

/// The hook that is the default: logs the error and ends the process at once.
pub fn abort(error: FatalError) {
    tracing::error!(error = %error::chain(&error), "consensus can't go on, aborting");
    std::process::abort();
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(100),
            election_ticks: 10,
            max_election_ticks: 20,
            heartbeat_ticks: 2,
            read_ticks: 20,
            snapshot_ticks: 300,
            snapshot_every: 10_000,
            keep_entries: 1_000,
            max_voters: 3,
            promote_distance: 16,
            max_message_bytes: 1 << 20,
            max_uncommitted_bytes: 64 << 20,
            queue: 8_192,
            start: *uuid::Uuid::new_v4().as_bytes(),
            on_fatal: Arc::new(abort),
        }
    }
}

impl fmt::Debug for ConsensusConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsensusConfig")
            .field("tick", &self.tick)
            .field("election_ticks", &self.election_ticks)
            .field("heartbeat_ticks", &self.heartbeat_ticks)
            .field("snapshot_every", &self.snapshot_every)
            .finish_non_exhaustive()
    }
}

mod error {
    /// An error and its sources in one line.
    pub(super) fn chain(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader proposes. Nothing happened; ask `leader`, or wait for one.
    #[error("this node is not the leader")]
    NotLeader {
        /// Who leads, if this node knows.
        leader: Option<u64>,
    },
    /// The leader changed while the proposal was under way: it may or may not take effect.
    /// Retry with the same request id.
    #[error("the leader changed, the outcome is unknown")]
    Dropped,
    /// Too much waits already. Nothing happened.
    #[error("too many proposals are waiting")]
    Overloaded,
    /// No quorum confirmed the read in time.
    #[error("no quorum of the voters answers")]
    NoQuorum,
    /// The command can't be proposed at all.
    #[error("invalid proposal: {0}")]
    Invalid(&'static str),
    /// The membership change was refused. Nothing happened.
    #[error("membership change refused: {0}")]
    Refused(String),
    /// The node has stopped. A proposal that was under way may or may not take effect.
    #[error("consensus has stopped")]
    Stopped,
}

/// Why the node could not go on. What is on disk stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum FatalError {
    /// The log could not be read or written.
    #[error("the consensus log failed")]
    Store(#[from] storage::StoreError),
    /// The node's own snapshot can't be read.
    #[error("the snapshot at index {index} can't be restored")]
    Restore {
        /// The snapshot's index.
        index: u64,
        /// What the state machine said.
        source: RestoreError,
    },
    /// The engine refused what it must accept.
    #[error("raft failed")]
    Raft(#[from] raft::Error),
    /// The log is older than what this node acknowledged. Noted in the state folder, so that every later
    /// start fails with the same error.
    #[error(transparent)]
    Unfit(OpenError),
    /// The leader's log lacks what is committed here. What is here alone stays as it is.
    #[error(
        "the leader, node {leader}, has another entry at revision {index}, and here everything up to \
         revision {committed} is committed: a voter forgot what it had acknowledged, and the writes from \
         there on are in this node's state folder alone. Keep a copy of the folder; to go on without \
         those writes, remove the node from the cluster, move its state folder away and join again"
    )]
    Overwritten {
        /// Who leads.
        leader: u64,
        /// The first index at which the logs differ, of those that the leader sent.
        index: u64,
        /// The last index that is committed here.
        committed: u64,
    },
    /// A committed entry can't be decoded.
    #[error("the entry at index {index} is malformed")]
    Entry {
        /// The entry's index.
        index: u64,
        /// What the codec said.
        source: raft_prost::DecodeError,
    },
    /// The driver's thread could not start.
    #[error("can't start the consensus thread")]
    Thread(#[source] std::io::Error),
    /// The driver's thread panicked.
    #[error("the consensus thread panicked")]
    Panic,
}

/// A node's part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Orders proposals.
    Leader,
    /// Votes and follows.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote, or is no member (yet).
    Learner,
}

/// What a node knows of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// This node's raft id.
    pub id: u64,
    /// This node's part.
    pub role: Role,
    /// Who leads this term, if known.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// The last index applied here, which is the revision this node shows.
    pub applied: u64,
    /// The last index known to be committed.
    pub commit: u64,
    /// Who votes, in ascending order; while a joint change is under way, who is to vote after it.
    pub voters: Vec<u64>,
    /// Who voted before the joint change that is under way, and votes until it is over; else nobody.
    pub outgoing: Vec<u64>,
    /// Who follows without a vote, in ascending order.
    pub learners: Vec<u64>,
    /// How far the others are, as the leader sees it; empty elsewhere.
    pub peers: Vec<PeerStatus>,
}

/// How far one other member is, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member's raft id.
    pub id: u64,
    /// The last index it is known to hold.
    pub matched: u64,
    /// It was heard within the longest election timeout.
    pub recent_active: bool,
}
