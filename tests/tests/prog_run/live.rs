//! Frames that come in by real devices, to attached programs. They show where a redirect leads, and cases
//! that test_run cannot make: a tag that the device took out of the frame, and a frame shorter than its
//! headers.

use overlay_common::{Counter, Direction, DropReason, FLAG_ICC_OFF, FLAG_MULTICAST};

use super::{
    bench::{Bench, Counts, on_bench},
    devices::ip_batch,
    encapsulation::check_vxlan,
    packets::{
        Ask, BROADCAST, EXPERIMENTAL, Flow, a_to_b, a_to_far, arp, cut, far_to_a, ipv4, ipv6,
        other, tagged, tagged_with, to_mac, vxlan, who_has,
    },
    too_big::Word,
    world::{A, B, FAR, FAR_VTEP, FORWARDS, NO_DEVICE, OWN_VTEP, ROUTER_MAC, UNDERLAY_MAC, World},
};

#[test]
fn an_answer_goes_back_to_who_asked() {
    attached(Direction::FromEndpoint, |bench| {
        let a = bench.tap_a();
        a.send(&who_has(FAR.ip));
        let (from, to, operation) = (FAR.mac, A.mac, 2);
        assert_eq!(a.next(), arp(Ask { from, to, operation, sender: FAR, target: A }));
    });
}

#[test]
fn a_neighbours_frame_comes_out_at_the_neighbour() {
    attached(Direction::FromEndpoint, |bench| {
        bench.fill_with_routers();
        let (a, b) = (bench.tap_a(), bench.tap_b());
        for frame in [a_to_b(), ipv6(A, B, Flow::default()), other(A.mac, B.mac, EXPERIMENTAL, &[])]
        {
            a.send(&frame);
            assert_eq!(b.next(), frame);
        }
    });
}

#[test]
fn a_frame_to_a_node_goes_out_by_the_device_of_its_next_hop() {
    attached(Direction::FromEndpoint, |bench| {
        bench.fill_with_routers();
        let (a, wire) = (bench.tap_a(), bench.tap_underlay());
        for frame in [
            a_to_far(),
            ipv6(A, FAR, Flow::default()),
            other(A.mac, FAR.mac, EXPERIMENTAL, &[]),
            other(A.mac, FAR.mac, 3, b"\x42\x42\x03"),
        ] {
            a.send(&frame);
            check_vxlan(&wire.next(), &frame, 0, (ROUTER_MAC, UNDERLAY_MAC), FAR_VTEP);
        }
    });
}

/// The kernel cuts no packet before its transport header, which is far behind the IPv6 header here.
#[test]
fn too_big_is_told_of_behind_long_extension_headers() {
    attached(Direction::FromEndpoint, |bench| {
        bench.fill_with_routers();
        let a = bench.tap_a();
        let mut frame = ipv6(A, FAR, Flow::default());
        // A hop-by-hop header of 208 bytes before UDP, with nothing but padding (RFC 8200, section 4.2).
        let mut options = vec![17, 25, 1, 204];
        options.resize(208, 0);
        frame[14 + 6] = 0;
        frame.splice(14 + 40..14 + 40, options);
        frame.resize(1465, 0x5a);
        let payload_len = u16::try_from(frame.len() - 14 - 40).expect("short").to_be_bytes();
        frame[14 + 4..14 + 6].copy_from_slice(&payload_len);
        a.send(&frame);
        let answer = a.next();
        assert_eq!((&answer[..6], answer[14 + 6], answer[14 + 40]), (&A.mac[..], 58, 2));
        assert_eq!(answer[14 + 40 + 8..], frame[14..14 + 456]);
    });
}

/// Whatever a router reports, IPv6's smallest packet still fits, also with a VLAN tag.
#[test]
fn no_router_makes_a_way_too_small_for_ipv6_on_a_vlan() {
    attached(Direction::FromEndpoint, |bench| {
        bench.fill_with_routers();
        bench.attach(Direction::FromUnderlay, "underlay");
        let (a, wire) = (bench.tap_a(), bench.tap_underlay());
        wire.send(&Word { mtu: 552, ..Word::default() }.frame());
        let mut frame = ipv6(A, FAR, Flow::default());
        frame.resize(14 + 1280, 0x5a);
        let least = tagged(&frame, 0x8100);
        a.send(&least);
        check_vxlan(&wire.next(), &least, 0, (ROUTER_MAC, UNDERLAY_MAC), FAR_VTEP);
        frame.push(0x5a);
        a.send(&tagged(&frame, 0x8100));
        // Behind the tag and the IPv6 header is "packet too big", with the MTU in its last two bytes.
        let answer = a.next();
        assert_eq!((answer[14 + 4 + 6], answer[14 + 4 + 40]), (58, 2));
        assert_eq!(answer[14 + 4 + 40 + 6..][..2], 1280u16.to_be_bytes());
    });
}

/// The kernel uses its own route and neighbour instead.
#[test]
fn without_a_next_hop_the_kernel_finds_the_way() {
    attached(Direction::FromEndpoint, |bench| {
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        let dotted = |ip: [u8; 4]| ip.map(|byte| byte.to_string()).join(".");
        let router = "10.10.10.1";
        ip_batch(&format!(
            "addr add {}/24 dev underlay\n\
             neigh add {router} lladdr {} dev underlay nud permanent\n\
             route add {}/32 via {router}\n",
            dotted(OWN_VTEP),
            mac(ROUTER_MAC),
            dotted(FAR_VTEP),
        ));
        let mut world = World::default();
        world.forget_next_hops();
        world.flag(FORWARDS);
        assert!(world.hops.values().all(|hop| hop.ifindex == 0));
        // The route's device counts, and not the one that carries the VTEP's address.
        world.config.iter_mut().for_each(|config| config.underlay_ifindex = NO_DEVICE);
        bench.fill(&world);
        let (a, wire) = (bench.tap_a(), bench.tap_underlay());
        for frame in [a_to_far(), ipv6(A, FAR, Flow::default())] {
            a.send(&frame);
            check_vxlan(&wire.next(), &frame, 0, (ROUTER_MAC, UNDERLAY_MAC), FAR_VTEP);
        }
    });
}

#[test]
fn an_inner_frame_comes_out_at_its_endpoint() {
    attached(Direction::FromUnderlay, |bench| {
        bench.fill_with_routers();
        let (a, b, wire) = (bench.tap_a(), bench.tap_b(), bench.tap_underlay());
        for inner in [
            far_to_a(),
            ipv6(FAR, A, Flow::default()),
            other(FAR.mac, A.mac, EXPERIMENTAL, &[0x5a; 46]),
        ] {
            wire.send(&vxlan(&inner));
            assert_eq!(a.next(), inner);
        }
        let inner = ipv4(FAR, B, Flow::default());
        wire.send(&vxlan(&inner));
        assert_eq!(b.next(), inner);
    });
}

/// No frame reaches a neighbour, whether on one node or between two, and whether it is for one endpoint or
/// for all. ARP is answered all the same, so that the policy is the reason that is counted.
#[test]
fn with_icc_off_nobody_hears_a_neighbour() {
    attached(Direction::FromEndpoint, |bench| {
        bench.attach(Direction::FromUnderlay, "underlay");
        let (a, b, wire) = (bench.tap_a(), bench.tap_b(), bench.tap_underlay());
        let frames = [a_to_b(), a_to_far(), to_mac(a_to_b(), BROADCAST)];
        let mut world = World::default();
        world.flag(FLAG_MULTICAST);
        bench.fill(&world);
        frames.iter().for_each(|frame| a.send(frame));
        wire.send(&vxlan(&far_to_a()));
        let heard = || [&a, &b, &wire].map(|tap| tap.received().len());
        assert_eq!(heard(), [1, 2, 2], "with ICC on");

        world.flag(FLAG_ICC_OFF);
        bench.fill(&world);
        bench.counts();
        frames.iter().for_each(|frame| a.send(frame));
        wire.send(&vxlan(&far_to_a()));
        wire.send(&vxlan(&to_mac(far_to_a(), BROADCAST)));
        assert_eq!(heard(), [0, 0, 0]);
        let counts = bench.counts();
        let packets = |way| counts[&(DropReason::IccOff as u32, way)].packets;
        assert_eq!(packets(Direction::FromEndpoint), 3);
        assert_eq!(packets(Direction::FromUnderlay), 2);
        a.send(&who_has(B.ip));
        assert_eq!(heard(), [1, 0, 0]);
    });
}

/// The kernel takes the outermost tag out before a program sees the frame. On the wire the frame has the tag
/// again.
#[test]
fn tags_are_carried() {
    attached(Direction::FromEndpoint, |bench| {
        let (a, b, wire) = (bench.tap_a(), bench.tap_b(), bench.tap_underlay());
        for tpid in [0x8100, 0x88a8] {
            for frame in [a_to_far(), other(A.mac, FAR.mac, EXPERIMENTAL, &[0x5a; 46])] {
                let one = tagged(&frame, tpid);
                let two = tagged(&one, tpid);
                for frame in [one, two] {
                    a.send(&frame);
                    check_vxlan(&wire.next(), &frame, 0, (ROUTER_MAC, UNDERLAY_MAC), FAR_VTEP);
                }
            }
            let frame = tagged(&a_to_b(), tpid);
            a.send(&frame);
            assert_eq!(b.next(), frame);
        }
    });
}

/// The kernel keeps tags beside the frame, and the program carries two of them. A frame with three is
/// refused.
#[test]
fn a_third_tag_is_one_too_many() {
    attached(Direction::FromEndpoint, |bench| {
        let frame = tagged(&tagged(&tagged(&a_to_far(), 0x8100), 0x8100), 0x8100);
        let counts = counts_of(bench, &frame);
        assert_eq!(counts, one(DropReason::VlanUnsupported, frame.len() - 4));
    });
}

/// A mark that a router sets could not be taken over into a packet behind a tag, so no router may set one:
/// the outer packet is "not ECN-capable" (RFC 6040, section 4.1, does not treat packets whose inner header is
/// hidden).
#[test]
fn a_tagged_frame_shows_no_type_of_service_outside() {
    attached(Direction::FromEndpoint, |bench| {
        let (a, wire) = (bench.tap_a(), bench.tap_underlay());
        let frame = tagged(&ipv4(A, FAR, Flow { tos: 0xb9, ..Flow::default() }), 0x8100);
        a.send(&frame);
        check_vxlan(&wire.next(), &frame, 0, (ROUTER_MAC, UNDERLAY_MAC), FAR_VTEP);
    });
}

/// A VLAN of the underlay's device is a separate Ethernet, whose stations are no VTEPs. VLAN 0 means no VLAN.
#[test]
fn vxlan_on_a_vlan_of_the_underlay_is_not_for_us() {
    attached(Direction::FromUnderlay, |bench| {
        let (a, wire) = (bench.tap_a(), bench.tap_underlay());
        for tpid in [0x8100, 0x88a8] {
            wire.send(&tagged(&vxlan(&far_to_a()), tpid));
            assert_eq!(a.received(), [] as [Vec<u8>; 0]);
            assert_eq!(bench.counts(), Counts::new());
            wire.send(&tagged_with(&vxlan(&far_to_a()), tpid, 0xe000));
            assert_eq!(a.received(), [far_to_a()]);
            bench.counts();
        }
    });
}

#[test]
fn a_frame_shorter_than_its_header_is_malformed() {
    attached(Direction::FromEndpoint, |bench| {
        for len in [14, 15, 33] {
            let counts = counts_of(bench, &cut(a_to_b(), len));
            assert_eq!(counts, one(DropReason::Malformed, len));
        }
    });
}

/// What it says cannot be checked, whatever its sender is allowed.
#[test]
fn ipv6_shorter_than_its_header_is_dropped() {
    attached(Direction::FromEndpoint, |bench| {
        for may_all in [false, true] {
            let mut world = World::default();
            world.flag(if may_all { FORWARDS } else { 0 });
            bench.fill(&world);
            for len in [14, 17, 53] {
                let frame = cut(ipv6(A, FAR, Flow::default()), len);
                assert_eq!(counts_of(bench, &frame), one(DropReason::Malformed, len));
            }
        }
    });
}

fn one(reason: DropReason, bytes: usize) -> Counts {
    let counter = Counter { packets: 1, bytes: bytes as u64 };
    Counts::from([((reason as u32, Direction::FromEndpoint), counter)])
}

/// The counts of a frame that A sends. A second frame is sent and answered, which shows that the first one
/// was handled, because frames are handled in order.
fn counts_of(bench: &mut Bench, frame: &[u8]) -> Counts {
    let a = bench.tap_a();
    a.send(frame);
    let last = who_has(FAR.ip);
    a.send(&last);
    a.next();
    let mut counts = bench.counts();
    let answered = counts.remove(&(0, Direction::FromEndpoint));
    assert_eq!(answered, Some(Counter { packets: 1, bytes: last.len() as u64 }));
    counts
}

fn attached(direction: Direction, body: impl FnOnce(&mut Bench)) {
    on_bench(|bench| {
        let device = match direction {
            Direction::FromEndpoint => "port_a",
            Direction::FromUnderlay | Direction::GuardUnderlay => "underlay",
            Direction::FromGateway => "leg_a",
        };
        bench.attach(direction, device);
        body(bench);
    });
}
