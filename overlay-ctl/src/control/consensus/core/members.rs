//! The membership of the cluster: additions, removals, and the leader's steps between them.

use std::collections::{BTreeMap, BTreeSet};

use raft::{
    ProgressState, StateRole,
    eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2},
};

use super::{
    Core, Reply, Waiter, WaiterKind,
    voters::{self, Change, Members, Step},
};
use crate::control::consensus::{ProposeError, StateMachine};

const NO_SUCCESSOR: &str =
    "no learner that is up holds the whole log, so that nobody could take over the vote";

impl<S: StateMachine> Core<S> {
    /// Adds `id` as a learner, a member without a vote. Does nothing if it is a member already.
    pub fn add_learner(&mut self, id: u64, reply: Reply<u64>) {
        let members = self.members();
        // The engine would take the vote away if a voter were added as a learner.
        let known = members.voters.contains(&id) || members.learners.contains(&id);
        if known && self.node.raft.state == StateRole::Leader {
            drop(reply.send(Ok(self.applied)));
            return;
        }
        self.add(id, reply);
    }

    /// Removes the member `id`. Answers when the change is committed and applied, so that the others can decide
    /// without it. Does nothing if `id` is not a member. If the caller no longer waits for the answer, a removal
    /// that has not begun is called off.
    ///
    /// A leader that is asked to remove itself hands its leadership over instead, and answers
    /// [`ProposeError::NotLeader`] with its successor, which the caller asks next.
    pub fn remove(&mut self, id: u64, reply: Reply<u64>) {
        if self.node.raft.state == StateRole::Leader {
            self.leaving.entry(id).or_default().push(reply);
            self.replaced.remove(&id);
        } else {
            drop(reply.send(Err(ProposeError::NotLeader { leader: self.leader() })));
        }
    }

    /// As [`Self::remove`], but a voter leaves only in the change in which a learner that holds the log gets its vote. If
    /// there is none at that moment, the answer is [`ProposeError::Refused`]: the number of voters is odd, so that the vote of
    /// a member that is up would end with it.
    pub fn replace(&mut self, id: u64, reply: Reply<u64>) {
        // Whoever else waits for its end has it removed in any case.
        let is_first = !self.leaving.contains_key(&id);
        let was_replaced = self.replaced.contains(&id);
        self.remove(id, reply);
        if self.leaving.contains_key(&id) && (is_first || was_replaced) {
            self.replaced.insert(id);
        }
    }

    /// Steps down if the log that a new leader inherited has its own removal, or the end of its vote. The engine
    /// would go on leading without a vote, or panic at the next commit because the leader is not a member.
    pub(super) fn step_down_without_a_vote(&mut self) {
        let (id, term) = (self.id(), self.node.raft.term);
        let leads = self.node.raft.state == StateRole::Leader;
        let members = self.members();
        let votes = members.voters.contains(&id) || members.voters_outgoing.contains(&id);
        if leads && !votes {
            tracing::info!("stepping down: no longer a voter");
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// While this node leads: answers the removals that are complete, and takes the next step towards the wanted
    /// voters. One change is under way at a time.
    pub(super) fn arrange_members(&mut self) {
        self.leaving.retain(|_, replies| {
            replies.retain(|reply| !reply.is_closed());
            !replies.is_empty()
        });
        self.replaced.retain(|id| self.leaving.contains_key(id));
        self.look_at_learners();
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            for (_, replies) in std::mem::take(&mut self.leaving) {
                fail(replies, &ProposeError::Dropped);
            }
            return;
        }
        // Changes that an earlier leader began, and their outcome, are known once an entry of this term is applied.
        let settled = raft.apply_to_current_term() && !raft.has_pending_conf();
        if !settled || raft.lead_transferee.is_some() {
            return;
        }
        let mut members = self.members_for_decision();
        for id in std::mem::take(&mut members.leaving) {
            let joint = members.outgoing.contains(&id);
            if joint || members.voters.contains(&id) || members.learners.contains(&id) {
                members.leaving.insert(id);
                continue;
            }
            for reply in self.leaving.remove(&id).unwrap_or_default() {
                drop(reply.send(Ok(self.applied)));
            }
        }
        for id in members.without_a_successor(&self.replaced) {
            members.leaving.remove(&id);
            let replies = self.leaving.remove(&id).unwrap_or_default();
            fail(replies, &ProposeError::Refused(NO_SUCCESSOR.to_owned()));
        }
        match voters::next_step(&members) {
            Step::Rest => {}
            Step::Change(change) => {
                tracing::info!(?change, "changing the members");
                self.propose_change(joint_change(change));
            }
            // For the engine, an empty change ends a joint configuration.
            Step::LeaveJoint => self.propose_change(ConfChangeV2::default()),
            Step::HandOver => {
                if let Some(next) = self.hand_over() {
                    let replies = self.leaving.remove(&self.id()).unwrap_or_default();
                    fail(replies, &ProposeError::NotLeader { leader: Some(next) });
                }
            }
            Step::Refuse(why) => {
                let replies = self.leaving.remove(&self.id()).unwrap_or_default();
                fail(replies, &ProposeError::Refused(why.to_owned()));
            }
        }
    }

    /// While this node leads: brings the rounds of the learners up to date.
    fn look_at_learners(&mut self) {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        let mut learners = BTreeMap::new();
        if raft.state == StateRole::Leader {
            let conf = raft.prs().conf();
            learners.extend(raft.prs().iter().filter_map(|(id, progress)| {
                // To the engine, a member that a single message did not reach is one whose log is to be looked for, until there
                // is an entry to send: one that acknowledged all there is holds it all the same.
                let takes_entries =
                    progress.state == ProgressState::Replicate || progress.matched >= last;
                (conf.learners().contains(id) && takes_entries && self.is_alive(*id))
                    .then_some((*id, progress.matched))
            }));
        }
        let limit = self.config.election_ticks as u64;
        self.rounds.look(&learners, last, self.ticks, limit);
    }

    fn members_for_decision(&self) -> Members {
        let raft = &self.node.raft;
        let members = self.members();
        let known = raft.prs().iter().map(|(id, _)| *id);
        Members {
            leader: self.id(),
            caught_up: self.rounds.caught_up(),
            alive: known.filter(|id| *id == self.id() || self.is_alive(*id)).collect(),
            voters: members.voters.into_iter().collect(),
            outgoing: members.voters_outgoing.into_iter().collect(),
            learners: members.learners.into_iter().collect(),
            leaving: self.leaving.keys().copied().collect::<BTreeSet<u64>>(),
            max_voters: self.machine.max_voters().unwrap_or(self.config.max_voters),
        }
    }

    fn add(&mut self, id: u64, reply: Reply<u64>) {
        if self.node.raft.state != StateRole::Leader {
            drop(reply.send(Err(ProposeError::NotLeader { leader: self.leader() })));
            return;
        }
        if self.is_stalled() {
            drop(reply.send(Err(ProposeError::Stalled { is_logged: false })));
            return;
        }
        // Commands that came earlier are proposed first.
        self.flush_proposals();
        let index = self.node.raft.raft_log.last_index() + 1;
        let term = self.node.raft.term;
        let single =
            ConfChangeSingle { change_type: ConfChangeType::AddLearnerNode as i32, node_id: id };
        let change = ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() };
        match self.node.propose_conf_change(Vec::new(), change) {
            Ok(()) => {
                self.waiters.insert(index, Waiter { term, kind: WaiterKind::Members(reply) });
            }
            Err(_) => drop(reply.send(Err(self.why_not_proposed()))),
        }
    }

    fn propose_change(&mut self, change: ConfChangeV2) {
        if let Err(error) = self.node.propose_conf_change(Vec::new(), change) {
            // The step is repeated later: the members are still not as they should be.
            tracing::debug!(%error, "membership change postponed");
        }
    }
}

/// The change in the engine's form. A change of several members is a joint configuration, which the leader ends by
/// a change of its own: the engine would end it by itself only if the leader does not change meanwhile.
fn joint_change(change: Change) -> ConfChangeV2 {
    let Change { promote, demote, remove } = change;
    let of = |kind: ConfChangeType, ids: BTreeSet<u64>| {
        ids.into_iter().map(move |node_id| ConfChangeSingle { change_type: kind as i32, node_id })
    };
    let changes: Vec<ConfChangeSingle> = of(ConfChangeType::AddNode, promote)
        .chain(of(ConfChangeType::AddLearnerNode, demote))
        .chain(of(ConfChangeType::RemoveNode, remove))
        .collect();
    let transition = match changes.len() {
        0 | 1 => ConfChangeTransition::Auto,
        _ => ConfChangeTransition::Explicit,
    };
    ConfChangeV2 { transition: transition as i32, changes, ..ConfChangeV2::default() }
}

fn fail(replies: Vec<Reply<u64>>, error: &ProposeError) {
    for reply in replies {
        // The caller may have gone.
        drop(reply.send(Err(error.clone())));
    }
}
