//! The hash of the state: when it is due, and that nothing of the state is left out.

use super::*;
use crate::model::{Generation, Network, Vni};

fn network(id: NetworkId) -> Network {
    Network {
        id,
        name: format!("n{id}").parse().unwrap(),
        vni: Vni::try_from(4_096 + u32::try_from(id).unwrap()).unwrap(),
        pool: Pool::whole("10.0.0.0/24".parse().unwrap()),
        options: NetworkOptions::default(),
    }
}

/// A state with so many networks, after the entry `revision`.
fn state(rows: u64, revision: Revision) -> State {
    let mut state = State { revision, ..State::default() };
    (1..=rows).for_each(|id| state.insert_network(network(id)));
    state
}

#[test]
fn a_hash_is_due_at_the_same_revisions_whatever_the_rows() {
    for (rows, revision, next, due) in [
        (0, 0, 1, None),
        (0, 1_022, 1_023, None),
        (0, 1_023, 1_024, Some(1_024)),
        (0, 1_024, 1_025, None),
        // Entries in between were no commands.
        (0, 1_020, 1_030, Some(1_024)),
        (0, 1_020, 3_000, Some(2_048)),
        (1_024, 1_023, 1_024, Some(1_024)),
        (1_025, 1_023, 1_024, None),
        (1_025, 2_047, 2_048, Some(2_048)),
        (1_025, 2_048, 2_049, None),
        (5_000, 8_191, 8_192, Some(8_192)),
    ] {
        let said = state(rows, revision).hash_is_due(next);
        assert_eq!(said, due, "{rows} rows, {revision}, {next}");
    }
}

#[test]
fn all_that_a_snapshot_has_is_in_the_hash() {
    let same = || {
        let mut state = state(3, 9);
        let command = Command::RemoveNetwork { name: "none".parse().unwrap(), only: None };
        drop(state.apply_entry(10, &envelope(1, command)));
        state
    };
    let hash = same().hash();
    assert_eq!(same().hash(), hash);
    assert_eq!(State::from_snapshot(&same().snapshot()).unwrap().hash(), hash, "read back");
    type Change = fn(&mut State);
    let changes: [(&str, Change); 9] = [
        ("revision", |state| state.revision += 1),
        ("version", |state| state.version = Version::V2),
        ("generation", |state| state.generation = Generation::FIRST.next(0)),
        ("rows", |state| state.insert_network(network(4))),
        ("last node id", |state| state.last_node_id = 7),
        ("last VNI", |state| state.last_vni = Some(Vni::try_from(5_000).unwrap())),
        ("last address", |state| {
            state.last_address.insert(1, Ipv4Addr::LOCALHOST);
        }),
        ("last leg", |state| {
            state.last_leg.insert(1, Ipv4Addr::LOCALHOST);
        }),
        ("requests", |state| {
            let command = Command::RemoveNetwork { name: "none".parse().unwrap(), only: None };
            let revision = state.revision;
            drop(state.apply_entry(revision + 1, &envelope(2, command)));
            state.revision = revision;
        }),
    ];
    for (what, change) in changes {
        let mut other = same();
        change(&mut other);
        assert_ne!(other.hash(), hash, "{what}");
    }
}
