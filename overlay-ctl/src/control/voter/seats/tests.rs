//! Who gets a seat and who loses one, and the leader's duty over a real log.

use super::*;
use crate::{
    control::voter::{
        follow_the_rows,
        tests::{alone_in, register, write},
    },
    model::{SPEAKS, Version, Voters},
    proto::internal::NodeStatus,
};
use uuid::Uuid;

const BOUND: Duration = Duration::from_secs(60);

fn seat(node: NodeId, condition: Condition, votes: bool, holds_log: bool) -> Seated {
    Seated { node, condition, votes, holds_log }
}

fn voter(node: NodeId) -> Seated {
    seat(node, Condition::Follows, true, true)
}

fn dead(node: NodeId) -> Seated {
    seat(node, Condition::Gone, true, true)
}

/// It is up, and does not hold the log yet.
fn new(node: NodeId) -> Seated {
    seat(node, Condition::Follows, false, false)
}

/// The leader is 1, and three are to vote.
fn of_three(seats: &[Seated], agents: &[NodeId]) -> Next {
    next(1, 3, seats, agents)
}

fn promote(node: NodeId, instead_of: Option<NodeId>) -> Next {
    Next::Promote { node, instead_of }
}

#[test]
fn a_free_seat_is_given_to_the_first_agent() {
    assert_eq!(of_three(&[voter(1), voter(2)], &[9, 7]), promote(9, None));
    assert_eq!(of_three(&[voter(1), voter(2)], &[]), Next::Rest);
    assert_eq!(of_three(&[voter(1), voter(2), voter(3)], &[4]), Next::Rest);
    let five = |seats: &[Seated]| next(1, 5, seats, &[4, 5, 6]);
    assert_eq!(five(&[voter(1), voter(2), voter(3)]), promote(4, None));
}

#[test]
fn who_is_gone_loses_its_seat_when_its_successor_holds_the_log() {
    let seats = [voter(1), voter(2), dead(3)];
    assert_eq!(of_three(&seats, &[4]), promote(4, Some(3)));
    assert_eq!(of_three(&seats, &[]), Next::Rest, "nobody could take its place");
    let late = seat(3, Condition::Late, true, true);
    assert_eq!(of_three(&[voter(1), voter(2), late], &[4]), Next::Rest);
    let seats = |successor| [voter(1), voter(2), dead(3), successor];
    assert_eq!(of_three(&seats(new(4)), &[5]), Next::Rest);
    let away = Seated { condition: Condition::Late, ..new(4) };
    assert_eq!(of_three(&seats(away), &[5]), Next::Rest, "it may be back in a moment");
    assert_eq!(of_three(&seats(Seated { holds_log: true, ..new(4) }), &[5]), Next::Demote(3));
    // The successor is gone, too: it goes first, and another one comes.
    let gone = Seated { condition: Condition::Gone, ..new(4) };
    assert_eq!(of_three(&seats(gone), &[5]), Next::Demote(4));
    // Who was taken for dead is back before its successor is in.
    let back = [voter(1), voter(2), voter(3), new(4)];
    assert_eq!(of_three(&back, &[]), Next::Demote(4));
}

/// A leader knows nothing of the silence that an earlier one saw.
#[test]
fn a_replacement_outlives_a_change_of_the_leader() {
    let late = Seated { condition: Condition::Late, ..voter(3) };
    for successor in [new(4), Seated { holds_log: true, ..new(4) }] {
        assert_eq!(of_three(&[voter(1), voter(2), late, successor], &[5]), Next::Rest);
    }
    let seats = [voter(1), voter(2), dead(3), Seated { holds_log: true, ..new(4) }];
    assert_eq!(of_three(&seats, &[5]), Next::Demote(3), "it is settled");
    // It is not for a voter that is never replaced, or for two that are too many.
    let away = Seated { condition: Condition::Away, ..late };
    assert_eq!(of_three(&[voter(1), voter(2), away, new(4)], &[5]), Next::Demote(4));
    assert_eq!(of_three(&[voter(1), voter(2), late, new(4), new(5)], &[]), Next::Demote(5));

    // From what the leader sees: at its first look voter 3 is silent, and learner 4 has all of the log.
    let mut followed = Followed::default();
    let has_all = Progress { is_heard: true, matched: 9, has_all: true };
    let all = [(1, has_all), (2, has_all), (3, Progress::default()), (4, has_all)];
    let now = Instant::now();
    followed.look(7, &all.into(), now);
    let patience = Patience::new(Some(Duration::from_secs(600)));
    let seen = |node, votes| {
        let condition = followed.condition(node, now, patience.of(votes));
        seat(node, condition, votes, true)
    };
    let seats = [seen(1, true), seen(2, true), seen(3, true), seen(4, false)];
    assert_eq!(of_three(&seats, &[5]), Next::Rest, "{seats:?}");
}

#[test]
fn of_too_many_the_leader_keeps_its_seat_and_those_who_vote() {
    let five = [voter(1), voter(2), voter(3), voter(4), voter(5)];
    assert_eq!(of_three(&five, &[]), Next::Demote(5));
    let leader_is_5 = |seats: &[Seated]| next(5, 3, seats, &[]);
    assert_eq!(leader_is_5(&five), Next::Demote(4));
    let learner = Seated { votes: false, ..voter(2) };
    assert_eq!(of_three(&[voter(1), learner, voter(3), voter(4)], &[]), Next::Demote(2));
    assert_eq!(of_three(&[voter(1), voter(2), voter(3), dead(4)], &[]), Next::Demote(4));
    assert_eq!(next(1, 1, &[voter(1)], &[2]), Next::Rest);
    // One that does not hold the log is not waited for where all are up.
    assert_eq!(of_three(&[voter(1), voter(2), voter(3), new(4), new(5)], &[]), Next::Demote(5));
}

/// A leader of node id 1, whose members follow the rows, and the duty.
async fn leader(first: &State) -> (tempfile::TempDir, VoterParts) {
    let (dir, voter) = alone_in(Uuid::new_v4(), first);
    let mut status = voter.consensus.status();
    let leads = status.wait_for(|status| status.role == Role::Leader);
    timeout(BOUND, leads).await.expect("a leader").unwrap();
    tokio::spawn(follow_the_rows(voter.clone()));
    (dir, voter)
}

fn report(voter: &VoterParts, node_id: NodeId) {
    let (oldest, newest) = (SPEAKS.oldest().number(), SPEAKS.newest().number());
    let status = NodeStatus {
        node_id,
        epoch: 1_000,
        oldest_version: oldest,
        newest_version: newest,
        ..Default::default()
    };
    voter.table.record(status);
}

fn seats(voter: &VoterParts) -> Vec<(NodeId, u64)> {
    let life = |node: &Node| (node.id, node.life().map_or(0, RaftId::get));
    voter.state.read(|state| state.seated().map(life).collect())
}

/// Waits until it is so. The statuses of the nodes in `up` are repeated meanwhile.
async fn until(
    voter: &VoterParts,
    up: &[NodeId],
    is_so: impl Fn() -> bool,
    found: impl Fn() -> String,
) {
    let mut revision = voter.state.revision();
    let settled = async {
        while !is_so() {
            up.iter().for_each(|id| report(voter, *id));
            // No event says that a status is old.
            drop(timeout(Duration::from_millis(100), revision.changed()).await);
        }
    };
    timeout(BOUND, settled).await.unwrap_or_else(|_| panic!("{}", found()));
}

/// Waits for these seats, each of a node and by a Raft id.
async fn until_seats(voter: &VoterParts, up: &[NodeId], wanted: &[(NodeId, u64)]) {
    let found = || format!("{:?}, not {wanted:?}", seats(voter));
    until(voter, up, || seats(voter) == wanted, found).await;
}

/// Waits until just these nodes have a seat.
async fn until_seated(voter: &VoterParts, up: &[NodeId], wanted: &[NodeId]) -> Vec<(NodeId, u64)> {
    let nodes = || -> Vec<NodeId> { seats(voter).into_iter().map(|(node, _)| node).collect() };
    until(voter, up, || nodes() == wanted, || format!("{:?}, not {wanted:?}", nodes())).await;
    seats(voter)
}

/// Nobody is behind the rows of the others here, so that nobody follows the log.
#[tokio::test]
async fn an_agent_that_does_not_take_its_seat_is_given_up_and_another_is_asked() {
    let (_dir, voter) = leader(&State::new(Version::V2).with_voters(Voters::Three)).await;
    for number in 1..=6 {
        register(&voter, number).await;
    }
    assert_eq!(seats(&voter), [(1, 1), (2, 2), (3, 3)]);
    let second = Duration::from_secs(1);
    let patience = Patience { voter: Some(second), learner: second };
    let duty = tokio::spawn(arrange(voter.clone(), patience));
    // Nodes 2 and 3 never come. Node 4 is down, too; 5 and 6 are up, and do not take the seat.
    let up = [5, 6];
    until_seats(&voter, &up, &[(1, 1), (2, 2), (3, 3), (5, 4)]).await;
    until_seats(&voter, &up, &[(1, 1), (2, 2), (3, 3), (6, 5)]).await;
    until_seats(&voter, &up, &[(1, 1), (2, 2), (3, 3), (5, 6)]).await;
    // The leader alone decides by another wish.
    write(&voter, Command::SetVoters { voters: Voters::One }).await;
    until_seated(&voter, &up, &[1]).await;
    assert_eq!(voter.consensus.status().borrow().voters, [1]);
    write(&voter, Command::SetVoters { voters: Voters::Three }).await;
    let lives = until_seated(&voter, &up, &[1, 5, 6]).await;
    assert!(lives.iter().skip(1).all(|(_, life)| *life > 6), "{lives:?}");
    voter.consensus.shutdown().await;
    timeout(BOUND, duty).await.expect("it ends with consensus").unwrap();
}

#[tokio::test]
async fn who_was_demoted_by_an_operator_gets_no_seat_by_itself() {
    let (_dir, voter) = leader(&State::new(Version::V2).with_voters(Voters::Three)).await;
    for number in 1..=3 {
        register(&voter, number).await;
    }
    let demote = |number: u8, for_good| Command::Demote {
        name: format!("h{number}").parse().unwrap(),
        only: None,
        ended: None,
        for_good,
    };
    write(&voter, demote(2, true)).await;
    write(&voter, demote(3, false)).await;
    tokio::spawn(arrange_the_seats(voter.clone(), None));
    until_seats(&voter, &[1, 2, 3], &[(1, 1), (3, 4)]).await;
    let nobody: &[NodeId] = &[];
    assert_eq!(voter.state.read(|state| able(state, &voter.table, &Followed::default())), nobody);
    voter.consensus.shutdown().await;
}
