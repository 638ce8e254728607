//! Copies of broadcast and multicast frames, as they come out of the devices.

use overlay_common::{Direction, DropReason, FLAG_MULTICAST, FLOOD_MAX, FLOOD_PAGES};

use super::{
    bench::{Bench, Counts, Skb, on_bench},
    encapsulation::check_vxlan,
    packets::{BROADCAST, EXPERIMENTAL, Flow, GROUP, Vxlan, ipv4, ipv6, other, to_mac},
    world::{
        A, B, FAR, FAR_VTEP, HOP_FAR, HOP_IDLE, IDLE_VTEP, PORT_A, PORT_B, ROUTER_MAC,
        UNDERLAY_MAC, VNI, World, flood,
    },
};

const TOS: u8 = 0xb9;
/// The part of it that is ECN.
const ECN: u8 = 1;

#[test]
fn an_endpoints_broadcast_reaches_every_port_and_vtep_but_its_own() {
    multicast(|bench, _| {
        let (a, b, wire) = (bench.tap_a(), bench.tap_b(), bench.tap_underlay());
        for (frame, tos) in groups() {
            bench.run(Direction::FromEndpoint, &frame);
            assert_eq!(a.received(), [] as [Vec<u8>; 0], "the sender gets no copy");
            assert_eq!(b.received(), std::slice::from_ref(&frame));
            let copies = wire.received();
            let [copy] = &copies[..] else { panic!("{copies:?}") };
            check_vxlan(copy, &frame, tos, (ROUTER_MAC, UNDERLAY_MAC), FAR_VTEP);
        }
    });
}

/// Each copy has its own destination and the matching checksum. The list is longer than a page of FLOOD, and not a
/// multiple of one.
#[test]
fn every_vtep_gets_its_own_copy() {
    multicast(|bench, world| {
        let vteps: Vec<[u8; 4]> = (0..FLOOD_MAX as u8 + 3).map(|n| [10, 9, n, 0xff - n]).collect();
        let hops: Vec<u32> = (100..).take(vteps.len()).collect();
        for (vtep, hop) in vteps.iter().zip(&hops) {
            let mut mac = ROUTER_MAC;
            mac[5] = vtep[2];
            world.node(*vtep, u64::from(*hop), *hop, mac);
        }
        world.flood.insert(VNI, flood(&hops, &[PORT_A; FLOOD_MAX]));
        bench.fill(world);
        let wire = bench.tap_underlay();
        let frame = to_mac(ipv4(A, B, Flow { tos: TOS, ..Flow::default() }), GROUP);
        bench.run(Direction::FromEndpoint, &frame);
        let copies = wire.received();
        assert_eq!(copies.len(), vteps.len());
        for (copy, vtep) in copies.iter().zip(&vteps) {
            let mut mac = ROUTER_MAC;
            mac[5] = vtep[2];
            check_vxlan(copy, &frame, ECN, (mac, UNDERLAY_MAC), *vtep);
        }
    });
}

/// The lists of one network fill all its pages. The same device and VTEP stand in each place.
#[test]
fn the_last_place_of_the_last_page_gets_a_copy() {
    multicast(|bench, world| {
        let all = FLOOD_MAX * FLOOD_PAGES as usize;
        let frame = to_mac(ipv4(A, B, Flow::default()), GROUP);
        for (hops, ports) in [(0, all), (all, 0), (1, all - 1), (FLOOD_MAX + 1, FLOOD_MAX)] {
            let lists = flood(&vec![HOP_FAR; hops], &vec![PORT_B; ports]);
            world.flood.insert(VNI, lists);
            bench.fill(world);
            let (b, wire) = (bench.tap_b(), bench.tap_underlay());
            bench.run(Direction::FromEndpoint, &frame);
            assert_eq!((b.received().len(), wire.received().len()), (ports, hops));
        }
    });
}

/// Receivers for which there is no room are counted, one by one, and so are the frames that are not copied because
/// their sender sent too many. Each port has its own limit.
#[test]
fn what_reaches_nobody_is_counted() {
    multicast(|bench, world| {
        world.flood.values_mut().for_each(|flood| flood.lost = [2, 3]);
        bench.fill(world);
        let frame = to_mac(ipv4(A, B, Flow::default()), GROUP);
        let counted = |counts: &Counts, reason: DropReason| {
            counts.get(&(reason as u32, Direction::FromEndpoint)).map_or(0, |count| count.packets)
        };
        let counts = bench.run(Direction::FromEndpoint, &frame).counts;
        assert_eq!(counted(&counts, DropReason::FloodOverflow), 5);

        world.flood.values_mut().for_each(|flood| flood.lost = [0; 2]);
        world.limit(2);
        bench.fill(world);
        let stormed = |bench: &mut Bench, frame: &[u8], ifindex: u32| {
            let skb = Skb { ifindex, gso_size: 0 };
            counted(&bench.run_skb(Direction::FromEndpoint, frame, skb).counts, DropReason::Storm)
        };
        let of_b = to_mac(ipv4(B, A, Flow::default()), GROUP);
        let by_a = [0; 4].map(|_| stormed(bench, &frame, PORT_A));
        assert_eq!(by_a, [0, 0, 1, 1]);
        assert_eq!(stormed(bench, &of_b, PORT_B), 0, "the neighbour has its own limit");
    });
}

/// What is in debt is paid for by time.
#[test]
fn a_storm_limit_is_a_rate() {
    multicast(|bench, world| {
        let config = world.config.as_mut().expect("the usual one");
        config.storm = overlay_common::Limit { gap_ns: 1_000_000, burst: 1 };
        bench.fill(world);
        let frame = to_mac(ipv4(A, B, Flow::default()), GROUP);
        let sent = (0..1_000_000).filter(|_| {
            let counts = bench.run(Direction::FromEndpoint, &frame).counts;
            !counts.contains_key(&(DropReason::Storm as u32, Direction::FromEndpoint))
        });
        assert_eq!(sent.take(3).count(), 3, "the limit ends nothing for ever");
    });
}

/// A copy that cannot be sent does not prevent the others.
#[test]
fn the_others_get_theirs_where_one_is_lost() {
    multicast(|bench, world| {
        let lost = 9;
        world.flood.insert(VNI, flood(&[HOP_FAR, lost, HOP_IDLE], &[]));
        bench.fill(world);
        let wire = bench.tap_underlay();
        let frame = to_mac(ipv4(A, B, Flow::default()), BROADCAST);
        bench.run(Direction::FromEndpoint, &frame);
        let copies = wire.received();
        assert_eq!(copies.len(), 2, "{copies:?}");
        for (copy, vtep) in copies.iter().zip([FAR_VTEP, IDLE_VTEP]) {
            check_vxlan(copy, &frame, 0, (ROUTER_MAC, UNDERLAY_MAC), vtep);
        }
    });
}

#[test]
fn the_underlays_broadcast_reaches_every_port_and_never_goes_back() {
    multicast(|bench, _| {
        let (a, b, wire) = (bench.tap_a(), bench.tap_b(), bench.tap_underlay());
        for (mut frame, _) in groups() {
            frame[6..12].copy_from_slice(&FAR.mac);
            if frame[12..14] == [8, 0] {
                frame = to_mac(ipv4(FAR, B, Flow { tos: TOS, ..Flow::default() }), GROUP);
            }
            bench.run(
                Direction::FromUnderlay,
                &Vxlan { tos: TOS, ..Vxlan::default() }.around(&frame),
            );
            assert_eq!(a.received(), [frame.clone()]);
            assert_eq!(b.received(), [frame]);
            assert_eq!(wire.received(), [] as [Vec<u8>; 0], "no node sends on what it received");
        }
    });
}

/// The network has no receiver except the sender, neither on this node nor behind a VTEP, so nothing is
/// copied, and no header is added.
#[test]
fn nobody_to_receive_means_no_copy() {
    multicast(|bench, world| {
        world.flood.insert(VNI, flood(&[], &[PORT_B]));
        bench.fill(world);
        let (b, wire) = (bench.tap_b(), bench.tap_underlay());
        let frame = to_mac(ipv4(B, A, Flow::default()), GROUP);
        let skb = Skb { ifindex: PORT_B, gso_size: 0 };
        bench.run_skb(Direction::FromEndpoint, &frame, skb);
        assert_eq!(b.received(), [] as [Vec<u8>; 0]);
        assert_eq!(wire.received(), [] as [Vec<u8>; 0]);
    });
}

/// Frames from A to groups, each with the type of service of its outer header.
fn groups() -> Vec<(Vec<u8>, u8)> {
    let flow = Flow { tos: TOS, ..Flow::default() };
    vec![
        (to_mac(ipv4(A, B, flow), BROADCAST), ECN),
        (to_mac(ipv4(A, B, flow), GROUP), ECN),
        (to_mac(ipv6(A, B, flow), [0x33, 0x33, 0, 0, 0, 1]), ECN),
        (other(A.mac, BROADCAST, EXPERIMENTAL, &[0x5a; 46]), 0),
    ]
}

fn multicast(body: impl FnOnce(&mut Bench, &mut World)) {
    on_bench(|bench| {
        let mut world = World::default();
        // The endpoints route for others, because only such endpoints may send IPv6.
        world.flag(FLAG_MULTICAST | crate::world::FORWARDS);
        bench.fill(&world);
        body(bench, &mut world);
    });
}
