use super::{
    DeviceId, DeviceSpec, NextHop, ObservedDevice, Tables,
    hop::{LocalVtep, hop_entry},
};
use crate::{
    model::{Endpoint, Location, Mac, Network, NodeId, Subnet},
    state::View,
};
use overlay_common::{
    ApiKey, FLAG_FORWARDS, FLAG_ICC_OFF, FLAG_MULTICAST, FLOOD_MAX, FdbEntry, FdbKey, FloodEntry,
    GatewayPortEntry, IP16_NONE, NODES_MAX, NeighEntry, NeighKey, NodeEntry, NodeKey, PortEntry,
    TRAFFIC_MAX, ip16_from_v4,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

/// What a node knows of itself.
#[derive(Clone, Debug)]
pub struct LocalNode {
    /// Its Raft id.
    pub id: NodeId,
    /// Its end of every tunnel.
    pub vtep: LocalVtep,
    /// Bytes: MTU of an endpoint whose network sets none.
    pub endpoint_mtu: u32,
    /// Its gateway bridge.
    pub gateway: LocalGateway,
}

/// A node's own gateway bridge.
#[derive(Clone, Copy, Debug)]
pub struct LocalGateway {
    /// What its legs have addresses of; the first is the bridge's.
    pub subnet: Subnet,
    /// Bytes: MTU of the legs.
    pub mtu: u32,
}

/// The devices that the endpoints here need: each a port on its network, each namespace a leg on the
/// gateway bridge. An address of another subnet than the bridge's gets none.
pub(super) fn devices(view: &View, local: &LocalNode) -> BTreeMap<DeviceId, DeviceSpec> {
    let mut devices = BTreeMap::new();
    for endpoint in view.all_endpoints() {
        let Location::Node { node, netns } = &endpoint.location else { continue };
        let Some(network) = view.networks.get(&endpoint.network) else { continue };
        if *node != local.id {
            continue;
        }
        let port = DeviceSpec {
            netns: netns.clone(),
            mac: endpoint.mac.octets(),
            address: endpoint.address,
            prefix: network.pool.subnet.net().prefix_len(),
            mtu: network.options.mtu.map_or(local.endpoint_mtu, u32::from),
            gateway: None,
        };
        devices.insert(DeviceId::Port(endpoint.id), port);
        let LocalGateway { subnet, mtu } = local.gateway;
        if let Some(address) = endpoint.gateway.filter(|a| subnet.net().contains(a)) {
            let leg = DeviceSpec {
                netns: netns.clone(),
                mac: Mac::of_endpoint(address).octets(),
                address,
                prefix: subnet.net().prefix_len(),
                mtu,
                gateway: Some(subnet.gateway()),
            };
            devices.insert(DeviceId::Leg(address), leg);
        }
    }
    devices
}

/// Where packets for an endpoint go.
enum Behind {
    Port(u32),
    Vtep(Ipv4Addr),
}

/// The VTEPs that this node sends to: those behind which an endpoint of a network of ours is.
pub(super) fn remote_vteps(view: &View, local: &LocalNode) -> BTreeSet<Ipv4Addr> {
    view.all_endpoints().filter_map(|endpoint| vtep_of(view, local, endpoint)).collect()
}

/// The VTEP the endpoint is behind; `None` where it is here, or its node is not known (yet).
fn vtep_of(view: &View, local: &LocalNode, endpoint: &Endpoint) -> Option<Ipv4Addr> {
    match &endpoint.location {
        Location::Node { node, .. } if *node == local.id => None,
        Location::Node { node, .. } => view.nodes.get(node).map(|node| node.vtep),
        Location::External { vtep } => Some(*vtep),
    }
}

/// What the maps must hold for `view`, given the ports that stand. An endpoint of this node without
/// a port has no entry: packets for it are dropped and counted, and nobody gets an ARP answer.
///
/// Who has an index in an array keeps it: `held` is what the maps hold now.
#[must_use]
pub fn desired_tables(
    view: &View,
    local: &LocalNode,
    devices: &BTreeMap<DeviceId, ObservedDevice>,
    next_hops: &BTreeMap<Ipv4Addr, NextHop>,
    held: &Tables,
) -> Tables {
    let mut tables = Tables::default();
    let mut hops = Indexes::new(NODES_MAX, held.nodes.values().map(|node| node.hop));
    let mut slots = Indexes::new(TRAFFIC_MAX, held.ports.values().map(|port| port.slot));
    let mut hop_of = |tables: &mut Tables, vtep: Ipv4Addr, node: NodeId| {
        let key = NodeKey { vtep: ip16_from_v4(vtep.octets()) };
        let now = tables.nodes.get(&key).or_else(|| held.nodes.get(&key)).map(|node| node.hop);
        let hop = now.or_else(|| hops.free())?;
        tables.hops.insert(hop, hop_entry(local.vtep, vtep, next_hops.get(&vtep).copied()));
        tables.nodes.entry(key).or_insert(NodeEntry { node, hop, pad: 0 });
        Some(hop)
    };
    for node in view.nodes.values().filter(|node| node.id != local.id) {
        hop_of(&mut tables, node.vtep, node.id);
    }
    for node in view.nodes.values() {
        if let IpAddr::V4(ip) = node.listen.ip() {
            let key = ApiKey { ip: ip16_from_v4(ip.octets()), port: node.listen.port().into() };
            tables.apis.insert(key, node.id);
        }
    }
    for device in devices.values() {
        if let DeviceId::Leg(address) = device.id {
            tables
                .gateway_ports
                .insert(device.ifindex, gateway_port(local.gateway, address, device.bridge));
        }
    }
    for network in view.networks.values() {
        let mut flood = Flood::default();
        for endpoint in view.endpoints.get(&network.id).into_iter().flat_map(BTreeMap::values) {
            let behind = if endpoint.node() == Some(local.id) {
                devices.get(&DeviceId::Port(endpoint.id)).map(|port| Behind::Port(port.ifindex))
            } else {
                vtep_of(view, local, endpoint).map(Behind::Vtep)
            };
            let Some(behind) = behind else { continue };
            let hop = match behind {
                Behind::Port(ifindex) => {
                    flood.ports.push(ifindex);
                    let slot = held.ports.get(&ifindex).map(|port| port.slot);
                    slot.or_else(|| slots.free()).unwrap_or(0)
                }
                Behind::Vtep(vtep) => {
                    flood.vteps.insert(vtep);
                    // One that is not a node's is known by its endpoints.
                    let Some(hop) = hop_of(&mut tables, vtep, 0) else { continue };
                    hop
                }
            };
            insert_endpoint(&mut tables, network, endpoint, &behind, hop);
        }
        tables.flood.insert(network.vni.get(), flood.entry(network));
    }
    tables
}

/// The indexes of an array that nobody has. One that was given up is nobody's only once no map names it
/// any more, which is when it is not held.
struct Indexes {
    taken: BTreeSet<u32>,
    next: u32,
    capacity: u32,
}

impl Indexes {
    fn new(capacity: u32, held: impl Iterator<Item = u32>) -> Self {
        Self { taken: held.collect(), next: 1, capacity }
    }

    fn free(&mut self) -> Option<u32> {
        let free = (self.next..self.capacity).find(|index| !self.taken.contains(index))?;
        self.next = free + 1;
        Some(free)
    }
}

fn gateway_port(gateway: LocalGateway, address: Ipv4Addr, bridge: u32) -> GatewayPortEntry {
    let own = gateway.subnet.gateway();
    GatewayPortEntry {
        ip: ip16_from_v4(address.octets()),
        gateway: ip16_from_v4(own.octets()),
        bridge,
        mask: gateway.subnet.net().netmask().octets(),
        mac: Mac::of_endpoint(address).octets(),
        gateway_mac: Mac::of_endpoint(own).octets(),
    }
}

fn flags(network: &Network, endpoint: &Endpoint) -> u32 {
    let mut flags = 0;
    if endpoint.forwards {
        flags |= FLAG_FORWARDS;
    }
    if !network.options.icc {
        flags |= FLAG_ICC_OFF;
    }
    if network.options.multicast {
        flags |= FLAG_MULTICAST;
    }
    flags
}

fn insert_endpoint(
    tables: &mut Tables,
    network: &Network,
    endpoint: &Endpoint,
    behind: &Behind,
    hop: u32,
) {
    let vni = network.vni.get();
    let mac = endpoint.mac.octets();
    let ip = ip16_from_v4(endpoint.address.octets());
    let flags = flags(network, endpoint);
    let (vtep, ifindex) = match behind {
        Behind::Port(ifindex) => (IP16_NONE, *ifindex),
        Behind::Vtep(vtep) => (ip16_from_v4(vtep.octets()), 0),
    };
    if let Behind::Port(ifindex) = behind {
        let port = PortEntry { ip, vni, flags, mac, pad: [0; 2], slot: hop, pad2: 0 };
        tables.ports.insert(*ifindex, port);
    }
    let key = FdbKey { vni, mac, pad: [0; 2] };
    let entry = FdbEntry { vtep, ip, ifindex, flags, generation: endpoint.id, hop, pad: 0 };
    tables.fdb.insert(key, entry);
    tables.neigh.insert(NeighKey { vni, ip }, NeighEntry { mac, pad: [0; 2] });
}

#[derive(Default)]
struct Flood {
    vteps: BTreeSet<Ipv4Addr>,
    ports: Vec<u32>,
}

impl Flood {
    /// The entry; empty lists where the network carries no broadcast. What goes beyond the lists'
    /// room gets none, and that is said.
    fn entry(self, network: &Network) -> FloodEntry {
        let mut entry = FloodEntry {
            vtep_count: 0,
            port_count: 0,
            vteps: [IP16_NONE; FLOOD_MAX],
            ports: [0; FLOOD_MAX],
        };
        if !network.options.multicast {
            return entry;
        }
        if self.vteps.len() > FLOOD_MAX || self.ports.len() > FLOOD_MAX {
            tracing::warn!(
                network = %network.name, limit = FLOOD_MAX, vteps = self.vteps.len(),
                ports = self.ports.len(), "some nodes or endpoints get no broadcast"
            );
        }
        for (slot, vtep) in entry.vteps.iter_mut().zip(&self.vteps) {
            *slot = ip16_from_v4(vtep.octets());
            entry.vtep_count += 1;
        }
        for (slot, port) in entry.ports.iter_mut().zip(&self.ports) {
            *slot = *port;
            entry.port_count += 1;
        }
        entry
    }
}
