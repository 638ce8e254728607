//! What a power cut and a failing disk leave: all of a transaction or nothing, and never a log that
//! looks as if it had forgotten something.

use std::collections::BTreeSet;

use super::*;
use crate::{
    control::consensus::identity,
    durable::{
        Folder,
        simulated::{Fault, SimulatedFolder},
    },
    seeded::Rng,
};

/// Power cuts at each moment of a scenario.
const CUTS: u64 = 40;

fn open(folder: &SimulatedFolder) -> Option<LogStore> {
    LogStore::open_in(folder, None).unwrap_or_else(|error| panic!("after a power cut: {error}"))
}

/// All that a log holds.
fn content(store: &LogStore) -> (Vec<Entry>, HardState, SnapshotMetadata, Vec<u8>) {
    let hard_state = store.initial_state().unwrap().hard_state;
    let (meta, data) = (store.snapshot_metadata().clone(), store.snapshot_data().unwrap());
    (entries(store), hard_state, meta, data)
}

/// Lets the disk fail at each operation of `change`, before or after it, and the power go then, or only
/// the process. What is left must be what was there before or what the change makes of it; and what it
/// makes of it once it said that it was done.
fn whole_or_not_at_all(
    prepare: impl Fn(&SimulatedFolder) -> LogStore,
    change: impl Fn(&mut LogStore) -> Result<(), StoreError>,
) {
    let mut rng = Rng::fresh();
    let folder = SimulatedFolder::default();
    let mut store = prepare(&folder);
    let before = content(&store);
    change(&mut store).unwrap();
    let after = content(&store);
    assert_ne!(before, after, "the change changes nothing");

    let mut seen = BTreeSet::new();
    for operation in 0.. {
        let mut done = false;
        for cut in 0..CUTS {
            let folder = SimulatedFolder::default();
            let mut store = prepare(&folder);
            folder.fail_at(operation, Fault::any(&mut rng));
            done = change(&mut store).is_ok();
            assert_eq!(done, !folder.failed(), "operation {operation} failed and nobody said so");
            let left =
                if cut % 4 == 0 { folder.after_kill() } else { folder.after_power_cut(&mut rng) };
            drop(store);
            let found = open(&left).expect("a log");
            let (is_old, is_new) = (content(&found) == before, content(&found) == after);
            assert!(
                is_new || is_old && !done,
                "operation {operation}, done: {done}: {:?}, neither {before:?} nor {after:?}",
                content(&found),
            );
            seen.insert(is_new);
            // Once a start has read it, it stays.
            let again = left.after_power_cut(&mut rng);
            drop(found);
            assert_eq!(content(&open(&again).expect("a log")) == after, is_new, "read and lost");
        }
        if done {
            assert!(operation > 2, "it took {operation} operations only");
            break;
        }
    }
    assert_eq!(seen.len(), 2, "the failures came at all times");
}

fn prepared(folder: &SimulatedFolder) -> LogStore {
    let mut store = LogStore::bootstrap_in(folder, identity(), b"empty").unwrap();
    append(&mut store, &log(9, 1), 1, 3);
    store
}

/// Entries without the vote that goes with them, or a vote without the entries, would be two
/// transactions.
#[test]
fn entries_and_hard_state_are_one_transaction() {
    whole_or_not_at_all(prepared, |store| {
        let hard_state = HardState { term: 2, vote: 3, commit: 9 };
        let entries = [entry(10, 2), entry(11, 2)];
        store.write(&Batch { entries: &entries, hard_state: Some(&hard_state), ..Batch::default() })
    });
}

#[test]
fn a_vote_alone_is_durable() {
    whole_or_not_at_all(prepared, |store| {
        let hard_state = HardState { term: 7, vote: 2, commit: 3 };
        store.write(&Batch { hard_state: Some(&hard_state), ..Batch::default() })
    });
}

/// The mark goes down before the log does, and durably, or a crash in between would look like amnesia.
#[test]
fn a_suffix_is_replaced_whole() {
    whole_or_not_at_all(prepared, |store| {
        let hard_state = HardState { term: 2, vote: 0, commit: 3 };
        let entries = [entry(4, 2), entry(5, 2)];
        store.write(&Batch { entries: &entries, hard_state: Some(&hard_state), ..Batch::default() })
    });
}

#[test]
fn a_snapshot_of_the_leader_replaces_all_or_nothing() {
    let members = ConfState { voters: vec![1, 2], ..ConfState::default() };
    // Longer than the log, and, after a conflict, shorter.
    for index in [5, 20] {
        let metadata = SnapshotMetadata { conf_state: Some(members.clone()), index, term: 4 };
        let snapshot = Snapshot { data: vec![7; 20_000], metadata: Some(metadata) };
        whole_or_not_at_all(prepared, |store| {
            let hard_state = HardState { term: 4, vote: 0, commit: index };
            store.write(&Batch {
                snapshot: Some(&snapshot),
                entries: &[entry(index + 1, 4)],
                hard_state: Some(&hard_state),
            })
        });
    }
}

#[test]
fn compaction_is_whole() {
    whole_or_not_at_all(prepared, |store| {
        let members = ConfState { voters: vec![1, 2], ..ConfState::default() };
        store.save_snapshot(7, members, b"at 7", 2)
    });
}

/// A mark is written after the transaction and not synced: whatever it was since the last sync may come
/// back after a power cut.
#[test]
fn no_mark_that_comes_back_looks_like_amnesia() {
    let mut rng = Rng::fresh();
    for _ in 0..300 {
        let folder = SimulatedFolder::default();
        let mut store = prepared(&folder);
        append(&mut store, &[entry(4, 2)], 2, 3);
        append(&mut store, &[entry(5, 2)], 2, 3);
        let expected = content(&store);
        let left = folder.after_power_cut(&mut rng);
        assert_eq!(content(&open(&left).expect("a log")), expected);
    }
}

/// An attempt that was given up left a mark; the next one begins at zero.
#[test]
fn a_mark_left_behind_is_gone_before_the_new_log_is_there() {
    created_at_any_moment(|folder| {
        let mut mark = Mark::open(folder).unwrap();
        mark.record(HighWater { term: 9, last: 90 }).unwrap();
        mark.lower(80).unwrap();
        folder.sync().unwrap();
    });
}

#[test]
fn a_log_is_made_whole_or_can_be_made_again() {
    created_at_any_moment(|_| {});
}

/// The note is about the log of another id, which was moved away.
#[test]
fn a_new_log_is_not_refused_for_what_an_old_one_forgot() {
    created_at_any_moment(|folder| {
        identity::set_unfit(folder, "the old log forgot something").unwrap();
    });
}

fn created_at_any_moment(prepare: impl Fn(&SimulatedFolder)) {
    let mut rng = Rng::fresh();
    let create = |folder: &SimulatedFolder| LogStore::bootstrap_in(folder, identity(), b"empty");
    let mut seen = BTreeSet::new();
    for operation in 0.. {
        let mut done = false;
        for _ in 0..CUTS {
            let folder = SimulatedFolder::default();
            prepare(&folder);
            folder.fail_at(operation, Fault::any(&mut rng));
            let created = create(&folder);
            done = created.is_ok();
            let left = folder.after_power_cut(&mut rng);
            drop(created);
            let found = open(&left);
            seen.insert(found.is_some());
            assert!(found.is_some() || !done, "operation {operation}: made, and not there");
            match found {
                Some(store) => {
                    let outside = identity::load(&left).unwrap();
                    assert_eq!(outside, Some(identity()), "operation {operation}");
                    assert_eq!(store.snapshot_data().unwrap(), b"empty");
                }
                None => drop(create(&left).unwrap()),
            }
        }
        if done {
            assert!(operation > 5, "it took {operation} operations only");
            break;
        }
    }
    assert_eq!(seen.len(), 2, "the failures came at all times");
}

/// What [`identity::store`] wrote is there when it returned.
#[test]
fn an_identity_is_durable() {
    let mut rng = Rng::fresh();
    for _ in 0..100 {
        let folder = SimulatedFolder::default();
        identity::store(&folder, &identity()).unwrap();
        let left = folder.after_power_cut(&mut rng);
        assert_eq!(identity::load(&left).unwrap(), Some(identity()));
    }
}

/// What cannot be read now may be there: the node must not pass over it, and not call it damaged.
#[test]
fn a_file_that_can_not_be_read_is_neither_missing_nor_damaged() {
    let prepare = || {
        let folder = SimulatedFolder::default();
        drop(prepared(&folder));
        folder
    };
    for name in ["identity.json", "mark", "unfit"] {
        let folder = prepare();
        if name == "unfit" {
            identity::set_unfit(&folder, "it forgot something").unwrap();
        }
        folder.fail_a_read(name, 0);
        let refused = LogStore::open_in(&folder, None).err().expect(name);
        assert!(matches!(refused, OpenError::Io { .. }), "{name}: {refused}");
    }
    let expected = content(&prepared(&SimulatedFolder::default()));
    let mut refusals = 0;
    for read in 0.. {
        let folder = prepare();
        folder.fail_a_read("consensus.redb", read);
        let opened = LogStore::open_in(&folder, None);
        if folder.read_will_fail() {
            break;
        }
        match opened {
            // It was a read of the closing probe, on which nothing depends.
            Ok(store) => assert_eq!(content(&store.expect("a log")), expected),
            Err(OpenError::Io { .. }) => refusals += 1,
            Err(error) => panic!("read {read}: {error}"),
        }
        assert_eq!(content(&open(&folder).expect("a log")), expected, "read {read}");
    }
    assert!(refusals > 5, "only {refusals} reads were refused");
}

/// It is the disk that is broken, and not what it holds.
#[test]
fn a_disk_that_fails_while_a_log_is_opened_is_named() {
    for operation in 0.. {
        let folder = SimulatedFolder::default();
        drop(prepared(&folder));
        folder.fail_at(operation, Fault::Before);
        let opened = LogStore::open_in(&folder, None);
        if !folder.failed() {
            assert!(operation > 0, "a log is opened without a write");
            break;
        }
        let error = opened.err().expect("refused");
        let named = matches!(error, OpenError::Io { .. } | OpenError::Store { .. });
        assert!(named, "operation {operation}: {error}");
    }
}
