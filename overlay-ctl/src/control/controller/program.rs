//! Waits until the kernels of the nodes hold what the state says.

use super::error::{Attempt, Effect};
use crate::{
    control::{consensus::Role, voter::VoterParts},
    model::{Endpoint, NodeId, Revision},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// Longest wait of a creation or a removal for the kernels of the nodes concerned.
pub(super) const PROGRAM_DEADLINE: Duration = Duration::from_secs(10);
/// How often a wait looks whether the node fell silent.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Whether the state has the endpoint.
pub(super) fn is_there(voter: &VoterParts, endpoint: &Endpoint) -> bool {
    voter.state.read(|state| state.endpoint(endpoint.id).is_some())
}

/// Waits for as long as this node leads: statuses come to the leader alone.
pub(super) async fn while_leading<T>(
    voter: &VoterParts,
    wait: impl Future<Output = T>,
) -> Result<T, Attempt> {
    let mut status = voter.consensus.status();
    tokio::select! {
        waited = wait => Ok(waited),
        _ = status.wait_for(|status| status.role != Role::Leader) => {
            Err(Attempt::Again { why: "the leader changed", effect: Effect::Unknown })
        }
    }
}

/// What became of a new endpoint on its node.
pub(super) enum Made {
    /// It is up.
    Up,
    /// The node could not make it, for this reason.
    Down(String),
    /// It was removed meanwhile.
    Gone,
    /// The node is down, or has not said anything of it in time.
    Unknown,
}

/// Waits until the node's status speaks of the endpoint, or the endpoint is gone.
pub(super) async fn wait_until_up(
    voter: &VoterParts,
    node: NodeId,
    endpoint: &Endpoint,
    deadline: Instant,
) -> Made {
    let mut changed = voter.table.watch();
    loop {
        changed.borrow_and_update();
        if let Some(Some(health)) = voter.table.health(node, endpoint.id) {
            return if health.up { Made::Up } else { Made::Down(health.reason) };
        }
        if !is_there(voter, endpoint) {
            return Made::Gone;
        }
        // Late: the answer names the node as lagging.
        if voter.table.is_down(node) || Instant::now() >= deadline {
            return Made::Unknown;
        }
        let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
        drop(tokio::time::timeout_at(look_again, changed.changed()).await);
    }
}

/// Waits until every live node with an endpoint of the network has programmed `revision`. Answers the nodes that have
/// not.
pub(super) async fn wait_for_kernels(
    voter: &VoterParts,
    endpoint: &Endpoint,
    revision: Revision,
    deadline: Instant,
) -> BTreeSet<NodeId> {
    let mut nodes = voter.state.read(|state| state.nodes_of(endpoint.network));
    nodes.extend(endpoint.node());
    let down: BTreeSet<NodeId> =
        nodes.iter().copied().filter(|node| voter.table.is_down(*node)).collect();
    let alive = &nodes - &down;
    let left = deadline.saturating_duration_since(Instant::now());
    let late = voter.table.wait_programmed(alive, revision, left).await;
    &late | &down
}
