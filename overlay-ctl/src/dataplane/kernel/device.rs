//! A device of the overlay: what it must be, and what is seen of it.
//!
//! Every such device is a veth pair. The host's side is in a bridge and carries a program; the other side is the
//! interface inside an endpoint's namespace. What the kinds of devices differ in is a table, in `kind.rs`.

use super::{Bridge, DeviceKind, KernelError, PairSizes, SuperPackets};
use crate::model::{EndpointId, LegId, Subnet};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    path::PathBuf,
};

/// The identity of a device, which its name and its alias carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId {
    /// What the device is for.
    pub kind: DeviceKind,
    /// Distinguishes the device from others of its kind on this node.
    pub number: u64,
}

impl DeviceId {
    /// The port of an endpoint.
    #[must_use]
    pub fn port(endpoint: EndpointId) -> Self {
        Self { kind: DeviceKind::Port, number: endpoint }
    }

    /// The gateway leg with this id.
    #[must_use]
    pub fn leg(id: LegId) -> Self {
        Self { kind: DeviceKind::Leg, number: id.get() }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.row().name, self.number)
    }
}

/// What a device must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Which device.
    pub id: DeviceId,
    /// Path of the namespace, or its bare name below /run/netns.
    pub netns: PathBuf,
    /// MAC of the side inside, in transmission order.
    pub mac: [u8; 6],
    /// Addresses of the side inside, each with the prefix length of its subnet, to which the kernel adds the route.
    pub addresses: Vec<IpNet>,
    /// Where the default route of the namespace leads, if this device provides one.
    pub gateway: Option<Ipv4Addr>,
    /// MTU and sizes of super-packets.
    pub sizes: PairSizes,
}

/// The kernel's number for another network namespace, as the node's namespace counts.
///
/// Equal numbers mean the same namespace. The kernel may reuse the number of a namespace that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetnsId(i32);

impl NetnsId {
    /// Returns `None` for a negative number, with which the kernel says "no namespace".
    #[must_use]
    pub fn new(raw: i32) -> Option<Self> {
        (raw >= 0).then_some(Self(raw))
    }

    /// The number as the kernel has it.
    #[must_use]
    pub fn as_raw(self) -> i32 {
        self.0
    }
}

/// The side of a device that is inside an endpoint's namespace, as seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPeer {
    /// The namespace that it is in.
    pub netns: NetnsId,
    /// Its index there.
    pub ifindex: u32,
    /// Its name there.
    pub ifname: String,
    /// It is set up.
    pub up: bool,
    /// It is set up, and the kernel sends what the endpoint gives it.
    pub running: bool,
    /// Its MAC, in transmission order; empty where it has none.
    pub mac: Vec<u8>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Its sizes of super-packets.
    pub super_packets: SuperPackets,
    /// Its IPv4 addresses and their prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// A device of the overlay, as seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedDevice {
    /// Which device, by its name and alias.
    pub id: DeviceId,
    /// Name of the host's side.
    pub ifname: String,
    /// Index of the host's side.
    pub ifindex: u32,
    /// The host's side is set up.
    pub up: bool,
    /// The host's side is set up, and the kernel sends what the host gives it.
    pub running: bool,
    /// The device was once raised successfully, as its alias says. That the host's side is up is no proof of that:
    /// network managers set up any new device.
    pub complete: bool,
    /// The host's side has a queueing discipline other than noqueue, as a limit of the rate has.
    pub queued: bool,
    /// MTU of the host's side, in bytes.
    pub mtu: u32,
    /// Sizes of super-packets of the host's side.
    pub super_packets: SuperPackets,
    /// Index of the bridge that the host's side is in; 0 where it is in none.
    pub bridge: u32,
    /// The side inside. `None` where the kernel shows none: somebody moved it into the node's own namespace, or it
    /// is being removed.
    pub peer: Option<ObservedPeer>,
}

impl ObservedDevice {
    /// The device was raised, and the host's side is still up. The other side is the endpoint's to take down.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.up && self.complete
    }

    /// The reason, in words, why no packet passes by the device; `None` where it is as it must be.
    #[must_use]
    pub fn ailment(&self) -> Option<String> {
        match &self.peer {
            _ if !self.is_active() => Some("its device could not be set up".to_owned()),
            None => Some("its interface is gone".to_owned()),
            Some(peer) if !peer.up => {
                let ifname = &peer.ifname;
                Some(format!(
                    "its interface {ifname} was set down inside its namespace: `ip link set {ifname} up` there"
                ))
            }
            Some(_) => None,
        }
    }

    /// Name of the side inside; empty where the kernel shows none.
    #[must_use]
    pub fn interface(&self) -> &str {
        self.peer.as_ref().map_or("", |peer| &peer.ifname)
    }

    /// Returns true if the device needs no change to have these sizes. Only the host's side is compared: what the
    /// endpoint does to its own side is its own business.
    #[must_use]
    pub fn has(&self, sizes: &PairSizes) -> bool {
        self.mtu == sizes.mtu && self.super_packets.satisfies(&sizes.outside)
    }

    /// The first property, in words, in which the device differs from `spec`; `None` where it differs in none.
    ///
    /// `netns` is the namespace that the path in `spec` leads to. Not compared are: whether the two sides are up, the
    /// routes inside, the bridge, and the sizes of super-packets.
    #[must_use]
    pub fn difference(&self, spec: &DeviceSpec, netns: NetnsId) -> Option<&'static str> {
        let Some(peer) = &self.peer else { return Some("the endpoint's interface is gone") };
        let DeviceSpec { id, netns: _, mac, addresses, gateway: _, sizes } = spec;
        let has_name = id.kind.row().interface.allows(&peer.ifname);
        let checks = [
            (peer.netns == netns, "the endpoint's interface is in another namespace"),
            (has_name, "the endpoint's interface has another name"),
            (peer.mac == mac, "the endpoint's interface has another MAC"),
            (
                addresses.iter().all(|address| peer.addresses.contains(address)),
                "the endpoint's interface lacks its address",
            ),
            (peer.mtu == sizes.mtu && self.mtu == sizes.mtu, "the MTU differs"),
        ];
        checks.into_iter().find_map(|(holds, difference)| (!holds).then_some(difference))
    }
}

/// Where the host reaches a gateway leg on the gateway bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its MAC, by which the bridge delivers to it, in transmission order.
    pub mac: [u8; 6],
    /// Its address, which the host need not ask for.
    pub address: Ipv4Addr,
}

/// The gateway legs.
pub type Stations = BTreeMap<DeviceId, Station>;

/// A bridge that legs are in, as seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedBridge {
    /// Its index.
    pub ifindex: u32,
    /// Its MTU, in bytes.
    pub mtu: u32,
}

/// All devices of the overlay on this node, and the namespaces that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The devices, ordered by their ids.
    pub devices: Vec<ObservedDevice>,
    /// The namespace that each path leads to. A path that leads to none is missing.
    pub namespaces: BTreeMap<PathBuf, NetnsId>,
    /// The gateway bridge, where there is one.
    pub bridge: Option<ObservedBridge>,
    /// What could not be found out, or not be cleared away, in words.
    pub trouble: Vec<String>,
}

/// Some of the devices and of the namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The devices with these indexes of the host's side, whatever they are.
    pub indexes: BTreeSet<u32>,
    /// The devices that are for this.
    pub ids: BTreeSet<DeviceId>,
    /// The paths of the namespaces.
    pub paths: BTreeSet<PathBuf>,
}

/// The node's own gateway bridge, as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalGateway {
    /// The subnet of the legs' addresses; its first address is the bridge's.
    pub subnet: Subnet,
    /// MTU of the bridge and of the legs, in bytes.
    pub mtu: u32,
}

/// All devices that the node must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedDevices {
    /// The devices of the endpoints on this node.
    pub devices: BTreeMap<DeviceId, DeviceSpec>,
    /// The gateway bridge.
    pub gateway: LocalGateway,
}

impl WantedDevices {
    /// Where the legs are reached.
    #[must_use]
    pub fn stations(&self) -> Stations {
        let is_station = |id: &DeviceId| id.kind.row().bridge == Bridge::Gateway;
        let station = |spec: &DeviceSpec| match spec.addresses.first() {
            Some(IpNet::V4(net)) => Some((spec.id, Station { mac: spec.mac, address: net.addr() })),
            Some(IpNet::V6(_)) | None => None,
        };
        let devices = self.devices.values().filter(|spec| is_station(&spec.id));
        devices.filter_map(station).collect()
    }

    /// The paths of all namespaces that a device must lead into.
    #[must_use]
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        self.devices.values().map(|spec| spec.netns.clone()).collect()
    }
}

/// The reason why a device could not be created, of which nothing is left then, or could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceFailure {
    /// A problem of one endpoint (its namespace is gone, for example): the endpoint is shown as down.
    #[error("{0}")]
    Endpoint(String),
    /// Any other problem: the pass fails.
    #[error(transparent)]
    Kernel(KernelError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETNS: i32 = 3;

    fn spec() -> DeviceSpec {
        let nothing = SuperPackets::default();
        DeviceSpec {
            id: DeviceId::port(42),
            netns: "web1".into(),
            mac: [2, 0x42, 172, 16, 16, 129],
            addresses: vec!["172.16.16.129/24".parse().unwrap()],
            gateway: None,
            sizes: PairSizes { mtu: 1450, outside: nothing, inside: nothing },
        }
    }

    fn observed(spec: &DeviceSpec) -> (ObservedDevice, ObservedPeer) {
        let peer = ObservedPeer {
            netns: NetnsId::new(NETNS).unwrap(),
            ifindex: 2,
            ifname: "eth0".to_owned(),
            up: true,
            running: true,
            mac: spec.mac.to_vec(),
            mtu: 1450,
            super_packets: SuperPackets::DEFAULT,
            addresses: spec.addresses.clone(),
        };
        let device = ObservedDevice {
            id: spec.id,
            ifname: "ovp2a".to_owned(),
            ifindex: 7,
            up: true,
            running: true,
            complete: true,
            queued: false,
            mtu: 1450,
            super_packets: SuperPackets::DEFAULT,
            bridge: 0,
            peer: Some(peer.clone()),
        };
        (device, peer)
    }

    #[test]
    fn every_difference_is_named() {
        let (spec, netns) = (spec(), NetnsId::new(NETNS).unwrap());
        let (device, peer) = observed(&spec);
        assert_eq!(device.difference(&spec, netns), None);
        let with = |peer| ObservedDevice { peer, ..device.clone() }.difference(&spec, netns);
        let differences = [
            with(None),
            device.difference(&spec, NetnsId::new(4).unwrap()),
            with(Some(ObservedPeer { ifname: "eth1".to_owned(), ..peer.clone() })),
            with(Some(ObservedPeer { mac: vec![2; 6], ..peer.clone() })),
            with(Some(ObservedPeer {
                addresses: vec!["172.16.16.129/16".parse().unwrap()],
                ..peer.clone()
            })),
            with(Some(ObservedPeer { mtu: 1500, ..peer.clone() })),
        ];
        let distinct: BTreeSet<_> =
            differences.iter().map(|difference| difference.unwrap()).collect();
        assert_eq!(distinct.len(), differences.len());
    }

    #[test]
    fn an_id_says_what_it_is_of() {
        assert_eq!(DeviceId::port(42).to_string(), "port 42");
        assert_eq!(DeviceId::leg(LegId::default().next()).to_string(), "leg 1");
    }
}
