//! The leader's duty to compare the voters' states, by the hashes that they tell. One whose state is another one than that of a
//! majority stops, the leader too.
//!
//! `apply` is the same everywhere, so that this never happens; a defect, or a bit that flips in memory, would otherwise live on
//! unseen in every later snapshot of that node.

use super::{Hashes, StatusTable, Verdict, VoterParts};
use crate::{
    control::{
        consensus::{Consensus, Difference, ProposeError, Role, Status},
        state::{HASH_VERSION, State, StateHash},
        voter::Machine,
    },
    model::{NodeId, RaftId, Revision},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::sleep;

/// How often the hashes are compared.
const PERIOD: Duration = Duration::from_secs(1);

/// The hashes that a node told, by revision.
type Told = BTreeMap<Revision, StateHash>;

/// What the hashes show.
#[derive(Debug, Default, PartialEq, Eq)]
struct Comparison {
    /// The nodes whose state is another one.
    differing: BTreeMap<NodeId, Verdict>,
    /// The last revision at which a majority has the same.
    agreed: Option<Revision>,
}

/// Compares the hashes of the nodes that hold the log; those of `voters` count for the majority.
///
/// What counts of a node is its latest hash of a revision of which a majority has told one and the same: what differed before
/// may have been replaced since. Where voters differ and no majority has the same, nobody can say who is right, and it is said
/// of each of them.
fn compare(voters: &BTreeSet<NodeId>, told: &BTreeMap<NodeId, Told>) -> Comparison {
    let revisions: BTreeSet<Revision> =
        told.values().flat_map(|told| told.keys().copied()).collect();
    let mut found = Comparison::default();
    let mut judged = BTreeSet::new();
    let mut latest = true;
    for revision in revisions.into_iter().rev() {
        let at = |(node, told): (&NodeId, &Told)| Some((*node, *told.get(&revision)?));
        let hashes: BTreeMap<NodeId, StateHash> = told.iter().filter_map(at).collect();
        let mut counts: BTreeMap<StateHash, usize> = BTreeMap::new();
        for (_, hash) in hashes.iter().filter(|(node, _)| voters.contains(node)) {
            *counts.entry(*hash).or_default() += 1;
        }
        let majority = counts.iter().find(|(_, count)| **count > voters.len() / 2);
        let majority = majority.map(|(hash, _)| *hash);
        if majority.is_some() {
            found.agreed = found.agreed.max(Some(revision));
        } else if !latest || counts.len() < 2 {
            // The others may not have come so far, or are down.
            continue;
        }
        latest = false;
        for (node, hash) in hashes {
            let differs = majority.is_none_or(|majority| majority != hash);
            if judged.insert(node) && differs {
                found.differing.insert(node, Verdict { revision, majority });
            }
        }
    }
    found
}

/// What the nodes that hold the log told lately, in the version of the hash that this program speaks.
fn told(state: &State, table: &StatusTable) -> BTreeMap<NodeId, Told> {
    let members = state.nodes().filter(|node| node.life().is_some());
    members.filter_map(|node| Some((node.id, table.state_hashes(node.id, HASH_VERSION)?))).collect()
}

/// The nodes that vote.
fn voters(state: &State, status: &Status) -> BTreeSet<NodeId> {
    let ids = status.voters.iter().chain(&status.outgoing);
    ids.filter_map(|id| Some(state.node_of(RaftId::new(*id)?)?.id)).collect()
}

/// While this node leads: compares the voters' states, and notes which of them has to be told. Ends with consensus.
pub async fn compare_the_states(own: NodeId, voter: VoterParts) {
    let VoterParts { consensus, state, table, .. } = voter;
    let hashes = state.hashes().clone();
    let status = consensus.status();
    while status.has_changed().is_ok() {
        let now = status.borrow().clone();
        if now.role == Role::Leader {
            let state = state.copy();
            let Comparison { differing, agreed } =
                compare(&voters(&state, &now), &told(&state, &table));
            hashes.note(differing.get(&own).copied());
            for (node, Verdict { revision, majority }) in hashes.find(differing, agreed) {
                let name = state.node(node).map(|node| node.name.to_string());
                let has_majority = majority.is_some();
                tracing::error!(
                    node = name,
                    revision,
                    has_majority,
                    "the state of a voter is another one than that of others"
                );
            }
        } else {
            hashes.find(BTreeMap::new(), None);
        }
        sleep(PERIOD).await;
    }
}

/// Ends the life of this voter's log when a majority has another state, and raises an alarm where none has the same. Ends with
/// consensus.
pub async fn heed_the_comparison(hashes: Hashes, consensus: Consensus<Machine>) {
    let (mut own, mut status) = (hashes.own(), consensus.status());
    loop {
        let verdict = *own.borrow_and_update();
        let difference = verdict.and_then(|Verdict { revision, majority }| {
            // What it was told may be of a state that another one has replaced since.
            let differs = hashes.at(revision).is_some_and(|hash| majority != Some(hash));
            differs.then_some(Difference { revision, has_majority: majority.is_some() })
        });
        while let Err(error) = consensus.note_difference(difference).await {
            if error == ProposeError::Stopped {
                return;
            }
            sleep(PERIOD).await;
        }
        tokio::select! {
            // The sender is that of `hashes` itself.
            _ = own.changed() => {}
            // Nothing is waited for but its end.
            _ = status.wait_for(|_| false) => return,
        }
    }
}

#[cfg(test)]
mod tests;
