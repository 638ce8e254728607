//! What a monitor is told of a drop: field by field. That there is one event for each drop, and none
//! where nobody listens, every case checks.

use std::time::Instant;

use overlay_common::{
    CONFIG_MONITOR, Direction, DropEvent, DropReason, EVENTS_BYTES, IP16_NONE, ip16_from_v4,
};

use super::{
    bench::{Bench, Skb, on_bench},
    outward::{Outward, asks},
    packets::{
        Ask, EXPERIMENTAL, Flow, PAYLOAD, Vxlan, arp, cut, far_to_a, ipv4, ipv6, other, tagged,
        vxlan,
    },
    world::{
        A, A_OUT, B, B_OUT, FAR, FAR_VTEP, OWN_VTEP, PORT_A, STRANGE_VTEP, STRANGER, UNDERLAY, VNI,
        World,
    },
};

/// What the packet's own bytes make of an event.
fn plain(reason: DropReason, direction: Direction, packet: &[u8]) -> DropEvent {
    DropEvent {
        time_ns: 0,
        reason: reason as u32,
        direction: direction as u32,
        vni: VNI,
        ifindex: Skb::usual(direction).ifindex,
        len: packet.len() as u32,
        ethertype: 0x0800,
        pad: 0,
        src_ip: IP16_NONE,
        dst_ip: IP16_NONE,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        pad2: [0; 4],
    }
}

#[test]
fn an_endpoints_drop_is_told_with_the_packets_addresses() {
    listening(|bench| {
        let direction = Direction::FromEndpoint;
        let event = |reason, packet: &[u8]| DropEvent {
            ifindex: PORT_A,
            src_mac: A.mac,
            dst_mac: STRANGER.mac,
            ..plain(reason, direction, packet)
        };

        let packet = ipv4(A, STRANGER, Flow::default());
        let told = DropEvent {
            src_ip: ip16_from_v4(A.ip),
            dst_ip: ip16_from_v4(STRANGER.ip),
            ..event(DropReason::UnknownDestination, &packet)
        };
        check(bench, direction, &packet, told);

        let packet = ipv6(A, STRANGER, Flow::default());
        let told =
            DropEvent { ethertype: 0x86dd, ..event(DropReason::UnknownDestination, &packet) };
        check(bench, direction, &packet, told);

        let packet = other(A.mac, STRANGER.mac, EXPERIMENTAL, PAYLOAD);
        let ethertype = EXPERIMENTAL;
        let told = DropEvent { ethertype, ..event(DropReason::UnknownDestination, &packet) };
        check(bench, direction, &packet, told);

        let packet = tagged(&ipv4(A, STRANGER, Flow::default()), 0x8100);
        let told =
            DropEvent { ethertype: 0x8100, ..event(DropReason::UnknownDestination, &packet) };
        check(bench, direction, &packet, told);
    });
}

#[test]
fn an_arp_drop_is_told_with_who_asks_and_for_whom() {
    listening(|bench| {
        let direction = Direction::FromEndpoint;
        let packet = arp(Ask { to: B.mac, target: STRANGER, ..Ask::default() });
        let told = DropEvent {
            ethertype: 0x0806,
            src_mac: A.mac,
            dst_mac: B.mac,
            src_ip: ip16_from_v4(A.ip),
            dst_ip: ip16_from_v4(STRANGER.ip),
            ..plain(DropReason::ArpUnknownTarget, direction, &packet)
        };
        check(bench, direction, &packet, told);
    });
}

#[test]
fn a_gateway_legs_drop_is_told_without_a_network() {
    listening(|bench| {
        let direction = Direction::FromGateway;
        let event = |reason, packet: &[u8]| DropEvent {
            vni: 0,
            src_mac: A_OUT.mac,
            dst_mac: B_OUT.mac,
            src_ip: ip16_from_v4(A_OUT.ip),
            dst_ip: ip16_from_v4(B_OUT.ip),
            ..plain(reason, direction, packet)
        };

        let packet = Outward { to_mac: B_OUT.mac, to: B_OUT.ip, ..Outward::default() }.frame();
        check(bench, direction, &packet, event(DropReason::GatewayNeighbour, &packet));

        let packet = arp(Ask { to: B_OUT.mac, target: B_OUT, ..asks() });
        let told = DropEvent { ethertype: 0x0806, ..event(DropReason::GatewayNeighbour, &packet) };
        check(bench, direction, &packet, told);

        let packet = ipv6(A_OUT, B_OUT, Flow::default());
        let told = DropEvent {
            ethertype: 0x86dd,
            src_ip: IP16_NONE,
            dst_ip: IP16_NONE,
            ..event(DropReason::GatewayProtocol, &packet)
        };
        check(bench, direction, &packet, told);
    });
}

#[test]
fn an_underlay_drop_is_told_with_the_vteps_and_the_inner_macs() {
    listening(|bench| {
        let direction = Direction::FromUnderlay;
        let event = |reason, packet: &[u8]| DropEvent {
            ifindex: UNDERLAY,
            src_ip: ip16_from_v4(FAR_VTEP),
            dst_ip: ip16_from_v4(OWN_VTEP),
            src_mac: FAR.mac,
            dst_mac: A.mac,
            ..plain(reason, direction, packet)
        };

        let packet = Vxlan { from: STRANGE_VTEP, ..Vxlan::default() }.around(&far_to_a());
        let told = DropEvent {
            src_ip: ip16_from_v4(STRANGE_VTEP),
            ..event(DropReason::UnknownVtep, &packet)
        };
        check(bench, direction, &packet, told);

        let packet = Vxlan { vni: 77, ..Vxlan::default() }.around(&far_to_a());
        let told = DropEvent { vni: 77, ..event(DropReason::UnknownVni, &packet) };
        check(bench, direction, &packet, told);

        // The flag says that there is no VNI to tell.
        let packet = Vxlan { flags: 0, ..Vxlan::default() }.around(&far_to_a());
        let told = DropEvent { vni: 0, ..event(DropReason::VxlanFlags, &packet) };
        check(bench, direction, &packet, told);

        // Cut before the inner frame: what there is, is told.
        let packet = cut(vxlan(&far_to_a()), 55);
        let told = DropEvent {
            vni: 0,
            ethertype: 0,
            src_mac: [0; 6],
            dst_mac: [0; 6],
            ..event(DropReason::Malformed, &packet)
        };
        check(bench, direction, &packet, told);
    });
}

/// A ring that nobody reads loses events, and no count.
#[test]
fn a_full_ring_loses_no_count() {
    listening(|bench| {
        let packet = ipv4(A, STRANGER, Flow::default());
        // An event's record is its own size and a header of eight bytes.
        let fits = EVENTS_BYTES as usize / (size_of::<DropEvent>() + 8);
        let drops = fits + 10;
        let counted = bench.repeat(Direction::FromEndpoint, &packet, drops as u32);
        let at = (DropReason::UnknownDestination as u32, Direction::FromEndpoint);
        assert_eq!(counted.counts.get(&at).map(|counter| counter.packets), Some(drops as u64));
        assert!(counted.events.len() <= fits, "{} events fit {fits}", counted.events.len());
        assert!(counted.events.len() >= fits - 1, "{} events of {fits}", counted.events.len());
    });
}

fn listening(body: impl FnOnce(&mut Bench)) {
    on_bench(|bench| {
        let mut world = World::default();
        world.configure(CONFIG_MONITOR);
        bench.fill(&world);
        body(bench);
    });
}

/// Drops the packet twice: what differs is the time, by no more than passed meanwhile.
fn check(bench: &mut Bench, direction: Direction, packet: &[u8], expected: DropEvent) {
    let begun = Instant::now();
    let mut times = Vec::new();
    for _ in 0..2 {
        let events = bench.run(direction, packet).events;
        let [event] = events[..] else { panic!("one event, not {events:?}") };
        assert_eq!(event, DropEvent { time_ns: event.time_ns, ..expected });
        times.push(event.time_ns);
    }
    let between = u128::from(times[1].checked_sub(times[0]).expect("time goes on"));
    assert!((1..=begun.elapsed().as_nanos()).contains(&between), "{times:?}");
}
