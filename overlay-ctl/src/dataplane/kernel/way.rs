//! The way over the underlay to a VTEP.

use crate::model::{Encapsulation, Vtep};
use std::collections::{BTreeMap, BTreeSet};

/// The Ethernet hop towards a VTEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The MAC of the router, or of the VTEP itself where it is on the link.
    pub mac: [u8; 6],
    /// The device's own MAC.
    pub source_mac: [u8; 6],
}

/// What packets have in front of their IP header on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkLayer {
    /// An Ethernet header: network cards, and most devices that stand for one.
    #[default]
    Ethernet,
    /// Nothing: WireGuard, tun, and the tunnels of IP in IP.
    Bare,
    /// Nothing, but before Linux 6.6 the kernel does not remove the Ethernet header of a packet that is redirected
    /// there.
    Ppp,
    /// A header that the programs do not know, as InfiniBand's.
    Foreign,
}

/// A device by which VXLAN comes or goes: one by which a VTEP is reached, that carries the node's VTEP address, or by
/// which others may send to that address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uplink {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What packets have in front of them there.
    pub link_layer: LinkLayer,
    /// It is a veth, whose packets no driver has merged.
    pub is_veth: bool,
}

/// The way to a VTEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The largest outer packet, in bytes: the device's MTU, or less where the route has an MTU of its own.
    pub mtu: u32,
    /// How packets are carried to the VTEP.
    pub encapsulation: Encapsulation,
    /// The device of the route. No packet to the VTEP leaves by another one.
    pub device: u32,
    /// What packets have in front of them there.
    pub link_layer: LinkLayer,
    /// The next hop. `None` where it is not resolved (yet), or is not an Ethernet hop.
    pub hop: Option<NextHop>,
}

/// The underlay as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The node's own address on the underlay, from which it sends; `None` where it was not looked at.
    pub own: Option<Vtep>,
    /// No device has that address any more: a repair may find another one.
    pub is_own_gone: bool,
    /// MTU of the device that carries the VTEP's address, in bytes.
    pub device_mtu: u32,
    /// The longest packet that the host's own way to the outside world takes, in bytes; `None` where there is no such way.
    pub outward_mtu: Option<u32>,
    /// The way to each VTEP that was asked for and has one.
    pub ways: BTreeMap<Vtep, Way>,
    /// Why others have none, in words.
    pub without: BTreeMap<Vtep, String>,
    /// VTEPs to which the way could not be found out this time. The way that was found last stands.
    pub unknown: BTreeSet<Vtep>,
    /// What could not be found out or done, in words.
    pub trouble: Vec<String>,
}
