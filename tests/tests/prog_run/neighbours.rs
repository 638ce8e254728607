//! IPv6 addresses: the first endpoint that speaks for one has it, on each node that has heard it.

use overlay_common::{Direction, DropReason};

use super::{
    bench::{Bench, Skb, on_bench},
    packets::{neighbour, unique, vxlan},
    world::{A, B, FAR, PORT_A, PORT_B, Station, UNDERLAY, World, fdb_key},
};

const SOLICITS: u8 = 135;
const ADVERTISES: u8 = 136;

/// The reason for which an endpoint's message is dropped, if it is.
fn said(bench: &mut Bench, who: Station, kind: u8, source: u8, target: u8) -> Option<DropReason> {
    let source = if source == 0 { [0; 16] } else { unique(source) };
    let to = if who.mac == A.mac { B } else { A };
    let frame = neighbour((who, to), kind, source, unique(target));
    let (direction, ifindex, packet) = match who.mac {
        mac if mac == A.mac => (Direction::FromEndpoint, PORT_A, frame),
        mac if mac == B.mac => (Direction::FromEndpoint, PORT_B, frame),
        _ => (Direction::FromUnderlay, UNDERLAY, vxlan(&frame)),
    };
    let counts = bench.run_skb(direction, &packet, Skb { ifindex, gso_size: 0 }).counts;
    let reason = counts.into_keys().next().expect("each packet is counted").0;
    DropReason::from_number(reason)
}

const FORGED: Option<DropReason> = Some(DropReason::SpoofedNeighbour);

#[test]
fn who_was_first_has_the_address() {
    on_bench(|bench| {
        assert_eq!(said(bench, B, ADVERTISES, 2, 2), None);
        assert_eq!(said(bench, A, ADVERTISES, 1, 2), FORGED, "of a neighbour");
        assert_eq!(said(bench, A, SOLICITS, 2, 9), FORGED, "in a neighbour's name");
        assert_eq!(
            said(bench, A, SOLICITS, 0, 2),
            None,
            "the owner must hear that A would like it"
        );
        assert_eq!(said(bench, A, ADVERTISES, 1, 2), FORGED, "to ask for it is not to have it");
        assert_eq!(said(bench, A, SOLICITS, 1, 2), None, "a question");
        assert_eq!(said(bench, B, ADVERTISES, 2, 2), None, "its own still");
    });
}

#[test]
fn a_solicitation_claims_its_source_and_a_first_one_its_target() {
    on_bench(|bench| {
        assert_eq!(said(bench, B, SOLICITS, 3, 9), None);
        assert_eq!(said(bench, A, ADVERTISES, 1, 3), FORGED);
        assert_eq!(said(bench, A, ADVERTISES, 1, 9), None, "what was asked for is nobody's");
        assert_eq!(said(bench, B, SOLICITS, 0, 4), None);
        assert_eq!(said(bench, A, ADVERTISES, 1, 4), FORGED);
    });
}

/// The sending VTEP may not run these programs.
#[test]
fn what_came_by_the_underlay_counts_too() {
    on_bench(|bench| {
        assert_eq!(said(bench, FAR, ADVERTISES, 5, 5), None);
        assert_eq!(said(bench, A, ADVERTISES, 1, 5), FORGED);
        assert_eq!(said(bench, B, ADVERTISES, 2, 2), None);
        assert_eq!(said(bench, FAR, ADVERTISES, 5, 2), FORGED);
    });
}

#[test]
fn an_address_is_free_again_when_its_owner_has_gone() {
    on_bench(|bench| {
        assert_eq!(said(bench, B, ADVERTISES, 2, 2), None);
        bench.remove_endpoint(fdb_key(B.mac));
        // The message is to B, which has gone, and nothing else is wrong with it.
        let gone = Some(DropReason::UnknownDestination);
        assert_eq!(said(bench, A, ADVERTISES, 1, 2), gone);
    });
}

#[test]
fn an_endpoint_claims_so_many_addresses_and_no_more() {
    on_bench(|bench| {
        let mut world = World::default();
        world.limit(2);
        bench.fill(&world);
        let limited = Some(DropReason::NeighbourLimit);
        let by_a = [1, 2, 3, 1].map(|target| said(bench, A, ADVERTISES, 1, target));
        assert_eq!(by_a, [None, None, limited, None], "what it has already is free");
        assert_eq!(said(bench, B, ADVERTISES, 9, 9), None, "the neighbour has its own limit");
    });
}
