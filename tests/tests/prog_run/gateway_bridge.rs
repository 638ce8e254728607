//! `from_gateway` on the legs of a real bridge. The host forwards everything: the bridge's ports are not
//! isolated, the neighbours are known, source routes are accepted, and there is no firewall. So a frame that
//! does not reach a neighbour was stopped by the program alone.

use std::{env, fs, net::UdpSocket, panic::Location, process::Command};

use overlay_common::{Direction, DropReason, MacBytes};
use overlay_lab::{Requirement, missing, skip};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::{
    against_model::{MARK, from_gateway},
    bench::{Bench, Skb, on_bench},
    devices::ip_batch,
    model::{self, End, Incoming, Memory},
    outward::{Outward, answers, asks, gateways_answer, udp},
    packets::{Ask, BROADCAST, EXPERIMENTAL, arp, cut, other, tagged, to_mac},
    world::{
        A_OUT, B_OUT, BRIDGE, GATEWAY, GATEWAY_PREFIX, OWN_VTEP, ROUTER_MAC, UNDERLAY_MAC, World,
    },
};

/// The two ways in which a frame that passed reaches the gateway: through the leg's port of the bridge, or
/// past the port.
const WAYS: [fn(&mut World); 2] = [|_| {}, World::put_into_bridge];

#[test]
fn without_the_program_neighbours_hear_each_other() {
    on_bench(|bench| {
        build_bridge();
        let (a, b) = (bench.tap_leg_a(), bench.tap_leg_b());
        let by_gateway = Outward { to: B_OUT.ip, ..Outward::default() }.frame();
        for frame in [
            to_mac(by_gateway.clone(), B_OUT.mac),
            to_mac(by_gateway.clone(), BROADCAST),
            arp(Ask { target: B_OUT, ..asks() }),
            other(A_OUT.mac, B_OUT.mac, EXPERIMENTAL, MARK),
        ] {
            a.send(&frame);
            assert_eq!(b.received(), [frame]);
        }
        a.send(&by_gateway);
        let heard = b.received();
        let [routed] = &heard[..] else { panic!("one frame, not {heard:02x?}") };
        assert_eq!((&routed[6..12], &routed[34..]), (&GATEWAY.mac[..], &by_gateway[34..]));
    });
}

#[test]
fn the_world_is_reached_through_the_gateway() {
    on_bridge(|bench| {
        let (a, wire) = (bench.tap_leg_a(), bench.tap_underlay());
        let frame = Outward::default().frame();
        a.send(&frame);
        let routed = wire.next();
        assert_eq!((&routed[..6], &routed[6..12]), (&ROUTER_MAC[..], &UNDERLAY_MAC[..]));
        assert_eq!(routed[26..], frame[26..], "addresses and payload");
    });
}

#[test]
fn arp_is_spoken_with_the_gateway_alone() {
    on_bridge(|bench| {
        let (a, b) = (bench.tap_leg_a(), bench.tap_leg_b());
        a.send(&arp(asks()));
        assert_eq!(a.next(), gateways_answer());
        assert_eq!(b.received(), Vec::<Vec<u8>>::new());

        // The node asks for the endpoint's MAC itself, and sends the waiting datagram after the answer.
        ip_batch(&format!("neigh del {} dev gwbr", dotted(A_OUT.ip)));
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(MARK, (dotted(A_OUT.ip), 9)).expect("a route");
        assert_eq!(a.next(), node_asks(A_OUT.ip));
        a.send(&arp(answers()));
        let datagram = a.next();
        assert_eq!((&datagram[..6], &datagram[6..12]), (&A_OUT.mac[..], &GATEWAY.mac[..]));
        assert_eq!(&datagram[42..], MARK);
    });
}

/// The kernel takes the outer tag out of the frame before TC sees the frame.
#[test]
fn a_tag_that_was_taken_out_is_seen() {
    on_bridge(|bench| {
        let a = bench.tap_leg_a();
        for tpid in [0x8100, 0x88a8] {
            a.send(&tagged(&Outward::default().frame(), tpid));
            a.send(&tagged(&arp(asks()), tpid));
            assert_eq!(counted(bench, DropReason::VlanUnsupported), 2);
        }
    });
}

#[test]
fn a_frame_shorter_than_its_header_is_malformed() {
    on_bridge(|bench| {
        let a = bench.tap_leg_a();
        for (frame, len) in [(Outward::default().frame(), 33), (arp(asks()), 41)] {
            for len in 14..=len {
                a.send(&cut(frame.clone(), len));
                assert_eq!(counted(bench, DropReason::Malformed), 1, "{len}");
            }
        }
    });
}

/// The host is like one with Docker or Kubernetes, where netfilter sees bridged frames. A frame that entered
/// the bridge by a port would then be bridged to the neighbour's port, because its destination was rewritten.
/// Ports are isolated from each other, so the frame would be lost.
#[test]
fn a_neighbours_published_port_is_reached_through_the_gateway() {
    if let Some(reason) = missing(&[Requirement::Root, Requirement::Tool("nft")]) {
        return skip(&reason, Location::caller()).expect("a line for the count");
    }
    on_bench(|bench| {
        build_bridge();
        settle_stations();
        for leg in ["leg_a", "leg_b"] {
            bridge(&["link", "set", "dev", leg, "isolated", "on"]);
        }
        bench.attach(Direction::FromGateway, "leg_a");
        for switch in ["0", "1"] {
            let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
            // A kernel without br_netfilter does not show bridged frames to netfilter.
            if fs::exists(path).expect("/proc is mounted") {
                fs::write(path, switch).expect("root sets it");
            }
            let mut world = World::default();
            world.put_into_bridge();
            bench.fill(&world);
            publish(B_OUT.ip, 8053);
            let (a, b) = (bench.tap_leg_a(), bench.tap_leg_b());
            a.send(&Outward { to: OWN_VTEP, payload: udp(8053), ..Outward::default() }.frame());
            let frame = b.next();
            assert_eq!(
                (&frame[..6], &frame[6..12]),
                (&B_OUT.mac[..], &GATEWAY.mac[..]),
                "{switch}"
            );
            assert_eq!((&frame[26..30], &frame[30..34]), (&GATEWAY.ip[..], &B_OUT.ip[..]));
            assert_eq!(&frame[36..38], 53u16.to_be_bytes());
        }
    });
}

/// Publishes port 53 of `ip` on the host's `port`, also for neighbours, and removes all other published
/// ports.
fn publish(ip: [u8; 4], port: u16) {
    let rules = format!(
        "table ip t\ndelete table ip t\ntable ip t {{\n\
         chain in {{\ntype nat hook prerouting priority dstnat\n\
         fib daddr type local udp dport {port} dnat to {}:53\n}}\n\
         chain out {{\ntype nat hook postrouting priority srcnat\n\
         ip saddr {subnet} ip daddr {subnet} masquerade\n}}\n}}\n",
        dotted(ip),
        subnet = format_args!("{}/{GATEWAY_PREFIX}", dotted(GATEWAY.ip)),
    );
    let nft = Command::new("nft").arg(&rules).status().expect("nft is on PATH");
    assert!(nft.success(), "nft failed at:\n{rules}");
}

#[test]
fn whatever_an_endpoint_sends_no_neighbour_receives_a_byte() {
    on_bridge(|bench| {
        let (a, b) = (bench.tap_leg_a(), bench.tap_leg_b());
        let bench = std::cell::RefCell::new(bench);
        let seen = std::cell::Cell::new((0u32, 0u32));
        let mut runner = TestRunner::new(config());
        let ran = runner.run(&from_gateway(), |frame| {
            // A sender cannot send shorter or longer frames.
            if !(14..=1514).contains(&frame.len()) {
                return Ok(());
            }
            a.send(&frame);
            let heard: Vec<_> =
                b.received().into_iter().filter(|frame| !is_nodes_own(frame)).collect();
            if !heard.is_empty() {
                return Err(TestCaseError::fail(format!("B heard {heard:02x?}")));
            }
            // A frame is counted as forwarded if and only if it may pass. All others were dropped, by the
            // program, or before it if the kernel could not read a tag.
            let mut counts = bench.borrow_mut().counts();
            let forwarded = counts.remove(&(0, Direction::FromGateway)).is_some();
            let direction = Direction::FromGateway;
            let skb = Skb::usual(direction);
            let incoming =
                Incoming { bytes: &frame, skb, tag_beside: true, unfinished: None, bulk: None };
            let world = World::default();
            let fate = model::decide(direction, &world, &mut Memory::default(), incoming);
            if forwarded == matches!(fate.end, End::Dropped(_)) {
                let text = format!("forwarded: {forwarded}, but {fate:?}; {counts:?}");
                return Err(TestCaseError::fail(text));
            }
            let (passed, stopped) = seen.get();
            seen.set(if forwarded { (passed + 1, stopped) } else { (passed, stopped + 1) });
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{error}"));
        let (passed, stopped) = seen.get();
        println!("{passed} frames passed, {stopped} did not");
        let ran = passed + stopped;
        // In a short run all frames may have the same end.
        assert!(ran < 500 || passed * 20 > ran && stopped * 20 > ran);
    });
}

/// The number of cases is the one of PROPTEST_CASES, if it is set.
fn config() -> Config {
    let config = match env::var_os("PROPTEST_CASES") {
        Some(_) => Config::default(),
        None => Config::with_cases(2000),
    };
    Config { failure_persistence: None, ..config }
}

/// Runs a test with the bridge, and with the program on both legs, in each of [`WAYS`].
fn on_bridge(body: impl Fn(&mut Bench)) {
    for way in WAYS {
        on_bench(|bench| {
            build_bridge();
            bench.attach(Direction::FromGateway, "leg_a");
            bench.attach(Direction::FromGateway, "leg_b");
            let mut world = World::default();
            way(&mut world);
            bench.fill(&world);
            if world.gateway_ports.values().all(|leg| leg.bridge == BRIDGE) {
                settle_stations();
            }
            body(bench);
        });
    }
}

/// Makes static entries for the stations, as the node does, because the bridge learns nothing from frames
/// that do not enter by a port.
fn settle_stations() {
    for (leg, who) in [("leg_a", A_OUT), ("leg_b", B_OUT)] {
        bridge(&["fdb", "replace", &colons(who.mac), "dev", leg, "master", "static"]);
    }
}

/// Runs the program `bridge`, which is part of the same package as `ip`.
fn bridge(args: &[&str]) {
    let bridge = Command::new("bridge").args(args).status().expect("bridge is on PATH");
    assert!(bridge.success(), "bridge failed at {args:?}");
}

fn build_bridge() {
    let gateway = dotted(GATEWAY.ip);
    let mut script = format!(
        "link add gwbr index {BRIDGE} address {} type bridge mcast_snooping 0\n\
         addr add {gateway}/{GATEWAY_PREFIX} brd + dev gwbr\n\
         link set gwbr up\n\
         addr add 10.10.10.101/24 brd + dev underlay\n\
         neigh add 10.10.10.1 lladdr {} dev underlay nud permanent\n\
         route add default via 10.10.10.1\n",
        colons(GATEWAY.mac),
        colons(ROUTER_MAC),
    );
    for (leg, who) in [("leg_a", A_OUT), ("leg_b", B_OUT)] {
        let (ip, mac) = (dotted(who.ip), colons(who.mac));
        script += &format!(
            "link set {leg} master gwbr\n\
             neigh add {ip} lladdr {mac} dev gwbr nud permanent\n"
        );
    }
    ip_batch(&script);
    for (key, value) in [
        ("ip_forward", "1"),
        ("conf/all/rp_filter", "0"),
        ("conf/gwbr/rp_filter", "0"),
        ("conf/all/accept_source_route", "1"),
        ("conf/gwbr/accept_source_route", "1"),
        ("conf/all/accept_redirects", "1"),
        ("conf/gwbr/accept_redirects", "1"),
        ("conf/all/bc_forwarding", "1"),
        ("conf/gwbr/bc_forwarding", "1"),
        ("conf/gwbr/route_localnet", "1"),
        ("icmp_echo_ignore_broadcasts", "0"),
    ] {
        fs::write(format!("/proc/sys/net/ipv4/{key}"), value).expect("root sets it");
    }
}

/// The number of frames that were dropped on a leg for this reason since the last call. Fails if any frame
/// was counted otherwise.
fn counted(bench: &mut Bench, reason: DropReason) -> u64 {
    let counts = bench.counts();
    assert!(counts.keys().all(|at| *at == (reason as u32, Direction::FromGateway)), "{counts:?}");
    counts.values().map(|counter| counter.packets).sum()
}

/// Returns true for the node's own ARP request, which contains no byte of an endpoint's frame.
fn is_nodes_own(frame: &[u8]) -> bool {
    frame.len() >= 42 && frame == node_asks(frame[38..42].try_into().expect("four"))
}

fn node_asks(ip: [u8; 4]) -> Vec<u8> {
    let target = super::world::Station { mac: [0; 6], ip };
    arp(Ask { from: GATEWAY.mac, to: BROADCAST, operation: 1, sender: GATEWAY, target })
}

fn dotted(ip: [u8; 4]) -> String {
    ip.map(|byte| byte.to_string()).join(".")
}

fn colons(mac: MacBytes) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
