//! What the maps may hold beside the usual.

use overlay_common::{
    CONFIG_MONITOR, FLAG_FORWARDS, FLAG_ICC_OFF, FLAG_MULTICAST, FdbKey, NeighKey, ip16_from_v4,
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::world::{
    A, B, FAR, FAR_VTEP, HOP_FAR, HOP_IDLE, IDLE_VTEP, LEG_A, NO_DEVICE, OWN_VTEP, PORT_A, PORT_B,
    STRANGE_VTEP, Station, VNI, World, api_key, fdb_key, flood, node_key,
};

/// One way in which a world differs from the usual one.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// On every endpoint.
    Flags(u32),
    Forwards(Station),
    NotConfigured,
    VxlanPort(u16),
    Monitored,
    /// Drops, and everything that is forwarded.
    AllTold,
    NoNextHops,
    /// User space has not written the way.
    NoWay(u32),
    /// Of every way.
    Mtu(u16),
    /// The next hops' device has gone.
    NoUnderlay,
    NoNode([u8; 4]),
    /// The network has no such MAC.
    NoEntry(Station),
    NoNeighbour(Station),
    /// Its MAC and address are another network's.
    OfAnotherNetwork(Station),
    Moved(Station, [u8; 4]),
    NoPort(u32),
    Flood(Vec<[u8; 4]>, Vec<u32>),
    NoFlood,
    IntoBridge,
    SmallGatewaySubnet,
    NoLeg,
    NoApi([u8; 4]),
}

impl Change {
    pub(super) fn apply(&self, world: &mut World) {
        match self {
            Self::Flags(flags) => world.flag(*flags),
            Self::Forwards(who) => {
                let ports = world.ports.values_mut().filter(|port| port.mac == who.mac);
                ports.for_each(|port| port.flags |= FLAG_FORWARDS);
                let entries = world.fdb.iter_mut().filter(|(key, _)| key.mac == who.mac);
                entries.for_each(|(_, entry)| entry.flags |= FLAG_FORWARDS);
            }
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
                let other = VNI + 1;
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
            Self::NoPort(port) => drop(world.ports.remove(port)),
            Self::Flood(vteps, ports) => drop(world.flood.insert(VNI, flood(vteps, ports))),
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

/// The usual world with these changes, one after the other.
pub(super) fn world(changes: &[Change]) -> World {
    let mut world = World::default();
    changes.iter().for_each(|change| change.apply(&mut world));
    world
}

/// A few changes, most often none that stops all traffic.
pub(super) fn changes() -> BoxedStrategy<Vec<Change>> {
    let station = || select(vec![A, B, FAR]);
    let vtep = || select(vec![FAR_VTEP, IDLE_VTEP, OWN_VTEP, STRANGE_VTEP]);
    let flags = || {
        select(vec![
            FLAG_FORWARDS,
            FLAG_MULTICAST,
            FLAG_FORWARDS | FLAG_MULTICAST,
            FLAG_FORWARDS | FLAG_MULTICAST,
            FLAG_ICC_OFF,
            FLAG_ICC_OFF | FLAG_MULTICAST,
        ])
    };
    let flooded = (
        vec(select(vec![FAR_VTEP, IDLE_VTEP, STRANGE_VTEP]), 0..4),
        vec(select(vec![PORT_A, PORT_B, PORT_B, NO_DEVICE]), 0..4),
    );
    let change = prop_oneof![
        10 => flags().prop_map(Change::Flags),
        2 => flooded.prop_map(|(vteps, ports)| Change::Flood(vteps, ports)),
        2 => Just(Change::Monitored),
        2 => Just(Change::AllTold),
        3 => station().prop_map(Change::Forwards),
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
        1 => station().prop_map(Change::OfAnotherNetwork),
        1 => (station(), vtep()).prop_map(|(who, vtep)| Change::Moved(who, vtep)),
        1 => select(vec![PORT_A, PORT_B]).prop_map(Change::NoPort),
        1 => Just(Change::NoFlood),
        1 => Just(Change::SmallGatewaySubnet),
        1 => Just(Change::NoLeg),
        1 => vtep().prop_map(Change::NoApi),
    ];
    vec(change, 0..4).boxed()
}
