//! Everything at once, at random: losses, doubles, delays, cuts of one way and both, crashes, power cuts,
//! failing disks, nodes that stand still, clocks that run apart, snapshots, members that come and go, and
//! agents that change voters.
//!
//! A run is its seed: `SEED=n cargo test -p overlay-ctl random_` replays one, `SEEDS=n` runs that
//! many.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{
    agents::{AGENTS, Agent},
    commands,
    harness::{Cluster, Pending},
};
use crate::{
    control::{
        consensus::{ConsensusConfig, Role},
        state::{Applied, Outcome, Refusal},
    },
    seeded::{Rng, seeds},
};

type Write = Pending<(u64, usize)>;

enum Change {
    Add,
    Remove(u64),
}

/// What was asked and answered so far.
#[derive(Default)]
struct Run {
    /// How often each entry was proposed.
    proposed: BTreeMap<Vec<u8>, usize>,
    acknowledged: BTreeSet<(u64, Vec<u8>)>,
    /// The first answer to each entry, and its index: any later one says the same.
    outcomes: BTreeMap<Vec<u8>, (u64, Outcome)>,
    /// Those whose answer was lost, so that nobody knows what came of them.
    unknown: Vec<Vec<u8>>,
    writes: Vec<(Vec<u8>, Write)>,
    /// The highest acknowledged index at the time of asking.
    reads: Vec<(u64, Pending<u64>)>,
    changes: Vec<(Change, Pending<u64>)>,
    agents: Vec<Agent>,
    /// Leaders by term: a term has one at most, over all the run.
    leaders: BTreeSet<(u64, u64)>,
    /// Removed for good; they may keep running, unaware.
    retired: BTreeSet<u64>,
    newest: u64,
    done_changes: usize,
    done_reads: usize,
    answered_again: usize,
}

impl Run {
    fn step(&mut self, cluster: &mut Cluster, number: u64, churn: bool) {
        let nodes = self.newest;
        let any = |cluster: &mut Cluster| 1 + cluster.rng.below(nodes);
        match cluster.rng.below(110) {
            0..2 => {
                let id = any(cluster);
                match cluster.rng.below(3) {
                    _ if !cluster.running().contains(&id) => cluster.start(id),
                    0 => cluster.stop(id),
                    1 => cluster.kill(id),
                    _ => cluster.cut_power(id),
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
                match cluster.rng.below(3) {
                    0 => cluster.cut(a, b),
                    _ => cluster.cut_one_way(a, b),
                }
            }
            6..13 => cluster.heal(),
            13 => cluster.loss = cluster.rng.below(30),
            14..45 => {
                if let Some(id) = self.pick(cluster) {
                    let command = commands::any(&mut cluster.rng);
                    self.propose(cluster, id, commands::entry(number, command));
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
            58..100 => cluster.advance(),
            100 => {
                let (from, to) = (any(cluster), any(cluster));
                let ticks = cluster.rng.below(12);
                cluster.set_delay(from, to, ticks);
            }
            101 => {
                let (id, pace) = (any(cluster), 30 + cluster.rng.below(71));
                cluster.set_pace(id, pace);
            }
            102 => {
                if let Some(id) = self.pick(cluster) {
                    cluster.pause(id);
                }
            }
            // Whoever got no answer asks again, with the same request id, and perhaps another node.
            103..107 => {
                if let (Some(id), false) = (self.pick(cluster), self.unknown.is_empty()) {
                    let which = cluster.rng.below(self.unknown.len() as u64) as usize;
                    let entry = self.unknown.swap_remove(which);
                    self.propose(cluster, id, entry);
                }
            }
            _ => {
                for agent in &mut self.agents {
                    if cluster.rng.percent(40) {
                        agent.follow(cluster);
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

    fn propose(&mut self, cluster: &mut Cluster, at: u64, entry: Vec<u8>) {
        *self.proposed.entry(entry.clone()).or_default() += 1;
        let answer = cluster.propose_entry(at, entry.clone());
        self.writes.push((entry, answer));
    }

    /// The leader half of the time, or hardly anything would ever be proposed.
    fn pick(&self, cluster: &mut Cluster) -> Option<u64> {
        match cluster.leader() {
            Some(leader) if cluster.rng.percent(50) => Some(leader),
            _ => {
                let running = cluster.running();
                cluster.rng.pick(&running)
            }
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
            acknowledged,
            outcomes,
            unknown,
            writes,
            reads,
            changes,
            retired,
            done_changes,
            done_reads,
            answered_again,
            ..
        } = self;
        writes.retain_mut(|(entry, answer)| match answer.try_recv() {
            Ok(Ok((index, _))) => {
                let outcome = cluster.oracle.outcome(index);
                let mut answer = (index, outcome);
                if let Some(mut first) = outcomes.remove(entry) {
                    if answer.0 < first.0 {
                        std::mem::swap(&mut first, &mut answer);
                    }
                    assert!(is_repeated(&first.1, &answer.1), "{first:?}, then {answer:?}");
                    *answered_again += 1;
                    answer = first;
                }
                outcomes.insert(entry.clone(), answer);
                acknowledged.insert((index, entry.clone()));
                // Its caller may not have got the answer.
                if cluster.rng.percent(10) {
                    unknown.push(entry.clone());
                }
                false
            }
            Err(TryRecvError::Empty) => true,
            Ok(Err(_)) | Err(TryRecvError::Closed) => {
                unknown.push(entry.clone());
                false
            }
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
        let last = commands::entry(u64::MAX, commands::registration(1, 9));
        // A leader that is to be removed hands over first, so it may take more than one attempt.
        for times in 1.. {
            assert!(times < 200, "nobody commits anything");
            self.proposed.insert(last.clone(), times);
            cluster.until("a leader", |cluster| cluster.leader().is_some());
            let leader = cluster.leader().expect("a leader");
            let mut answer = cluster.propose_entry(leader, last.clone());
            if cluster.answer(&mut answer).is_ok() {
                break;
            }
            // A leader that hands over refuses at once, for as long as its messages are on their way.
            cluster.tick();
        }
        // Whoever is on the way out votes until the change is done.
        cluster.until("a leader out of a joint configuration", |cluster| {
            cluster.leader().is_some_and(|leader| cluster.status(leader).outgoing.is_empty())
        });
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
        for agent in &mut self.agents {
            agent.take(cluster, leader);
        }
        let held: BTreeSet<_> = cluster.ledger(leader).commands.iter().cloned().collect();
        println!(
            "  {} proposed, {} held, {} acknowledged, {} again, {} reads, {} deltas, {} membership \
             changes, {} terms led",
            self.proposed.len(),
            held.len(),
            self.acknowledged.len(),
            self.answered_again,
            self.done_reads,
            self.agents.iter().map(|agent| agent.deltas).sum::<usize>(),
            self.done_changes,
            self.leaders.len(),
        );
        let lost: Vec<_> = self.acknowledged.difference(&held).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let mut times = BTreeMap::<_, usize>::new();
        for (_, entry) in &held {
            *times.entry(entry).or_default() += 1;
        }
        for (entry, times) in times {
            let proposed = self.proposed.get(entry).copied().unwrap_or_default();
            assert!(times <= proposed, "proposed {proposed} times and there {times} times");
        }
        assert!(!self.acknowledged.is_empty() && self.done_reads > 0, "the run did nothing");
    }
}

/// Returns true if the outcome of a repeated request says what the first one did. It shows the row as it
/// is by then, or says that the row is gone.
fn is_repeated(first: &Outcome, again: &Outcome) -> bool {
    match (first, again) {
        (Ok(Applied::Network(first)), Ok(Applied::Network(again))) => first.id == again.id,
        (Ok(Applied::Endpoint(first)), Ok(Applied::Endpoint(again))) => first.id == again.id,
        (Ok(Applied::Node(first)), Ok(Applied::Node(again))) => first.id == again.id,
        (Ok(Applied::Network(first)), Err(Refusal::Gone { what })) => {
            *what == format!("network {}", first.name)
        }
        (Ok(Applied::Endpoint(first)), Err(Refusal::Gone { what })) => {
            *what == format!("endpoint {}", first.name)
        }
        _ => first == again,
    }
}

fn random_run(seed: u64, steps: u64, churn: bool) {
    let mut rng = Rng::new(seed);
    let config = ConsensusConfig {
        snapshot_every: 3 + rng.below(30),
        keep_entries: rng.below(8),
        snapshot_ticks: 30,
        ..ConsensusConfig::default()
    };
    let remembered = 1 + rng.below(40) as usize;
    println!(
        "  churn: {churn}, a snapshot every {}, {} entries kept, {remembered} changes remembered",
        config.snapshot_every, config.keep_entries
    );
    let mut cluster = Cluster::seeded(config, rng, remembered).grown();
    let mut run = Run { newest: 3, agents: Agent::all(), ..Run::default() };
    for agent in AGENTS {
        let entry = commands::entry(u64::MAX - agent, commands::registration(agent, 0));
        cluster.commit_entry(entry.clone());
        run.proposed.insert(entry, 1);
    }
    for number in 0..steps {
        run.step(&mut cluster, number, churn);
    }
    run.finish(&mut cluster);
}

#[test]
fn random_faults_lose_nothing() {
    for seed in seeds(5) {
        random_run(seed, 1_500, false);
    }
}

#[test]
fn random_members_lose_nothing() {
    for seed in seeds(5) {
        random_run(seed, 1_500, true);
    }
}
