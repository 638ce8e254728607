//! Packets that nobody would send: whatever comes, it ends in one count, and what is let through is
//! what may pass, by a reading of the packet that is not the programs' own.
//!
//! PROPTEST_CASES says how many packets each program gets.

use std::env;

use etherparse::{EtherType, Ethernet2Header, Ipv4Header, UdpHeader};
use overlay_common::{
    Direction, FLAG_FORWARDS, FLAG_MULTICAST, FdbKey, IP16_NONE, Ip16, VXLAN_PORT, ip16_from_v4,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::{
    bench::{Bench, Outcome, Skb, Verdict, on_bench},
    may_pass::{Fate, fate, frames},
    packets::{
        Ask, BROADCAST, EXPERIMENTAL, Flow, GROUP, PAYLOAD, Vxlan, a_to_b, a_to_far, arp, far_to_a,
        ipv4, ipv6, other, tagged, to_mac, vxlan, who_has,
    },
    world::{A, A_OUT, B, FAR, GATEWAY, IDLE_VTEP, OWN_VTEP, PORT_A, STRANGER, VNI, World, flood},
};

/// Packets a program, unless PROPTEST_CASES says otherwise.
const CASES: u32 = 2000;

/// One way to spoil a packet.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    /// A byte of the headers becomes another. Mostly there: far into the payload nobody looks.
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    /// One part over another: a field gets a value that is known elsewhere.
    Copy(Index, Index, usize),
}

impl Mutation {
    pub(crate) fn apply(&self, packet: &mut Vec<u8>) {
        let headers = packet.len().min(100);
        match self {
            Self::Set(at, byte) => packet[at.index(headers)] = *byte,
            Self::Flip(at, bit) => packet[at.index(headers)] ^= 1 << bit,
            Self::Cut(at) => packet.truncate(at.index(packet.len()) + 1),
            Self::Insert(at, bytes) => {
                let at = at.index(packet.len());
                packet.splice(at..at, bytes.iter().copied());
            }
            Self::Copy(from, to, len) => {
                let (from, to) = (from.index(headers), to.index(headers));
                let len = (*len).min(packet.len() - from).min(packet.len() - to);
                packet.copy_within(from..from + len, to);
            }
        }
    }
}

/// A few, or none.
pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let index = any::<Index>;
    let mutation = prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        4 => (index(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => index().prop_map(Mutation::Cut),
        1 => (index(), vec(any::<u8>(), 1..60)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (index(), index(), select(vec![2usize, 4, 6, 12]))
            .prop_map(|(from, to, len)| Mutation::Copy(from, to, len)),
    ];
    vec(mutation, 0..5)
}

fn mutated(bases: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let spoiled = (select(bases), mutations()).prop_map(|(mut packet, mutations)| {
        for mutation in mutations {
            mutation.apply(&mut packet);
        }
        packet
    });
    prop_oneof![9 => spoiled, 1 => vec(any::<u8>(), 0..300)]
}

#[test]
fn from_endpoint_lets_no_spoofed_source_through() {
    let flow = Flow { tos: 0xb9, ..Flow::default() };
    let bases = vec![
        a_to_b(),
        a_to_far(),
        ipv4(A, STRANGER, flow),
        ipv6(A, FAR, flow),
        other(A.mac, FAR.mac, EXPERIMENTAL, PAYLOAD),
        tagged(&a_to_b(), 0x8100),
        who_has(FAR.ip),
        who_has(A.ip),
        arp(Ask { operation: 2, ..Ask::default() }),
        to_mac(a_to_b(), GROUP),
        to_mac(a_to_b(), BROADCAST),
        vxlan(&far_to_a()),
    ];
    property(Direction::FromEndpoint, mutated(bases), |world, packet, outcome| {
        let (eth, rest) = Ethernet2Header::from_slice(packet).expect("test_run asks for one");
        let own = &world.ports[&PORT_A];
        prop_assert_eq!(eth.source, own.mac);
        if eth.ether_type == EtherType::IPV4 {
            prop_assert_eq!(ip16_from_v4(rest[12..16].try_into().expect("four")), own.ip);
        }
        prop_assert!(!is_priority_tagged(eth.ether_type.0, rest, own.ip), "past the fence");
        let group = eth.destination[0] & 1 == 1;
        prop_assert!(outcome.verdict == Verdict::Shot || !group || eth.ether_type.0 == 0x0806);
        Ok(())
    });
}

#[test]
fn from_underlay_lets_only_the_sources_own_vtep_through() {
    let flow = Flow { tos: 0xb9, ..Flow::default() };
    let bases = vec![
        vxlan(&far_to_a()),
        vxlan(&ipv4(FAR, B, flow)),
        Vxlan { tos: 3, ..Vxlan::default() }.around(&ipv4(FAR, A, flow)),
        vxlan(&ipv6(FAR, A, flow)),
        vxlan(&other(FAR.mac, A.mac, EXPERIMENTAL, PAYLOAD)),
        vxlan(&to_mac(far_to_a(), GROUP)),
        vxlan(&who_has(A.ip)),
        vxlan(&tagged(&far_to_a(), 0x8100)),
        vxlan(&ipv4(B, A, flow)),
        Vxlan { from: IDLE_VTEP, ..Vxlan::default() }.around(&far_to_a()),
        Vxlan { from: OWN_VTEP, ..Vxlan::default() }.around(&far_to_a()),
        Vxlan { vni: VNI + 1, ..Vxlan::default() }.around(&far_to_a()),
        Vxlan { options: vec![1; 8], ..Vxlan::default() }.around(&far_to_a()),
        Vxlan { more_fragments: true, ..Vxlan::default() }.around(&far_to_a()),
        a_to_far(),
        who_has(A.ip),
    ];
    property(Direction::FromUnderlay, mutated(bases), |world, packet, _| {
        let (eth, rest) = Ethernet2Header::from_slice(packet).expect("an outer Ethernet header");
        prop_assert_eq!(eth.ether_type, EtherType::IPV4);
        // etherparse refuses versions and lengths that the programs leave to the hosts.
        prop_assert_eq!(rest[0] & 0xf, 5);
        let mut outer = rest.to_vec();
        outer[0] = 0x45;
        let (outer, rest) = Ipv4Header::from_slice(&outer).expect("an outer IPv4 header");
        prop_assert_eq!(outer.destination, OWN_VTEP);
        prop_assert!(!outer.is_fragmenting_payload());
        let (udp, rest) = UdpHeader::from_slice(rest).expect("an outer UDP header");
        prop_assert_eq!(udp.destination_port, VXLAN_PORT);
        prop_assert_eq!(rest[0] & 0x08, 0x08);
        let vni = u32::from_be_bytes([0, rest[4], rest[5], rest[6]]);
        let (inner, rest) = Ethernet2Header::from_slice(&rest[8..]).expect("an inner one");

        let source = world.fdb.get(&FdbKey { vni, mac: inner.source, pad: [0; 2] });
        let Some(source) = source else {
            return Err(TestCaseError::fail("a source that nobody knows passed"));
        };
        prop_assert_eq!(source.vtep, ip16_from_v4(outer.source));
        prop_assert_ne!(source.vtep, IP16_NONE);
        if inner.ether_type == EtherType::IPV4 {
            prop_assert_eq!(ip16_from_v4(rest[12..16].try_into().expect("four")), source.ip);
        }
        prop_assert_ne!(inner.ether_type.0, 0x0806);
        prop_assert!(!is_priority_tagged(inner.ether_type.0, rest, source.ip), "past the fence");
        if inner.destination[0] & 1 == 0 {
            let destination = world.fdb.get(&FdbKey { vni, mac: inner.destination, pad: [0; 2] });
            prop_assert!(destination.is_some_and(|entry| entry.ifindex != 0));
        }
        Ok(())
    });
}

#[test]
fn from_gateway_lets_only_the_gateway_hear() {
    property(Direction::FromGateway, frames(), |_, packet, outcome| {
        match fate(packet) {
            Fate::Up => prop_assert_eq!(outcome.verdict, Verdict::Pass),
            Fate::Answered => {
                prop_assert_eq!(outcome.verdict, Verdict::Redirect);
                prop_assert_eq!(&outcome.packet[..12], [A_OUT.mac, GATEWAY.mac].concat());
                prop_assert_eq!(&outcome.packet[42..], &packet[42..]);
            }
            Fate::Nothing => prop_assert!(false, "it may not pass"),
        }
        Ok(())
    });
}

/// A receiver would take the frame for untagged, and what is behind the tag is not `own`'s.
fn is_priority_tagged(ethertype: u16, rest: &[u8], own: Ip16) -> bool {
    let is_tag = |ethertype| matches!(ethertype, 0x8100 | 0x88a8);
    if !is_tag(ethertype) || rest[0] & 0xf != 0 || rest[1] != 0 {
        return false;
    }
    match u16::from_be_bytes([rest[2], rest[3]]) {
        0x0800 => ip16_from_v4(rest[16..20].try_into().expect("four")) != own,
        behind => behind == 0x0806 || is_tag(behind),
    }
}

/// As many cases as PROPTEST_CASES says.
pub(crate) fn config() -> Config {
    let config = match env::var_os("PROPTEST_CASES") {
        Some(_) => Config::default(),
        None => Config::with_cases(CASES),
    };
    Config { failure_persistence: None, ..config }
}

/// Runs many packets through the direction's program, in a world with multicast. What was counted as
/// forwarded must please `allowed`.
fn property(
    direction: Direction,
    packets: impl Strategy<Value = Vec<u8>>,
    allowed: impl Fn(&World, &[u8], &Outcome) -> Result<(), TestCaseError>,
) {
    on_bench(|bench| {
        let mut world = World::default();
        world.flag(FLAG_MULTICAST);
        assert!(world.ports[&PORT_A].flags & FLAG_FORWARDS == 0);
        // Copies would be counted beside their packet where they fail; here none does.
        world.flood.insert(VNI, flood(&[super::world::FAR_VTEP], &[PORT_A]));
        bench.fill(&world);
        let tally = std::cell::RefCell::new(Tally::default());
        let bench = std::cell::RefCell::new(bench);
        let mut runner = TestRunner::new(config());
        let ran = runner.run(&packets, |packet| {
            let mut bench = bench.borrow_mut();
            let mut tally = tally.borrow_mut();
            let Some(outcome) = run(&mut bench, direction, &packet) else {
                tally.refused += 1;
                return Ok(());
            };
            check_count(direction, &packet, &outcome)?;
            if outcome.counts.contains_key(&(0, direction)) {
                tally.forwarded += 1;
                allowed(&world, &packet, &outcome)?;
            } else {
                tally.others += 1;
                if direction == Direction::FromGateway {
                    prop_assert_eq!(fate(&packet), Fate::Nothing, "{:?}", outcome);
                }
            }
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{error}"));
        tally.into_inner().check(direction);
    });
}

fn run(bench: &mut Bench, direction: Direction, packet: &[u8]) -> Option<Outcome> {
    match bench.try_run(direction, packet, Skb::usual(direction), 1) {
        Ok(outcome) => Some(outcome),
        // Shorter than its Ethernet or IP header: test_run runs none of these.
        Err(_) if packet.len() < 14 + 40 => None,
        Err(error) => panic!("{packet:02x?} is not run: {error:?}"),
    }
}

/// One packet is one count of its own length, or, where the stack gets it as it came, none.
fn check_count(
    direction: Direction,
    packet: &[u8],
    outcome: &Outcome,
) -> Result<(), TestCaseError> {
    if outcome.verdict == Verdict::Pass {
        prop_assert_ne!(direction, Direction::FromEndpoint, "an endpoint's packet is ours");
        prop_assert_eq!(&outcome.packet[..], packet);
    }
    if outcome.verdict == Verdict::Pass && direction == Direction::FromUnderlay {
        prop_assert!(outcome.counts.is_empty());
        return Ok(());
    }
    let counted: Vec<_> = outcome.counts.iter().collect();
    let [((reason, counted_direction), counter)] = counted[..] else {
        return Err(TestCaseError::fail(format!("counted: {counted:?}")));
    };
    prop_assert_eq!(*counted_direction, direction);
    prop_assert_eq!((counter.packets, counter.bytes), (1, packet.len() as u64));
    prop_assert!(outcome.verdict == Verdict::Shot || *reason == 0);
    Ok(())
}

/// What the packets came to: a property of packets that were all dropped would say nothing.
#[derive(Debug, Default)]
struct Tally {
    forwarded: u32,
    others: u32,
    refused: u32,
}

impl Tally {
    fn check(&self, direction: Direction) {
        println!("{}: {self:?}", direction.name());
        let ran = self.forwarded + self.others;
        // Fewer may well be all of a kind.
        if ran < 500 {
            return;
        }
        assert!(self.forwarded * 20 > ran && self.others * 20 > ran, "{self:?}");
        assert!(self.refused * 4 < ran, "{self:?}");
    }
}
