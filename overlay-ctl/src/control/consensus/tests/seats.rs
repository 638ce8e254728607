//! Learners get votes under load, and the vote of a member that is gone.

use super::{
    harness::Cluster,
    membership::{goes_on, of_two, remove},
};
use crate::control::consensus::ConsensusConfig;

/// New entries come faster than they reach the learners, so that those never hold all of them.
#[test]
fn learners_become_voters_under_load() {
    let mut cluster = of_two();
    for id in [2, 3] {
        cluster.set_delay(1, id, 3);
    }
    cluster.join(3);
    for tick in 0..300 {
        for number in 0..40 {
            drop(cluster.propose(1, &format!("{tick} {number}")));
        }
        cluster.tick();
        if cluster.status(1).voters == [1, 2, 3] {
            return;
        }
    }
    panic!("{:?}", cluster.status(1));
}

/// As the leader replaces a voter that is down for good: its successor is a learner first, and the vote goes over in one step.
#[test]
fn a_dead_voter_s_vote_goes_to_a_learner_that_has_caught_up() {
    let mut cluster = Cluster::of_three(ConsensusConfig::default());
    cluster.commit("before");
    let dead = cluster.leader().unwrap();
    cluster.stop(dead);
    cluster.commit("without it");
    cluster.join(4);
    cluster.until("the learner has caught up", |cluster| {
        let leader = cluster.leader();
        leader.is_some_and(|leader| cluster.status(leader).caught_up == [4])
    });
    remove(&mut cluster, dead);
    let mut voters: Vec<u64> = (1..=4).filter(|id| *id != dead).collect();
    voters.sort_unstable();
    goes_on(&mut cluster, &voters, &[]);
}
