//! Notices, while this node leads, that a majority of the voters answers and takes no entries.
//!
//! A voter without room does so (see [`super::room`]). If a majority does, the leader keeps its quorum, since heartbeats are
//! answered, and commits nothing. Callers are told so instead of waiting, and the log grows no further.

use super::{Core, WaiterKind};
use crate::control::consensus::{Alarm, ProposeError, StateMachine, alarm::STALLED};
use raft::{
    StateRole,
    eraftpb::{Message, MessageType},
};
use std::collections::BTreeMap;

/// What is known of the entries that are not committed.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// The term and the commit index of this leader while later entries wait, and the tick since which it is that one.
    waits: Option<((u64, u64), u64)>,
    /// The tick at which each member last answered a leader.
    answered: BTreeMap<u64, u64>,
    /// A majority takes no entries.
    is_found: bool,
}

impl<S: StateMachine> Core<S> {
    /// Whether a majority of the voters answers this leader and takes no entries.
    pub(super) fn is_stalled(&self) -> bool {
        self.stall.is_found
    }

    /// What this leader must be told of, if anything.
    pub(super) fn stall_alarm(&self) -> Option<Alarm> {
        self.is_stalled().then_some(Alarm::Stalled)
    }

    /// Notes that a member hears this leader. Who only asks for votes does not.
    pub(super) fn note_answer(&mut self, message: &Message) {
        let is_answer = matches!(
            message.get_msg_type(),
            MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse
        );
        if is_answer && message.term == self.node.raft.term {
            self.stall.answered.insert(message.from, self.ticks);
        }
    }

    /// Compares the commit index with what it was.
    pub(super) fn look_at_commits(&mut self) {
        let raft = &self.node.raft;
        let committed = raft.raft_log.committed;
        let waits = raft.state == StateRole::Leader && committed < raft.raft_log.last_index();
        let now = waits.then_some((raft.term, committed));
        if self.stall.waits.map(|(before, _)| before) != now {
            self.stall.waits = now.map(|now| (now, self.ticks));
        }
        let patience = self.config.max_election_ticks as u64;
        let is_late = self.stall.waits.is_some_and(|(_, since)| self.ticks >= since + patience);
        let was_found = self.stall.is_found;
        self.stall.is_found = is_late && (was_found || self.is_answered_by_a_majority());
        match (was_found, self.stall.is_found) {
            (false, true) => tracing::warn!(committed, "{STALLED}"),
            (true, false) => {
                tracing::info!(committed, "the log goes on, or this node leads no more")
            }
            _ => {}
        }
    }

    /// Fails the callers that wait for entries which a majority does not take. The entries stay in the log: they are
    /// committed when the majority takes them.
    pub(super) fn fail_if_stalled(&mut self) {
        if !self.is_stalled() {
            return;
        }
        let error = ProposeError::Stalled { is_logged: true };
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            waiter.fail(error.clone());
        }
        for reply in std::mem::take(&mut self.leaving).into_values().flatten() {
            WaiterKind::<S::Outcome>::Members(reply).fail(error.clone());
        }
    }

    /// Whether a majority answered so lately that it can't have been cut off since the entries began to wait.
    fn is_answered_by_a_majority(&self) -> bool {
        let horizon = self.ticks.saturating_sub(self.config.election_ticks as u64);
        let answered = |id: &&u64| {
            **id == self.id() || self.stall.answered.get(id).is_some_and(|tick| *tick >= horizon)
        };
        let members = self.members();
        [&members.voters, &members.voters_outgoing].into_iter().all(|voters| {
            voters.is_empty() || voters.iter().filter(answered).count() * 2 > voters.len()
        })
    }
}
