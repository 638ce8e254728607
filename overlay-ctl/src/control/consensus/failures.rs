//! The reasons why a request is not carried out, and why a node can't go on.

use super::{Lack, OpenError, STALLED, storage};
use std::error::Error;

/// The reason why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader proposes. Nothing happened; the caller asks `leader`, or waits for one.
    #[error("this node is not the leader")]
    NotLeader {
        /// The leader, if this node knows it.
        leader: Option<u64>,
    },
    /// The leader changed while the proposal was under way, so it may or may not take effect. The caller retries
    /// with the same request id.
    #[error("the leader changed, the outcome is unknown")]
    Dropped,
    /// Too many requests wait already. Nothing happened.
    #[error("too many proposals are waiting")]
    Overloaded,
    /// The leader's state folder has no room. Nothing happened.
    #[error("{0}")]
    NoRoom(Lack),
    /// A majority of the voters answers this leader and takes no entries.
    #[error("{}", STALLED)]
    Stalled {
        /// The proposal is in the leader's log and may take effect. Otherwise nothing happened.
        is_logged: bool,
    },
    /// No quorum confirmed the read in time.
    #[error("no quorum of the voters answers")]
    NoQuorum,
    /// The command cannot be proposed, for example because it is too large.
    #[error("invalid proposal: {0}")]
    Invalid(&'static str),
    /// The membership change was refused. Nothing happened.
    #[error("membership change refused: {0}")]
    Refused(String),
    /// The node has stopped. A proposal that was under way may or may not take effect.
    #[error("consensus has stopped")]
    Stopped,
}

impl ProposeError {
    /// The reasons in a word each.
    pub const REASONS: [&str; 9] = [
        "not_leader",
        "dropped",
        "overloaded",
        "no_room",
        "stalled",
        "no_quorum",
        "invalid",
        "refused",
        "stopped",
    ];

    /// The reason in a word, one of [`Self::REASONS`].
    #[must_use]
    pub fn reason(&self) -> &'static str {
        let [
            not_leader,
            dropped,
            overloaded,
            no_room,
            stalled,
            no_quorum,
            invalid,
            refused,
            stopped,
        ] = Self::REASONS;
        match self {
            Self::NotLeader { .. } => not_leader,
            Self::Dropped => dropped,
            Self::Overloaded => overloaded,
            Self::NoRoom(_) => no_room,
            Self::Stalled { .. } => stalled,
            Self::NoQuorum => no_quorum,
            Self::Invalid(_) => invalid,
            Self::Refused(_) => refused,
            Self::Stopped => stopped,
        }
    }
}

/// The reason why a committed command was not applied. The node must not go on: on the other voters the command may have
/// taken effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// This version can't read the command. Nothing of it was applied.
    #[error("{0}")]
    Unreadable(String),
}

/// The reason why a snapshot could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A newer version made the snapshot.
    #[error("{0}")]
    Newer(String),
    /// The bytes are not a snapshot.
    #[error(transparent)]
    Damaged(Box<dyn Error + Send + Sync>),
}

/// The reason why the node could not go on. The files on disk are left as they are.
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
        /// The state machine's error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The Raft engine refused something that it must accept.
    #[error("raft failed")]
    Raft(#[from] raft::Error),
    /// The log is older than what this node acknowledged. The state folder has a note of it, so that every later
    /// start fails with the same error.
    #[error(transparent)]
    Unfit(OpenError),
    /// The leader's log lacks entries that are committed here. The entries that only this node has are kept.
    #[error(
        "the leader, node {leader}, has another entry at revision {index}, and here everything up to \
         revision {committed} is committed: a voter forgot what it had acknowledged, and the writes from \
         there on are in this node's state folder alone. Keep a copy of the folder; to go on without \
         those writes, remove the node from the cluster, move its state folder away and join again"
    )]
    Overwritten {
        /// The leader.
        leader: u64,
        /// The first index at which the logs differ, of those that the leader sent.
        index: u64,
        /// The last committed index of this node.
        committed: u64,
    },
    /// The state of this node is another one than that of a majority of the voters. The state folder has a note of it, so that
    /// the log is not used again.
    #[error(
        "at revision {revision} the state of this node is another one than that of a majority of the voters, though all applied the same log: this is a defect, or the memory of this machine fails. It does not vote any more, and comes back as another member, with the state of the majority"
    )]
    Differs {
        /// The revision before whose entry the states were found to differ.
        revision: u64,
    },
    /// This version can't read a committed command. The commands before it were applied and answered.
    #[error(
        "the entry at revision {index} of the log can't be read: {why}. Nothing of it was applied. Install the newer \
         version that wrote it; `overlay status` on another voter shows which one that is"
    )]
    Unreadable {
        /// The entry's index.
        index: u64,
        /// The state machine's reason.
        why: String,
    },
    /// A newer version made the snapshot that the leader sent, or the node's own.
    #[error(
        "the snapshot at revision {index} can't be read: {why}. Nothing of it was taken over. Install the newer version \
         that made it; `overlay status` on another voter shows which one that is"
    )]
    Newer {
        /// The snapshot's index.
        index: u64,
        /// The state machine's reason.
        why: String,
    },
    /// A membership change that is committed can't be decoded.
    #[error("the entry at index {index} is malformed")]
    Entry {
        /// The entry's index.
        index: u64,
        /// The codec's error.
        source: raft_prost::DecodeError,
    },
    /// The driver's thread could not start.
    #[error("can't start the consensus thread")]
    Thread(#[source] std::io::Error),
    /// The driver's thread panicked.
    #[error("the consensus thread panicked")]
    Panic,
}

impl FatalError {
    /// The error of a snapshot at `index` that the node can't do without.
    pub(super) fn of_snapshot(index: u64, error: RestoreError) -> Self {
        match error {
            RestoreError::Newer(why) => Self::Newer { index, why },
            RestoreError::Damaged(source) => Self::Restore { index, source },
        }
    }

    /// Returns true if the process is sound and the disk holds what it should: the node can end in order and say why. After
    /// any other error nothing may be promised any more, not even by what would run while the node ends in order.
    #[must_use]
    pub fn ends_in_order(&self) -> bool {
        match self {
            Self::Restore { .. }
            | Self::Unfit(_)
            | Self::Differs { .. }
            | Self::Overwritten { .. }
            | Self::Unreadable { .. }
            | Self::Newer { .. } => true,
            Self::Store(_) | Self::Raft(_) | Self::Entry { .. } | Self::Thread(_) | Self::Panic => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::consensus::storage::StoreError;

    #[test]
    fn a_node_ends_in_order_unless_the_disk_or_the_process_is_in_doubt() {
        let damaged = || RestoreError::Damaged("torn".into());
        let newer = || RestoreError::Newer("it has format 9".to_owned());
        let unreadable = FatalError::Unreadable { index: 7, why: "no such command".to_owned() };
        for error in
            [unreadable, FatalError::of_snapshot(7, newer()), FatalError::of_snapshot(7, damaged())]
        {
            assert!(error.ends_in_order(), "{error}");
        }
        let disk = FatalError::Store(StoreError::Mark(std::io::Error::other("no space left")));
        for error in [disk, FatalError::Panic] {
            assert!(!error.ends_in_order(), "{error}");
        }
    }
}
