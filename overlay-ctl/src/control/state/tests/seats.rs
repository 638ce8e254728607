//! Seats: how many there are, who gets one, and under which Raft id.

use super::*;
use crate::model::{NodeId, RaftId, Voters};

fn at_version_2() -> Replica {
    Replica { state: State::new(Version::V2), ..Replica::default() }
}

fn of(nodes: u8) -> Replica {
    let mut r = at_version_2();
    for number in 1..=nodes {
        r.node(number).unwrap();
    }
    r
}

fn name(number: u8) -> NodeName {
    format!("h{number}").parse().unwrap()
}

/// The nodes that have a seat, each with its Raft id.
fn seats(r: &Replica) -> Vec<(NodeId, u64)> {
    r.state.seated().map(|node| (node.id, node.life().unwrap().get())).collect()
}

fn promote(r: &mut Replica, number: u8) -> Outcome {
    r.apply(Command::Promote { name: name(number), only: None, instead_of: None })
}

fn demote(r: &mut Replica, number: u8) -> Outcome {
    r.apply(Command::Demote { name: name(number), only: None, ended: None, for_good: true })
}

fn set_voters(r: &mut Replica, voters: Voters) {
    assert_eq!(r.apply(Command::SetVoters { voters }), Ok(Applied::Voters(voters)));
}

fn taken(voters: Voters, by: &str) -> Outcome {
    Err(Refusal::SeatsTaken { voters, by: by.to_owned() })
}

#[test]
fn each_promotion_gives_a_raft_id_that_no_node_had() {
    let mut r = of(4);
    assert_eq!(seats(&r), [(1, 1), (2, 2), (3, 3)]);
    demote(&mut r, 3).unwrap();
    assert_eq!(seats(&r), [(1, 1), (2, 2)]);
    promote(&mut r, 4).unwrap();
    demote(&mut r, 2).unwrap();
    r.state = State::from_snapshot(&r.state.snapshot()).unwrap();
    promote(&mut r, 3).unwrap();
    assert_eq!(seats(&r), [(1, 1), (3, 5), (4, 4)]);
    demote(&mut r, 3).unwrap();
    promote(&mut r, 3).unwrap();
    assert_eq!(seats(&r), [(1, 1), (3, 6), (4, 4)], "not the one that it had");
    // A registration, also of another address, takes and gives nothing.
    r.node(2).unwrap();
    r.node_at(3, "172.19.0.0/16").unwrap();
    assert_eq!(seats(&r), [(1, 1), (3, 6), (4, 4)]);
    let demoted = |id| r.state.node(id).unwrap().demoted;
    assert_eq!([1, 2, 3].map(demoted), [false, true, false]);
}

#[test]
fn a_seat_is_given_only_where_one_is_free_and_to_who_has_none() {
    let mut r = of(4);
    assert_eq!(promote(&mut r, 4), taken(Voters::Three, "h1, h2, h3"));
    let before = r.state.node(2).cloned().unwrap();
    assert_eq!(promote(&mut r, 2), Ok(Applied::Node(before)), "it has one");
    set_voters(&mut r, Voters::Five);
    promote(&mut r, 4).unwrap();
    r.node(5).unwrap();
    r.node(6).unwrap();
    assert_eq!(seats(&r), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
    assert_eq!(promote(&mut r, 6), taken(Voters::Five, "h1, h2, h3, h4, h5"));
    set_voters(&mut r, Voters::One);
    assert_eq!(seats(&r).len(), 5, "the leader takes seats, one after the other");
    let later = Command::Promote { name: name(6), only: Some(5), instead_of: None };
    assert!(matches!(r.apply(later), Err(Refusal::Replaced { .. })));
}

#[test]
fn one_node_more_has_a_seat_while_it_takes_the_place_of_another() {
    let mut r = of(5);
    let instead = |number| Command::Promote { name: name(number), only: None, instead_of: Some(3) };
    r.apply(instead(4)).unwrap();
    assert_eq!(seats(&r).len(), 4);
    assert_eq!(r.apply(instead(5)), taken(Voters::Three, "h1, h2, h3, h4"), "it has its successor");
    let ended = RaftId::new(3);
    r.apply(Command::Demote { name: name(3), only: Some(3), ended, for_good: false }).unwrap();
    assert_eq!(seats(&r), [(1, 1), (2, 2), (4, 4)]);
    assert!(!r.state.node(3).unwrap().demoted, "it may get a seat again");
    assert_eq!(r.apply(instead(5)), taken(Voters::Three, "h1, h2, h4"), "it has no seat to give");
}

#[test]
fn only_the_life_that_was_meant_ends_and_not_the_last_one() {
    let mut r = of(3);
    demote(&mut r, 3).unwrap();
    promote(&mut r, 3).unwrap();
    let of_before =
        Command::Demote { name: name(3), only: Some(3), ended: RaftId::new(3), for_good: false };
    let what = "the membership of node h3".to_owned();
    let replaced = Refusal::Replaced { what, asked: 3, found: 4 };
    assert_eq!(r.apply(of_before), Err(replaced));
    demote(&mut r, 3).unwrap();
    demote(&mut r, 1).unwrap();
    assert_eq!(demote(&mut r, 2), Err(Refusal::LastVoter(name(2))));
    let remove = Command::RemoveNode { name: name(2), only: None, with_endpoints: false };
    assert_eq!(
        r.apply(remove),
        Err(Refusal::LastVoter(name(2))),
        "agents would be left without a log"
    );
    let again = r.state.node(1).cloned().unwrap();
    assert_eq!(demote(&mut r, 1), Ok(Applied::Node(again)), "it is an agent already");
    assert_eq!(seats(&r), [(2, 2)]);
}

#[test]
fn the_first_node_says_how_many_vote_and_so_does_the_snapshot() {
    let first = State::new(Version::V2).with_voters(Voters::One);
    let mut r = Replica { state: first, ..Replica::default() };
    r.node(1).unwrap();
    r.node(2).unwrap();
    assert_eq!(seats(&r), [(1, 1)]);
    r.state = State::from_snapshot(&r.state.snapshot()).unwrap();
    assert_eq!(r.state.voters(), Voters::One);
    r.node(3).unwrap();
    assert_eq!(seats(&r), [(1, 1)]);
}

/// Earlier programs would not know what they read.
#[test]
fn at_version_1_three_vote_and_nobody_is_promoted_or_demoted() {
    let mut r = Replica::default();
    for number in 1..=4 {
        r.node(number).unwrap();
    }
    let needs = Refusal::NeedsVersion { needs: Version::V2, has: Version::V1 };
    assert_eq!(promote(&mut r, 4), Err(needs.clone()));
    assert_eq!(demote(&mut r, 3), Err(needs.clone()));
    assert_eq!(r.apply(Command::SetVoters { voters: Voters::Five }), Err(needs));
    assert_eq!(seats(&r), [(1, 1), (2, 2), (3, 3)]);
    let again = State::from_snapshot(&r.state.snapshot()).unwrap();
    assert_eq!(again.voters(), Voters::Three);
    // What version 1 left is changed by the rules of version 2.
    let speaks = r.state.nodes().map(|node| (node.id, SPEAKS)).collect();
    r.apply(Command::RaiseVersion { to: Version::V2, speaks }).unwrap();
    demote(&mut r, 1).unwrap();
    promote(&mut r, 1).unwrap();
    assert_eq!(seats(&r), [(1, 5), (2, 2), (3, 3)], "behind all ids of nodes");
}

#[test]
fn a_repeated_request_gives_no_second_seat() {
    let mut r = of(4);
    set_voters(&mut r, Voters::Five);
    let entry = envelope(77, Command::Promote { name: name(4), only: None, instead_of: None });
    let first = r.state.apply_entry(r.index + 1, &entry).unwrap();
    assert_eq!(r.state.apply_entry(r.index + 2, &entry), Ok(first));
    r.index += 2;
    demote(&mut r, 4).unwrap();
    assert_eq!(seats(&r).len(), 3);
    let late = r.state.apply_entry(r.index + 1, &entry);
    assert!(matches!(late, Ok(Applied::Node(node)) if !node.voter), "what it is by now");
    assert_eq!(seats(&r).len(), 3);
    let other = envelope(77, Command::SetVoters { voters: Voters::One });
    let used = r.state.apply_entry(r.index + 2, &other).unwrap_err().to_string();
    assert!(used.contains("the promotion or demotion of node h4"), "{used}");
}
