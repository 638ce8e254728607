//! Seats: which nodes are to hold the log, how many there are to be, and under which Raft ids.

use super::{Applied, Decision, Refusal, State, decision::check_id};
use crate::model::{Node, NodeId, NodeName, RaftId, Voters};

impl State {
    /// How many nodes are to vote.
    #[must_use]
    pub fn voters(&self) -> Voters {
        self.voters
    }

    /// The same state of a cluster in which so many nodes are to vote.
    #[must_use]
    pub fn with_voters(self, voters: Voters) -> Self {
        Self { voters, ..self }
    }

    /// The nodes that have a seat: those that hold the log, or are to hold it.
    pub fn seated(&self) -> impl Iterator<Item = &Node> {
        self.nodes().filter(|node| node.voter)
    }

    /// A node that has a seat keeps it, and its Raft id.
    pub(super) fn promote(
        &self,
        name: &NodeName,
        only: Option<NodeId>,
        instead_of: Option<NodeId>,
    ) -> Result<Decision, Refusal> {
        let node = self.node_named(name)?;
        check_id(only, node.id, || format!("node {name}"))?;
        if node.voter {
            return Ok(Decision::Nothing(Applied::Node(node.clone())));
        }
        let taken = self.seated().filter(|seated| Some(seated.id) != instead_of);
        if taken.count() >= self.voters.count() {
            let names: Vec<String> = self.seated().map(|node| node.name.to_string()).collect();
            return Err(Refusal::SeatsTaken { voters: self.voters, by: names.join(", ") });
        }
        let raft_id = Some(RaftId::after(self.last_raft_id));
        Ok(Decision::Promote(Node { voter: true, raft_id, demoted: false, ..node.clone() }))
    }

    /// The seat of the last voter is not taken: nobody would hold the log.
    pub(super) fn demote(
        &self,
        name: &NodeName,
        only: Option<NodeId>,
        ended: Option<RaftId>,
        for_good: bool,
    ) -> Result<Decision, Refusal> {
        let node = self.node_named(name)?;
        check_id(only, node.id, || format!("node {name}"))?;
        if let Some(life) = node.life() {
            let ended = ended.map(RaftId::get);
            check_id(ended, life.get(), || format!("the membership of node {name}"))?;
            if self.seated().count() == 1 {
                return Err(Refusal::LastVoter(name.clone()));
            }
        }
        let demoted = node.demoted || for_good;
        if !node.voter && node.demoted == demoted {
            return Ok(Decision::Nothing(Applied::Node(node.clone())));
        }
        Ok(Decision::Demote(Node { voter: false, raft_id: None, demoted, ..node.clone() }))
    }

    /// Fails if no other node that stays has the log. Version 1 does not say so.
    pub(super) fn check_not_the_last_voter(&self, node: &Node) -> Result<(), Refusal> {
        let has_seats = !self.version.is_first();
        if has_seats && node.voter && self.seated().count() == 1 && self.nodes.len() > 1 {
            return Err(Refusal::LastVoter(node.name.clone()));
        }
        Ok(())
    }

    pub(super) fn set_voters(&self, voters: Voters) -> Decision {
        if voters == self.voters {
            return Decision::Nothing(Applied::Voters(voters));
        }
        Decision::SetVoters(voters)
    }
}
