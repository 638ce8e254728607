//! Proposals of commands, and the callers that wait for them.

use raft::{
    StateRole,
    eraftpb::{Entry, Message, MessageType},
};

use super::{Core, Reply, Waiter, WaiterKind};
use crate::control::consensus::{ProposeError, StateMachine};

impl<S: StateMachine> Core<S> {
    /// Queues a command; the next [`Self::pump`] proposes it.
    pub fn propose(&mut self, command: Vec<u8>, reply: Reply<(u64, S::Outcome)>) {
        let error = if self.node.raft.state != StateRole::Leader {
            ProposeError::NotLeader { leader: self.leader() }
        } else if command.is_empty() {
            ProposeError::Invalid("empty command")
        } else if command.len() as u64 > self.config.max_message_bytes {
            ProposeError::Invalid("command too large")
        } else {
            self.proposals.push((command, reply));
            return;
        };
        drop(reply.send(Err(error)));
    }

    /// Proposes the commands that wait, several in one message, so that they share appends and fsyncs.
    pub(super) fn flush_proposals(&mut self) {
        let mut queue = std::mem::take(&mut self.proposals).into_iter().peekable();
        while queue.peek().is_some() {
            let (mut entries, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((command, _)) = queue.peek() {
                bytes += command.len() as u64;
                if !entries.is_empty() && bytes > self.config.max_message_bytes {
                    break;
                }
                if let Some((data, reply)) = queue.next() {
                    entries.push(Entry { data, ..Entry::default() });
                    replies.push(reply);
                }
            }
            // A follower's engine would forward the proposal, which could then not be answered.
            let is_leader = self.node.raft.state == StateRole::Leader;
            if is_leader && let Err(error) = self.may_propose(&entries) {
                for reply in replies {
                    drop(reply.send(Err(error.clone())));
                }
                continue;
            }
            let first = self.node.raft.raft_log.last_index() + 1;
            let message =
                Message { msg_type: MessageType::MsgPropose as i32, entries, ..Message::default() };
            if is_leader && self.node.step(message).is_ok() {
                let term = self.node.raft.term;
                for (index, reply) in (first..).zip(replies) {
                    self.waiters.insert(index, Waiter { term, kind: WaiterKind::Command(reply) });
                }
                continue;
            }
            let error = self.why_not_proposed();
            for reply in replies {
                drop(reply.send(Err(error.clone())));
            }
        }
    }

    /// Why the engine took no proposal.
    pub(super) fn why_not_proposed(&self) -> ProposeError {
        let raft = &self.node.raft;
        match raft.lead_transferee {
            _ if raft.state != StateRole::Leader => {
                ProposeError::NotLeader { leader: self.leader() }
            }
            Some(next) => ProposeError::NotLeader { leader: Some(next) },
            None => ProposeError::Overloaded,
        }
    }

    /// Whether this leader can propose the entries; otherwise the error for their callers.
    fn may_propose(&mut self, entries: &[Entry]) -> Result<(), ProposeError> {
        if self.is_stalled() {
            return Err(ProposeError::Stalled { is_logged: false });
        }
        self.room_to_propose(entries)
    }

    /// Fails the proposals of a term that this node no longer leads, because another entry may take their place.
    /// Waiting for the outcome would mean waiting for a quorum that may not come.
    pub(super) fn fail_stale_waiters(&mut self) {
        if planted!(WaiterKept) {
            return;
        }
        let leads = self.node.raft.state == StateRole::Leader;
        let term = self.node.raft.term;
        let stale = self.waiters.extract_if(.., |_, waiter| !leads || waiter.term != term);
        for (_, waiter) in stale {
            waiter.fail(ProposeError::Dropped);
        }
    }
}
