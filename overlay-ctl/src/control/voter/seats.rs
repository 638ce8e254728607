//! The leader's duty towards seats: as many nodes hold the log as are wished for, and not those that are down for good.

use super::{StatusTable, VoterParts};
use crate::{
    control::{
        consensus::{Role, Status},
        state::{Applied, Command, State},
    },
    model::{Node, NodeId, RaftId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// How often the leader looks at the seats.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait for one change of a seat. After it the leader looks again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a node with a seat is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Heard,
    /// It may be back in a moment.
    Silent,
    /// It has been silent for so long that another node is to take its place.
    Gone,
}

/// A seat, and the node that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seated {
    node: NodeId,
    condition: Condition,
    votes: bool,
    /// It could vote at once, or does.
    holds_log: bool,
}

/// What is to be done about the seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Rest,
    /// This agent gets a seat. Another node is to lose its own for it, if one is named.
    Promote {
        node: NodeId,
        instead_of: Option<NodeId>,
    },
    /// This node loses its seat.
    Demote(NodeId),
}

/// Decides what the leader `own` does where `wish` nodes are to have a seat. `agents` are those that could get one.
///
/// Who is gone keeps its seat until its successor holds the log: to end its membership before would take a vote from another
/// node, too, since an even number of voters does not rest. Seats are taken from who is gone, then from who does not vote.
fn next(own: NodeId, wish: usize, seats: &[Seated], agents: &BTreeSet<NodeId>) -> Next {
    let gone = |seat: &&Seated| seat.condition == Condition::Gone;
    if seats.len() > wish {
        let others = seats.iter().filter(|seat| seat.node != own);
        let last = others.max_by_key(|seat| (gone(seat), !seat.votes, seat.node));
        let Some(last) = last else { return Next::Rest };
        let catches_up = |seat: &Seated| !seat.holds_log && seat.condition != Condition::Gone;
        // With more than one too many, there are others to wait for.
        let waits = gone(&last) && seats.len() == wish + 1 && seats.iter().any(catches_up);
        return if waits { Next::Rest } else { Next::Demote(last.node) };
    }
    let Some(node) = agents.first().copied() else { return Next::Rest };
    if seats.len() < wish {
        return Next::Promote { node, instead_of: None };
    }
    match seats.iter().find(gone) {
        Some(dead) => Next::Promote { node, instead_of: Some(dead.node) },
        None => Next::Rest,
    }
}

/// When the leader last heard each node that has a seat. Those that it never heard count from when it began to lead.
#[derive(Debug, Default)]
struct LastHeard {
    /// The term that this node leads.
    led: Option<u64>,
    at: BTreeMap<NodeId, Instant>,
}

impl LastHeard {
    /// Notes who is heard in the term that this node leads.
    fn look(&mut self, term: u64, nodes: &BTreeMap<NodeId, bool>, now: Instant) {
        if self.led.replace(term) != Some(term) {
            self.at.clear();
        }
        self.at.retain(|node, _| nodes.contains_key(node));
        for (node, is_heard) in nodes {
            let last = self.at.entry(*node).or_insert(now);
            if *is_heard {
                *last = now;
            }
        }
    }

    fn condition(&self, node: NodeId, now: Instant, patience: Option<Duration>) -> Condition {
        match self.at.get(&node).map(|last| now.duration_since(*last)) {
            None | Some(Duration::ZERO) => Condition::Heard,
            Some(silent) if patience.is_some_and(|patience| silent >= patience) => Condition::Gone,
            Some(_) => Condition::Silent,
        }
    }
}

/// Whether the leader hears the node: as a member, or by its status.
fn is_heard(node: &Node, status: &Status, table: &StatusTable) -> bool {
    let life = node.life().map(RaftId::get);
    let as_member = |life| {
        life == status.id || status.peers.iter().any(|peer| peer.id == life && peer.recent_active)
    };
    life.is_some_and(as_member) || table.programmed(node.id).is_some()
}

/// The agents that could get a seat: they are up, speak the cluster's version, and were not demoted by an operator.
fn able(state: &State, table: &StatusTable) -> BTreeSet<NodeId> {
    let version = state.version();
    let speaks = |id| table.speaks(id).is_some_and(|(speaks, _)| speaks.covers(version));
    let agents = state.nodes().filter(|node| !node.voter && !node.demoted && speaks(node.id));
    agents.map(|node| node.id).collect()
}

fn seated(
    state: &State,
    status: &Status,
    heard: &LastHeard,
    now: Instant,
    patience: Option<Duration>,
) -> Vec<Seated> {
    let seat = |node: &Node| {
        let life = node.life().map_or(0, RaftId::get);
        let votes = status.voters.contains(&life);
        Seated {
            node: node.id,
            condition: heard.condition(node.id, now, patience),
            votes,
            holds_log: votes || status.caught_up.contains(&life),
        }
    };
    state.seated().map(seat).collect()
}

/// While this node leads: gives seats to agents and takes seats of nodes, one at a time, until as many nodes have one as are
/// wished for, and none of them has been silent for as long as `patience`; `None` = however long a node is silent, it keeps
/// its seat. Ends with consensus.
pub async fn arrange_the_seats(voter: VoterParts, patience: Option<Duration>) {
    let mut heard = LastHeard::default();
    let mut said = Next::Rest;
    let status = voter.consensus.status();
    while status.has_changed().is_ok() {
        if let Some(next) = look(&voter, &mut heard, patience) {
            // By a state that shows all that was acknowledged: an earlier leader may have done it already.
            let fresh = timeout(PATIENCE, voter.consensus.read_index()).await;
            if matches!(fresh, Ok(Ok(_))) && look(&voter, &mut heard, patience) == Some(next) {
                let done = carry_out(&voter, next).await;
                if let Err(why) = done
                    && next != said
                {
                    tracing::info!(change = ?next, why, "a seat is not changed yet: it is tried again");
                }
                said = next;
            }
        } else {
            said = Next::Rest;
        }
        sleep(PERIOD).await;
    }
}

/// What is to be done, if this node leads and something is.
fn look(voter: &VoterParts, heard: &mut LastHeard, patience: Option<Duration>) -> Option<Next> {
    let status = voter.consensus.status().borrow().clone();
    let state = voter.state.copy();
    let own = state.node_of(RaftId::new(status.id)?)?.id;
    if status.role != Role::Leader {
        *heard = LastHeard::default();
        return None;
    }
    let now = Instant::now();
    let nodes = state.seated().map(|node| (node.id, is_heard(node, &status, &voter.table)));
    heard.look(status.term, &nodes.collect(), now);
    // Earlier programs would not know what is logged.
    if state.version().is_first() {
        return None;
    }
    let seats = seated(&state, &status, heard, now, patience);
    let next = next(own, state.voters().count(), &seats, &able(&state, &voter.table));
    Some(next).filter(|next| *next != Next::Rest)
}

/// Carries out a change, or says why that was not possible.
async fn carry_out(voter: &VoterParts, next: Next) -> Result<(), String> {
    let state = voter.state.copy();
    let row = |id| state.node(id).cloned().ok_or_else(|| "the node was removed".to_owned());
    match next {
        Next::Rest => Ok(()),
        Next::Promote { node, instead_of } => {
            let Node { name, id, .. } = row(node)?;
            let dead = instead_of.and_then(|id| state.node(id)).map(|node| node.name.to_string());
            let command = Command::Promote { name: name.clone(), only: Some(id), instead_of };
            let life = changed(voter, command).await?.life().map(RaftId::get);
            tracing::info!(node = %name, life, instead_of = dead, "an agent gets a seat: it is to hold the log");
            Ok(())
        }
        Next::Demote(node) => {
            let node = row(node)?;
            let name = node.name.clone();
            let life = node.life().ok_or("the node has no seat any more")?;
            // Until its row is changed the life would be made a member again: see `follow_the_rows`.
            let _hold = voter.leaving.hold(life);
            let removed = timeout(PATIENCE, voter.consensus.remove(life.get())).await;
            removed.map_err(|_| "the members do not change in time")?.map_err(|e| e.to_string())?;
            let command = Command::Demote {
                name: name.clone(),
                only: Some(node.id),
                ended: Some(life),
                for_good: false,
            };
            changed(voter, command).await?;
            tracing::warn!(node = %name, life = life.get(), "a node lost its seat: it has been silent for too long, or fewer nodes are to vote");
            Ok(())
        }
    }
}

/// The row that the command made.
async fn changed(voter: &VoterParts, command: Command) -> Result<Node, String> {
    let proposed = timeout(PATIENCE, voter.propose(command)).await;
    let proposed = proposed.map_err(|_| "the command is not applied in time")?;
    match proposed.map_err(|error| error.to_string())? {
        (_, Ok(Applied::Node(node))) => Ok(node),
        (_, Err(refusal)) => Err(refusal.to_string()),
        (_, Ok(other)) => unreachable!("a seat is answered by its node's row, not {other:?}"),
    }
}

#[cfg(test)]
mod tests;
