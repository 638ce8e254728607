//! What a cluster does when a disk fails, or the power does.

use super::{commands, harness::Cluster};
use crate::{
    control::consensus::{ConsensusConfig, FatalError, Transport, Undeliverable},
    durable::simulated::Fault,
    seeded::{Rng, seeds},
};

fn config() -> ConsensusConfig {
    ConsensusConfig::default()
}

#[test]
fn a_disk_that_fails_stops_the_node_before_it_promises_anything() {
    struct Counting(usize);
    impl Transport for Counting {
        fn send(&mut self, _: u64, _: Vec<u8>, _: bool) -> Result<(), Undeliverable> {
            self.0 += 1;
            Ok(())
        }
    }
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let mut pending = cluster.propose(leader, "a");
    cluster.pump(leader);
    while cluster.deliver() {}
    cluster.disk(follower).fail_at(0, Fault::Before);
    let mut counting = Counting(0);
    let result = cluster.node(follower).pump(&mut counting);
    assert!(matches!(result, Err(FatalError::Store(_))), "{result:?}");
    assert_eq!(counting.0, 0, "nothing left the node");
    // The others go on, and the node comes back from what its disk holds.
    cluster.kill(follower);
    cluster.answer(&mut pending).unwrap();
    cluster.start(follower);
    cluster.assert_equal();
}

/// A write that is committed is answered, though the disk fails under the next one.
#[test]
fn an_answer_does_not_wait_for_the_disk() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let mut committed = cluster.propose(leader, "committed");
    cluster.pump(leader);
    while cluster.deliver() {}
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.pump(id);
    }
    while cluster.deliver() {}
    let mut next = cluster.propose(leader, "next");
    cluster.disk(leader).fail_at(0, Fault::Before);
    cluster.ends.insert(leader, None);
    cluster.pump(leader);
    assert!(cluster.ends[&leader].is_some(), "the disk failed");
    committed.try_recv().unwrap().unwrap();
    assert!(next.try_recv().is_err(), "nobody knows");
}

/// The power goes everywhere at once. What was acknowledged is there afterwards, and nobody votes twice
/// in a term.
#[test]
fn a_power_cut_of_all_loses_nothing_that_was_acknowledged() {
    for seed in seeds(10) {
        let limits = ConsensusConfig { snapshot_every: 12, keep_entries: 2, ..config() };
        let mut cluster = Cluster::seeded(limits, Rng::new(seed), 1_000).grown();
        let mut acknowledged = Vec::new();
        for round in 0..6 {
            for number in 0..5 {
                let command = format!("{round}/{number}");
                acknowledged.push((cluster.commit(&command), commands::word(&command)));
            }
            // Some more are under way.
            let leader = cluster.leader().unwrap();
            for number in 0..3 {
                drop(cluster.propose(leader, &format!("{round}/late/{number}")));
                cluster.pump(leader);
                cluster.deliver();
            }
            for id in 1..=3 {
                cluster.cut_power(id);
            }
            for id in 1..=3 {
                cluster.start(id);
            }
            cluster.commit(&format!("{round}/after"));
            cluster.assert_equal();
            let held = &cluster.ledger(1).commands;
            let lost: Vec<_> = acknowledged.iter().filter(|one| !held.contains(one)).collect();
            assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        }
    }
}
