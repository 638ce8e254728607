//! What a voter does with what only a newer version can read. If it went on, its state would differ from that of the others.

use raft::eraftpb::{ConfState, Message, MessageType, Snapshot, SnapshotMetadata};
use tokio::sync::oneshot::error::TryRecvError;

use super::{
    by_hand::Node,
    commands::{self, newer, word},
    harness::{Cluster, Ledger, Outbox, identity},
};
use crate::{
    control::consensus::{
        ConsensusConfig, Core, FatalError, LogStore, StateMachine as _,
        codec::{self, BadMessage},
    },
    durable::simulated::SimulatedFolder,
};

fn config() -> ConsensusConfig {
    ConsensusConfig::default()
}

/// The error with which the node ends, once it has.
fn ended(cluster: &mut Cluster, id: u64) -> FatalError {
    cluster.until("it ends", |cluster| cluster.ends[&id].is_some());
    let error = cluster.ends.remove(&id).flatten().expect("it ended");
    assert!(error.ends_in_order(), "{error}");
    error
}

#[test]
fn an_older_voter_stops_before_an_entry_that_it_can_not_read() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let older = (1..=3).find(|id| *id != leader).unwrap();
    cluster.older.insert(older);
    cluster.stop(older);
    cluster.start(older);
    cluster.commit("before");
    cluster.assert_equal();
    let before = cluster.ledger(older).commands.clone();

    cluster.ends.insert(older, None);
    let index = cluster.commit_entry(newer("later"));
    let error = ended(&mut cluster, older);
    assert!(matches!(error, FatalError::Unreadable { index: at, .. } if at == index), "{error}");
    let said = error.to_string();
    assert!(said.starts_with(&format!("the entry at revision {index} of the log can't be read")));
    assert!(said.contains("Install the newer version that"), "{said}");
    assert_eq!(cluster.copy_of(older).machine().commands, before);
    // The others go on without it.
    cluster.commit("after");
    cluster.assert_equal();

    // So it ends again, whenever it is started.
    cluster.ends.insert(older, None);
    cluster.start(older);
    assert_eq!(ended(&mut cluster, older).to_string(), said);

    // With the newer version it goes on where it stopped.
    cluster.older.clear();
    cluster.start(older);
    cluster.commit("on");
    cluster.assert_equal();
}

/// A voter alone, which runs an older version than the log will be written by.
fn alone() -> Cluster {
    let mut cluster = Cluster::new(config());
    cluster.older.insert(1);
    cluster.kill(1);
    cluster.start(1);
    cluster
}

/// In one batch.
#[test]
fn what_came_before_it_is_applied_and_answered_and_nothing_behind_it() {
    let mut cluster = alone();
    let mut before = cluster.propose(1, "before");
    let unreadable = cluster.propose_entry(1, newer("unreadable"));
    let after = cluster.propose(1, "after");
    let error = cluster.node(1).pump(&mut Outbox(Vec::new())).unwrap_err();
    let (index, _) = before.try_recv().expect("an answer").unwrap();
    assert!(
        matches!(error, FatalError::Unreadable { index: at, .. } if at == index + 1),
        "{error}"
    );
    let ledger = cluster.ledger(1);
    assert_eq!(ledger.commands, [(index, word("before"))]);
    assert_eq!((ledger.published, ledger.state.read(|state| state.revision())), (index, index));
    // Nobody knows what comes of these: the driver says so when it drops the node.
    cluster.kill(1);
    for mut pending in [unreadable, after] {
        assert_eq!(pending.try_recv(), Err(TryRecvError::Closed));
    }

    for _ in 0..2 {
        let again = cluster.try_start(1).unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
    }
    cluster.older.clear();
    cluster.start(1);
    let held: Vec<_> = cluster.ledger(1).commands.iter().map(|(_, entry)| entry.clone()).collect();
    assert_eq!(held, [word("before"), newer("unreadable"), word("after")]);
}

#[test]
fn a_follower_that_is_sent_a_newer_snapshot_ends_and_keeps_its_log() {
    let limits = ConsensusConfig { snapshot_every: 5, keep_entries: 0, ..config() };
    let mut cluster = Cluster::of_three(limits);
    let leader = cluster.leader().unwrap();
    let slow = (1..=3).find(|id| *id != leader).unwrap();
    cluster.commit("before");
    cluster.assert_equal();
    cluster.isolate(slow);
    for number in 0..20 {
        cluster.commit(&number.to_string());
    }
    let applied = cluster.status(slow).applied;
    cluster.newer_snapshots = true;
    cluster.ends.insert(slow, None);
    cluster.heal();
    let error = ended(&mut cluster, slow);
    assert!(matches!(error, FatalError::Newer { index, .. } if index > applied), "{error}");
    let said = error.to_string();
    assert!(said.contains("it has format 99, and this version reads formats up to 5"), "{said}");
    assert!(said.contains("Install the newer version that"), "{said}");
    cluster.commit("after");

    // A version that reads it goes on from what was there.
    cluster.newer_snapshots = false;
    cluster.start(slow);
    assert!(cluster.status(slow).applied >= applied);
    cluster.assert_equal();
}

/// Only a leader of the present term is believed.
#[test]
fn a_newer_snapshot_of_an_older_leader_is_a_bad_message() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    cluster.assert_equal();
    let mut node = Node::copy(&cluster, 2);
    let status = node.status();
    let metadata = |index| SnapshotMetadata {
        conf_state: Some(ConfState { voters: vec![1, 2, 3], ..ConfState::default() }),
        index,
        term: 1,
    };
    let data = commands::newer_snapshot(&node.0.machine().snapshot());
    let message = |node: &Node, index| Message {
        snapshot: Some(Snapshot { data: data.clone(), metadata: Some(metadata(index)) }),
        ..node.message(1, MessageType::MsgSnapshot)
    };
    let next = status.commit + 1;
    let late = Message { term: status.term - 1, ..message(&node, next) };
    let kind = MessageType::MsgHeartbeat as i32;
    let of_another_kind = Message { msg_type: kind, ..message(&node, next) };
    for refused in [late, of_another_kind] {
        let said = node.0.step(&codec::encode(&refused));
        assert!(
            matches!(said, Err(BadMessage::Snapshot { index, .. }) if index == next),
            "{said:?}"
        );
        node.pump();
    }
    // It is older than what this node holds, and the engine ignores it.
    node.hand_in(&message(&node, status.commit - 1));
    node.pump();

    node.hand_in(&message(&node, next));
    let mut outbox = Outbox(Vec::new());
    let error = node.0.pump(&mut outbox).unwrap_err();
    assert!(matches!(error, FatalError::Newer { index, .. } if index == next), "{error}");
    assert!(outbox.0.is_empty(), "nothing left the node");
}

#[test]
fn a_node_whose_own_snapshot_is_newer_does_not_start() {
    let disk = SimulatedFolder::default();
    let state = commands::newer_snapshot(&Ledger::default().snapshot());
    let store = LogStore::bootstrap_in(&disk, identity(1), &state).unwrap();
    let error = Core::new(config(), store, Ledger::default()).unwrap_err();
    assert!(matches!(error, FatalError::Newer { index: 1, .. }), "{error}");
    assert!(error.ends_in_order());
}
