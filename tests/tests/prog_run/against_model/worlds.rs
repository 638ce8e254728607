//! Random tables: the usual ones with some changes. User space makes such a change on purpose, for a moment
//! because it writes one table after the other, or by mistake.

use overlay_common::{
    BridgeKey, CONFIG_MONITOR, CONFIG_SHARED, FLAG_ADVERTISING, FLAG_BRIDGING, FLAG_ICC_OFF,
    FLAG_MULTICAST, FLAG_ROUTING, FLOOD_MAX, FdbEntry, FdbKey, NODES_MAX, NeighEntry, NeighKey,
    ip16_from_v4,
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::world::{
    A, B, FAR, FAR_VTEP, FORWARDS, HOP_FAR, HOP_IDLE, IDLE_VTEP, LEG_A, NO_DEVICE, OTHER_VNI,
    OWN_VTEP, PORT_A, PORT_B, SLOT_A, SLOT_B, STRANGE_VTEP, STRANGER, Station, VNI, World, api_key,
    fdb_key, flood, node_key,
};

/// One difference from the usual world.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Every endpoint has these flags.
    Flags(u32),
    /// This endpoint has these permissions, too.
    Permits(Station, u32),
    /// This endpoint is the only bridging one of the network.
    OnlyBridge(Station),
    /// These indexes of HOPS and ports are those of bridging endpoints.
    Bridging(Vec<u32>, Vec<u32>),
    /// Stations with these flags are behind the VTEP.
    Stations([u8; 4], u32),
    NotConfigured,
    VxlanPort(u16),
    /// Each drop makes an event.
    Monitored,
    /// Each drop and each forwarded packet makes an event.
    AllTold,
    /// No next hop is resolved.
    NoNextHops,
    /// User space has not written this index of HOPS yet.
    NoWay(u32),
    /// Every entry in HOPS has this MTU.
    Mtu(u16),
    /// The next hops' device does not exist any more.
    NoUnderlay,
    NoNode([u8; 4]),
    /// FDB has no row of this endpoint.
    NoEntry(Station),
    /// NEIGH has no row of this endpoint.
    NoNeighbour(Station),
    /// Nothing can be delivered to this endpoint.
    Nowhere(Station),
    /// The endpoint is in the other network.
    OfAnotherNetwork(Station),
    /// The other network has an endpoint with the same MAC and address, as networks with the same subnet may.
    InBothNetworks(Station, Place),
    /// PORTS has this port in the other network.
    PortOfOther(u32),
    /// The endpoint has moved behind this VTEP.
    Moved(Station, [u8; 4]),
    /// The endpoint has moved to this port of this node.
    CameHere(Station, u32),
    /// The endpoint's row in FDB names this index of HOPS.
    AtHop(Station, u32),
    /// PORTS has these flags already, and FDB does not.
    PortFlags(u32, u32),
    /// FDB has these flags already, and PORTS does not.
    EntryFlags(Station, u32),
    /// PORTS has this endpoint at the port, and FDB still has the previous one.
    PortIs(u32, Station),
    /// PORTS has no row of this port.
    NoPort(u32),
    /// FLOOD lists these indexes of HOPS and ports, some of which may not exist any more.
    Flood(Vec<u32>, Vec<u32>),
    /// So many VTEPs and ports have no place in FLOOD.
    Overflow([u32; 2]),
    /// Another program has the VXLAN port too.
    Shared,
    /// DSCP is copied to the outer headers.
    CopyDscp,
    /// Endpoints may send so many broadcast frames, and get so many answers to packets that are too big.
    Limit(u32),
    NoFlood,
    /// Frames of gateway legs are put into the bridge.
    IntoBridge,
    SmallGatewaySubnet,
    NoLeg,
    NoApi([u8; 4]),
    /// All tables are as usual.
    Usual,
}

/// The place of the other network's endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// At this port of this node.
    Here(u32),
    /// Behind a node's VTEP.
    Behind([u8; 4]),
}

impl Change {
    pub(super) fn apply(&self, world: &mut World) {
        match self {
            Self::Flags(flags) => world.flag(*flags),
            Self::Permits(who, flags) => {
                let ports = world.ports.values_mut().filter(|port| port.mac == who.mac);
                ports.for_each(|port| port.flags |= flags);
                let entries = world.fdb.iter_mut().filter(|(key, _)| key.mac == who.mac);
                entries.for_each(|(_, entry)| entry.flags |= flags);
            }
            Self::OnlyBridge(who) => {
                if let Some(entry) = world.fdb.get(&fdb_key(who.mac)).copied() {
                    world.bridges.insert(BridgeKey::only(VNI), entry);
                    world.bridging.entry(VNI).or_insert_with(|| flood(&[], &[]));
                }
            }
            Self::Bridging(hops, ports) => drop(world.bridging.insert(VNI, flood(hops, ports))),
            Self::Stations(vtep, flags) => world.stations_behind(*vtep, *flags),
            Self::Nowhere(who) => world.nowhere(*who),
            Self::NotConfigured => world.config = None,
            Self::VxlanPort(port) => {
                world.config.iter_mut().for_each(|config| config.vxlan_port = *port);
            }
            Self::Monitored => world.configure(CONFIG_MONITOR),
            Self::AllTold => world.sample(1),
            Self::NoNextHops => world.forget_next_hops(),
            Self::NoWay(hop) => drop(world.hops.remove(hop)),
            Self::Mtu(mtu) => world.hops.values_mut().for_each(|hop| hop.mtu = *mtu),
            Self::NoUnderlay => {
                world.hops.values_mut().for_each(|hop| hop.ifindex = NO_DEVICE);
            }
            Self::NoNode(vtep) => drop(world.nodes.remove(&node_key(*vtep))),
            Self::NoEntry(who) => drop(world.fdb.remove(&fdb_key(who.mac))),
            Self::NoNeighbour(who) => {
                world.neigh.remove(&NeighKey { ip: ip16_from_v4(who.ip), vni: VNI });
            }
            Self::OfAnotherNetwork(who) => {
                let other = OTHER_VNI;
                if let Some(entry) = world.fdb.remove(&fdb_key(who.mac)) {
                    world.fdb.insert(FdbKey { vni: other, ..fdb_key(who.mac) }, entry);
                }
                let ip = ip16_from_v4(who.ip);
                if let Some(entry) = world.neigh.remove(&NeighKey { ip, vni: VNI }) {
                    world.neigh.insert(NeighKey { ip, vni: other }, entry);
                }
                let ports = world.ports.values_mut().filter(|port| port.mac == who.mac);
                ports.for_each(|port| port.vni = other);
            }
            Self::Moved(who, vtep) => {
                if world.fdb.contains_key(&fdb_key(who.mac)) {
                    world.moved(*who, *vtep);
                }
            }
            Self::InBothNetworks(who, place) => {
                let ip = ip16_from_v4(who.ip);
                let entry = match place {
                    Place::Here(port) => FdbEntry::here(2, ip, 0, *port, slot_of(*port)),
                    Place::Behind(vtep) => {
                        let hop = world.nodes.get(&node_key(*vtep)).map_or(0, |node| node.hop);
                        FdbEntry::behind(2, ip, 0, ip16_from_v4(*vtep), hop)
                    }
                };
                world.fdb.insert(FdbKey { vni: OTHER_VNI, ..fdb_key(who.mac) }, entry);
                // In reality both endpoints would have the same MAC. A different one shows which endpoint the
                // answer is about.
                let mac = STRANGER.mac;
                world
                    .neigh
                    .insert(NeighKey { ip, vni: OTHER_VNI }, NeighEntry { mac, pad: [0; 2] });
                world.flood.insert(OTHER_VNI, flood(&[HOP_IDLE], &[PORT_B]));
            }
            Self::PortOfOther(port) => {
                world.ports.entry(*port).and_modify(|port| port.vni = OTHER_VNI);
            }
            Self::CameHere(who, port) => {
                world.fdb.entry(fdb_key(who.mac)).and_modify(|entry| {
                    let FdbEntry { endpoint, ip, flags, .. } = *entry;
                    *entry = FdbEntry::here(endpoint, ip, flags, *port, slot_of(*port));
                });
            }
            Self::AtHop(who, hop) => {
                let entry = world.fdb.get_mut(&fdb_key(who.mac));
                entry.filter(|entry| entry.ifindex == 0).into_iter().for_each(|entry| {
                    let FdbEntry { endpoint, ip, flags, vtep, .. } = *entry;
                    *entry = FdbEntry::behind(endpoint, ip, flags, vtep, *hop);
                });
            }
            Self::PortFlags(port, flags) => {
                world.ports.entry(*port).and_modify(|port| port.flags = *flags);
            }
            Self::EntryFlags(who, flags) => {
                world.fdb.entry(fdb_key(who.mac)).and_modify(|entry| entry.flags = *flags);
            }
            Self::PortIs(port, who) => {
                world.ports.entry(*port).and_modify(|port| {
                    (port.mac, port.ip) = (who.mac, ip16_from_v4(who.ip));
                });
            }
            Self::Usual => *world = World::default(),
            Self::NoPort(port) => drop(world.ports.remove(port)),
            Self::Flood(hops, ports) => drop(world.flood.insert(VNI, flood(hops, ports))),
            Self::Overflow(lost) => world.flood.values_mut().for_each(|flood| flood.lost = *lost),
            Self::Shared => world.configure(CONFIG_SHARED),
            Self::CopyDscp => world.copy_dscp(),
            Self::Limit(burst) => world.limit(*burst),
            Self::NoFlood => world.flood.clear(),
            Self::IntoBridge => world.put_into_bridge(),
            Self::SmallGatewaySubnet => {
                world.gateway_ports.values_mut().for_each(|leg| leg.mask = [255, 255, 255, 248]);
            }
            Self::NoLeg => drop(world.gateway_ports.remove(&LEG_A)),
            Self::NoApi(vtep) => drop(world.apis.remove(&api_key(*vtep))),
        }
    }
}

/// The slot in which an endpoint at this port is counted.
fn slot_of(port: u32) -> u32 {
    if port == PORT_A { SLOT_A } else { SLOT_B }
}

/// The usual world with these changes, in their order.
pub(super) fn world(changes: &[Change]) -> World {
    let mut world = World::default();
    changes.iter().for_each(|change| change.apply(&mut world));
    world
}

/// A few changes. Most often none of them stops all traffic.
pub(super) fn changes() -> BoxedStrategy<Vec<Change>> {
    vec(change(), 0..4).boxed()
}

/// One change.
pub(super) fn change() -> BoxedStrategy<Change> {
    let station = || select(vec![A, B, FAR]);
    let vtep = || select(vec![FAR_VTEP, IDLE_VTEP, OWN_VTEP, STRANGE_VTEP]);
    let flags = || {
        select(vec![
            FORWARDS,
            FLAG_MULTICAST,
            FORWARDS | FLAG_MULTICAST,
            FLAG_BRIDGING | FLAG_MULTICAST,
            FLAG_ICC_OFF,
            FLAG_ICC_OFF | FLAG_MULTICAST,
        ])
    };
    let permissions =
        || select(vec![FORWARDS, FLAG_ROUTING, FLAG_BRIDGING, FLAG_BRIDGING, FLAG_ADVERTISING]);
    let bridging = (
        vec(select(vec![HOP_FAR, HOP_IDLE, 7]), 0..4),
        vec(select(vec![PORT_A, PORT_B, PORT_B, NO_DEVICE]), 0..4),
    );
    let stations = (vtep(), prop_oneof![permissions(), flags()]);
    let flooded =
        (up_to_all(vec![HOP_FAR, HOP_IDLE, 7]), up_to_all(vec![PORT_A, PORT_B, PORT_B, NO_DEVICE]));
    let port = || select(vec![PORT_A, PORT_B]);
    let place = prop_oneof![
        port().prop_map(Place::Here),
        select(vec![FAR_VTEP, IDLE_VTEP]).prop_map(Place::Behind),
    ];
    // The index of another VTEP, one that is not filled yet, some that belong to no VTEP, and some beyond the
    // array.
    let hop = select(vec![HOP_FAR, HOP_IDLE, HOP_IDLE, 0, 7, NODES_MAX - 1, NODES_MAX, u32::MAX]);
    prop_oneof![
        10 => flags().prop_map(Change::Flags),
        2 => flooded.prop_map(|(hops, ports)| Change::Flood(hops, ports)),
        1 => select(vec![[1, 0], [0, 1], [5, 3]]).prop_map(Change::Overflow),
        1 => Just(Change::CopyDscp),
        1 => Just(Change::Shared),
        1 => select(vec![0, 1, 2]).prop_map(Change::Limit),
        2 => Just(Change::Monitored),
        2 => Just(Change::AllTold),
        3 => (station(), permissions()).prop_map(|(who, flags)| Change::Permits(who, flags)),
        3 => station().prop_map(Change::OnlyBridge),
        3 => bridging.prop_map(|(hops, ports)| Change::Bridging(hops, ports)),
        4 => stations.prop_map(|(vtep, flags)| Change::Stations(vtep, flags)),
        2 => Just(Change::NoNextHops),
        1 => select(vec![HOP_FAR, HOP_IDLE]).prop_map(Change::NoWay),
        3 => select(vec![552u16, 600, 1000, 1320, 1332, 1450, 9000, u16::MAX]).prop_map(Change::Mtu),
        1 => Just(Change::NoUnderlay),
        2 => Just(Change::IntoBridge),
        1 => Just(Change::NotConfigured),
        1 => Just(Change::VxlanPort(8472)),
        1 => vtep().prop_map(Change::NoNode),
        1 => station().prop_map(Change::NoEntry),
        1 => station().prop_map(Change::NoNeighbour),
        2 => select(vec![A, B, FAR, STRANGER]).prop_map(Change::Nowhere),
        1 => station().prop_map(Change::OfAnotherNetwork),
        3 => (station(), place).prop_map(|(who, place)| Change::InBothNetworks(who, place)),
        2 => port().prop_map(Change::PortOfOther),
        3 => (station(), vtep()).prop_map(|(who, vtep)| Change::Moved(who, vtep)),
        2 => (station(), port()).prop_map(|(who, port)| Change::CameHere(who, port)),
        2 => (select(vec![FAR, FAR, A, B]), hop).prop_map(|(who, hop)| Change::AtHop(who, hop)),
        1 => (port(), flags()).prop_map(|(port, flags)| Change::PortFlags(port, flags)),
        1 => (station(), flags()).prop_map(|(who, flags)| Change::EntryFlags(who, flags)),
        1 => (port(), station()).prop_map(|(port, who)| Change::PortIs(port, who)),
        3 => Just(Change::Usual),
        1 => select(vec![PORT_A, PORT_B]).prop_map(Change::NoPort),
        1 => Just(Change::NoFlood),
        1 => Just(Change::SmallGatewaySubnet),
        1 => Just(Change::NoLeg),
        1 => vtep().prop_map(Change::NoApi),
    ]
    .boxed()
}

/// Most often a few of these, and seldom more than a page of FLOOD can hold.
fn up_to_all<T: Clone + std::fmt::Debug + 'static>(some: Vec<T>) -> BoxedStrategy<Vec<T>> {
    prop_oneof![9 => vec(select(some.clone()), 0..4), 1 => vec(select(some), FLOOD_MAX + 3)].boxed()
}
