//! VTEPs of nodes that have moved to each other's addresses.

use super::{Applied, Command, Decision, Refusal, State};
use crate::model::{Node, NodeName, Vtep};

impl State {
    /// The command by which the node with this instance gets the VTEP of another one; `None` where it has the address, or
    /// nobody has it, and where the node is new, as the other one would be left without any.
    #[must_use]
    pub fn exchange(&self, instance: [u8; 16], to: Vtep) -> Option<(&Node, Command)> {
        let node = self.nodes().find(|node| node.instance == instance)?;
        let other = self.nodes().find(|other| other.vtep == to && other.id != node.id)?;
        let command = Command::ExchangeVteps {
            name: node.name.clone(),
            from: node.vtep,
            other: other.name.clone(),
            to,
        };
        Some((other, command))
    }

    pub(super) fn exchange_vteps(
        &self,
        name: &NodeName,
        from: Vtep,
        other: &NodeName,
        to: Vtep,
    ) -> Result<Decision, Refusal> {
        let (node, other) = (self.node_named(name)?, self.node_named(other)?);
        if (node.vtep, other.vtep) != (from, to) {
            return Ok(Decision::Nothing(Applied::Node(node.clone())));
        }
        Ok(Decision::ExchangeVteps {
            node: Node { vtep: to, ..node.clone() },
            other: Node { vtep: from, ..other.clone() },
        })
    }
}
