//! Every decision about a packet that comes from the underlay.

use etherparse::IpNumber;
use overlay_common::{
    CONFIG_SHARED, Direction, DropReason::*, FLAG_ADVERTISING, FLAG_BRIDGING, FLAG_ICC_OFF,
    FLAG_MULTICAST, FLAG_ROUTING, PROBE_MAC, VNI_RESERVED, VXLAN_PORT,
};

use super::{
    bench::{Skb, Verdict, on_bench},
    cases::{Case, Expected::*, case, check_all},
    icmp_errors,
    packets::{
        Ask, BROADCAST, EXPERIMENTAL, Flow, GROUP, Vxlan, address_of, arp, cut, discovery,
        far_to_a, half_stranger, ipv4, ipv6, neighbour, other, tagged, tagged_with, to_mac, unique,
        vxlan, who_has, with_ports,
    },
    world::{
        A, B, FAR, FAR_VTEP, FORWARDS as ALL_PERMISSIONS, GATEWAY, HOP_FAR, IDLE_VTEP, NO_DEVICE,
        OWN_VTEP, PORT_A, ROUTER_MAC, STRANGE_VTEP, STRANGER, Station, UNDERLAY, UNDERLAY_MAC, VNI,
        World, flood,
    },
};

const AS_USUAL: fn(&mut World) = |_| {};
const FORWARDS: fn(&mut World) = |world| world.flag(ALL_PERMISSIONS);
const ROUTING: fn(&mut World) = |world| world.flag(FLAG_ROUTING);
const ADVERTISING: fn(&mut World) = |world| world.flag(FLAG_ADVERTISING);
const MULTICAST: fn(&mut World) = |world| world.flag(FLAG_MULTICAST);
const ICC_OFF: fn(&mut World) = |world| world.flag(FLAG_ICC_OFF);

#[test]
fn every_decision() {
    on_bench(|bench| check_all(bench, Direction::FromUnderlay, cases()));
}

/// Decapsulation returns the sent frame, byte for byte.
#[test]
fn the_inner_frame_comes_out_as_it_was() {
    on_bench(|bench| {
        bench.fill_with_routers();
        let flow = Flow::default();
        let long = vec![0x5a; 3000];
        for inner in [
            far_to_a(),
            ipv6(FAR, A, flow),
            other(FAR.mac, A.mac, EXPERIMENTAL, &long),
            ipv4(FAR, B, Flow { tos: 0xb8, ..flow }),
            [far_to_a(), vec![0; 7]].concat(),
        ] {
            let outcome = bench.run(Direction::FromUnderlay, &vxlan(&inner));
            assert_eq!(outcome.verdict, Verdict::Redirect);
            assert_eq!(outcome.packet, inner);
        }
    });
}

/// Bytes behind the length that the outer headers give are no part of the packet (RFC 768).
#[test]
fn bytes_behind_the_packet_are_not_delivered() {
    on_bench(|bench| {
        for inner in [far_to_a(), other(FAR.mac, A.mac, EXPERIMENTAL, &[])] {
            for trailer in [1, 4, 1000] {
                let packet = [vxlan(&inner), vec![0x77; trailer]].concat();
                let padded =
                    [inner.clone(), vec![0; 34_usize.saturating_sub(inner.len())]].concat();
                let outcome = bench.run(Direction::FromUnderlay, &packet);
                assert_eq!((outcome.verdict, outcome.packet), (Verdict::Redirect, padded));
            }
        }
    });
}

/// The kernel shrinks no packet below the length of an IPv4 header, whatever the packet is. A shorter frame
/// is padded, as Ethernet does.
#[test]
fn a_short_frame_comes_out_padded() {
    on_bench(|bench| {
        for len in 0..=20 {
            let inner = other(FAR.mac, A.mac, EXPERIMENTAL, &[0x5a; 20][..len]);
            let outcome = bench.run(Direction::FromUnderlay, &vxlan(&inner));
            assert_eq!(outcome.verdict, Verdict::Redirect);
            let padding = vec![0; 20 - len];
            assert_eq!(outcome.packet, [inner, padding].concat());
        }
    });
}

/// A probe goes back to the VTEP and the port that it came from, as it is but for that.
#[test]
fn a_probe_is_sent_back_to_who_sent_it() {
    on_bench(|bench| {
        let number = [0xa5; 16];
        let probe = Vxlan { vni: VNI_RESERVED, ..Vxlan::default() };
        let packet = probe.around(&other(PROBE_MAC, [0; 6], EXPERIMENTAL, &number));
        let outcome = bench.run(Direction::FromUnderlay, &packet);
        assert_eq!(outcome.verdict, Verdict::Redirect);
        let mut expected = packet.clone();
        expected[..12].copy_from_slice(&[&packet[6..12], &packet[..6]].concat());
        expected[26..34].copy_from_slice(&[&packet[30..34], &packet[26..30]].concat());
        expected[34..38].copy_from_slice(&[&packet[36..38], &packet[34..36]].concat());
        expected[50..62].copy_from_slice(&[&packet[56..62], &packet[50..56]].concat());
        assert_eq!(outcome.packet, expected);
        // The answer, whatever a router between makes of its ports.
        let answer = Vxlan { from_port: 50_000, ..probe }.around(&expected[50..]);
        let outcome = bench.run(Direction::FromUnderlay, &answer);
        assert_eq!(outcome.verdict, Verdict::Shot);
    });
}

/// The cases of all tables.
pub(crate) fn cases() -> Vec<Case> {
    let first = [not_for_us(), outer(), probes(), who_it_is(), where_it_goes()];
    let rest = [to_all(), malformed(), on_a_shared_port(), icmp_errors::from_underlay()];
    first.into_iter().chain(rest).flatten().collect()
}

#[rustfmt::skip]
fn not_for_us() -> Vec<Case> {
    let inner = far_to_a();
    let usual = Vxlan::default;
    let to_node = Station { mac: UNDERLAY_MAC, ip: OWN_VTEP };
    let node = Station { mac: ROUTER_MAC, ip: FAR_VTEP };
    vec![
        case("before the node is configured", |w| w.config = None, vxlan(&inner), Pass),
        case("TCP", AS_USUAL, Vxlan { protocol: IpNumber::TCP, ..usual() }.around(&inner), Pass),
        case("ICMP", AS_USUAL, Vxlan { protocol: IpNumber::ICMP, ..usual() }.around(&inner), Pass),
        case("another port", AS_USUAL, Vxlan { port: 8472, ..usual() }.around(&inner), Pass),
        case("the usual port, where another is configured", |w| w.config.as_mut().expect("some").vxlan_port = 8472, vxlan(&inner), Pass),
        case("another address", AS_USUAL, Vxlan { to: IDLE_VTEP, ..usual() }.around(&inner), Pass),
        case("a later fragment", AS_USUAL, Vxlan { fragment_offset: 185, ..usual() }.around(&inner), Pass),
        case("a middle fragment", AS_USUAL, Vxlan { fragment_offset: 185, more_fragments: true, ..usual() }.around(&inner), Pass),
        case("another host's frame", AS_USUAL, Vxlan { to_mac: STRANGER.mac, ..usual() }.around(&inner), Pass),
        case("a broadcast frame", AS_USUAL, Vxlan { to_mac: BROADCAST, ..usual() }.around(&inner), Drop(OuterGroupFrame)),
        case("options, another port", AS_USUAL, Vxlan { options: vec![1; 8], port: 53, ..usual() }.around(&inner), Pass),
        case("options, cut before the ports", AS_USUAL, cut(Vxlan { options: vec![1; 40], ..usual() }.around(&inner), 14 + 60), Pass),
        case("ARP", AS_USUAL, arp(Ask { from: ROUTER_MAC, to: BROADCAST, operation: 1, sender: node, target: to_node }), Pass),
        case("IPv6", AS_USUAL, ipv6(node, to_node, Flow::default()), Pass),
        case("UDP that is no VXLAN", AS_USUAL, ipv4(node, to_node, Flow::default()), Pass),
        case("a tag around it", AS_USUAL, tagged(&vxlan(&inner), 0x8100), Pass),
        case("cut before the ports", AS_USUAL, cut(vxlan(&inner), 14 + 20 + 7), Pass),
    ]
}

#[rustfmt::skip]
fn outer() -> Vec<Case> {
    let inner = far_to_a();
    let usual = Vxlan::default;
    let around = |vxlan: Vxlan| vxlan.around(&inner);
    vec![
        case("options", AS_USUAL, around(Vxlan { options: vec![1; 4], ..usual() }), Drop(OuterOptions)),
        case("all the options there can be", AS_USUAL, around(Vxlan { options: vec![1; 40], ..usual() }), Drop(OuterOptions)),
        case("a first fragment", AS_USUAL, around(Vxlan { more_fragments: true, ..usual() }), Drop(OuterFragment)),
        case("no VNI flag", AS_USUAL, around(Vxlan { flags: 0, ..usual() }), Drop(VxlanFlags)),
        case("all flags but the VNI's", AS_USUAL, around(Vxlan { flags: 0xf7, ..usual() }), Drop(VxlanFlags)),
        case("all flags, and reserved bytes", AS_USUAL, around(Vxlan { flags: 0xff, reserved: 0xff, ..usual() }), Redirect),
        case("from this node", AS_USUAL, around(Vxlan { from: OWN_VTEP, ..usual() }), Drop(OwnVtep)),
        case("from this node, a local source", AS_USUAL, Vxlan { from: OWN_VTEP, ..usual() }.around(&ipv4(B, A, Flow::default())), Drop(OwnVtep)),
        case("from no node", AS_USUAL, around(Vxlan { from: STRANGE_VTEP, ..usual() }), Drop(UnknownVtep)),
        case("from no address", AS_USUAL, Vxlan { from: [0; 4], ..usual() }.around(&ipv4(B, A, Flow::default())), Drop(UnknownVtep)),
        case("from no node, for no network", AS_USUAL, around(Vxlan { from: STRANGE_VTEP, vni: VNI + 1, ..usual() }), Drop(UnknownVtep)),
        case("for a network not held", AS_USUAL, around(Vxlan { vni: VNI + 1, ..usual() }), Drop(UnknownVni)),
        case("for network 0", AS_USUAL, around(Vxlan { vni: 0, ..usual() }), Drop(UnknownVni)),
        case("another port, configured", |w| w.config.as_mut().expect("some").vxlan_port = 8472, around(Vxlan { port: 8472, ..usual() }), Redirect),
        case("the port itself", AS_USUAL, around(Vxlan { port: VXLAN_PORT, ..usual() }), Redirect),
    ]
}

#[rustfmt::skip]
fn probes() -> Vec<Case> {
    let usual = || Vxlan { vni: VNI_RESERVED, ..Vxlan::default() };
    let none = [0; 6];
    let inside = |from, to| other(from, to, EXPERIMENTAL, &[7; 16]);
    let (inner, answer) = (inside(PROBE_MAC, none), inside(none, PROBE_MAC));
    let longest = other(PROBE_MAC, none, EXPERIMENTAL, &[7; 64]);
    let around = |vxlan: Vxlan| vxlan.around(&inner);
    let not_one = other(PROBE_MAC, none, 0x0800, &[7; 16]);
    let (mut near, mut nearer) = (PROBE_MAC, none);
    (near[5], nearer[5]) = (1, 1);
    vec![
        case("a probe", AS_USUAL, around(usual()), Redirect),
        case("a probe, the longest", AS_USUAL, usual().around(&longest), Redirect),
        case("a probe, too long", AS_USUAL, usual().around(&[&longest[..], &[7]].concat()), Drop(UnknownVni)),
        case("a probe from no node", AS_USUAL, around(Vxlan { from: STRANGE_VTEP, ..usual() }), Drop(UnknownVtep)),
        case("a probe from this node", AS_USUAL, around(Vxlan { from: OWN_VTEP, ..usual() }), Drop(OwnVtep)),
        case("a probe from the VXLAN port, as an answer would be", AS_USUAL, around(Vxlan { from_port: VXLAN_PORT, ..usual() }), Drop(UnknownVni)),
        case("a probe of another network", AS_USUAL, around(Vxlan { vni: VNI_RESERVED - 1, ..usual() }), Drop(UnknownVni)),
        case("no probe inside", AS_USUAL, usual().around(&not_one), Drop(UnknownVni)),
        case("a probe, cut", AS_USUAL, cut(around(usual()), 50 + 13), Drop(Malformed)),
        case("a probe, the port shared", |w| w.configure(CONFIG_SHARED), around(usual()), Redirect),
        case("a probe, and no answer left", |w| w.limit(0), around(usual()), Drop(ProbeLimit)),
        case("a probe, and no answer left, the port shared", |w| { w.configure(CONFIG_SHARED); w.limit(0); }, around(usual()), Drop(ProbeLimit)),
        case("no probe, and no answer left", |w| w.limit(0), usual().around(&answer), Drop(UnknownVni)),
        case("a probe, almost from its MAC", AS_USUAL, usual().around(&inside(near, none)), Drop(UnknownVni)),
        case("a probe, almost to nobody", AS_USUAL, usual().around(&inside(PROBE_MAC, nearer)), Drop(UnknownVni)),
        case("its answer", AS_USUAL, Vxlan { from_port: VXLAN_PORT, port: 50_000, ..usual() }.around(&answer), Pass),
        case("an answer from another port is not answered", AS_USUAL, usual().around(&answer), Drop(UnknownVni)),
    ]
}

#[rustfmt::skip]
fn who_it_is() -> Vec<Case> {
    let flow = Flow::default();
    let ask = arp(Ask { from: FAR.mac, sender: FAR, target: A, ..Ask::default() });
    let idle = Vxlan { from: IDLE_VTEP, ..Vxlan::default() };
    vec![
        case("a source behind another VTEP", AS_USUAL, idle.around(&far_to_a()), Drop(SourceNotBehindVtep)),
        case("a source that moved away", |w| w.moved(FAR, IDLE_VTEP), vxlan(&far_to_a()), Drop(SourceNotBehindVtep)),
        case("a source that moved, from where it is", |w| w.moved(FAR, IDLE_VTEP), idle.around(&far_to_a()), Redirect),
        case("a local source", AS_USUAL, vxlan(&ipv4(B, A, flow)), Drop(SourceNotBehindVtep)),
        case("nobody's source", AS_USUAL, vxlan(&ipv4(half_stranger(FAR, true), A, flow)), Drop(SourceNotBehindVtep)),
        case("nobody's source, of one who forwards", FORWARDS, vxlan(&ipv4(half_stranger(FAR, true), A, flow)), Drop(SourceNotBehindVtep)),
        case("another's address", AS_USUAL, vxlan(&ipv4(half_stranger(FAR, false), A, flow)), Drop(SpoofedIp)),
        case("a local address", AS_USUAL, vxlan(&ipv4(Station { ip: B.ip, ..FAR }, A, flow)), Drop(SpoofedIp)),
        case("another's address, all else allowed", |w| w.flag(FLAG_BRIDGING | FLAG_ADVERTISING), vxlan(&ipv4(half_stranger(FAR, false), A, flow)), Drop(SpoofedIp)),
        case("a local address, all allowed", FORWARDS, vxlan(&ipv4(Station { ip: B.ip, ..FAR }, A, flow)), Drop(SpoofedIp)),
        case("the gateway's address, all allowed", FORWARDS, vxlan(&ipv4(Station { ip: GATEWAY.ip, ..FAR }, A, flow)), Drop(SpoofedIp)),
        case("another's address, allowed", ROUTING, vxlan(&ipv4(half_stranger(FAR, false), A, flow)), Redirect),
        case("ARP inside", AS_USUAL, vxlan(&ask), Drop(ArpFromUnderlay)),
        case("ARP of a source unknown", AS_USUAL, idle.around(&ask), Drop(ArpFromUnderlay)),
        case("ARP from no node", AS_USUAL, Vxlan { from: STRANGE_VTEP, ..Vxlan::default() }.around(&ask), Drop(UnknownVtep)),
        case("a tag inside", AS_USUAL, vxlan(&tagged(&far_to_a(), 0x8100)), Redirect),
        case("a tag inside, 802.1ad", AS_USUAL, vxlan(&tagged(&far_to_a(), 0x88a8)), Redirect),
        case("a tag inside, an address of that VLAN", AS_USUAL, vxlan(&tagged(&ipv4(half_stranger(FAR, false), A, flow), 0x8100)), Redirect),
        case("a tag inside, cut short", AS_USUAL, cut(vxlan(&tagged(&far_to_a(), 0x8100)), 50 + 17), Drop(Malformed)),
        case("a priority tag inside", AS_USUAL, vxlan(&tagged_with(&far_to_a(), 0x8100, 0)), Redirect),
        case("a priority tag inside, another's address", AS_USUAL, vxlan(&tagged_with(&ipv4(half_stranger(FAR, false), A, flow), 0x8100, 0)), Drop(SpoofedIp)),
        case("a priority tag inside, ARP", AS_USUAL, vxlan(&tagged_with(&ask, 0x8100, 0)), Drop(PriorityTag)),
        case("a priority tag inside, another tag", AS_USUAL, vxlan(&tagged_with(&tagged(&far_to_a(), 0x8100), 0x8100, 0)), Drop(PriorityTag)),
        case("a DHCP server's answer", AS_USUAL, vxlan(&with_ports(far_to_a(), 20, 67, 68)), Drop(DhcpServer)),
        case("a DHCP server's answer, allowed", ADVERTISING, vxlan(&with_ports(far_to_a(), 20, 67, 68)), Redirect),
        case("a router's advertisement", AS_USUAL, vxlan(&discovery(FAR, A, 58, &[], 134)), Drop(RouterAdvertisement)),
        case("a router's advertisement, allowed", ADVERTISING, vxlan(&discovery(FAR, A, 58, &[], 134)), Redirect),
        case("a router's advertisement from a local endpoint's address, all allowed", FORWARDS, vxlan(&neighbour((FAR, A), 134, address_of(B.mac), unique(1))), Drop(SpoofedNeighbour)),
        case("a neighbour's advertisement of another's address, all allowed", FORWARDS, vxlan(&neighbour((FAR, A), 136, address_of(FAR.mac), address_of(B.mac))), Drop(SpoofedNeighbour)),
        case("a neighbour's advertisement", AS_USUAL, vxlan(&neighbour((FAR, A), 136, address_of(FAR.mac), unique(1))), Redirect),
        case("a neighbour's advertisement of another's address", AS_USUAL, vxlan(&neighbour((FAR, A), 136, address_of(FAR.mac), address_of(B.mac))), Drop(SpoofedNeighbour)),
        case("the limit is the sender's node's", |w| w.limit(0), vxlan(&neighbour((FAR, A), 136, address_of(FAR.mac), unique(1))), Redirect),
    ]
}

#[rustfmt::skip]
fn where_it_goes() -> Vec<Case> {
    let flow = Flow::default();
    vec![
        case("to an endpoint", AS_USUAL, vxlan(&far_to_a()), Redirect),
        case("to another", AS_USUAL, vxlan(&ipv4(FAR, B, flow)), Redirect),
        case("to an endpoint, IPv6", FORWARDS, vxlan(&ipv6(FAR, A, flow)), Redirect),
        case("to an endpoint, another protocol", AS_USUAL, vxlan(&other(FAR.mac, A.mac, EXPERIMENTAL, &[0; 46])), Redirect),
        case("to nobody", AS_USUAL, vxlan(&ipv4(FAR, STRANGER, flow)), Drop(UnknownDestination)),
        case("to one that moved away", |w| w.moved(A, IDLE_VTEP), vxlan(&far_to_a()), Drop(NotLocalDestination)),
        case("back to the sender", AS_USUAL, vxlan(&ipv4(FAR, FAR, flow)), Drop(NotLocalDestination)),
        case("ICC off", ICC_OFF, vxlan(&far_to_a()), Drop(IccOff)),
        case("ICC off, from one who forwards", |w| w.flag(FLAG_ICC_OFF | ALL_PERMISSIONS), vxlan(&far_to_a()), Drop(IccOff)),
        case("ICC off, ARP all the same", ICC_OFF, vxlan(&who_has(A.ip)), Drop(ArpFromUnderlay)),
        case("to all, multicast on, ICC off", |w| w.flag(FLAG_MULTICAST | FLAG_ICC_OFF), vxlan(&to_mac(far_to_a(), GROUP)), Drop(IccOff)),
        case("to all, ICC off", ICC_OFF, vxlan(&to_mac(far_to_a(), GROUP)), Drop(IccOff)),
        case("congestion, and nobody listens", AS_USUAL, Vxlan { tos: 3, ..Vxlan::default() }.around(&far_to_a()), Drop(EcnNotCapable)),
        case("congestion, to all", MULTICAST, Vxlan { tos: 3, ..Vxlan::default() }.around(&to_mac(far_to_a(), GROUP)), Drop(EcnNotCapable)),
        // The super-packet is of a protocol for which adjust_room cannot remove headers.
        case("not stripped", AS_USUAL, vxlan(&far_to_a()), Drop(DecapFailed)).with(Skb { ifindex: UNDERLAY, gso_size: 8 }),
        case("not stripped, a tag inside", AS_USUAL, vxlan(&tagged(&far_to_a(), 0x8100)), Drop(DecapFailed)).with(Skb { ifindex: UNDERLAY, gso_size: 8 }),
        case("not stripped, two tags inside", AS_USUAL, vxlan(&tagged(&tagged(&far_to_a(), 0x8100), 0x88a8)), Drop(DecapFailed)).with(Skb { ifindex: UNDERLAY, gso_size: 8 }),
        case("two tags inside, too short to be a super-packet", AS_USUAL, cut(vxlan(&tagged(&tagged(&far_to_a(), 0x8100), 0x88a8)), 50 + 21), Redirect).with(Skb { ifindex: UNDERLAY, gso_size: 8 }),
        case("not stripped, to all", MULTICAST, vxlan(&to_mac(far_to_a(), GROUP)), Drop(DecapFailed)).with(Skb { ifindex: UNDERLAY, gso_size: 8 }),
    ]
}

/// A mark and a priority choose the host's routes and queues for the outer packet. The endpoint's own rules do not see
/// them, and a packet that is none of the overlay's keeps them.
#[test]
fn a_mark_of_the_host_does_not_reach_an_endpoint() {
    on_bench(|bench| {
        let marked = [0x77, 5];
        let unknown = other(FAR.mac, A.mac, EXPERIMENTAL, &[0x5a; 46]);
        for inner in [far_to_a(), unknown] {
            let after = bench.run_marked(Direction::FromUnderlay, &vxlan(&inner), marked);
            assert_eq!(after, (Verdict::Redirect, [0, 0]));
        }
        let after = bench.run_marked(Direction::FromUnderlay, &far_to_a(), marked);
        assert_eq!(after, (Verdict::Pass, marked));
    });
}

#[rustfmt::skip]
fn to_all() -> Vec<Case> {
    let to = |mac| vxlan(&to_mac(far_to_a(), mac));
    vec![
        case("broadcast, off", AS_USUAL, to(BROADCAST), Drop(BroadcastOff)),
        case("multicast, off", AS_USUAL, to(GROUP), Drop(BroadcastOff)),
        case("broadcast, on", MULTICAST, to(BROADCAST), Replicated(vec![])),
        case("multicast, on", MULTICAST, to(GROUP), Replicated(vec![])),
        case("on, and the network has no entry", |w| { MULTICAST(w); w.flood.clear(); }, to(GROUP), Drop(BroadcastOff)),
        case("on, nobody here", |w| { MULTICAST(w); w.flood.insert(VNI, flood(&[HOP_FAR], &[])); }, to(GROUP), Replicated(vec![])),
        case("on, a device that has gone", |w| { MULTICAST(w); w.flood.insert(VNI, flood(&[], &[NO_DEVICE, PORT_A])); }, to(GROUP), Replicated(vec![RedirectFailed])),
        case("on, a device that has gone, and bytes behind the frame", |w| { MULTICAST(w); w.flood.insert(VNI, flood(&[], &[NO_DEVICE, PORT_A])); }, [to(GROUP), vec![0x77; 3]].concat(), Replicated(vec![RedirectFailed])),
        case("on, more ports than there is room for", |w| { MULTICAST(w); w.flood.values_mut().for_each(|flood| flood.lost = [2, 1]); }, to(GROUP), Replicated(vec![FloodOverflow])),
        case("to a group that no bridge passes on", MULTICAST, to([1, 0x80, 0xc2, 0, 0, 0]), Drop(ReservedGroup)),
        case("to such a group, from one who forwards", |w| w.flag(FLAG_MULTICAST | ALL_PERMISSIONS), to([1, 0x80, 0xc2, 0, 0, 0xe]), Drop(ReservedGroup)),
        case("to the group after them", MULTICAST, to([1, 0x80, 0xc2, 0, 0, 0x10]), Replicated(vec![])),
    ]
}

/// The packet with another number in the length field of its outer UDP header.
fn with_udp_length(mut packet: Vec<u8>, more: i16) -> Vec<u8> {
    let length = u16::from_be_bytes([packet[38], packet[39]]).wrapping_add_signed(more);
    packet[38..40].copy_from_slice(&length.to_be_bytes());
    packet
}

/// Another program of the host has the port too: what is not of this overlay is its.
#[rustfmt::skip]
fn on_a_shared_port() -> Vec<Case> {
    const SHARED: fn(&mut World) = |world| world.configure(CONFIG_SHARED);
    let around = |vxlan: Vxlan| vxlan.around(&far_to_a());
    let usual = Vxlan::default;
    vec![
        case("shared: of this overlay", SHARED, around(usual()), Redirect),
        case("shared: a network that this node does not hold", SHARED, around(Vxlan { vni: 9, ..usual() }), Pass),
        case("shared: a VTEP of another overlay", SHARED, around(Vxlan { from: STRANGE_VTEP, vni: 9, ..usual() }), Pass),
        case("shared: a VTEP of another overlay, a VNI of this one", SHARED, around(Vxlan { from: STRANGE_VTEP, ..usual() }), Pass),
        case("shared: the GRO device's VNI", SHARED, around(Vxlan { vni: VNI_RESERVED, ..usual() }), Drop(UnknownVni)),
        case("shared: the GRO device's VNI, a VTEP of another overlay", SHARED, around(Vxlan { from: STRANGE_VTEP, vni: VNI_RESERVED, ..usual() }), Drop(UnknownVtep)),
        case("shared: a network of this node, nobody's MAC", SHARED, vxlan(&ipv4(STRANGER, A, Flow::default())), Drop(SourceNotBehindVtep)),
        case("shared: from this node's own address", SHARED, around(Vxlan { from: OWN_VTEP, ..usual() }), Drop(OwnVtep)),
        case("shared: no VNI", SHARED, around(Vxlan { flags: 0, ..usual() }), Pass),
        case("shared: a first fragment", SHARED, around(Vxlan { more_fragments: true, ..usual() }), Pass),
        case("shared: options", SHARED, around(Vxlan { options: vec![1; 4], ..usual() }), Pass),
        case("shared: bytes behind a packet of another overlay", SHARED, [around(Vxlan { vni: 9, ..usual() }), vec![0; 7]].concat(), Pass),
    ]
}

#[rustfmt::skip]
fn malformed() -> Vec<Case> {
    vec![
        case("cut in the VXLAN header", AS_USUAL, cut(vxlan(&far_to_a()), 49), Drop(Malformed)),
        case("cut after the ports", AS_USUAL, cut(vxlan(&far_to_a()), 42), Drop(Malformed)),
        case("cut in the inner Ethernet header", AS_USUAL, cut(vxlan(&far_to_a()), 63), Drop(Malformed)),
        case("inner IPv4 without a byte", AS_USUAL, cut(vxlan(&far_to_a()), 64), Drop(Malformed)),
        case("inner IPv4 cut", AS_USUAL, cut(vxlan(&far_to_a()), 83), Drop(Malformed)),
        case("inner IPv4's header and no more", AS_USUAL, vxlan(&cut(far_to_a(), 34)), Redirect),
        case("a byte less than the headers say", AS_USUAL, cut(vxlan(&far_to_a()), 50 + far_to_a().len() - 1), Drop(Malformed)),
        case("a UDP header longer than its packet", AS_USUAL, with_udp_length(vxlan(&far_to_a()), 1), Drop(Malformed)),
        case("a UDP header without room for a frame", AS_USUAL, with_udp_length(vxlan(&far_to_a()), -(far_to_a().len() as i16)), Drop(Malformed)),
        case("a super-packet that has the length of one segment", AS_USUAL, with_udp_length(vxlan(&far_to_a()), 1), Drop(DecapFailed)).with(Skb { ifindex: UNDERLAY, gso_size: 8 }),
        case("inner IPv6 without a byte", FORWARDS, vxlan(&cut(ipv6(FAR, A, Flow::default()), 14)), Drop(Malformed)),
        case("inner IPv6 cut before its class", FORWARDS, vxlan(&cut(ipv6(FAR, A, Flow::default()), 17)), Drop(Malformed)),
        case("short, another protocol", AS_USUAL, vxlan(&other(FAR.mac, A.mac, EXPERIMENTAL, &[1])), Redirect),
        case("a header and no more", AS_USUAL, vxlan(&other(FAR.mac, A.mac, EXPERIMENTAL, &[])), Redirect),
    ]
}
