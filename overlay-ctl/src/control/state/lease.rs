//! The leases of nodes: what the leader found out about a node's life.

use super::{Applied, Decision, Refusal, State, decision::check_id};
use crate::model::{Lease, Node, NodeId, NodeName, Revision};

impl State {
    /// What the leader found out holds for the registration that it knew: a node that has registered anew since is alive.
    pub(super) fn note_lease(
        &self,
        name: &NodeName,
        only: NodeId,
        epoch: Revision,
        lease: Lease,
    ) -> Result<Decision, Refusal> {
        let node = self.node_named(name)?;
        check_id(Some(only), node.id, || format!("node {name}"))?;
        check_id(Some(epoch), node.epoch, || format!("the registration of node {name}"))?;
        if node.lease == lease {
            return Ok(Decision::Nothing(Applied::Node(node.clone())));
        }
        Ok(Decision::NoteLease(Node { lease, ..node.clone() }))
    }
}
