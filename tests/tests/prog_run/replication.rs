//! Copies of broadcast and multicast frames, as they come out of the devices.

use overlay_common::{Direction, FLAG_MULTICAST, FLOOD_MAX};

use super::{
    bench::{Bench, Skb, on_bench},
    encapsulation::check_vxlan,
    packets::{BROADCAST, EXPERIMENTAL, Flow, GROUP, Vxlan, ipv4, ipv6, other, to_mac},
    world::{
        A, B, FAR, FAR_VTEP, IDLE_VTEP, PORT_A, PORT_B, ROUTER_MAC, UNDERLAY_MAC, VNI, World, flood,
    },
};

const TOS: u8 = 0xb9;

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

/// Each copy has its own destination and the matching checksum, also if FLOOD's row is full.
#[test]
fn every_vtep_gets_its_own_copy() {
    multicast(|bench, world| {
        let vteps: Vec<[u8; 4]> = (0..FLOOD_MAX as u8).map(|n| [10, 9, n, 0xff - n]).collect();
        for (vtep, hop) in vteps.iter().zip(100..) {
            let mut mac = ROUTER_MAC;
            mac[5] = vtep[2];
            world.node(*vtep, u64::from(hop), hop, mac);
        }
        world.flood.insert(VNI, flood(&vteps, &[PORT_A; FLOOD_MAX]));
        bench.fill(world);
        let wire = bench.tap_underlay();
        let frame = to_mac(ipv4(A, B, Flow { tos: TOS, ..Flow::default() }), GROUP);
        bench.run(Direction::FromEndpoint, &frame);
        let copies = wire.received();
        assert_eq!(copies.len(), vteps.len());
        for (copy, vtep) in copies.iter().zip(&vteps) {
            let mut mac = ROUTER_MAC;
            mac[5] = vtep[2];
            check_vxlan(copy, &frame, TOS, (mac, UNDERLAY_MAC), *vtep);
        }
    });
}

/// A copy that cannot be sent does not prevent the others.
#[test]
fn the_others_get_theirs_where_one_is_lost() {
    multicast(|bench, world| {
        let lost = [10, 9, 9, 9];
        world.flood.insert(VNI, flood(&[FAR_VTEP, lost, IDLE_VTEP], &[]));
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

/// Frames from A to groups, each with its type of service.
fn groups() -> Vec<(Vec<u8>, u8)> {
    let flow = Flow { tos: TOS, ..Flow::default() };
    vec![
        (to_mac(ipv4(A, B, flow), BROADCAST), TOS),
        (to_mac(ipv4(A, B, flow), GROUP), TOS),
        (to_mac(ipv6(A, B, flow), [0x33, 0x33, 0, 0, 0, 1]), TOS),
        (other(A.mac, BROADCAST, EXPERIMENTAL, &[0x5a; 46]), 0),
    ]
}

fn multicast(body: impl FnOnce(&mut Bench, &mut World)) {
    on_bench(|bench| {
        let mut world = World::default();
        // The endpoints route for others, because only such endpoints may send IPv6.
        world.flag(FLAG_MULTICAST | overlay_common::FLAG_FORWARDS);
        bench.fill(&world);
        body(bench, &mut world);
    });
}
