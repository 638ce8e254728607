//! Who belongs to the cluster.

use raft::{
    ProgressState, StateRole,
    eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2},
};

use super::{Core, Reply, Waiter, WaiterKind};
use crate::control::consensus::{ProposeError, StateMachine};

impl<S: StateMachine> Core<S> {
    /// Makes `id` a member without a vote. Already a member: nothing to do.
    pub fn add_learner(&mut self, id: u64, reply: Reply<u64>) {
        let members = self.members();
        // For the engine, adding a voter as a learner takes its vote away.
        let known = members.voters.contains(&id) || members.learners.contains(&id);
        if known && self.node.raft.state == StateRole::Leader {
            drop(reply.send(Ok(self.applied)));
            return;
        }
        self.change(ConfChangeType::AddLearnerNode, id, reply);
    }

    /// Removes the member `id`. Not a member: nothing to do.
    ///
    /// A leader asked to remove itself hands over instead and answers
    /// [`ProposeError::NotLeader`] with its successor, which is to be asked next.
    pub fn remove(&mut self, id: u64, reply: Reply<u64>) {
        if self.node.raft.state == StateRole::Leader {
            let members = self.members();
            if !members.voters.contains(&id) && !members.learners.contains(&id) {
                drop(reply.send(Ok(self.applied)));
                return;
            }
            if members.voters == [id] {
                let error = ProposeError::Refused("it is the only voter".into());
                drop(reply.send(Err(error)));
                return;
            }
            if id == self.id() {
                let leader = self.hand_over();
                drop(reply.send(Err(ProposeError::NotLeader { leader })));
                return;
            }
        }
        self.change(ConfChangeType::RemoveNode, id, reply);
    }

    /// Asks the voter that is furthest, of those heard lately, to lead from now on; `None` when
    /// there is none.
    pub fn hand_over(&mut self) -> Option<u64> {
        if self.node.raft.state != StateRole::Leader {
            return None;
        }
        let voters = self.members().voters;
        let id = self.id();
        let horizon = self.horizon();
        let others = self.node.raft.prs().iter().filter(|(peer, _)| {
            **peer != id && voters.contains(peer) && self.heard.get(peer) >= Some(&horizon)
        });
        let next = others.max_by_key(|(peer, progress)| (progress.matched, **peer));
        let next = next.map(|(peer, _)| *peer)?;
        self.node.transfer_leader(next);
        Some(next)
    }

    /// A leader may find its own removal in the log that it inherited. The engine would go on
    /// leading without a place among the members, and panic at the next commit.
    pub(super) fn step_down_if_removed(&mut self) {
        let (id, term) = (self.id(), self.node.raft.term);
        let leads = self.node.raft.state == StateRole::Leader;
        if leads && self.node.raft.prs().get(id).is_none() {
            tracing::info!("stepping down: no longer a member");
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Promotes a learner that has caught up, one at a time, while voters are wanted.
    pub(super) fn promote(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || raft.has_pending_conf() {
            return;
        }
        let members = self.members();
        if members.voters.len() >= self.config.max_voters || !members.voters_outgoing.is_empty() {
            return;
        }
        let last = raft.raft_log.last_index();
        let caught_up = |id: &u64| {
            raft.prs().get(*id).is_some_and(|progress| {
                progress.recent_active
                    && progress.state == ProgressState::Replicate
                    && progress.matched + self.config.promote_distance >= last
            })
        };
        if let Some(id) = members.learners.iter().copied().filter(caught_up).min() {
            tracing::info!(id, "promoting a learner that has caught up");
            if let Err(error) = self.propose_change(ConfChangeType::AddNode, id) {
                tracing::debug!(id, %error, "promotion postponed");
            }
        }
    }

    fn change(&mut self, kind: ConfChangeType, id: u64, reply: Reply<u64>) {
        if self.node.raft.state != StateRole::Leader {
            drop(reply.send(Err(ProposeError::NotLeader { leader: self.leader() })));
            return;
        }
        // The commands that came first go first.
        self.flush_proposals();
        let index = self.node.raft.raft_log.last_index() + 1;
        let term = self.node.raft.term;
        match self.propose_change(kind, id) {
            Ok(()) => {
                self.waiters.insert(index, Waiter { term, kind: WaiterKind::Members(reply) });
            }
            Err(_) => drop(reply.send(Err(ProposeError::Overloaded))),
        }
    }

    fn propose_change(&mut self, kind: ConfChangeType, id: u64) -> raft::Result<()> {
        let single = ConfChangeSingle { change_type: kind as i32, node_id: id };
        let change = ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() };
        self.node.propose_conf_change(Vec::new(), change)
    }
}
