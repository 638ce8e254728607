//! What a cluster does when a disk is slow. The time that passes while a node writes is simulated.

use super::harness::Cluster;
use crate::control::{
    consensus::ConsensusConfig,
    voter::disk::{DiskWatch, Step, successors},
};
use std::{collections::BTreeMap, time::Duration};

const SLOW: Duration = Duration::from_millis(300);
const FAST: Duration = Duration::from_millis(2);

/// Three voters, each of which looks after its disk.
struct Run {
    cluster: Cluster,
    watches: BTreeMap<u64, DiskWatch>,
    now: Duration,
    /// Who asked whom to lead.
    asked: Vec<(u64, u64)>,
    /// Who said that its disk is slow.
    said: Vec<u64>,
}

impl Run {
    fn new(sync_time: Duration) -> Self {
        let mut cluster = Cluster::of_three(ConsensusConfig::default());
        for id in 1..=3 {
            cluster.disk(id).set_sync_time(sync_time);
        }
        cluster.commit("before");
        cluster.assert_equal();
        let watches = (1..=3).map(|id| (id, DiskWatch::default())).collect();
        Self { cluster, watches, now: Duration::ZERO, asked: Vec::new(), said: Vec::new() }
    }

    /// One write a second for so many seconds, and all look after their disks.
    fn write(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.cluster.commit(&format!("{:?}", self.now));
            for (id, watch) in &mut self.watches {
                let status = self.cluster.status(*id);
                let others =
                    successors(&status, |other| Some(self.cluster.status(other.get()).disk));
                match watch.look(self.now, status.disk, &others) {
                    Step::HandOver(next) => {
                        self.cluster.node(*id).hand_over_to(next.member.get()).unwrap();
                        self.asked.push((*id, next.member.get()));
                    }
                    Step::SaySlow => self.said.push(*id),
                    Step::SayFast | Step::Rest => {}
                }
            }
            self.cluster.settle();
        }
    }
}

#[test]
fn a_leader_with_a_slow_disk_lets_another_voter_lead_and_no_more() {
    let mut run = Run::new(FAST);
    let leader = run.cluster.leader().unwrap();
    let term = run.cluster.status(leader).term;
    run.write(10);
    assert_eq!((run.asked.len(), run.said.len()), (0, 0), "all disks are fast");
    run.cluster.disk(leader).set_sync_time(SLOW);
    run.write(200);
    let [(from, to)] = run.asked[..] else { panic!("asked: {:?}", run.asked) };
    assert_eq!(from, leader);
    assert_eq!(run.cluster.leader(), Some(to));
    assert_eq!(run.cluster.status(to).term, term + 1, "there was one change of leader");
    assert!(run.said.iter().all(|id| *id == leader) && !run.said.is_empty(), "{:?}", run.said);
    run.cluster.assert_equal();
}

#[test]
fn a_leader_stays_if_all_disks_are_slow() {
    let mut run = Run::new(SLOW);
    let leader = run.cluster.leader().unwrap();
    let term = run.cluster.status(leader).term;
    run.write(200);
    assert_eq!(run.asked, []);
    assert_eq!((run.cluster.leader(), run.cluster.status(leader).term), (Some(leader), term));
    run.said.sort_unstable();
    run.said.dedup();
    assert_eq!(run.said, [1, 2, 3], "each says so");
}

#[test]
fn each_write_is_measured() {
    let mut cluster = Cluster::new(ConsensusConfig::default());
    let before = cluster.node(1).store().transactions();
    let measured = cluster.status(1).disk.writes;
    cluster.disk(1).set_sync_time(SLOW);
    for number in 0..20 {
        cluster.commit(&number.to_string());
    }
    let status = cluster.status(1);
    let transactions = cluster.node(1).store().transactions() - before;
    assert_eq!(status.disk.writes - measured, transactions);
    assert!(status.disk.average > SLOW / 2, "{:?}", status.disk);
    let writes = cluster.node(1).measures().writes();
    assert_eq!(writes.count(), status.disk.writes);
    assert!(writes.sum >= SLOW * 20, "{writes:?}");
}
