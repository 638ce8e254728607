//! The contents of the maps in tests. As a rule there are two endpoints on this node, each with a leg on the
//! gateway bridge, and one endpoint behind the VTEP of a second node, the far node.

use std::collections::BTreeMap;

pub(crate) use super::flood::{Flood, flood};
use overlay_common::{
    ApiKey, BridgeKey, CONFIG_FLOWS, CONFIG_MONITOR, Config, FLAG_ADVERTISING, FLAG_BRIDGING,
    FLAG_ROUTING, FdbEntry, FdbKey, FloodEntry, FloodKey, GatewayPortEntry, HopEntry, IP16_NONE,
    Ip16, Limit, MacBytes, NeighEntry, NeighKey, NodeEntry, NodeKey, PortEntry, TOS_ECN,
    VXLAN_PORT, ip16_from_v4,
};

/// An endpoint, or any other holder of a MAC and an IPv4 address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Station {
    pub(crate) mac: MacBytes,
    pub(crate) ip: [u8; 4],
}

impl Station {
    /// The station with this address on the gateway bridge, whose MAC follows from the address.
    pub(crate) const fn on_gateway(ip: [u8; 4]) -> Self {
        Self { mac: [2, 0x42, ip[0], ip[1], ip[2], ip[3]], ip }
    }
}

/// The network's VNI, which has three different bytes.
pub(crate) const VNI: u32 = 0x12_34_56;
/// A second network. Its subnet may overlap the first one's.
pub(crate) const OTHER_VNI: u32 = VNI + 1;

/// An endpoint of this node, behind [`PORT_A`].
pub(crate) const A: Station = Station { mac: [2, 0, 0, 0, 0, 0xa], ip: [172, 16, 16, 129] };
/// Another endpoint of this node, behind [`PORT_B`].
pub(crate) const B: Station = Station { mac: [2, 0, 0, 0, 0, 0xb], ip: [172, 16, 16, 130] };
/// An endpoint behind [`FAR_VTEP`].
pub(crate) const FAR: Station = Station { mac: [2, 0, 0, 0, 0, 0xc], ip: [172, 16, 16, 131] };
/// An endpoint that is in no map.
pub(crate) const STRANGER: Station = Station { mac: [2, 0, 0, 0, 0, 0xd], ip: [172, 16, 16, 132] };

/// A on its gateway leg, behind [`LEG_A`].
pub(crate) const A_OUT: Station = Station::on_gateway([172, 18, 0, 3]);
/// B on its gateway leg, behind [`LEG_B`].
pub(crate) const B_OUT: Station = Station::on_gateway([172, 18, 0, 4]);
/// Index of the gateway bridge.
pub(crate) const BRIDGE: u32 = 20;
/// The gateway bridge.
pub(crate) const GATEWAY: Station = Station::on_gateway([172, 18, 0, 1]);
/// Length of the gateway subnet's prefix.
pub(crate) const GATEWAY_PREFIX: u32 = 16;
/// An address outside (RFC 5737).
pub(crate) const OUTSIDE: [u8; 4] = [203, 0, 113, 7];
/// Port of the nodes' API, at [`OWN_VTEP`] and at [`FAR_VTEP`].
pub(crate) const API_PORT: u16 = 7400;

/// This node's VTEP.
pub(crate) const OWN_VTEP: [u8; 4] = [10, 10, 10, 101];
/// The VTEP of another node, in another subnet.
pub(crate) const FAR_VTEP: [u8; 4] = [10, 10, 20, 103];
/// The VTEP of a node with no endpoint of the network.
pub(crate) const IDLE_VTEP: [u8; 4] = [10, 10, 20, 104];
/// A VTEP that belongs to no node.
pub(crate) const STRANGE_VTEP: [u8; 4] = [10, 10, 30, 1];

/// The underlay device's own address.
pub(crate) const UNDERLAY_MAC: MacBytes = [2, 0, 0, 0, 1, 1];
/// The MAC of the next hop, which the far node's underlay device has too.
pub(crate) const ROUTER_MAC: MacBytes = [2, 0, 0, 0, 1, 2];

/// The indexes that the bench gives to the host-side devices.
pub(crate) const PORT_A: u32 = 11;
pub(crate) const PORT_B: u32 = 12;
pub(crate) const UNDERLAY: u32 = 13;
pub(crate) const LEG_A: u32 = 14;
pub(crate) const LEG_B: u32 = 15;
/// The difference between the index of a device's peer and the device's own.
pub(crate) const PEER: u32 = 100;
/// The device of the far node's endpoint, in the far node's namespace.
pub(crate) const FAR_PORT: u32 = 16;
/// The host-side devices of this node.
pub(crate) const DEVICES: [u32; 5] = [PORT_A, PORT_B, UNDERLAY, LEG_A, LEG_B];
/// An index that no device has.
pub(crate) const NO_DEVICE: u32 = 999;

/// Bytes of the longest frame that these devices take: the MTU, an Ethernet header and a tag.
pub(crate) const DEVICE_TAKES: usize = 1500 + 14 + 4;

/// The slots in which A and B are counted.
pub(crate) const SLOT_A: u32 = 5;
pub(crate) const SLOT_B: u32 = 6;
/// Indexes of [`FAR_VTEP`] and [`IDLE_VTEP`] in HOPS.
pub(crate) const HOP_FAR: u32 = 2;
pub(crate) const HOP_IDLE: u32 = 3;
/// The MTU of every entry in HOPS.
pub(crate) const MTU: u16 = 1500;

/// All permissions: what `--forwards` gives.
pub(crate) const FORWARDS: u32 = FLAG_ROUTING | FLAG_BRIDGING | FLAG_ADVERTISING;

/// The TTL of outer packets. It differs from the usual defaults, so that it can only come from CONFIG.
pub(crate) const TTL: u8 = 61;

/// The contents of all maps that user space fills.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) config: Option<Config>,
    pub(crate) fdb: BTreeMap<FdbKey, FdbEntry>,
    pub(crate) neigh: BTreeMap<NeighKey, NeighEntry>,
    pub(crate) ports: BTreeMap<u32, PortEntry>,
    pub(crate) nodes: BTreeMap<NodeKey, NodeEntry>,
    pub(crate) hops: BTreeMap<u32, HopEntry>,
    pub(crate) flood: BTreeMap<u32, Flood>,
    /// The bridging endpoints of each network.
    pub(crate) bridging: BTreeMap<u32, Flood>,
    pub(crate) bridges: BTreeMap<BridgeKey, FdbEntry>,
    pub(crate) gateway_ports: BTreeMap<u32, GatewayPortEntry>,
    pub(crate) apis: BTreeMap<ApiKey, u64>,
}

impl World {
    /// Maps that user space has not filled yet.
    pub(crate) fn empty() -> Self {
        Self {
            config: None,
            fdb: BTreeMap::new(),
            neigh: BTreeMap::new(),
            ports: BTreeMap::new(),
            nodes: BTreeMap::new(),
            hops: BTreeMap::new(),
            flood: BTreeMap::new(),
            bridging: BTreeMap::new(),
            bridges: BTreeMap::new(),
            gateway_ports: BTreeMap::new(),
            apis: BTreeMap::new(),
        }
    }
}

impl Default for World {
    fn default() -> Self {
        let mut world = Self {
            config: Some(Config {
                vtep: ip16_from_v4(OWN_VTEP),
                underlay_ifindex: UNDERLAY,
                vxlan_port: VXLAN_PORT,
                ttl: TTL,
                tos_mask: TOS_ECN,
                flags: 0,
                sample: 0,
                storm: Limit::NONE,
                answers: Limit::NONE,
                claims: Limit::NONE,
                gateway: [172, 18, 0, 0],
                gateway_mask: (u32::MAX << (32 - GATEWAY_PREFIX)).to_be_bytes(),
                merge_ifindex: 0,
            }),
            flood: BTreeMap::from([(VNI, flood(&[HOP_FAR], &[PORT_A, PORT_B]))]),
            gateway_ports: BTreeMap::from([(LEG_A, leg(A_OUT)), (LEG_B, leg(B_OUT))]),
            apis: BTreeMap::from([(api_key(OWN_VTEP), 1), (api_key(FAR_VTEP), 2)]),
            ..Self::empty()
        };
        world.endpoint(A, IP16_NONE, PORT_A, SLOT_A);
        world.endpoint(B, IP16_NONE, PORT_B, SLOT_B);
        world.endpoint(FAR, ip16_from_v4(FAR_VTEP), 0, HOP_FAR);
        world.node(FAR_VTEP, 2, HOP_FAR, ROUTER_MAC);
        world.node(IDLE_VTEP, 3, HOP_IDLE, ROUTER_MAC);
        world
    }
}

impl World {
    /// Adds an endpoint. With a device it is on this node, and `place` is its slot; without one it is behind
    /// a VTEP, and `place` is its index in HOPS.
    fn endpoint(&mut self, who: Station, vtep: Ip16, ifindex: u32, place: u32) {
        let Station { mac, ip } = who;
        let ip = ip16_from_v4(ip);
        let entry = match ifindex {
            0 => FdbEntry::behind(1, ip, 0, vtep, place),
            ifindex => FdbEntry::here(1, ip, 0, ifindex, place),
        };
        self.fdb.insert(fdb_key(mac), entry);
        self.neigh.insert(NeighKey { ip, vni: VNI }, NeighEntry { mac, pad: [0; 2] });
        if ifindex != 0 {
            let port = PortEntry { ip, vni: VNI, flags: 0, mac, pad: [0; 2], slot: place, pad2: 0 };
            self.ports.insert(ifindex, port);
        }
    }

    /// Adds a node, with its entry at an index of HOPS.
    pub(crate) fn node(&mut self, vtep: [u8; 4], node: u64, hop: u32, next_hop: MacBytes) {
        self.nodes.insert(node_key(vtep), NodeEntry { node, hop, pad: 0 });
        self.hops.insert(hop, way(vtep, UNDERLAY, (next_hop, UNDERLAY_MAC)));
    }

    /// Sets `flags` on every endpoint, in the maps that hold them. A leg has one of them alone.
    pub(crate) fn flag(&mut self, flags: u32) {
        for port in self.ports.values_mut() {
            port.flags |= flags;
        }
        for entry in self.fdb.values_mut() {
            entry.flags |= flags;
        }
        for leg in self.gateway_ports.values_mut() {
            leg.flags |= flags & FLAG_ROUTING;
        }
    }

    /// Lets frames that pass on a gateway leg enter the bridge itself, and not the leg's port.
    pub(crate) fn put_into_bridge(&mut self) {
        for leg in self.gateway_ports.values_mut() {
            leg.bridge = BRIDGE;
        }
    }

    /// Has every node's next hop unresolved.
    pub(crate) fn forget_next_hops(&mut self) {
        for hop in self.hops.values_mut() {
            hop.ifindex = 0;
            hop.header[..12].fill(0);
        }
    }

    /// Moves `who` behind another VTEP.
    pub(crate) fn moved(&mut self, who: Station, vtep: [u8; 4]) {
        let entry = self.fdb.get_mut(&fdb_key(who.mac)).expect("an endpoint of the world");
        let hop = self.nodes.get(&node_key(vtep)).map_or(0, |node| node.hop);
        *entry = FdbEntry::behind(entry.endpoint, entry.ip, entry.flags, ip16_from_v4(vtep), hop);
    }

    /// The maps of the far node, when this node's maps hold this world. Endpoints behind a third node are the
    /// same in both.
    pub(crate) fn of_far_node(&self) -> Self {
        let mut world = Self::empty();
        let config = Self::default().config;
        world.config = config.map(|config| Config {
            vtep: ip16_from_v4(FAR_VTEP),
            underlay_ifindex: UNDERLAY + PEER,
            ..config
        });
        world.node(OWN_VTEP, 1, HOP_FAR, UNDERLAY_MAC);
        world.node(IDLE_VTEP, 3, HOP_IDLE, UNDERLAY_MAC);
        for (key, entry) in &self.fdb {
            let FdbEntry { endpoint, ip, flags, .. } = *entry;
            let entry = if entry.is_here() {
                FdbEntry::behind(endpoint, ip, flags, ip16_from_v4(OWN_VTEP), HOP_FAR)
            } else if entry.vtep == ip16_from_v4(FAR_VTEP) {
                FdbEntry::here(endpoint, ip, flags, FAR_PORT, SLOT_A)
            } else {
                *entry
            };
            world.fdb.insert(*key, entry);
        }
        let networks = self.flood.keys();
        world.flood = networks.map(|vni| (*vni, flood(&[HOP_FAR], &[FAR_PORT]))).collect();
        world
    }

    /// All rows of all maps, one a line.
    pub(crate) fn rows(&self) -> String {
        let Self { config, fdb, neigh, ports, nodes, hops, flood, .. } = self;
        let Self { bridging, bridges, gateway_ports, apis, .. } = self;
        let mut rows = vec![format!("{config:?}")];
        rows.extend(fdb.iter().map(|row| format!("FDB {row:02x?}")));
        rows.extend(neigh.iter().map(|row| format!("NEIGH {row:02x?}")));
        rows.extend(ports.iter().map(|row| format!("PORTS {row:02x?}")));
        rows.extend(nodes.iter().map(|row| format!("NODES {row:02x?}")));
        rows.extend(hops.iter().map(|row| format!("HOPS {row:02x?}")));
        rows.extend(flood.iter().map(|(vni, receivers)| format!("FLOOD {vni:x}: {receivers:?}")));
        rows.extend(
            bridging.iter().map(|(vni, list)| format!("FLOOD {vni:x}, bridging: {list:?}")),
        );
        rows.extend(bridges.iter().map(|row| format!("BRIDGES {row:02x?}")));
        rows.extend(gateway_ports.iter().map(|row| format!("GATEWAY_PORTS {row:02x?}")));
        rows.extend(apis.iter().map(|row| format!("APIS {row:02x?}")));
        rows.join("\n  ")
    }

    /// The entries of FLOOD.
    pub(crate) fn flood_pages(&self) -> BTreeMap<FloodKey, FloodEntry> {
        let pages = self.flood.iter().flat_map(|(vni, flood)| {
            let pages = flood.pages().into_iter().zip(0..);
            pages.map(|(entry, page)| (FloodKey { vni: *vni, page }, entry))
        });
        let bridging = self.bridging.iter().flat_map(|(vni, list)| {
            list.pages().into_iter().take(1).map(|entry| (FloodKey::bridging(*vni), entry))
        });
        pages.chain(bridging).collect()
    }

    /// Copies all of the type of service to the outer headers, DSCP included.
    pub(crate) fn copy_dscp(&mut self) {
        self.config.iter_mut().for_each(|config| config.tos_mask = 0xff);
    }

    /// Allows so many broadcast frames, answers to packets that are too big, and IPv6 addresses, and then none for
    /// seconds.
    pub(crate) fn limit(&mut self, burst: u32) {
        let limit = Limit { gap_ns: u32::MAX, burst };
        if let Some(config) = &mut self.config {
            (config.storm, config.answers, config.claims) = (limit, limit, limit);
        }
    }

    /// The configuration, unless it looks to the programs as if user space had not written it yet.
    pub(crate) fn configured(&self) -> Option<&Config> {
        self.config.as_ref().filter(|config| config.underlay_ifindex != 0)
    }

    /// The entry with this index in HOPS, unless it looks to the programs as if user space had not written it
    /// yet.
    pub(crate) fn hop(&self, index: u32) -> Option<&HopEntry> {
        self.hops.get(&index).filter(|hop| hop.mtu != 0)
    }

    /// Sets flags in CONFIG, if it is written.
    pub(crate) fn configure(&mut self, flags: u32) {
        if let Some(config) = &mut self.config {
            config.flags |= flags;
        }
    }

    /// Has one in so many forwarded packets make an event, and each drop.
    pub(crate) fn sample(&mut self, sample: u32) {
        self.configure(CONFIG_MONITOR | CONFIG_FLOWS);
        if let Some(config) = &mut self.config {
            config.sample = sample;
        }
    }
}

/// The key of `mac` in the first network.
pub(crate) fn fdb_key(mac: MacBytes) -> FdbKey {
    FdbKey { vni: VNI, mac, pad: [0; 2] }
}

/// The key of a VTEP.
pub(crate) fn node_key(vtep: [u8; 4]) -> NodeKey {
    NodeKey { vtep: ip16_from_v4(vtep) }
}

/// The key of a node's API.
pub(crate) fn api_key(ip: [u8; 4]) -> ApiKey {
    ApiKey { ip: ip16_from_v4(ip), port: u32::from(API_PORT) }
}

fn leg(who: Station) -> GatewayPortEntry {
    GatewayPortEntry {
        ip: ip16_from_v4(who.ip),
        gateway: ip16_from_v4(GATEWAY.ip),
        bridge: 0,
        mask: (u32::MAX << (32 - GATEWAY_PREFIX)).to_be_bytes(),
        mac: who.mac,
        gateway_mac: GATEWAY.mac,
        flags: 0,
    }
}

/// The entry in HOPS for a VTEP: headers in the order of the RFCs' figures, and their sum.
pub(crate) fn way(vtep: [u8; 4], ifindex: u32, (to, from): (MacBytes, MacBytes)) -> HopEntry {
    let [a, b, c, d] = OWN_VTEP;
    let [p, q] = VXLAN_PORT.to_be_bytes();
    #[rustfmt::skip]
    let ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, 17, 0, 0, a, b, c, d, vtep[0], vtep[1], vtep[2], vtep[3]];
    let rest = [0, 0, p, q, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
    let all = [&to[..], &from, &[8, 0], &ip, &rest].concat();
    HopEntry {
        header: all.try_into().expect("fifty bytes"),
        mtu: MTU,
        csum: ip.chunks(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]]))).sum(),
        ifindex,
        via: ifindex,
    }
}
