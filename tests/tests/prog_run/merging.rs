//! TCP segments that come in one by one on a veth are sent through the merge pair, and nothing else is.

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder};
use overlay_common::{
    Arrivals, CONFIG_SHARED, Direction, ENOUGH, LONG, MERGE_MAC, MERGED, PathMtu,
};

use super::{
    bench::{Bench, Outcome, Skb, Verdict, coarse_time_ns, on_bench},
    packets::{BROADCAST, Flow, Vxlan, ipv4, tagged, vxlan},
    tap::{Bulk, BulkKind, Unfinished},
    world::{
        A, FAR, HOP_FAR, HOP_IDLE, IDLE_VTEP, STRANGE_VTEP, STRANGER, Station, UNDERLAY, World,
    },
};

/// The merge pair's sending end. test_run sends nothing there.
pub(crate) const PAIR: u32 = UNDERLAY;
/// Bytes of a segment's payload.
const SEGMENT: usize = 1386;
const SEGMENTS: usize = 20;
const ACK: u8 = 1 << 4;
const FIN: u8 = 1 << 0;
const RST: u8 = 1 << 2;
const SYN: u8 = 1 << 1;

/// A TCP segment over IPv4, with these flags.
fn tcp(from: Station, to: Station, flags: u8, payload: &[u8]) -> Vec<u8> {
    let ip = Ipv4Header::new(0, 64, IpNumber::TCP, from.ip, to.ip).expect("short");
    segment(from, to, IpHeaders::Ipv4(ip, Default::default()), 20, flags, payload)
}

/// The same over IPv6.
fn tcp6(from: Station, to: Station, payload: &[u8]) -> Vec<u8> {
    let address = |station: Station| {
        let mut address = [0; 16];
        address[12..].copy_from_slice(&station.ip);
        address[0] = 0xfd;
        address
    };
    let ip = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: 0,
        next_header: IpNumber::TCP,
        hop_limit: 64,
        source: address(from),
        destination: address(to),
    };
    segment(from, to, IpHeaders::Ipv6(ip, Default::default()), 40, ACK, payload)
}

fn segment(
    from: Station,
    to: Station,
    ip: IpHeaders,
    ip_len: usize,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let tcp = PacketBuilder::ethernet2(from.mac, to.mac).ip(ip).tcp(40_000, 5001, 7, 65_535);
    let mut frame = Vec::new();
    tcp.ack(1).write(&mut frame, payload).expect("a vector takes all");
    frame[14 + ip_len + 13] = flags;
    frame
}

/// Now, in ticks.
fn tick() -> u16 {
    Arrivals::tick_at(coarse_time_ns())
}

/// A VTEP's segments come alone, in this tick and in the next.
pub(crate) fn alone() -> Arrivals {
    Arrivals { tick: tick(), now: ENOUGH, before: ENOUGH }
}

/// A world with a merge pair.
fn with_pair() -> World {
    let mut world = World::default();
    world.config.iter_mut().for_each(|config| config.merge_ifindex = PAIR);
    world
}

#[derive(Clone)]
struct Case {
    name: &'static str,
    arrange: fn(&mut World),
    arrivals: Arrivals,
    packet: Vec<u8>,
    gso_size: u32,
}

fn case(name: &'static str, packet: Vec<u8>) -> Case {
    Case { name, arrange: |_| {}, arrivals: alone(), packet, gso_size: 0 }
}

/// Runs the packet through `from_veth`, and through `from_underlay`.
fn both(bench: &mut Bench, case: &Case) -> (Outcome, Outcome) {
    let mut world = with_pair();
    (case.arrange)(&mut world);
    bench.fill(&world);
    // Of this moment: a case that was made in an earlier tick would be another one.
    let arrivals = Arrivals { tick: tick(), ..case.arrivals };
    bench.set_arrivals(HOP_FAR, arrivals);
    bench.set_arrivals(HOP_IDLE, arrivals);
    let by_veth = bench.run_veth(&case.packet, case.gso_size);
    bench.fill(&world);
    let skb = Skb { ifindex: UNDERLAY, gso_size: case.gso_size };
    let usual = bench.run_skb(Direction::FromUnderlay, &case.packet, skb);
    (by_veth, usual)
}

#[test]
fn segments_that_come_alone_go_through_the_pair() {
    on_bench(|bench| {
        let long = vec![0x5a; SEGMENT];
        for case in [
            case("a segment", vxlan(&tcp(FAR, A, ACK, &long))),
            case("one byte", vxlan(&tcp(FAR, A, ACK, b"x"))),
            case("a segment with the first flag", vxlan(&tcp(FAR, A, SYN, b"x"))),
            case("the last one, without payload", vxlan(&tcp(FAR, A, FIN | ACK, b""))),
            case("a reset", vxlan(&tcp(FAR, A, RST, b""))),
            case("IPv6", vxlan(&tcp6(FAR, A, &long))),
            case("what will be dropped behind it", vxlan(&tcp(STRANGER, A, ACK, &long))),
            Case {
                packet: Vxlan { from: IDLE_VTEP, ..Vxlan::default() }
                    .around(&tcp(FAR, A, ACK, &long)),
                ..case("from a node without this network", vec![])
            },
        ] {
            let (by_veth, _) = both(bench, &case);
            let name = case.name;
            assert_eq!(by_veth.verdict, Verdict::Redirect, "{name}");
            let through = [&MERGE_MAC[..], &case.packet[6..]].concat();
            assert_eq!(by_veth.packet, through, "{name}: as it came, but for its destination");
            assert!(by_veth.counts.is_empty() && by_veth.events.is_empty(), "{name}: not yet");
        }
    });
}

#[test]
fn all_else_is_as_on_any_uplink() {
    on_bench(|bench| {
        let long = vec![0x5a; SEGMENT];
        let inner = tcp(FAR, A, ACK, &long);
        let usual = Vxlan::default;
        let few = Arrivals { now: ENOUGH - 2, before: 0, ..alone() };
        let merged = Arrivals { now: MERGED, ..alone() };
        let before = Arrivals { before: MERGED, ..alone() };
        let fragment = |at: usize, byte: u8| {
            let mut inner = inner.clone();
            inner[14 + at] = byte;
            vxlan(&inner)
        };
        let mut options = inner.clone();
        options[14] = 0x46;
        let tag = |frame: &[u8]| tagged(frame, 0x8100);
        let plain = case("", vxlan(&inner));
        for case in [
            case("an acknowledgement", vxlan(&tcp(FAR, A, ACK, b""))),
            case("the first segment", vxlan(&tcp(FAR, A, SYN, b""))),
            case("a datagram", vxlan(&ipv4(FAR, A, Flow::default()))),
            case("an inner first fragment", fragment(6, 0x20)),
            case("an inner later fragment", fragment(7, 0x20)),
            case("inner options", vxlan(&options)),
            case("an inner tag", vxlan(&tag(&inner))),
            case("a tag outside", tag(&vxlan(&inner))),
            case("a fragment", Vxlan { more_fragments: true, ..usual() }.around(&inner)),
            case("outer options", Vxlan { options: vec![1; 4], ..usual() }.around(&inner)),
            case("a group frame", Vxlan { to_mac: BROADCAST, ..usual() }.around(&inner)),
            case("another host's", Vxlan { to_mac: STRANGER.mac, ..usual() }.around(&inner)),
            case("another port", Vxlan { port: 8472, ..usual() }.around(&inner)),
            case("another address", Vxlan { to: IDLE_VTEP, ..usual() }.around(&inner)),
            case("an unknown VTEP", Vxlan { from: STRANGE_VTEP, ..usual() }.around(&inner)),
            case("without a VNI", Vxlan { flags: 0, ..usual() }.around(&inner)),
            case("bytes behind it", [vxlan(&inner), vec![0; 4]].concat()),
            case("TCP outside", Vxlan { protocol: IpNumber::TCP, ..usual() }.around(&inner)),
            case("not VXLAN", inner.clone()),
            case("cut", vxlan(&inner)[..14 + 20 + 8 + 8 + 14 + 20 + 4].to_vec()),
            Case { name: "a super-packet", gso_size: 1000, ..plain.clone() },
            Case { name: "few come alone", arrivals: few, ..plain.clone() },
            Case { name: "after a super-packet", arrivals: merged, ..plain.clone() },
            Case { name: "in the tick after one", arrivals: before, ..plain.clone() },
            Case { name: "nothing came yet", arrivals: Arrivals::default(), ..plain.clone() },
            Case {
                name: "without a pair",
                arrange: |world| world.config.iter_mut().for_each(|c| c.merge_ifindex = 0),
                ..plain.clone()
            },
            Case {
                name: "another program has the port",
                arrange: |world| world.configure(CONFIG_SHARED),
                ..plain.clone()
            },
            Case {
                name: "before the node is configured",
                arrange: |world| world.config = None,
                ..plain.clone()
            },
        ] {
            let (by_veth, usual) = both(bench, &case);
            assert_eq!(by_veth, usual, "{}", case.name);
        }
    });
}

/// What is noted of a VTEP changes with the packets that come from it, and with no others.
#[test]
fn arrivals_are_noted() {
    on_bench(|bench| {
        let long = vxlan(&tcp(FAR, A, ACK, &vec![0x5a; SEGMENT]));
        let short = vxlan(&tcp(FAR, A, ACK, b"x"));
        assert!(long.len() >= LONG as usize && short.len() < LONG as usize);
        let datagram = vxlan(&ipv4(FAR, A, Flow::default()));
        let mut noted = |packet: &[u8], gso_size| {
            bench.fill(&with_pair());
            // The tick may end before the packet is run.
            bench.set_arrivals(HOP_FAR, Arrivals { tick: tick(), now: 3, before: 3 });
            bench.run_veth(packet, gso_size);
            assert_eq!(bench.path(HOP_IDLE), PathMtu::default(), "another VTEP's");
            bench.path(HOP_FAR).arrivals.now
        };
        assert!([4, 1].contains(&noted(&long, 0)));
        assert!([3, 0].contains(&noted(&short, 0)));
        assert_eq!(noted(&datagram, 0), 3);
        assert_eq!(noted(&long, 1000), MERGED);
    });
}

/// A short segment shows nothing and is looked up only while some VTEP's segments come alone: each long one that goes
/// through the pair keeps it so.
#[test]
fn that_some_come_alone_is_noted() {
    on_bench(|bench| {
        let long = vxlan(&tcp(FAR, A, ACK, &vec![0x5a; SEGMENT]));
        let short = vxlan(&tcp(FAR, A, ACK, b"x"));
        let mut is_noted_after = |packet: &[u8], arrivals: Arrivals| {
            bench.fill(&with_pair());
            bench.set_arrivals(HOP_FAR, arrivals);
            let long_ago = tick().wrapping_sub(100);
            bench.set_arrivals(HOP_IDLE, Arrivals { tick: long_ago, ..Arrivals::default() });
            bench.run_veth(packet, 0);
            bench.path(Arrivals::OF_ALL).arrivals.some_come_alone(tick())
        };
        assert!(is_noted_after(&long, alone()));
        assert!(!is_noted_after(&long, Arrivals::default()), "they do not come alone");
        assert!(!is_noted_after(&short, alone()), "it is not looked up");
    });
}

/// A's super-packet is cut before it leaves. On a far node whose uplink is a veth it comes out in few pieces, as many as
/// that kernel's GRO makes of it; without the pair, its segments come out.
#[test]
fn what_was_cut_on_the_way_is_merged() {
    on_bench(|bench| {
        bench.attach(Direction::FromEndpoint, "port_a");
        bench.set_offloads_of_underlay(false);
        let mut far = bench.far_node_with_pair();
        let pair = bench
            .among_peers(|| nix::net::if_::if_nametoindex("ovm-out").expect("the device was made"));
        let (a, out) = (bench.tap_a(), bench.tap_far());
        let payload: Vec<u8> = (0..SEGMENTS * SEGMENT).map(|at| (at / 7) as u8).collect();
        let frame = tcp(A, FAR, ACK, &payload);
        let headers = frame.len() - payload.len();
        let unfinished = Unfinished { start: 14 + 20, offset: 16 };
        let bulk = Bulk { kind: BulkKind::TcpV4, segment: SEGMENT as u16, headers: headers as u16 };
        let mut received = |pair: u32, arrivals: Arrivals| {
            let world = World::default();
            bench.fill(&world);
            let mut there = world.of_far_node();
            there.config.iter_mut().for_each(|config| config.merge_ifindex = pair);
            far.fill(&there);
            far.set_arrivals(HOP_FAR, arrivals);
            assert!(a.send_offloaded(&summed_by_device(frame.clone()), unfinished, Some(bulk)));
            out.received()
        };
        for (pair, arrivals, frames) in [
            (pair, alone(), 1..=SEGMENTS / 4),
            (0, alone(), SEGMENTS..=SEGMENTS),
            (pair, Arrivals::default(), SEGMENTS..=SEGMENTS),
        ] {
            let received = received(pair, arrivals);
            let count = received.len();
            assert!(frames.contains(&count), "{count}, pair {pair}, {arrivals:?}");
            let carried: Vec<u8> =
                received.iter().flat_map(|frame| frame[headers..].to_vec()).collect();
            assert_eq!(carried, payload, "the bytes, in order");
        }
    });
}

/// The frame with the sum over the pseudo-header in its checksum's place, as a sender leaves it to a device.
fn summed_by_device(mut frame: Vec<u8>) -> Vec<u8> {
    let len = (frame.len() - 14 - 20) as u16;
    let words =
        frame[26..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum = words.sum::<u32>() + u32::from(IpNumber::TCP.0) + u32::from(len);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[14 + 20 + 16..][..2].copy_from_slice(&(sum as u16).to_be_bytes());
    frame
}
