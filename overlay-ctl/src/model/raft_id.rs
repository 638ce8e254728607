//! The id of one life of a node's log.

use serde::{Deserialize, Serialize};
use std::{fmt, num::NonZeroU64};

/// The id under which a node takes part in Raft, for one life of its log.
///
/// A node keeps its [`NodeId`](super::NodeId) for ever. Its Raft id lasts as long as its log: a node whose log was lost, or is
/// older than it was, may have forgotten a vote or what it acknowledged, so that this id must not vote again. It comes back
/// under another one. A Raft id is given out inside apply and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RaftId(NonZeroU64);

impl RaftId {
    /// The id with this number; `None` for 0, by which messages say that there is none.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The id that is given out after `last`.
    #[must_use]
    pub const fn after(last: Option<Self>) -> Self {
        match last {
            Some(Self(last)) => Self(last.saturating_add(1)),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
