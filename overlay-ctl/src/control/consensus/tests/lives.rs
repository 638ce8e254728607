//! A voter whose log is lost comes back as another member: its old life is out of the configuration before the new one
//! begins.

use super::{
    commands,
    harness::{Cluster, identity},
};
use crate::{
    control::consensus::{ConsensusConfig, FatalError, LogStore, OpenError, ProposeError},
    durable::{Folder, simulated::SimulatedFolder},
    seeded::Rng,
};

/// How a voter's log is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// The disk is new.
    Gone,
    /// The node finds at its start that the database is older than it was.
    Older,
    /// The folder is an older copy as a whole, and the leader proves it.
    Proved,
}

const LOSSES: [Loss; 3] = [Loss::Gone, Loss::Older, Loss::Proved];

/// Three voters of which one has lost its log and does not run, and what was acknowledged.
fn lost(how: Loss, leads: bool) -> (Cluster, u64, Vec<Vec<u8>>) {
    let mut cluster = Cluster::of_three(ConsensusConfig::default());
    let mut acknowledged = Vec::new();
    commit(&mut cluster, "before", &mut acknowledged);
    let leader = cluster.leader().unwrap();
    let victim = if leads { leader } else { (1..=3).find(|id| *id != leader).unwrap() };
    cluster.stop(victim);
    let copy = cluster.copy_folder(victim);
    cluster.start(victim);
    for n in 0..5 {
        commit(&mut cluster, &format!("since the copy {n}"), &mut acknowledged);
    }
    cluster.assert_equal();
    cluster.stop(victim);
    match how {
        Loss::Gone => cluster.put_back(victim, SimulatedFolder::default()),
        Loss::Older => {
            let mark = cluster.disk(victim).read("mark").unwrap();
            copy.replace("mark", &mark).unwrap();
            cluster.put_back(victim, copy);
            let opened = cluster.open(victim).map(drop);
            assert!(matches!(opened, Err(OpenError::Amnesia { .. })), "{opened:?}");
        }
        Loss::Proved => {
            cluster.put_back(victim, copy);
            cluster.ends.insert(victim, None);
            cluster.until("a leader", |cluster| cluster.leader().is_some());
            cluster.start(victim);
            cluster.until("it ends", |cluster| cluster.ends[&victim].is_some());
            let end = cluster.ends.remove(&victim).flatten();
            assert!(matches!(end, Some(FatalError::Unfit(_))), "{end:?}");
        }
    }
    (cluster, victim, acknowledged)
}

fn commit(cluster: &mut Cluster, word: &str, acknowledged: &mut Vec<Vec<u8>>) {
    cluster.commit(word);
    acknowledged.push(commands::word(word));
}

/// The node lets go of its log and begins that of `life`, on the same disk.
fn begin_anew(cluster: &mut Cluster, old: u64, life: u64) {
    let disk = cluster.disk(old).clone();
    LogStore::discard_in(&disk).unwrap();
    drop(LogStore::join_in(&disk, identity(life)).unwrap());
    cluster.put_back(life, disk);
    cluster.start(life);
}

/// The leader's steps.
fn replace(cluster: &mut Cluster, old: u64, life: u64) {
    loop {
        let mut pending = cluster.change(|core, reply| core.remove(old, reply));
        match cluster.answer(&mut pending) {
            Ok(_) => break,
            Err(ProposeError::NotLeader { .. } | ProposeError::Dropped) => cluster.tick(),
            Err(error) => panic!("{error}"),
        }
    }
    begin_anew(cluster, old, life);
    loop {
        let mut pending = cluster.change(|core, reply| core.add_learner(life, reply));
        match cluster.answer(&mut pending) {
            Ok(_) => return,
            Err(ProposeError::Refused(_) | ProposeError::Dropped) => cluster.tick(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every node that runs has applied all of it, in that order.
fn has_all(cluster: &mut Cluster, acknowledged: &[Vec<u8>]) {
    cluster.assert_equal();
    for id in cluster.running() {
        let held = cluster.ledger(id).commands.iter().map(|(_, command)| command);
        let held: Vec<_> = held.filter(|command| acknowledged.contains(command)).collect();
        assert_eq!(held, acknowledged.iter().collect::<Vec<_>>(), "node {id}");
    }
}

fn all_vote(cluster: &mut Cluster, voters: &[u64]) {
    cluster.until("three voters", |cluster| {
        cluster.running().iter().all(|id| cluster.status(*id).voters == voters)
    });
}

#[test]
fn a_voter_that_lost_its_log_comes_back_as_another_member_and_nothing_is_lost() {
    for (how, leads) in LOSSES.into_iter().flat_map(|how| [(how, false), (how, true)]) {
        let (mut cluster, old, mut acknowledged) = lost(how, leads);
        commit(&mut cluster, "while it is away", &mut acknowledged);
        replace(&mut cluster, old, 4);
        commit(&mut cluster, "while it catches up", &mut acknowledged);
        let voters: Vec<u64> = (1..=4).filter(|id| *id != old).collect();
        all_vote(&mut cluster, &voters);
        has_all(&mut cluster, &acknowledged);
        // It counts as any other: with it alone the second one decides.
        let leader = cluster.leader().unwrap();
        let other = voters.iter().find(|id| **id != leader && **id != 4).copied();
        cluster.stop(if leader == 4 { other.unwrap() } else { leader });
        commit(&mut cluster, "after", &mut acknowledged);
        has_all(&mut cluster, &acknowledged);
        assert_eq!(cluster.running().len(), 2, "{how:?}, {leads}");
    }
}

/// The old life's folder comes back, beside the new life: nobody counts its vote.
#[test]
fn a_life_that_is_over_elects_nobody() {
    let (mut cluster, old, mut acknowledged) = lost(Loss::Gone, false);
    let third = (1..=3).find(|id| *id != old && Some(*id) != cluster.leader()).unwrap();
    let leader = cluster.leader().unwrap();
    replace(&mut cluster, old, 4);
    let mut voters = vec![leader, third, 4];
    voters.sort_unstable();
    all_vote(&mut cluster, &voters);
    // Two have what is written now, and the third lags.
    cluster.isolate(third);
    commit(&mut cluster, "without the third", &mut acknowledged);
    // A log of before, under the old id.
    let disk = SimulatedFolder::default();
    drop(LogStore::join_in(&disk, identity(old)).unwrap());
    cluster.put_back(old, disk);
    cluster.start(old);
    cluster.stop(leader);
    cluster.heal();
    commit(&mut cluster, "after", &mut acknowledged);
    assert_eq!(cluster.leader(), Some(4), "the third lacks what was acknowledged");
    cluster.stop(old);
    has_all(&mut cluster, &acknowledged);
}

/// A log that must not be used stays one, whatever is left of it: at no point does the folder look like a voter's.
#[test]
fn a_log_that_is_let_go_of_is_never_taken_for_a_whole_one() {
    let mut rng = Rng::fresh();
    for operations in 0..40 {
        let disk = SimulatedFolder::default();
        let log = LogStore::bootstrap_in(&disk, identity(7), b"state").unwrap();
        let said = log.declare_unfit("it forgot something".to_owned());
        assert!(matches!(said, OpenError::Amnesia { .. }));
        drop(log);
        disk.fail_at(operations, crate::durable::simulated::Fault::any(&mut rng));
        let done = LogStore::discard_in(&disk).is_ok() && !disk.failed();
        let left =
            if operations % 2 == 0 { disk.after_kill() } else { disk.after_power_cut(&mut rng) };
        match LogStore::open_in(&left, None) {
            Ok(None) | Err(OpenError::Amnesia { .. }) => {}
            other => panic!("at operation {operations}: {:?}", other.map(|log| log.is_some())),
        }
        if done {
            assert!(operations > 4, "it took {operations} operations only");
            return;
        }
    }
    panic!("it never ends");
}

/// Otherwise the number of voters would become odd by the vote of one that is up.
#[test]
fn a_voter_is_replaced_when_a_learner_holds_the_log_and_not_before() {
    let mut cluster = Cluster::of_three(ConsensusConfig::default());
    cluster.commit("before");
    let leader = cluster.leader().unwrap();
    let dead = (1..=3).find(|id| *id != leader).unwrap();
    cluster.stop(dead);
    let ask = |cluster: &mut Cluster| {
        let mut pending = cluster.change(|core, reply| core.replace(dead, reply));
        cluster.answer(&mut pending)
    };
    let refused = ask(&mut cluster);
    assert!(matches!(refused, Err(ProposeError::Refused(_))), "{refused:?}");
    cluster.commit("without it");
    assert_eq!(cluster.status(leader).voters, [1, 2, 3]);

    cluster.join(4);
    cluster.until("its successor", |cluster| cluster.status(leader).caught_up == [4]);
    ask(&mut cluster).unwrap();
    let voters: Vec<u64> = (1..=4).filter(|id| *id != dead).collect();
    all_vote(&mut cluster, &voters);
}
