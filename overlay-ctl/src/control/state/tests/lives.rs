//! Raft ids: which node has one, and that none is given out twice.

use super::*;
use crate::model::{NodeId, RaftId, SPEAKS};

fn id(number: u64) -> RaftId {
    RaftId::new(number).unwrap()
}

/// Each node's id, and the Raft id under which it holds the log.
fn lives(r: &Replica) -> Vec<(NodeId, Option<u64>)> {
    r.state.nodes().map(|node| (node.id, node.life().map(RaftId::get))).collect()
}

fn remove(r: &mut Replica, number: u8) {
    let name = format!("h{number}").parse().unwrap();
    r.apply(Command::RemoveNode { name, only: None }).unwrap();
}

fn raise(r: &mut Replica) {
    let speaks = r.state.nodes().map(|node| (node.id, SPEAKS)).collect();
    r.apply(Command::RaiseVersion { to: Version::V2, speaks }).unwrap();
}

fn at_version_2() -> Replica {
    Replica { state: State::new(Version::V2), ..Replica::default() }
}

#[test]
fn a_raft_id_is_given_out_to_who_is_to_hold_the_log() {
    let mut r = at_version_2();
    for number in 1..=4 {
        r.node(number).unwrap();
    }
    assert_eq!(lives(&r), [(1, Some(1)), (2, Some(2)), (3, Some(3)), (4, None)]);
    remove(&mut r, 2);
    r.node(5).unwrap();
    assert_eq!(lives(&r), [(1, Some(1)), (3, Some(3)), (4, None), (5, Some(4))]);
    // A repeated registration, and one with another address, change neither id.
    r.node(5).unwrap();
    r.node_at(5, "172.19.0.0/16").unwrap();
    assert_eq!(lives(&r)[3], (5, Some(4)));
    assert_eq!(r.state.node_of(id(4)).map(|node| node.id), Some(5));
    assert_eq!(r.state.node_of(id(2)), None, "its node was removed");
}

#[test]
fn no_raft_id_is_given_out_twice_also_after_a_snapshot() {
    let mut r = at_version_2();
    let mut seen = BTreeSet::new();
    for number in 1..40 {
        let Ok(Applied::Node(node)) = r.node(number) else { panic!("it is taken in") };
        assert!(seen.insert(node.life().expect("it is to vote")), "{node:?}");
        remove(&mut r, number);
        if number % 7 == 0 {
            r.state = State::from_snapshot(&r.state.snapshot()).unwrap();
        }
    }
}

/// At version 1 a node's Raft id is its id, also for agents that may be voters later.
#[test]
fn what_version_1_wrote_has_the_ids_of_nodes_as_raft_ids_and_later_ones_come_behind() {
    let mut r = Replica::default();
    for number in 1..=5 {
        r.node(number).unwrap();
    }
    remove(&mut r, 2);
    r.node(6).unwrap();
    remove(&mut r, 5);
    let of_version_1 = [(1, Some(1)), (3, Some(3)), (4, None), (6, Some(6))];
    assert_eq!(lives(&r), of_version_1);
    assert!(r.state.nodes().all(|node| node.raft_id.is_none()), "no row says more than before");
    r.state = State::from_snapshot(&r.state.snapshot()).unwrap();
    raise(&mut r);
    assert_eq!(lives(&r), of_version_1, "nobody's life has changed");
    remove(&mut r, 3);
    r.node(7).unwrap();
    assert_eq!(lives(&r), [(1, Some(1)), (4, None), (6, Some(6)), (7, Some(7))]);
    remove(&mut r, 7);
    r.node(8).unwrap();
    assert_eq!(lives(&r)[3], (8, Some(8)));
}
