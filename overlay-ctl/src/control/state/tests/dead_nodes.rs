//! A node is removed with its endpoints, by one command.

use super::*;
use crate::model::{NodeId, SPEAKS};

/// A cluster at version 2: h1, h2 and h3, of which h2 has a gateway bridge, and two networks. Two endpoints of `net` are on
/// h2, one of them with an alias and a published port; one of `other` is there, too, and one of `net` is on h1. Another of
/// `net` is behind a VTEP that is no node's.
fn replica() -> Replica {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.node_at(2, "172.18.0.0/16").unwrap();
    r.node(3).unwrap();
    r.raise();
    r.network("net", "10.0.0.0/24", None).unwrap();
    r.network("other", "10.1.0.0/24", None).unwrap();
    let on_h2 = |name| Wish { node: "h2", ..Wish::new(name) };
    for wish in [
        Wish { aliases: &["www"], publish: &["8080:80"], ..on_h2("a") },
        on_h2("b"),
        Wish { network: "other", ..on_h2("a") },
        Wish::new("c"),
    ] {
        r.apply(wish.command()).unwrap();
    }
    r.apply(Command::CreateEndpoint {
        name: "sw1".parse().unwrap(),
        network: "net".parse().unwrap(),
        placement: Placement::External {
            vtep: Ipv4Addr::new(203, 0, 113, 77).into(),
            mac: Mac::of_endpoint(Ipv4Addr::new(10, 0, 0, 99)),
            addresses: Ipv4Addr::new(10, 0, 0, 99).into(),
        },
        permissions: Permissions::NONE,
        aliases: BTreeSet::new(),
        ports: PortsWanted::default(),
    })
    .unwrap();
    r
}

fn remove(node: &str, with_endpoints: bool) -> Command {
    Command::RemoveNode { name: node.parse().unwrap(), only: None, with_endpoints }
}

fn names(state: &State) -> Vec<String> {
    state.endpoints().map(|endpoint| endpoint.name.to_string()).collect()
}

fn view_of(state: &State, node: NodeId) -> View {
    let mut view = View::default();
    view.apply(state.view_of(node));
    view
}

#[test]
fn without_the_word_a_node_with_endpoints_stays() {
    let mut r = replica();
    let before = r.state.clone();
    let refusal = r.apply(remove("h2", false)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "node h2 has 3 endpoints; remove them first, or all with it by `overlay node rm --force h2`"
    );
    assert!(r.state.nodes().eq(before.nodes()) && r.state.endpoints().eq(before.endpoints()));
}

/// All that an endpoint takes is free again, as if each had been removed by itself.
#[test]
fn with_it_the_state_is_as_after_removing_each_endpoint_and_then_the_node() {
    let (mut at_once, mut by_hand) = (replica(), replica());
    let revision = at_once.index + 1;
    assert_eq!(at_once.apply(remove("h2", true)), Ok(Applied::Removed(revision)));
    for (name, network) in [("a", "net"), ("b", "net"), ("a", "other")] {
        let network = Some(network.parse().unwrap());
        let name = name.parse().unwrap();
        by_hand.apply(Command::RemoveEndpoint { name, network, only: None }).unwrap();
    }
    by_hand.apply(remove("h2", false)).unwrap();
    assert_eq!(names(&at_once.state), ["c", "sw1"]);
    (by_hand.state.revision, by_hand.state.dedup) = (revision, at_once.state.dedup.clone());
    // What is held back, by the one revision or by each of its own.
    let held_back = |state: &State| state.withdrawn.rows().count();
    assert_eq!((held_back(&at_once.state), held_back(&by_hand.state)), (3, 3));
    by_hand.state.withdrawn = at_once.state.withdrawn.clone();
    assert_eq!(at_once.state, by_hand.state);
    let restored = State::from_snapshot(&at_once.state.snapshot()).unwrap();
    assert_eq!(restored, at_once.state);
    // Names and the port are somebody else's now.
    at_once.node_at_version_2(2).unwrap();
    let again = Wish { node: "h2", publish: &["8080:80"], aliases: &["b"], ..Wish::new("a") };
    at_once.apply(again.command()).unwrap();
}

/// By a log that is shorter than what goes, as by one that is longer.
#[test]
fn the_other_nodes_hear_of_all_that_goes() {
    for remembered in [2, 100] {
        let mut r = replica();
        r.state = r.state.remembering(remembered);
        let (h1, h3) = (view_of(&r.state, 1), view_of(&r.state, 3));
        r.apply(remove("h2", true)).unwrap();
        for (node, mut view) in [(1, h1), (3, h3)] {
            let held = view.networks.keys().copied().collect();
            let delta = r.state.delta_for(node, view.revision, &held);
            assert_eq!(delta.complete, remembered == 2);
            view.apply(delta);
            assert_eq!(view, view_of(&r.state, node));
            assert!(view.nodes.get(&2).is_none());
            assert!(view.all_endpoints().all(|endpoint| endpoint.node() != Some(2)));
        }
    }
}

#[test]
fn a_node_without_endpoints_and_a_repetition_are_as_ever() {
    let mut r = replica();
    let gone = r.apply(remove("h3", true)).unwrap();
    let request = r.index;
    let again = envelope(request, remove("h3", true));
    r.index += 1;
    assert_eq!(r.state.apply_entry(r.index, &again), Ok(gone));
    // Another wish is another request.
    let other = envelope(request, remove("h3", false));
    r.index += 1;
    let refused = r.state.apply_entry(r.index, &other);
    assert!(matches!(refused, Err(Refusal::RequestIdUsed { .. })), "{refused:?}");
}

/// A program of before would read the command as one that keeps the endpoints.
#[test]
fn version_1_has_no_such_command() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    let refusal = r.apply(remove("h1", true)).unwrap_err();
    assert_eq!(refusal, Refusal::NeedsVersion { needs: Version::V2, has: Version::V1 });
    assert_eq!(r.state.nodes().count(), 1);
}

impl Replica {
    /// A new node of this number, on another machine than the first that had it.
    fn node_at_version_2(&mut self, number: u8) -> Outcome {
        self.apply(Command::RegisterNode {
            instance: [100 + number; 16],
            name: format!("h{number}").parse().unwrap(),
            vtep: Ipv4Addr::new(10, 10, 10, number).into(),
            listen: (Ipv4Addr::new(10, 10, 10, number), 7400).into(),
            returning: None,
            gateway: Some("172.18.0.0/16".parse().unwrap()),
            metrics: None,
            local_listen: None,
            speaks: Some(SPEAKS),
        })
    }
}
