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
    seat(node, Condition::Heard, true, true)
}

fn dead(node: NodeId) -> Seated {
    seat(node, Condition::Gone, true, true)
}

/// It is up, and does not hold the log yet.
fn new(node: NodeId) -> Seated {
    seat(node, Condition::Heard, false, false)
}

/// The leader is 1, and three are to vote.
fn of_three(seats: &[Seated], agents: &[NodeId]) -> Next {
    next(1, 3, seats, &agents.iter().copied().collect())
}

fn promote(node: NodeId, instead_of: Option<NodeId>) -> Next {
    Next::Promote { node, instead_of }
}

#[test]
fn a_free_seat_is_given_to_the_agent_of_the_lowest_id() {
    assert_eq!(of_three(&[voter(1), voter(2)], &[9, 7]), promote(7, None));
    assert_eq!(of_three(&[voter(1), voter(2)], &[]), Next::Rest);
    assert_eq!(of_three(&[voter(1), voter(2), voter(3)], &[4]), Next::Rest);
    let five = |seats: &[Seated]| next(1, 5, seats, &[4, 5, 6].into());
    assert_eq!(five(&[voter(1), voter(2), voter(3)]), promote(4, None));
}

#[test]
fn who_is_gone_loses_its_seat_when_its_successor_holds_the_log() {
    let seats = [voter(1), voter(2), dead(3)];
    assert_eq!(of_three(&seats, &[4]), promote(4, Some(3)));
    assert_eq!(of_three(&seats, &[]), Next::Rest, "nobody could take its place");
    let silent = seat(3, Condition::Silent, true, true);
    assert_eq!(of_three(&[voter(1), voter(2), silent], &[4]), Next::Rest);
    let seats = |successor| [voter(1), voter(2), dead(3), successor];
    assert_eq!(of_three(&seats(new(4)), &[5]), Next::Rest);
    let away = Seated { condition: Condition::Silent, ..new(4) };
    assert_eq!(of_three(&seats(away), &[5]), Next::Rest, "it may be back in a moment");
    assert_eq!(of_three(&seats(Seated { holds_log: true, ..new(4) }), &[5]), Next::Demote(3));
    // The successor is gone, too: it goes first, and another one comes.
    let gone = Seated { condition: Condition::Gone, ..new(4) };
    assert_eq!(of_three(&seats(gone), &[5]), Next::Demote(4));
    // Who was taken for dead is back before its successor is in.
    let back = [voter(1), voter(2), voter(3), new(4)];
    assert_eq!(of_three(&back, &[]), Next::Demote(4));
}

#[test]
fn of_too_many_the_leader_keeps_its_seat_and_those_who_vote() {
    let five = [voter(1), voter(2), voter(3), voter(4), voter(5)];
    assert_eq!(of_three(&five, &[]), Next::Demote(5));
    let leader_is_5 = |seats: &[Seated]| next(5, 3, seats, &BTreeSet::new());
    assert_eq!(leader_is_5(&five), Next::Demote(4));
    let learner = Seated { votes: false, ..voter(2) };
    assert_eq!(of_three(&[voter(1), learner, voter(3), voter(4)], &[]), Next::Demote(2));
    assert_eq!(of_three(&[voter(1), voter(2), voter(3), dead(4)], &[]), Next::Demote(4));
    assert_eq!(next(1, 1, &[voter(1)], &[2].into()), Next::Rest);
    // One that does not hold the log is not waited for where all are up.
    assert_eq!(of_three(&[voter(1), voter(2), voter(3), new(4), new(5)], &[]), Next::Demote(5));
}

#[tokio::test(start_paused = true)]
async fn silence_counts_from_when_the_leader_began_to_lead() {
    let patience = Some(Duration::from_secs(600));
    let mut heard = LastHeard::default();
    let look = |heard: &mut LastHeard, term, is_heard| {
        heard.look(term, &[(2, is_heard)].into(), Instant::now());
    };
    let now = |heard: &LastHeard| heard.condition(2, Instant::now(), patience);
    look(&mut heard, 5, false);
    assert_eq!(now(&heard), Condition::Heard, "it had no time to be heard");
    tokio::time::advance(Duration::from_secs(599)).await;
    look(&mut heard, 5, false);
    assert_eq!(now(&heard), Condition::Silent);
    tokio::time::advance(Duration::from_secs(1)).await;
    look(&mut heard, 5, false);
    assert_eq!(now(&heard), Condition::Gone);
    assert_eq!(heard.condition(2, Instant::now(), None), Condition::Silent, "without a limit");
    look(&mut heard, 5, true);
    assert_eq!(now(&heard), Condition::Heard);
    tokio::time::advance(Duration::from_secs(600)).await;
    look(&mut heard, 6, false);
    assert_eq!(now(&heard), Condition::Heard, "a later term");
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

/// Waits for these seats. The statuses of the nodes in `up` are repeated meanwhile.
async fn until_seats(voter: &VoterParts, up: &[NodeId], wanted: &[(NodeId, u64)]) {
    let mut revision = voter.state.revision();
    let settled = async {
        while seats(voter) != wanted {
            up.iter().for_each(|id| report(voter, *id));
            // No event says that a status is old.
            drop(timeout(Duration::from_millis(100), revision.changed()).await);
        }
    };
    let found = || seats(voter);
    timeout(BOUND, settled).await.unwrap_or_else(|_| panic!("{:?}, not {wanted:?}", found()));
}

#[tokio::test]
async fn a_node_that_never_comes_is_replaced_by_an_agent_that_is_up() {
    let (_dir, voter) = leader(&State::new(Version::V2).with_voters(Voters::Three)).await;
    for number in 1..=5 {
        register(&voter, number).await;
    }
    assert_eq!(seats(&voter), [(1, 1), (2, 2), (3, 3)]);
    let duty = tokio::spawn(arrange_the_seats(voter.clone(), Some(Duration::from_secs(2))));
    // Node 2 is down, and never comes. Node 4 is, too; node 5 is up.
    until_seats(&voter, &[1, 3, 5], &[(1, 1), (2, 2), (3, 3), (5, 4)]).await;
    // Nobody is behind those rows, so that nobody catches up: the leader alone decides by another wish.
    write(&voter, Command::SetVoters { voters: Voters::One }).await;
    until_seats(&voter, &[1, 3, 5], &[(1, 1)]).await;
    assert_eq!(voter.consensus.status().borrow().voters, [1]);
    write(&voter, Command::SetVoters { voters: Voters::Three }).await;
    until_seats(&voter, &[1, 3, 5], &[(1, 1), (3, 5), (5, 6)]).await;
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
    assert_eq!(voter.state.read(|state| able(state, &voter.table)), [].into());
    voter.consensus.shutdown().await;
}
