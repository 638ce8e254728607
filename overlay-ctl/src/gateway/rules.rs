//! What the table `ip overlay` is to hold, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    num::NonZeroU16,
};

use super::HostPort;
use crate::model::Subnet;

/// What a node wants of nftables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The gateway bridge's name.
    pub bridge: String,
    /// Its subnet.
    pub subnet: Subnet,
    /// Devices whose forwarding the node switched on, so that the outside reaches the bridge through
    /// them. What comes in by one of them goes to the bridge or nowhere.
    pub forwarding: BTreeSet<String>,
    /// Ports of the host (address 0.0.0.0 = each of its addresses) and where they lead.
    pub published: BTreeMap<HostPort, Target>,
}

/// Where a published port leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The endpoint's address on the gateway bridge.
    pub address: Ipv4Addr,
    /// The endpoint's port.
    pub port: NonZeroU16,
    /// Whose it is, as "web1 80/tcp": shown by `nft list table ip overlay`.
    pub comment: String,
}
