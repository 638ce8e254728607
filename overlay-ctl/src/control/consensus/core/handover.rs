//! Hands the leadership over: at the end of a node, and when another voter would lead better.

use super::Core;
use crate::control::consensus::{ProposeError, StateMachine};
use raft::StateRole;

impl<S: StateMachine> Core<S> {
    /// Asks a voter to lead from now on: of the voters that were heard lately and are not to be removed, the one
    /// with the longest log. `None` if there is none.
    pub fn hand_over(&mut self) -> Option<u64> {
        let matched = |id: &u64| self.node.raft.prs().get(*id).map(|progress| progress.matched);
        let next = self.successors().into_iter().max_by_key(|id| (matched(id), *id))?;
        self.node.transfer_leader(next);
        Some(next)
    }

    /// Asks the voter `next` to lead from now on. It does so once it has the whole log; if it does not within an election
    /// timeout, this node goes on to lead. No proposal is taken meanwhile.
    ///
    /// # Errors
    /// `NotLeader`, or `Refused` if the node is no voter that was heard lately, is to be removed, or another one is asked
    /// already.
    pub fn hand_over_to(&mut self, next: u64) -> Result<(), ProposeError> {
        if self.node.raft.state != StateRole::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if let Some(other) = self.node.raft.lead_transferee {
            return Err(ProposeError::Refused(format!("node {other} is asked to lead already")));
        }
        if !self.successors().contains(&next) {
            return Err(ProposeError::Refused(format!("node {next} can't lead now")));
        }
        self.node.transfer_leader(next);
        Ok(())
    }

    /// Whether a node that was told to stop may do so. To be asked after each [`Self::pump`] from then on, and followed by
    /// one more while the answer is no.
    ///
    /// A leader is asked to stay until another voter leads: one that lacks entries must get them before it can. If none
    /// leads after an election timeout, the leader stops all the same. The first call hands over.
    pub fn may_stop(&mut self) -> bool {
        let (began, asked) = match self.stopping {
            Some(stopping) => stopping,
            None => {
                let next = self.hand_over();
                if let Some(next) = next {
                    tracing::info!(to = next, "handing over before the end");
                }
                *self.stopping.insert((self.ticks, next.is_some()))
            }
        };
        let leads = self.node.raft.state == StateRole::Leader;
        let is_succeeded = !leads && self.leader().is_some();
        let is_over = self.ticks >= began + self.config.election_ticks as u64;
        if asked && is_over && !is_succeeded {
            tracing::warn!("no other voter leads within an election timeout: the others elect one");
        }
        !asked || is_succeeded || is_over
    }

    /// The voters that this node, if it leads, can hand over to.
    fn successors(&self) -> Vec<u64> {
        if self.node.raft.state != StateRole::Leader {
            return Vec::new();
        }
        let stays = |id: &u64| !self.leaving.contains_key(id);
        let voters = self.members().voters.into_iter();
        voters.filter(|id| *id != self.id() && stays(id) && self.is_alive(*id)).collect()
    }
}
