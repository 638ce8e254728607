//! Whom the leader takes for dead.

use super::*;
use crate::control::state::State;
use crate::{
    control::voter::tests::{alone, register, stand_still, until, write},
    model::SPEAKS,
    proto::internal::{NodeStatus, ProbeStatus},
};
use std::collections::BTreeMap;
use tokio::time::advance;

const LEASE: Duration = Duration::from_secs(30);
const BOUND: Duration = Duration::from_secs(60);

/// A node that is heard.
fn heard(id: NodeId) -> Known {
    Known {
        id,
        name: format!("h{id}").parse().unwrap(),
        epoch: 10 + id,
        lease: Lease::Held,
        silence: Duration::from_millis(500),
        probed: Probed::default(),
    }
}

/// One that was not heard for so long.
fn silent(id: NodeId, seconds: u64) -> Known {
    Known { silence: Duration::from_secs(seconds), ..heard(id) }
}

fn by_two(answered: Option<u64>) -> Probed {
    let answered = answered.map(Duration::from_secs);
    Probed { answered, probers: 2, unanswered: 6 }
}

/// What becomes of the last of five nodes, of which the others are heard.
fn becomes(last: Known) -> Lease {
    let before = last.lease;
    let nodes = [heard(1), heard(2), heard(3), heard(4), last];
    let Found { changes, half_is_silent } = find(&nodes, LEASE);
    assert!(!half_is_silent && changes.len() < 2, "{changes:?}");
    assert!(changes.iter().all(|change| (change.id, change.epoch) == (5, 15)), "{changes:?}");
    changes.first().map_or(before, |change| change.to)
}

#[test]
fn a_node_is_lost_if_controllers_and_probes_hear_nothing_of_it() {
    let (held, doubted, lost) = (Lease::Held, Lease::Doubted, Lease::Lost);
    let none = Probed::default();
    for (lease, seconds, probed, expected) in [
        (held, 0, by_two(None), held),
        (held, 14, by_two(None), held),
        // For half of the lease: the others ask it.
        (held, 15, none, doubted),
        (held, 3_600, by_two(None), doubted),
        (doubted, 29, by_two(None), doubted),
        (doubted, 30, by_two(None), lost),
        (doubted, 30, by_two(Some(30)), lost),
        // It answers: it is cut off from the controllers alone, for ever.
        (doubted, 30, by_two(Some(29)), doubted),
        (doubted, 1_000_000, by_two(Some(1)), doubted),
        // Nobody asked it, or too few did.
        (doubted, 3_600, none, doubted),
        (doubted, 3_600, Probed { probers: 1, ..by_two(None) }, doubted),
        (doubted, 3_600, Probed { unanswered: 5, ..by_two(None) }, doubted),
        (lost, 3_600, by_two(None), lost),
        (lost, 3_600, none, lost),
        // It is back, to the controllers or to its peers.
        (lost, 3_600, by_two(Some(1)), doubted),
        (lost, 2, by_two(None), held),
        (doubted, 2, none, held),
    ] {
        let last = Known { lease, probed, ..silent(5, seconds) };
        assert_eq!(becomes(last), expected, "{lease:?}, silent for {seconds} s, {probed:?}");
    }
}

#[test]
fn where_half_of_the_nodes_are_silent_at_once_nobody_is_given_up() {
    let dead = |id| Known { lease: Lease::Doubted, probed: by_two(None), ..silent(id, 3_600) };
    let of = |nodes: &[Known]| {
        let found = find(nodes, LEASE);
        let changes = found.changes.iter().map(|change| (change.id, change.to));
        (changes.collect::<BTreeMap<_, _>>(), found.half_is_silent)
    };
    let none = BTreeMap::new();
    assert_eq!(of(&[heard(1), dead(2)]), (none.clone(), true), "of two");
    assert_eq!(of(&[heard(1), heard(2), dead(3), dead(4)]), (none.clone(), true));
    assert_eq!(
        of(&[heard(1), heard(2), silent(3, 20), silent(4, 20)]),
        (none, true),
        "nor doubted"
    );
    let lost = Known { lease: Lease::Lost, ..dead(4) };
    let one_after_the_other = [heard(1), heard(2), dead(3), lost.clone()];
    assert_eq!(of(&one_after_the_other), ([(3, Lease::Lost)].into(), false));
    let back = Known { silence: Duration::ZERO, ..lost };
    assert_eq!(of(&[heard(1), dead(2), dead(3), back]), ([(4, Lease::Held)].into(), true));
    assert_eq!(of(&[heard(1)]), (BTreeMap::new(), false));
}

fn unanswered(node_id: NodeId) -> ProbeStatus {
    ProbeStatus { node_id, asked_ms_ago: 0, answered_ms_ago: None, unanswered: 3 }
}

fn status(node_id: NodeId, probes: Vec<ProbeStatus>) -> NodeStatus {
    NodeStatus { node_id, epoch: 100, probes, ..NodeStatus::default() }
}

/// A leader with a log, and so many nodes.
async fn leading(nodes: u8) -> (tempfile::TempDir, VoterParts) {
    let (dir, voter) = alone();
    until(&voter, |status| status.role == Role::Leader).await;
    for number in 1..=nodes {
        register(&voter, number).await;
    }
    (dir, voter)
}

/// Three nodes report, and what they report of the fourth decides.
#[tokio::test(start_paused = true)]
async fn the_leader_notes_in_the_log_who_is_lost_and_who_is_back() {
    let still = stand_still();
    let (_dir, voter) = leading(4).await;
    let speaks = (1..=4).map(|id| (id, SPEAKS)).collect();
    write(&voter, Command::RaiseVersion { to: Version::V2, speaks }).await;
    let lease_of = |id| voter.state.read(|state| state.node(id).map(|node| node.lease)).unwrap();
    let mut keeper = Keeper { lease: LEASE, looked: None, said_half: false };
    voter.table.listen_anew();
    let mut leases = Vec::new();
    for second in 0..32 {
        for id in 1..=3 {
            voter.table.record(status(id, vec![unanswered(4)]));
        }
        keeper.look(&voter).await;
        if leases.last().is_none_or(|(_, lease)| *lease != lease_of(4)) {
            leases.push((second, lease_of(4)));
        }
        advance(Duration::from_secs(1)).await;
    }
    let seen: Vec<Lease> = leases.iter().map(|(_, lease)| *lease).collect();
    assert_eq!(seen, [Lease::Held, Lease::Doubted, Lease::Lost], "{leases:?}");
    assert!(leases[1].0 >= 14 && leases[2].0 >= 29, "{leases:?}");
    assert!([1, 2, 3].map(lease_of).iter().all(Lease::is_held));

    // Its VTEP answers somebody, and then a controller hears it.
    let answered = ProbeStatus { answered_ms_ago: Some(0), unanswered: 0, ..unanswered(4) };
    (1..=3).for_each(|id| voter.table.record(status(id, vec![answered])));
    keeper.look(&voter).await;
    assert_eq!(lease_of(4), Lease::Doubted);
    voter.table.record(status(4, Vec::new()));
    keeper.look(&voter).await;
    assert_eq!(lease_of(4), Lease::Held);

    // A leader that stood still itself has missed what was sent to it.
    advance(LEASE * 2).await;
    keeper.look(&voter).await;
    assert!((1..=4).all(|id| lease_of(id).is_held()));
    assert!(!voter.table.is_half_silent(), "it begins anew");
    drop(still);
    voter.consensus.shutdown().await;
}

/// Nodes of version 1 could not read the row.
#[tokio::test(start_paused = true)]
async fn at_version_1_nothing_is_noted() {
    let still = stand_still();
    let (_dir, voter) = leading(3).await;
    let mut keeper = Keeper { lease: LEASE, looked: None, said_half: false };
    let revision = voter.state.read(State::revision);
    for _ in 0..40 {
        (1..=2).for_each(|id| voter.table.record(status(id, vec![unanswered(3)])));
        keeper.look(&voter).await;
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(voter.state.read(State::revision), revision);
    drop(still);
    let end = tokio::spawn(keep_leases(voter.clone(), LEASE));
    voter.consensus.shutdown().await;
    timeout(BOUND, end).await.expect("it ends with consensus").unwrap();
}
