use super::{DeviceId, DeviceSpec, NextHop, ObservedDevice, Tables};
use crate::{
    model::{Endpoint, Location, Mac, Network, NodeId, Subnet},
    state::View,
};
use overlay_common::{
    ApiKey, FLAG_FORWARDS, FLAG_ICC_OFF, FLAG_MULTICAST, FLOOD_MAX, FdbEntry, FdbKey, FloodEntry,
    GatewayPortEntry, IP16_NONE, NODE_NEXT_HOP, NeighEntry, NeighKey, NodeEntry, NodeKey,
    PortEntry, ip16_from_v4,
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
#[must_use]
pub fn desired_tables(
    view: &View,
    local: &LocalNode,
    devices: &BTreeMap<DeviceId, ObservedDevice>,
    next_hops: &BTreeMap<Ipv4Addr, NextHop>,
) -> Tables {
    let mut tables = Tables::default();
    for node in view.nodes.values().filter(|node| node.id != local.id) {
        insert_node(&mut tables, node.vtep, node.id, next_hops);
    }
    for node in view.nodes.values() {
        for address in [node.listen].into_iter().chain(node.metrics) {
            if let IpAddr::V4(ip) = address.ip() {
                let key = ApiKey { ip: ip16_from_v4(ip.octets()), port: address.port().into() };
                tables.apis.insert(key, node.id);
            }
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
            match behind {
                Behind::Port(ifindex) => flood.ports.push(ifindex),
                Behind::Vtep(vtep) => {
                    flood.vteps.insert(vtep);
                    if matches!(endpoint.location, Location::External { .. }) {
                        insert_node(&mut tables, vtep, 0, next_hops);
                    }
                }
            }
            insert_endpoint(&mut tables, network, endpoint, &behind, next_hops);
        }
        tables.flood.insert(network.vni.get(), flood.entry(network));
    }
    tables
}

fn insert_node(
    tables: &mut Tables,
    vtep: Ipv4Addr,
    node: NodeId,
    next_hops: &BTreeMap<Ipv4Addr, NextHop>,
) {
    let entry = match next_hops.get(&vtep) {
        Some(hop) => NodeEntry {
            node,
            ifindex: hop.ifindex,
            flags: NODE_NEXT_HOP,
            next_hop_mac: hop.mac,
            source_mac: hop.source_mac,
            pad: [0; 4],
        },
        None => NodeEntry {
            node,
            ifindex: 0,
            flags: 0,
            next_hop_mac: [0; 6],
            source_mac: [0; 6],
            pad: [0; 4],
        },
    };
    tables.nodes.insert(NodeKey { vtep: ip16_from_v4(vtep.octets()) }, entry);
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
    next_hops: &BTreeMap<Ipv4Addr, NextHop>,
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
        tables.ports.insert(*ifindex, PortEntry { ip, vni, flags, mac, pad: [0; 2] });
    }
    let key = FdbKey { vni, mac, pad: [0; 2] };
    let hop = match behind {
        Behind::Port(_) => None,
        Behind::Vtep(vtep) => next_hops.get(vtep),
    };
    let entry = FdbEntry {
        vtep,
        ip,
        ifindex,
        flags,
        generation: endpoint.id,
        hop_ifindex: hop.map_or(0, |hop| hop.ifindex),
        hop_mac: hop.map_or([0; 6], |hop| hop.mac),
        hop_source: hop.map_or([0; 6], |hop| hop.source_mac),
    };
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
