//! Logs with which a generation begins, and those that they replace.

use super::*;
use crate::{
    control::consensus::identity::Mark,
    durable::simulated::{Fault, SimulatedFolder},
    seeded::Rng,
};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, EntryType};
use std::collections::BTreeSet;

const WITH: Beginning<'_> = Beginning { generation: 4, index: 900, term: 7, state: b"begun" };

/// Generation, first and last index, term and snapshot.
fn content(store: &LogStore) -> (u64, u64, u64, u64, Vec<u8>) {
    let state = store.initial_state().unwrap();
    let first = store.snapshot_metadata().index;
    let data = store.snapshot_data().unwrap();
    (store.generation(), first, store.last_index().unwrap(), state.hard_state.term, data)
}

#[test]
fn a_generation_begins_with_one_voter_and_its_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::begin(dir.path(), identity(), WITH).unwrap();
    assert_eq!(store.initial_state().unwrap().conf_state.voters, [1]);
    let begun = (4, 900, 900, 7, b"begun".to_vec());
    assert_eq!(content(&store), begun);
    drop(store);
    let mut store = reopen(&dir);
    assert_eq!(content(&store), begun);
    append(&mut store, &[entry(901, 8)], 8, 901);
    drop(store);
    assert_eq!(reopen(&dir).last_index().unwrap(), 901);
    let again = LogStore::begin(dir.path(), identity(), WITH);
    assert!(matches!(again, Err(OpenError::Exists { .. })), "a log is not replaced by accident");
    assert_eq!(reopen(&dir).last_index().unwrap(), 901);
}

#[test]
fn a_node_that_joins_a_generation_has_a_log_of_it() {
    let dir = tempfile::tempdir().unwrap();
    drop(LogStore::join_generation(dir.path(), identity(), 3).unwrap());
    assert_eq!(reopen(&dir).generation(), 3);
    let (dir, store) = fresh();
    assert_eq!(store.generation(), 1, "that of a cluster that was never restored");
    drop(store);
    LogStore::note_unfit(dir.path(), "it is of generation 1").unwrap();
    let refused = LogStore::open(dir.path(), None).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::Amnesia { .. }), "{refused}");
    assert!(refused.to_string().contains("it is of generation 1"), "{refused}");
}

/// At whatever operation the disk fails or the power goes.
#[test]
fn a_log_is_replaced_whole_or_not_at_all() {
    let mut rng = Rng::fresh();
    let prepared = |folder: &SimulatedFolder| {
        let mut store = LogStore::bootstrap_in(folder, identity(), b"empty").unwrap();
        append(&mut store, &log(9, 1), 1, 3);
        drop(store);
    };
    let (old, new) = ((1, 1, 9, 1, b"empty".to_vec()), (4, 900, 900, 7, b"begun".to_vec()));
    let mut seen = BTreeSet::new();
    for operation in 0.. {
        let mut done = false;
        for cut in 0..20 {
            let folder = SimulatedFolder::default();
            prepared(&folder);
            folder.fail_at(operation, Fault::any(&mut rng));
            done = LogStore::begin_in(&folder, identity(), WITH, true).map(drop).is_ok();
            let left =
                if cut % 4 == 0 { folder.after_kill() } else { folder.after_power_cut(&mut rng) };
            let found = LogStore::open_in(&left, None).unwrap().expect("a log");
            let found = content(&found);
            assert!(found == new || found == old && !done, "operation {operation}: {found:?}");
            seen.insert(found == new);
        }
        if done {
            assert!(operation > 5, "it took {operation} operations only");
            break;
        }
    }
    assert_eq!(seen.len(), 2, "the failures came at all times");
}

#[test]
fn a_mark_of_before_does_not_make_the_new_log_unfit() {
    let (dir, mut store) = fresh();
    append(&mut store, &log(9, 6), 6, 9);
    drop(store);
    drop(LogStore::begin_anew(dir.path(), identity(), WITH).unwrap());
    assert_eq!(Mark::open(&DiskFolder::new(dir.path())).unwrap().value().last, 900);
    drop(reopen(&dir));
}

#[test]
fn what_a_log_has_after_its_snapshot_is_read_with_its_voters() {
    let change = |index, kind, node_id| {
        let single = ConfChangeSingle { change_type: kind as i32, node_id };
        let change = ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() };
        let entry_type = EntryType::EntryConfChangeV2 as i32;
        Entry { index, term: 3, entry_type, data: codec::encode(&change), ..Entry::default() }
    };
    let (dir, mut store) = fresh();
    let first_of_term = Entry { data: Vec::new(), ..entry(2, 3) };
    let entries = [
        first_of_term,
        change(3, ConfChangeType::AddLearnerNode, 2),
        entry(4, 3),
        change(5, ConfChangeType::AddNode, 2),
        change(6, ConfChangeType::AddNode, 3),
        entry(7, 3),
        change(8, ConfChangeType::RemoveNode, 3),
    ];
    // The last two are not known to be committed.
    append(&mut store, &entries, 3, 6);
    drop(store);
    let commands = vec![(4, b"4/3".to_vec()), (7, b"7/3".to_vec())];
    let expected = Rest {
        commands,
        latest: Voting::of([1, 2].into()),
        committed: Voting::of([1, 2, 3].into()),
        term: 3,
    };
    assert_eq!(reopen(&dir).rest().unwrap(), expected);
}
