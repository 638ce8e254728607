//! The leader's duty towards seats: as many nodes hold the log as are wished for, and not those that are down for good.

pub(in crate::control) mod followed;

use super::{StatusTable, VoterParts};
use crate::{
    control::{
        consensus::{Role, Status},
        state::{Applied, Command, State},
    },
    model::{Node, NodeId, RaftId},
};
use followed::{Followed, Patience, Progress};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often the leader looks at the seats.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait for one change of a seat. After it the leader looks again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a node that has a seat follows the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::control) enum Condition {
    Follows,
    /// It may be back in a moment, or was not seen to follow by this leader yet. If it votes it is replaced otherwise.
    Late,
    /// The same of one that keeps its seat however long it does not follow.
    Away,
    /// It has not followed for so long that another node is to take its place.
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
pub(in crate::control) enum Next {
    Rest,
    /// This agent gets a seat. Another node is to lose its own for it, if one is named.
    Promote {
        node: NodeId,
        instead_of: Option<NodeId>,
    },
    /// This node loses its seat.
    Demote(NodeId),
}

/// How a change of a seat is carried out.
pub(in crate::control) struct Step {
    /// The node, as its row is before.
    pub(in crate::control) node: Node,
    /// The life whose membership ends first, if one does.
    pub(in crate::control) ends: Option<RaftId>,
    /// What is logged then.
    pub(in crate::control) command: Command,
}

impl Next {
    /// How it is carried out; `None` if there is nothing to do.
    ///
    /// # Errors
    /// Why it is not possible.
    pub(in crate::control) fn step(self, state: &State) -> Result<Option<Step>, &'static str> {
        let row = |id| state.node(id).cloned().ok_or("the node was removed");
        let (node, ends, command) = match self {
            Self::Rest => return Ok(None),
            Self::Promote { node, instead_of } => {
                let node = row(node)?;
                let (name, only) = (node.name.clone(), Some(node.id));
                (node, None, Command::Promote { name, only, instead_of })
            }
            Self::Demote(node) => {
                let node = row(node)?;
                let life = node.life().ok_or("the node has no seat any more")?;
                let (name, only) = (node.name.clone(), Some(node.id));
                let command = Command::Demote { name, only, ended: Some(life), for_good: false };
                (node, Some(life), command)
            }
        };
        Ok(Some(Step { node, ends, command }))
    }
}

/// Decides what the leader `own` does where `wish` nodes are to have a seat. `agents` are those that could get one, the first
/// to be asked first.
///
/// Who is gone keeps its seat until its successor holds the log: to end its membership before would take a vote from another
/// node, too, since an even number of voters does not rest. Seats are taken from who is gone, then from who does not vote.
/// A voter that is late may be the one for which an earlier leader gave the seat that is one too many: until that is known,
/// no seat is taken.
fn next(own: NodeId, wish: usize, seats: &[Seated], agents: &[NodeId]) -> Next {
    let gone = |seat: &&Seated| seat.condition == Condition::Gone;
    if seats.len() > wish {
        let others = seats.iter().filter(|seat| seat.node != own);
        let last = others.max_by_key(|seat| (gone(seat), !seat.votes, seat.node));
        let Some(last) = last else { return Next::Rest };
        let catches_up = |seat: &Seated| !seat.holds_log && seat.condition != Condition::Gone;
        // With more than one too many, there are others to wait for.
        let waits = gone(&last) && seats.len() == wish + 1 && seats.iter().any(catches_up);
        let late = |seat: &Seated| seat.votes && seat.condition == Condition::Late;
        let is_open = !gone(&last) && seats.len() == wish + 1 && seats.iter().any(late);
        return if waits || is_open { Next::Rest } else { Next::Demote(last.node) };
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

/// How far the leader knows the node to have the log.
fn progress(node: &Node, status: &Status) -> Progress {
    let life = node.life().map(RaftId::get);
    if life == Some(status.id) {
        return Progress { is_heard: true, matched: status.commit, has_all: true };
    }
    let peer = status.peers.iter().find(|peer| Some(peer.id) == life);
    peer.map_or_else(Progress::default, |peer| Progress {
        is_heard: peer.recent_active,
        matched: peer.matched,
        has_all: peer.matched >= status.commit,
    })
}

/// The agents that could get a seat: they are up, speak the cluster's version, and were not demoted by an operator. Those that
/// had a seat and did not follow come last.
fn able(state: &State, table: &StatusTable, followed: &Followed) -> Vec<NodeId> {
    let version = state.version();
    let speaks = |id| table.speaks(id).is_some_and(|(speaks, _)| speaks.covers(version));
    let agents = state.nodes().filter(|node| !node.voter && !node.demoted && speaks(node.id));
    let mut agents: Vec<NodeId> = agents.map(|node| node.id).collect();
    agents.sort_by_key(|id| (followed.given_up(*id), *id));
    agents
}

fn seated(
    state: &State,
    status: &Status,
    followed: &Followed,
    now: Instant,
    patience: Patience,
) -> Vec<Seated> {
    let seat = |node: &Node| {
        let life = node.life().map_or(0, RaftId::get);
        let votes = status.voters.contains(&life);
        Seated {
            node: node.id,
            condition: followed.condition(node.id, now, patience.of(votes)),
            votes,
            holds_log: votes || status.caught_up.contains(&life),
        }
    };
    state.seated().map(seat).collect()
}

/// While this node leads: gives seats to agents and takes seats of nodes, one at a time, until as many nodes have one as are
/// wished for, and each of them follows the log. A voter that has not done so for as long as `replace_after` is replaced;
/// `None` = however long it does not, it keeps its seat. Ends with consensus.
pub async fn arrange_the_seats(voter: VoterParts, replace_after: Option<Duration>) {
    arrange(voter, Patience::new(replace_after)).await;
}

async fn arrange(voter: VoterParts, patience: Patience) {
    let mut followed = Followed::default();
    let mut said = Next::Rest;
    let status = voter.consensus.status();
    while status.has_changed().is_ok() {
        let mut look = || {
            let status = status.borrow().clone();
            look((&status, &voter.state.copy(), &voter.table), &mut followed, patience)
        };
        if let Some(next) = look() {
            let term = status.borrow().term;
            // By a state that shows all that was acknowledged: an earlier leader may have done it already.
            let fresh = timeout(PATIENCE, voter.consensus.read_index()).await;
            if matches!(fresh, Ok(Ok(_))) && look() == Some(next) {
                let done = carry_out(&voter, next, term).await;
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
pub(in crate::control) fn look(
    (status, state, table): (&Status, &State, &StatusTable),
    followed: &mut Followed,
    patience: Patience,
) -> Option<Next> {
    let own = state.node_of(RaftId::new(status.id)?)?.id;
    if status.role != Role::Leader {
        followed.end();
        return None;
    }
    let now = Instant::now();
    let seats = state.seated().map(|node| (node.id, progress(node, status)));
    followed.look(status.term, &seats.collect(), now);
    // Earlier programs would not know what is logged.
    if state.version().is_first() {
        return None;
    }
    let seats = seated(state, status, followed, now, patience);
    let gone = seats.iter().filter(|seat| seat.condition == Condition::Gone);
    followed.give_up(gone.map(|seat| seat.node), now);
    let agents = able(state, table, followed);
    let next = next(own, state.voters().count(), &seats, &agents);
    Some(next).filter(|next| *next != Next::Rest)
}

/// Carries out a change, as the leader of `term` wants it, or says why that was not possible.
async fn carry_out(voter: &VoterParts, next: Next, term: u64) -> Result<(), String> {
    let state = voter.state.copy();
    let Some(Step { node, ends, command }) = next.step(&state)? else { return Ok(()) };
    let Node { name, voter: had_seat, .. } = node;
    // Until its row is changed the life would be made a member again: see `follow_the_rows`.
    let _hold = ends.map(|life| voter.leaving.hold(life));
    if let Some(life) = ends {
        let removed = timeout(PATIENCE, voter.consensus.replace(life.get())).await;
        removed.map_err(|_| "the members do not change in time")?.map_err(|e| e.to_string())?;
    }
    let now = changed(voter, command).await?.life();
    match (next, ends) {
        (_, Some(life)) => {
            tracing::warn!(node = %name, life = life.get(), "a node lost its seat: it has not followed the log for too long, or fewer nodes are to vote");
        }
        (Next::Promote { instead_of, .. }, None) => {
            if let (false, Some(life)) = (had_seat, now) {
                voter.leaving.give(life, term);
            }
            let life = now.map(RaftId::get);
            let dead = instead_of.and_then(|id| state.node(id)).map(|node| node.name.to_string());
            tracing::info!(node = %name, life, instead_of = dead, "an agent gets a seat: it is to hold the log");
        }
        (Next::Rest | Next::Demote(_), None) => {}
    }
    Ok(())
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
