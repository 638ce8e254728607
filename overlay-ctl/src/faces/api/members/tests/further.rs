//! Faults that are rarer, and what is no fault: versions, states, nodes and wishes.

use super::{super::ask::places, *};
use crate::control::peers::{Directory, Peer};
use std::net::SocketAddr;

#[test]
fn a_program_that_does_not_speak_the_version_is_upgraded() {
    let old = MemberStatus { newest_version: 1, ..voter(3) };
    let answer = led(voter(1), told(voter(2)), told(old));
    let fault = only(&answer);
    let what = "h3 speaks versions 1 to 1, and the cluster is at version 2";
    assert_eq!((fault.what.as_str(), fault.section.as_str()), (what, faults::UPGRADE));
    // One that runs an earlier program does not say how it is, which is no fault.
    let answer = led(voter(1), told(voter(2)), Answer::Earlier);
    assert_eq!(answer.condition(), Condition::Healthy, "{:#?}", answer.faults);
    assert_eq!(member(&answer, 3).unanswered, "it runs, with an earlier program");
}

/// Figures of several nodes do not add up to a state that ever was.
#[test]
fn what_is_said_of_the_cluster_is_of_one_moment() {
    let mut ahead = agent(4);
    (ahead.revision, ahead.nodes) = (95, 9);
    ahead.seats.push(seat(5));
    let mut behind = voter(2);
    behind.voter.as_mut().unwrap().commit = 97;
    let answer =
        judge(&survey(ahead, [(1, told(voter(1))), (2, told(behind)), (3, told(voter(3)))]));
    assert_eq!((answer.revision, answer.nodes, answer.members.len()), (90, 4, 3));
}

#[test]
fn states_are_compared_where_they_are_told() {
    let with = |node, hashes: &[(u64, u8)]| {
        let mut status = voter(node);
        let hash =
            |(revision, hash): &(u64, u8)| StateHash { revision: *revision, hash: vec![*hash; 32] };
        status.voter.as_mut().unwrap().hashes = hashes.iter().map(hash).collect();
        status
    };
    let same = led(
        with(1, &[(64, 1), (80, 2)]),
        told(with(2, &[(64, 1)])),
        told(with(3, &[(64, 1), (96, 3)])),
    );
    assert!(same.faults.is_empty(), "{:#?}", same.faults);
    let names: Vec<String> = ["h1", "h2", "h3"].map(str::to_owned).into();
    assert_eq!((same.same_state_revision, same.same_state), (64, names));
    let differs = led(with(1, &[(64, 1)]), told(with(2, &[(64, 9)])), told(with(3, &[(64, 1)])));
    let what = "the voters hold different states at revision 64: one on h1, h3 and one on h2";
    let fault = only(&differs);
    assert_eq!((fault.what.as_str(), fault.section.as_str()), (what, faults::DIFFERS));
    assert_eq!(differs.same_state_revision, 0);
}

#[test]
fn what_the_leader_knows_of_the_nodes_is_said_once() {
    let named = |names: &[&str], count| {
        Some(NodesNamed { count, names: names.iter().map(ToString::to_string).collect() })
    };
    let mut leader = hearing(13, MemberContact { heard_ms_ago: None, ..contact(13, 0) });
    leader.voter.as_mut().unwrap().leads = Some(LeaderStatus {
        down: named(&["h3", "h7"], 3),
        lost: named(&["h8"], 1),
        lagging: named(&["h9"], 1),
        version_waits_for: vec!["h7 (down)".to_owned()],
    });
    let answer = led(leader, told(voter(2)), silent());
    let found: Vec<&str> = answer.faults.iter().map(|fault| fault.what.as_str()).collect();
    assert_eq!(
        found,
        [
            "h3 votes and does not answer (connection refused); the leader has not heard it",
            "h8 is lost: nothing is sent to its endpoints",
            "2 nodes are down: the leader does not hear of them: h7 and 1 more",
            "h9 lags: its kernel does not hold what was decided more than a second ago",
        ]
    );
    let note = "the cluster stays at version 2 until these nodes run the newer program: h7 (down)";
    assert_eq!(answer.notes, [note]);
}

#[test]
fn a_wish_that_is_not_carried_out_yet_is_a_note() {
    let mut leader = voter(1);
    leader.seats = [1, 2, 4].map(seat).into();
    leader.revision = 95;
    let log = leader.voter.as_mut().unwrap();
    (log.voters, log.learners) = (vec![11, 12], vec![13]);
    log.contacts = vec![contact(12, 90), contact(13, 90)];
    let answer = judge(&survey(leader, [(2, told(voter(2))), (4, told(agent(4)))]));
    let notes = answer.notes.join("; ");
    for words in [
        "h4 is to hold the log and has not taken its seat yet",
        "member 13 of Raft is no node's",
        "member 13 holds the log without a vote",
        "3 nodes are to vote and 2 do",
    ] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    let shown =
        answer.members.iter().map(|it| (it.node_id, it.raft_id, it.membership(), it.has_seat));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            (1, 11, Membership::Voter, true),
            (2, 12, Membership::Voter, true),
            (4, 14, Membership::None, true),
            (0, 13, Membership::Learner, false),
        ]
    );
}

/// While a change is under way both configurations need a majority.
#[test]
fn of_two_configurations_the_weaker_counts() {
    let mut leader = voter(1);
    let log = leader.voter.as_mut().unwrap();
    (log.voters, log.outgoing) = (vec![11], vec![11, 12, 13]);
    let answer = led(leader, told(voter(2)), silent());
    assert!(answer.notes[0].contains("from h1, h2 and h3 to h1"), "{:?}", answer.notes);
    let mut alone = without_a_quorum(1);
    let log = alone.voter.as_mut().unwrap();
    (log.voters, log.outgoing) = (vec![11], vec![11, 12, 13]);
    let answer = led(alone, silent(), silent());
    assert!(answer.verdict.starts_with("no quorum: 1 of 3"), "{}", answer.verdict);
}

#[test]
fn of_too_many_nodes_those_with_a_seat_are_asked_and_each_at_few_places() {
    let peer = |id: NodeId, port: u16| Peer {
        id,
        listen: ([10, 0, 0, 9], port).into(),
        voter: true,
        raft_id: None,
    };
    let directory = Directory::new(uuid::Uuid::nil(), (1..=8).map(|id| peer(id, 7_400)));
    // Former voters have the lower ids.
    let seats = [7, 8, 9].map(seat);
    let asked = |max, is_asked: fn(NodeId) -> bool| {
        places(&directory, &seats, max, is_asked).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(asked(3, |_| false), [7, 8, 9]);
    assert_eq!(asked(4, |_| false).len(), 4);
    assert_eq!(asked(32, |_| false), (1..=9).collect::<Vec<_>>());
    assert_eq!(asked(2, |node| node == 7), [8, 9], "who was asked takes no room");
    // What the row says comes first.
    let many =
        [5, 4, 3, 2, 1, 1].map(|port| Seat { listen: format!("10.0.0.7:{port}"), ..seat(7) });
    let tried = places(&directory, &many, 1, |_| false).remove(&7).unwrap();
    assert_eq!(tried.iter().map(SocketAddr::port).collect::<Vec<_>>(), [5, 4, 3, 2]);
}
