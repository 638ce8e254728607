//! Voters whose disk forgot what they had acknowledged.

use raft::eraftpb::{Message, MessageType};

use super::{
    by_hand::Node,
    commands,
    harness::{Cluster, identity},
};
use crate::control::consensus::{
    ConsensusConfig, FatalError, Identity, LogStore, OpenError, Role, Transport, Undeliverable,
    codec, storage::Batch,
};

fn config() -> ConsensusConfig {
    ConsensusConfig::default()
}

/// Three voters. One was put back to what it held before the last writes, and does not run: the leader,
/// that one, and the third.
fn put_back() -> (Cluster, [u64; 3]) {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let leader = cluster.leader().unwrap();
    let mut others = (1..=3).filter(|id| *id != leader);
    let (forgetful, third) = (others.next().unwrap(), others.next().unwrap());
    cluster.stop(forgetful);
    let copy = cluster.copy_folder(forgetful);
    cluster.start(forgetful);
    for n in 0..5 {
        cluster.commit(&n.to_string());
    }
    cluster.assert_equal();
    cluster.stop(forgetful);
    cluster.put_back(forgetful, copy);
    cluster.ends.insert(forgetful, None);
    (cluster, [leader, forgetful, third])
}

/// It ended, and every later start ends with the same words.
fn is_out(cluster: &mut Cluster, id: u64) {
    cluster.until("it ends", |cluster| cluster.ends[&id].is_some());
    let Some(FatalError::Unfit(said)) = cluster.ends.remove(&id).flatten() else {
        panic!("for another reason");
    };
    let OpenError::Amnesia { raft_id, .. } = said else { panic!("{said}") };
    assert_eq!(raft_id, id);
    let again = cluster.open(id).map(drop).unwrap_err();
    assert_eq!(again.to_string(), said.to_string());
    assert!(said.to_string().contains("it must not vote any more"), "{said}");
}

#[test]
fn a_voter_that_is_told_what_it_forgot_stops_for_good() {
    let (mut cluster, [_, forgetful, _]) = put_back();
    cluster.start(forgetful);
    is_out(&mut cluster, forgetful);
    // The others can decide, and put another in its place.
    cluster.commit("after");
    let mut pending = cluster.change(|core, reply| core.remove(forgetful, reply));
    cluster.answer(&mut pending).unwrap();
    cluster.join(4);
    cluster.until("three voters", |cluster| cluster.status(4).voters.len() == 3);
    cluster.assert_equal();
}

/// The leader's first word is not a heartbeat but a write: it would fill in what is missing, and nobody
/// would know.
#[test]
fn a_leader_does_not_fill_in_what_was_forgotten() {
    let (mut cluster, [leader, forgetful, _]) = put_back();
    cluster.node(leader).report_unreachable(forgetful);
    cluster.start(forgetful);
    cluster.propose(leader, "after");
    is_out(&mut cluster, forgetful);
}

/// What leaves a leader when a follower rejects what it had acknowledged: the question, and nothing that
/// would fill the gap before the question is answered.
#[test]
fn a_leader_asks_before_it_sends_again() {
    struct Sent(Vec<(u64, Message)>);
    impl Transport for Sent {
        fn send(&mut self, to: u64, bytes: Vec<u8>, _: bool) -> Result<(), Undeliverable> {
            self.0.push((to, codec::decode(&bytes).unwrap()));
            Ok(())
        }
    }
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    cluster.assert_equal();
    let leader = cluster.leader().unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let status = cluster.status(leader);
    cluster.node(leader).report_unreachable(follower);
    let reject = Message {
        msg_type: MessageType::MsgAppendResponse as i32,
        from: follower,
        to: leader,
        term: status.term,
        index: status.commit,
        reject: true,
        reject_hint: status.commit - 1,
        log_term: status.term,
        ..Message::default()
    };
    cluster.node(leader).step(&codec::encode(&reject)).unwrap();
    let mut sent = Sent(Vec::new());
    cluster.node(leader).pump(&mut sent).unwrap();
    let said: Vec<Message> =
        sent.0.into_iter().filter(|(to, _)| *to == follower).map(|(_, message)| message).collect();
    let [question] = &said[..] else { panic!("{said:?}") };
    assert_eq!(question.msg_type, MessageType::MsgHeartbeat as i32, "{question:?}");
    assert_eq!(question.commit, status.commit);
    assert!(question.context.ends_with(&status.commit.to_be_bytes()), "{question:?}");
}

/// Voter 2 of three leads, and the others have acknowledged everything. Also returns the answer that voter 1 would send
/// if it had forgotten its log.
fn doubts() -> (Node, Message) {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    cluster.assert_equal();
    let mut node = Node::copy(&cluster, 2);
    node.elect();
    let index = node.last_index();
    for id in [1, 3] {
        node.acknowledge(id, index);
    }
    node.pump();
    let forgot = node.message(1, MessageType::MsgAppendResponse);
    let forgot = Message { index, reject: true, reject_hint: 0, ..forgot };
    (node, forgot)
}

/// The question is a heartbeat. From a node that no longer leads it would mislead the others.
#[test]
fn a_leader_that_is_none_any_more_asks_nobody() {
    let is_heartbeat =
        |message: &Message| message.msg_type == MessageType::MsgHeartbeat as i32 && message.to == 1;
    for replaced in [false, true] {
        let (mut node, forgot) = doubts();
        node.hand_in(&forgot);
        if replaced {
            let next = node.message(3, MessageType::MsgHeartbeat);
            node.hand_in(&Message { term: next.term + 1, ..next });
        }
        assert_eq!(node.pump().iter().any(is_heartbeat), !replaced);
    }
}

/// Also where the answer itself is not credible.
#[test]
fn a_leader_yields_to_a_later_term() {
    let (mut node, forgot) = doubts();
    node.hand_in(&Message { term: forgot.term + 1, ..forgot });
    node.pump();
    let status = node.status();
    assert_eq!((status.role, status.term), (Role::Follower, forgot.term + 1));
}

/// What was forgotten was acknowledged and is not committed yet: no commit index tells.
#[test]
fn a_voter_that_forgot_what_is_not_committed_stops_too() {
    let mut cluster = Cluster::new(ConsensusConfig { max_voters: 5, ..config() });
    for id in 2..=5 {
        cluster.join(id);
    }
    cluster.until("five voters", |cluster| (1..=5).all(|id| cluster.status(id).voters.len() == 5));
    cluster.commit("before");
    cluster.assert_equal();
    let leader = cluster.leader().unwrap();
    let mut others = (1..=5).filter(|id| *id != leader);
    let forgetful = others.next().unwrap();
    for id in others {
        cluster.isolate(id);
    }
    cluster.stop(forgetful);
    let copy = cluster.copy_folder(forgetful);
    cluster.start(forgetful);
    let last = cluster.status(leader).commit + 1;
    cluster.propose(leader, "acknowledged by one");
    cluster.settle();
    let status = cluster.status(leader);
    assert!(status.peers.iter().any(|peer| peer.id == forgetful && peer.matched == last));
    assert!(status.commit < last);

    cluster.stop(forgetful);
    cluster.put_back(forgetful, copy);
    cluster.ends.insert(forgetful, None);
    cluster.node(leader).report_unreachable(forgetful);
    cluster.start(forgetful);
    cluster.propose(leader, "one more");
    is_out(&mut cluster, forgetful);
    assert_eq!(cluster.status(leader).role, Role::Leader, "it was noticed in time");
}

/// Whoever holds what the others lost by electing a leader without it keeps it, and says so.
#[test]
fn a_voter_that_alone_holds_committed_writes_stops_and_keeps_them() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    cluster.assert_equal();
    let leader = cluster.leader().unwrap();
    let mut others = (1..=3).filter(|id| *id != leader);
    let (forgetful, third) = (others.next().unwrap(), others.next().unwrap());
    cluster.isolate(third);
    cluster.stop(forgetful);
    let copy = cluster.copy_folder(forgetful);
    cluster.start(forgetful);
    let kept = cluster.commit("kept by one");
    for _ in 0..3 {
        cluster.tick();
    }
    // The other two make a leader that lacks it.
    cluster.oracle.retire();
    cluster.stop(leader);
    cluster.stop(forgetful);
    cluster.put_back(forgetful, copy);
    cluster.heal();
    cluster.start(forgetful);
    cluster.commit("without it");

    cluster.ends.insert(leader, None);
    cluster.start(leader);
    cluster.until("it ends", |cluster| cluster.ends[&leader].is_some());
    match cluster.ends.remove(&leader).flatten() {
        Some(FatalError::Overwritten { index, committed, .. }) => {
            assert!(index <= kept && kept <= committed, "{index} {kept} {committed}");
        }
        other => panic!("{other:?}"),
    }
    cluster.commit("on");
    cluster.stop(third);
    cluster.stop(forgetful);
    cluster.start(leader);
    assert!(cluster.ledger(leader).commands.contains(&(kept, commands::word("kept by one"))));
}

/// An answer that comes late says what was, not what is.
#[test]
fn late_answers_end_nobody() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let leader = cluster.leader().unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let status = cluster.status(leader);
    let late = |reject_hint: u64, index: u64, reject: bool| Message {
        msg_type: MessageType::MsgAppendResponse as i32,
        from: follower,
        to: leader,
        term: status.term,
        index,
        reject,
        reject_hint,
        log_term: status.term,
        ..Message::default()
    };
    for message in [late(0, status.commit, true), late(status.commit - 1, status.commit, true)] {
        cluster.node(leader).step(&codec::encode(&message)).unwrap();
        cluster.settle();
    }
    // Nor does a leader believe what can't be: it would never send what is missing.
    let beyond = late(0, status.commit + 10, false);
    cluster.node(leader).step(&codec::encode(&beyond)).unwrap();
    cluster.settle();
    let held = cluster.status(leader).peers.iter().map(|peer| peer.matched).max();
    assert_eq!(held, Some(status.commit));
    cluster.commit("after");
    cluster.assert_equal();
}

/// What an older leader says, or anybody in an older term, proves nothing.
#[test]
fn an_older_term_proves_nothing() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let leader = cluster.leader().unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let term = cluster.status(follower).term;
    let commit = cluster.status(follower).commit + 100;
    let heartbeat = |term| Message {
        msg_type: MessageType::MsgHeartbeat as i32,
        from: leader,
        to: follower,
        term,
        commit,
        ..Message::default()
    };
    cluster.node(follower).step(&codec::encode(&heartbeat(term - 1))).unwrap();
    cluster.settle();
    cluster.commit("after");
    cluster.ends.insert(follower, None);
    cluster.node(follower).step(&codec::encode(&heartbeat(term))).unwrap();
    is_out(&mut cluster, follower);
}

#[test]
fn a_mark_outside_the_folder_tells_that_it_was_put_back() {
    use raft::eraftpb::{Entry, HardState};
    let (state, run, kept) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let entry = |index, term| Entry { index, term, data: b"x".to_vec(), ..Entry::default() };
    let write = |log: &mut LogStore, entries: &[Entry]| {
        let term = entries.last().map_or(1, |entry| entry.term);
        let hard_state = HardState { term, vote: 0, commit: 1 };
        log.write(&Batch { snapshot: None, entries, hard_state: Some(&hard_state) }).unwrap();
    };
    let open = || LogStore::open(state.path(), None).map(|log| log.expect("a log"));
    let mut log = LogStore::bootstrap(state.path(), identity(1), b"{}").unwrap();
    log.mark_beside(run.path()).unwrap();
    write(&mut log, &[entry(2, 1), entry(3, 1), entry(4, 1)]);
    drop(log);
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copy(state.path(), kept.path());
    // A log that gets shorter, because another leader's entries take the place of some, is none that
    // forgot.
    let mut log = open().unwrap();
    log.mark_beside(run.path()).unwrap();
    write(&mut log, &[entry(3, 2)]);
    drop(log);
    let mut log = open().unwrap();
    log.mark_beside(run.path()).unwrap();
    write(&mut log, &[entry(4, 2), entry(5, 2)]);
    drop(log);

    copy(kept.path(), state.path());
    let said = open().unwrap().mark_beside(run.path()).unwrap_err();
    assert!(matches!(said, OpenError::Amnesia { raft_id: 1, .. }), "{said}");
    // Also when the machine was started anew since.
    std::fs::remove_dir_all(run.path()).unwrap();
    assert_eq!(open().map(drop).unwrap_err().to_string(), said.to_string());
}

/// The folder outside is one for all nodes of a machine.
#[test]
fn marks_outside_the_folder_are_each_node_s_own() {
    let run = tempfile::tempdir().unwrap();
    let other = Identity { cluster: uuid::Uuid::from_u128(2), ..identity(1) };
    for (identity, term) in [(identity(1), 9), (identity(2), 8), (other, 7)] {
        let state = tempfile::tempdir().unwrap();
        let mut log = LogStore::join(state.path(), identity).unwrap();
        log.mark_beside(run.path()).unwrap();
        let hard_state = raft::eraftpb::HardState { term, ..Default::default() };
        log.write(&Batch { hard_state: Some(&hard_state), ..Batch::default() }).unwrap();
    }
}

/// The node was removed from its cluster, and may join one again.
#[test]
fn a_mark_outside_the_folder_goes_with_the_node() {
    let (state, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut log = LogStore::bootstrap(state.path(), identity(1), b"{}").unwrap();
    log.mark_beside(run.path()).unwrap();
    let cluster = identity(1).cluster;
    let names = || -> Vec<_> {
        std::fs::read_dir(run.path()).unwrap().map(|file| file.unwrap().file_name()).collect()
    };
    let [mark] = &names()[..] else { panic!("{:?}", names()) };
    LogStore::remove_mark_beside(run.path(), cluster, 1).unwrap();
    assert!(names().is_empty());
    LogStore::remove_mark_beside(run.path(), cluster, 1).expect("there is none: nothing to do");
    // What stays is told.
    std::fs::create_dir(run.path().join(mark)).unwrap();
    assert!(LogStore::remove_mark_beside(run.path(), cluster, 1).is_err());
}
