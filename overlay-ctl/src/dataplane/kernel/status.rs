//! What a node reports of itself: what its kernel holds, and the state of its endpoints.

use super::Mtus;
use crate::model::{EndpointId, NodeId, Revision, Vtep};
use overlay_common::Counter;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// What one node's kernel holds, as its reconciler reports it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalStatus {
    /// A number that this run of the data plane chose, by which what it says of the past is known to be all there is; 0 = it
    /// has not begun.
    pub run: u64,
    /// The last revision that was programmed completely; 0 = none yet.
    pub programmed: Revision,
    /// The endpoints on this node.
    pub endpoints: BTreeMap<EndpointId, EndpointHealth>,
    /// The error that ended the last pass, if one did.
    pub error: Option<String>,
    /// The host refuses the data plane: nothing is programmed until it takes it.
    pub lacks_data_plane: bool,
    /// The name of the device that carries the node's VTEP address; empty before it was looked at.
    pub underlay: String,
    /// That address, as this host has it; `None` before it was looked at.
    pub vtep: Option<Vtep>,
    /// Packets to the VXLAN port that no program of the node took.
    pub unseen: Counter,
    /// What is done in a slower way than possible, in words.
    pub fallbacks: Vec<String>,
    /// Nodes whose next hop is not resolved: packets to them take the slower path.
    pub unresolved: Vec<NodeId>,
    /// The way to and from the outside.
    pub gateway: GatewayHealth,
    /// The sizes of packets.
    pub mtus: Mtus,
    /// The sizes of super-packets.
    pub super_packets: SuperPacketHealth,
    /// What probes of other nodes' VTEPs have shown lately.
    pub probes: Vec<Probed>,
    /// Why probes show nothing, in words; `None` = some VTEP answers them, or nobody was asked for long enough.
    pub probing_trouble: Option<String>,
}

/// What probes of one node's VTEP have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The node.
    pub node: NodeId,
    /// When it was asked last.
    pub asked: Instant,
    /// When it answered last; `None` = never.
    pub answered: Option<Instant>,
    /// How often it was asked since it answered.
    pub unanswered: u32,
}

/// The sizes of super-packets of the underlay and of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuperPacketHealth {
    /// Of IPv4, in bytes.
    pub ipv4: u32,
    /// Of IPv6, in bytes.
    pub ipv6: u32,
    /// The reason why they are not larger than on any kernel; empty where they are.
    pub reason: String,
}

/// The state of a node's way to and from the outside world.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayHealth {
    /// The number of the node's ports that lead to an endpoint.
    pub published: usize,
    /// Devices whose forwarding the node switched on.
    pub forwarding: BTreeSet<String>,
    /// The number of namespaces in which names resolve.
    pub resolvers: usize,
}

/// The state of one endpoint on this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointHealth {
    /// The reason why it is down; `None` = it is up.
    pub down: Option<String>,
    /// It was up at least once in this run of the data plane.
    pub was_up: bool,
    /// The device on the host's side; empty while down.
    pub ifname: String,
    /// Its index; 0 while down.
    pub ifindex: u32,
    /// Its MTU in bytes; 0 while down.
    pub mtu: u32,
    /// The interface inside the namespace; empty while down.
    pub interface: String,
    /// Its leg on the gateway bridge; `None` = it has none, or the endpoint is down.
    pub gateway: Option<LegHealth>,
}

/// The state of the gateway leg of a namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LegHealth {
    /// The interface inside the namespace.
    pub interface: String,
    /// The device on the host's side.
    pub ifname: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
}
