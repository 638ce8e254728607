//! The leader's duty towards leases: it finds out which nodes are dead, and which are only cut off from the controllers, and
//! notes it in the log.
//!
//! A node that no controller hears is doubted after half of its lease, and other nodes ask its data path. One that answers
//! keeps its traffic and its names, for ever. One that is silent to both for the whole lease is lost. Where half of the
//! nodes are silent at once, it is more likely that this side is cut off, and nobody is doubted or lost.

use super::{NODE_DOWN_AFTER, StatusTable, VoterParts, signs::Probed};
use crate::{
    control::{
        consensus::Role,
        state::{Command, Mutation, State},
    },
    model::{Lease, Node, NodeId, NodeName, Revision, Version},
};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// How often the nodes are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// A leader that looks so late stood still itself, and listens anew.
const STOOD_STILL: Duration = Duration::from_secs(3);
/// Longest wait for one change. After it the nodes are looked at again.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many changes are made after one look.
const AT_ONCE: usize = 32;
/// A node's death is believed if so many nodes got no answer from it, to so many probes together.
const PROBERS: usize = 2;
const UNANSWERED: u32 = 6;

/// What the leader knows of one node.
#[derive(Clone, Debug)]
struct Known {
    id: NodeId,
    name: NodeName,
    epoch: Revision,
    lease: Lease,
    /// For how long no controller has heard of it.
    silence: Duration,
    probed: Probed,
}

/// What is to be noted of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Change {
    id: NodeId,
    name: NodeName,
    epoch: Revision,
    to: Lease,
}

impl Change {
    /// What is logged for it.
    pub(in crate::control) fn command(&self) -> Command {
        let Self { id, ref name, epoch, to } = *self;
        Command::NoteLease { name: name.clone(), only: id, epoch, lease: to }
    }

    /// Of which node.
    #[cfg(test)]
    pub(in crate::control) fn node(&self) -> NodeId {
        self.id
    }

    /// Whether it counts as alive from now on.
    #[cfg(test)]
    pub(in crate::control) fn to(&self) -> Lease {
        self.to
    }
}

/// The result of a look at all nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Found {
    pub(in crate::control) changes: Vec<Change>,
    /// Half of the nodes that are not lost, or more, are silent.
    pub(in crate::control) half_is_silent: bool,
}

impl Known {
    /// Returns true if it is silent for long enough to be doubted.
    fn is_silent(&self, lease: Duration) -> bool {
        self.silence >= NODE_DOWN_AFTER.max(lease / 2)
    }

    /// What is to be noted of it, or was already.
    fn becomes(&self, lease: Duration, half_is_silent: bool) -> Lease {
        if self.silence < NODE_DOWN_AFTER {
            return Lease::Held;
        }
        let Probed { answered, probers, unanswered } = self.probed;
        let answers = answered.is_some_and(|ago| ago < lease);
        let is_dead = self.silence >= lease && probers >= PROBERS && unanswered >= UNANSWERED;
        match self.lease {
            Lease::Lost if answers => Lease::Doubted,
            Lease::Held if self.is_silent(lease) && !half_is_silent => Lease::Doubted,
            Lease::Doubted if is_dead && !answers && !half_is_silent => Lease::Lost,
            as_it_was => as_it_was,
        }
    }
}

/// Finds out what is to be noted. Pure: it decides by what it is given.
fn find(nodes: &[Known], lease: Duration) -> Found {
    let living = nodes.iter().filter(|node| node.lease != Lease::Lost);
    let silent = living.clone().filter(|node| node.is_silent(lease)).count();
    let half_is_silent = silent > 0 && silent * 2 >= living.count();
    let change = |node: &Known| {
        let Known { id, epoch, .. } = *node;
        let to = node.becomes(lease, half_is_silent);
        (to != node.lease).then(|| Change { id, name: node.name.clone(), epoch, to })
    };
    Found { changes: nodes.iter().filter_map(change).collect(), half_is_silent }
}

fn known(node: &Node, table: &StatusTable, lease: Duration) -> Known {
    let lives = |id| table.programmed(id).is_some();
    Known {
        id: node.id,
        name: node.name.clone(),
        epoch: node.epoch,
        lease: node.lease,
        silence: table.silence(node.id),
        probed: table.signs().probed(node.id, lease, lives),
    }
}

/// While this node leads: notes which nodes count as dead, by a lease of this length. Ends with consensus.
pub async fn keep_leases(voter: VoterParts, lease: Duration) {
    let mut keeper = Keeper::new(lease);
    let status = voter.consensus.status();
    while status.has_changed().is_ok() {
        if status.borrow().role == Role::Leader {
            keeper.look(&voter).await;
        } else {
            keeper = Keeper::new(lease);
            voter.table.set_half_silent(false);
        }
        sleep(PERIOD).await;
    }
}

/// What a leader remembers of its looks at the nodes.
pub(in crate::control) struct Keeper {
    lease: Duration,
    /// When the last look ended, in this time of leading.
    looked: Option<Instant>,
    said_half: bool,
}

impl Keeper {
    /// Of a node that begins to lead.
    pub(in crate::control) fn new(lease: Duration) -> Self {
        Self { lease, looked: None, said_half: false }
    }

    /// Finds out what is to be noted now. A leader that stood still listens anew before.
    pub(in crate::control) fn find(&mut self, state: &State, table: &StatusTable) -> Found {
        if self.looked.is_some_and(|at| at.elapsed() > STOOD_STILL) {
            tracing::warn!("this node stood still: the leases of all nodes begin anew");
            table.listen_anew();
        }
        if state.version() < Version::V2 {
            return Found::default();
        }
        let of = |lost: fn(Lease) -> bool| {
            state.nodes().filter(|node| lost(node.lease)).map(|node| node.id).collect()
        };
        let (all, lost) = (of(|_| true), of(|lease| lease == Lease::Lost));
        table.signs().follow(&all, &lost, self.lease);
        let nodes: Vec<_> = state.nodes().map(|node| known(node, table, self.lease)).collect();
        let found = find(&nodes, self.lease);
        table.set_half_silent(found.half_is_silent);
        if found.half_is_silent && !self.said_half {
            let silent = nodes.iter().filter(|node| node.is_silent(self.lease)).count();
            tracing::warn!(
                silent,
                of = nodes.len(),
                "half of the nodes or more are silent at once: rather this node is cut off from them, and none of them is given up"
            );
        }
        self.said_half = found.half_is_silent;
        found
    }

    /// What is known of the node now, if the change is still right by it: a change takes time, and the next node may be heard
    /// meanwhile.
    fn recheck(
        &self,
        change: &Change,
        half_is_silent: bool,
        state: &State,
        table: &StatusTable,
    ) -> Option<Known> {
        let now = known(state.node(change.id)?, table, self.lease);
        let is_right =
            now.epoch == change.epoch && now.becomes(self.lease, half_is_silent) == change.to;
        is_right.then_some(now)
    }

    /// Whether the change is still right by what is known now.
    #[cfg(test)]
    pub(in crate::control) fn is_right(
        &self,
        change: &Change,
        half_is_silent: bool,
        (state, table): (&State, &StatusTable),
    ) -> bool {
        self.recheck(change, half_is_silent, state, table).is_some()
    }

    /// The look is over.
    pub(in crate::control) fn end_of_look(&mut self) {
        self.looked = Some(Instant::now());
    }

    async fn look(&mut self, voter: &VoterParts) {
        let Found { changes, half_is_silent } = self.find(&voter.state.copy(), &voter.table);
        for change in changes.into_iter().take(AT_ONCE) {
            let state = voter.state.copy();
            let now = self.recheck(&change, half_is_silent, &state, &voter.table);
            let Some(now) = now else { continue };
            // Where there is no quorum, what was found out is old before the next one is.
            if !note(voter, change, &now).await {
                break;
            }
        }
        self.end_of_look();
    }
}

/// Returns true if it was decided.
async fn note(voter: &VoterParts, change: Change, known: &Known) -> bool {
    let command = change.command();
    let Change { id, name, epoch: _, to } = change;
    let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
    let entry = voter.state.read(|state| state.entry(request, command)).encode();
    let Ok(entry) = entry else { return false };
    let silence = known.silence.as_secs();
    let noted = timeout(PATIENCE, voter.consensus.propose(entry)).await;
    match noted {
        Ok(Ok((revision, Ok(_)))) => match to {
            Lease::Held => {
                tracing::info!(node = %name, id, revision, "the node is back, and so are its endpoints")
            }
            Lease::Doubted => {
                tracing::warn!(node = %name, id, revision, silence, "no controller hears the node: the other nodes ask its VTEP");
            }
            Lease::Lost => {
                tracing::warn!(node = %name, id, revision, silence, "the node is lost: neither a controller nor its VTEP hears of it, and nothing is sent to its endpoints until it is heard again");
            }
        },
        // It has registered meanwhile, or was removed.
        Ok(Ok((_, Err(refusal)))) => tracing::debug!(node = %name, %refusal, "nothing to note"),
        // Tried again, by whoever leads.
        Ok(Err(error)) => {
            tracing::debug!(node = %name, %error, "not noted yet");
            return false;
        }
        Err(_) => {
            tracing::debug!(node = %name, "not noted in time");
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests;
