//! What only a voter has: the replicated state behind consensus, the statuses that nodes report, and the
//! duties of the leader.

pub(super) mod disk;
mod leaving;
mod machine;
pub(super) mod members;
mod quorum;
mod silent;
mod statuses;
mod taking_back;
#[cfg(test)]
pub(super) mod tests;
mod version;
mod watchers;

pub use disk::watch_the_disk;
pub use leaving::{Leaving, LeavingHold};
pub use machine::{Machine, SharedState};
pub use members::follow_the_rows;
pub use quorum::{LAPSE, Quorum};
pub use silent::watch_the_nodes;
pub use statuses::{NODE_DOWN_AFTER, StatusTable, to_wire, with_disk};
pub use taking_back::take_endpoints_back;
pub use version::{Blocker, raise_the_version};
pub use watchers::{WatcherHold, Watchers};

use crate::control::consensus::Consensus;

/// The parts of a node that only a voter has. A clone is the same.
#[derive(Clone)]
pub struct VoterParts {
    /// The log.
    pub consensus: Consensus<Machine>,
    /// The state that the log makes.
    pub state: SharedState,
    /// What the nodes report.
    pub table: StatusTable,
    /// The lives that are being ended.
    pub leaving: Leaving,
    /// Whether this voter takes part in a quorum.
    pub quorum: Quorum,
}
