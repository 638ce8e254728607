//! Replicates commands to every voter, and applies them on every voter in the same order.
//!
//! The engine is `raft`; storage, transport, membership and snapshots are ours. From the inside out:
//!
//! - [`storage`]: the durable log, one redb transaction a Ready, guarded by [`identity`];
//! - [`core`]: the node without threads, clocks or sockets. Messages, ticks and requests go in,
//!   messages and answers come out, so a test can run a whole cluster step by step;
//! - [`driver`]: the thread that feeds the core, and [`Consensus`], the handle everybody else holds;
//! - [`transport`]: queues in which outgoing messages wait for the network.
//!
//! Invariants:
//!
//! - A message that promises something (a vote, an acknowledged entry) leaves after the transaction
//!   that makes it true is on disk.
//! - An answer to [`Consensus::propose`] leaves after the command is applied and published.
//! - A failed write ends the process, because what the disk holds is unknown then. Only a restart, which reads it
//!   again, may vote.
//! - A command or a snapshot of a newer version ends the node before anything of it is applied. What came before is
//!   applied and answered.
//! - A node acts on a membership change only after the commit of that change is on disk. A restart then never falls
//!   back to an older, smaller quorum.

mod alarm;
mod codec;
pub mod core;
mod difference;
pub mod driver;
mod error;
mod failures;
#[cfg(test)]
pub(crate) mod golden;
pub mod identity;
mod measures;
mod reads;
mod recovery;
pub mod storage;
pub mod transport;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    alarm::{Alarm, Lack, Room, STALLED},
    core::Core,
    difference::Difference,
    driver::Consensus,
    failures::{FatalError, ProposeError, RestoreError, Stop},
    identity::Identity,
    measures::{Clock, Contact, DiskTimes, Measures, Writes},
    storage::{Beginning, LogStore, OpenError, Rest, StoreError, Voting},
    transport::{Outgoing, PeerQueues, Transport, Undeliverable},
};

/// The state machine that consensus replicates. It lives in memory and is rebuilt from a snapshot and the log.
pub trait StateMachine: Send + 'static {
    /// The answer to one command.
    type Outcome: Clone + Send + 'static;

    /// A snapshot that was decoded and checked.
    type Snapshot: Send + 'static;

    /// Applies one committed command. Deterministic: no clock, no randomness, no I/O.
    /// `index` is its Raft index, which is the revision.
    ///
    /// # Errors
    /// The node must stop before this command. Nothing of it was applied.
    fn apply(&mut self, index: u64, command: &[u8]) -> Result<Self::Outcome, Stop>;

    /// The members of the cluster changed at `index`. `outgoing` is not empty in a joint configuration: it has the
    /// voters before the change, which vote until the change is complete. Also called at start and after
    /// [`Self::restore`].
    fn membership(&mut self, index: u64, voters: &[u64], outgoing: &[u64], learners: &[u64]);

    /// Encodes the whole state, in a form that any later version can [`Self::read_snapshot`].
    fn snapshot(&self) -> Vec<u8>;

    /// The least version that can [`Self::read_snapshot`] what [`Self::snapshot`] makes now. When it rises, a snapshot is
    /// stored at once, so that an earlier version does not start from the one before.
    fn snapshot_version(&self) -> u32 {
        0
    }

    /// How many members are to vote, as far as the state says; `None` = as [`ConsensusConfig::max_voters`] says.
    fn max_voters(&self) -> Option<usize> {
        None
    }

    /// Decodes a snapshot. The state does not change yet.
    ///
    /// # Errors
    /// The bytes are not a snapshot that this version reads. One that is newer ends the node, also from a peer: the peers
    /// go on with what this version can't read. One that is damaged is refused if it is from a peer, as any bad message
    /// is, and ends the node if it is from its own log: going on without the state would answer wrongly.
    fn read_snapshot(snapshot: &[u8]) -> Result<Self::Snapshot, RestoreError>;

    /// Replaces the whole state.
    fn restore(&mut self, snapshot: Self::Snapshot);

    /// A batch was applied, with its last entry at `index`; the state machine publishes its new state here. Called
    /// before the proposals of the batch are answered, so that a caller who has an answer can read what it wrote.
    fn batch_applied(&mut self, index: u64);
}

/// The settings of consensus. The defaults suit a cluster in one place.
#[derive(Clone)]
pub struct ConsensusConfig {
    /// The length of one tick; everything below counts in ticks.
    pub tick: Duration,
    /// A follower that hears no leader for this time, up to `max_election_ticks`, starts an election.
    pub election_ticks: usize,
    /// Exclusive upper bound of the randomised election timeout.
    pub max_election_ticks: usize,
    /// The interval of a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// A read that no quorum confirmed within this time fails with [`ProposeError::NoQuorum`].
    pub read_ticks: u64,
    /// A snapshot counts as lost if nobody reported its delivery within this time.
    pub snapshot_ticks: u64,
    /// The number of entries after which a new snapshot is made and the log is compacted.
    pub snapshot_every: u64,
    /// The number of entries that are kept behind a snapshot, so that a follower slightly behind needs no snapshot.
    pub keep_entries: u64,
    /// The number of voters, where the state machine says none. The leader makes voters, in pairs, of learners that have
    /// caught up, until it is reached.
    pub max_voters: usize,
    /// Limit of one append message, and of one command, in bytes.
    pub max_message_bytes: u64,
    /// Proposals are refused as [`ProposeError::Overloaded`] above this many uncommitted bytes.
    pub max_uncommitted_bytes: u64,
    /// The number of requests and messages that may wait for the driver.
    pub queue: usize,
    /// A snapshot for which there was no room is tried again after this time, and a leader without room hands over no
    /// more often. Also the longest pause before a follower that did not take a snapshot gets another.
    pub room_ticks: u64,
    /// No entries are taken, and proposals are refused as [`ProposeError::NoRoom`], if a snapshot waits for room and the
    /// entries since the last one have more bytes than this.
    pub log_bytes_max: u64,
    /// Distinguishes this start of the node from every other start. The default is random; it is a setting because
    /// the core itself draws no random number.
    pub start: [u8; 16],
    /// By which the core measures how long the disk takes. The default is the system's monotonic clock; it is a setting
    /// because the core itself reads no clock.
    pub clock: Clock,
    /// Called when the disk fails. The default logs and aborts; a test replaces it.
    pub on_fatal: FatalHook,
}

/// Called when the node cannot go on. If the hook returns, the node stops and every request is answered with
/// [`ProposeError::Stopped`].
pub type FatalHook = Arc<dyn Fn(FatalError) + Send + Sync>;

/// The default hook: logs the error and ends the process at once.
pub fn abort(error: FatalError) {
    tracing::error!(error = %error::chain(&error), "consensus can't go on, aborting");
    std::process::abort();
}

/// The time since the call.
fn monotonic() -> Clock {
    let began = Instant::now();
    Arc::new(move || began.elapsed())
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
            max_message_bytes: 1 << 20,
            max_uncommitted_bytes: 64 << 20,
            queue: 8_192,
            room_ticks: 600,
            log_bytes_max: 1 << 30,
            start: *uuid::Uuid::new_v4().as_bytes(),
            clock: monotonic(),
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

/// The role of a node in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Orders proposals.
    Leader,
    /// Votes and follows.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote, or is not yet a member.
    Learner,
}

/// The state of the cluster, as one node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// This node's raft id.
    pub id: u64,
    /// This node's role.
    pub role: Role,
    /// The leader of this term, if known.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// The last index applied here, which is the revision this node shows.
    pub applied: u64,
    /// The last index known to be committed.
    pub commit: u64,
    /// The term of the last entry on disk, committed or not; 0 if it can't be read. Of two logs the one of the later last term
    /// is the later one, and of one term the longer one.
    pub last_term: u64,
    /// The index of that entry.
    pub last_index: u64,
    /// The voters, in ascending order. While a joint change is under way: the voters after it.
    pub voters: Vec<u64>,
    /// While a joint change is under way: the voters before it, which vote until it is complete. Otherwise empty.
    pub outgoing: Vec<u64>,
    /// The learners (members without a vote), in ascending order.
    pub learners: Vec<u64>,
    /// The learners that have caught up with the log and could vote, in ascending order, as the leader knows it. Empty on
    /// other nodes.
    pub caught_up: Vec<u64>,
    /// The index of the stored snapshot; 0 if there is none.
    pub snapshot: u64,
    /// How long this node's disk takes.
    pub disk: DiskTimes,
    /// What an operator must see to.
    pub alarms: Vec<Alarm>,
    /// The progress of the other members, as the leader knows it. Empty on other nodes.
    pub peers: Vec<PeerStatus>,
}

/// The progress of one other member, as the leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member's raft id.
    pub id: u64,
    /// The last index that the member is known to have.
    pub matched: u64,
    /// True if the member was heard within the longest election timeout.
    pub recent_active: bool,
}
