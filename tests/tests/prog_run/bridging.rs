//! Bridging endpoints, and the stations behind them, which are in no map.

use overlay_common::{
    BridgeKey, Direction, DropReason::*, FLAG_ADVERTISING, FLAG_BRIDGING, FLAG_ICC_OFF,
    FLAG_MULTICAST, FLAG_ROUTING, FLAG_STATIONS, FdbEntry, IP16_NONE, NeighEntry, NeighKey,
    ip16_from_v4,
};

use super::{
    bench::{Bench, Skb, Verdict, on_bench},
    cases::{Case, Expected::*, case, check_all},
    encapsulation::check_vxlan,
    packets::{
        Ask, BROADCAST, EXPERIMENTAL, Flow, PAYLOAD, Vxlan, address_of, arp, cut, discovery,
        far_to_a, half_stranger, ipv4, ipv6, long_ipv4, neighbour, other, tagged, to_mac, vxlan,
        who_has, with_ports,
    },
    world::{
        A, B, FAR, FAR_VTEP, FORWARDS, HOP_FAR, IDLE_VTEP, NO_DEVICE, PORT_A, PORT_B, ROUTER_MAC,
        STRANGE_VTEP, STRANGER, Station, UNDERLAY_MAC, VNI, World, fdb_key, flood,
    },
};

impl World {
    /// Makes this endpoint the network's only bridging one.
    fn only(&mut self, who: Station) {
        let entry = self.fdb.get_mut(&fdb_key(who.mac)).expect("an endpoint of the world");
        entry.flags |= FLAG_BRIDGING;
        let entry = *entry;
        let ports = self.ports.values_mut().filter(|port| port.mac == who.mac);
        ports.for_each(|port| port.flags |= FLAG_BRIDGING);
        self.bridges.insert(BridgeKey::only(VNI), entry);
        let (hops, ports) = match entry.ifindex {
            0 => (vec![entry.hop()], vec![]),
            ifindex => (vec![], vec![ifindex]),
        };
        self.bridging.insert(VNI, flood(&hops, &ports));
    }

    /// Lists several bridging endpoints.
    fn several(&mut self, hops: &[u32], ports: &[u32]) {
        self.flag(FLAG_BRIDGING);
        self.bridging.insert(VNI, flood(hops, ports));
    }

    /// Makes this an endpoint to which nothing can be delivered.
    pub(crate) fn nowhere(&mut self, who: Station) {
        let ip = ip16_from_v4(who.ip);
        self.fdb.insert(fdb_key(who.mac), FdbEntry::nowhere(77, ip, 0));
        let entry = NeighEntry { mac: who.mac, pad: [0; 2] };
        self.neigh.insert(NeighKey { ip, vni: VNI }, entry);
    }

    /// Has bridging endpoints with these flags behind a VTEP.
    pub(super) fn stations_behind(&mut self, vtep: [u8; 4], flags: u32) {
        let vtep = ip16_from_v4(vtep);
        let entry = FdbEntry::behind(1, IP16_NONE, flags | FLAG_STATIONS, vtep, HOP_FAR);
        self.bridges.insert(BridgeKey::behind(VNI, vtep), entry);
    }
}

const ONLY_A: fn(&mut World) = |world| world.only(A);
const ONLY_B: fn(&mut World) = |world| world.only(B);
const ONLY_FAR: fn(&mut World) = |world| world.only(FAR);
const SEVERAL: fn(&mut World) = |world| world.several(&[HOP_FAR], &[PORT_A, PORT_B]);
const STATIONS: fn(&mut World) = |world| world.stations_behind(FAR_VTEP, FLAG_BRIDGING);
const ON_BOTH: fn(&mut World) = |world| {
    STATIONS(world);
    SEVERAL(world);
};

/// A station behind a bridging endpoint; another than [`STRANGER`].
const OTHER: Station = Station { mac: [2, 0, 0, 0, 0, 0xe], ip: [172, 16, 16, 9] };

#[test]
fn every_decision() {
    on_bench(|bench| {
        check_all(bench, Direction::FromEndpoint, sent());
        check_all(bench, Direction::FromUnderlay, received());
    });
}

/// A frame of A's.
#[rustfmt::skip]
pub(crate) fn sent() -> Vec<Case> {
    let flow = Flow::default();
    let to_station = || ipv4(A, STRANGER, flow);
    let station = |to: Station| ipv4(OTHER, to, flow);
    let answer = |to: [u8; 6]| arp(Ask { from: STRANGER.mac, to, operation: 2, sender: STRANGER, target: B });
    let asked = || who_has(STRANGER.ip);
    vec![
        case("to a station, one here", ONLY_B, to_station(), Redirect),
        case("to a station, one far", ONLY_FAR, to_station(), Redirect),
        case("to a station, one far, other protocol", ONLY_FAR, other(A.mac, STRANGER.mac, EXPERIMENTAL, PAYLOAD), Redirect),
        case("to a station, one far, too long", ONLY_FAR, long_ipv4(to_station(), 1465), Told),
        case("to a station, one far, its way not known", |w| { ONLY_FAR(w); w.hops.clear(); }, to_station(), Drop(UnknownNode)),
        case("to a station, one far, next hop not known", |w| { ONLY_FAR(w); w.forget_next_hops(); }, to_station(), Redirect),
        case("to a station, the sender is the only one", ONLY_A, to_station(), Drop(UnknownDestination)),
        case("to a station, several", SEVERAL, to_station(), Replicated(vec![])),
        case("to a station, several, one of them gone", |w| w.several(&[], &[NO_DEVICE, PORT_B]), to_station(), Replicated(vec![RedirectFailed])),
        case("to a station, several, one without a place", |w| { SEVERAL(w); w.bridging.values_mut().for_each(|list| list.lost = [1, 1]); }, to_station(), Replicated(vec![FloodOverflow; 2])),
        case("to a station, several, too long", |w| w.several(&[HOP_FAR], &[]), long_ipv4(to_station(), 1465), Replicated(vec![TooBig])),
        case("to a station, several, too many frames", |w| { SEVERAL(w); w.limit(0); }, to_station(), Drop(Storm)),
        case("to a station, one, whatever the limit", |w| { ONLY_FAR(w); w.limit(0); }, to_station(), Redirect),
        case("to a station, one, ICC off", |w| { ONLY_B(w); w.flag(FLAG_ICC_OFF); }, to_station(), Drop(IccOff)),
        case("to a station, several, ICC off", |w| { SEVERAL(w); w.flag(FLAG_ICC_OFF); }, to_station(), Drop(IccOff)),
        case("to a station, of another network alone", |w| { ONLY_B(w); let (_, entry) = w.bridges.pop_first().expect("one"); w.bridges.insert(BridgeKey::only(VNI + 1), entry); w.bridging.clear(); }, to_station(), Drop(UnknownDestination)),
        case("to an endpoint, several", SEVERAL, ipv4(A, FAR, flow), Redirect),
        case("of a station to an endpoint", ONLY_A, station(FAR), Redirect),
        case("of a station to a station", SEVERAL, station(STRANGER), Replicated(vec![])),
        case("of a station to a station, the only one", ONLY_A, station(STRANGER), Drop(UnknownDestination)),
        case("of a station to all", |w| { ONLY_A(w); w.flag(FLAG_MULTICAST); }, to_mac(station(B), BROADCAST), Replicated(vec![])),
        case("of a station to all, multicast off", ONLY_A, to_mac(station(B), BROADCAST), Drop(BroadcastOff)),
        case("of a station on a VLAN, to a station", SEVERAL, tagged(&station(STRANGER), 0x8100), Replicated(vec![])),
        case("who has a station's address, one here", ONLY_B, asked(), Redirect),
        case("who has a station's address, one far", ONLY_FAR, asked(), Redirect),
        case("who has a station's address, one far, next hop not known", |w| { ONLY_FAR(w); w.forget_next_hops(); }, asked(), Drop(UnresolvedNextHop)),
        case("who has a station's address, several", SEVERAL, asked(), Replicated(vec![])),
        case("who has a station's address, several, too many", |w| { SEVERAL(w); w.limit(0); }, asked(), Drop(Storm)),
        case("who has a station's address, the sender is the only one", ONLY_A, asked(), Drop(ArpUnknownTarget)),
        case("who has a station's address, asked of an endpoint", ONLY_FAR, to_mac(asked(), B.mac), Redirect),
        case("who has a station's address, to a group that no bridge passes on", ONLY_FAR, to_mac(asked(), [1, 0x80, 0xc2, 0, 0, 0]), Drop(ReservedGroup)),
        case("who has a station's address, ICC off", |w| { ONLY_FAR(w); w.flag(FLAG_ICC_OFF); }, asked(), Drop(IccOff)),
        case("who has an endpoint's address, several", SEVERAL, who_has(FAR.ip), Redirect),
        case("to an endpoint that is nowhere", |w| { SEVERAL(w); w.nowhere(STRANGER); }, to_station(), Drop(UnknownNode)),
        case("of a station with the MAC of an endpoint that is nowhere", |w| { ONLY_A(w); w.nowhere(OTHER); }, station(FAR), Drop(SpoofedMac)),
        case("of a station with the address of an endpoint that is nowhere", |w| { ONLY_A(w); w.nowhere(STRANGER); }, ipv4(Station { ip: STRANGER.ip, ..OTHER }, FAR, flow), Drop(SpoofedIp)),
        case("who has the address of an endpoint that is nowhere", |w| { SEVERAL(w); w.nowhere(STRANGER); }, asked(), Drop(ArpUnknownTarget)),
        case("a router that does not bridge asks with another address", |w| { ONLY_FAR(w); w.flag(FLAG_ROUTING); }, arp(Ask { from: A.mac, sender: Station { ip: OTHER.ip, ..A }, target: STRANGER, ..Ask::default() }), Drop(SpoofedIp)),
        case("a router that does not bridge asks for an endpoint with another address", |w| { ONLY_FAR(w); w.flag(FLAG_ROUTING); }, arp(Ask { from: A.mac, sender: Station { ip: OTHER.ip, ..A }, target: FAR, ..Ask::default() }), Redirect),
        case("a bridge itself asks with another address", SEVERAL, arp(Ask { from: A.mac, sender: Station { ip: OTHER.ip, ..A }, target: STRANGER, ..Ask::default() }), Drop(SpoofedIp)),
        case("a bridge and router asks with another address", |w| { SEVERAL(w); w.flag(FLAG_BRIDGING | FLAG_ROUTING); }, arp(Ask { from: A.mac, sender: Station { ip: OTHER.ip, ..A }, target: STRANGER, ..Ask::default() }), Replicated(vec![])),
        case("an announcement of a station, multicast", |w| { ONLY_A(w); w.flag(FLAG_MULTICAST); }, arp(Ask { from: STRANGER.mac, sender: STRANGER, target: STRANGER, ..Ask::default() }), Replicated(vec![])),
        case("a station's answer to all, multicast", |w| { ONLY_A(w); w.flag(FLAG_MULTICAST); }, answer(BROADCAST), Replicated(vec![])),
        case("an announcement of a station, the sender is the only one", ONLY_A, arp(Ask { from: STRANGER.mac, sender: STRANGER, target: STRANGER, ..Ask::default() }), Drop(ArpUnknownTarget)),
        case("an announcement of a station", SEVERAL, arp(Ask { from: STRANGER.mac, sender: STRANGER, target: STRANGER, ..Ask::default() }), Replicated(vec![])),
        case("a station's answer, here", ONLY_A, answer(B.mac), Redirect),
        case("a station's answer, far", ONLY_A, answer(FAR.mac), Redirect),
        case("a station's answer to a station", SEVERAL, answer(OTHER.mac), Replicated(vec![])),
        case("a station's answer to a station, the only one", ONLY_A, answer(OTHER.mac), Drop(UnknownDestination)),
        case("a station's answer to all", SEVERAL, answer(BROADCAST), Replicated(vec![])),
        case("a station's answer that names an endpoint", ONLY_A, arp(Ask { from: STRANGER.mac, to: FAR.mac, operation: 2, sender: Station { ip: B.ip, ..STRANGER }, target: FAR }), Drop(SpoofedIp)),
        case("a station's answer that names an endpoint's MAC", ONLY_A, arp(Ask { from: STRANGER.mac, to: FAR.mac, operation: 2, sender: Station { mac: B.mac, ..STRANGER }, target: FAR }), Drop(SpoofedMac)),
        case("an answer of one that does not bridge", ONLY_B, arp(Ask { to: B.mac, operation: 2, ..Ask::default() }), Drop(ArpNotRequest)),
    ]
}

/// A frame that comes from the underlay.
#[rustfmt::skip]
pub(crate) fn received() -> Vec<Case> {
    let flow = Flow::default();
    let station = || vxlan(&ipv4(STRANGER, A, flow));
    let to_station = || vxlan(&ipv4(FAR, STRANGER, flow));
    let question = arp(Ask { from: FAR.mac, sender: FAR, target: STRANGER, ..Ask::default() });
    let asks = |ask: Ask| vxlan(&arp(Ask { from: FAR.mac, sender: FAR, target: STRANGER, ..ask }));
    let answers = |to: [u8; 6], sender: Station| vxlan(&arp(Ask { from: STRANGER.mac, to, operation: 2, sender, target: A }));
    let idle = Vxlan { from: IDLE_VTEP, ..Vxlan::default() };
    vec![
        case("a station", STATIONS, station(), Redirect),
        case("a station, IPv6", STATIONS, vxlan(&ipv6(STRANGER, A, flow)), Redirect),
        case("a station, other protocol", STATIONS, vxlan(&other(STRANGER.mac, A.mac, EXPERIMENTAL, &[0; 46])), Redirect),
        case("a station behind another VTEP", STATIONS, idle.around(&ipv4(STRANGER, A, flow)), Drop(SourceNotBehindVtep)),
        case("a station behind no node", STATIONS, Vxlan { from: STRANGE_VTEP, ..Vxlan::default() }.around(&ipv4(STRANGER, A, flow)), Drop(UnknownVtep)),
        case("a station on another network", STATIONS, Vxlan { vni: VNI + 1, ..Vxlan::default() }.around(&ipv4(STRANGER, A, flow)), Drop(UnknownVni)),
        case("a local endpoint's MAC", STATIONS, vxlan(&ipv4(B, A, flow)), Drop(SourceNotBehindVtep)),
        case("the MAC of one behind another VTEP", |w| { STATIONS(w); w.moved(FAR, IDLE_VTEP); }, vxlan(&far_to_a()), Drop(SourceNotBehindVtep)),
        case("a group's MAC", STATIONS, { let mut inner = ipv4(STRANGER, A, flow); inner[6] |= 1; vxlan(&inner) }, Drop(SourceNotBehindVtep)),
        case("a station with a local endpoint's address", |w| w.stations_behind(FAR_VTEP, FORWARDS), vxlan(&ipv4(Station { ip: B.ip, ..STRANGER }, A, flow)), Drop(SpoofedIp)),
        case("a station with a far endpoint's address", |w| w.stations_behind(FAR_VTEP, FORWARDS), vxlan(&ipv4(half_stranger(FAR, true), A, flow)), Drop(SpoofedIp)),
        case("a station that is a DHCP server", STATIONS, vxlan(&with_ports(ipv4(STRANGER, A, flow), 20, 67, 68)), Drop(DhcpServer)),
        case("a station that is a DHCP server, allowed", |w| w.stations_behind(FAR_VTEP, FLAG_ADVERTISING), vxlan(&with_ports(ipv4(STRANGER, A, flow), 20, 67, 68)), Redirect),
        case("a station that is a router", STATIONS, vxlan(&discovery(STRANGER, A, 58, &[], 134)), Drop(RouterAdvertisement)),
        case("a station that is a router, allowed", |w| w.stations_behind(FAR_VTEP, FLAG_ADVERTISING), vxlan(&discovery(STRANGER, A, 58, &[], 134)), Redirect),
        case("a station that speaks for an endpoint", STATIONS, vxlan(&neighbour((STRANGER, A), 136, address_of(STRANGER.mac), address_of(B.mac))), Drop(SpoofedNeighbour)),
        case("a station, ICC off", |w| w.stations_behind(FAR_VTEP, FLAG_BRIDGING | FLAG_ICC_OFF), station(), Drop(IccOff)),
        case("a station to all", |w| w.stations_behind(FAR_VTEP, FLAG_BRIDGING | FLAG_MULTICAST), vxlan(&to_mac(ipv4(STRANGER, A, flow), BROADCAST)), Replicated(vec![])),
        case("a station to all, multicast off", STATIONS, vxlan(&to_mac(ipv4(STRANGER, A, flow), BROADCAST)), Drop(BroadcastOff)),
        case("to a station", SEVERAL, to_station(), Replicated(vec![])),
        case("to a station, one here", ONLY_A, to_station(), Redirect),
        case("to a station, one here, congestion", ONLY_A, Vxlan { tos: 3, ..Vxlan::default() }.around(&ipv4(FAR, STRANGER, flow)), Drop(EcnNotCapable)),
        case("who has a station's address, one here", ONLY_A, asks(Ask::default()), Redirect),
        case("a station with the MAC of an endpoint that is nowhere", |w| { STATIONS(w); w.nowhere(STRANGER); }, station(), Drop(SourceNotBehindVtep)),
        case("a station with the address of an endpoint that is nowhere", |w| { STATIONS(w); w.nowhere(OTHER); }, vxlan(&ipv4(half_stranger(OTHER, true), A, flow)), Drop(SpoofedIp)),
        case("to an endpoint that is nowhere", |w| { ONLY_A(w); w.nowhere(STRANGER); }, to_station(), Drop(NotLocalDestination)),
        case("to a station, one far", ONLY_FAR, to_station(), Drop(UnknownDestination)),
        case("to a station, its device gone", |w| w.several(&[], &[NO_DEVICE]), to_station(), Replicated(vec![RedirectFailed])),
        case("to a station, one without a place", |w| { SEVERAL(w); w.bridging.values_mut().for_each(|list| list.lost = [1, 2]); }, to_station(), Replicated(vec![FloodOverflow; 2])),
        case("to a station, congestion", SEVERAL, Vxlan { tos: 3, ..Vxlan::default() }.around(&ipv4(FAR, STRANGER, flow)), Drop(EcnNotCapable)),
        case("of a station to a station", ON_BOTH, vxlan(&ipv4(OTHER, STRANGER, flow)), Replicated(vec![])),
        case("who has a station's address", SEVERAL, asks(Ask::default()), Replicated(vec![])),
        case("who has a station's address, asked by a station", ON_BOTH, vxlan(&arp(Ask { from: OTHER.mac, sender: OTHER, target: STRANGER, ..Ask::default() })), Replicated(vec![])),
        case("who has a station's address, none here", ONLY_FAR, asks(Ask::default()), Drop(ArpFromUnderlay)),
        case("who has a local endpoint's address", SEVERAL, vxlan(&arp(Ask { from: FAR.mac, sender: FAR, target: A, ..Ask::default() })), Drop(ArpFromUnderlay)),
        case("who has a station's address, cut", SEVERAL, vxlan(&cut(question, 14 + 27)), Drop(Malformed)),
        case("who has a station's address, ICC off", |w| { SEVERAL(w); w.flag(FLAG_ICC_OFF); }, asks(Ask::default()), Drop(IccOff)),
        case("a question in an endpoint's name", SEVERAL, vxlan(&arp(Ask { from: FAR.mac, sender: Station { ip: B.ip, ..FAR }, target: STRANGER, ..Ask::default() })), Drop(SpoofedIp)),
        case("a question with an endpoint's MAC", SEVERAL, vxlan(&arp(Ask { from: FAR.mac, sender: Station { mac: B.mac, ..FAR }, target: STRANGER, ..Ask::default() })), Drop(SpoofedMac)),
        case("a station's answer", ON_BOTH, answers(A.mac, STRANGER), Redirect),
        case("a station's answer to a station", ON_BOTH, answers(OTHER.mac, STRANGER), Replicated(vec![])),
        case("a station's answer to all", ON_BOTH, answers(BROADCAST, STRANGER), Replicated(vec![])),
        case("a station's answer that names an endpoint", ON_BOTH, answers(A.mac, Station { ip: B.ip, ..STRANGER }), Drop(SpoofedIp)),
        case("an answer of one that does not bridge", |w| w.bridging = [(VNI, flood(&[], &[PORT_A]))].into(), vxlan(&arp(Ask { from: FAR.mac, to: A.mac, operation: 2, sender: FAR, target: A })), Drop(ArpNotRequest)),
    ]
}

/// The frame, and the question for it, go where a station may be, and to no other endpoint.
#[test]
fn what_is_for_a_station_reaches_bridging_endpoints_alone() {
    on_bench(|bench| {
        let mut world = World::default();
        world.several(&[HOP_FAR], &[PORT_B]);
        bench.fill(&world);
        let (a, b, wire) = (bench.tap_a(), bench.tap_b(), bench.tap_underlay());
        let none = [] as [Vec<u8>; 0];
        for frame in [ipv4(A, STRANGER, Flow::default()), who_has(STRANGER.ip)] {
            bench.run(Direction::FromEndpoint, &frame);
            assert_eq!((a.received(), b.received()), (none.to_vec(), vec![frame.clone()]));
            let copies = wire.received();
            let [copy] = &copies[..] else { panic!("{copies:?}") };
            check_vxlan(copy, &frame, 0, (ROUTER_MAC, UNDERLAY_MAC), FAR_VTEP);
        }
        let asked = arp(Ask { from: FAR.mac, sender: FAR, target: STRANGER, ..Ask::default() });
        for frame in [ipv4(FAR, STRANGER, Flow::default()), asked] {
            bench.run(Direction::FromUnderlay, &vxlan(&frame));
            assert_eq!((a.received(), b.received()), (none.to_vec(), vec![frame]));
            assert_eq!(wire.received(), none);
        }
    });
}

/// It is counted as what any endpoint sends and receives, because it goes the same way.
#[test]
fn the_only_bridge_is_sent_to_as_any_endpoint() {
    on_bench(|bench| {
        let frame = ipv4(A, STRANGER, Flow::default());
        let sent = |bench: &mut Bench, who: Station| {
            let mut world = World::default();
            world.only(who);
            bench.fill(&world);
            bench.run_skb(Direction::FromEndpoint, &frame, Skb { ifindex: PORT_A, gso_size: 0 })
        };
        assert_eq!(sent(bench, B).packet, frame);
        let far = sent(bench, FAR);
        assert_eq!(far.verdict, Verdict::Redirect);
        check_vxlan(&far.packet, &frame, 0, (ROUTER_MAC, UNDERLAY_MAC), FAR_VTEP);
        // From the underlay the frame itself goes there, and no copy.
        let mut world = World::default();
        world.only(B);
        bench.fill(&world);
        let frame = ipv4(FAR, STRANGER, Flow::default());
        let received = bench.run(Direction::FromUnderlay, &vxlan(&frame));
        assert_eq!((received.verdict, received.packet), (Verdict::Redirect, frame));
        let traffic = bench.read_traffic();
        assert_eq!(traffic[&super::world::SLOT_B].received.packets, 1);
        let of_b = traffic[&super::world::SLOT_B];
        assert_eq!(
            (of_b.from_neighbours.packets, traffic[&super::world::SLOT_A].sent.packets),
            (1, 2)
        );
    });
}
