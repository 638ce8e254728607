//! What a cluster does when the disk of a state folder is full. A write for which there is no room would end its node.

use super::{commands, harness::Cluster};
use crate::control::consensus::{
    Alarm, ConsensusConfig, ProposeError, Room, StateMachine as _, codec,
};
use raft::eraftpb::{ConfState, Message, MessageType, Snapshot, SnapshotMetadata};

/// Less than a node keeps free, and more than it needs while it takes nothing.
const FULL: Option<u64> = Some(900 << 10);
/// Room for small entries, and for no snapshot of [`large`] entries.
const TIGHT: Option<u64> = Some(1_500 << 10);

fn config() -> ConsensusConfig {
    ConsensusConfig { snapshot_every: 20, keep_entries: 2, room_ticks: 50, ..Default::default() }
}

/// An entry of 64 KiB.
fn large() -> Vec<u8> {
    commands::large(64 << 10)
}

/// What a node has no room for.
fn alarms(cluster: &Cluster, id: u64) -> Vec<Room> {
    let alarms = cluster.status(id).alarms.into_iter();
    let lacks = alarms.filter_map(|alarm| match alarm {
        Alarm::NoRoom(lack) => Some(lack.what),
        Alarm::Stalled | Alarm::Differs { .. } => None,
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
    cluster.until("it says so", |cluster| alarms(cluster, follower).contains(&Room::Entries));
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
    // What it leads by does not reach the follower, which leaves out the entries before it.
    cluster.until("it says that it commits nothing", |cluster| {
        cluster.status(other).alarms.contains(&Alarm::Stalled)
    });

    cluster.disk(follower).set_room(None);
    cluster.until("it commits again", |cluster| cluster.status(other).alarms.is_empty());
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
    let Alarm::NoRoom(lack) = &cluster.status(1).alarms[0] else { panic!("another alarm") };
    let state = cluster.ledger(1);
    let logged: usize = state.commands.iter().map(|(_, command)| command.len()).sum();
    let needed = (1 << 20) + 2 * state.snapshot().len() + logged / 64;
    assert_eq!(lack.needed, needed as u64, "what it replaces costs something, too");

    // Its log is whole, and it starts with it.
    cluster.kill(1);
    cluster.disk(1).set_room(TIGHT);
    cluster.start(1);
    assert_eq!((alarms(&cluster, 1), index(&mut cluster)), (vec![Room::Snapshot], first));
    assert!(cluster.status(1).applied >= last);
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

/// A follower whose disk takes entries and not the leader's snapshot, and the leader.
fn follower_without_room_for_a_snapshot() -> (Cluster, u64, u64) {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.isolate(follower);
    for _ in 0..50 {
        cluster.commit_entry(large());
    }
    cluster.disk(follower).set_room(TIGHT);
    cluster.heal();
    cluster.until("it says so", |cluster| alarms(cluster, follower) == [Room::Received]);
    (cluster, leader, follower)
}

#[test]
fn a_snapshot_that_does_not_fit_is_sent_seldom() {
    let (mut cluster, _, follower) = follower_without_room_for_a_snapshot();
    let before = cluster.snapshots[&follower];
    // A few hundred heartbeats, each answered.
    for round in 0..400 {
        if round % 20 == 0 {
            cluster.commit("small");
        }
        cluster.tick();
        assert_eq!(alarms(&cluster, follower), [Room::Received], "round {round}");
    }
    let sent = cluster.snapshots[&follower] - before;
    assert!((2..=12).contains(&sent), "{sent} snapshots were sent");
    cluster.disk(follower).set_room(None);
    cluster.assert_equal();
    assert!(alarms(&cluster, follower).is_empty());
}

#[test]
fn a_snapshot_that_does_not_fit_is_not_decoded() {
    let (mut cluster, leader, follower) = follower_without_room_for_a_snapshot();
    let status = cluster.status(leader);
    let members = ConfState { voters: status.voters, ..ConfState::default() };
    let metadata =
        SnapshotMetadata { conf_state: Some(members), index: status.applied, term: status.term };
    let unreadable = Snapshot { data: vec![0xc1; 1 << 20], metadata: Some(metadata) };
    let message = codec::encode(&Message {
        msg_type: MessageType::MsgSnapshot as i32,
        from: leader,
        to: follower,
        term: status.term,
        snapshot: Some(unreadable),
        ..Message::default()
    });
    cluster.node(follower).step(&message).unwrap();
    cluster.disk(follower).set_room(None);
    cluster.pump(follower);
    cluster.node(follower).step(&message).unwrap_err();
}

#[test]
fn entries_that_are_held_already_need_no_room() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    // It writes the entries, and its answers get lost.
    cluster.cut_one_way(follower, leader);
    let last = cluster.commit_entry(large());
    cluster.until("it has them", |cluster| cluster.status(follower).commit >= last);
    cluster.disk(follower).set_room(FULL);
    cluster.heal();
    // Then they are sent once more.
    cluster.node(leader).report_unreachable(follower);
    cluster.until("it answers", |cluster| {
        let peers = cluster.status(leader).peers;
        peers.iter().any(|peer| peer.id == follower && peer.matched >= last)
    });
    assert!(alarms(&cluster, follower).is_empty());
}

#[test]
fn a_snapshot_is_made_as_soon_as_there_is_room() {
    let mut cluster = Cluster::new(ConsensusConfig { room_ticks: 100_000, ..config() });
    let due = cluster.node(1).store().snapshot_metadata().index + 20;
    while cluster.status(1).applied < due - 1 {
        cluster.commit_entry(large());
    }
    cluster.disk(1).set_room(TIGHT);
    cluster.commit("the one after which a snapshot is due");
    assert_eq!(alarms(&cluster, 1), [Room::Snapshot]);
    cluster.disk(1).set_room(None);
    cluster.until("the alarm is over", |cluster| alarms(cluster, 1).is_empty());
    assert!(cluster.node(1).store().snapshot_metadata().index >= due);
}

#[test]
fn the_state_is_not_encoded_while_there_is_no_room_at_all() {
    let mut cluster = Cluster::new(config());
    for _ in 0..18 {
        cluster.commit_entry(large());
    }
    cluster.disk(1).set_room(TIGHT);
    while alarms(&cluster, 1).is_empty() {
        cluster.commit("small");
    }
    cluster.disk(1).set_room(FULL);
    let encoded = cluster.ledger(1).encoded.get();
    for _ in 0..200 {
        cluster.tick();
    }
    assert_eq!(cluster.ledger(1).encoded.get(), encoded);
    assert_eq!(alarms(&cluster, 1), [Room::Snapshot]);
}

#[test]
fn an_alarm_stays_until_what_did_not_fit_would_fit() {
    let mut cluster = Cluster::new(config());
    cluster.commit("before");
    // Room for small entries.
    cluster.disk(1).set_room(Some(1_100 << 10));
    let mut refused = cluster.propose_entry(1, large());
    cluster.answer(&mut refused).unwrap_err();
    for _ in 0..3 {
        cluster.commit("small");
        assert_eq!(alarms(&cluster, 1), [Room::Entries]);
    }
    cluster.disk(1).set_room(None);
    cluster.until("the alarm is over", |cluster| alarms(cluster, 1).is_empty());
}

#[test]
fn the_log_of_a_follower_grows_only_so_far_without_a_snapshot() {
    let mut cluster = Cluster::of_three(ConsensusConfig { log_bytes_max: 1_000 << 10, ..config() });
    let leader = cluster.leader().unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    for _ in 0..15 {
        cluster.commit_entry(large());
    }
    cluster.assert_equal();
    // Room for small entries, and for no snapshot of the large ones.
    cluster.disk(follower).set_room(Some(2 << 20));
    for _ in 0..100 {
        cluster.commit_entry(commands::large(1 << 10));
    }
    cluster.tick();
    let held = &cluster.ledger(follower).commands;
    let bytes: usize = held.iter().map(|(_, command)| command.len()).sum();
    assert!((1_000 << 10..1_010 << 10).contains(&bytes), "it took {bytes} bytes");
    assert!(alarms(&cluster, follower).contains(&Room::Snapshot));
    assert!(!alarms(&cluster, follower).contains(&Room::Entries));
    cluster.disk(follower).set_room(None);
    cluster.assert_equal();
}

#[test]
fn what_is_kept_for_root_is_left_to_entries() {
    let mut cluster = Cluster::new(config());
    let first = cluster.node(1).store().snapshot_metadata().index;
    // Others have filled what they may.
    cluster.disk(1).set_room(Some(100 << 20));
    cluster.disk(1).reserve(100 << 20);
    for _ in 0..30 {
        cluster.commit_entry(large());
    }
    assert_eq!(alarms(&cluster, 1), [Room::Snapshot]);
    assert_eq!(cluster.node(1).store().snapshot_metadata().index, first);
    cluster.disk(1).reserve(0);
    cluster.until("a snapshot is made", |cluster| alarms(cluster, 1).is_empty());
    assert!(cluster.node(1).store().snapshot_metadata().index > first);
}
