//! Whatever the commands: replicas agree, and what must be unique is.

use super::*;
use crate::model::{Location, SPEAKS};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What an endpoint shows of itself.
#[derive(Clone, Debug, Default)]
struct Shown {
    aliases: Vec<u8>,
    exposed: Vec<u8>,
    /// Address, port of the host, port of the endpoint, and whether it is TCP.
    publish: Vec<(u8, Option<u16>, u16, bool)>,
    publish_all: bool,
    busy: Vec<u16>,
}

#[derive(Clone, Debug)]
enum Step {
    Network {
        name: u8,
        vni: Option<u8>,
        subnet: Option<u8>,
        internal: bool,
    },
    DropNetwork(u8),
    Node {
        instance: u8,
        vtep: u8,
        gateway: Option<u8>,
    },
    DropNode(u8, bool),
    Endpoint {
        name: u8,
        network: u8,
        node: u8,
        netns: u8,
        address: Option<u8>,
        shown: Shown,
    },
    External {
        name: u8,
        network: u8,
        vtep: u8,
        address: u8,
        alias: Option<u8>,
    },
    DropEndpoint(u8, Option<u8>),
    /// The cluster is raised to version 2.
    Raise,
    /// An earlier entry once more.
    Again(u8),
}

const SUBNETS: [&str; 3] = ["10.0.0.0/28", "10.9.0.0/28", "10.9.1.0/29"];
const GATEWAYS: [&str; 4] = ["10.9.0.0/29", "10.9.1.0/28", "172.18.0.0/16", "10.128.0.0/23"];

fn shown() -> impl Strategy<Value = Shown> {
    let few = |range| proptest::collection::vec(range, 0..3);
    let host_port = proptest::option::of(prop_oneof![1u16..4, 32_768u16..32_771]);
    let wish = (0u8..3, host_port, 1u16..4, any::<bool>());
    let publish = proptest::collection::vec(wish, 0..4);
    (
        few(0u8..16),
        few(1u8..6),
        publish,
        any::<bool>(),
        proptest::collection::vec(32_768u16..32_772, 0..3),
    )
        .prop_map(|(aliases, exposed, publish, publish_all, busy)| Shown {
            aliases,
            exposed,
            publish,
            publish_all,
            busy,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let maybe = proptest::option::of;
    prop_oneof![
        3 => (0u8..4, maybe(0u8..4), maybe(0u8..3), any::<bool>())
            .prop_map(|(name, vni, subnet, internal)| Step::Network { name, vni, subnet, internal }),
        1 => (0u8..4).prop_map(Step::DropNetwork),
        4 => (1u8..6, 1u8..6, maybe(0u8..4))
            .prop_map(|(instance, vtep, gateway)| Step::Node { instance, vtep, gateway }),
        2 => (1u8..6, any::<bool>()).prop_map(|(n, all)| Step::DropNode(n, all)),
        12 => (0u8..12, 0u8..4, 1u8..6, 0u8..6, maybe(0u8..18), shown()).prop_map(
            |(name, network, node, netns, address, shown)| {
                Step::Endpoint { name, network, node, netns, address, shown }
            }
        ),
        2 => (0u8..12, 0u8..4, 1u8..9, 0u8..18, maybe(0u8..16)).prop_map(
            |(name, network, vtep, address, alias)| {
                Step::External { name, network, vtep, address, alias }
            }
        ),
        4 => (0u8..12, maybe(0u8..4)).prop_map(|(e, n)| Step::DropEndpoint(e, n)),
        1 => Just(Step::Raise),
        2 => any::<u8>().prop_map(Step::Again),
    ]
}

fn alias(n: &u8) -> EndpointName {
    // Some are endpoints' names but for their case.
    format!("E{n}").parse().unwrap()
}

fn ports(shown: &Shown) -> PortsWanted {
    let port = |n: u16| NonZeroU16::new(n).unwrap();
    let host = |n: u8| [[0, 0, 0, 0], [127, 0, 0, 1], [10, 10, 10, 1]][usize::from(n)].into();
    let transport = |tcp| if tcp { Transport::Tcp } else { Transport::Udp };
    PortsWanted {
        exposed: shown.exposed.iter().map(|n| format!("{n}/udp").parse().unwrap()).collect(),
        publish: shown
            .publish
            .iter()
            .map(|(address, host_port, to, tcp)| Publish {
                host: host(*address),
                host_port: host_port.map(port),
                port: EndpointPort { port: port(*to), transport: transport(*tcp) },
            })
            .collect(),
        publish_all: shown.publish_all,
        busy: shown.busy.iter().map(|n| (Transport::Tcp, port(*n))).collect(),
    }
}

/// What the leader logs as entry `index`, in a cluster with this state.
fn entry(index: u64, step: &Step, earlier: &[Vec<u8>], state: &State) -> Vec<u8> {
    let network = |n: &u8| format!("net{n}").parse().unwrap();
    let node = |n: &u8| format!("h{n}").parse().unwrap();
    let ip = |n: u8| Ipv4Addr::new(10, 0, 0, n);
    let command = match step {
        Step::Network { name, vni, subnet, internal } => Command::CreateNetwork {
            name: network(name),
            pool: subnet.map(|n| Pool::whole(SUBNETS[usize::from(n)].parse().unwrap())),
            vni: vni.map(|v| Vni::try_from(u32::from(v) + 1).unwrap()),
            options: NetworkOptions { internal: *internal, ..Default::default() },
        },
        Step::DropNetwork(n) => Command::RemoveNetwork { name: network(n), only: None },
        Step::Node { instance, vtep, gateway } => Command::RegisterNode {
            instance: [*instance; 16],
            name: node(instance),
            vtep: ip(*vtep).into(),
            listen: (ip(*vtep), 7400).into(),
            returning: None,
            gateway: gateway.map(|n| GATEWAYS[usize::from(n)].parse().unwrap()),
            metrics: None,
            local_listen: None,
            speaks: (state.version() >= Version::V2).then_some(SPEAKS),
        },
        Step::DropNode(n, with_endpoints) => {
            Command::RemoveNode { name: node(n), only: None, with_endpoints: *with_endpoints }
        }
        Step::Endpoint { name, network: on, node: at, netns, address, shown } => {
            Command::CreateEndpoint {
                name: format!("e{name}").parse().unwrap(),
                network: network(on),
                placement: Placement::Node {
                    node: node(at),
                    netns: format!("/run/netns/n{netns}").into(),
                    addresses: address.map(|address| ip(address).into()).unwrap_or_default(),
                },
                permissions: Permissions::NONE,
                aliases: shown.aliases.iter().map(alias).collect(),
                ports: ports(shown),
            }
        }
        Step::External { name, network: on, vtep, address, alias: also } => {
            Command::CreateEndpoint {
                name: format!("e{name}").parse().unwrap(),
                network: network(on),
                placement: Placement::External {
                    vtep: ip(*vtep).into(),
                    mac: Mac::of_endpoint(ip(*address)),
                    addresses: ip(*address).into(),
                },
                permissions: Permissions::ALL,
                aliases: also.iter().map(alias).collect(),
                ports: PortsWanted::default(),
            }
        }
        Step::DropEndpoint(e, n) => Command::RemoveEndpoint {
            name: format!("e{e}").parse().unwrap(),
            network: n.as_ref().map(network),
            only: None,
        },
        Step::Raise => Command::RaiseVersion {
            to: Version::V2,
            speaks: state.nodes().map(|node| (node.id, SPEAKS)).collect(),
        },
        Step::Again(n) => {
            if let Some(position) = usize::from(*n).checked_rem(earlier.len()) {
                return earlier[position].clone();
            }
            Command::RemoveNetwork { name: network(n), only: None }
        }
    };
    let request = Mutation::new(request_id(index), &command);
    state.entry(request, command).encode().unwrap()
}

/// What is written is what every node reads.
fn assert_version(state: &State) {
    let is_noted = state.version() >= Version::V2;
    assert!(state.nodes().all(|node| node.speaks.is_some() == is_noted));
    assert!(state.nodes().all(|node| node.needs() <= state.version()));
}

fn assert_unique(state: &State) {
    let mut addresses = BTreeSet::new();
    let mut macs = BTreeSet::new();
    let mut names = BTreeSet::new();
    for endpoint in state.endpoints() {
        let network = state.network(endpoint.network).expect("its network exists");
        network
            .pool
            .subnet
            .check_endpoint(endpoint.addresses.v4.unwrap())
            .expect("inside the subnet");
        assert!(addresses.insert((endpoint.network, endpoint.addresses)), "address twice");
        assert!(macs.insert((endpoint.network, endpoint.mac)), "MAC twice");
        assert!(names.insert((endpoint.network, endpoint.name.clone())), "name twice");
        if let Location::Node { node, .. } = &endpoint.location {
            assert!(state.node(*node).is_some(), "its node exists");
        }
    }
    let vnis: BTreeSet<Vni> = state.networks().map(|network| network.vni).collect();
    assert_eq!(vnis.len(), state.networks().count(), "VNI twice");
    let vteps: BTreeSet<Vtep> = state.nodes().map(|node| node.vtep).collect();
    assert_eq!(vteps.len(), state.nodes().count(), "VTEP twice");
    assert!(state.seated().count() <= state.voters().count());
}

/// A namespace has one leg, no other namespace of the node has its address, and nothing in it leads
/// elsewhere.
fn assert_legs(state: &State) {
    let mut of_namespace = BTreeMap::new();
    let mut of_address = BTreeMap::new();
    let mut of_id = BTreeMap::new();
    for endpoint in state.endpoints() {
        let Location::Node { node, netns } = &endpoint.location else {
            assert_eq!(endpoint.leg, None);
            continue;
        };
        let subnet = state.node(*node).unwrap().gateway;
        let internal = state.network(endpoint.network).unwrap().options.internal;
        assert_eq!(endpoint.leg.is_some(), subnet.is_some() && !internal, "{endpoint:?}");
        let (Some(leg), Some(subnet)) = (endpoint.leg, subnet) else { continue };
        let address = leg.addresses.v4.unwrap();
        subnet.check_endpoint(address).expect("inside the gateway subnet");
        let namespace = (*node, netns.clone());
        assert_eq!(*of_namespace.entry(namespace.clone()).or_insert(leg), leg);
        let holder = of_id.entry(leg.id).or_insert_with(|| namespace.clone());
        assert_eq!(*holder, namespace, "id of a leg twice");
        let holder = of_address.entry((*node, address)).or_insert_with(|| namespace.clone());
        assert_eq!(*holder, namespace, "gateway address twice");
        for other in state.endpoints_in(*node, netns) {
            let network = state.network(other.network).unwrap();
            assert!(!network.pool.subnet.overlaps(subnet), "{network:?} and {subnet}");
        }
    }
}

fn assert_ports_and_names(state: &State) {
    let all: Vec<&Endpoint> = state.endpoints().collect();
    for (position, endpoint) in all.iter().enumerate() {
        for (number, published) in endpoint.published.iter().enumerate() {
            assert!(endpoint.exposed.contains(&published.port));
            let own = endpoint.published.iter().skip(number + 1);
            let others = all[position + 1..].iter().filter(|e| e.node() == endpoint.node());
            for other in own.chain(others.flat_map(|e| &e.published)) {
                assert!(!published.conflicts(other), "{published} and {other}");
            }
        }
        for alias in &endpoint.aliases {
            let named = all.iter().filter(|e| e.network == endpoint.network);
            let word = alias.folded();
            assert!(named.clone().all(|e| e.name.folded() != word), "{alias} is a name");
        }
    }
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
        cuts in proptest::collection::btree_set(0usize..80, 0..4),
        every in 1usize..6,
        whom in proptest::collection::vec(0usize..3, 80),
        remembered in 1usize..40,
    ) {
        let mut state = State::default().remembering(remembered);
        // Remembers as much as a node does.
        let mut twin = State::default();
        let mut restored: Option<State> = None;
        // An agent on node 1 that gets its deltas every few revisions, from any of the three.
        let mut agent = View::default();
        let mut entries = Vec::new();
        for (position, step) in steps.iter().enumerate() {
            let index = position as u64 + 1;
            let entry = entry(index, step, &entries, &state);
            let repeats = matches!(step, Step::Again(_)) && !entries.is_empty();
            let again = repeats.then(|| state.clone());
            entries.push(entry.clone());
            let envelope = State::read(&entry).unwrap();
            let decided =
                again.is_none().then(|| state.decide(index, envelope.command).map(drop));
            let outcome = state.apply_entry(index, &entry);
            if let Some(decided) = decided {
                prop_assert_eq!(decided, outcome.clone().map(drop), "decide foretells apply");
            }
            if let Some(mut before) = again {
                before.revision = index;
                prop_assert_eq!(&state, &before, "a repetition changes nothing");
            }
            prop_assert_eq!(&twin.apply_entry(index, &entry), &outcome, "apply is deterministic");
            if let Some(restored) = &mut restored {
                prop_assert_eq!(&restored.apply_entry(index, &entry), &outcome);
            }
            assert_version(&state);
            assert_unique(&state);
            assert_legs(&state);
            assert_ports_and_names(&state);
            if cuts.contains(&position) {
                let snapshot = State::from_snapshot(&state.snapshot()).unwrap();
                restored = Some(snapshot.remembering(remembered));
            }
            if position.is_multiple_of(every) {
                let held: BTreeSet<_> = agent.networks.keys().copied().collect();
                let voter = match (whom[position], &restored) {
                    (0, _) => &state,
                    (1, Some(restored)) => restored,
                    _ => &twin,
                };
                agent.apply(voter.delta_for(1, agent.revision, &held));
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
