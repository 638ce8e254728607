//! Who is healthy: a cluster that can lose a voter, or that can't have more than one. And seats that are not taken.

use super::*;

#[test]
fn a_dead_voter_that_is_no_node_s_is_a_fault() {
    let mut leader = hearing(13, MemberContact { heard_ms_ago: Some(50_000), ..contact(13, 70) });
    leader.seats.truncate(2);
    let answer = judge(&survey(leader, [(2, told(voter(2)))]));
    assert_eq!(answer.condition(), Condition::Degraded);
    assert!(answer.verdict.ends_with("no further one may be lost"), "{}", answer.verdict);
    let fault = only(&answer);
    assert!(fault.what.starts_with("member 13 votes and is no node's any more"), "{fault:?}");
    // While it still answers nothing is lost: it is about to go.
    let mut leader = voter(1);
    leader.seats.truncate(2);
    let answer = judge(&survey(leader, [(2, told(voter(2)))]));
    assert_eq!(answer.condition(), Condition::Healthy, "{:#?}", answer.faults);
    assert!(answer.notes[0].starts_with("member 13 of Raft is no node's"), "{:?}", answer.notes);
}

/// The only voter, in a cluster of so many nodes of which so many are to vote.
fn alone(nodes: u32, wished: u32) -> MembersResponse {
    let mut leader = voter(1);
    (leader.nodes, leader.voters_wished) = (nodes, wished);
    let log = leader.voter.as_mut().unwrap();
    (log.voters, log.learners) = (vec![11], vec![12, 13]);
    led(leader, told(voter(2)), told(voter(3)))
}

#[test]
fn one_voter_is_healthy_only_where_there_can_be_no_more() {
    for (nodes, wished) in [(1, 3), (2, 3), (2, 5), (3, 1), (9, 2)] {
        let answer = alone(nodes, wished);
        assert_eq!(answer.condition(), Condition::Healthy, "{:#?}", answer.faults);
        assert_eq!(answer.verdict, "healthy: h1 is the only voter, and must not be lost");
    }
    for (nodes, wished) in [(3, 3), (4, 3), (5, 5)] {
        let answer = alone(nodes, wished);
        assert_eq!(answer.condition(), Condition::Degraded, "{nodes} nodes, {wished} wished");
        let fault = only(&answer);
        let what = format!("1 of 1 voters keep up, so that none may be lost; {wished} nodes");
        assert!(fault.what.starts_with(&what), "{fault:?}");
    }
    // Two votes are not better than one.
    let mut leader = voter(1);
    leader.seats.truncate(2);
    let log = leader.voter.as_mut().unwrap();
    (log.voters, log.contacts) = (vec![11, 12], vec![contact(12, 90)]);
    let answer = judge(&survey(leader, [(2, told(voter(2)))]));
    assert_eq!(answer.condition(), Condition::Degraded);
    assert_eq!(answer.faults.len(), 1, "{:#?}", answer.faults);
}

/// The leader of a cluster where h4 is to hold the log, too, and has taken none of it for so long.
fn waits_for(stuck_ms: u64) -> MembersResponse {
    let mut leader = voter(1);
    leader.seats.push(seat(4));
    let log = leader.voter.as_mut().unwrap();
    log.learners = vec![14];
    log.contacts.push(MemberContact { heard_ms_ago: None, stuck_ms, ..contact(14, 0) });
    let others = [(2, told(voter(2))), (3, told(voter(3))), (4, told(agent(4)))];
    judge(&survey(leader, others))
}

#[test]
fn a_node_that_runs_and_has_not_taken_its_seat_is_not_gone() {
    let words = "h4 is to hold the log and has not taken its seat yet: see FREE, and its log for `this node is to vote, and can't`";
    let soon = waits_for(8_000);
    assert_eq!(soon.condition(), Condition::Healthy, "{:#?}", soon.faults);
    assert_eq!(soon.notes.iter().filter(|note| note.contains("h4")).count(), 1, "{:?}", soon.notes);
    assert!(soon.notes.iter().any(|note| note == words), "{:?}", soon.notes);
    let late = waits_for(31_000);
    let fault = only(&late);
    assert!(fault.what.starts_with("h4 is to hold the log and has not taken"), "{fault:?}");
    assert!(!fault.remedy.contains("rm") && !fault.remedy.contains("start"), "{fault:?}");
    assert!(!late.notes.iter().any(|note| note.contains("h4")), "{:?}", late.notes);
    // Nobody knows since when: it is no member of Raft yet.
    let mut leader = voter(1);
    leader.seats.push(seat(4));
    let others = [(2, told(voter(2))), (3, told(voter(3))), (4, told(agent(4)))];
    let answer = judge(&survey(leader, others));
    assert_eq!(answer.condition(), Condition::Healthy, "{:#?}", answer.faults);
    assert_eq!(answer.notes, [words]);
    // One that is to vote, and does not, is missing.
    let unheard = MemberContact { heard_ms_ago: None, ..contact(13, 0) };
    let answer = led(hearing(13, unheard), told(voter(2)), told(agent(3)));
    let fault = only(&answer);
    assert!(fault.what.starts_with("h3 votes and has not taken its seat"), "{fault:?}");
    assert!(!fault.remedy.contains("node rm"), "{fault:?}");
}
