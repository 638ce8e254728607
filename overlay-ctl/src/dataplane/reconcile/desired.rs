//! What the kernel must hold for a view: devices and table rows.

use super::{
    flood,
    hop::{LocalVtep, hop_entry},
    sites::{Sites, site},
};
use crate::{
    control::state::View,
    dataplane::kernel::{
        DeviceId, DeviceKind, DeviceSpec, LargePackets, LocalGateway, Mtus, ObservedDevice,
        SuperPacketHealth, Tables, WantedDevices, Way, packet_mtu,
    },
    model::{
        Endpoint, EndpointAddrs, EndpointId, Location, Mac, Network, NodeId, Permission, Subnet,
        Vtep, ip16,
    },
};
use ipnet::{IpNet, Ipv4Net};
use overlay_common::{
    ApiKey, FLAG_ICC_OFF, FLAG_MULTICAST, FLAG_QUEUED, FLAG_ROUTING, FdbEntry, FdbKey,
    GatewayPortEntry, IP16_NONE, Ip16, NeighEntry, NeighKey, NodeEntry, NodeKey, PortEntry,
    ip16_from_v4,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a node knows of itself.
#[derive(Clone, Debug)]
pub struct LocalNode {
    /// Its Raft id.
    pub id: NodeId,
    /// Its end of every tunnel.
    pub vtep: LocalVtep,
    /// MTU of an endpoint whose network sets none, in bytes.
    pub endpoint_mtu: u32,
    /// MTU of the underlay in bytes, where the node was told one (`--mtu`).
    pub asked_mtu: Option<u16>,
    /// Its gateway bridge.
    pub gateway: LocalGateway,
    /// The sizes of super-packets that devices get.
    pub large_packets: LargePackets,
    /// These sizes, as the node reports them.
    pub super_packets: SuperPacketHealth,
}

impl LocalNode {
    /// Uses these MTUs from now on: for the node's endpoints, its legs and its outer packets.
    pub(super) fn adopt_mtus(&mut self, mtus: &Mtus) {
        self.endpoint_mtu = mtus.endpoint;
        self.gateway.mtu = mtus.outward;
        let limit = self.asked_mtu.map_or(mtus.device, |asked| mtus.device.min(asked.into()));
        self.vtep.mtu = packet_mtu(limit);
    }
}

/// The devices that the endpoints of this node need: a port on its network for each endpoint, and a leg on the
/// gateway bridge for each namespace. A leg's address outside of the bridge's subnet gets no device.
pub(super) fn devices<'a>(
    view: &View,
    local: &LocalNode,
    here: impl Iterator<Item = &'a Endpoint>,
) -> WantedDevices {
    let mut devices = BTreeMap::new();
    let mut want = |spec: DeviceSpec| _ = devices.insert(spec.id, spec);
    let sizes = |kind, mtu| local.large_packets.sizes(kind, mtu);
    for endpoint in here {
        let Location::Node { netns, .. } = &endpoint.location else { continue };
        let Some(network) = view.networks.get(&endpoint.network) else { continue };
        let mtu = network.options.mtu.map_or(local.endpoint_mtu, u32::from);
        want(DeviceSpec {
            id: DeviceId::port(endpoint.id),
            netns: netns.clone(),
            mac: endpoint.mac.octets(),
            addresses: nets(endpoint.addresses, network.pool.subnet),
            gateway: None,
            sizes: sizes(DeviceKind::Port, mtu),
        });
        let LocalGateway { subnet, mtu } = local.gateway;
        if let Some(leg) = endpoint.leg
            && let Some(address) = leg.addresses.v4.filter(|v4| subnet.net().contains(v4))
        {
            want(DeviceSpec {
                id: DeviceId::leg(leg.id),
                netns: netns.clone(),
                mac: Mac::of_endpoint(address).octets(),
                addresses: nets(leg.addresses, subnet),
                gateway: Some(subnet.gateway()),
                sizes: sizes(DeviceKind::Leg, mtu),
            });
        }
    }
    WantedDevices { devices, gateway: local.gateway }
}

/// The addresses that have a place in `subnet`, with its prefix length.
fn nets(addresses: EndpointAddrs, subnet: Subnet) -> Vec<IpNet> {
    let net = addresses.v4.and_then(|v4| Ipv4Net::new(v4, subnet.net().prefix_len()).ok());
    net.map(IpNet::V4).into_iter().collect()
}

/// What exists when the tables are made.
pub(super) struct Standing<'a> {
    pub(super) wanted: &'a WantedDevices,
    pub(super) devices: &'a BTreeMap<DeviceId, ObservedDevice>,
    pub(super) ways: &'a BTreeMap<Vtep, Way>,
}

/// The ports that exist, and the indexes that VTEPs and ports have in other maps: the tables of a view name them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Placement {
    pub(super) ports: BTreeMap<EndpointId, Port>,
    /// Index in HOPS.
    pub(super) hops: BTreeMap<Vtep, u32>,
}

/// A port that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) ifindex: u32,
    /// Packets to the endpoint wait in a queue.
    pub(super) queued: bool,
    /// Index in TRAFFIC; 0 where it has none of its own.
    pub(super) slot: u32,
}

/// The address that the entries of an endpoint hold. Each endpoint has an IPv4 address.
fn ip(endpoint: &Endpoint) -> Ip16 {
    endpoint.addresses.v4.map_or(IP16_NONE, |v4| ip16_from_v4(v4.octets()))
}

/// The keys of the entries of an endpoint.
pub(super) fn keys(network: &Network, endpoint: &Endpoint) -> (FdbKey, NeighKey) {
    let vni = network.vni.get();
    let ip = ip(endpoint);
    (FdbKey { vni, mac: endpoint.mac.octets(), pad: [0; 2] }, NeighKey { ip, vni })
}

/// The entries of an endpoint. An endpoint of this node without a port has them too, and so has an endpoint behind an
/// unknown VTEP: a bridging endpoint might use the MAC and the address of an endpoint without. Packets to such an endpoint
/// are dropped and counted, and ARP requests for it get no answer.
pub(super) fn entries(
    view: &View,
    local: &LocalNode,
    endpoint: &Endpoint,
    placement: &Placement,
) -> Option<(FdbEntry, NeighEntry)> {
    let network = view.networks.get(&endpoint.network)?;
    let ip = ip(endpoint);
    let flags = flags(network, endpoint);
    let placed = match site(endpoint, local.id) {
        None => placement.ports.get(&endpoint.id).map(|port| {
            let flags = if port.queued { flags | FLAG_QUEUED } else { flags };
            FdbEntry::here(endpoint.id, ip, flags, port.ifindex, port.slot)
        }),
        Some(site) => site.vtep(view).and_then(|vtep| {
            let hop = *placement.hops.get(&vtep)?;
            Some(FdbEntry::behind(endpoint.id, ip, flags, vtep.ip16(), hop))
        }),
    };
    let fdb = placed.unwrap_or(FdbEntry::nowhere(endpoint.id, ip, flags));
    Some((fdb, NeighEntry { mac: endpoint.mac.octets(), pad: [0; 2] }))
}

/// All tables except the FDB and the neighbours.
pub(super) fn small_tables(
    view: &View,
    local: &LocalNode,
    sites: &Sites,
    standing: &Standing<'_>,
    placement: &Placement,
) -> Tables {
    let Standing { wanted, devices, ways } = standing;
    let mut tables = Tables::default();
    let nodes = view.nodes.values().filter(|node| node.id != local.id);
    let vteps = nodes.map(|node| (node.vtep, node.id));
    for (vtep, node) in vteps.chain(sites.externals().map(|vtep| (vtep, 0))) {
        let Some(hop) = placement.hops.get(&vtep).copied() else { continue };
        // A node counts more than an external endpoint behind the VTEP of that node.
        let key = NodeKey { vtep: vtep.ip16() };
        tables.nodes.entry(key).or_insert(NodeEntry { node, hop, pad: 0 });
        if let Some(entry) = hop_entry(local.vtep, vtep, ways.get(&vtep).copied()) {
            tables.hops.insert(hop, entry);
        }
    }
    for node in view.nodes.values() {
        for address in node.services() {
            let key = ApiKey { ip: ip16(address.ip()), port: address.port().into() };
            tables.apis.insert(key, node.id);
        }
    }
    let routers = sites.here().filter(|endpoint| endpoint.permissions.has(Permission::Routing));
    let routers: BTreeSet<_> =
        routers.filter_map(|endpoint| endpoint.leg).map(|leg| DeviceId::leg(leg.id)).collect();
    for (id, device) in devices.iter().filter(|(id, _)| id.kind == DeviceKind::Leg) {
        if let Some(spec) = wanted.devices.get(id) {
            let flags = if routers.contains(id) { FLAG_ROUTING } else { 0 };
            let entry = gateway_port(local.gateway, spec, device.bridge, flags);
            tables.gateway_ports.insert(device.ifindex, entry);
        }
    }
    for endpoint in sites.here() {
        let port = placement.ports.get(&endpoint.id);
        if let (Some(port), Some(network)) = (port, view.networks.get(&endpoint.network)) {
            tables.ports.insert(port.ifindex, port_entry(network, endpoint, *port));
        }
    }
    for network in view.networks.values() {
        let vteps = sites.vteps_of(network.id);
        let here = sites.here_of(network.id);
        let ports = here.filter_map(|id| placement.ports.get(&id)).map(|port| port.ifindex);
        let hops = vteps.iter().map(|vtep| placement.hops.get(vtep).copied());
        tables.flood.extend(flood::pages(network, hops, ports));
    }
    tables
}

fn port_entry(network: &Network, endpoint: &Endpoint, port: Port) -> PortEntry {
    PortEntry {
        ip: ip(endpoint),
        vni: network.vni.get(),
        flags: flags(network, endpoint),
        mac: endpoint.mac.octets(),
        pad: [0; 2],
        slot: port.slot,
        pad2: 0,
    }
}

fn gateway_port(
    gateway: LocalGateway,
    leg: &DeviceSpec,
    bridge: u32,
    flags: u32,
) -> GatewayPortEntry {
    let own = gateway.subnet.gateway();
    GatewayPortEntry {
        ip: leg.addresses.first().map_or(IP16_NONE, |net| ip16(net.addr())),
        gateway: ip16_from_v4(own.octets()),
        bridge,
        mask: gateway.subnet.net().netmask().octets(),
        mac: leg.mac,
        gateway_mac: Mac::of_endpoint(own).octets(),
        flags,
    }
}

fn flags(network: &Network, endpoint: &Endpoint) -> u32 {
    network_flags(network) | endpoint.permissions.flags()
}

/// The flags that all endpoints of the network have.
pub(super) fn network_flags(network: &Network) -> u32 {
    let mut flags = 0;
    if !network.options.icc {
        flags |= FLAG_ICC_OFF;
    }
    if network.options.multicast {
        flags |= FLAG_MULTICAST;
    }
    flags
}
