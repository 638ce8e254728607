//! The leader's duty to take back endpoints that their nodes could not make, where the request that made them is not carried on:
//! its leader died, or its caller went away.

use crate::{
    control::{
        consensus::Role,
        state::{Command, Mutation, State},
        voter::VoterParts,
    },
    model::EndpointId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::StatusTable;

/// How often the nodes' reports are looked at. An endpoint is taken back at the second look, since its request, where it is
/// carried on, takes it back at once and tells its caller why.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait for one removal. After it the reports are looked at again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The endpoints that were found at the last look.
#[derive(Debug, Default)]
struct Found(BTreeSet<EndpointId>);

impl Found {
    /// The endpoints that were never up and nobody relies on, with the reason, if the last look found them, too.
    fn look(&mut self, state: &State, table: &StatusTable) -> BTreeMap<EndpointId, String> {
        let is_provisional = |id: EndpointId, node, run| {
            let row = state.endpoint(id);
            row.is_some_and(|row| row.provisional == Some(run) && row.node() == Some(node))
        };
        let mut never_up = BTreeMap::new();
        for (node, run, endpoint) in table.never_up() {
            if is_provisional(endpoint.id, node, run) {
                never_up.insert(endpoint.id, endpoint.reason);
            }
        }
        let before = std::mem::replace(&mut self.0, never_up.keys().copied().collect());
        never_up.retain(|id, _| before.contains(id));
        never_up
    }
}

/// While this node leads: removes the endpoints that their nodes could not make, and of which no caller was told that they are
/// made. Ends with consensus.
pub async fn take_endpoints_back(voter: VoterParts) {
    let mut found = Found::default();
    let status = voter.consensus.status();
    while status.has_changed().is_ok() {
        if status.borrow().role == Role::Leader {
            for (id, reason) in found.look(&voter.state.copy(), &voter.table) {
                remove(&voter, id, &reason).await;
            }
        } else {
            found = Found::default();
        }
        sleep(PERIOD).await;
    }
}

async fn remove(voter: &VoterParts, id: EndpointId, reason: &str) {
    let entry = voter.state.read(|state| {
        // Its caller may have been told meanwhile that it is made.
        let endpoint = state.endpoint(id).filter(|endpoint| endpoint.provisional.is_some())?;
        let network = state.network(endpoint.network).map(|network| network.name.clone());
        let name = endpoint.name.clone();
        let command = Command::RemoveEndpoint { name: name.clone(), network, only: Some(id) };
        let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
        Some((name, state.entry(request, command).encode().ok()?))
    });
    let Some((name, entry)) = entry else { return };
    match timeout(PATIENCE, voter.consensus.propose(entry)).await {
        Ok(Ok((revision, Ok(_)))) => {
            tracing::warn!(endpoint = %name, id, reason, revision, "endpoint taken back: its node could not make it");
        }
        // Somebody else removed it.
        Ok(Ok((_, Err(refusal)))) => {
            tracing::debug!(endpoint = %name, id, %refusal, "no endpoint to take back");
        }
        // Tried again, by whoever leads.
        Ok(Err(error)) => tracing::debug!(endpoint = %name, id, %error, "not taken back yet"),
        Err(_) => tracing::debug!(endpoint = %name, id, "not taken back in time"),
    }
}

#[cfg(test)]
mod tests;
