//! What a leader takes back, and what it leaves.

use super::*;
use crate::{
    control::{
        state::{Envelope, Noted, Placement, PortsWanted},
        voter::tests::alone_in,
    },
    model::{EndpointAddrs, NetworkOptions, NodeId, Permissions, Revision, SPEAKS, Version},
    proto::internal::{EndpointStatus, NodeStatus},
};
use std::net::Ipv4Addr;

const BOUND: Duration = Duration::from_secs(60);
const RUN: u64 = 7;

/// A cluster of node 1 with two endpoints: one that may be taken back, and one that may not.
fn log() -> [(Command, Option<u64>); 4] {
    let address = Ipv4Addr::new(10, 0, 0, 1);
    let register = Command::RegisterNode {
        instance: [1; 16],
        name: "h1".parse().unwrap(),
        vtep: address.into(),
        listen: (address, 7400).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: Some(SPEAKS),
    };
    let (name, options) = ("net".parse().unwrap(), NetworkOptions::default());
    let network = Command::CreateNetwork { name, pool: None, vni: None, options };
    let create = |name: &str| Command::CreateEndpoint {
        name: name.parse().unwrap(),
        network: "net".parse().unwrap(),
        placement: Placement::Node {
            node: "h1".parse().unwrap(),
            netns: format!("/run/netns/{name}").into(),
            addresses: EndpointAddrs::default(),
        },
        permissions: Permissions::NONE,
        aliases: [].into(),
        ports: PortsWanted::default(),
    };
    [(register, None), (network, None), (create("new"), Some(RUN)), (create("kept"), None)]
}

fn entry(state: &State, command: Command, provisional: Option<u64>) -> Envelope {
    let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
    state.entry_noting(request, command, Noted { provisional, ..Noted::default() })
}

fn apply(state: &mut State, command: Command, provisional: Option<u64>) -> Revision {
    let (index, entry) = (state.revision() + 1, entry(state, command, provisional));
    state.apply(index, entry).unwrap();
    index
}

/// The state after [`log`], and the ids of the two endpoints.
fn cluster() -> (State, EndpointId, EndpointId) {
    let mut state = State::new(Version::V2);
    let [.., new, kept] = log().map(|(command, run)| apply(&mut state, command, run));
    (state, new, kept)
}

fn report(node_id: NodeId, run: u64, endpoints: Vec<EndpointStatus>) -> NodeStatus {
    NodeStatus { node_id, run, endpoints, ..NodeStatus::default() }
}

fn down(id: EndpointId) -> EndpointStatus {
    EndpointStatus { id, reason: "eth0 is there".to_owned(), ..EndpointStatus::default() }
}

#[test]
fn what_never_was_up_is_taken_back_at_the_second_look() {
    let (state, new, kept) = cluster();
    let table = StatusTable::default();
    let mut found = Found::default();
    table.record(report(1, RUN, vec![down(new), down(kept)]));
    assert_eq!(found.look(&state, &table), BTreeMap::new());
    let expected = BTreeMap::from([(new, "eth0 is there".to_owned())]);
    assert_eq!(found.look(&state, &table), expected, "and not the one that stays");
}

#[test]
fn nothing_is_taken_back_that_may_have_been_up() {
    let (state, new, _) = cluster();
    let up = EndpointStatus { up: true, was_up: true, ..down(new) };
    let was_up = EndpointStatus { was_up: true, ..down(new) };
    for status in [
        report(1, RUN, vec![up]),
        report(1, RUN, vec![was_up]),
        report(1, RUN, vec![]),
        // Another run knows nothing of what was before it.
        report(1, RUN + 1, vec![down(new)]),
        report(1, 0, vec![down(new)]),
        report(2, RUN, vec![down(new)]),
    ] {
        let table = StatusTable::default();
        let mut found = Found::default();
        table.record(status.clone());
        for _ in 0..3 {
            assert_eq!(found.look(&state, &table), BTreeMap::new(), "{status:?}");
        }
    }
    // Once it is kept, too.
    let mut state = state;
    apply(&mut state, Command::KeepEndpoint { id: new }, None);
    let table = StatusTable::default();
    table.record(report(1, RUN, vec![down(new)]));
    let mut found = Found::default();
    for _ in 0..3 {
        assert_eq!(found.look(&state, &table), BTreeMap::new());
    }
}

/// As after the death of the leader that made it, whoever asked.
#[tokio::test]
async fn a_leader_takes_back_what_another_left() {
    let [first, others @ ..] = log();
    let mut state = State::new(Version::V2);
    apply(&mut state, first.0, first.1);
    let (_dir, voter) = alone_in(Uuid::new_v4(), &state);
    let mut ids = Vec::new();
    for (command, run) in others {
        let entry = voter.state.read(|state| entry(state, command, run)).encode().unwrap();
        let (id, made) = timeout(BOUND, voter.consensus.propose(entry)).await.unwrap().unwrap();
        made.unwrap();
        ids.push(id);
    }
    let [_, new, kept] = ids[..] else { panic!("{ids:?}") };
    let works = tokio::spawn(take_endpoints_back(voter.clone()));
    let reports = tokio::spawn({
        let table = voter.table.clone();
        async move {
            let mut interval = tokio::time::interval(PERIOD / 2);
            loop {
                interval.tick().await;
                table.record(report(1, RUN, vec![down(new), down(kept)]));
            }
        }
    });
    let mut revision = voter.state.revision();
    let is_gone = |_: &u64| voter.state.read(|state| state.endpoint(new).is_none());
    let gone = timeout(BOUND, revision.wait_for(is_gone)).await;
    drop(gone.expect("within the bound").unwrap());
    assert!(voter.state.read(|state| state.endpoint(kept).is_some()));
    reports.abort();
    voter.consensus.shutdown().await;
    timeout(BOUND, works).await.expect("consensus ended").unwrap();
}
