//! What the leader knows of networks, endpoints and nodes: their rows, and what their nodes reported.

use crate::{
    control::{consensus, state::State, voter::StatusTable},
    model::{
        Endpoint, Location, Network, NetworkName, Node, NodeName, RaftId, Revision, Subnet, Vni,
        Vtep,
    },
    proto::internal,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Its row.
    pub network: Network,
    /// How many endpoints it has.
    pub endpoints: usize,
}

/// Counts the endpoints of a network by their place.
#[derive(Debug, Default)]
pub struct Peers(BTreeMap<(Option<NodeName>, Vtep), u32>);

/// A place where a network has endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The node there; `None` = a VTEP that is not the cluster's.
    pub node: Option<NodeName>,
    /// Its underlay address.
    pub vtep: Vtep,
    /// How many endpoints are there.
    pub endpoints: u32,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// Its row.
    pub endpoint: Endpoint,
    /// Its network; `None` if that was removed meanwhile.
    pub network: Option<NetworkOf>,
    /// Its node; `None` if it is behind an external VTEP, or if the node was removed meanwhile.
    pub node: Option<NodeOf>,
    /// What its node reports of it.
    pub state: EndpointState,
}

/// What belongs to an endpoint of its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOf {
    /// Its name.
    pub name: NetworkName,
    /// Its VNI.
    pub vni: Vni,
    /// Length of the subnet's prefix, in bits.
    pub prefix_len: u8,
}

/// What belongs to an endpoint of its node. It is less than the node's row, since a list repeats it with each endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOf {
    /// Its name.
    pub name: NodeName,
    /// Its address on the underlay.
    pub vtep: Vtep,
    /// The subnet of its gateway bridge.
    pub gateway: Option<Subnet>,
}

/// How an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointState {
    /// It is behind a VTEP that is not the cluster's: nobody reports of it.
    External,
    /// Its node has not reported of it.
    Pending,
    /// Its node could not make it.
    Down {
        /// What the node reported.
        reason: String,
    },
    /// Its node has not been heard of for a while.
    NodeDown,
    /// Its node has made it.
    Up {
        /// Its interfaces.
        attachment: Attachment,
        /// Those of its leg to the outside, if it has one.
        gateway: Option<Attachment>,
    },
}

/// The two interfaces of a veth pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Name of the interface inside the namespace.
    pub interface: String,
    /// Name of the interface on the host's side.
    pub host_interface: String,
    /// Index of the interface on the host's side.
    pub host_ifindex: u32,
    /// MTU in bytes.
    pub mtu: u32,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its row.
    pub node: Node,
    /// Its part in consensus.
    pub role: NodeRole,
    /// It has not been heard of for a while.
    pub is_down: bool,
    /// The revision that its kernel holds; 0 = not known.
    pub programmed: Revision,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Nothing was heard of it yet, by a controller that has not listened for long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unknown: bool,
    /// Milliseconds since its VTEP last answered a probe; `None` = the controller that answers was told of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_ms: Option<u64>,
}

/// The part of a node in consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRole {
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It holds the log, and has no vote yet.
    Learner,
    /// It does not hold the log.
    Agent,
}

impl NetworkInfo {
    pub(super) fn new(state: &State, network: &Network) -> Self {
        Self { network: network.clone(), endpoints: state.endpoint_count_of(network.id) }
    }
}

impl Peers {
    /// Counts an endpoint.
    pub fn add(&mut self, info: &EndpointInfo) {
        let place = match (&info.endpoint.location, &info.node) {
            (Location::External { vtep }, _) => (None, *vtep),
            (Location::Node { .. }, Some(node)) => (Some(node.name.clone()), node.vtep),
            (Location::Node { .. }, None) => return,
        };
        *self.0.entry(place).or_default() += 1;
    }

    /// The places: external VTEPs first, then nodes by name.
    #[must_use]
    pub fn finish(self) -> Vec<PeerInfo> {
        let places = self.0.into_iter();
        let mut peers: Vec<PeerInfo> =
            places.map(|((node, vtep), endpoints)| PeerInfo { node, vtep, endpoints }).collect();
        peers.sort_by_cached_key(|peer| (peer.node.clone(), peer.vtep.to_string()));
        peers
    }
}

impl EndpointInfo {
    pub(super) fn new(state: &State, table: &StatusTable, endpoint: &Endpoint) -> Self {
        let network = state.network(endpoint.network).map(|network| NetworkOf {
            name: network.name.clone(),
            vni: network.vni,
            prefix_len: network.pool.subnet.net().prefix_len(),
        });
        let node = endpoint.node().and_then(|node| state.node(node)).map(|node| NodeOf {
            name: node.name.clone(),
            vtep: node.vtep,
            gateway: node.gateway,
        });
        Self {
            endpoint: endpoint.clone(),
            network,
            node,
            state: EndpointState::of(table, endpoint),
        }
    }
}

impl EndpointState {
    fn of(table: &StatusTable, endpoint: &Endpoint) -> Self {
        let Some(node) = endpoint.node() else { return Self::External };
        match table.health(node, endpoint.id) {
            None if table.is_down(node) => Self::NodeDown,
            None | Some(None) => Self::Pending,
            Some(Some(health)) => Self::from(health),
        }
    }
}

impl From<internal::EndpointStatus> for EndpointState {
    fn from(status: internal::EndpointStatus) -> Self {
        let internal::EndpointStatus {
            id: _,
            up,
            reason,
            host_interface,
            host_ifindex,
            mtu,
            interface,
            gateway,
            was_up: _,
        } = status;
        if !up {
            return Self::Down { reason };
        }
        let attachment = Attachment { interface, host_interface, host_ifindex, mtu };
        Self::Up { attachment, gateway: gateway.map(Attachment::from) }
    }
}

impl From<internal::LegStatus> for Attachment {
    fn from(status: internal::LegStatus) -> Self {
        let internal::LegStatus { interface, host_interface, host_ifindex, mtu } = status;
        Self { interface, host_interface, host_ifindex, mtu }
    }
}

impl NodeInfo {
    pub(super) fn new(
        state: &State,
        table: &StatusTable,
        members: &consensus::Status,
        node: &Node,
    ) -> Self {
        let life = node.life().map(RaftId::get);
        let role = if life.is_some() && members.leader == life {
            NodeRole::Leader
        } else if life.is_some_and(|life| members.voters.contains(&life)) {
            NodeRole::Voter
        } else if life.is_some() {
            NodeRole::Learner
        } else {
            NodeRole::Agent
        };
        let is_down = table.is_down(node.id);
        let programmed = table.programmed(node.id);
        let answered = table.signs().answered(node.id);
        Self {
            node: node.clone(),
            role,
            is_down,
            programmed: programmed.unwrap_or(0),
            endpoints: state.endpoint_count_on(node.id),
            is_unknown: programmed.is_none() && !is_down,
            answered_ms: answered.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}
