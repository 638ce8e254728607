//! Frames that are too big for the path to their node: the answers to their senders, and the reports of
//! routers.

use etherparse::{
    Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber,
    Ipv4Header, Ipv6Header, icmpv4::DestUnreachableHeader,
};
use overlay_common::Direction;

use super::{
    bench::{Bench, Outcome, Verdict, on_bench},
    packets::{Flow, a_to_far, ipv4, ipv6, long_ipv4},
    world::{
        A, FAR, FAR_VTEP, HOP_FAR, HOP_IDLE, OWN_VTEP, ROUTER_MAC, STRANGE_VTEP, UNDERLAY_MAC,
        World,
    },
};

/// Bytes that remain for an inner packet on a path of 1,500 bytes.
const INNER_MTU: u16 = 1450;

fn told(outcome: &Outcome) -> u16 {
    assert_eq!(outcome.verdict, Verdict::Redirect);
    let (eth, rest) = Ethernet2Header::from_slice(&outcome.packet).expect("Ethernet");
    assert_eq!((eth.destination, eth.source), (A.mac, FAR.mac), "back, as from the destination");
    let (ip, rest) = Ipv4Header::from_slice(rest).expect("IPv4");
    assert_eq!((ip.source, ip.destination, ip.protocol), (FAR.ip, A.ip, IpNumber::ICMP));
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    assert_eq!(usize::from(ip.total_len), 20 + rest.len());
    let (icmp, quoted) = Icmpv4Header::from_slice(rest).expect("ICMP");
    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(quoted));
    let Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu,
    }) = icmp.icmp_type
    else {
        panic!("{icmp:?}")
    };
    next_hop_mtu
}

#[test]
fn an_ipv4_sender_is_told_what_fits() {
    on_bench(|bench| {
        // The type of service and the payload are not zero, because the answer must quote the packet's own
        // bytes.
        let frame = long_ipv4(ipv4(A, FAR, Flow { tos: 0xb9, ..Flow::default() }), 1465);
        let outcome = bench.run(Direction::FromEndpoint, &frame);
        assert_eq!(told(&outcome), INNER_MTU);
        assert_eq!(outcome.packet[14 + 20 + 8..], frame[14..14 + 456]);
    });
}

#[test]
fn an_ipv6_sender_is_told_what_fits() {
    on_bench(|bench| {
        let mut frame = ipv6(A, FAR, Flow::default());
        frame.resize(1465, 0x5a);
        let outcome = bench.run(Direction::FromEndpoint, &frame);
        let (eth, rest) = Ethernet2Header::from_slice(&outcome.packet).expect("Ethernet");
        assert_eq!((eth.destination, eth.source), (A.mac, FAR.mac));
        let (ip, rest) = Ipv6Header::from_slice(rest).expect("IPv6");
        assert_eq!(
            (ip.source, ip.destination),
            (frame[38..54].try_into().unwrap(), frame[22..38].try_into().unwrap())
        );
        assert_eq!(
            (ip.next_header, usize::from(ip.payload_length)),
            (IpNumber::IPV6_ICMP, rest.len())
        );
        let (icmp, quoted) = Icmpv6Header::from_slice(rest).expect("ICMPv6");
        assert_eq!(icmp.icmp_type, Icmpv6Type::PacketTooBig { mtu: INNER_MTU.into() });
        let sum = icmp.icmp_type.calc_checksum(ip.source, ip.destination, quoted);
        assert_eq!(icmp.checksum, sum.expect("short"));
        assert_eq!(quoted, &frame[14..14 + 456]);
    });
}

/// A router's message to `to` about a packet of `len` bytes from `from` to `vtep`.
pub(crate) struct Word {
    pub(crate) to: [u8; 4],
    pub(crate) from: [u8; 4],
    pub(crate) vtep: [u8; 4],
    pub(crate) source_port: u16,
    pub(crate) port: u16,
    pub(crate) len: u16,
    pub(crate) mtu: u16,
}

impl Default for Word {
    fn default() -> Self {
        Self {
            to: OWN_VTEP,
            from: OWN_VTEP,
            vtep: FAR_VTEP,
            source_port: 50_000,
            port: 4789,
            len: 1500,
            mtu: 1400,
        }
    }
}

impl Word {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let udp_len = self.len - 20;
        let mut quoted = Ipv4Header::new(udp_len, 63, IpNumber::UDP, self.from, self.vtep)
            .expect("short")
            .to_bytes()
            .to_vec();
        quoted.extend([self.source_port, self.port, udp_len, 0].map(u16::to_be_bytes).concat());
        let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
            next_hop_mtu: self.mtu,
        });
        self.message(kind, &quoted)
    }

    fn message(&self, kind: Icmpv4Type, quoted: &[u8]) -> Vec<u8> {
        let icmp = Icmpv4Header::with_checksum(kind, quoted).to_bytes();
        let len = (icmp.len() + quoted.len()) as u16;
        let ip = Ipv4Header::new(len, 60, IpNumber::ICMP, [10, 10, 10, 1], self.to).expect("short");
        let eth = Ethernet2Header {
            source: ROUTER_MAC,
            destination: UNDERLAY_MAC,
            ether_type: etherparse::EtherType::IPV4,
        };
        [&eth.to_bytes()[..], &ip.to_bytes(), &icmp, quoted].concat()
    }
}

fn hear(bench: &mut Bench, frame: &[u8]) {
    let outcome = bench.run(Direction::FromUnderlay, frame);
    assert_eq!(outcome.verdict, Verdict::Pass, "the node hears it too");
    assert_eq!(outcome.packet, frame);
    assert!(outcome.counts.is_empty());
}

#[test]
fn what_a_router_says_holds_for_that_way() {
    on_bench(|bench| {
        hear(bench, &Word::default().frame());
        assert_eq!((bench.path(HOP_FAR).mtu, bench.path(HOP_IDLE).mtu), (1400, 0));
        let exact = long_ipv4(a_to_far(), 1364);
        assert_eq!(&bench.run(Direction::FromEndpoint, &exact).packet[50..], exact);
        let over = long_ipv4(a_to_far(), 1365);
        assert_eq!(told(&bench.run(Direction::FromEndpoint, &over)), 1350);
        // A router farther on the path may report a smaller size. A report of a larger size changes nothing.
        hear(bench, &Word { mtu: 1350, ..Word::default() }.frame());
        hear(bench, &Word { mtu: 1450, ..Word::default() }.frame());
        assert_eq!(bench.path(HOP_FAR).mtu, 1350);
    });
}

/// The smallest path is 552 bytes for TCP over IPv4 and 1280 for IPv6. A sender that is told of less would
/// repeat the same packet for ever.
#[test]
fn no_router_makes_a_way_too_small_for_ipv6() {
    for mtu in [68, 552, 1279, 1329, 1330] {
        on_bench(|bench| {
            hear(bench, &Word { mtu, ..Word::default() }.frame());
            assert_eq!(bench.path(HOP_FAR).mtu, 1330, "{mtu}");
            let least = long_ipv4(a_to_far(), 14 + 1280);
            assert_eq!(&bench.run(Direction::FromEndpoint, &least).packet[50..], least);
            let over = long_ipv4(a_to_far(), 14 + 1281);
            assert_eq!(told(&bench.run(Direction::FromEndpoint, &over)), 1280);
        });
    }
}

/// The MTU of a device or a route is no report of a router, and is used however small it is.
#[test]
fn a_smaller_device_is_believed() {
    on_bench(|bench| {
        let mut world = World::default();
        world.hops.values_mut().for_each(|hop| hop.mtu = 1300);
        bench.fill(&world);
        hear(bench, &Word { mtu: 600, len: 1300, ..Word::default() }.frame());
        assert_eq!(bench.path(HOP_FAR).mtu, 0, "it says nothing new");
        let over = long_ipv4(a_to_far(), 1265);
        assert_eq!(told(&bench.run(Direction::FromEndpoint, &over)), 1250);
    });
}

#[test]
fn a_router_that_does_not_say_how_much_means_the_least() {
    on_bench(|bench| {
        hear(bench, &Word { mtu: 0, ..Word::default() }.frame());
        assert_eq!(bench.path(HOP_FAR).mtu, 1330);
    });
}

#[test]
fn words_about_others_packets_mean_nothing() {
    on_bench(|bench| {
        let other_vtep = [10, 10, 10, 102];
        let word = Word::default;
        let echo = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 1 });
        let quoted = word().frame()[42..].to_vec();
        for frame in [
            Word { to: other_vtep, ..word() }.frame(),
            Word { from: other_vtep, ..word() }.frame(),
            Word { vtep: STRANGE_VTEP, ..word() }.frame(),
            Word { port: 4790, ..word() }.frame(),
            // Encapsulation uses none of these source ports.
            Word { source_port: 49_151, ..word() }.frame(),
            Word { source_port: 9, ..word() }.frame(),
            // The packet is not longer than the MTU in the message, so it was not too big.
            Word { len: 1400, ..word() }.frame(),
            Word { len: 600, mtu: 601, ..word() }.frame(),
            Word { mtu: 1500, len: 1501, ..word() }.frame(),
            word().message(echo, &quoted),
            word().frame()[..60].to_vec(),
        ] {
            hear(bench, &frame);
            assert_eq!(bench.path(HOP_FAR).mtu, 0, "{frame:02x?}");
        }
        // A node that was removed has no path.
        let mut world = World::default();
        world.nodes.clear();
        bench.fill(&world);
        hear(bench, &word().frame());
        assert_eq!(bench.path(HOP_FAR).mtu, 0);
    });
}
