//! Encapsulated frames, with each field as etherparse reads it, and the answers to ARP requests.

use std::collections::BTreeSet;

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, UdpHeader};
use overlay_common::{Direction, SOURCE_PORT_MIN, VXLAN_OVERHEAD, VXLAN_PORT};

use super::{
    bench::{Bench, Verdict, on_bench},
    packets::{Ask, EXPERIMENTAL, Flow, PAYLOAD, arp, ipv4, ipv6, other, who_has},
    world::{
        A, B, FAR, FAR_VTEP, HOP_FAR, OWN_VTEP, ROUTER_MAC, STRANGER, Station, TTL, UNDERLAY_MAC,
        VNI, World,
    },
};

/// Only ECN is copied to the outer header, unless the node is told to copy DSCP too.
#[test]
fn the_outer_header_has_the_inner_ecn_and_dscp_on_request() {
    on_bench(|bench| {
        let mut world = World::default();
        world.flag(crate::world::FORWARDS);
        for copied in [0b11, 0xff] {
            bench.fill(&world);
            for tos in 0..=255 {
                let flow = Flow { tos, ..Flow::default() };
                check(bench, &ipv4(A, FAR, flow), tos & copied, true);
                check(bench, &ipv6(A, FAR, flow), tos & copied, true);
            }
            world.copy_dscp();
        }
    });
}

#[test]
fn other_protocols_are_carried() {
    on_bench(|bench| {
        for payload in [&[][..], &[1], PAYLOAD, &[0x5a; 1450]] {
            check(bench, &other(A.mac, FAR.mac, EXPERIMENTAL, payload), 0, true);
        }
        // A frame of LLC, which has a length in place of an ethertype.
        check(bench, &other(A.mac, FAR.mac, 3, b"\x42\x42\x03"), 0, true);
    });
}

/// The program leaves the outer MACs empty, because the kernel fills them in.
#[test]
fn without_a_next_hop_the_macs_are_left_open() {
    on_bench(|bench| {
        let mut world = World::default();
        world.forget_next_hops();
        world.flag(crate::world::FORWARDS);
        bench.fill(&world);
        check(bench, &ipv4(A, FAR, Flow { tos: 0xb9, ..Flow::default() }), 1, false);
        check(bench, &ipv6(A, FAR, Flow { tos: 0xb9, ..Flow::default() }), 1, false);
    });
}

#[test]
fn port_and_ttl_are_the_configured_ones() {
    on_bench(|bench| {
        let mut world = World::default();
        // The header in HOPS as user space would write it with another port and time to live.
        let hop = world.hops.get_mut(&HOP_FAR).expect("the way to the far node");
        let ttl = u32::from(u16::from_ne_bytes([hop.header[22], 0]));
        hop.header[22] = 255;
        hop.header[36..38].copy_from_slice(&8472u16.to_be_bytes());
        hop.csum += u32::from(u16::from_ne_bytes([255, 0])) - ttl;
        bench.fill(&world);
        let packet = encapsulated(bench, &ipv4(A, FAR, Flow::default()));
        let (ip, rest) = Ipv4Header::from_slice(&packet[14..]).expect("IPv4");
        let (udp, _) = UdpHeader::from_slice(rest).expect("UDP");
        assert_eq!((udp.destination_port, ip.time_to_live), (8472, 255));
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    });
}

/// RFC 7348, section 5: routers distinguish flows by the source port, and keep each flow on one path.
#[test]
fn a_flow_keeps_its_source_port_and_flows_spread() {
    on_bench(|bench| {
        bench.fill_with_routers();
        for make in [ipv4, ipv6] {
            let mut ports = BTreeSet::new();
            for source_port in 1000..1064 {
                let flow = Flow { source_port, ..Flow::default() };
                let port = source_port_of(bench, &make(A, FAR, flow));
                assert_eq!(port, source_port_of(bench, &make(A, FAR, Flow { id: 9, ..flow })));
                assert!(port >= SOURCE_PORT_MIN);
                ports.insert(port);
            }
            // With 16,384 ports nearly all of 64 flows have a different one.
            assert!(ports.len() > 56, "64 flows share {} source ports", ports.len());
        }
    });
}

#[test]
fn arp_is_answered_to_the_byte() {
    on_bench(|bench| {
        let probe = Station { ip: [0; 4], ..A };
        let answer = |asker: Station, found: Station| {
            let (from, to, operation) = (found.mac, A.mac, 2);
            arp(Ask { from, to, operation, sender: found, target: asker })
        };
        let padding = vec![7; 18];
        let padded = |frame: Vec<u8>| [frame, padding.clone()].concat();
        let unicast = Ask { to: FAR.mac, ..Ask::default() };
        for (name, asked, expected) in [
            ("far", who_has(FAR.ip), answer(A, FAR)),
            ("a neighbour", who_has(B.ip), answer(A, B)),
            ("unicast", arp(unicast), answer(A, FAR)),
            ("a probe", arp(Ask { sender: probe, ..Ask::default() }), answer(probe, FAR)),
            ("padded", padded(who_has(FAR.ip)), padded(answer(A, FAR))),
        ] {
            let outcome = bench.run(Direction::FromEndpoint, &asked);
            assert_eq!(outcome.verdict, Verdict::Redirect, "{name}");
            assert_eq!(outcome.packet, expected, "{name}");
        }
    });
}

/// An endpoint that forwards may ask under any MAC and address, and its request is answered to those.
#[test]
fn a_forwarder_is_answered_under_the_name_that_it_used() {
    on_bench(|bench| {
        let mut world = World::default();
        world.flag(crate::world::FORWARDS);
        bench.fill(&world);
        let asked = arp(Ask { from: STRANGER.mac, sender: STRANGER, ..Ask::default() });
        let outcome = bench.run(Direction::FromEndpoint, &asked);
        let (from, to, operation) = (FAR.mac, STRANGER.mac, 2);
        let expected = arp(Ask { from, to, operation, sender: FAR, target: STRANGER });
        assert_eq!(outcome.packet, expected);
    });
}

#[test]
fn a_neighbour_gets_the_frame_as_it_was() {
    on_bench(|bench| {
        bench.fill_with_routers();
        let flow = Flow { tos: 0xb9, ..Flow::default() };
        for frame in
            [ipv4(A, B, flow), ipv6(A, B, flow), other(A.mac, B.mac, EXPERIMENTAL, PAYLOAD)]
        {
            let outcome = bench.run(Direction::FromEndpoint, &frame);
            assert_eq!((outcome.verdict, outcome.packet), (Verdict::Redirect, frame));
        }
    });
}

fn encapsulated(bench: &mut Bench, inner: &[u8]) -> Vec<u8> {
    let outcome = bench.run(Direction::FromEndpoint, inner);
    assert_eq!(outcome.verdict, Verdict::Redirect);
    outcome.packet
}

fn source_port_of(bench: &mut Bench, inner: &[u8]) -> u16 {
    let packet = encapsulated(bench, inner);
    UdpHeader::from_slice(&packet[34..]).expect("UDP").0.source_port
}

fn check(bench: &mut Bench, inner: &[u8], tos: u8, next_hop_known: bool) {
    let packet = encapsulated(bench, inner);
    let macs = if next_hop_known { (ROUTER_MAC, UNDERLAY_MAC) } else { Default::default() };
    check_vxlan(&packet, inner, tos, macs, FAR_VTEP);
}

/// Checks every field of an encapsulated frame. `macs` are the destination and the source.
pub(crate) fn check_vxlan(
    packet: &[u8],
    inner: &[u8],
    tos: u8,
    (destination, source): ([u8; 6], [u8; 6]),
    vtep: [u8; 4],
) {
    assert_eq!(packet.len(), inner.len() + usize::from(VXLAN_OVERHEAD));
    let (eth, l3) = Ethernet2Header::from_slice(packet).expect("Ethernet");
    assert_eq!(eth, Ethernet2Header { source, destination, ether_type: EtherType::IPV4 });

    let (ip, l4) = Ipv4Header::from_slice(l3).expect("IPv4");
    let expected = Ipv4Header {
        dscp: (tos >> 2).try_into().expect("six bits"),
        ecn: (tos & 3).try_into().expect("two bits"),
        total_len: l3.len() as u16,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: Default::default(),
        time_to_live: TTL,
        protocol: IpNumber::UDP,
        header_checksum: ip.calc_header_checksum(),
        source: OWN_VTEP,
        destination: vtep,
        options: Default::default(),
    };
    assert_eq!(ip, expected);

    let (udp, vxlan) = UdpHeader::from_slice(l4).expect("UDP");
    let UdpHeader { source_port, destination_port, length, checksum } = udp;
    assert!(source_port >= SOURCE_PORT_MIN, "{source_port}");
    assert_eq!(destination_port, VXLAN_PORT);
    assert_eq!(usize::from(length), l4.len());
    assert_eq!(checksum, 0);

    let (header, carried) = vxlan.split_at(8);
    let [_, vni @ ..] = VNI.to_be_bytes();
    assert_eq!(header, [&[0x08, 0, 0, 0][..], &vni, &[0]].concat());
    assert_eq!(carried, inner);
}
