//! Waits until the names and addresses of removed endpoints may be given out again.

use super::{
    barrier::{DryRun, Fresh},
    error::{Attempt, ControllerError},
    program::while_leading,
};
use crate::{
    control::{
        state::{Command, Mutation, Noted, State},
        voter::VoterParts,
    },
    model::{NetworkId, NetworkName, NodeId, NodeName},
};
use std::{collections::BTreeSet, time::Duration};

/// Longest wait for the nodes that have not forgotten a removed endpoint. Where all of them are down, nobody waits, and what
/// the endpoint had is still held back: a node that is cut off from the controllers may go on with it.
pub(super) const FORGET_DEADLINE: Duration = Duration::from_secs(5);

/// Notes what the nodes of the network have forgotten, for a command that is logged now.
pub(super) fn note(voter: &VoterParts, fresh: &Fresh, network: NetworkId, noted: &mut Noted) {
    let nodes = fresh.read(voter, |state| state.to_forget(network));
    note_of(voter, fresh, &nodes, noted);
}

fn note_of(voter: &VoterParts, fresh: &Fresh, nodes: &BTreeSet<NodeId>, noted: &mut Noted) {
    // No further than what this node has seen: a later removal is none that a node has forgotten.
    let revision = fresh.read(voter, State::revision);
    noted.confirmed = Some(voter.table.confirmed(nodes).min(revision));
}

/// Says what the creation of an endpoint of `network` would do, and notes what its leader adds. Waits, where it asks for a name
/// or an address that a removed endpoint had, until the nodes concerned have forgotten that.
pub(super) async fn dry_run(
    voter: &VoterParts,
    fresh: &Fresh,
    request: Mutation,
    command: &Command,
    network: &NetworkName,
    noted: &mut Noted,
) -> Result<DryRun, Attempt> {
    let nodes = fresh.read(voter, |state| {
        state.network_named(network).map(|network| state.to_forget(network.id))
    });
    let nodes = nodes.unwrap_or_default();
    note_of(voter, fresh, &nodes, noted);
    let refusal = match fresh.dry_run_noting(voter, request, command, *noted) {
        Ok(decided) => return Ok(decided),
        Err(refusal) => refusal,
    };
    let Some(revision) = refusal.held_back_since() else { return Err(refusal.into()) };
    let wait = voter.table.wait_programmed(nodes.clone(), revision, FORGET_DEADLINE);
    let mut late = while_leading(voter, wait).await?;
    late.retain(|node| !voter.table.holds_nothing_back(*node));
    note_of(voter, fresh, &nodes, noted);
    match fresh.dry_run_noting(voter, request, command, *noted) {
        Ok(decided) => Ok(decided),
        Err(refusal) if refusal.held_back_since().is_some() => {
            let nodes = fresh.read(voter, |state| names(state, &late));
            Err(ControllerError::HeldBack { refusal, nodes }.into())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// The names of these nodes.
pub(super) fn names(state: &State, nodes: &BTreeSet<NodeId>) -> Vec<NodeName> {
    let named = nodes.iter().filter_map(|id| state.node(*id));
    named.map(|node| node.name.clone()).collect()
}
