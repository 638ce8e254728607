//! What this node has as a voter, while it is one.

use super::VoterParts;
use tokio::sync::watch;

/// The node's own seat: what it has as a voter, for as long as it is one. It is filled and emptied while the node runs.
/// Clones share it.
#[derive(Clone, Default)]
pub struct Seat(watch::Sender<Option<VoterParts>>);

impl Seat {
    /// What the node has as a voter now; `None` = it is an agent.
    #[must_use]
    pub fn get(&self) -> Option<VoterParts> {
        self.0.borrow().clone()
    }

    /// Fills the seat, or empties it.
    pub fn set(&self, voter: Option<VoterParts>) {
        self.0.send_replace(voter);
    }

    /// Changes with each [`Self::set`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<VoterParts>> {
        self.0.subscribe()
    }
}

impl From<Option<VoterParts>> for Seat {
    fn from(voter: Option<VoterParts>) -> Self {
        Self(watch::Sender::new(voter))
    }
}
