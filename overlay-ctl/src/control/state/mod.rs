//! The replicated state machine: `apply(Command) -> Outcome`. It is deterministic: it uses no clock, no random
//! numbers and no I/O.
//!
//! Architecture invariant: names, addresses, VNIs, node ids and Raft ids are allocated inside `apply` and nowhere else,
//! which makes them unique. A refused command changes nothing.
//!
//! Architecture invariant: everything is ordered (`OrdMap`), so that the same commands give the same
//! bytes on every node. A copy of these maps shares their content, so a copy of the whole state costs next to
//! nothing: a reader works on a copy and never delays `apply`.

mod apply;
mod changes;
mod command;
mod decision;
mod dedup;
mod endpoints;
mod generation;
#[cfg(test)]
pub(crate) mod golden;
mod hash;
mod index;
mod lease;
mod legs;
mod names;
mod placement;
mod ports;
mod read;
mod recall;
mod refusal;
mod seats;
mod snapshot;
#[cfg(test)]
mod tests;
mod version;
mod view;
mod vteps;
mod withdrawn;

pub use changes::{ChangeLog, REMEMBERED, RowKey};
pub use command::{Applied, Command, Digest, Envelope, Mutation, Noted, Outcome, RequestId};
pub use decision::Decision;
pub use hash::{HASH_VERSION, StateHash};
pub use legs::Renumbering;
pub use placement::{Placement, PortsWanted};
pub use read::Unreadable;
pub use refusal::Refusal;
pub use snapshot::SnapshotError;
pub use view::{Changed, Delta, Row, View};

use crate::model::{
    Endpoint, EndpointId, EndpointName, Generation, LegId, Mac, Network, NetworkId, NetworkName,
    Node, NodeId, NodeName, RaftId, Revision, Version, Vni, Voters, Vtep,
};
use dedup::Dedup;
use imbl::OrdMap;
use index::{HostPort, Shared};
use std::{collections::BTreeSet, net::Ipv4Addr, path::Path, sync::Arc};
use withdrawn::Withdrawn;

/// All replicated rows, and the indexes over them. A clone shares its content with the original, so it costs
/// next to nothing, whatever the number of rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    revision: Revision,
    version: Version,
    generation: Generation,
    networks: OrdMap<NetworkId, Arc<Network>>,
    nodes: OrdMap<NodeId, Arc<Node>>,
    endpoints: OrdMap<EndpointId, Arc<Endpoint>>,
    last_node_id: NodeId,
    /// `None` at version 1, where a node's Raft id is its id.
    last_raft_id: Option<RaftId>,
    /// At version 1 it can't be another than the default.
    voters: Voters,
    last_vni: Option<Vni>,
    last_address: OrdMap<NetworkId, Ipv4Addr>,
    last_leg: OrdMap<NodeId, Ipv4Addr>,
    last_leg_id: LegId,
    dedup: Dedup,
    withdrawn: Withdrawn,

    // Derived from the rows above. A snapshot does not contain these; they are rebuilt from it.
    network_names: OrdMap<NetworkName, NetworkId>,
    node_names: OrdMap<NodeName, NodeId>,
    endpoint_names: OrdMap<(NetworkId, EndpointName), EndpointId>,
    /// By IPv4 address, of which every endpoint has one.
    addresses: OrdMap<NetworkId, OrdMap<Ipv4Addr, EndpointId>>,
    macs: OrdMap<(NetworkId, Mac), EndpointId>,
    folded_names: Shared<(NetworkId, EndpointName)>,
    aliases: Shared<(NetworkId, EndpointName)>,
    placements: Shared<(NodeId, NetworkId)>,
    namespaces: Shared<(NodeId, Arc<Path>)>,
    externals: Shared<Vtep>,
    /// The endpoints that share a leg, by the leg's IPv4 address.
    legs: OrdMap<NodeId, Shared<Ipv4Addr>>,
    published: OrdMap<HostPort, OrdMap<Ipv4Addr, EndpointId>>,
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
        self.networks.values().map(Arc::as_ref)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(Arc::as_ref)
    }

    /// All endpoints, by id.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values().map(Arc::as_ref)
    }

    /// The network with this id.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id).map(Arc::as_ref)
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id).map(Arc::as_ref)
    }

    /// The node that holds the log under this Raft id, or is to hold it. The cost grows with the number of nodes.
    #[must_use]
    pub fn node_of(&self, life: RaftId) -> Option<&Node> {
        self.nodes().find(|node| node.life() == Some(life))
    }

    /// Returns true if a node had this id and was removed. Ids are never used again.
    #[must_use]
    pub fn was_removed(&self, id: NodeId) -> bool {
        id <= self.last_node_id && !self.nodes.contains_key(&id)
    }

    /// The endpoint with this id.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(&id).map(Arc::as_ref)
    }

    /// The network of this name.
    ///
    /// # Errors
    /// [`Refusal::NoNetwork`].
    pub fn network_named(&self, name: &NetworkName) -> Result<&Network, Refusal> {
        self.network_names
            .get(name)
            .and_then(|id| self.network(*id))
            .ok_or_else(|| Refusal::NoNetwork(name.clone()))
    }

    /// The node of this name.
    ///
    /// # Errors
    /// [`Refusal::NoNode`].
    pub fn node_named(&self, name: &NodeName) -> Result<&Node, Refusal> {
        self.node_names
            .get(name)
            .and_then(|id| self.node(*id))
            .ok_or_else(|| Refusal::NoNode(name.clone()))
    }

    /// The endpoint of this name, on `network` if that is given.
    ///
    /// # Errors
    /// [`Refusal::NoNetwork`], [`Refusal::NoEndpoint`], or [`Refusal::Ambiguous`] if endpoints of several
    /// networks have the name and no network is given.
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
                    .and_then(|id| self.endpoint(*id))
                    .into_iter()
                    .collect()
            }
            None => self
                .networks
                .keys()
                .filter_map(|id| self.endpoint_names.get(&(*id, name.clone())))
                .filter_map(|id| self.endpoint(*id))
                .collect(),
        };
        match (found.pop(), found.is_empty()) {
            (Some(endpoint), true) => Ok(endpoint),
            (Some(_), false) => Err(Refusal::Ambiguous(name.clone())),
            (None, _) => Err(Refusal::NoEndpoint(name.clone())),
        }
    }

    /// The endpoints of a network, ordered by address.
    pub fn endpoints_of(&self, network: NetworkId) -> impl Iterator<Item = &Endpoint> {
        self.addresses
            .get(&network)
            .into_iter()
            .flat_map(OrdMap::values)
            .filter_map(|id| self.endpoint(*id))
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
            .filter_map(|id| self.endpoint(*id))
    }

    /// The number of endpoints.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.endpoints.len()
    }

    /// The number of endpoints of a network. The cost does not depend on it.
    #[must_use]
    pub fn endpoint_count_of(&self, network: NetworkId) -> usize {
        self.addresses.get(&network).map_or(0, OrdMap::len)
    }

    /// The number of endpoints on `node`. The cost grows with the number of networks of the node.
    #[must_use]
    pub fn endpoint_count_on(&self, node: NodeId) -> usize {
        let placements = self.placements.range((node, 0)..=(node, NetworkId::MAX));
        placements.map(|(_, ids)| ids.len()).sum()
    }

    /// The nodes that have an endpoint of `network`.
    #[must_use]
    pub fn nodes_of(&self, network: NetworkId) -> BTreeSet<NodeId> {
        let has_one = |node: &&NodeId| self.placements.contains_key(&(**node, network));
        self.nodes.keys().filter(has_one).copied().collect()
    }

    /// The same state, with a change log of this length.
    #[must_use]
    pub fn remembering(self, changes: usize) -> Self {
        Self { changes: self.changes.remembering(changes), ..self }
    }

    /// The latest changes, from which delta streams are made.
    #[must_use]
    pub fn changes(&self) -> &ChangeLog {
        &self.changes
    }
}
