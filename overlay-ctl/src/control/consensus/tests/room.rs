//! What a cluster does when the disk of a state folder is full. A write for which there is no room would end its node.

use super::harness::Cluster;
use crate::control::consensus::{Alarm, ConsensusConfig, ProposeError, Room};

/// Less than a node keeps free, and more than it needs while it takes nothing.
const FULL: Option<u64> = Some(900 << 10);
/// Room for small entries, and for no snapshot of [`large`] entries.
const TIGHT: Option<u64> = Some(1_500 << 10);

fn config() -> ConsensusConfig {
    ConsensusConfig { snapshot_every: 20, keep_entries: 2, room_ticks: 50, ..Default::default() }
}

/// An entry of 64 KiB.
fn large() -> Vec<u8> {
    vec![b'x'; 64 << 10]
}

/// What a node has no room for.
fn alarms(cluster: &Cluster, id: u64) -> Vec<Room> {
    let alarms = cluster.status(id).alarms.into_iter();
    let lacks = alarms.filter_map(|alarm| match alarm {
        Alarm::NoRoom(lack) => Some(lack.what),
        Alarm::Stalled => None,
    });
    lacks.collect()
}

#[test]
fn a_follower_without_room_goes_on_and_catches_up() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.commit("before");
    cluster.assert_equal();
    let applied = cluster.status(follower).applied;
    cluster.disk(follower).set_room(FULL);
    // So many that it will need a snapshot.
    for _ in 0..50 {
        cluster.commit_entry(large());
    }
    cluster.until("it says so", |cluster| alarms(cluster, follower) == [Room::Entries]);
    assert_eq!(cluster.status(follower).applied, applied, "it took nothing");
    assert_eq!(cluster.leader(), Some(leader));

    // It starts without room, too, and has its vote.
    cluster.kill(follower);
    cluster.disk(follower).set_room(FULL);
    cluster.start(follower);
    let other = (1..=3).find(|id| ![leader, follower].contains(id)).unwrap();
    cluster.kill(leader);
    cluster.until("the other leads by its vote", |cluster| cluster.leader() == Some(other));
    assert!(cluster.status(follower).applied <= applied);

    cluster.disk(follower).set_room(None);
    cluster.commit("after");
    cluster.start(leader);
    cluster.assert_equal();
    assert!(alarms(&cluster, follower).is_empty());
}

#[test]
fn a_leader_without_room_hands_over() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    cluster.disk(leader).set_room(FULL);
    let mut refused = cluster.propose_entry(leader, large());
    let error = cluster.answer(&mut refused).unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { leader: Some(next) } if next != leader));
    cluster.until("another leads", |cluster| cluster.leader().is_some_and(|id| id != leader));
    cluster.commit_entry(large());
    cluster.disk(leader).set_room(None);
    cluster.assert_equal();
}

#[test]
fn leaders_without_room_do_not_hand_over_for_ever() {
    let mut cluster = Cluster::of_three(config());
    for id in 1..=3 {
        cluster.disk(id).set_room(FULL);
    }
    let mut handed_over = 0;
    // The last one refuses, since each has handed over a moment ago.
    let refused = loop {
        cluster.until("a leader", |cluster| cluster.leader().is_some());
        let leader = cluster.leader().unwrap();
        let mut pending = cluster.propose_entry(leader, large());
        match cluster.answer(&mut pending).unwrap_err() {
            ProposeError::NotLeader { .. } => handed_over += 1,
            error => break error,
        }
        assert!(handed_over < 20, "they go on handing over");
    };
    assert!(matches!(refused, ProposeError::NoRoom(_)), "{refused}");
    for id in 1..=3 {
        cluster.disk(id).set_room(None);
    }
    cluster.commit_entry(large());
    cluster.assert_equal();
}

#[test]
fn a_voter_alone_without_room_refuses_until_there_is_some() {
    let mut cluster = Cluster::new(config());
    cluster.commit("before");
    cluster.disk(1).set_room(FULL);
    let mut refused = cluster.propose_entry(1, large());
    match cluster.answer(&mut refused).unwrap_err() {
        ProposeError::NoRoom(lack) => {
            let said = lack.to_string();
            let words = "/simulated is full (0 MiB free, 2 needed for entries of the log)";
            assert!(said.ends_with(words), "{said}");
        }
        error => panic!("{error}"),
    }
    assert_eq!(alarms(&cluster, 1), [Room::Entries]);
    cluster.disk(1).set_room(None);
    cluster.tick();
    cluster.tick();
    assert!(alarms(&cluster, 1).is_empty(), "it looks without being asked");
    cluster.commit_entry(large());
}

#[test]
fn a_snapshot_without_room_is_put_off() {
    let mut cluster = Cluster::new(ConsensusConfig { log_bytes_max: 1_200 << 10, ..config() });
    let index = |cluster: &mut Cluster| cluster.node(1).store().snapshot_metadata().index;
    let first = index(&mut cluster);
    while cluster.status(1).applied < first + 19 {
        cluster.commit_entry(large());
    }
    cluster.disk(1).set_room(TIGHT);
    let last = cluster.commit("the one after which a snapshot is due");
    assert_eq!((alarms(&cluster, 1), index(&mut cluster)), (vec![Room::Snapshot], first));

    // Its log is whole, and it starts with it.
    cluster.kill(1);
    cluster.disk(1).set_room(TIGHT);
    cluster.start(1);
    assert_eq!((alarms(&cluster, 1), index(&mut cluster)), (vec![Room::Snapshot], first));
    assert_eq!(cluster.status(1).applied.max(last), cluster.status(1).applied);
    cluster.commit("small");

    // The log grows only so far.
    cluster.commit_entry(large());
    let mut refused = cluster.propose(1, "too much");
    match cluster.answer(&mut refused).unwrap_err() {
        ProposeError::NoRoom(lack) => assert_eq!(lack.what, Room::Snapshot),
        error => panic!("{error}"),
    }

    cluster.disk(1).set_room(None);
    cluster.until("it is made", |cluster| alarms(cluster, 1).is_empty());
    assert!(index(&mut cluster) > last);
    cluster.commit("after");
}
