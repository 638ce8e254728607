//! The log survives what disks and people do to it, or says that it did not.

use super::*;
use crate::durable::DiskFolder;
use raft::{
    GetEntriesContext, Storage,
    eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata},
};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use uuid::Uuid;

mod begin;
mod power;
mod refused;

fn identity() -> Identity {
    Identity { cluster: Uuid::from_u128(1), name: "a".into(), raft_id: 1 }
}

fn fresh() -> (TempDir, LogStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::bootstrap(dir.path(), identity(), b"empty").unwrap();
    (dir, store)
}

fn reopen(dir: &TempDir) -> LogStore {
    LogStore::open(dir.path(), None).unwrap().expect("a log")
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: format!("{index}/{term}").into_bytes(), ..Entry::default() }
}

fn log(last: u64, term: u64) -> Vec<Entry> {
    (2..=last).map(|index| entry(index, term)).collect()
}

fn append(store: &mut LogStore, entries: &[Entry], term: u64, commit: u64) {
    let hard_state = HardState { term, vote: 1, commit };
    store.write(&Batch { entries, hard_state: Some(&hard_state), ..Batch::default() }).unwrap();
}

fn entries(store: &LogStore) -> Vec<Entry> {
    let (first, last) = (store.first_index().unwrap(), store.last_index().unwrap());
    store.entries(first, last + 1, None, GetEntriesContext::empty(false)).unwrap()
}

fn database(dir: &TempDir) -> PathBuf {
    dir.path().join("consensus.redb")
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

#[test]
fn an_empty_folder_holds_no_log() {
    let dir = tempfile::tempdir().unwrap();
    assert!(LogStore::open(dir.path(), None).unwrap().is_none());
    assert!(LogStore::open(&dir.path().join("absent"), None).unwrap().is_none());
}

#[test]
fn everything_is_there_after_reopening() {
    let (dir, mut store) = fresh();
    let written: Vec<_> = (2..=9).map(|index| entry(index, 3)).collect();
    append(&mut store, &written, 3, 5);
    drop(store);
    let store = reopen(&dir);
    assert_eq!(store.identity(), &identity());
    assert_eq!(entries(&store), written);
    let state = store.initial_state().unwrap();
    assert_eq!(state.hard_state, HardState { term: 3, vote: 1, commit: 5 });
    assert_eq!(state.conf_state.voters, [1]);
    assert_eq!(store.term(1).unwrap(), 1);
    assert_eq!(store.snapshot_data().unwrap(), b"empty");
}

#[test]
fn a_joiner_starts_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity { raft_id: 4, ..identity() };
    drop(LogStore::join(dir.path(), identity).unwrap());
    let store = reopen(&dir);
    assert_eq!((store.first_index().unwrap(), store.last_index().unwrap()), (1, 0));
    assert!(!store.initial_state().unwrap().initialized());
}

#[test]
fn a_conflicting_suffix_is_replaced_and_that_is_not_amnesia() {
    let (dir, mut store) = fresh();
    append(&mut store, &log(9, 1), 1, 3);
    append(&mut store, &[entry(4, 2), entry(5, 2)], 2, 3);
    let expected = vec![entry(2, 1), entry(3, 1), entry(4, 2), entry(5, 2)];
    assert_eq!(entries(&store), expected);
    drop(store);
    assert_eq!(entries(&reopen(&dir)), expected);
}

#[test]
fn compaction_keeps_a_tail_and_raises_the_commit() {
    let (dir, mut store) = fresh();
    append(&mut store, &log(20, 1), 1, 2);
    let members = ConfState { voters: vec![1, 2], ..ConfState::default() };
    store.save_snapshot(15, members.clone(), b"at 15", 5).unwrap();
    drop(store);
    let store = reopen(&dir);
    assert_eq!((store.first_index().unwrap(), store.last_index().unwrap()), (11, 20));
    assert_eq!(store.term(10).unwrap(), 1);
    assert!(matches!(store.term(9), Err(raft::Error::Store(raft::StorageError::Compacted))));
    assert_eq!((store.entry_term(9).unwrap(), store.entry_term(21).unwrap()), (None, None));
    let state = store.initial_state().unwrap();
    assert_eq!((state.hard_state.commit, state.conf_state), (15, members));
    assert_eq!(store.snapshot_data().unwrap(), b"at 15");
}

/// Every transaction is an fsync, so a commit that is on disk already must not cost another one.
#[test]
fn a_commit_is_written_once_and_never_goes_back() {
    let (dir, mut store) = fresh();
    append(&mut store, &log(20, 1), 1, 3);
    assert!(!store.commit_waits());
    store.note_commit(5);
    assert!(store.commit_waits());
    store.write(&Batch::default()).unwrap();
    assert!(!store.commit_waits());

    let before = store.transactions();
    store.persist_commit(4).unwrap();
    store.persist_commit(5).unwrap();
    assert_eq!(store.transactions(), before, "it is on disk");
    store.persist_commit(7).unwrap();
    assert_eq!((store.transactions(), store.commit_waits()), (before + 1, false));
    append(&mut store, &[], 1, 6);
    drop(store);
    let mut store = reopen(&dir);
    assert_eq!(store.initial_state().unwrap().hard_state.commit, 7);
    assert!(!store.commit_waits(), "it was read from disk");

    store.note_commit(9);
    store.save_snapshot(8, ConfState::default(), b"at 8", 0).unwrap();
    assert!(!store.commit_waits());
    drop(store);
    assert_eq!(reopen(&dir).initial_state().unwrap().hard_state.commit, 9);
}

#[test]
fn a_snapshot_from_the_leader_replaces_the_log() {
    let (dir, mut store) = fresh();
    append(&mut store, &log(20, 1), 1, 2);
    let members = ConfState { voters: vec![2], learners: vec![1], ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state: Some(members), index: 12, term: 4 };
    let snapshot = Snapshot { data: b"at 12".to_vec(), metadata: Some(metadata) };
    // What a snapshot holds is committed, whatever else is said.
    let hard_state = HardState { term: 4, vote: 0, commit: 2 };
    let batch = Batch {
        snapshot: Some(&snapshot),
        entries: &[entry(13, 4)],
        hard_state: Some(&hard_state),
    };
    store.write(&batch).unwrap();
    assert_eq!(entries(&store), [entry(13, 4)]);
    drop(store);
    let store = reopen(&dir);
    assert_eq!(entries(&store), [entry(13, 4)]);
    assert_eq!(store.term(12).unwrap(), 4);
    assert_eq!(Storage::snapshot(&store, 0, 1).unwrap(), snapshot);
}

/// The core makes a newer one for it.
#[test]
fn a_snapshot_that_a_peer_can_not_use_is_withheld() {
    let (_dir, mut store) = fresh();
    assert_eq!(Storage::snapshot(&store, 1, 1).unwrap().data, b"empty");
    assert_eq!(store.take_wanted(), BTreeSet::new());
    let unavailable = raft::Error::Store(raft::StorageError::SnapshotTemporarilyUnavailable);
    let stranger = 2;
    for (index, to) in [(0, stranger), (2, 1)] {
        assert_eq!(Storage::snapshot(&store, index, to).unwrap_err(), unavailable);
        assert_eq!(store.take_wanted(), BTreeSet::from([to]));
        assert_eq!(store.take_wanted(), BTreeSet::new());
    }
}

#[test]
fn entries_come_from_disk_where_memory_has_none_and_respect_the_limit() {
    let (_dir, mut store) = fresh();
    let written: Vec<_> = (2..=40).map(|index| entry(index, index / 10 + 1)).collect();
    append(&mut store, &written, 5, 2);
    let in_memory: Vec<_> = (2..=40).map(|index| store.term(index).unwrap()).collect();
    store.tail.compact(25);
    assert_eq!(entries(&store), written);
    let on_disk: Vec<_> = (2..=40).map(|index| store.term(index).unwrap()).collect();
    assert_eq!(on_disk, in_memory);
    let read = |low, high, max| {
        let context = GetEntriesContext::empty(false);
        store.entries(low, high, max, context).unwrap().iter().map(|e| e.index).collect::<Vec<_>>()
    };
    assert_eq!(read(24, 28, None), [24, 25, 26, 27]);
    assert_eq!(read(24, 28, Some(0)), [24]);
    assert_eq!(read(30, 40, Some(0)), [30]);
    let size = raft_prost::Message::encoded_len(&entry(30, 4)) as u64;
    assert_eq!(read(30, 40, Some(3 * size)), [30, 31, 32]);
}

/// A copy of the open files is what a killed process leaves.
#[test]
fn a_killed_process_leaves_a_log_that_opens() {
    let (dir, mut store) = fresh();
    for index in 2..60 {
        append(&mut store, &[entry(index, 1)], 1, index - 1);
    }
    let dead = copy(dir.path());
    let revived = reopen(&dead);
    assert_eq!(entries(&revived), entries(&store));
    assert_eq!(revived.initial_state().unwrap().hard_state.commit, 58);
}

#[test]
fn a_log_in_use_is_refused() {
    let (dir, store) = fresh();
    assert!(matches!(LogStore::open(dir.path(), None), Err(OpenError::InUse { .. })));
    drop(store);
    drop(reopen(&dir));
}

#[test]
fn a_second_node_is_not_created_over_the_first() {
    let (dir, store) = fresh();
    drop(store);
    let again = LogStore::join(dir.path(), identity());
    assert!(matches!(again, Err(OpenError::Exists { .. })));
    drop(reopen(&dir));
}

#[test]
fn a_log_that_is_gone_is_amnesia() {
    let (dir, store) = fresh();
    drop(store);
    fs::write(database(&dir), b"").unwrap();
    let empty = LogStore::open(dir.path(), None);
    assert!(matches!(empty, Err(OpenError::Amnesia { raft_id: 1, .. })));
    assert_eq!(fs::metadata(database(&dir)).unwrap().len(), 0);
    fs::remove_file(database(&dir)).unwrap();
    let gone = LogStore::open(dir.path(), None);
    assert!(matches!(gone, Err(OpenError::Amnesia { raft_id: 1, .. })));
    assert!(!database(&dir).exists());
}

#[test]
fn a_log_restored_from_a_backup_is_amnesia() {
    let (dir, mut store) = fresh();
    append(&mut store, &[entry(2, 1)], 1, 1);
    drop(store);
    let old = fs::read(database(&dir)).unwrap();
    let mut store = reopen(&dir);
    append(&mut store, &[entry(3, 1)], 1, 2);
    drop(store);
    let new = fs::read(database(&dir)).unwrap();

    fs::write(database(&dir), &old).unwrap();
    let refused = LogStore::open(dir.path(), None);
    assert!(matches!(refused, Err(OpenError::Amnesia { raft_id: 1, .. })), "{:?}", refused.err());

    // A vote that was forgotten counts as much as an entry.
    fs::write(database(&dir), &new).unwrap();
    let mut store = reopen(&dir);
    append(&mut store, &[], 7, 2);
    drop(store);
    fs::write(database(&dir), &new).unwrap();
    let refused = LogStore::open(dir.path(), None);
    assert!(matches!(refused, Err(OpenError::Amnesia { raft_id: 1, .. })));
}

#[test]
fn a_removed_identity_file_comes_back_from_the_log() {
    let (dir, store) = fresh();
    drop(store);
    fs::remove_file(dir.path().join("identity.json")).unwrap();
    drop(reopen(&dir));
    let identity_file =
        crate::control::consensus::identity::load(&DiskFolder::new(dir.path())).unwrap();
    assert_eq!(identity_file, Some(identity()));
}

#[test]
fn state_of_another_cluster_or_life_is_refused() {
    let (dir, store) = fresh();
    drop(store);
    let other = Uuid::from_u128(2);
    let refused = LogStore::open(dir.path(), Some(other));
    assert!(matches!(refused, Err(OpenError::ForeignState { .. })));
    drop(LogStore::open(dir.path(), Some(Uuid::from_u128(1))).unwrap().expect("ours"));

    // Whatever else is wrong with it, and whichever of the two says whose it is.
    let (whole, parts) = (copy(dir.path()), ["consensus.redb", "identity.json"]);
    for part in parts {
        let dir = copy(whole.path());
        fs::remove_file(dir.path().join(part)).unwrap();
        let refused = LogStore::open(dir.path(), Some(other));
        assert!(matches!(refused, Err(OpenError::ForeignState { .. })), "without {part}");
    }

    let with_database_of = |stranger: Identity| {
        let theirs = tempfile::tempdir().unwrap();
        drop(LogStore::bootstrap(theirs.path(), stranger, b"").unwrap());
        fs::copy(database(&theirs), database(&dir)).unwrap();
        LogStore::open(dir.path(), None).map(drop)
    };
    let refused = with_database_of(Identity { cluster: other, ..identity() });
    assert!(matches!(refused, Err(OpenError::ForeignState { .. })), "{refused:?}");
    // That of another life of the node: the log of this one is gone.
    let refused = with_database_of(Identity { raft_id: 2, ..identity() });
    let Err(OpenError::Amnesia { raft_id, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(raft_id, identity().raft_id);
}

/// Whatever happened to the file: it opens with all its content, or it is refused; and a refused
/// file is not touched. Both a cleanly closed file and one of a killed process.
#[test]
fn a_damaged_database_is_refused_and_left_alone() {
    let (dir, mut store) = fresh();
    let written: Vec<_> = (2..=300).map(|index| entry(index, 1)).collect();
    for entry in &written {
        append(&mut store, std::slice::from_ref(entry), 1, entry.index - 1);
    }
    let killed = copy(dir.path());
    drop(store);

    let mut refusals = 0;
    for victim in [&dir, &killed] {
        let path = database(victim);
        let good = fs::read(&path).unwrap();
        let used = good.iter().rposition(|byte| *byte != 0).unwrap();
        let spots = (0..used).step_by(used / 60).chain([9, 64, 128, 200, 320]);
        for spot in spots {
            let mut bad = good.clone();
            bad[spot] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            match LogStore::open(victim.path(), None) {
                Ok(store) => {
                    // A page that nothing refers to any more.
                    assert_eq!(entries(&store.expect("a log")), written, "byte {spot}");
                }
                Err(error @ (OpenError::Damaged { .. } | OpenError::Amnesia { .. })) => {
                    assert!(error.to_string().contains("consensus.redb"), "{error}");
                    assert_eq!(fs::read(&path).unwrap(), bad, "byte {spot}: {error}");
                    refusals += 1;
                }
                Err(error) => panic!("byte {spot}: {error}"),
            }
        }
        let half = good[..good.len() / 2].to_vec();
        for bad in [half, b"not a database".to_vec(), vec![0; 8192]] {
            fs::write(&path, &bad).unwrap();
            let refused = LogStore::open(victim.path(), None).err().expect("refused");
            assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(entries(&reopen(victim)), written);
    }
    assert!(refusals > 20, "only {refusals} of the damages were noticed");
}

#[test]
fn a_damaged_identity_is_refused() {
    let (dir, store) = fresh();
    drop(store);
    let path = dir.path().join("identity.json");
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"?", 0).unwrap();
    let refused = LogStore::open(dir.path(), None);
    assert!(matches!(refused, Err(OpenError::Damaged { path: p, .. }) if p == path));
}
