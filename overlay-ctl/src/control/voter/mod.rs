//! What only a voter has: the replicated state behind consensus, the statuses that nodes report, and the
//! duties of the leader.

pub(super) mod disk;
mod divergence;
mod hashes;
pub(super) mod leases;
mod leaving;
mod machine;
pub(super) mod members;
mod quorum;
mod seat;
pub(super) mod seats;
mod signs;
mod silent;
mod statuses;
mod taking_back;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod version;
mod watchers;

pub use disk::{watch_the_disk, with_disk};
pub use divergence::{compare_the_states, heed_the_comparison};
pub use hashes::{Hashes, Verdict};
pub use leases::keep_leases;
pub use leaving::{Leaving, LeavingHold};
pub use machine::{Machine, SharedState};
pub use members::follow_the_rows;
pub use quorum::{LAPSE, Quorum};
pub use seat::Seat;
pub use seats::arrange_the_seats;
pub use signs::Signs;
pub use silent::watch_the_nodes;
pub use statuses::{NODE_DOWN_AFTER, StatusTable, to_wire};
pub use taking_back::take_endpoints_back;
pub use version::{Blocker, raise_the_version};
pub use watchers::{WatcherHold, Watchers};

use crate::{
    control::{
        consensus::{Consensus, ProposeError},
        state::{Command, Mutation, Outcome},
    },
    model::Revision,
};
use uuid::Uuid;

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

impl VoterParts {
    /// Logs a command of the leader's own, and answers its revision and outcome once it is applied here.
    async fn propose(&self, command: Command) -> Result<(Revision, Outcome), ProposeError> {
        let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
        let entry = self.state.read(|state| state.entry(request, command)).encode();
        let entry =
            entry.unwrap_or_else(|error| unreachable!("the types of an entry all encode: {error}"));
        self.consensus.propose(entry).await
    }
}
