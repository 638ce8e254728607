//! The replicated state: `apply(Command) -> Outcome`, deterministic, with no clock, no rng and no I/O.
//!
//! Architecture invariant: names, addresses, VNIs and node ids are allocated inside apply and nowhere
//! else, so they are unique by construction. A refused command changes nothing.
//!
//! Architecture invariant: everything is ordered (`BTreeMap`), so that the same commands give the same
//! bytes on every node.

mod apply;
mod changes;
mod command;
mod dedup;
mod endpoints;
#[cfg(test)]
pub(crate) mod golden;
mod index;
mod legs;
mod machine;
mod names;
mod ports;
mod refusal;
mod snapshot;
#[cfg(test)]
mod tests;
mod view;

pub use apply::Decision;
pub use changes::{ChangeLog, RowKey};
pub use command::{Applied, Command, Envelope, Outcome, Placement, PortsWanted, RequestId};
pub use legs::Renumbering;
pub use machine::{Machine, SharedState};
pub use refusal::Refusal;
pub use snapshot::SnapshotError;
pub use view::{Changed, Delta, Row, View};

use crate::model::{
    Endpoint, EndpointId, EndpointName, Mac, Network, NetworkId, NetworkName, Node, NodeId,
    NodeName, Revision, Vni,
};
use dedup::Dedup;
use index::{HostPort, Shared};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
};

/// How many nodes vote. The first that join do; the others are agents.
pub const VOTERS_MAX: usize = 3;

/// Everything that is replicated, and the indexes over it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    revision: Revision,
    networks: BTreeMap<NetworkId, Network>,
    nodes: BTreeMap<NodeId, Node>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    last_node_id: NodeId,
    last_vni: Option<Vni>,
    last_address: BTreeMap<NetworkId, Ipv4Addr>,
    last_leg: BTreeMap<NodeId, Ipv4Addr>,
    dedup: Dedup,

    // Derived from the rows above; rebuilt from a snapshot, never part of one.
    network_names: BTreeMap<NetworkName, NetworkId>,
    node_names: BTreeMap<NodeName, NodeId>,
    endpoint_names: BTreeMap<(NetworkId, EndpointName), EndpointId>,
    addresses: BTreeMap<NetworkId, BTreeMap<Ipv4Addr, EndpointId>>,
    macs: BTreeMap<(NetworkId, Mac), EndpointId>,
    folded_names: Shared<(NetworkId, EndpointName)>,
    aliases: Shared<(NetworkId, EndpointName)>,
    placements: Shared<(NodeId, NetworkId)>,
    namespaces: Shared<(NodeId, PathBuf)>,
    legs: BTreeMap<NodeId, Shared<Ipv4Addr>>,
    published: BTreeMap<HostPort, BTreeMap<Ipv4Addr, EndpointId>>,
    changes: ChangeLog,
}

impl State {
    /// Revision of the last applied command.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All endpoints, by id.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// The network with this id.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// Whether a node had this id and was removed: ids are never used again.
    #[must_use]
    pub fn was_removed(&self, id: NodeId) -> bool {
        id <= self.last_node_id && !self.nodes.contains_key(&id)
    }

    /// The endpoint with this id.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(&id)
    }

    /// The network of this name.
    ///
    /// # Errors
    /// [`Refusal::NoNetwork`].
    pub fn network_named(&self, name: &NetworkName) -> Result<&Network, Refusal> {
        self.network_names
            .get(name)
            .and_then(|id| self.networks.get(id))
            .ok_or_else(|| Refusal::NoNetwork(name.clone()))
    }

    /// The node of this name.
    ///
    /// # Errors
    /// [`Refusal::NoNode`].
    pub fn node_named(&self, name: &NodeName) -> Result<&Node, Refusal> {
        self.node_names
            .get(name)
            .and_then(|id| self.nodes.get(id))
            .ok_or_else(|| Refusal::NoNode(name.clone()))
    }

    /// The endpoint of this name, on `network` where given.
    ///
    /// # Errors
    /// [`Refusal::NoNetwork`], [`Refusal::NoEndpoint`], or [`Refusal::Ambiguous`] where endpoints of
    /// several networks have the name and no network is given.
    pub fn endpoint_named(
        &self,
        name: &EndpointName,
        network: Option<&NetworkName>,
    ) -> Result<&Endpoint, Refusal> {
        let mut found: Vec<&Endpoint> = match network {
            Some(network) => {
                let id = self.network_named(network)?.id;
                self.endpoint_names
                    .get(&(id, name.clone()))
                    .and_then(|id| self.endpoints.get(id))
                    .into_iter()
                    .collect()
            }
            None => self
                .networks
                .keys()
                .filter_map(|id| self.endpoint_names.get(&(*id, name.clone())))
                .filter_map(|id| self.endpoints.get(id))
                .collect(),
        };
        match (found.pop(), found.is_empty()) {
            (Some(endpoint), true) => Ok(endpoint),
            (Some(_), false) => Err(Refusal::Ambiguous(name.clone())),
            (None, _) => Err(Refusal::NoEndpoint(name.clone())),
        }
    }

    /// The endpoints of a network, by address.
    pub fn endpoints_of(&self, network: NetworkId) -> impl Iterator<Item = &Endpoint> {
        self.addresses
            .get(&network)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter_map(|id| self.endpoints.get(id))
    }

    /// The networks that `node` has an endpoint of.
    pub fn networks_of(&self, node: NodeId) -> impl Iterator<Item = NetworkId> {
        self.placements.range((node, 0)..=(node, NetworkId::MAX)).map(|((_, network), _)| *network)
    }

    /// The endpoints on `node`.
    pub fn endpoints_on(&self, node: NodeId) -> impl Iterator<Item = &Endpoint> {
        self.placements
            .range((node, 0)..=(node, NetworkId::MAX))
            .flat_map(|(_, ids)| ids)
            .filter_map(|id| self.endpoints.get(id))
    }

    /// The nodes that have an endpoint of `network`.
    #[must_use]
    pub fn nodes_of(&self, network: NetworkId) -> BTreeSet<NodeId> {
        self.endpoints_of(network).filter_map(Endpoint::node).collect()
    }

    /// What the request did, if it was carried out lately.
    #[must_use]
    pub fn outcome_of(&self, request: &RequestId) -> Option<&Outcome> {
        self.dedup.get(request)
    }

    /// The same state, which remembers so many changes from now on.
    #[must_use]
    fn remembering(self, changes: usize) -> Self {
        Self { changes: self.changes.remembering(changes), ..self }
    }

    /// What changed lately, for the delta streams.
    #[must_use]
    pub fn changes(&self) -> &ChangeLog {
        &self.changes
    }
}
