//! Versions of the cluster: nothing newer is written, nobody older joins, and a raise is the whole cluster's.

use super::{
    super::golden::{commands, commands_of_version_2},
    *,
};
use crate::model::{NodeId, SPEAKS, Speaks};

const V1: Version = Version::V1;
const V2: Version = Version::V2;

fn speaks(oldest: u32, newest: u32) -> Speaks {
    Speaks::from_wire(oldest, newest).unwrap()
}

fn raise(to: Version, nodes: &[(NodeId, Speaks)]) -> Command {
    Command::RaiseVersion { to, speaks: nodes.iter().copied().collect() }
}

fn register(number: u8, said: Option<Speaks>) -> Command {
    Command::RegisterNode {
        instance: [number; 16],
        name: format!("h{number}").parse().unwrap(),
        vtep: Ipv4Addr::new(10, 10, 10, number).into(),
        listen: (Ipv4Addr::new(10, 10, 10, number), 7400).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: said,
    }
}

/// A cluster at version 1 with two nodes.
fn of_two() -> Replica {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.node(2).unwrap();
    r
}

/// Each command names the version that it needs; what needs a later one is refused before it is logged, and by apply.
#[test]
fn nothing_is_logged_that_needs_a_later_version() {
    let of_version_1 = commands().into_iter().map(|command| (command, V1));
    let of_version_2 = commands_of_version_2().into_iter().map(|command| (command, V2));
    let mut kinds = BTreeSet::new();
    for (command, needs) in of_version_1.chain(of_version_2) {
        assert_eq!(command.needs(), needs, "{command:?}");
        // A new kind of command belongs into the list of its version, above.
        kinds.insert(match &command {
            Command::CreateNetwork { .. } => 0,
            Command::RemoveNetwork { .. } => 1,
            Command::RegisterNode { .. } => 2,
            Command::RemoveNode { .. } => 3,
            Command::CreateEndpoint { .. } => 4,
            Command::RemoveEndpoint { .. } => 5,
            Command::RaiseVersion { .. } => 6,
            Command::BeginLife { .. } => 7,
            Command::KeepEndpoint { .. } => 8,
            Command::Promote { .. } => 9,
            Command::Demote { .. } => 10,
            Command::SetVoters { .. } => 11,
            Command::ExchangeVteps { .. } => 12,
            Command::NoteLease { .. } => 13,
        });
        let is_raise = matches!(command, Command::RaiseVersion { .. });
        for has in [V1, V2] {
            let mut state = State::new(has);
            let too_new = Refusal::NeedsVersion { needs, has };
            let is_refused = needs > has && !is_raise;
            let decided = state.decide(1, command.clone());
            assert_eq!(decided == Err(too_new.clone()), is_refused, "{command:?} at {has}");
            let request = Mutation::new(request_id(1), &command);
            let entry = state.entry(request, command.clone());
            assert_eq!(entry.rules, needs.max(has).number(), "{command:?} at {has}");
            assert_eq!(state.apply(1, entry) == Err(too_new), is_refused, "{command:?} at {has}");
        }
    }
    assert_eq!(kinds.len(), 14, "of each kind one");
}

#[test]
fn a_row_names_the_version_that_it_needs() {
    let needs = |rows: Vec<Row>| {
        let nodes = rows.into_iter().filter_map(|row| match row {
            Row::Node(node) => Some(node.needs()),
            Row::Endpoint(endpoint) => Some(endpoint.needs()),
            // Its row has no field that is later than version 1.
            Row::Network(_) => None,
        });
        nodes.collect::<Vec<_>>()
    };
    assert_eq!(needs(golden::rows()), [V1, V1, V1]);
    assert_eq!(needs(golden::rows_behind_nat()), [V1]);
    assert_eq!(needs(golden::rows_of_version_2()), [V2]);
    assert_eq!(needs(golden::provisional_rows()), [V2]);
    assert_eq!(needs(golden::rows_with_leases()), [V2, V2]);
}

#[test]
fn a_raise_is_by_one_and_of_all_nodes() {
    let both = speaks(1, 2);
    for (to, nodes, why) in [
        (V1, &[(1, both), (2, both)][..], "it is at version 1"),
        (V2.next(), &[(1, both), (2, both)], "it is at version 1"),
        (V2, &[(1, both)], "the nodes are others than those that were asked"),
        (V2, &[(1, both), (3, both)], "the nodes are others than those that were asked"),
        (V2, &[(1, both), (2, both), (3, both)], "the nodes are others than those that were asked"),
        (V2, &[(1, both), (2, Speaks::UNSAID)], "node 2 speaks version 1"),
        (V2, &[(1, speaks(3, 4)), (2, both)], "node 1 speaks versions 3 to 4"),
    ] {
        let mut state = of_two().state;
        let before = state.clone();
        let command = raise(to, nodes);
        let entry = state.entry(Mutation::new(request_id(3), &command), command);
        let refused = state.apply(3, entry);
        assert_eq!(refused, Err(Refusal::CannotRaise { to, why: why.to_owned() }));
        // Not even the request is remembered, whose refusal version 1 can't hold.
        assert_eq!(State { revision: before.revision, ..state }, before);
    }
}

#[test]
fn a_raise_notes_what_each_node_speaks_and_is_told_to_all() {
    let mut r = of_two();
    let cursor = r.index;
    let epochs = |r: &Replica| r.state.nodes().map(|node| node.epoch).collect::<Vec<_>>();
    let before = epochs(&r);
    let said = [(1, speaks(1, 2)), (2, speaks(2, 3))];
    assert_eq!(r.apply(raise(V2, &said)), Ok(Applied::Raised(V2)));
    assert_eq!(r.state.version(), V2);
    let rows: Vec<_> = r.state.nodes().map(|node| (node.id, node.speaks.unwrap())).collect();
    assert_eq!(rows, said);
    assert_eq!(epochs(&r), before, "nobody has to register anew");
    let delta = r.state.delta_for(1, cursor, &BTreeSet::new());
    assert_eq!((delta.version, delta.complete, delta.upserts.len()), (V2, false, 2));
    // The same raise again, from a leader that does not know of the first.
    let again = r.apply(raise(V2, &said));
    assert!(matches!(again, Err(Refusal::CannotRaise { .. })), "{again:?}");
    // What a node says of itself once more changes nothing.
    let row = r.state.node(1).unwrap().clone();
    assert_eq!(r.apply(register(1, Some(speaks(1, 2)))), Ok(Applied::Node(row)));
}

#[test]
fn a_node_registers_by_the_version_that_its_program_speaks() {
    for (version, said, is_taken) in [
        (V1, None, true),
        (V2, Some(speaks(1, 2)), true),
        (V2, Some(speaks(2, 9)), true),
        (V2, Some(speaks(1, 1)), false),
        (V2, Some(speaks(3, 4)), false),
        // It was logged before the raise, or is of a program that does not say it.
        (V2, None, false),
    ] {
        let mut state = State::new(version);
        let command = register(1, said);
        let entry = state.entry(Mutation::new(request_id(1), &command), command);
        let outcome = state.apply(1, entry);
        if is_taken {
            let Ok(Applied::Node(node)) = outcome else { panic!("{said:?}: {outcome:?}") };
            assert_eq!((node.speaks, node.needs()), (said, version));
        } else {
            let speaks = said.unwrap_or(Speaks::UNSAID);
            assert_eq!(outcome, Err(Refusal::VersionNotSpoken { speaks, cluster: version }));
        }
    }
}

/// An upgraded program is another fact of the node: its row says so, under a new epoch.
#[test]
fn a_node_that_speaks_more_than_before_is_registered_anew() {
    let mut r = Replica { state: State::new(V2), index: 0 };
    r.apply(register(1, Some(speaks(1, 2)))).unwrap();
    r.apply(register(1, Some(speaks(1, 3)))).unwrap();
    let node = r.state.node(1).unwrap();
    assert_eq!((node.speaks, node.epoch), (Some(speaks(1, 3)), 2));
}

/// The format of each version, and what an earlier program is told by it.
#[test]
fn a_snapshot_is_written_in_the_format_of_the_version() {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
        #[serde(default)]
        version: u32,
    }
    let both = speaks(1, 2);
    let mut r = of_two();
    let head = |r: &Replica| {
        let Head { format, version } = rmp_serde::from_slice(&r.state.snapshot()).unwrap();
        (format, version)
    };
    assert_eq!(head(&r), (4, 0));
    r.apply(raise(V2, &[(1, both), (2, both)])).unwrap();
    assert_eq!(head(&r), (5, 2));
    let mut restored = State::from_snapshot(&r.state.snapshot()).unwrap();
    assert_eq!(restored, r.state);
    assert_eq!(restored.decide(99, register(3, Some(both))).map(drop), Ok(()));
    // A later version may keep the format.
    restored.version = SPEAKS.newest().next();
    let newer = State::from_snapshot(&restored.snapshot()).unwrap_err();
    let said = newer.to_string();
    assert!(matches!(newer, SnapshotError::Version(_)), "{newer:?}");
    assert_eq!(said, "it is of cluster version 3, and this program speaks versions 1 to 2");
}
