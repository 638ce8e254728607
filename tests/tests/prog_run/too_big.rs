//! What is too big for the way to its node: what its sender is told, and what routers tell us.

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

/// Of a way of 1,500 bytes, what is left for an inner packet.
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
        // Any type of service and payload: the quote is the packet's own bytes.
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

/// A router's message to `to` about a packet from `from` to `vtep`.
struct Word {
    to: [u8; 4],
    from: [u8; 4],
    vtep: [u8; 4],
    port: u16,
    mtu: u16,
}

impl Default for Word {
    fn default() -> Self {
        Self { to: OWN_VTEP, from: OWN_VTEP, vtep: FAR_VTEP, port: 4789, mtu: 1200 }
    }
}

impl Word {
    fn frame(&self) -> Vec<u8> {
        let mut quoted = Ipv4Header::new(1472, 63, IpNumber::UDP, self.from, self.vtep)
            .expect("short")
            .to_bytes()
            .to_vec();
        quoted.extend(50_000u16.to_be_bytes());
        quoted.extend(self.port.to_be_bytes());
        quoted.extend([5, 0xc0, 0, 0]);
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
        assert_eq!((bench.path(HOP_FAR).mtu, bench.path(HOP_IDLE).mtu), (1200, 0));
        let exact = long_ipv4(a_to_far(), 1164);
        assert_eq!(&bench.run(Direction::FromEndpoint, &exact).packet[50..], exact);
        let over = long_ipv4(a_to_far(), 1165);
        assert_eq!(told(&bench.run(Direction::FromEndpoint, &over)), 1150);
        // Farther on the way is even less; and nobody can say that it is more.
        hear(bench, &Word { mtu: 1000, ..Word::default() }.frame());
        hear(bench, &Word { mtu: 1400, ..Word::default() }.frame());
        assert_eq!(bench.path(HOP_FAR).mtu, 1000);
        // Whoever says so: not below what the kernel itself would believe.
        hear(bench, &Word { mtu: 68, ..Word::default() }.frame());
        assert_eq!(bench.path(HOP_FAR).mtu, 552);
    });
}

#[test]
fn a_router_that_does_not_say_how_much_means_little() {
    on_bench(|bench| {
        hear(bench, &Word { mtu: 0, ..Word::default() }.frame());
        assert_eq!(bench.path(HOP_FAR).mtu, 576);
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
            Word { mtu: 1500, ..word() }.frame(),
            word().message(echo, &quoted),
            word().frame()[..60].to_vec(),
        ] {
            hear(bench, &frame);
            assert_eq!(bench.path(HOP_FAR).mtu, 0, "{frame:02x?}");
        }
        // A node that has gone is no way.
        let mut world = World::default();
        world.nodes.clear();
        bench.fill(&world);
        hear(bench, &word().frame());
        assert_eq!(bench.path(HOP_FAR).mtu, 0);
    });
}
