//! What a leader does before its end: another voter leads by then, if one can.

use super::harness::Cluster;
use crate::control::consensus::{ConsensusConfig, ProposeError, Role};

/// Three voters, and which of them leads.
fn of_three() -> (Cluster, u64) {
    let mut cluster = Cluster::of_three(ConsensusConfig::default());
    cluster.commit("before");
    cluster.assert_equal();
    let leader = cluster.leader().unwrap();
    (cluster, leader)
}

fn others(leader: u64) -> impl Iterator<Item = u64> {
    (1..=3).filter(move |id| *id != leader)
}

/// Lets a node that was told to stop go on for as long as it has to, and says how many ticks that took.
fn stop_in_order(cluster: &mut Cluster, id: u64) -> u64 {
    for ticks in 0..100 {
        cluster.settle();
        if cluster.node(id).may_stop() {
            cluster.stop(id);
            return ticks;
        }
        cluster.pump(id);
        cluster.tick();
    }
    panic!("it never stops");
}

/// The follower is asked to lead when it has the entries that it lacked.
#[test]
fn a_leader_stays_until_a_follower_that_lagged_leads() {
    let (mut cluster, leader) = of_three();
    let term = cluster.status(leader).term;
    for id in others(leader) {
        cluster.set_delay(leader, id, 2);
    }
    let mut late = cluster.propose(leader, "late");
    cluster.pump(leader);
    assert!(!cluster.node(leader).may_stop(), "nobody else has the entry");
    cluster.pump(leader);
    let mut refused = cluster.propose(leader, "refused");
    cluster.pump(leader);
    let refused = refused.try_recv().expect("an answer at once").unwrap_err();
    assert!(matches!(refused, ProposeError::NotLeader { leader: Some(_) }), "{refused}");

    stop_in_order(&mut cluster, leader);
    cluster.heal();
    let led: Vec<u64> =
        others(leader).filter(|id| cluster.status(*id).role == Role::Leader).collect();
    assert_eq!(led.len(), 1, "one of them led before the end");
    assert_eq!(cluster.status(led[0]).term, term + 1);
    // Its caller may have had no answer any more.
    drop(cluster.answer(&mut late));
    cluster.commit("after");
    assert_eq!(cluster.status(led[0]).term, term + 1, "there was no other election");
    cluster.assert_equal();
    let held = &cluster.ledger(led[0]).commands;
    assert_eq!(held.len(), 3, "what was proposed before the end is there: {held:?}");
}

#[test]
fn a_leader_whom_nobody_succeeds_stops_after_an_election_timeout() {
    let (mut cluster, leader) = of_three();
    // They were heard lately, so that one of them is asked.
    cluster.isolate(leader);
    let ticks = stop_in_order(&mut cluster, leader);
    let election = cluster.config.election_ticks as u64;
    // A clock of the simulation ticks in 85 of 100 ticks.
    assert!((election..3 * election).contains(&ticks), "{ticks} ticks");
}

#[test]
fn who_does_not_lead_and_who_is_alone_stop_at_once() {
    let (mut cluster, leader) = of_three();
    for id in others(leader) {
        assert!(cluster.node(id).may_stop(), "node {id}");
    }
    let mut alone = Cluster::new(ConsensusConfig::default());
    alone.commit("before");
    assert!(alone.node(1).may_stop());
}

#[test]
fn only_a_voter_that_can_lead_is_asked_to() {
    let (mut cluster, leader) = of_three();
    cluster.join(4);
    cluster.until("a learner", |cluster| cluster.status(leader).learners == [4]);
    let follower = others(leader).next().unwrap();
    for (at, next) in [(leader, 4), (leader, leader), (leader, 9)] {
        let refused = cluster.node(at).hand_over_to(next);
        assert!(matches!(refused, Err(ProposeError::Refused(_))), "{next}: {refused:?}");
    }
    let refused = cluster.node(follower).hand_over_to(leader);
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(leader) }));
    cluster.node(leader).hand_over_to(follower).unwrap();
    let again = cluster.node(leader).hand_over_to(follower);
    assert!(matches!(again, Err(ProposeError::Refused(_))), "{again:?}");
    // Meanwhile no change of the members begins, either.
    let (reply, mut refused) = tokio::sync::oneshot::channel();
    cluster.node(leader).add_learner(9, reply);
    let refused = refused.try_recv().expect("an answer at once");
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(follower) }));
    cluster.until("it leads", |cluster| cluster.leader() == Some(follower));
}
