//! What uses the way to and from the outside world: ports of the host that lead to endpoints, and gateway legs.

use super::DeviceId;
use crate::model::Transport;
use std::{collections::BTreeMap, net::Ipv4Addr, num::NonZeroU16};

/// A port of the host; the address 0.0.0.0 = all addresses of the host.
pub type HostPort = (Transport, Ipv4Addr, NonZeroU16);

/// The published ports of this node, and where each leads.
pub type PublishedPorts = BTreeMap<HostPort, Target>;

/// The target of a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The endpoint's address on the gateway bridge.
    pub address: Ipv4Addr,
    /// The endpoint's port.
    pub port: NonZeroU16,
    /// The endpoint and its port, as "web1 80/tcp", which `nft list table ip overlay` shows.
    pub comment: String,
}

/// The gateway legs of this node that were set up, and the address of each. A leg with another id is another leg, whatever
/// its address: no connection of the former leg is its own.
pub type Legs = BTreeMap<DeviceId, Ipv4Addr>;

/// What uses the way to and from the outside world on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayUse {
    /// The ports of the host that lead to endpoints.
    pub ports: PublishedPorts,
    /// The legs that were set up.
    pub legs: Legs,
    /// A leg is wanted, or one stands. Before it carries a packet, the rules that translate must be in place. Without any,
    /// there are none of these rules: the kernel would track the connections of the whole host for them.
    pub translates: bool,
}
