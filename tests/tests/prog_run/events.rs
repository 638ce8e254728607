//! Each field of the event that a monitor gets of a packet. Every case checks that each drop makes one event,
//! and none if there is no listener.

use std::time::Instant;

use overlay_common::{
    CONFIG_MONITOR, Direction, DropReason, EVENTS_BYTES, Event, FLAG_MULTICAST, IP16_NONE, Ip16,
    ip16_from_v4,
};

use super::{
    bench::{Bench, Skb, Verdict, on_bench},
    outward::{Outward, asks},
    packets::{
        Ask, BROADCAST, EXPERIMENTAL, Flow, PAYLOAD, Vxlan, a_to_b, a_to_far, arp, cut, far_to_a,
        ipv4, ipv6, long_ipv4, other, tagged, to_mac, vxlan, who_has,
    },
    world::{
        A, A_OUT, B, B_OUT, FAR, FAR_VTEP, GATEWAY, OUTSIDE, PORT_A, STRANGE_VTEP, STRANGER,
        Station, UNDERLAY, VNI, World,
    },
};

/// The event for a dropped packet of IPv4 and UDP, as `packets` makes them.
fn plain(reason: DropReason, direction: Direction, packet: &[u8]) -> Event {
    Event {
        time_ns: 0,
        reason: reason as u32,
        direction: direction as u32,
        vni: VNI,
        ifindex: Skb::usual(direction).ifindex,
        len: packet.len() as u32,
        sample: 1,
        src_ip: IP16_NONE,
        dst_ip: IP16_NONE,
        vtep: IP16_NONE,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        ethertype: 0x0800,
        src_port: 40_000,
        dst_port: 5001,
        protocol: 17,
        vlan: 0,
        pad: [0; 3],
    }
}

/// The event without the fields that are read from an IP packet.
fn without_ip(event: Event, ethertype: u16) -> Event {
    Event { ethertype, src_port: 0, dst_port: 0, protocol: 0, ..event }
}

/// The event for a forwarded packet.
fn flow(direction: Direction, packet: &[u8], from: Station, to: Station) -> Event {
    Event {
        reason: 0,
        src_ip: ip16_from_v4(from.ip),
        dst_ip: ip16_from_v4(to.ip),
        src_mac: from.mac,
        dst_mac: to.mac,
        ..plain(DropReason::Malformed, direction, packet)
    }
}

/// The station's address in [`ipv6`].
fn address6(station: Station) -> Ip16 {
    let [a, b, c, d] = station.ip;
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

#[test]
fn an_endpoints_drop_is_told_with_the_packets_addresses() {
    listening(|bench| {
        let direction = Direction::FromEndpoint;
        let event = |reason, packet: &[u8]| Event {
            ifindex: PORT_A,
            src_mac: A.mac,
            dst_mac: STRANGER.mac,
            ..plain(reason, direction, packet)
        };

        let packet = ipv4(A, STRANGER, Flow::default());
        let told = Event {
            src_ip: ip16_from_v4(A.ip),
            dst_ip: ip16_from_v4(STRANGER.ip),
            ..event(DropReason::UnknownDestination, &packet)
        };
        check(bench, direction, &packet, told);

        let packet = ipv6(A, STRANGER, Flow::default());
        let told = Event {
            ethertype: 0x86dd,
            src_ip: address6(A),
            dst_ip: address6(STRANGER),
            ..event(DropReason::UnknownDestination, &packet)
        };
        check(bench, direction, &packet, told);

        let packet = other(A.mac, STRANGER.mac, EXPERIMENTAL, PAYLOAD);
        let told = without_ip(event(DropReason::UnknownDestination, &packet), EXPERIMENTAL);
        check(bench, direction, &packet, told);

        let packet = tagged(&ipv4(A, STRANGER, Flow::default()), 0x8100);
        let told = Event {
            vlan: 7,
            src_ip: ip16_from_v4(A.ip),
            dst_ip: ip16_from_v4(STRANGER.ip),
            ..event(DropReason::UnknownDestination, &packet)
        };
        check(bench, direction, &packet, told);
    });
}

#[test]
fn an_arp_drop_is_told_with_who_asks_and_for_whom() {
    listening(|bench| {
        let direction = Direction::FromEndpoint;
        let packet = arp(Ask { to: B.mac, target: STRANGER, ..Ask::default() });
        let told = Event {
            src_mac: A.mac,
            dst_mac: B.mac,
            src_ip: ip16_from_v4(A.ip),
            dst_ip: ip16_from_v4(STRANGER.ip),
            ..without_ip(plain(DropReason::ArpUnknownTarget, direction, &packet), 0x0806)
        };
        check(bench, direction, &packet, told);
    });
}

#[test]
fn a_gateway_legs_drop_is_told_without_a_network() {
    listening(|bench| {
        let direction = Direction::FromGateway;
        let event = |reason, packet: &[u8]| Event {
            vni: 0,
            src_mac: A_OUT.mac,
            dst_mac: B_OUT.mac,
            src_ip: ip16_from_v4(A_OUT.ip),
            dst_ip: ip16_from_v4(B_OUT.ip),
            ..plain(reason, direction, packet)
        };

        let packet = Outward { to_mac: B_OUT.mac, to: B_OUT.ip, ..Outward::default() }.frame();
        let told = Event { dst_port: 53, ..event(DropReason::GatewayNeighbour, &packet) };
        check(bench, direction, &packet, told);

        let packet = arp(Ask { to: B_OUT.mac, target: B_OUT, ..asks() });
        let told = without_ip(event(DropReason::GatewayNeighbour, &packet), 0x0806);
        check(bench, direction, &packet, told);

        let packet = ipv6(A_OUT, B_OUT, Flow::default());
        let told = Event {
            ethertype: 0x86dd,
            src_ip: address6(A_OUT),
            dst_ip: address6(B_OUT),
            ..event(DropReason::GatewayProtocol, &packet)
        };
        check(bench, direction, &packet, told);
    });
}

#[test]
fn an_underlay_drop_is_told_with_the_vtep_and_the_frame_inside() {
    listening(|bench| {
        let direction = Direction::FromUnderlay;
        let event = |reason, packet: &[u8]| Event {
            ifindex: UNDERLAY,
            src_ip: ip16_from_v4(FAR.ip),
            dst_ip: ip16_from_v4(A.ip),
            vtep: ip16_from_v4(FAR_VTEP),
            src_mac: FAR.mac,
            dst_mac: A.mac,
            ..plain(reason, direction, packet)
        };

        let packet = Vxlan { from: STRANGE_VTEP, ..Vxlan::default() }.around(&far_to_a());
        let told =
            Event { vtep: ip16_from_v4(STRANGE_VTEP), ..event(DropReason::UnknownVtep, &packet) };
        check(bench, direction, &packet, told);

        let packet = Vxlan { vni: 77, ..Vxlan::default() }.around(&far_to_a());
        let told = Event { vni: 77, ..event(DropReason::UnknownVni, &packet) };
        check(bench, direction, &packet, told);

        // The flag says that the packet has no VNI, so the event has none either.
        let packet = Vxlan { flags: 0, ..Vxlan::default() }.around(&far_to_a());
        let told = Event { vni: 0, ..event(DropReason::VxlanFlags, &packet) };
        check(bench, direction, &packet, told);

        // The packet is cut before the inner frame. The event has everything that is there.
        let packet = cut(vxlan(&far_to_a()), 55);
        let nothing = |event| Event {
            vni: 0,
            src_mac: [0; 6],
            dst_mac: [0; 6],
            src_ip: IP16_NONE,
            dst_ip: IP16_NONE,
            ..without_ip(event, 0)
        };
        check(bench, direction, &packet, nothing(event(DropReason::Malformed, &packet)));

        // With options, the place of the inner frame is not known.
        let packet = Vxlan { options: vec![1; 4], ..Vxlan::default() }.around(&far_to_a());
        check(bench, direction, &packet, nothing(event(DropReason::OuterOptions, &packet)));
    });
}

#[test]
fn a_forwarded_packet_is_told_as_the_endpoints_know_it() {
    sampling(1, |bench| {
        let far = ip16_from_v4(FAR_VTEP);
        let direction = Direction::FromEndpoint;
        let packet = a_to_b();
        check(bench, direction, &packet, flow(direction, &packet, A, B));
        let packet = a_to_far();
        let told = Event { vtep: far, ..flow(direction, &packet, A, FAR) };
        check(bench, direction, &packet, told);
        let packet = other(A.mac, FAR.mac, EXPERIMENTAL, PAYLOAD);
        let told = Event {
            vtep: far,
            src_ip: IP16_NONE,
            dst_ip: IP16_NONE,
            ..without_ip(flow(direction, &packet, A, FAR), EXPERIMENTAL)
        };
        check(bench, direction, &packet, told);

        // The outer headers have been removed by then.
        let direction = Direction::FromUnderlay;
        let packet = vxlan(&far_to_a());
        check(bench, direction, &packet, flow(direction, &packet, FAR, A));

        let direction = Direction::FromGateway;
        let packet = Outward::default().frame();
        let outside = Station { mac: GATEWAY.mac, ip: OUTSIDE };
        let told = Event { vni: 0, dst_port: 53, ..flow(direction, &packet, A_OUT, outside) };
        check(bench, direction, &packet, told);

        // The request is answered here, so nothing was forwarded.
        let answered = bench.run(Direction::FromEndpoint, &who_has(FAR.ip));
        assert_eq!((answered.verdict, answered.events), (Verdict::Redirect, Vec::new()));
    });
}

/// When the event is made, the packet's bytes are already those of the answer to its sender.
#[test]
fn a_packet_that_was_too_big_is_told_as_it_was() {
    listening(|bench| {
        let direction = Direction::FromEndpoint;
        let packet = long_ipv4(a_to_far(), 1465);
        let told = flow(direction, &packet, A, FAR);
        let told = Event { reason: DropReason::TooBig as u32, ..told };
        check(bench, direction, &packet, told);

        let mut packet = ipv6(A, FAR, Flow::default());
        packet.resize(1465, 0);
        let told = Event { ethertype: 0x86dd, src_ip: address6(A), dst_ip: address6(FAR), ..told };
        check(bench, direction, &packet, told);
    });
}

#[test]
fn a_replicated_packet_is_told_once() {
    on_bench(|bench| {
        let mut world = World::default();
        world.flag(FLAG_MULTICAST);
        world.sample(1);
        bench.fill(&world);
        let direction = Direction::FromEndpoint;
        let packet = to_mac(a_to_b(), BROADCAST);
        let events = bench.run(direction, &packet).events;
        let [event] = events[..] else { panic!("one event, not {events:?}") };
        assert_eq!((event.reason, event.src_mac, event.dst_mac), (0, A.mac, BROADCAST));
        assert_eq!((event.src_port, event.dst_ip), (40_000, ip16_from_v4(B.ip)));
    });
}

/// A random one in ten of 20,000 packets makes 2,000 events, with a deviation of 42. Ten times this deviation
/// never occurs.
#[test]
fn forwarded_packets_are_sampled_and_drops_are_not() {
    const PACKETS: u32 = 1000;
    sampling(10, |bench| {
        let mut heard = 0;
        for _ in 0..20 {
            let ran = bench.repeat(Direction::FromEndpoint, &a_to_b(), PACKETS);
            assert!(ran.events.iter().all(|event| (event.reason, event.sample) == (0, 10)));
            heard += ran.events.len();
        }
        assert!((1580..=2420).contains(&heard), "{heard} of 20,000");
        let packet = ipv4(A, STRANGER, Flow::default());
        let ran = bench.repeat(Direction::FromEndpoint, &packet, PACKETS);
        assert_eq!(ran.events.len(), PACKETS as usize);
    });
}

/// A listener to drops alone gets no event of a forwarded packet.
#[test]
fn without_a_sample_nothing_is_told_of_what_was_forwarded() {
    sampling(0, |bench| assert_eq!(bench.run(Direction::FromEndpoint, &a_to_b()).events, []));
    listening(|bench| assert_eq!(bench.run(Direction::FromEndpoint, &a_to_b()).events, []));
}

/// If nobody reads the ring, events are lost, but no count.
#[test]
fn a_full_ring_loses_no_count() {
    listening(|bench| {
        let packet = ipv4(A, STRANGER, Flow::default());
        // An event's record in the ring has its own size and a header of eight bytes.
        let fits = EVENTS_BYTES as usize / (size_of::<Event>() + 8);
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

fn sampling(sample: u32, body: impl FnOnce(&mut Bench)) {
    on_bench(|bench| {
        let mut world = World::default();
        world.sample(sample);
        bench.fill(&world);
        body(bench);
    });
}

/// Runs the packet twice. The two events differ only in their time, by no more than the time that passed.
fn check(bench: &mut Bench, direction: Direction, packet: &[u8], expected: Event) {
    let begun = Instant::now();
    let mut times = Vec::new();
    for _ in 0..2 {
        let events = bench.run(direction, packet).events;
        let [event] = events[..] else { panic!("one event, not {events:?}") };
        assert_eq!(event, Event { time_ns: event.time_ns, ..expected });
        times.push(event.time_ns);
    }
    let between = u128::from(times[1].checked_sub(times[0]).expect("time goes on"));
    assert!((1..=begun.elapsed().as_nanos()).contains(&between), "{times:?}");
}
