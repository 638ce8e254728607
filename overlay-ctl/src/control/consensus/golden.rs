//! The values behind the golden files of the log, the identity and the mark.

use raft::{
    GetEntriesContext, Storage as _,
    eraftpb::{
        ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
        Message, MessageType, Snapshot, SnapshotMetadata,
    },
};
use uuid::Uuid;

use super::{
    Identity, LogStore, codec,
    identity::{self, HighWater, IDENTITY, Mark, UNFIT},
    storage::{Batch, Beginning},
};
use crate::durable::{DiskFolder, Folder};
use std::path::Path;

const CLUSTER: Uuid = Uuid::from_u128(0x6f76_6572_6c61_7900_0000_0000_0000_0001);

fn identity_value() -> Identity {
    Identity { cluster: CLUSTER, name: "h1".into(), raft_id: 3 }
}

fn folder() -> (tempfile::TempDir, DiskFolder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = DiskFolder::new(dir.path());
    (dir, folder)
}

pub(crate) fn identity_file() -> Vec<u8> {
    let (_dir, folder) = folder();
    identity::store(&folder, &identity_value()).unwrap();
    folder.read(IDENTITY).unwrap()
}

pub(crate) fn check_identity(bytes: &[u8]) {
    let (_dir, folder) = folder();
    folder.replace(IDENTITY, bytes).unwrap();
    assert_eq!(identity::load(&folder).unwrap(), Some(identity_value()));
}

const WHY: &str = "it held revision 9 in term 2, now it ends at revision 7 in term 2";

pub(crate) fn unfit() -> Vec<u8> {
    let (_dir, folder) = folder();
    identity::set_unfit(&folder, WHY).unwrap();
    folder.read(UNFIT).unwrap()
}

pub(crate) fn check_unfit(bytes: &[u8]) {
    let (_dir, folder) = folder();
    folder.replace(UNFIT, bytes).unwrap();
    assert_eq!(identity::unfit(&folder).unwrap().as_deref(), Some(WHY));
}

const HIGH: HighWater = HighWater { term: 0x0102_0304_0506, last: 70_000 };

pub(crate) fn mark() -> Vec<u8> {
    let (_dir, folder) = folder();
    Mark::open(&folder).unwrap().record(HIGH).unwrap();
    folder.read("mark").unwrap()
}

pub(crate) fn check_mark(bytes: &[u8]) {
    let (_dir, folder) = folder();
    folder.replace("mark", bytes).unwrap();
    assert_eq!(Mark::open(&folder).unwrap().value(), HIGH);
}

fn change() -> ConfChangeV2 {
    let single = ConfChangeSingle { change_type: ConfChangeType::AddNode as i32, node_id: 2 };
    ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() }
}

fn log() -> Vec<Entry> {
    let commands = crate::control::state::golden::entries();
    let leaders_first = Entry { index: 2, term: 2, ..Entry::default() };
    let members = Entry {
        index: 3,
        term: 2,
        entry_type: EntryType::EntryConfChangeV2 as i32,
        data: codec::encode(&change()),
        ..Entry::default()
    };
    let commands = (4..).zip(commands).map(|(index, data)| Entry {
        index,
        term: if index < 8 { 2 } else { 3 },
        data,
        ..Entry::default()
    });
    [leaders_first, members].into_iter().chain(commands).collect()
}

const SNAPSHOT_AT: u64 = 7;
const KEPT: u64 = 3;

fn members() -> ConfState {
    ConfState { voters: vec![2, 3], learners: vec![4], ..ConfState::default() }
}

fn hard_state() -> HardState {
    HardState { term: 5, vote: 2, commit: 9 }
}

pub(crate) fn database() -> Vec<u8> {
    let (_dir, folder) = folder();
    let mut store = LogStore::bootstrap_in(&folder, identity_value(), b"empty").unwrap();
    store.write(&Batch { entries: &log(), ..Batch::default() }).unwrap();
    store
        .save_snapshot(SNAPSHOT_AT, members(), &crate::control::state::golden::snapshot(), KEPT)
        .unwrap();
    store.write(&Batch { hard_state: Some(&hard_state()), ..Batch::default() }).unwrap();
    drop(store);
    folder.read("consensus.redb").unwrap()
}

/// A log in `dir` whose database an earlier version wrote: that of a cluster with no other member, which has applied all of it.
pub(crate) fn database_of_one(dir: &Path) -> LogStore {
    let folder = DiskFolder::new(dir);
    folder.replace("consensus.redb", &crate::golden::file("consensus.2.redb")).unwrap();
    let mut store = LogStore::open_in(&folder, Some(CLUSTER)).unwrap().expect("a log");
    let last = store.last_index().unwrap();
    let alone = ConfState { voters: vec![identity_value().raft_id], ..ConfState::default() };
    store.save_snapshot(last, alone, &store.snapshot_data().unwrap(), KEPT).unwrap();
    let committed = HardState { commit: last, ..hard_state() };
    store.write(&Batch { hard_state: Some(&committed), ..Batch::default() }).unwrap();
    store
}

/// The database of a version whose legs had no ids of their own.
pub(crate) fn check_former_database(bytes: &[u8]) {
    check_database_with(bytes, crate::control::state::golden::check_former_snapshot);
}

pub(crate) fn check_database(bytes: &[u8]) {
    check_database_with(bytes, crate::control::state::golden::check_snapshot);
}

fn check_database_with(bytes: &[u8], check_snapshot: fn(&[u8])) {
    let (_dir, folder) = folder();
    folder.replace("consensus.redb", bytes).unwrap();
    let store = LogStore::open_in(&folder, Some(CLUSTER)).unwrap().expect("a log");
    assert_eq!(store.identity(), &identity_value());
    let state = store.initial_state().unwrap();
    assert_eq!((state.hard_state, state.conf_state), (hard_state(), members()));
    let (first, last) = (store.first_index().unwrap(), store.last_index().unwrap());
    assert_eq!(first, SNAPSHOT_AT - KEPT + 1);
    assert_eq!(store.term(first - 1).unwrap(), 2);
    let entries = store.entries(first, last + 1, None, GetEntriesContext::empty(false)).unwrap();
    assert_eq!(entries.len(), log().iter().filter(|entry| entry.index >= first).count());
    // The commands are compared as what they mean: this version may write them otherwise.
    let skipped = (first - 4) as usize;
    let commands = crate::control::state::golden::commands().split_off(skipped);
    for (entry, (expected, command)) in
        entries.iter().zip(log().split_off(skipped + 2).iter().zip(commands))
    {
        assert_eq!((entry.index, entry.term), (expected.index, expected.term));
        let found: crate::control::state::Envelope = rmp_serde::from_slice(&entry.data).unwrap();
        assert_eq!(found.command, command);
    }
    let meta = store.snapshot_metadata();
    assert_eq!((meta.index, meta.term), (SNAPSHOT_AT, 2));
    check_snapshot(&store.snapshot_data().unwrap());
    // Writing to it goes on.
    drop(store);
    let mut store = LogStore::open_in(&folder, Some(CLUSTER)).unwrap().expect("a log");
    let next = Entry { index: last + 1, term: 5, ..Entry::default() };
    store.write(&Batch { entries: &[next], ..Batch::default() }).unwrap();
}

pub(crate) fn entry() -> Vec<u8> {
    codec::encode(&log()[1])
}

pub(crate) fn check_entry(bytes: &[u8]) {
    let entry: Entry = codec::decode(bytes).unwrap();
    assert_eq!(entry, log()[1]);
    assert_eq!(codec::decode::<ConfChangeV2>(&entry.data).unwrap(), change());
}

fn message_value() -> Message {
    let metadata = SnapshotMetadata { conf_state: Some(members()), index: 7, term: 2 };
    Message {
        msg_type: MessageType::MsgAppend as i32,
        to: 3,
        from: 2,
        term: 5,
        log_term: 3,
        index: 12,
        entries: vec![Entry { index: 13, term: 5, data: b"command".to_vec(), ..Entry::default() }],
        commit: 11,
        commit_term: 3,
        snapshot: Some(Snapshot { data: b"state".to_vec(), metadata: Some(metadata) }),
        reject: true,
        reject_hint: 9,
        context: b"context".to_vec(),
        ..Message::default()
    }
}

pub(crate) fn message() -> Vec<u8> {
    codec::encode(&message_value())
}

pub(crate) fn check_message(bytes: &[u8]) {
    assert_eq!(codec::decode::<Message>(bytes).unwrap(), message_value());
}

/// A log in `dir` of node 1, one of three voters, whose snapshot is `state` at revision 1, with these commands behind it. None
/// of them is known to be committed.
pub(crate) fn log_of_three(dir: &Path, state: &[u8], commands: Vec<Vec<u8>>) {
    let identity = Identity { raft_id: 1, ..identity_value() };
    let mut store = LogStore::bootstrap(dir, identity, state).unwrap();
    let alone = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    store.save_snapshot(1, alone, state, 0).unwrap();
    let commands = (2..).zip(commands);
    let entry = |(index, data)| Entry { index, term: 2, data, ..Entry::default() };
    let entries: Vec<Entry> = commands.map(entry).collect();
    let hard_state = HardState { term: 2, vote: 0, commit: 1 };
    let batch = Batch { entries: &entries, hard_state: Some(&hard_state), ..Batch::default() };
    store.write(&batch).unwrap();
}

/// The log with which a generation begins.
pub(crate) fn begun() -> Vec<u8> {
    let (dir, folder) = folder();
    let state = crate::control::state::golden::snapshot_of_a_generation();
    let with = Beginning { generation: 2, index: 70_000, term: 6, state: &state };
    drop(LogStore::begin(dir.path(), identity_value(), with).unwrap());
    folder.read("consensus.redb").unwrap()
}

pub(crate) fn check_begun(bytes: &[u8]) {
    let (_dir, folder) = folder();
    folder.replace("consensus.redb", bytes).unwrap();
    let store = LogStore::open_in(&folder, Some(CLUSTER)).unwrap().expect("a log");
    assert_eq!((store.generation(), store.snapshot_metadata().index), (2, 70_000));
    assert_eq!(store.initial_state().unwrap().conf_state.voters, [3]);
    crate::control::state::golden::check_snapshot_of_a_generation(&store.snapshot_data().unwrap());
}
