//! Ports of the host that lead to endpoints, and the legs that they lead by.

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
