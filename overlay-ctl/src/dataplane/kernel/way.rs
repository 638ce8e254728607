//! The way over the underlay to a VTEP.

use crate::model::{Encapsulation, Vtep};
use std::collections::{BTreeMap, BTreeSet};

/// The Ethernet hop towards a VTEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The device that the hop is behind.
    pub ifindex: u32,
    /// The MAC of the router, or of the VTEP itself where it is on the link.
    pub mac: [u8; 6],
    /// The device's own MAC.
    pub source_mac: [u8; 6],
}

/// The way to a VTEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The largest outer packet, in bytes: the device's MTU, or less where the route has an MTU of its own.
    pub mtu: u32,
    /// How packets are carried to the VTEP.
    pub encapsulation: Encapsulation,
    /// The next hop. `None` where it is not resolved (yet), or is not an Ethernet hop.
    pub hop: Option<NextHop>,
}

/// The underlay as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// MTU of the underlay device, in bytes.
    pub device_mtu: u32,
    /// The longest packet that the host's own way to the outside world takes, in bytes; `None` where there is no such way.
    pub outward_mtu: Option<u32>,
    /// The way to each VTEP that was asked for and has a route.
    pub ways: BTreeMap<Vtep, Way>,
    /// VTEPs to which the way could not be found out this time. The way that was found last stands.
    pub unknown: BTreeSet<Vtep>,
    /// What could not be found out or done, in words.
    pub trouble: Vec<String>,
}
