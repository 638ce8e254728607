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
    r.apply(Command::RemoveNode { name, only: None, with_endpoints: false }).unwrap();
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

fn begin(r: &mut Replica, number: u8, ended: Option<u64>) -> Outcome {
    let name = format!("h{number}").parse().unwrap();
    r.apply(Command::BeginLife { name, only: number.into(), ended: ended.and_then(RaftId::new) })
}

/// A cluster of three voters and an agent, with an endpoint on the third.
fn with_endpoint() -> Replica {
    let mut r = at_version_2();
    for number in 1..=4 {
        r.node(number).unwrap();
    }
    r.network("net", "172.16.16.0/24", None).unwrap();
    r.endpoint("web", "net", 3, None).unwrap();
    r
}

#[test]
fn a_node_that_begins_another_life_keeps_all_but_its_raft_id() {
    let mut r = with_endpoint();
    let before = r.state.clone();
    let cursor = r.index;
    begin(&mut r, 3, Some(3)).unwrap();
    assert_eq!(lives(&r), [(1, Some(1)), (2, Some(2)), (3, Some(4)), (4, None)]);
    let but_its_life = Node { raft_id: RaftId::new(3), ..r.state.node(3).unwrap().clone() };
    assert_eq!(but_its_life, *before.node(3).unwrap(), "its epoch, too");
    assert!(r.state.endpoints().eq(before.endpoints()));
    assert_eq!((r.state.node_of(id(3)), r.state.node_of(id(4)).unwrap().id), (None, 3));
    let told = r.state.delta_for(1, cursor, &BTreeSet::new());
    assert!(told.upserts.iter().any(|row| matches!(row, Row::Node(node) if node.id == 3)));
    let again = State::from_snapshot(&r.state.snapshot()).unwrap();
    assert_eq!(again.node_of(id(4)).unwrap().id, 3);
    // The next one is behind it, also for another node.
    begin(&mut r, 1, None).unwrap();
    assert_eq!(lives(&r)[0], (1, Some(5)));
    remove(&mut r, 2);
    r.node(9).unwrap();
    assert_eq!(lives(&r)[3], (5, Some(6)));
}

#[test]
fn a_life_ends_once_and_only_the_one_that_was_meant() {
    let mut r = with_endpoint();
    begin(&mut r, 3, Some(3)).unwrap();
    let what = "the membership of node h3".to_owned();
    let replaced = Refusal::Replaced { what, asked: 3, found: 4 };
    assert_eq!(begin(&mut r, 3, Some(3)), Err(replaced));
    // Repeated, it answers what it did before; when that life is over, too, it says so.
    let name = "h3".parse().unwrap();
    let command = Command::BeginLife { name, only: 3, ended: Some(id(4)) };
    let entry = envelope(77, command);
    let first = r.state.apply_entry(r.index + 1, &entry);
    assert_eq!(r.state.apply_entry(r.index + 2, &entry), first);
    r.index += 2;
    begin(&mut r, 3, Some(5)).unwrap();
    let gone = r.state.apply_entry(r.index + 1, &entry);
    assert!(matches!(gone, Err(Refusal::Gone { .. })), "{gone:?}");
    r.index += 1;
    assert_eq!(lives(&r)[2], (3, Some(6)));
    // An agent has no log that it could lose, and another node is not meant.
    let Ok(Applied::Node(agent)) = begin(&mut r, 4, None) else { panic!("it is answered") };
    assert_eq!(agent.life(), None);
    let name = "h1".parse().unwrap();
    let other = r.apply(Command::BeginLife { name, only: 2, ended: None });
    assert!(matches!(other, Err(Refusal::Replaced { .. })), "{other:?}");
}

/// Voters of version 1 would pass the Raft id over.
#[test]
fn at_version_1_nobody_begins_another_life() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    let needs = Refusal::NeedsVersion { needs: Version::V2, has: Version::V1 };
    assert_eq!(begin(&mut r, 1, Some(1)), Err(needs));
    raise(&mut r);
    begin(&mut r, 1, Some(1)).unwrap();
    assert_eq!(lives(&r), [(1, Some(2))], "behind all ids of nodes");
}
