//! Everything at once, at random: losses, doubles, delays, cuts, crashes, failing disks, snapshots
//! and members that come and go.
//!
//! A run is its seed: `SEED=n cargo test -p overlay-ctl random_` replays one, `SEEDS=n` runs that
//! many.

use std::collections::BTreeSet;

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::harness::{Cluster, Pending};
use crate::control::consensus::{ConsensusConfig, Role};

enum Change {
    Add,
    Remove(u64),
}

/// What was asked and answered so far.
#[derive(Default)]
struct Run {
    proposed: BTreeSet<String>,
    acknowledged: BTreeSet<(u64, String)>,
    writes: Vec<(String, Pending<(u64, usize)>)>,
    /// The highest acknowledged index at the time of asking.
    reads: Vec<(u64, Pending<u64>)>,
    changes: Vec<(Change, Pending<u64>)>,
    /// Leaders by term: a term has one at most, over all the run.
    leaders: BTreeSet<(u64, u64)>,
    /// Removed for good; they may keep running, unaware.
    retired: BTreeSet<u64>,
    newest: u64,
    done_changes: usize,
    done_reads: usize,
}

impl Run {
    fn step(&mut self, cluster: &mut Cluster, number: usize, churn: bool) {
        let nodes = self.newest;
        let any = |cluster: &mut Cluster| 1 + cluster.rng.below(nodes);
        match cluster.rng.below(100) {
            0..2 => {
                let id = any(cluster);
                if !cluster.running().contains(&id) {
                    cluster.start(id);
                } else if cluster.rng.percent(50) {
                    cluster.stop(id);
                } else {
                    cluster.kill(id);
                }
            }
            2 => {
                for id in 1..=nodes {
                    if !cluster.running().contains(&id) {
                        cluster.start(id);
                    }
                }
            }
            3 => {
                if let Some(id) = self.pick(cluster) {
                    cluster.pump_on_a_failing_disk(id);
                }
            }
            4 => {
                let id = any(cluster);
                cluster.isolate(id);
            }
            5 => {
                let (a, b) = (any(cluster), any(cluster));
                cluster.cut(a, b);
            }
            6..13 => cluster.heal(),
            13 => cluster.loss = cluster.rng.below(30),
            14..45 => {
                if let Some(id) = self.pick(cluster) {
                    let command = number.to_string();
                    self.proposed.insert(command.clone());
                    let answer = cluster.propose(id, &command);
                    self.writes.push((command, answer));
                }
            }
            45..52 => {
                if let Some(id) = self.pick(cluster) {
                    let floor = self.acknowledged.last().map_or(0, |(index, _)| *index);
                    self.reads.push((floor, cluster.read(id)));
                }
            }
            52..54 if churn => self.change(cluster),
            54..58 => cluster.shuffle(),
            _ => {
                for id in cluster.running() {
                    if cluster.rng.percent(85) {
                        cluster.node(id).tick();
                    }
                }
            }
        }
        // Only some of what is under way: an answer may overtake a crash, or not.
        for id in cluster.running() {
            if cluster.rng.percent(80) {
                cluster.pump(id);
            }
        }
        for _ in 0..cluster.rng.below(16) {
            cluster.deliver();
        }
        self.collect(cluster);
    }

    /// The leader half of the time, or hardly anything would ever be proposed.
    fn pick(&self, cluster: &mut Cluster) -> Option<u64> {
        let running = cluster.running();
        match cluster.leader() {
            Some(leader) if cluster.rng.percent(50) => Some(leader),
            _ if running.is_empty() => None,
            _ => Some(running[cluster.rng.below(running.len() as u64) as usize]),
        }
    }

    /// Adds a new member, or removes one that can be spared.
    fn change(&mut self, cluster: &mut Cluster) {
        let Some(leader) = cluster.leader() else { return };
        let status = cluster.status(leader);
        let (tx, rx) = oneshot::channel();
        if status.voters.len() + status.learners.len() < 4 {
            if self.newest < 12 {
                self.newest += 1;
                cluster.create(self.newest);
            }
            let id = self.newest;
            if !self.retired.contains(&id) {
                cluster.node(leader).add_learner(id, tx);
                self.changes.push((Change::Add, rx));
            }
        } else {
            let members = [status.voters, status.learners].concat();
            let id = members[cluster.rng.below(members.len() as u64) as usize];
            cluster.node(leader).remove(id, tx);
            self.changes.push((Change::Remove(id), rx));
        }
    }

    fn collect(&mut self, cluster: &mut Cluster) {
        let Self {
            acknowledged, writes, reads, changes, retired, done_changes, done_reads, ..
        } = self;
        writes.retain_mut(|(command, answer)| match answer.try_recv() {
            Ok(Ok((index, _))) => {
                acknowledged.insert((index, command.clone()));
                false
            }
            Err(TryRecvError::Empty) => true,
            Ok(Err(_)) | Err(TryRecvError::Closed) => false,
        });
        reads.retain_mut(|(floor, answer)| match answer.try_recv() {
            Ok(Ok(applied)) => {
                assert!(applied >= *floor, "a read shows {applied}, {floor} was acknowledged");
                *done_reads += 1;
                false
            }
            Err(TryRecvError::Empty) => true,
            Ok(Err(_)) | Err(TryRecvError::Closed) => false,
        });
        changes.retain_mut(|(change, answer)| match answer.try_recv() {
            Ok(Ok(_)) => {
                *done_changes += 1;
                if let Change::Remove(id) = change {
                    retired.insert(*id);
                }
                false
            }
            Err(TryRecvError::Empty) => true,
            Ok(Err(_)) | Err(TryRecvError::Closed) => false,
        });
        for id in cluster.running() {
            let status = cluster.status(id);
            if status.role == Role::Leader {
                self.leaders.insert((status.term, id));
            }
        }
        let terms: BTreeSet<_> = self.leaders.iter().map(|(term, _)| term).collect();
        assert_eq!(terms.len(), self.leaders.len(), "two leaders in a term: {:?}", self.leaders);
    }

    /// The network heals, everybody comes back, and all agree.
    fn finish(mut self, cluster: &mut Cluster) {
        cluster.heal();
        for id in 1..=self.newest {
            if !cluster.running().contains(&id) && !self.retired.contains(&id) {
                cluster.start(id);
            }
        }
        for id in self.retired.clone() {
            if cluster.running().contains(&id) {
                cluster.stop(id);
            }
        }
        cluster.until("a leader", |cluster| cluster.leader().is_some());
        cluster.commit("last");
        self.proposed.insert("last".into());
        let leader = cluster.leader().expect("a leader");
        let status = cluster.status(leader);
        let members = [status.voters, status.learners].concat();
        for id in cluster.running() {
            // Never became one, or was removed without anybody being told.
            if !members.contains(&id) {
                cluster.stop(id);
            }
        }
        cluster.assert_equal();
        let held: BTreeSet<_> = cluster
            .ledger(leader)
            .commands
            .iter()
            .map(|(index, command)| (*index, String::from_utf8(command.clone()).unwrap()))
            .collect();
        println!(
            "  {} proposed, {} held, {} acknowledged, {} reads, {} membership changes, {} terms led",
            self.proposed.len(),
            held.len(),
            self.acknowledged.len(),
            self.done_reads,
            self.done_changes,
            self.leaders.len(),
        );
        let lost: Vec<_> = self.acknowledged.difference(&held).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let commands: BTreeSet<_> = held.iter().map(|(_, command)| command.clone()).collect();
        assert_eq!(commands.len(), held.len(), "a command took effect twice");
        assert!(commands.is_subset(&self.proposed), "a command that nobody proposed");
        assert!(!self.acknowledged.is_empty() && self.done_reads > 0, "the run did nothing");
    }
}

fn random_run(seed: u64, steps: usize, churn: bool) {
    println!("SEED={seed} churn={churn}");
    let config = ConsensusConfig {
        // The engine's own randomness can't be seeded: none, and uneven ticks instead.
        max_election_ticks: ConsensusConfig::default().election_ticks + 1,
        snapshot_every: 15,
        keep_entries: 5,
        snapshot_ticks: 30,
        ..ConsensusConfig::default()
    };
    let mut cluster = Cluster::of_three(config);
    cluster.rng.0 = seed;
    let mut run = Run { newest: 3, ..Run::default() };
    for number in 0..steps {
        run.step(&mut cluster, number, churn);
    }
    run.finish(&mut cluster);
}

fn seeds(fixed: u64) -> Vec<u64> {
    if let Some(count) = std::env::var("SEEDS").ok().and_then(|count| count.parse().ok()) {
        return (0..count).collect();
    }
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..fixed).chain([uuid::Uuid::new_v4().as_u64_pair().0]).collect(),
    }
}

#[test]
fn random_faults_lose_nothing() {
    for seed in seeds(4) {
        random_run(seed, 1_500, false);
    }
}

#[test]
fn random_members_lose_nothing() {
    for seed in seeds(4) {
        random_run(seed, 1_500, true);
    }
}
