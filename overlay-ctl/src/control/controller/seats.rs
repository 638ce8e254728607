//! Requests about seats: who is to hold the log, and how many nodes are to vote.

use super::{
    barrier::{DryRun, Fresh},
    error::Attempt,
    info::NodeInfo,
    verb::{Leader, Verb},
};
use crate::{
    control::{
        state::{Applied, Command, Decision, Mutation, RequestId},
        voter::VoterParts,
    },
    model::{Node, NodeId, NodeName, Voters},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Gives a node a seat: it is to hold the log, and to vote when it has caught up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PromoteNode {
    /// The caller's id for the request: repeated, it is carried out once.
    pub request: RequestId,
    /// Which.
    pub name: NodeName,
    /// Only if it is the one of this id, and not a successor.
    pub only: Option<NodeId>,
}

impl Verb for PromoteNode {
    const NAME: &str = "PromoteNode";
    type Answer = NodeInfo;
    const CHANGES: bool = true;
    const WAITS: Duration = Duration::ZERO;

    async fn carry_out(self, Leader { voter, .. }: Leader) -> Result<NodeInfo, Attempt> {
        let Self { request, name, only } = self;
        let command = Command::Promote { name, only, instead_of: None };
        let request = Mutation::new(request, &command);
        let term = voter.consensus.status().borrow().term;
        let fresh = Fresh::wait(&voter).await?;
        // A repeated request is only answered, and so is one for a node that has a seat.
        let decided = fresh.dry_run(&voter, request, &command)?;
        let gives = matches!(decided, DryRun::New(Decision::Promote { .. }));
        let node = row(fresh.execute(&voter, request, command).await?);
        if let (true, Some(life)) = (gives, node.life()) {
            voter.leaving.give(life, term);
        }
        let life = node.life().map(|life| life.get());
        tracing::info!(node = %node.name, life, "an operator gave a node a seat");
        Ok(info(&fresh, &voter, &node))
    }
}

/// Takes a node's seat: it becomes an agent, or stays one, until it is promoted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DemoteNode {
    /// The caller's id for the request: repeated, it is carried out once.
    pub request: RequestId,
    /// Which.
    pub name: NodeName,
    /// Only if it is the one of this id, and not a successor.
    pub only: Option<NodeId>,
}

impl Verb for DemoteNode {
    const NAME: &str = "DemoteNode";
    type Answer = NodeInfo;
    const CHANGES: bool = true;
    const WAITS: Duration = Duration::ZERO;

    /// In this order: the other voters can decide without the node, its row says that it has no seat, and the node finds out.
    async fn carry_out(self, Leader { voter, .. }: Leader) -> Result<NodeInfo, Attempt> {
        let Self { request, name, only } = self;
        let mut command = Command::Demote { name: name.clone(), only, ended: None, for_good: true };
        let request = Mutation::new(request, &command);
        let fresh = Fresh::wait(&voter).await?;
        let mut hold = None;
        // A repeated request is only answered: the node may have another seat by now.
        if let DryRun::New(decision) = fresh.dry_run(&voter, request, &command)? {
            decision.bind(&mut command);
            let life = fresh.read(&voter, |state| state.node_named(&name).map(Node::life))?;
            if let (Some(life), Command::Demote { ended, .. }) = (life, &mut command) {
                *ended = Some(life);
                // Until its row is changed it would be made a member again, by that row: see `follow_the_rows`.
                hold = Some(voter.leaving.hold(life));
                // A leader that is to lose its own seat hands over and says so: the new one carries this out.
                let removed = voter.consensus.remove(life.get()).await;
                removed.map_err(|error| Attempt::of_write(&voter, error))?;
            }
        }
        let node = row(fresh.execute(&voter, request, command).await?);
        drop(hold);
        tracing::info!(node = %node.name, "an operator took a node's seat");
        Ok(info(&fresh, &voter, &node))
    }
}

/// Sets how many nodes are to vote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetVoters {
    /// The caller's id for the request: repeated, it is carried out once.
    pub request: RequestId,
    /// How many.
    pub voters: Voters,
}

/// How many nodes are to vote from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VotersSet {
    /// How many.
    pub voters: Voters,
}

impl Verb for SetVoters {
    const NAME: &str = "SetVoters";
    type Answer = VotersSet;
    const CHANGES: bool = true;
    const WAITS: Duration = Duration::ZERO;

    async fn carry_out(self, Leader { voter, .. }: Leader) -> Result<VotersSet, Attempt> {
        let Self { request, voters } = self;
        let command = Command::SetVoters { voters };
        let request = Mutation::new(request, &command);
        let fresh = Fresh::wait(&voter).await?;
        match fresh.execute(&voter, request, command).await? {
            Applied::Voters(voters) => {
                tracing::info!(%voters, "an operator set how many nodes are to vote");
                Ok(VotersSet { voters })
            }
            other => unreachable!("a number of voters is answered by itself, not {other:?}"),
        }
    }
}

fn row(applied: Applied) -> Node {
    match applied {
        Applied::Node(node) => node,
        other => unreachable!("a seat is answered by its node's row, not {other:?}"),
    }
}

fn info(fresh: &Fresh, voter: &VoterParts, node: &Node) -> NodeInfo {
    let members = voter.consensus.status().borrow().clone();
    fresh.read(voter, |state| NodeInfo::new(state, &voter.table, &members, node))
}
