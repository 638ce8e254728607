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
