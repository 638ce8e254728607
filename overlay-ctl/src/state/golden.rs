//! The values behind the golden files of commands, outcomes, rows and snapshots.

use super::*;
use crate::model::{
    EndpointPort, Location, NetworkOptions, Pool, Publish, Published, Subnet, Transport,
};
use std::num::NonZeroU16;

const VTEP: Ipv4Addr = Ipv4Addr::new(10, 10, 10, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 9);

fn pool() -> Pool {
    Pool::new("172.16.16.0/24".parse().unwrap(), Some("172.16.16.128/25")).unwrap()
}

fn gateway() -> Subnet {
    "172.18.0.0/16".parse().unwrap()
}

fn options() -> NetworkOptions {
    NetworkOptions { icc: false, internal: false, multicast: true, mtu: Some(1_400) }
}

fn port(port: u16) -> NonZeroU16 {
    NonZeroU16::new(port).unwrap()
}

fn exposed() -> BTreeSet<EndpointPort> {
    ["80/tcp", "53/udp", "99/sctp"].iter().map(|port| port.parse().unwrap()).collect()
}

/// One of each kind, with every field set where it can be.
pub(crate) fn commands() -> Vec<Command> {
    let name = |name: &str| name.parse().unwrap();
    vec![
        Command::RegisterNode {
            instance: [1; 16],
            name: name_of_node(),
            vtep: VTEP,
            listen: "10.10.10.1:7400".parse().unwrap(),
            returning: Some(1),
            gateway: Some(gateway()),
            metrics: Some("10.10.10.1:7401".parse().unwrap()),
        },
        Command::CreateNetwork {
            name: network_name(),
            pool: Some(pool()),
            vni: Some(Vni::try_from(4_097).unwrap()),
            options: options(),
        },
        Command::CreateEndpoint {
            name: name("web1"),
            network: network_name(),
            placement: Placement::Node {
                node: name_of_node(),
                netns: "/run/netns/web1".into(),
                address: Some(Ipv4Addr::new(172, 16, 16, 130)),
            },
            forwards: true,
            aliases: [name("www"), name("web")].into(),
            ports: PortsWanted {
                exposed: exposed(),
                publish: vec![
                    "127.0.0.1:8080:80".parse::<Publish>().unwrap(),
                    "53/udp".parse().unwrap(),
                ],
                publish_all: true,
                busy: [(Transport::Udp, port(32_768)), (Transport::Sctp, port(32_770))].into(),
            },
        },
        Command::CreateEndpoint {
            name: name("sw1"),
            network: network_name(),
            placement: Placement::External {
                vtep: ELSEWHERE,
                mac: "02:42:0a:00:00:63".parse().unwrap(),
                address: Ipv4Addr::new(172, 16, 16, 9),
            },
            forwards: false,
            aliases: BTreeSet::new(),
            ports: PortsWanted::default(),
        },
        Command::RemoveEndpoint {
            name: name("web1"),
            network: Some(network_name()),
            only: Some(3),
        },
        Command::RemoveEndpoint { name: name("web1"), network: None, only: None },
        Command::RemoveNetwork { name: network_name() },
        Command::RemoveNode { name: name_of_node() },
        Command::CreateNetwork {
            name: network_name(),
            pool: None,
            vni: None,
            options: NetworkOptions::default(),
        },
    ]
}

fn name_of_node() -> NodeName {
    "h1".parse().unwrap()
}

fn network_name() -> NetworkName {
    "net".parse().unwrap()
}

/// Rows as [`commands`] make them, and one that is as bare as can be.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::Node(Node {
            id: 1,
            name: name_of_node(),
            vtep: VTEP,
            listen: "10.10.10.1:7400".parse().unwrap(),
            instance: [1; 16],
            epoch: 1,
            voter: true,
            gateway: Some(gateway()),
            metrics: Some("10.10.10.1:7401".parse().unwrap()),
        }),
        Row::Network(Network {
            id: 2,
            name: network_name(),
            vni: Vni::try_from(4_097).unwrap(),
            pool: pool(),
            options: options(),
        }),
        Row::Endpoint(Endpoint {
            id: 3,
            name: "web1".parse().unwrap(),
            network: 2,
            location: Location::Node { node: 1, netns: "/run/netns/web1".into() },
            address: Ipv4Addr::new(172, 16, 16, 130),
            mac: "02:42:ac:10:10:82".parse().unwrap(),
            forwards: true,
            aliases: ["www", "web"].iter().map(|alias| alias.parse().unwrap()).collect(),
            exposed: exposed(),
            published: ["127.0.0.1:8080:80/tcp", "0.0.0.0:32769:53/udp", "0.0.0.0:32768:99/sctp"]
                .iter()
                .map(|published| {
                    let Publish { host, host_port, port } = published.parse().unwrap();
                    Published { host, host_port: host_port.unwrap(), port }
                })
                .collect(),
            gateway: Some(Ipv4Addr::new(172, 18, 0, 2)),
        }),
        Row::Endpoint(Endpoint {
            id: 4,
            name: "sw1".parse().unwrap(),
            network: 2,
            location: Location::External { vtep: ELSEWHERE },
            address: Ipv4Addr::new(172, 16, 16, 9),
            mac: "02:42:0a:00:00:63".parse().unwrap(),
            forwards: false,
            aliases: BTreeSet::new(),
            exposed: BTreeSet::new(),
            published: BTreeSet::new(),
            gateway: None,
        }),
    ]
}

/// What commands may come to: one of each kind.
pub(crate) fn outcomes() -> Vec<Outcome> {
    let applied = rows().into_iter().map(|row| {
        Ok(match row {
            Row::Node(node) => Applied::Node(node),
            Row::Network(network) => Applied::Network(network),
            Row::Endpoint(endpoint) => Applied::Endpoint(endpoint),
        })
    });
    let refused = refusals().into_iter().map(Err);
    applied.chain([Ok(Applied::Removed(7))]).chain(refused).collect()
}

fn refusals() -> Vec<Refusal> {
    let endpoint = || "web1".parse::<EndpointName>().unwrap();
    let (network, node) = (network_name, name_of_node);
    let text = str::to_owned;
    let all = vec![
        Refusal::EndpointExists(endpoint()),
        Refusal::NetworkExists(network()),
        Refusal::NodeExists(node()),
        Refusal::VtepExists { address: VTEP, by: text("node h2") },
        Refusal::VniExists { vni: Vni::FIRST, network: network() },
        Refusal::AddressInUse { address: VTEP, endpoint: endpoint() },
        Refusal::MacInUse { mac: "02:42:0a:00:00:63".parse().unwrap(), endpoint: endpoint() },
        Refusal::Invalid { field: text("mac"), value: text("x"), why: text("is no MAC") },
        Refusal::AddressesExhausted { range: text("172.16.16.128/25"), network: network() },
        Refusal::SubnetsExhausted,
        Refusal::VnisExhausted,
        Refusal::NoNetwork(network()),
        Refusal::NoEndpoint(endpoint()),
        Refusal::NoNode(node()),
        Refusal::NodeRemoved(node()),
        Refusal::Ambiguous(endpoint()),
        Refusal::NetworkInUse { network: network(), endpoints: 3 },
        Refusal::NodeInUse { node: node(), endpoints: 300 },
        Refusal::NamespaceInUse {
            netns: "/run/netns/web1".into(),
            node: node(),
            network: network(),
            endpoint: endpoint(),
        },
        Refusal::GatewayOverlap {
            subnet: pool().subnet,
            network: network(),
            node: node(),
            gateway: gateway(),
        },
        Refusal::GatewayExhausted { subnet: gateway(), node: node() },
        Refusal::CannotPublish { endpoint: endpoint(), why: text("it has no leg") },
        Refusal::HostPortInUse {
            host_port: 8_080,
            transport: Transport::Tcp,
            node: node(),
            endpoint: endpoint(),
            network: network(),
        },
        Refusal::HostPortTwice { host_port: 8_080, transport: Transport::Udp },
        Refusal::HostPortsExhausted { transport: Transport::Sctp, node: node() },
        Refusal::AliasIsName { alias: endpoint(), endpoint: endpoint(), network: network() },
        Refusal::NameIsAlias { name: endpoint(), endpoint: endpoint(), network: network() },
        Refusal::UnknownCommand(text("unknown variant `Lease`")),
    ];
    for refusal in &all {
        // A new kind belongs into the list above, and so into a golden file.
        match refusal {
            Refusal::EndpointExists(_)
            | Refusal::NetworkExists(_)
            | Refusal::NodeExists(_)
            | Refusal::VtepExists { .. }
            | Refusal::VniExists { .. }
            | Refusal::AddressInUse { .. }
            | Refusal::MacInUse { .. }
            | Refusal::Invalid { .. }
            | Refusal::AddressesExhausted { .. }
            | Refusal::SubnetsExhausted
            | Refusal::VnisExhausted
            | Refusal::NoNetwork(_)
            | Refusal::NoEndpoint(_)
            | Refusal::NoNode(_)
            | Refusal::NodeRemoved(_)
            | Refusal::Ambiguous(_)
            | Refusal::NetworkInUse { .. }
            | Refusal::NodeInUse { .. }
            | Refusal::NamespaceInUse { .. }
            | Refusal::GatewayOverlap { .. }
            | Refusal::GatewayExhausted { .. }
            | Refusal::CannotPublish { .. }
            | Refusal::HostPortInUse { .. }
            | Refusal::HostPortTwice { .. }
            | Refusal::HostPortsExhausted { .. }
            | Refusal::AliasIsName { .. }
            | Refusal::NameIsAlias { .. }
            | Refusal::UnknownCommand(_) => {}
        }
    }
    all
}

fn request(number: u8) -> RequestId {
    [number; 16]
}

/// A log as it holds [`commands`], each under a request id of its own.
pub(crate) fn entries() -> Vec<Vec<u8>> {
    let envelope = |(number, command)| Envelope { request: request(number), command };
    (1..).zip(commands()).map(envelope).map(|entry| entry.encode().unwrap()).collect()
}

pub(crate) fn check_entries(entries: &[Vec<u8>]) {
    assert_eq!(entries.len(), commands().len());
    for ((number, command), entry) in (1..).zip(commands()).zip(entries) {
        let found: Envelope = rmp_serde::from_slice(entry).unwrap();
        assert_eq!((found.request, found.command), (request(number), command));
    }
}

/// The state after some of [`commands`].
pub(crate) fn snapshot() -> Vec<u8> {
    let mut state = State::default();
    let made = [0, 1, 2, 3].map(|which| commands().swap_remove(which));
    let removed = Command::RegisterNode {
        instance: [2; 16],
        name: "gone".parse().unwrap(),
        vtep: Ipv4Addr::new(10, 10, 10, 2),
        listen: "10.10.10.2:7400".parse().unwrap(),
        returning: None,
        gateway: None,
        metrics: None,
    };
    let goes = Command::RemoveNode { name: "gone".parse().unwrap() };
    let refused = Command::RemoveNetwork { name: network_name() };
    let bare = commands().pop().unwrap();
    let other = match bare {
        Command::CreateNetwork { pool, vni, options, .. } => {
            Command::CreateNetwork { name: "other".parse().unwrap(), pool, vni, options }
        }
        other => unreachable!("{other:?}"),
    };
    let given = Command::CreateEndpoint {
        name: "given".parse().unwrap(),
        network: "other".parse().unwrap(),
        placement: Placement::Node {
            node: name_of_node(),
            netns: "/run/netns/given".into(),
            address: None,
        },
        forwards: false,
        aliases: BTreeSet::new(),
        ports: PortsWanted::default(),
    };
    let gone =
        Command::RemoveEndpoint { name: "given".parse().unwrap(), network: None, only: None };
    // The first register asks as one that was a node before, which nobody is yet.
    let first = match made[0].clone() {
        Command::RegisterNode { instance, name, vtep, listen, gateway, metrics, .. } => {
            Command::RegisterNode {
                instance,
                name,
                vtep,
                listen,
                returning: None,
                gateway,
                metrics,
            }
        }
        other => unreachable!("{other:?}"),
    };
    let [_, network, web1, sw1] = made;
    let log = [first, network, web1, sw1, removed, goes, refused, other, given, gone];
    for (number, command) in (1..).zip(log) {
        let entry = Envelope { request: request(number), command }.encode().unwrap();
        drop(state.apply(number.into(), &entry));
    }
    state.snapshot()
}

pub(crate) fn check_snapshot(bytes: &[u8]) {
    let mut state = State::from_snapshot(bytes).unwrap();
    assert_eq!(state.revision(), 10);
    let held = state.nodes().cloned().map(Row::Node);
    let held = held.chain(state.networks().cloned().map(Row::Network));
    let held: Vec<Row> = held.chain(state.endpoints().cloned().map(Row::Endpoint)).collect();
    let mut expected = rows();
    expected.insert(
        2,
        Row::Network(Network {
            id: 8,
            name: "other".parse().unwrap(),
            vni: Vni::try_from(4_098).unwrap(),
            pool: Pool::whole("10.128.0.0/24".parse().unwrap()),
            options: NetworkOptions::default(),
        }),
    );
    assert_eq!(held, expected);
    assert!(state.was_removed(2) && !state.was_removed(3));
    // A repeated request is answered as the first was.
    let outcome = |number| state.outcome_of(&request(number)).cloned();
    assert!(
        matches!(outcome(1), Some(Ok(Applied::Node(node))) if Row::Node(node.clone()) == expected[0])
    );
    let in_use = Refusal::NetworkInUse { network: network_name(), endpoints: 2 };
    assert_eq!(outcome(7), Some(Err(in_use)));
    assert_eq!(outcome(10), Some(Ok(Applied::Removed(10))));
    assert_eq!(outcome(11), None);
    // What was given out is not given out again at once.
    let next = Command::CreateEndpoint {
        name: "next".parse().unwrap(),
        network: "other".parse().unwrap(),
        placement: Placement::Node {
            node: name_of_node(),
            netns: "/run/netns/next".into(),
            address: None,
        },
        forwards: false,
        aliases: BTreeSet::new(),
        ports: PortsWanted::default(),
    };
    let entry = Envelope { request: request(11), command: next }.encode().unwrap();
    let Ok(Applied::Endpoint(next)) = state.apply(11, &entry) else { panic!("refused") };
    assert_eq!(next.address, Ipv4Addr::new(10, 128, 0, 2 + 1), "given had the one before");
    assert_eq!(next.gateway, Some(Ipv4Addr::new(172, 18, 0, 2 + 2)), "given had the one before");
}
