//! What a node says of itself: what its kernel holds, and how its endpoints are.

use super::Mtus;
use crate::model::{EndpointId, NodeId, Revision};
use std::collections::{BTreeMap, BTreeSet};

/// What one node's kernel holds, as its reconciler says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalStatus {
    /// The last revision that was programmed whole; 0 = none yet.
    pub programmed: Revision,
    /// The endpoints on this node.
    pub endpoints: BTreeMap<EndpointId, EndpointHealth>,
    /// What kept the last pass from its end.
    pub error: Option<String>,
    /// What is done in a slower way than it could be.
    pub fallbacks: Vec<String>,
    /// Nodes whose next hop is not resolved: packets to them take the slower path.
    pub unresolved: Vec<NodeId>,
    /// The way to and from the outside.
    pub gateway: GatewayHealth,
    /// How large packets are.
    pub mtus: Mtus,
    /// How large super-packets are.
    pub super_packets: SuperPacketHealth,
}

/// How large the super-packets are that the underlay and the endpoints get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuperPacketHealth {
    /// Bytes, of IPv4.
    pub ipv4: u32,
    /// Bytes, of IPv6.
    pub ipv6: u32,
    /// Why they are not larger, where they are what every kernel has; empty where they are.
    pub reason: String,
}

/// What a node does for the way to and from the outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayHealth {
    /// Ports of the node that lead to an endpoint.
    pub published: usize,
    /// Devices whose forwarding the node switched on.
    pub forwarding: BTreeSet<String>,
    /// Namespaces in which names resolve.
    pub resolvers: usize,
}

/// How one endpoint on this node is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointHealth {
    /// Why it is down; `None` = it is up.
    pub down: Option<String>,
    /// Host-side device; empty while down.
    pub ifname: String,
    /// Its index; 0 while down.
    pub ifindex: u32,
    /// Its MTU in bytes; 0 while down.
    pub mtu: u32,
    /// The other side, inside the namespace; empty while down.
    pub interface: String,
    /// Its leg on the gateway bridge; `None` = it has none, or the endpoint is down.
    pub gateway: Option<LegHealth>,
}

/// How the gateway leg of a namespace is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LegHealth {
    /// The side inside the namespace.
    pub interface: String,
    /// Host-side device.
    pub ifname: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
}
