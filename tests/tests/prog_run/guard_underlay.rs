//! Every decision of the program that sees a packet before the kernel makes an skb.

use aya::{TestRun as _, TestRunOptions};
use etherparse::IpNumber;
use overlay_common::{
    CONFIG_MONITOR, CONFIG_SHARED, Counter, Direction,
    DropReason::{self, *},
    IP16_NONE, ip16_from_v4,
};

use super::{
    bench::{Bench, Counts, GUARDS, on_bench},
    packets::{Vxlan, a_to_b, cut, far_to_a, tagged, vxlan},
    world::{IDLE_VTEP, OWN_VTEP, STRANGE_VTEP, VNI, World, api_key, node_key},
};

// Return values of XDP programs (linux/bpf.h).
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// The reason for which the packet is dropped, or `None` if the stack gets it.
type Expected = Option<DropReason>;

struct Case {
    name: &'static str,
    arrange: fn(&mut World),
    packet: Vec<u8>,
    expected: Expected,
}

const AS_USUAL: fn(&mut World) = |_| {};

#[test]
fn every_decision() {
    on_bench(|bench| {
        for guard in GUARDS {
            bench.guard(guard).load().expect("the verifier takes the program");
            for case in cases() {
                check(bench, guard, &case);
            }
        }
    });
}

/// Makes the packet, fills the maps, and checks the result: first without a listener, then with one.
fn check(bench: &mut Bench, guard: &str, Case { name, arrange, packet, expected }: &Case) {
    let mut world = World::default();
    arrange(&mut world);
    bench.fill(&world);
    check_run(bench, (guard, name), packet, *expected);
    assert_eq!(bench.events(), [], "{name}: nobody listens");

    world.configure(CONFIG_MONITOR);
    bench.fill(&world);
    check_run(bench, (guard, name), packet, *expected);
    let events = bench.events();
    let Some(reason) = expected else { return assert_eq!(events, [], "{name}: no drop") };
    let [event] = events[..] else { panic!("{name}: {events:?}") };
    assert_eq!(event.reason, *reason as u32, "{name}");
    assert_eq!(event.direction, Direction::GuardUnderlay as u32, "{name}");
    assert_eq!(event.len as usize, packet.len(), "{name}");
    // The event names the outer sender alone, because a stranger can write anything into the inner frame.
    let from: [u8; 4] = packet[26..30].try_into().expect("four bytes");
    assert_eq!((event.vtep, event.src_ip), (ip16_from_v4(from), IP16_NONE), "{name}");
}

fn check_run(bench: &mut Bench, (guard, name): (&str, &str), packet: &[u8], expected: Expected) {
    let mut out = vec![0; packet.len()];
    let options =
        TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
    let ran = bench.guard(guard).test_run(options);
    let ran = ran.unwrap_or_else(|error| panic!("{name} is not run: {error:?}"));
    let verdict = if expected.is_some() { XDP_DROP } else { XDP_PASS };
    assert_eq!(ran.return_value, verdict, "{name}: verdict");
    assert_eq!(out, packet, "{name}: the packet is untouched");
    let counted = Counter { packets: 1, bytes: packet.len() as u64 };
    let counts: Counts = expected
        .map(|reason| ((reason as u32, Direction::GuardUnderlay), counted))
        .into_iter()
        .collect();
    assert_eq!(bench.counts(), counts, "{name}: counts");
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let case = |name, arrange, packet, expected| Case { name, arrange, packet, expected };
    let strange = || Vxlan { from: STRANGE_VTEP, ..Vxlan::default() };
    let around = |vxlan: Vxlan| vxlan.around(&far_to_a());
    let forged = around(strange());
    vec![
        case("from a node", AS_USUAL, vxlan(&far_to_a()), None),
        case("from a node, for a network not held", AS_USUAL, around(Vxlan { vni: VNI + 1, ..Vxlan::default() }), None),
        case("from a node with no endpoint here", AS_USUAL, around(Vxlan { from: IDLE_VTEP, ..Vxlan::default() }), None),
        case("from no node", AS_USUAL, forged.clone(), Some(UnknownVtep)),
        case("from no address", AS_USUAL, around(Vxlan { from: [0; 4], ..strange() }), Some(UnknownVtep)),
        case("from one that was a node", |w| { w.nodes.remove(&node_key(IDLE_VTEP)); }, around(Vxlan { from: IDLE_VTEP, ..strange() }), Some(UnknownVtep)),
        case("from who has an API and is no VTEP", |w| { w.apis.insert(api_key(STRANGE_VTEP), 9); }, forged.clone(), Some(UnknownVtep)),
        case("from no node, no VNI flag", AS_USUAL, around(Vxlan { flags: 0, ..strange() }), Some(UnknownVtep)),
        case("from no node, and no VXLAN header", AS_USUAL, cut(forged.clone(), 14 + 20 + 8), Some(UnknownVtep)),
        case("from this node", AS_USUAL, around(Vxlan { from: OWN_VTEP, ..strange() }), Some(OwnVtep)),
        case("from this node, as it is in NODES", |w| { let node = w.nodes[&node_key(IDLE_VTEP)]; w.nodes.insert(node_key(OWN_VTEP), node); }, around(Vxlan { from: OWN_VTEP, ..strange() }), Some(OwnVtep)),
        case("a first fragment, from no node", AS_USUAL, around(Vxlan { more_fragments: true, ..strange() }), Some(OuterFragment)),
        case("a first fragment, from a node", AS_USUAL, around(Vxlan { more_fragments: true, ..Vxlan::default() }), Some(OuterFragment)),
        case("another port, configured", |w| w.config.as_mut().expect("some").vxlan_port = 8472, around(Vxlan { port: 8472, ..strange() }), Some(UnknownVtep)),
        // Packets that are left to the next program.
        case("from no node, and another program has the port", |w| w.configure(CONFIG_SHARED), forged.clone(), None),
        case("a first fragment, and another program has the port", |w| w.configure(CONFIG_SHARED), around(Vxlan { more_fragments: true, ..strange() }), None),
        case("a later fragment", AS_USUAL, around(Vxlan { fragment_offset: 185, ..strange() }), None),
        case("options", AS_USUAL, around(Vxlan { options: vec![1; 4], ..strange() }), None),
        case("a tag around it", AS_USUAL, tagged(&forged, 0x8100), None),
        // Packets that are not VXLAN for this node.
        case("before the node is configured", |w| w.config = None, forged.clone(), None),
        case("another address", AS_USUAL, around(Vxlan { to: IDLE_VTEP, ..strange() }), None),
        case("another port", AS_USUAL, around(Vxlan { port: 8472, ..strange() }), None),
        case("TCP", AS_USUAL, around(Vxlan { protocol: IpNumber::TCP, ..strange() }), None),
        case("not encapsulated", AS_USUAL, a_to_b(), None),
        case("cut before the ports", AS_USUAL, cut(forged.clone(), 14 + 20 + 7), None),
        case("cut in the IPv4 header", AS_USUAL, cut(forged.clone(), 14 + 19), None),
        case("an Ethernet header alone", AS_USUAL, cut(forged, 14), None),
    ]
}
