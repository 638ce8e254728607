use super::*;
use crate::model::{Location, NetworkOptions, Pool};
use proptest::prelude::*;
use std::{collections::BTreeSet, path::PathBuf};

fn envelope(request: u64, command: Command) -> Vec<u8> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&request.to_be_bytes());
    Envelope { request: id, command }.encode().unwrap()
}

/// Applies commands at ascending revisions.
#[derive(Default)]
struct Replica {
    state: State,
    index: u64,
}

impl Replica {
    fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, &envelope(self.index, command))
    }

    fn node(&mut self, number: u8) -> Outcome {
        self.apply(Command::RegisterNode {
            instance: [number; 16],
            name: format!("h{number}").parse().unwrap(),
            vtep: Ipv4Addr::new(10, 10, 10, number),
            listen: (Ipv4Addr::new(10, 10, 10, number), 7400).into(),
            returning: None,
            gateway: None,
        })
    }

    fn network(&mut self, name: &str, subnet: &str, range: Option<&str>) -> Outcome {
        self.apply(Command::CreateNetwork {
            name: name.parse().unwrap(),
            pool: Some(Pool::new(subnet.parse().unwrap(), range).unwrap()),
            vni: None,
            options: NetworkOptions::default(),
        })
    }

    fn endpoint(&mut self, name: &str, network: &str, node: u8, ip: Option<&str>) -> Outcome {
        self.apply(Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network: network.parse().unwrap(),
            placement: Placement::Node {
                node: format!("h{node}").parse().unwrap(),
                netns: PathBuf::from(format!("/run/netns/{name}")),
                address: ip.map(|ip| ip.parse().unwrap()),
            },
            forwards: false,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        })
    }

    fn remove(&mut self, name: &str) -> Outcome {
        self.apply(Command::RemoveEndpoint {
            name: name.parse().unwrap(),
            network: None,
            only: None,
        })
    }
}

fn address(outcome: Outcome) -> String {
    match outcome.unwrap() {
        Applied::Endpoint(endpoint) => endpoint.address.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_and_addresses_come_as_docker_gives_them() {
    let mut r = Replica::default();
    for n in 1..=4 {
        r.node(n).unwrap();
    }
    let voters: Vec<bool> = r.state.nodes().map(|node| node.voter).collect();
    assert_eq!(voters, [true, true, true, false], "the first three vote");
    r.network("myoverlay", "172.16.16.0/24", Some("172.16.16.128/25")).unwrap();
    assert_eq!(address(r.endpoint("web1", "myoverlay", 1, None)), "172.16.16.129");
    assert_eq!(address(r.endpoint("web2", "myoverlay", 3, None)), "172.16.16.130");
    let refusal = r.endpoint("web2", "myoverlay", 4, None).unwrap_err();
    assert_eq!(refusal.to_string(), "service endpoint with name web2 already exists");
    assert_eq!(address(r.endpoint("web2-2", "myoverlay", 4, None)), "172.16.16.131");
}

#[test]
fn refusals_change_nothing() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/29", None).unwrap();
    r.endpoint("a", "net", 1, Some("10.0.0.3")).unwrap();
    let before = r.state.clone();
    let refused = [
        r.endpoint("b", "net", 1, Some("10.0.0.3")),
        r.endpoint("b", "net", 1, Some("10.0.0.0")),
        r.endpoint("b", "net", 1, Some("10.0.0.7")),
        r.endpoint("b", "net", 1, Some("10.0.1.2")),
        r.endpoint("b", "nonet", 1, None),
        r.endpoint("b", "net", 9, None),
        r.endpoint("a", "net", 1, None),
        r.network("net", "10.1.0.0/24", None),
        r.apply(Command::RemoveNetwork { name: "net".parse().unwrap() }),
        r.apply(Command::RemoveNode { name: "h1".parse().unwrap() }),
        r.remove("nobody"),
        r.apply(Command::CreateNetwork {
            name: "other".parse().unwrap(),
            pool: None,
            vni: Some(Vni::FIRST),
            options: NetworkOptions::default(),
        }),
    ];
    for outcome in &refused {
        assert!(outcome.is_err(), "{outcome:?}");
    }
    let mut after = r.state.clone();
    after.revision = before.revision;
    after.dedup = before.dedup.clone();
    assert_eq!(after, before);
}

#[test]
fn a_pool_runs_dry_and_recovers() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/29", None).unwrap();
    for n in 0..5 {
        r.endpoint(&format!("e{n}"), "net", 1, None).unwrap();
    }
    let refusal = r.endpoint("late", "net", 1, None).unwrap_err();
    assert!(matches!(refusal, Refusal::AddressesExhausted { .. }), "{refusal}");
    r.remove("e1").unwrap();
    assert_eq!(address(r.endpoint("late", "net", 1, None)), "10.0.0.3");
}

#[test]
fn a_retry_is_answered_and_not_carried_out_again() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    let entry = envelope(
        77,
        Command::CreateEndpoint {
            name: "a".parse().unwrap(),
            network: "net".parse().unwrap(),
            placement: Placement::Node {
                node: "h1".parse().unwrap(),
                netns: "/run/netns/a".into(),
                address: None,
            },
            forwards: false,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        },
    );
    let first = r.state.apply(10, &entry);
    assert_eq!(r.state.apply(11, &entry), first);
    let mut restored = State::from_snapshot(&r.state.snapshot()).unwrap();
    assert_eq!(restored.apply(12, &entry), first, "also by a node restored from the snapshot");
    assert_eq!(restored.endpoints().count(), 1);
}

#[test]
fn a_joining_node_keeps_its_id_and_its_epoch_moves_with_its_address() {
    let mut r = Replica::default();
    let node = |outcome: Outcome| match outcome.unwrap() {
        Applied::Node(node) => node,
        other => panic!("{other:?}"),
    };
    let first = node(r.node(1));
    assert_eq!(node(r.node(1)), first, "the same join again");
    let moved = node(r.apply(Command::RegisterNode {
        instance: [1; 16],
        name: "h1".parse().unwrap(),
        vtep: Ipv4Addr::new(10, 10, 10, 99),
        listen: (Ipv4Addr::new(10, 10, 10, 99), 7400).into(),
        returning: None,
        gateway: None,
    }));
    assert_eq!(moved.id, first.id);
    assert!(moved.epoch > first.epoch);
    let removed = node(r.node(2));
    r.apply(Command::RemoveNode { name: "h2".parse().unwrap() }).unwrap();
    let back = r.apply(Command::RegisterNode {
        instance: removed.instance,
        name: removed.name.clone(),
        vtep: removed.vtep,
        listen: removed.listen,
        returning: Some(removed.id),
        gateway: None,
    });
    assert_eq!(back, Err(Refusal::NodeRemoved(removed.name)));
    assert_eq!(node(r.node(3)).id, 3, "an id is never used again");
}

#[test]
fn an_external_endpoint_is_not_behind_a_node() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    let mut external = |name: &str, vtep: &str, mac: &str, ip: &str| {
        r.apply(Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network: "net".parse().unwrap(),
            placement: Placement::External {
                vtep: vtep.parse().unwrap(),
                mac: mac.parse().unwrap(),
                address: ip.parse().unwrap(),
            },
            forwards: true,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        })
    };
    external("sw1", "10.10.10.50", "02:00:00:00:00:01", "10.0.0.9").unwrap();
    let mac = external("sw2", "10.10.10.50", "02:00:00:00:00:01", "10.0.0.10").unwrap_err();
    assert!(matches!(mac, Refusal::MacInUse { .. }), "{mac}");
    let vtep = external("sw3", "10.10.10.1", "02:00:00:00:00:03", "10.0.0.11").unwrap_err();
    assert!(matches!(vtep, Refusal::VtepExists { .. }), "{vtep}");
    assert!(matches!(r.node(50).unwrap_err(), Refusal::VtepExists { .. }));
}

#[derive(Clone, Debug)]
enum Step {
    Network(u8, Option<u8>),
    DropNetwork(u8),
    Node(u8, u8),
    DropNode(u8),
    Endpoint(u8, u8, u8, Option<u8>),
    External(u8, u8, u8, u8),
    DropEndpoint(u8, Option<u8>),
    Garbage(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..4, proptest::option::of(0u8..4)).prop_map(|(n, v)| Step::Network(n, v)),
        1 => (0u8..4).prop_map(Step::DropNetwork),
        2 => (1u8..6, 1u8..6).prop_map(|(i, v)| Step::Node(i, v)),
        1 => (1u8..6).prop_map(Step::DropNode),
        8 => (0u8..12, 0u8..4, 1u8..6, proptest::option::of(0u8..18))
            .prop_map(|(e, n, h, ip)| Step::Endpoint(e, n, h, ip)),
        2 => (0u8..12, 0u8..4, 1u8..9, 0u8..18).prop_map(|(e, n, v, ip)| Step::External(e, n, v, ip)),
        4 => (0u8..12, proptest::option::of(0u8..4)).prop_map(|(e, n)| Step::DropEndpoint(e, n)),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Step::Garbage),
    ]
}

fn entry(index: u64, step: &Step) -> Vec<u8> {
    let network = |n: &u8| format!("net{n}").parse().unwrap();
    let node = |n: &u8| format!("h{n}").parse().unwrap();
    let ip = |n: u8| Ipv4Addr::new(10, 0, 0, n);
    let command = match step {
        Step::Network(n, vni) => Command::CreateNetwork {
            name: network(n),
            pool: Some(Pool::whole("10.0.0.0/28".parse().unwrap())),
            vni: vni.map(|v| Vni::try_from(u32::from(v) + 1).unwrap()),
            options: NetworkOptions::default(),
        },
        Step::DropNetwork(n) => Command::RemoveNetwork { name: network(n) },
        Step::Node(instance, vtep) => Command::RegisterNode {
            instance: [*instance; 16],
            name: node(instance),
            vtep: ip(*vtep),
            listen: (ip(*vtep), 7400).into(),
            returning: None,
            gateway: None,
        },
        Step::DropNode(n) => Command::RemoveNode { name: node(n) },
        Step::Endpoint(e, n, h, address) => Command::CreateEndpoint {
            name: format!("e{e}").parse().unwrap(),
            network: network(n),
            placement: Placement::Node {
                node: node(h),
                netns: format!("/run/netns/e{e}").into(),
                address: address.map(ip),
            },
            forwards: false,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        },
        Step::External(e, n, vtep, address) => Command::CreateEndpoint {
            name: format!("e{e}").parse().unwrap(),
            network: network(n),
            placement: Placement::External {
                vtep: ip(*vtep),
                mac: Mac::of_endpoint(ip(*address)),
                address: ip(*address),
            },
            forwards: true,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        },
        Step::DropEndpoint(e, n) => Command::RemoveEndpoint {
            name: format!("e{e}").parse().unwrap(),
            network: n.as_ref().map(network),
            only: None,
        },
        Step::Garbage(bytes) => return bytes.clone(),
    };
    envelope(index, command)
}

fn assert_unique(state: &State) {
    let mut addresses = BTreeSet::new();
    let mut macs = BTreeSet::new();
    let mut names = BTreeSet::new();
    for endpoint in state.endpoints() {
        let network = state.network(endpoint.network).expect("its network exists");
        network.pool.subnet.check_endpoint(endpoint.address).expect("inside the subnet");
        assert!(addresses.insert((endpoint.network, endpoint.address)), "address twice");
        assert!(macs.insert((endpoint.network, endpoint.mac)), "MAC twice");
        assert!(names.insert((endpoint.network, endpoint.name.clone())), "name twice");
        if let Location::Node { node, .. } = &endpoint.location {
            assert!(state.node(*node).is_some(), "its node exists");
        }
    }
    let vnis: BTreeSet<Vni> = state.networks().map(|network| network.vni).collect();
    assert_eq!(vnis.len(), state.networks().count(), "VNI twice");
    let vteps: BTreeSet<Ipv4Addr> = state.nodes().map(|node| node.vtep).collect();
    assert_eq!(vteps.len(), state.nodes().count(), "VTEP twice");
    assert!(state.nodes().filter(|node| node.voter).count() <= VOTERS_MAX);
}

fn view(delta: Delta) -> View {
    let mut view = View::default();
    view.apply(delta);
    view
}

proptest! {
    #[test]
    fn whatever_the_commands(
        steps in proptest::collection::vec(step(), 1..80),
        cut in 0usize..80,
        every in 1usize..6,
    ) {
        let mut state = State::default();
        let mut twin = State::default();
        let mut restored: Option<State> = None;
        // An agent on node 1 that gets its deltas every few revisions.
        let mut agent = View::default();
        for (position, step) in steps.iter().enumerate() {
            let index = position as u64 + 1;
            let entry = entry(index, step);
            let decided = rmp_serde::from_slice::<Envelope>(&entry)
                .ok()
                .map(|envelope| state.decide(index, envelope.command).map(drop));
            let outcome = state.apply(index, &entry);
            if let Some(decided) = decided {
                prop_assert_eq!(decided, outcome.clone().map(drop), "decide foretells apply");
            }
            prop_assert_eq!(&twin.apply(index, &entry), &outcome, "apply is deterministic");
            if let Some(restored) = &mut restored {
                prop_assert_eq!(&restored.apply(index, &entry), &outcome);
            }
            assert_unique(&state);
            if position == cut {
                restored = Some(State::from_snapshot(&state.snapshot()).unwrap());
            }
            if position.is_multiple_of(every) {
                let held: BTreeSet<_> = agent.networks.keys().copied().collect();
                agent.apply(state.delta_for(1, agent.revision, &held));
                prop_assert_eq!(&agent, &view(state.view_of(1)), "deltas add up to the view");
            }
        }
        prop_assert_eq!(&twin, &state);
        prop_assert_eq!(twin.snapshot(), state.snapshot(), "to the byte");
        let round = State::from_snapshot(&state.snapshot()).unwrap();
        prop_assert_eq!(&round, &state, "a snapshot holds everything");
        if let Some(restored) = restored {
            prop_assert_eq!(&restored, &state, "also in the middle");
        }
    }
}
