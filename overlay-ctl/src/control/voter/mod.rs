//! What only a voter has: the replicated state behind consensus, the statuses that nodes report, and the
//! duties of the leader.

mod leaving;
mod machine;
mod members;
mod statuses;

pub use leaving::{Leaving, LeavingHold};
pub use machine::{Machine, SharedState};
pub use members::follow_the_rows;
pub use statuses::{NODE_DOWN_AFTER, StatusTable, to_wire};

use crate::control::consensus::Consensus;

/// The voter's half of a node: what an agent does not have.
#[derive(Clone)]
pub struct VoterParts {
    /// The log.
    pub consensus: Consensus<Machine>,
    /// What it makes.
    pub state: SharedState,
    /// Who programmed what.
    pub table: StatusTable,
    /// Who is being removed.
    pub leaving: Leaving,
}
