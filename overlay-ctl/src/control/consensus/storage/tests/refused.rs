//! Folders that hold something else than what this program leaves in them.

use std::os::unix::fs::symlink;

use super::*;

/// A name that leads to itself cannot be read, and is there.
fn blocked(dir: &Path) {
    symlink("consensus.redb", dir.join("consensus.redb")).unwrap();
}

#[test]
fn a_database_that_can_not_be_looked_at_is_neither_missing_nor_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    blocked(dir.path());
    let opened = LogStore::open(dir.path(), None);
    assert!(matches!(opened, Err(OpenError::Io { .. })), "{:?}", opened.err());
    let created = LogStore::bootstrap(dir.path(), identity(), b"empty");
    assert!(matches!(created, Err(OpenError::Io { .. })), "{:?}", created.err());

    let (dir, store) = fresh();
    drop(store);
    fs::remove_file(database(&dir)).unwrap();
    blocked(dir.path());
    let opened = LogStore::open(dir.path(), None);
    assert!(matches!(opened, Err(OpenError::Io { .. })), "{:?}", opened.err());
}

#[test]
fn a_note_that_can_not_be_removed_is_no_new_log() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("unfit")).unwrap();
    let created = LogStore::bootstrap(dir.path(), identity(), b"empty");
    assert!(matches!(created, Err(OpenError::Io { .. })), "{:?}", created.err());
    assert!(!database(&dir).exists());
}

#[test]
fn the_folder_of_a_new_log_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("var").join("state");
    drop(LogStore::bootstrap(&state, identity(), b"empty").unwrap());
    assert!(LogStore::open(&state, None).unwrap().is_some());
}

/// The engine would panic on it, or take one entry for another.
#[test]
fn a_log_that_is_not_consecutive_is_damaged() {
    type Change = fn(&WriteTransaction) -> Result<(), StoreError>;
    let changes: [(&str, Change); 4] = [
        ("a gap", |txn| {
            txn.open_table(LOG)?.remove(5)?;
            Ok(())
        }),
        ("an entry in the place of another", |txn| {
            txn.open_table(LOG)?.insert(5, codec::encode(&entry(6, 1)).as_slice())?;
            Ok(())
        }),
        ("a commit behind the end", |txn| {
            let hard_state = HardState { term: 1, vote: 1, commit: 21 };
            put(txn, HARD_STATE, &codec::encode(&hard_state))
        }),
        ("entries between the snapshot and the first one kept", |txn| {
            txn.open_table(LOG)?.retain_in(..=5, |_, _| false)?;
            put_truncated(txn, 5, 1)
        }),
    ];
    for (what, change) in changes {
        let (dir, mut store) = fresh();
        append(&mut store, &log(20, 1), 1, 10);
        let txn = store.db.begin_write().unwrap();
        change(&txn).unwrap();
        txn.commit().unwrap();
        drop(store);
        let refused = LogStore::open(dir.path(), None).err().expect(what);
        assert!(matches!(refused, OpenError::Damaged { .. }), "{what}: {refused}");
    }
}
