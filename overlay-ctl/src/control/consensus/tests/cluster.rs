//! What a healthy cluster does.

use raft::Storage as _;

use super::{
    commands,
    harness::{Cluster, Ledger, identity},
};
use crate::{
    control::consensus::{ConsensusConfig, Core, LogStore, ProposeError, Role, StateMachine as _},
    durable::simulated::SimulatedFolder,
};

fn config() -> ConsensusConfig {
    ConsensusConfig::default()
}

#[test]
fn a_sole_voter_commits_at_once_and_after_a_restart() {
    let mut cluster = Cluster::new(config());
    let mut pending = cluster.propose(1, "a");
    cluster.pump(1);
    let (index, count) = pending.try_recv().unwrap().unwrap();
    assert_eq!(count, 1);
    assert_eq!(cluster.ledger(1).commands, [(index, commands::word("a"))]);
    cluster.stop(1);
    cluster.start(1);
    assert_eq!(cluster.status(1).role, Role::Leader);
    assert_eq!(cluster.ledger(1).commands, [(index, commands::word("a"))]);
    cluster.commit("b");
    assert_eq!(cluster.ledger(1).commands.len(), 2);
}

/// A restarted node that finds no quorum must show again what it showed before.
#[test]
fn a_restart_knows_all_that_was_applied_a_tick_ago() {
    let mut cluster = Cluster::new(config());
    let index = cluster.commit("a");
    for _ in 0..5 {
        cluster.tick();
    }
    let restarted = cluster.copy_of(1);
    assert_eq!(restarted.status().borrow().role, Role::Follower);
    assert_eq!(restarted.machine().commands, [(index, commands::word("a"))]);
}

#[test]
fn a_node_shows_its_snapshot_before_anything_else() {
    let disk = SimulatedFolder::default();
    let state = Ledger::default().snapshot();
    let store = LogStore::bootstrap_in(&disk, identity(1), &state).unwrap();
    let core = Core::new(config(), store, Ledger::default()).unwrap();
    let status = core.status().borrow().clone();
    assert_eq!((status.id, status.applied, status.voters), (1, 1, vec![1]));
    assert_eq!(core.machine().published, 1);
}

#[test]
fn a_snapshot_is_made_when_so_many_entries_were_applied_since_the_last() {
    let mut cluster = Cluster::new(ConsensusConfig { snapshot_every: 10, ..config() });
    let last = cluster.node(1).store().snapshot_metadata().index;
    loop {
        let index = cluster.commit("a");
        let expected = if index < last + 10 { last } else { index };
        assert_eq!(cluster.node(1).store().snapshot_metadata().index, expected);
        if expected == index {
            assert_eq!(index, last + 10);
            return;
        }
    }
}

#[test]
fn a_learner_does_not_wait_for_a_heartbeat_of_a_sole_voter() {
    let mut cluster = Cluster::new(config());
    cluster.join(2);
    cluster.commit("before");
    cluster.assert_equal();
    let mut pending = cluster.propose(1, "a");
    cluster.settle();
    let (index, _) = pending.try_recv().unwrap().unwrap();
    assert_eq!(cluster.ledger(2).commands.last(), Some(&(index, commands::word("a"))));
}

#[test]
fn the_status_wakes_its_watchers_when_it_changes_and_only_then() {
    let mut cluster = Cluster::new(config());
    let mut status = cluster.node(1).status();
    status.mark_unchanged();
    cluster.pump(1);
    assert!(!status.has_changed().unwrap());
    cluster.commit("a");
    assert!(status.has_changed().unwrap());
}

#[test]
fn the_status_lists_members_in_ascending_order() {
    let mut cluster = Cluster::new(config());
    for id in [9, 4, 7, 12, 2, 5] {
        cluster.join(id);
    }
    let status = cluster.status(1);
    let peers: Vec<u64> = status.peers.iter().map(|peer| peer.id).collect();
    assert_eq!(peers, [2, 4, 5, 7, 9, 12]);
    assert!(status.voters.is_sorted() && status.learners.is_sorted(), "{status:?}");
}

#[test]
fn three_nodes_elect_and_replicate() {
    let mut cluster = Cluster::of_three(config());
    let indices: Vec<_> = (0..20).map(|n| cluster.commit(&n.to_string())).collect();
    assert!(indices.is_sorted());
    cluster.assert_equal();
    assert_eq!(cluster.ledger(3).commands.len(), 20);
    assert_eq!(cluster.ledger(3).members, [vec![1, 2, 3], vec![], vec![]]);
    let leader = cluster.leader().unwrap();
    let status = cluster.status(leader);
    assert!(status.peers.iter().all(|peer| peer.recent_active), "{status:?}");
    assert!(status.peers.iter().all(|peer| peer.matched == status.commit), "{status:?}");
}

#[test]
fn only_the_leader_proposes_and_names_itself() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader();
    let other = (1..=3).find(|id| Some(*id) != leader).unwrap();
    let mut pending = cluster.propose(other, "a");
    assert_eq!(cluster.answer(&mut pending), Err(ProposeError::NotLeader { leader }));
}

#[test]
fn what_can_not_be_proposed_is_said() {
    let longest = commands::word("a");
    let max_message_bytes = longest.len() as u64;
    let mut cluster = Cluster::new(ConsensusConfig { max_message_bytes, ..config() });
    for entry in [Vec::new(), vec![b'x'; longest.len() + 1]] {
        let mut pending = cluster.propose_entry(1, entry);
        assert!(matches!(cluster.answer(&mut pending), Err(ProposeError::Invalid(_))));
    }
    let mut pending = cluster.propose_entry(1, longest);
    cluster.answer(&mut pending).unwrap();
}

#[test]
fn overload_is_an_error() {
    let entry = commands::large(900);
    let most = entry.len() as u64 + 100;
    let limits =
        ConsensusConfig { max_message_bytes: most, max_uncommitted_bytes: 2 * most, ..config() };
    let mut cluster = Cluster::of_three(limits);
    let leader = cluster.leader().unwrap();
    cluster.isolate(leader);
    let mut pending: Vec<_> =
        (0..10).map(|_| cluster.propose_entry(leader, entry.clone())).collect();
    cluster.pump(leader);
    let refused = pending.iter_mut().filter_map(|pending| pending.try_recv().ok());
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused.len(), 8);
    assert!(refused.iter().all(|answer| *answer == Err(ProposeError::Overloaded)));
}

#[test]
fn many_proposals_share_one_transaction() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let before: Vec<_> = (1..=3).map(|id| cluster.node(id).store().transactions()).collect();
    let mut pending: Vec<_> =
        (0..500).map(|n| cluster.propose(leader, &format!("command {n}"))).collect();
    cluster.settle();
    for pending in &mut pending {
        pending.try_recv().unwrap().unwrap();
    }
    let after: Vec<_> = (1..=3).map(|id| cluster.node(id).store().transactions()).collect();
    let spent: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(spent, [1, 1, 1]);
    cluster.assert_equal();
}

#[test]
fn a_restart_rebuilds_from_snapshot_and_log() {
    let small = ConsensusConfig { snapshot_every: 10, keep_entries: 3, ..config() };
    let mut cluster = Cluster::of_three(small);
    for n in 0..47 {
        cluster.commit(&n.to_string());
    }
    cluster.assert_equal();
    let before = cluster.ledger(2).commands.clone();
    let meta = cluster.node(2).store().snapshot_metadata().clone();
    assert!(meta.index > 40, "{meta:?}");
    for id in 1..=3 {
        cluster.stop(id);
    }
    cluster.start(2);
    let known = cluster.ledger(2).commands.clone();
    assert!(!known.is_empty() && before.starts_with(&known));
    cluster.start(1);
    cluster.start(3);
    cluster.commit("after");
    cluster.assert_equal();
    assert_eq!(cluster.ledger(2).commands[..47], before);
}

#[test]
fn a_learner_catches_up_by_snapshot_and_is_promoted() {
    let small = ConsensusConfig { snapshot_every: 10, keep_entries: 0, ..config() };
    let mut cluster = Cluster::new(small);
    for n in 0..35 {
        cluster.commit(&n.to_string());
    }
    for id in [2, 3] {
        cluster.join(id);
    }
    cluster.until("three voters", |cluster| cluster.status(3).voters == [1, 2, 3]);
    assert!(cluster.node(2).store().snapshot_metadata().index > 1, "came by snapshot");
    // There are enough voters now: the next one stays a learner.
    cluster.join(4);
    cluster.commit("more");
    for _ in 0..50 {
        cluster.tick();
    }
    assert_eq!(cluster.status(4).learners, [4]);
    assert_eq!(cluster.status(4).role, Role::Learner);
    cluster.assert_equal();
}

/// A learner on a link with a delay never has the last write of a busy cluster, and would never vote.
#[test]
fn learners_become_voters_while_writes_go_on() {
    let mut cluster = Cluster::new(config());
    for id in [2, 3] {
        cluster.join(id);
        cluster.set_delay(1, id, 1);
        cluster.set_delay(id, 1, 1);
    }
    for number in 0..300 {
        if cluster.status(1).voters == [1, 2, 3] {
            return;
        }
        drop(cluster.propose(1, &number.to_string()));
        cluster.tick();
    }
    panic!("writes keep the learners from voting");
}

/// Two starts of one node must not be taken for one: a read of the first would answer one of the second.
#[test]
fn every_start_is_another() {
    assert_ne!(config().start, config().start);
}

#[test]
fn messages_that_arrive_before_a_joiner_is_known_do_no_harm() {
    let mut cluster = Cluster::new(config());
    cluster.commit("a");
    cluster.join(2);
    cluster.stop(2);
    cluster.start(2);
    cluster.commit("b");
    cluster.assert_equal();
    let node = cluster.node(2);
    assert!(node.step(b"\xff\xff garbage").is_err());
    assert!(node.step(&[]).is_err());
}

#[test]
fn reads_are_linearizable_on_every_member() {
    let mut cluster = Cluster::of_three(config());
    for n in 0..5 {
        let index = cluster.commit(&n.to_string());
        for id in 1..=3 {
            let mut pending = cluster.read(id);
            let applied = cluster.answer(&mut pending).unwrap();
            assert!(applied >= index, "node {id} shows {applied}, {index} was acknowledged");
            assert!(cluster.ledger(id).published >= index);
        }
    }
}

#[test]
fn membership_changes_that_can_not_be_are_refused() {
    let mut cluster = Cluster::new(config());
    let mut pending = cluster.change(|core, reply| core.remove(1, reply));
    assert!(matches!(cluster.answer(&mut pending), Err(ProposeError::Refused(_))));
    // Not a member: nothing to do.
    let mut pending = cluster.change(|core, reply| core.remove(9, reply));
    cluster.answer(&mut pending).unwrap();

    let mut first = cluster.change(|core, reply| core.add_learner(2, reply));
    let mut second = cluster.change(|core, reply| core.add_learner(3, reply));
    cluster.answer(&mut first).unwrap();
    // It came while the first was not applied yet, or after: either way it is answered.
    drop(cluster.answer(&mut second));

    let (mut a, mut b) = {
        let (a_tx, a) = tokio::sync::oneshot::channel();
        let (b_tx, b) = tokio::sync::oneshot::channel();
        cluster.node(1).add_learner(4, a_tx);
        cluster.node(1).add_learner(5, b_tx);
        (a, b)
    };
    cluster.answer(&mut a).unwrap();
    assert!(matches!(cluster.answer(&mut b), Err(ProposeError::Refused(_))));
    assert!(cluster.status(1).learners.contains(&4) && !cluster.status(1).learners.contains(&5));
}

/// The engine would take the vote of a voter that is added as a learner.
#[test]
fn adding_a_member_again_changes_nothing() {
    let mut cluster = Cluster::of_three(config());
    cluster.join(4);
    cluster.commit("a");
    cluster.assert_equal();
    let leader = cluster.leader().unwrap();
    let before = cluster.status(leader);
    for id in 1..=4 {
        let mut pending = cluster.change(|core, reply| core.add_learner(id, reply));
        assert_eq!(cluster.answer(&mut pending), Ok(before.applied));
        let after = cluster.status(leader);
        assert_eq!((after.voters, after.learners), (vec![1, 2, 3], vec![4]));
        assert_eq!(cluster.node(leader).store().last_index().unwrap(), before.applied);
    }
}

#[test]
fn only_the_leader_says_that_a_member_is_one_already() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader();
    let other = (1..=3).find(|id| Some(*id) != leader).unwrap();
    let (reply, mut pending) = tokio::sync::oneshot::channel();
    cluster.node(other).add_learner(other, reply);
    assert_eq!(cluster.answer(&mut pending), Err(ProposeError::NotLeader { leader }));
}

#[test]
fn what_is_asked_first_is_decided_first() {
    let mut cluster = Cluster::new(config());
    let mut command = cluster.propose(1, "a");
    let (reply, mut member) = tokio::sync::oneshot::channel();
    cluster.node(1).add_learner(2, reply);
    let (command, _) = cluster.answer(&mut command).unwrap();
    let member = cluster.answer(&mut member).unwrap();
    assert!(command < member, "{command} {member}");
}

#[test]
fn members_are_removed_and_a_leader_hands_over_first() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("a");
    let leader = cluster.leader().unwrap();
    let mut pending = cluster.change(|core, reply| core.remove(leader, reply));
    let Err(ProposeError::NotLeader { leader: Some(next) }) = cluster.answer(&mut pending) else {
        panic!("the leader removes itself");
    };
    cluster.until("the successor leads", |cluster| cluster.leader() == Some(next));
    let mut pending = cluster.change(|core, reply| core.remove(leader, reply));
    cluster.answer(&mut pending).unwrap();
    let rest: Vec<_> = (1..=3).filter(|id| ![leader, next].contains(id)).collect();
    let status = cluster.status(next);
    assert_eq!((status.voters, status.learners), (vec![next], rest));
    cluster.stop(leader);
    cluster.commit("b");
    cluster.assert_equal();
}

#[test]
fn messages_that_would_make_the_engine_panic_are_refused() {
    use raft::eraftpb::{Message, MessageType};
    let mut cluster = Cluster::of_three(config());
    cluster.commit("a");
    let leader = cluster.leader().unwrap();
    let to = (1..=3).find(|id| *id != leader).unwrap();
    let status = cluster.status(to);
    let good = Message {
        msg_type: MessageType::MsgHeartbeat as i32,
        from: leader,
        to,
        term: status.term,
        commit: status.commit,
        ..Message::default()
    };
    let cases = [
        (good.clone(), true),
        (Message { term: 0, ..good.clone() }, false),
        (Message { to: leader, ..good.clone() }, false),
        (Message { from: to, ..good.clone() }, false),
        (Message { from: 0, ..good.clone() }, false),
        (Message { msg_type: 99, ..good.clone() }, false),
        (Message { msg_type: MessageType::MsgPropose as i32, ..good.clone() }, false),
        (Message { msg_type: MessageType::MsgReadIndex as i32, ..good.clone() }, false),
    ];
    for (message, accepted) in cases {
        let result = cluster.node(to).step(&crate::control::consensus::codec::encode(&message));
        assert_eq!(result.is_ok(), accepted, "{message:?}: {result:?}");
    }
}
