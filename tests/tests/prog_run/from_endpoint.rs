//! Every decision about a frame that an endpoint sends.

use overlay_common::{
    Direction, DropReason::*, FLAG_ADVERTISING, FLAG_BRIDGING, FLAG_ICC_OFF, FLAG_MULTICAST,
    FLAG_ROUTING, NeighKey, VIA_BARE, ip16_from_v4,
};

use super::{
    bench::{Skb, on_bench},
    cases::{Case, Expected::*, case, check_all},
    icmp_errors,
    packets::{
        Ask, BROADCAST, EXPERIMENTAL, Flow, GROUP, PAYLOAD, a_to_b, a_to_far, address_of, arp, cut,
        discovery, half_stranger, ipv4, ipv6, long_ipv4, neighbour, other, tagged, tagged_with,
        to_mac, unique, who_has, with_ports,
    },
    world::{
        A, B, FAR, FORWARDS as ALL_PERMISSIONS, GATEWAY, HOP_FAR, NO_DEVICE, PORT_A, PORT_B,
        STRANGE_VTEP, STRANGER, Station, UNDERLAY, VNI, World, fdb_key, flood,
    },
};

const AS_USUAL: fn(&mut World) = |_| {};
const FORWARDS: fn(&mut World) = |world| world.flag(ALL_PERMISSIONS);
const ROUTING: fn(&mut World) = |world| world.flag(FLAG_ROUTING);
const BRIDGING: fn(&mut World) = |world| world.flag(FLAG_BRIDGING);
const ADVERTISING: fn(&mut World) = |world| world.flag(FLAG_ADVERTISING);
const ALL_BUT_ADVERTISING: fn(&mut World) = |world| world.flag(FLAG_ROUTING | FLAG_BRIDGING);
const MULTICAST: fn(&mut World) = |world| world.flag(FLAG_MULTICAST);
const ICC_OFF: fn(&mut World) = |world| world.flag(FLAG_ICC_OFF);
const NO_DEVICE_KNOWN: fn(&mut World) = |world| {
    world.forget_next_hops();
    world.hops.values_mut().for_each(|hop| hop.via = 0);
};
const BARE: fn(&mut World) = |world| {
    world.forget_next_hops();
    world.hops.values_mut().for_each(|hop| hop.via |= VIA_BARE);
};

#[test]
fn every_decision() {
    on_bench(|bench| check_all(bench, Direction::FromEndpoint, cases()));
}

/// The cases of all tables.
#[rustfmt::skip]
pub(crate) fn cases() -> Vec<Case> {
    [who_it_is(), on_a_vlan(), what_only_servers_say(), icmp_errors::from_endpoint(), for_whom_it_speaks(), arp_asked(), where_it_goes(), too_big(), to_all(), malformed()]
        .into_iter().flatten().collect()
}

#[rustfmt::skip]
fn who_it_is() -> Vec<Case> {
    let flow = Flow::default();
    vec![
        case("a device of no endpoint", |w| { w.ports.remove(&PORT_A); }, a_to_b(), Drop(UnknownPort)),
        case("the underlay's device", AS_USUAL, a_to_b(), Drop(UnknownPort)).with(Skb { ifindex: UNDERLAY, gso_size: 0 }),
        case("another's MAC", AS_USUAL, ipv4(half_stranger(A, true), B, flow), Drop(SpoofedMac)),
        case("a neighbour's MAC", AS_USUAL, ipv4(B, FAR, flow), Drop(SpoofedMac)),
        case("another's MAC, IPv6", AS_USUAL, ipv6(STRANGER, B, flow), Drop(SpoofedMac)),
        case("another's MAC, other protocol", AS_USUAL, other(STRANGER.mac, B.mac, EXPERIMENTAL, PAYLOAD), Drop(SpoofedMac)),
        case("a station's MAC and address", BRIDGING, ipv4(STRANGER, B, flow), Redirect),
        case("a station's MAC and address, far", BRIDGING, ipv4(STRANGER, FAR, flow), Redirect),
        case("a station's MAC, IPv6", BRIDGING, ipv6(STRANGER, B, flow), Redirect),
        case("a station's MAC, other protocol", BRIDGING, other(STRANGER.mac, B.mac, EXPERIMENTAL, PAYLOAD), Redirect),
        case("a station without an address", BRIDGING, ipv4(Station { ip: [0; 4], ..STRANGER }, B, flow), Redirect),
        case("a station with the endpoint's own address", FORWARDS, ipv4(half_stranger(A, true), B, flow), Drop(SpoofedIp)),
        case("a station with a neighbour's address", FORWARDS, ipv4(Station { ip: B.ip, ..STRANGER }, FAR, flow), Drop(SpoofedIp)),
        case("a station with a far endpoint's address", FORWARDS, ipv4(Station { ip: FAR.ip, ..STRANGER }, B, flow), Drop(SpoofedIp)),
        case("another's MAC, routing alone", ROUTING, ipv4(STRANGER, B, flow), Drop(SpoofedMac)),
        case("another's MAC, advertising alone", ADVERTISING, ipv4(STRANGER, B, flow), Drop(SpoofedMac)),
        case("a neighbour's MAC, all allowed", FORWARDS, ipv4(B, FAR, flow), Drop(SpoofedMac)),
        case("a neighbour's MAC, other protocol, all allowed", FORWARDS, other(B.mac, FAR.mac, EXPERIMENTAL, PAYLOAD), Drop(SpoofedMac)),
        case("a far endpoint's MAC, all allowed", FORWARDS, ipv4(FAR, B, flow), Drop(SpoofedMac)),
        case("a group's MAC, all allowed", FORWARDS, { let mut frame = ipv4(STRANGER, B, flow); frame[6] |= 1; frame }, Drop(SpoofedMac)),
        case("a MAC of another network's endpoint", |w| {
            BRIDGING(w);
            let entry = w.fdb[&fdb_key(B.mac)];
            w.fdb.insert(overlay_common::FdbKey { vni: VNI + 1, ..fdb_key(STRANGER.mac) }, entry);
        }, ipv4(STRANGER, B, flow), Redirect),
        case("another's address", AS_USUAL, ipv4(half_stranger(A, false), B, flow), Drop(SpoofedIp)),
        case("a neighbour's address", AS_USUAL, ipv4(Station { ip: B.ip, ..A }, FAR, flow), Drop(SpoofedIp)),
        case("no address", AS_USUAL, ipv4(Station { ip: [0; 4], ..A }, B, flow), Drop(SpoofedIp)),
        case("another's address, allowed", ROUTING, ipv4(half_stranger(A, false), B, flow), Redirect),
        case("another's address, allowed, far", ROUTING, ipv4(half_stranger(A, false), FAR, flow), Redirect),
        case("another's address, bridging alone", BRIDGING, ipv4(half_stranger(A, false), B, flow), Drop(SpoofedIp)),
        case("another's address, advertising alone", ADVERTISING, ipv4(half_stranger(A, false), B, flow), Drop(SpoofedIp)),
        case("a neighbour's address, all allowed", FORWARDS, ipv4(Station { ip: B.ip, ..A }, FAR, flow), Drop(SpoofedIp)),
        case("a far endpoint's address, all allowed", FORWARDS, ipv4(Station { ip: FAR.ip, ..A }, B, flow), Drop(SpoofedIp)),
        case("the gateway's address, all allowed", FORWARDS, ipv4(Station { ip: GATEWAY.ip, ..A }, B, flow), Drop(SpoofedIp)),
        case("a leg's address, all allowed", FORWARDS, ipv4(Station { ip: [172, 18, 255, 9], ..A }, B, flow), Drop(SpoofedIp)),
        case("the gateway's address, from a station", FORWARDS, ipv4(Station { ip: GATEWAY.ip, ..STRANGER }, B, flow), Drop(SpoofedIp)),
        case("an address behind the gateway's subnet, allowed", FORWARDS, ipv4(Station { ip: [172, 19, 0, 1], ..A }, B, flow), Redirect),
        case("the loopback's address, all allowed", FORWARDS, ipv4(Station { ip: [127, 0, 0, 1], ..A }, B, flow), Drop(SpoofedIp)),
        case("a group's address, all allowed", FORWARDS, ipv4(Station { ip: [224, 0, 0, 1], ..A }, B, flow), Drop(SpoofedIp)),
        case("the broadcast address, from a station", FORWARDS, ipv4(Station { ip: [255; 4], ..STRANGER }, B, flow), Drop(SpoofedIp)),
        case("another port's endpoint", AS_USUAL, ipv4(B, FAR, flow), Redirect).with(Skb { ifindex: PORT_B, gso_size: 0 }),
    ]
}

/// test_run cannot be given a tag that the kernel took out of the frame: live.rs tests this.
#[rustfmt::skip]
fn on_a_vlan() -> Vec<Case> {
    let flow = Flow::default();
    let stranger = || ipv4(half_stranger(A, false), FAR, flow);
    vec![
        case("an 802.1Q tag", AS_USUAL, tagged(&a_to_b(), 0x8100), Redirect),
        case("an 802.1ad tag", AS_USUAL, tagged(&a_to_far(), 0x88a8), Redirect),
        case("a tag, another's MAC", AS_USUAL, tagged(&ipv4(half_stranger(A, true), B, flow), 0x8100), Drop(SpoofedMac)),
        case("a tag, an address of that VLAN", AS_USUAL, tagged(&stranger(), 0x8100), Redirect),
        case("a tag, ARP of that VLAN", AS_USUAL, tagged(&to_mac(who_has(FAR.ip), FAR.mac), 0x8100), Redirect),
        case("a tag, to all", AS_USUAL, tagged(&who_has(FAR.ip), 0x8100), Drop(BroadcastOff)),
        case("a tag cut short", AS_USUAL, cut(tagged(&a_to_b(), 0x8100), 17), Drop(Malformed)),
        case("a priority tag", AS_USUAL, tagged_with(&a_to_far(), 0x8100, 0xe000), Redirect),
        case("a priority tag, another's address", AS_USUAL, tagged_with(&stranger(), 0x8100, 0xe000), Drop(SpoofedIp)),
        case("a priority tag, another's address, allowed", FORWARDS, tagged_with(&stranger(), 0x8100, 0), Redirect),
        case("a priority tag, ARP", AS_USUAL, tagged_with(&who_has(FAR.ip), 0x8100, 0), Drop(PriorityTag)),
        case("a priority tag, another tag", AS_USUAL, tagged_with(&tagged(&a_to_far(), 0x8100), 0x8100, 0), Drop(PriorityTag)),
        case("a priority tag, another tag, allowed all else", FORWARDS, tagged_with(&tagged(&a_to_far(), 0x8100), 0x88a8, 0), Drop(PriorityTag)),
    ]
}

#[rustfmt::skip]
fn what_only_servers_say() -> Vec<Case> {
    let flow = Flow::default();
    let dhcp = |from, to| with_ports(ipv4(A, B, flow), 20, from, to);
    let dhcpv6 = |from, to| with_ports(ipv6(A, B, flow), 40, from, to);
    let options = [44, 0, 0, 0, 0, 0, 0, 0];
    let routers = |next, before: &[u8], kind| discovery(A, B, next, before, kind);
    vec![
        case("a DHCP server's answer", AS_USUAL, dhcp(67, 68), Drop(DhcpServer)),
        case("a DHCP server's answer from another port", AS_USUAL, dhcp(1067, 68), Drop(DhcpServer)),
        case("a DHCP client's question", AS_USUAL, dhcp(68, 67), Redirect),
        case("a DHCP server's answer, allowed all else", ALL_BUT_ADVERTISING, dhcp(67, 68), Drop(DhcpServer)),
        case("a DHCP server's answer, allowed", ADVERTISING, dhcp(67, 68), Redirect),
        case("a DHCP server's answer behind IP options", AS_USUAL, {
            let mut frame = dhcp(67, 68);
            frame[14] = 0x46;
            frame.splice(34..34, [1; 4]);
            frame
        }, Drop(DhcpServer)),
        case("half of the ports behind IP options", AS_USUAL, {
            let mut frame = dhcp(67, 68);
            frame[14] = 0x4f;
            frame[17] = 20 + 40 + 2;
            frame.splice(34..34, [1; 40]);
            frame.truncate(14 + 60 + 2);
            frame
        }, Redirect),
        case("a later fragment with such bytes", AS_USUAL, { let mut frame = dhcp(67, 68); frame[21] = 1; frame }, Redirect),
        case("a DHCPv6 server's answer", AS_USUAL, dhcpv6(547, 546), Drop(DhcpServer)),
        case("a DHCPv6 server's answer from another port", AS_USUAL, dhcpv6(1547, 546), Drop(DhcpServer)),
        case("a DHCPv6 server's answer, allowed", ADVERTISING, dhcpv6(547, 546), Redirect),
        case("a DHCPv6 client's question", AS_USUAL, dhcpv6(546, 547), Redirect),
        case("a router's advertisement", AS_USUAL, routers(58, &[], 134), Drop(RouterAdvertisement)),
        case("a router's redirect", AS_USUAL, routers(58, &[], 137), Drop(RouterAdvertisement)),
        case("a router's advertisement, allowed all else", ALL_BUT_ADVERTISING, routers(58, &[], 134), Drop(RouterAdvertisement)),
        case("a router's advertisement, allowed", ADVERTISING, routers(58, &[], 134), Redirect),
        case("a router's redirect, allowed", ADVERTISING, routers(58, &[], 137), Redirect),
        case("a router's advertisement behind options, allowed", ADVERTISING, routers(60, &[58, 0, 0, 0, 0, 0, 0, 0], 134), Drop(SpoofedNeighbour)),
        case("a neighbour's solicitation", AS_USUAL, routers(58, &[], 135), Redirect),
        case("a router's advertisement behind options", AS_USUAL, routers(60, &[58, 0, 0, 0, 0, 0, 0, 0], 134), Drop(RouterAdvertisement)),
        case("a router's advertisement in a fragment", AS_USUAL, routers(44, &options, 134), Drop(RouterAdvertisement)),
        case("options on a way that no router's word takes", AS_USUAL, { let mut frame = routers(60, &[58, 0, 0, 0, 0, 0, 0, 0], 128); frame[21] = 64; frame }, Redirect),
        case("options to a host of the link alone", AS_USUAL, {
            let mut frame = routers(60, &[17, 0, 0, 0, 0, 0, 0, 0], 0);
            frame[21] = 64;
            frame[22..24].copy_from_slice(&[0xfd, 0]);
            frame[38..40].copy_from_slice(&[0xfe, 0x80]);
            frame
        }, Drop(DhcpServer)),
        case("options to a host of the link alone, allowed", ADVERTISING, {
            let mut frame = routers(60, &[17, 0, 0, 0, 0, 0, 0, 0], 0);
            frame[21] = 64;
            frame[38..40].copy_from_slice(&[0xfe, 0x80]);
            frame
        }, Redirect),
    ]
}

/// One message alone: `neighbours.rs` has those that follow each other.
#[rustfmt::skip]
fn for_whom_it_speaks() -> Vec<Case> {
    const SOLICITS: u8 = 135;
    const ADVERTISES: u8 = 136;
    let says = |kind, source, target| neighbour((A, B), kind, source, target);
    let of_a = address_of(A.mac);
    vec![
        case("a neighbour's advertisement of its own address", AS_USUAL, says(ADVERTISES, of_a, of_a), Redirect),
        case("of an address that is made of its MAC in another prefix", |w| w.limit(0), says(ADVERTISES, unique(1), { let mut own = of_a; own[..2].copy_from_slice(&[0xfd, 0]); own }), Redirect),
        case("of an address that nobody has", AS_USUAL, says(ADVERTISES, unique(1), unique(1)), Redirect),
        case("of an address that is made of nobody's MAC", AS_USUAL, says(ADVERTISES, unique(1), address_of(STRANGER.mac)), Redirect),
        case("of an address that is made of a neighbour's MAC", AS_USUAL, says(ADVERTISES, of_a, address_of(B.mac)), Drop(SpoofedNeighbour)),
        case("of an address that is made of a far endpoint's MAC", AS_USUAL, says(ADVERTISES, of_a, address_of(FAR.mac)), Drop(SpoofedNeighbour)),
        case("the same with another limit, which no receiver believes", AS_USUAL, { let mut frame = says(ADVERTISES, of_a, address_of(B.mac)); frame[21] = 254; frame }, Redirect),
        case("a solicitation of a neighbour", AS_USUAL, says(SOLICITS, of_a, address_of(B.mac)), Redirect),
        case("a solicitation from a neighbour's address", AS_USUAL, says(SOLICITS, address_of(B.mac), of_a), Drop(SpoofedNeighbour)),
        case("a solicitation from no address for a neighbour's", AS_USUAL, says(SOLICITS, [0; 16], address_of(B.mac)), Redirect),
        case("a question for routers from a neighbour's address", AS_USUAL, says(133, address_of(B.mac), of_a), Drop(SpoofedNeighbour)),
        case("a question for routers from no address", AS_USUAL, says(133, [0; 16], address_of(B.mac)), Redirect),
        case("one address too many", |w| w.limit(0), says(ADVERTISES, of_a, unique(1)), Drop(NeighbourLimit)),
        case("of a neighbour's address, all allowed", FORWARDS, says(ADVERTISES, of_a, address_of(B.mac)), Drop(SpoofedNeighbour)),
        case("of a neighbour's address, from a station", FORWARDS, neighbour((STRANGER, A), ADVERTISES, of_a, address_of(B.mac)), Drop(SpoofedNeighbour)),
        case("a router's advertisement from a neighbour's address", FORWARDS, says(134, address_of(B.mac), of_a), Drop(SpoofedNeighbour)),
        case("a router's advertisement from its own address", FORWARDS, says(134, of_a, of_a), Redirect),
        case("a router's redirect to a neighbour's address", FORWARDS, says(137, of_a, address_of(B.mac)), Drop(SpoofedNeighbour)),
        case("a router's redirect in a neighbour's name", FORWARDS, says(137, address_of(B.mac), unique(1)), Drop(SpoofedNeighbour)),
        case("a router's redirect to its own address", FORWARDS, says(137, of_a, of_a), Redirect),
        case("a router's redirect to nobody's address, which claims none", |w| { FORWARDS(w); w.limit(0); }, says(137, of_a, unique(1)), Redirect),
        case("too short for a target", AS_USUAL, cut(says(ADVERTISES, of_a, address_of(B.mac)), 14 + 40 + 23), Redirect),
        case("a neighbour's word behind options", AS_USUAL, { let mut frame = discovery(A, B, 60, &[58, 0, 0, 0, 0, 0, 0, 0], ADVERTISES); frame[22..24].copy_from_slice(&[0xfd, 0]); frame }, Drop(SpoofedNeighbour)),
    ]
}

#[rustfmt::skip]
fn too_big() -> Vec<Case> {
    let flow = Flow::default();
    // Of the 1,500 bytes of the outer packet, 36 are outer headers and 14 are the inner frame's own link
    // header.
    let exact = || long_ipv4(a_to_far(), 1464);
    let over = || long_ipv4(a_to_far(), 1465);
    let v6 = |len: usize| { let mut frame = ipv6(A, FAR, flow); frame.resize(len, 0); frame };
    let icmp = |kind| { let mut frame = over(); frame[23] = 1; frame[34] = kind; frame };
    vec![
        case("as long as the way takes", AS_USUAL, exact(), Redirect),
        case("a byte too long", AS_USUAL, over(), Told),
        case("a byte too long, to a neighbour", AS_USUAL, long_ipv4(a_to_b(), 1465), Redirect),
        case("a byte too long, IPv6", AS_USUAL, v6(1465), Told),
        case("a byte too long, other protocol", AS_USUAL, other(A.mac, FAR.mac, EXPERIMENTAL, &[0; 1451]), Drop(TooBig)),
        case("a byte too long, on a VLAN", AS_USUAL, tagged(&long_ipv4(a_to_far(), 1461), 0x8100), Drop(TooBig)),
        case("a byte too long, on a way that takes more", |w| w.hops.values_mut().for_each(|hop| hop.mtu = 1501), over(), Redirect),
        case("a byte too long, an echo", AS_USUAL, icmp(8), Told),
        case("a byte too long, an error", FORWARDS, icmp(3), Drop(TooBig)),
        case("a byte too long, a later fragment", AS_USUAL, { let mut frame = over(); frame[21] = 1; frame }, Drop(TooBig)),
        // The kernel cannot encapsulate a super-packet of test_run, which is of no kind. One that is not too
        // long is dropped for this reason.
        case("segments as long as the way takes", AS_USUAL, over(), Drop(UncutSuperPacket)).with(Skb { ifindex: PORT_A, gso_size: 1422 }),
        case("segments a byte too long", AS_USUAL, over(), Told).with(Skb { ifindex: PORT_A, gso_size: 1423 }),
        case("segments a byte too long, TCP", AS_USUAL, { let mut frame = over(); frame[23] = 6; frame[46] = 0x80; frame }, Told).with(Skb { ifindex: PORT_A, gso_size: 1399 }),
        case("a byte too long, and no answer left", |w| w.limit(0), over(), Drop(TooBig)),
        case("a byte too long, IPv6, and no answer left", |w| w.limit(0), v6(1465), Drop(TooBig)),
        case("no way known", |w| w.hops.clear(), a_to_far(), Drop(UnknownNode)),
    ]
}

#[rustfmt::skip]
fn arp_asked() -> Vec<Case> {
    let probe = Station { ip: [0; 4], ..A };
    let asks = |ask: Ask| arp(ask);
    let usual = Ask::default();
    // The offsets in an ARP packet are those of RFC 826.
    let with = |at: usize, byte: u8| { let mut frame = who_has(FAR.ip); frame[at] = byte; frame };
    vec![
        case("who has a far address", AS_USUAL, who_has(FAR.ip), Redirect),
        case("who has a neighbour's", AS_USUAL, who_has(B.ip), Redirect),
        case("one asked instead of all", AS_USUAL, asks(Ask { to: FAR.mac, ..usual }), Redirect),
        case("a probe", AS_USUAL, asks(Ask { sender: probe, ..usual }), Redirect),
        case("padded to Ethernet's least", AS_USUAL, [who_has(FAR.ip), vec![0; 18]].concat(), Redirect),
        case("asked before the node is configured", |w| w.config = None, who_has(FAR.ip), Redirect),
        case("with ICC off", ICC_OFF, who_has(FAR.ip), Redirect),
        case("an answer", AS_USUAL, asks(Ask { operation: 2, ..usual }), Drop(ArpNotRequest)),
        case("RARP's operation", AS_USUAL, asks(Ask { operation: 3, ..usual }), Drop(ArpNotRequest)),
        case("not Ethernet", AS_USUAL, with(15, 6), Drop(ArpNotRequest)),
        case("not IPv4", AS_USUAL, with(16, 0x86), Drop(ArpNotRequest)),
        case("MACs of another length", AS_USUAL, with(18, 8), Drop(ArpNotRequest)),
        case("addresses of another length", AS_USUAL, with(19, 16), Drop(ArpNotRequest)),
        case("nobody's address", AS_USUAL, who_has(STRANGER.ip), Drop(ArpUnknownTarget)),
        case("another network's address", |w| {
            let far = w.neigh.remove(&NeighKey { ip: ip16_from_v4(FAR.ip), vni: VNI }).expect("far");
            w.neigh.insert(NeighKey { ip: ip16_from_v4(FAR.ip), vni: VNI + 1 }, far);
        }, who_has(FAR.ip), Drop(ArpUnknownTarget)),
        case("an announcement", AS_USUAL, who_has(A.ip), Drop(ArpOwnAddress)),
        case("a probe for its own address", AS_USUAL, asks(Ask { sender: probe, target: A, ..usual }), Drop(ArpOwnAddress)),
        case("another's MAC around it", AS_USUAL, asks(Ask { from: STRANGER.mac, ..usual }), Drop(SpoofedMac)),
        case("another's MAC in it", AS_USUAL, asks(Ask { sender: half_stranger(A, true), ..usual }), Drop(SpoofedMac)),
        case("another's MAC in a probe", AS_USUAL, asks(Ask { sender: Station { mac: B.mac, ip: [0; 4] }, ..usual }), Drop(SpoofedMac)),
        case("another's address in it", AS_USUAL, asks(Ask { sender: Station { ip: B.ip, ..A }, ..usual }), Drop(SpoofedIp)),
        case("a station asks", BRIDGING, asks(Ask { from: STRANGER.mac, sender: STRANGER, ..usual }), Redirect),
        case("a station asks, routing alone", ROUTING, asks(Ask { from: STRANGER.mac, sender: STRANGER, ..usual }), Drop(SpoofedMac)),
        case("a station's MAC in it, all allowed", FORWARDS, asks(Ask { sender: half_stranger(A, true), ..usual }), Drop(SpoofedMac)),
        case("a station with a neighbour's address in it", FORWARDS, asks(Ask { from: STRANGER.mac, sender: Station { ip: B.ip, ..STRANGER }, ..usual }), Drop(SpoofedIp)),
        case("another's address in it, allowed", ROUTING, asks(Ask { sender: half_stranger(A, false), ..usual }), Redirect),
        case("a neighbour's address in it, all allowed", FORWARDS, asks(Ask { sender: Station { ip: B.ip, ..A }, ..usual }), Drop(SpoofedIp)),
        case("an answer, all allowed but bridging", |w| w.flag(FLAG_ROUTING | FLAG_ADVERTISING), asks(Ask { to: B.mac, operation: 2, ..usual }), Drop(ArpNotRequest)),
        case("an answer to a neighbour, bridging", BRIDGING, asks(Ask { to: B.mac, operation: 2, ..usual }), Redirect),
    ]
}

#[rustfmt::skip]
fn where_it_goes() -> Vec<Case> {
    let flow = Flow::default();
    let plain = |to: Station| other(A.mac, to.mac, EXPERIMENTAL, PAYLOAD);
    vec![
        case("to a neighbour", AS_USUAL, a_to_b(), Redirect),
        case("to a neighbour, IPv6", FORWARDS, ipv6(A, B, flow), Redirect),
        case("to a neighbour, other protocol", AS_USUAL, plain(B), Redirect),
        case("to a node, next hop known", AS_USUAL, a_to_far(), Redirect),
        case("to a node, next hop known, IPv6", FORWARDS, ipv6(A, FAR, flow), Redirect),
        case("to a node, next hop known, other protocol", AS_USUAL, plain(FAR), Redirect),
        case("to a node, next hop not known", World::forget_next_hops, a_to_far(), Redirect),
        case("to a node, next hop not known, IPv6", |w| { FORWARDS(w); w.forget_next_hops(); }, ipv6(A, FAR, flow), Redirect),
        // The kernel's own routes exist for IP alone.
        case("to a node, next hop not known, other protocol", World::forget_next_hops, plain(FAR), Drop(UnresolvedNextHop)),
        case("to nobody", AS_USUAL, ipv4(A, STRANGER, flow), Drop(UnknownDestination)),
        case("to nobody, IPv6", FORWARDS, ipv6(A, STRANGER, flow), Drop(UnknownDestination)),
        case("to nobody, other protocol", AS_USUAL, plain(STRANGER), Drop(UnknownDestination)),
        case("to another network's endpoint", |w| {
            let far = w.fdb.remove(&fdb_key(FAR.mac)).expect("far");
            w.fdb.insert(overlay_common::FdbKey { vni: VNI + 1, ..fdb_key(FAR.mac) }, far);
        }, a_to_far(), Drop(UnknownDestination)),
        case("to itself", AS_USUAL, ipv4(A, A, flow), Drop(HairpinDestination)),
        case("to a neighbour, ICC off", ICC_OFF, a_to_b(), Drop(IccOff)),
        case("to a node, ICC off", ICC_OFF, a_to_far(), Drop(IccOff)),
        case("to a neighbour, ICC off, of one who forwards", |w| w.flag(FLAG_ICC_OFF | ALL_PERMISSIONS), ipv4(STRANGER, B, flow), Drop(IccOff)),
        case("to a neighbour, ICC off, other protocol", ICC_OFF, plain(B), Drop(IccOff)),
        case("to itself, ICC off", ICC_OFF, ipv4(A, A, flow), Drop(IccOff)),
        case("to nobody, ICC off", ICC_OFF, ipv4(A, STRANGER, flow), Drop(UnknownDestination)),
        case("to a VTEP that is no node's", |w| w.moved(FAR, STRANGE_VTEP), a_to_far(), Drop(UnknownNode)),
        case("to a node, next hop not known, before the node is configured", |w| { w.config = None; w.forget_next_hops(); }, a_to_far(), Redirect),
        case("to a node, next hop and device not known", NO_DEVICE_KNOWN, a_to_far(), Drop(UnknownNode)),
        case("to a node, next hop and device not known, other protocol", NO_DEVICE_KNOWN, plain(FAR), Drop(UnknownNode)),
        case("to a node, by a device without Ethernet", BARE, a_to_far(), Redirect),
        case("to a node, by a device without Ethernet, other protocol", BARE, plain(FAR), Drop(UnresolvedNextHop)),
        // The super-packet is of a protocol for which adjust_room cannot add headers.
        case("no room", AS_USUAL, a_to_far(), Drop(UncutSuperPacket)).with(Skb { ifindex: PORT_A, gso_size: 8 }),
    ]
}

fn overflow(world: &mut World, lost: [u32; 2]) {
    world.flood.values_mut().for_each(|flood| flood.lost = lost);
}

#[rustfmt::skip]
fn to_all() -> Vec<Case> {
    let to = |mac| to_mac(a_to_b(), mac);
    vec![
        case("broadcast, off", AS_USUAL, to(BROADCAST), Drop(BroadcastOff)),
        case("multicast, off", AS_USUAL, to(GROUP), Drop(BroadcastOff)),
        case("multicast, other protocol, off", AS_USUAL, other(A.mac, GROUP, EXPERIMENTAL, PAYLOAD), Drop(BroadcastOff)),
        case("broadcast, on", MULTICAST, to(BROADCAST), Replicated(vec![])),
        case("multicast, on", MULTICAST, to(GROUP), Replicated(vec![])),
        case("on, and the network has no entry", |w| { MULTICAST(w); w.flood.clear(); }, to(GROUP), Drop(BroadcastOff)),
        case("on, and nobody to receive", |w| { MULTICAST(w); w.flood.insert(VNI, flood(&[], &[])); }, to(GROUP), Replicated(vec![])),
        case("on, ICC off", |w| w.flag(FLAG_MULTICAST | FLAG_ICC_OFF), to(GROUP), Drop(IccOff)),
        case("on, a VTEP that is no node's", |w| { MULTICAST(w); w.hops.clear(); }, to(GROUP), Replicated(vec![UnknownNode])),
        case("on, next hop not known", |w| { MULTICAST(w); w.forget_next_hops(); }, to(GROUP), Replicated(vec![UnresolvedNextHop])),
        case("on, by a device without Ethernet", |w| { MULTICAST(w); BARE(w); }, to(GROUP), Replicated(vec![])),
        case("on, by a device without Ethernet, other protocol", |w| { MULTICAST(w); BARE(w); }, other(A.mac, GROUP, EXPERIMENTAL, PAYLOAD), Replicated(vec![UnresolvedNextHop])),
        case("on, a device that has gone", |w| { MULTICAST(w); w.flood.insert(VNI, flood(&[], &[PORT_A, NO_DEVICE, PORT_B])); }, to(GROUP), Replicated(vec![RedirectFailed])),
        case("on, the underlay has gone", |w| {
            MULTICAST(w);
            w.hops.values_mut().for_each(|hop| hop.ifindex = NO_DEVICE);
        }, to(GROUP), Replicated(vec![RedirectFailed])),
        case("on, a byte too long for the way", |w| { MULTICAST(w); w.flood.insert(VNI, flood(&[HOP_FAR], &[])); }, long_ipv4(to(GROUP), 1465), Replicated(vec![TooBig])),
        case("on, no room", |w| { MULTICAST(w); w.flood.insert(VNI, flood(&[HOP_FAR], &[])); }, to(GROUP), Replicated(vec![UncutSuperPacket])).with(Skb { ifindex: PORT_A, gso_size: 8 }),
        case("on, more receivers than there is room for", |w| { MULTICAST(w); overflow(w, [2, 1]); }, to(GROUP), Replicated(vec![FloodOverflow; 3])),
        case("to a group that no bridge passes on", MULTICAST, to([1, 0x80, 0xc2, 0, 0, 0]), Drop(ReservedGroup)),
        case("to the last of these groups, on a VLAN", MULTICAST, tagged(&to([1, 0x80, 0xc2, 0, 0, 0x0f]), 0x8100), Drop(ReservedGroup)),
        case("to such a group, from one who forwards", |w| w.flag(FLAG_MULTICAST | ALL_PERMISSIONS), to([1, 0x80, 0xc2, 0, 0, 0xe]), Drop(ReservedGroup)),
        case("to such a group, off", AS_USUAL, to([1, 0x80, 0xc2, 0, 0, 2]), Drop(BroadcastOff)),
        case("to the group after them", MULTICAST, to([1, 0x80, 0xc2, 0, 0, 0x10]), Replicated(vec![])),
        case("to a group that differs before the last byte", MULTICAST, to([1, 0x80, 0xc2, 0, 1, 0]), Replicated(vec![])),
        case("more than the storm limit", |w| { MULTICAST(w); w.limit(0); }, to(BROADCAST), Drop(Storm)),
        case("no storm: to one endpoint", |w| { MULTICAST(w); w.limit(0); }, a_to_far(), Redirect),
        case("a group as the source", AS_USUAL, { let mut frame = a_to_b(); frame[6..12].copy_from_slice(&GROUP); frame }, Drop(SpoofedMac)),
    ]
}

#[rustfmt::skip]
fn malformed() -> Vec<Case> {
    vec![
        case("ARP cut", AS_USUAL, cut(who_has(FAR.ip), 14 + 27), Drop(Malformed)),
        case("ARP without a byte", AS_USUAL, cut(who_has(FAR.ip), 14), Drop(Malformed)),
        // test_run refuses a packet that is shorter than its IP header (live.rs sends one).
        case("IPv4's header and no more", AS_USUAL, cut(a_to_b(), 14 + 20), Redirect),
        case("a header and no more, other protocol", AS_USUAL, other(A.mac, FAR.mac, EXPERIMENTAL, &[]), Redirect),
    ]
}
