//! The state with which a generation begins.

use super::*;
use crate::model::{Generation, LegId, Node, NodeId, RaftId, Version};

/// Four nodes, of which the first three are to be voters, and an endpoint with a leg on the second.
fn before() -> Replica {
    let mut r = Replica::default();
    for number in 1..=4 {
        r.node_at(number, &format!("172.{}.0.0/16", 18 + number)).unwrap();
    }
    r.network("net", "10.0.0.0/24", None).unwrap();
    r.wish(&Wish { node: "h2", ..Wish::new("web1") }).unwrap();
    r
}

fn voters(state: &State) -> Vec<NodeId> {
    state.nodes().filter(|node| node.voter).map(|node| node.id).collect()
}

#[test]
fn nothing_that_the_generation_before_may_have_given_out_is_given_out_again() {
    let mut lost = before();
    let mut next =
        Replica { state: lost.state.clone().restored(1, Generation::FIRST.next(0)), index: 0 };
    next.index = next.state.revision();
    // The backup does not know of these.
    lost.node(5).unwrap();
    lost.network("later", "10.0.1.0/24", None).unwrap();
    let of_lost = lost.wish(&Wish { node: "h2", ..Wish::new("web2") }).unwrap();
    let of_next = {
        next.node(6).unwrap();
        next.network("other", "10.0.1.0/24", None).unwrap();
        next.wish(&Wish { node: "h2", ..Wish::new("web3") }).unwrap()
    };
    // Revisions are ids of networks and endpoints; those of nodes are counted by themselves.
    let ids = |state: &State| -> BTreeSet<(bool, u64)> {
        let nodes = state.nodes().map(|node| (true, node.id));
        let networks = state.networks().map(|network| (false, network.id));
        let endpoints = state.endpoints().map(|endpoint| (false, endpoint.id));
        nodes.chain(networks).chain(endpoints).collect()
    };
    let old = ids(&before().state);
    let new = |state: &State| ids(state).difference(&old).copied().collect::<BTreeSet<_>>();
    let (of_lost_all, of_next_all) = (new(&lost.state), new(&next.state));
    assert_eq!((of_lost_all.len(), of_next_all.len()), (3, 3));
    assert!(of_lost_all.is_disjoint(&of_next_all), "{of_lost_all:?} {of_next_all:?}");
    let leg = |endpoint: &Endpoint| endpoint.leg.expect("a leg").id;
    assert_ne!(leg(&of_lost), leg(&of_next));
    // An address read as a number is the id of an older leg.
    assert!(leg(&of_next) < LegId::of_addresses(Ipv4Addr::new(1, 0, 0, 2).into()));
}

#[test]
fn rows_stay_and_an_agent_s_cursor_gets_the_whole_view() {
    let former = before().state;
    let next = former.clone().recovered(2, Generation::FIRST.next(0));
    assert_eq!(
        (former.generation(), next.generation()),
        (Generation::FIRST, Generation::FIRST.next(0))
    );
    assert!(next.endpoints().eq(former.endpoints()) && next.networks().eq(former.networks()));
    let but_their_lives = next.nodes().map(|node| Node { raft_id: None, ..node.clone() });
    assert!(but_their_lives.eq(former.nodes().cloned()), "all three are to be voters still");
    assert_eq!(next.version(), Version::V2, "an older program would drop the generation");
    let delta = next.delta_for(2, former.revision(), &BTreeSet::from([5]));
    assert!(delta.complete);
    assert_eq!((delta.generation, delta.revision), (next.generation(), next.revision()));
    let mut view = View::default();
    view.apply(delta);
    assert_eq!(view.generation, next.generation());
    // As it is stored.
    assert_eq!(State::from_snapshot(&next.snapshot()).unwrap(), next);
    assert_eq!(State::from_snapshot(&former.snapshot()).unwrap().generation(), Generation::FIRST);
}

#[test]
fn the_node_that_goes_on_is_a_voter_and_there_are_no_more_of_them_than_before() {
    let former = before().state;
    assert_eq!(voters(&former), [1, 2, 3]);
    assert_eq!(voters(&former.clone().restored(3, Generation::FIRST.next(0))), [1, 2, 3]);
    assert_eq!(voters(&former.restored(4, Generation::FIRST.next(0))), [1, 2, 4]);
}

/// The Raft ids of the first three nodes.
fn lives(state: &State) -> Vec<u64> {
    state.nodes().filter_map(Node::life).map(RaftId::get).collect()
}

#[test]
fn no_raft_id_of_before_is_used_but_that_of_a_log_that_goes_on() {
    let former = before().state;
    assert_eq!(lives(&former), [1, 2, 3]);
    let recovered = lives(&former.clone().recovered(2, Generation::FIRST.next(0)));
    assert_eq!(recovered[1], 2);
    assert!(recovered[0] > 1 << 20 && recovered[2] > recovered[0], "{recovered:?}");
    let restored = lives(&former.restored(2, Generation::FIRST.next(0)));
    assert!(restored.iter().all(|life| *life > 1 << 20), "{restored:?}");
    assert!(restored.is_sorted_by(|one, next| one < next), "{restored:?}");
}

/// An endpoint's id is in the name of its device, which holds 48 bits of it.
#[test]
fn ids_of_a_generation_that_begins_late_still_fit_into_names_of_devices() {
    let late = Generation::FIRST.next(4_200_000_000);
    let next = before().state.restored(1, late);
    assert_eq!(next.generation(), late);
    let again = next.clone().restored(1, late.next(4_200_000_001));
    assert!(next.revision() < again.revision() && again.revision() < 1 << 48);
    // Two that begin from the same state, a second apart.
    let other = before().state.restored(1, Generation::FIRST.next(4_200_000_001));
    assert!(other.revision() - next.revision() >= 1 << 16);
}
