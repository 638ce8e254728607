//! A network device as the kernel describes it, and requests about single devices.

use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind,
        InfoPortData, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
        State,
    },
};
use nix::errno::Errno;
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::{
    NetlinkError,
    dump::dump,
    link_layer::{link_layer_of, shows_outer_headers},
    names::GROUP,
    xdp_programs::xdp_programs,
};
use crate::dataplane::kernel::{LinkLayer, NetnsId, SuperPackets};

/// The queueing disciplines of a device that lets packets through at once: as it is made, and while it is down.
const WITHOUT_QUEUE: [&str; 2] = ["noqueue", "noop"];

/// The owner of a device that has a prefix of the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The overlay: the device has the alias.
    Ours,
    /// The overlay, but the alias is not set yet: the device has not been raised.
    HalfMade,
    /// Another program.
    Foreign,
}

/// A device's place on a bus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parent {
    /// As "pci" or "virtio".
    pub(super) bus: String,
    /// As "0000:00:03.0" or "virtio2".
    pub(super) device: String,
}

impl Parent {
    /// The device is on a bus.
    pub(super) fn is_known(&self) -> bool {
        !self.device.is_empty()
    }
}

/// The fields of RTM_NEWLINK that are used.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: String,
    pub(super) group: u32,
    pub(super) mac: Vec<u8>,
    pub(super) mtu: u32,
    pub(super) super_packets: SuperPackets,
    /// The largest super-packet that the device takes.
    pub(super) tso_max: Option<u32>,
    pub(super) up: bool,
    /// What the host sends by the device waits in a queue.
    pub(super) queued: bool,
    /// The operational state (RFC 2863); `None` where the kernel does not tell. A device that was set up drops packets
    /// until the kernel has taken note of its carrier.
    pub(super) oper: Option<State>,
    pub(super) loopback: bool,
    pub(super) link_layer: LinkLayer,
    /// The kind of a virtual device, as "veth"; empty for a device on a bus.
    pub(super) kind: String,
    /// A VXLAN device's options.
    pub(super) vxlan: Option<Vec<InfoVxlan>>,
    /// A bridge's options.
    pub(super) bridge: Option<Vec<InfoBridge>>,
    pub(super) addr_gen_none: bool,
    /// Index of the bridge that it is in.
    pub(super) controller: Option<u32>,
    /// The bridge forwards nothing between this port and other isolated ports.
    pub(super) isolated: bool,
    /// Index of a veth's other end, or of the device below a VLAN or a macvlan, in `peer_netns`; `None` there means the
    /// namespace of the device itself.
    pub(super) peer: Option<u32>,
    pub(super) peer_netns: Option<NetnsId>,
    /// Its place on a bus; empty for a device that is on none.
    pub(super) parent: Parent,
    /// Ids of the XDP programs on it.
    pub(super) xdp: BTreeSet<u32>,
}

impl Link {
    fn new(message: LinkMessage) -> Self {
        let kind = message.header.link_layer_type;
        let mut link = Self {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            link_layer: link_layer_of(kind),
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = alias,
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::Address(mac) => link.mac = mac,
                LinkAttribute::Broadcast(remote) if shows_outer_headers(kind, &remote) => {
                    link.link_layer = LinkLayer::Foreign;
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Qdisc(qdisc) => {
                    link.queued = !WITHOUT_QUEUE.contains(&qdisc.as_str())
                }
                LinkAttribute::TsoMaxSize(size) => link.tso_max = Some(size),
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Link(index) => link.peer = Some(index),
                LinkAttribute::LinkNetNsId(id) => link.peer_netns = NetnsId::new(id),
                LinkAttribute::LinkInfo(infos) => link.read_info(infos),
                LinkAttribute::OperState(state) => link.oper = Some(state),
                LinkAttribute::ParentDevName(device) => link.parent.device = device,
                LinkAttribute::ParentDevBusName(bus) => link.parent.bus = bus,
                LinkAttribute::Xdp(attributes) => link.xdp = xdp_programs(&attributes),
                LinkAttribute::AfSpecUnspec(specs) => link.addr_gen_none = addr_gen_none(&specs),
                LinkAttribute::GsoMaxSize(size) => link.super_packets.gso = Some(size),
                LinkAttribute::GroMaxSize(size) => link.super_packets.gro = Some(size),
                LinkAttribute::GsoIpv4MaxSize(size) => link.super_packets.gso_ipv4 = Some(size),
                LinkAttribute::GroIpv4MaxSize(size) => link.super_packets.gro_ipv4 = Some(size),
                _ => {}
            }
        }
        link
    }

    fn read_info(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            if let LinkInfo::Kind(kind) = &info {
                self.kind = kind.to_string();
            }
            match info {
                // The kernel shows a device's kind first, and not always options.
                LinkInfo::Kind(InfoKind::Vxlan) => self.vxlan = Some(Vec::new()),
                LinkInfo::Kind(InfoKind::Bridge) => self.bridge = Some(Vec::new()),
                LinkInfo::Data(InfoData::Vxlan(options)) => self.vxlan = Some(options),
                LinkInfo::Data(InfoData::Bridge(options)) => self.bridge = Some(options),
                LinkInfo::PortData(InfoPortData::BridgePort(options)) => {
                    self.isolated = options.contains(&InfoBridgePort::Isolated(true));
                }
                _ => {}
            }
        }
    }

    /// Returns true if the device is up and sends what it is given.
    pub(super) fn is_running(&self) -> bool {
        self.up && self.oper == Some(State::Up)
    }

    pub(super) fn owner(&self, alias: &str) -> Owner {
        if self.alias == alias {
            Owner::Ours
        } else if self.alias.is_empty() && self.group == GROUP {
            Owner::HalfMade
        } else {
            Owner::Foreign
        }
    }
}

fn addr_gen_none(specs: &[AfSpecUnspec]) -> bool {
    specs.iter().any(|spec| match spec {
        AfSpecUnspec::Inet6(inet6) => {
            inet6.contains(&AfSpecInet6::AddrGenMode(In6AddrGenMode::None))
        }
        _ => false,
    })
}

/// The namespace in which a device is looked up: the socket's own, or another one that it knows.
fn target(netns: Option<NetnsId>) -> impl Iterator<Item = LinkAttribute> {
    // IFLA_IF_NETNSID and IFLA_TARGET_NETNSID are one attribute under two names.
    netns.map(|id| LinkAttribute::IfNetnsId(id.as_raw())).into_iter()
}

/// All devices of the socket's namespace, or of `netns`.
pub(super) async fn links(
    handle: &Handle,
    netns: Option<NetnsId>,
) -> Result<Vec<Link>, NetlinkError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message.attributes.extend(target(netns));
    let request = RouteNetlinkMessage::GetLink(message);
    let read = |item| match item {
        RouteNetlinkMessage::NewLink(message) => Some(Link::new(message)),
        _ => None,
    };
    let listed = match dump(handle, request, "list the network devices", read).await {
        Err(error) if netns.is_some() && error.is_netns_gone() => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut links: BTreeMap<u32, (usize, Link)> = BTreeMap::new();
    for link in listed.items {
        let times = links.get(&link.index).map_or(0, |(times, _)| *times);
        links.insert(link.index, (times + 1, link));
    }
    let mut found = Vec::with_capacity(links.len());
    for (index, (times, link)) in links {
        if times == listed.attempts {
            found.push(link);
        } else {
            // Some attempts had it, each of which was interrupted.
            found.extend(link_by_index(handle, index, netns).await?);
        }
    }
    Ok(found)
}

/// The device of that name, out of a list; it is asked for where the list lacks it, because a list may be interrupted.
pub(super) async fn named(
    handle: &Handle,
    links: &[Link],
    name: &str,
) -> Result<Option<Link>, NetlinkError> {
    match links.iter().find(|link| link.name == name) {
        Some(link) => Ok(Some(link.clone())),
        None => link_by_name(handle, name).await,
    }
}

/// The device of that name.
pub(super) async fn link_by_name(
    handle: &Handle,
    name: &str,
) -> Result<Option<Link>, NetlinkError> {
    one(handle.link().get().match_name(name), None).await
}

/// The device with that index, in the socket's namespace or in `netns`.
pub(super) async fn link_by_index(
    handle: &Handle,
    index: u32,
    netns: Option<NetnsId>,
) -> Result<Option<Link>, NetlinkError> {
    one(handle.link().get().match_index(index), netns).await
}

async fn one(
    mut request: rtnetlink::LinkGetRequest,
    netns: Option<NetnsId>,
) -> Result<Option<Link>, NetlinkError> {
    request.message_mut().attributes.extend(target(netns));
    request.message_mut().attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answer = request.execute().map_ok(Link::new).try_next().await;
    match answer.map_err(|error| NetlinkError::new("look a network device up", error)) {
        Ok(link) => Ok(link),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) if netns.is_some() && error.is_netns_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// An IPv4 address on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) ip: Ipv4Addr,
    pub(super) prefix: u8,
    /// It is a primary address, and reachable from elsewhere.
    pub(super) global: bool,
}

impl Address {
    /// The address with its prefix length; `None` where the length is none.
    pub(super) fn net(&self) -> Option<IpNet> {
        IpNet::new(self.ip.into(), self.prefix).ok()
    }
}

/// The IPv4 addresses of one device, or of all (`index` 0).
pub(super) async fn addresses(
    handle: &Handle,
    index: u32,
    netns: Option<NetnsId>,
) -> Result<Vec<Address>, NetlinkError> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    if let Some(netns) = netns {
        message.attributes.push(AddressAttribute::TargetNetNsId(netns.as_raw()));
    }
    let request = RouteNetlinkMessage::GetAddress(message);
    let address = |item: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(message) = item else { return None };
        let header = message.header;
        message.attributes.into_iter().find_map(|attribute| match attribute {
            // On a point-to-point link IFA_ADDRESS is the other end.
            AddressAttribute::Local(IpAddr::V4(ip)) => Some(Address {
                index: header.index,
                ip,
                prefix: header.prefix_len,
                global: header.scope == AddressScope::Universe
                    && !header.flags.contains(AddressHeaderFlags::Secondary),
            }),
            _ => None,
        })
    };
    match dump(handle, request, "list the IPv4 addresses", address).await {
        Err(error) if error.is_gone() || netns.is_some() && error.is_netns_gone() => Ok(Vec::new()),
        listed => Ok(listed?.items),
    }
}

/// Gives an address to a device.
pub(super) async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpNet,
) -> Result<(), NetlinkError> {
    let added = handle.address().add(index, address.addr(), address.prefix_len()).execute().await;
    let action = || format!("give a device the address {}", address.addr());
    added.map_err(|error| NetlinkError::new(action(), error))
}

/// Takes an IPv4 address from a device; it is no error when it is gone already.
pub(super) async fn delete_address(
    handle: &Handle,
    Address { index, ip, prefix, .. }: Address,
) -> Result<(), NetlinkError> {
    let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(ip, prefix).build();
    let done = handle.address().del(message).execute().await;
    let action = format!("take the address {ip} from a device");
    match done.map_err(|error| NetlinkError::new(action, error)) {
        Err(error) if error.errno() == Some(Errno::EADDRNOTAVAIL) || error.is_gone() => Ok(()),
        done => done,
    }
}

/// Sets the alias that marks a device as the overlay's.
pub(super) async fn set_alias(
    handle: &Handle,
    index: u32,
    alias: &str,
) -> Result<(), NetlinkError> {
    let message = LinkUnspec::new_with_index(index).alias(alias).build();
    change(handle, message, "name a device's purpose (its alias)").await
}

/// Brings a device up.
pub(super) async fn set_up(handle: &Handle, index: u32) -> Result<(), NetlinkError> {
    change(handle, LinkUnspec::new_with_index(index).up().build(), "bring a device up").await
}

/// Takes a device down.
pub(super) async fn set_down(handle: &Handle, index: u32) -> Result<(), NetlinkError> {
    change(handle, LinkUnspec::new_with_index(index).down().build(), "take a device down").await
}

/// Keeps the kernel from giving a device an IPv6 link-local address: the endpoint must not reach the host's side of its
/// device, and packets from such an address of its own would fail the source check.
pub(super) async fn set_addr_gen_none(handle: &Handle, index: u32) -> Result<(), NetlinkError> {
    let inet6 = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
    let message = LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(inet6)]))
        .build();
    match change(handle, message, "turn IPv6 address generation off").await {
        // A kernel without IPv6 makes no such address.
        Err(error) if error.errno() == Some(Errno::EAFNOSUPPORT) => Ok(()),
        other => other,
    }
}

pub(super) async fn change(
    handle: &Handle,
    message: LinkMessage,
    action: &str,
) -> Result<(), NetlinkError> {
    handle.link().change(message).execute().await.map_err(|error| NetlinkError::new(action, error))
}

/// Removes a device; it is no error when it is gone already.
pub(super) async fn delete(handle: &Handle, index: u32) -> Result<(), NetlinkError> {
    let done = handle.link().del(index).execute().await;
    match done.map_err(|error| NetlinkError::new("remove a device", error)) {
        Err(error) if !error.is_gone() => Err(error),
        _ => Ok(()),
    }
}
