//! What the thread of consensus is asked about the members.

use super::{Consensus, Request};
use crate::control::consensus::{ProposeError, StateMachine};

impl<S: StateMachine> Consensus<S> {
    /// Adds `id` as a learner (a member without a vote), and returns the index of that change. The leader later
    /// makes voters of learners, two at a time, so that the number of voters stays odd.
    ///
    /// # Errors
    /// See [`ProposeError`]; `Refused` while another change is under way.
    pub async fn add_learner(&self, id: u64) -> Result<u64, ProposeError> {
        self.ask(|reply| Request::AddLearner(id, reply)).await
    }

    /// Removes the member `id`, and returns an index at which it is no longer a member: from there on the others
    /// decide without it, and it may be told. The removal may take several changes. Dropping the future stops it
    /// before the next change.
    ///
    /// # Errors
    /// See [`ProposeError`]; `Refused` for the only voter if no learner can take over; `NotLeader` with the
    /// successor if the leader is asked to remove itself.
    pub async fn remove(&self, id: u64) -> Result<u64, ProposeError> {
        self.ask(|reply| Request::Remove(id, reply)).await
    }

    /// As [`Self::remove`], but a voter leaves only if a learner gets its vote in the same change.
    ///
    /// # Errors
    /// As [`Self::remove`]; [`ProposeError::Refused`] if no learner that is up holds the log.
    pub async fn replace(&self, id: u64) -> Result<u64, ProposeError> {
        self.ask(|reply| Request::Replace(id, reply)).await
    }
}
