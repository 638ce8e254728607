//! What a peer says can't end a node, unless it proves that a log lost something, or is of a newer version. Whoever
//! reaches the port may say it, with the present term too.

use std::collections::BTreeMap;

use raft::{
    Storage as _,
    eraftpb::{
        ConfChangeSingle, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType,
        Snapshot, SnapshotMetadata,
    },
};

use super::{
    commands,
    harness::{Cluster, Ledger, Outbox},
};
use crate::{
    control::consensus::{
        ConsensusConfig, Core, FatalError, Role, StateMachine as _,
        codec::{self, BadMessage},
    },
    seeded::Rng,
};

/// What peers send each other.
const KINDS: [MessageType; 12] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];
/// The node that is lied to.
const VICTIM: u64 = 2;

/// A log with a snapshot, entries behind it, and some of them not committed.
fn cluster() -> Cluster {
    let config = ConsensusConfig { snapshot_every: 8, keep_entries: 3, ..Default::default() };
    let mut cluster = Cluster::of_three(config);
    for number in 0..20 {
        cluster.commit(&number.to_string());
    }
    cluster
}

/// What the node sends; `None` where it ended since a message says that its log, or the leader's, is no
/// longer what it was. No node can tell such a lie from the truth, and going on after the truth would
/// lose committed writes.
fn pump(core: &mut Core<Ledger>) -> Option<Vec<Message>> {
    let mut outbox = Outbox(Vec::new());
    match core.pump(&mut outbox) {
        Ok(()) => {}
        Err(FatalError::Unfit(_) | FatalError::Overwritten { .. }) => return None,
        Err(error) => panic!("a message ended the node: {error:?}"),
    }
    Some(outbox.0.iter().map(|(_, bytes, _)| codec::decode(bytes).unwrap()).collect())
}

/// A copy of the victim in a part that it may play, with an entry that is not committed yet.
fn victim(cluster: &Cluster, role: Role) -> Core<Ledger> {
    let mut core = cluster.copy_of(VICTIM);
    let status = core.status();
    let from = 3;
    if role == Role::Follower {
        let (term, last) = (status.borrow().term, core.store().last_index().unwrap());
        let entry =
            Entry { term, index: last + 1, data: commands::word("open"), ..Default::default() };
        let append = Message {
            msg_type: MessageType::MsgAppend as i32,
            log_term: core.store().term(last).unwrap(),
            index: last,
            entries: vec![entry],
            ..message(from, term)
        };
        core.step(&codec::encode(&append)).unwrap();
        pump(&mut core).unwrap();
    }
    for _ in 0..1_000 {
        if status.borrow().role == role {
            let (reply, _) = tokio::sync::oneshot::channel();
            core.propose(commands::word("open"), reply);
            let (reply, _) = tokio::sync::oneshot::channel();
            core.read_index(reply);
            pump(&mut core).unwrap();
            return core;
        }
        core.tick();
        for asked in pump(&mut core).unwrap() {
            let granted = match MessageType::from_i32(asked.msg_type) {
                Some(MessageType::MsgRequestPreVote) => MessageType::MsgRequestPreVoteResponse,
                Some(MessageType::MsgRequestVote) if role == Role::Leader => {
                    MessageType::MsgRequestVoteResponse
                }
                Some(MessageType::MsgAppend) => MessageType::MsgAppendResponse,
                _ => continue,
            };
            let index = asked.index + asked.entries.len() as u64;
            let answer =
                Message { msg_type: granted as i32, index, ..message(asked.to, asked.term) };
            core.step(&codec::encode(&answer)).unwrap();
        }
    }
    panic!("the victim never becomes {role:?}");
}

fn message(from: u64, term: u64) -> Message {
    Message { to: VICTIM, from, term, ..Default::default() }
}

/// What is right in most respects, and wrong in some.
fn lie(core: &Core<Ledger>, rng: &mut Rng) -> Message {
    let status = core.status().borrow().clone();
    let (commit, last) = (status.commit, core.store().last_index().unwrap());
    let any_term = |rng: &mut Rng| match rng.below(100) {
        0 => 0,
        1 => status.term.saturating_add(1),
        2 => u64::MAX,
        3..25 => status.term.saturating_sub(1),
        _ => status.term,
    };
    let any_index = |rng: &mut Rng| match rng.below(100) {
        0 => 0,
        1 => u64::MAX - rng.below(3),
        2..10 => last + 1 + rng.below(5),
        10..20 => rng.below(last + 1),
        20..60 => commit,
        _ => last,
    };
    let kind = match rng.below(20) {
        0 => rng.below(40) as i32,
        _ => rng.pick(&KINDS).unwrap() as i32,
    };
    let index = any_index(rng);
    let log_term = match core.store().term(index) {
        Ok(term) if rng.percent(90) => term,
        _ => any_term(rng),
    };
    let mut entries: Vec<Entry> = (1..=rng.below(4))
        .map(|after| {
            let entry_type = match rng.below(10) {
                0 if rng.percent(50) => rng.below(5) as i32,
                1..4 => EntryType::EntryConfChangeV2 as i32,
                _ => EntryType::EntryNormal as i32,
            };
            Entry {
                index: if rng.percent(98) { index.wrapping_add(after) } else { any_index(rng) },
                term: if rng.percent(90) { status.term } else { any_term(rng) },
                entry_type,
                // A command that can't be read would end the node, as one of a newer version does.
                data: match entry_type == EntryType::EntryNormal as i32 {
                    true => commands::word(&after.to_string()),
                    false => data(rng),
                },
                ..Default::default()
            }
        })
        .collect();
    if kind == MessageType::MsgReadIndex as i32 || kind == MessageType::MsgReadIndexResp as i32 {
        entries.truncate(1);
    }
    let snapshot = kind == MessageType::MsgSnapshot as i32 || rng.percent(3);
    let is_read = kind == MessageType::MsgReadIndex as i32;
    Message {
        msg_type: kind,
        to: if rng.percent(98) { VICTIM } else { 3 },
        from: if rng.percent(95) { rng.pick(&[1, 3, 4]) } else { rng.pick(&[VICTIM, 0]) }.unwrap(),
        term: if is_read && rng.percent(90) { 0 } else { any_term(rng) },
        log_term,
        index,
        commit: any_index(rng),
        commit_term: any_term(rng),
        reject: rng.percent(40),
        reject_hint: any_index(rng),
        request_snapshot: if rng.percent(80) { 0 } else { any_index(rng) },
        context: vec![1; rng.below(3) as usize],
        entries,
        snapshot: snapshot.then(|| hostile_snapshot(core, any_index(rng), any_term(rng), rng)),
        ..Default::default()
    }
}

fn data(rng: &mut Rng) -> Vec<u8> {
    if rng.percent(5) {
        return (0..rng.below(9)).map(|_| rng.below(256) as u8).collect();
    }
    let strange = 7;
    let kind = |rng: &mut Rng| if rng.percent(97) { rng.below(3) as i32 } else { strange };
    let transition = kind(rng);
    let changes = (0..rng.below(3))
        .map(|_| ConfChangeSingle { change_type: kind(rng), node_id: rng.below(30).min(5) });
    let changes = changes.collect();
    codec::encode(&ConfChangeV2 { transition, changes, ..Default::default() })
}

fn hostile_snapshot(core: &Core<Ledger>, index: u64, term: u64, rng: &mut Rng) -> Snapshot {
    let mut ids = |most: u64| (0..rng.below(most)).map(|_| rng.below(5)).collect::<Vec<_>>();
    let mut members = ConfState { voters: ids(4), learners: ids(2), ..Default::default() };
    if rng.percent(60) {
        (members.voters, members.learners) = (vec![1, VICTIM, 3], Vec::new());
    }
    if rng.percent(20) {
        members.voters_outgoing = vec![1, VICTIM, 1 + rng.below(5)];
        members.learners_next = (0..rng.below(2)).map(|_| rng.below(6)).collect();
        members.auto_leave = rng.percent(50);
    }
    let data = match rng.below(4) {
        0 => Vec::new(),
        1 => vec![0xc1; 9],
        _ => core.machine().snapshot(),
    };
    let metadata = SnapshotMetadata { conf_state: Some(members), index, term };
    Snapshot { data, metadata: rng.percent(95).then_some(metadata) }
}

/// Says which messages it was, when the test fails.
struct Trail(Vec<Message>);

impl Drop for Trail {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the messages were, the last one last:");
            for message in &mut self.0 {
                if let Some(snapshot) = &mut message.snapshot {
                    snapshot.data.truncate(4);
                }
                eprintln!("{message:?}");
            }
        }
    }
}

#[test]
fn hostile_messages_end_a_node_only_by_proof_of_a_loss() {
    let mut rng = Rng::fresh();
    let mut cluster = cluster();
    let (mut said, mut ended, mut heard) = (0, 0, BTreeMap::<(String, MessageType), u32>::new());
    for role in [Role::Follower, Role::Candidate, Role::Leader] {
        for _ in 0..150 {
            let mut core = victim(&cluster, role);
            let mut trail = Trail(Vec::new());
            for _ in 0..25 {
                let message = lie(&core, &mut rng);
                trail.0.push(message.clone());
                let status = core.status().borrow().clone();
                said += 1;
                let taken = core.step(&codec::encode(&message)).is_ok();
                // The engine throws away what is of an older term; a read has none.
                let is_read = message.msg_type == MessageType::MsgReadIndex as i32;
                let now = message.term == status.term || is_read;
                if let Some(kind) = MessageType::from_i32(message.msg_type)
                    && taken
                    && now
                {
                    *heard.entry((format!("{:?}", status.role), kind)).or_default() += 1;
                }
                if rng.percent(20) {
                    core.tick();
                }
                if pump(&mut core).is_none() {
                    ended += 1;
                    break;
                }
            }
        }
    }
    let reached: u32 = heard.values().sum();
    println!("{reached} of {said} messages reached a handler, {ended} proved a loss: {heard:#?}");
    assert!(reached * 3 > said, "{reached} of {said} messages reached a handler");
    for role in [Role::Follower, Role::Candidate, Role::Leader].map(|role| format!("{role:?}")) {
        for kind in KINDS {
            let count = heard.get(&(role.clone(), kind)).copied().unwrap_or_default();
            assert!(count >= 5, "{kind:?} reached a {role} {count} times");
        }
    }
    cluster.commit("still here");
    cluster.assert_equal();
}

/// A snapshot that no version can read is a bad message, not the end of a voter; and it leaves
/// nothing in the log that a restart would meet.
#[test]
fn a_snapshot_that_can_not_be_read_is_refused() {
    let mut cluster = cluster();
    let status = cluster.status(VICTIM);
    let members = ConfState { voters: vec![1, 2, 3], ..Default::default() };
    let (index, term) = (status.commit + 1, status.term);
    let snapshot = Snapshot {
        data: b"no snapshot".to_vec(),
        metadata: Some(SnapshotMetadata { conf_state: Some(members), index, term }),
    };
    let message = Message {
        msg_type: MessageType::MsgSnapshot as i32,
        snapshot: Some(snapshot),
        ..message(1, term)
    };
    let refused = cluster.node(VICTIM).step(&codec::encode(&message));
    assert!(
        matches!(refused, Err(BadMessage::Snapshot { index: i, .. }) if i == index),
        "{refused:?}"
    );
    cluster.pump(VICTIM);
    assert_eq!(cluster.status(VICTIM).commit, status.commit);
    cluster.commit("still here");
    cluster.kill(VICTIM);
    cluster.start(VICTIM);
    cluster.assert_equal();
}
