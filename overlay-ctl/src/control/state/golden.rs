//! The values behind the golden files of commands, outcomes, rows and snapshots.

mod version_2;

pub(crate) use self::version_2::{
    check_log_of_version_2, check_state_of_version_2, log_of_version_2, state_of_version_2,
};
use super::*;
use crate::model::{
    EndpointAddrs, EndpointPort, Lease, Leg, LegId, Location, NetworkOptions, Permissions, Pool,
    Publish, Published, Speaks, Subnet, Transport, Version, Voters,
};
use std::{net::SocketAddr, num::NonZeroU16, sync::Arc};
use uuid::Uuid;

const VTEP: Ipv4Addr = Ipv4Addr::new(10, 10, 10, 1);
const LEG: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
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
            vtep: VTEP.into(),
            listen: "10.10.10.1:7400".parse().unwrap(),
            returning: Some(1),
            gateway: Some(gateway()),
            metrics: Some("10.10.10.1:7401".parse().unwrap()),
            local_listen: None,
            speaks: None,
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
                addresses: Ipv4Addr::new(172, 16, 16, 130).into(),
            },
            permissions: Permissions::ALL,
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
                vtep: ELSEWHERE.into(),
                mac: "02:42:0a:00:00:63".parse().unwrap(),
                addresses: Ipv4Addr::new(172, 16, 16, 9).into(),
            },
            permissions: Permissions::NONE,
            aliases: BTreeSet::new(),
            ports: PortsWanted::default(),
        },
        Command::RemoveEndpoint {
            name: name("web1"),
            network: Some(network_name()),
            only: Some(3),
        },
        Command::RemoveEndpoint { name: name("web1"), network: None, only: None },
        Command::RemoveNetwork { name: network_name(), only: None },
        Command::RemoveNode { name: name_of_node(), only: None, with_endpoints: false },
        Command::CreateNetwork {
            name: network_name(),
            pool: None,
            vni: None,
            options: NetworkOptions::default(),
        },
    ]
}

impl From<Node> for Row {
    fn from(node: Node) -> Self {
        Self::Node(Arc::new(node))
    }
}

impl From<Network> for Row {
    fn from(network: Network) -> Self {
        Self::Network(Arc::new(network))
    }
}

impl From<Endpoint> for Row {
    fn from(endpoint: Endpoint) -> Self {
        Self::Endpoint(Arc::new(endpoint))
    }
}

fn name_of_node() -> NodeName {
    "h1".parse().unwrap()
}

fn network_name() -> NetworkName {
    "net".parse().unwrap()
}

/// Rows as [`commands`] make them, and one that is as bare as can be.
pub(crate) fn rows() -> Vec<Row> {
    rows_with_leg(LegId::default().next())
}

/// [`rows`] as an earlier version wrote them: a leg's id is the number that its address is.
pub(crate) fn former_rows() -> Vec<Row> {
    rows_with_leg(LegId::of_addresses(LEG.into()))
}

fn rows_with_leg(id: LegId) -> Vec<Row> {
    let leg = Leg { id, addresses: LEG.into() };
    vec![
        Row::from(Node {
            id: 1,
            name: name_of_node(),
            vtep: VTEP.into(),
            listen: "10.10.10.1:7400".parse().unwrap(),
            instance: [1; 16],
            epoch: 1,
            voter: true,
            gateway: Some(gateway()),
            metrics: Some("10.10.10.1:7401".parse().unwrap()),
            local_listen: None,
            speaks: None,
            raft_id: None,
            lease: Lease::Held,
            demoted: false,
        }),
        Row::from(Network {
            id: 2,
            name: network_name(),
            vni: Vni::try_from(4_097).unwrap(),
            pool: pool(),
            options: options(),
        }),
        Row::from(Endpoint {
            id: 3,
            name: "web1".parse().unwrap(),
            network: 2,
            location: Location::Node { node: 1, netns: "/run/netns/web1".into() },
            addresses: Ipv4Addr::new(172, 16, 16, 130).into(),
            mac: "02:42:ac:10:10:82".parse().unwrap(),
            permissions: Permissions::ALL,
            aliases: ["www", "web"].iter().map(|alias| alias.parse().unwrap()).collect(),
            exposed: exposed(),
            published: ["127.0.0.1:8080:80/tcp", "0.0.0.0:32769:53/udp", "0.0.0.0:32768:99/sctp"]
                .iter()
                .map(|published| {
                    let Publish { host, host_port, port } = published.parse().unwrap();
                    Published { host, host_port: host_port.unwrap(), port }
                })
                .collect(),
            leg: Some(leg),
            provisional: None,
        }),
        Row::from(Endpoint {
            id: 4,
            name: "sw1".parse().unwrap(),
            network: 2,
            location: Location::External { vtep: ELSEWHERE.into() },
            addresses: Ipv4Addr::new(172, 16, 16, 9).into(),
            mac: "02:42:0a:00:00:63".parse().unwrap(),
            permissions: Permissions::NONE,
            aliases: BTreeSet::new(),
            exposed: BTreeSet::new(),
            published: BTreeSet::new(),
            leg: None,
            provisional: None,
        }),
    ]
}

/// What commands may come to: one of each kind.
pub(crate) fn outcomes() -> Vec<Outcome> {
    outcomes_of(rows())
}

/// [`outcomes`] as an earlier version wrote them.
pub(crate) fn former_outcomes() -> Vec<Outcome> {
    outcomes_of(former_rows())
}

fn outcomes_of(rows: Vec<Row>) -> Vec<Outcome> {
    let applied = rows.into_iter().map(|row| {
        Ok(match row {
            Row::Node(node) => Applied::Node((*node).clone()),
            Row::Network(network) => Applied::Network((*network).clone()),
            Row::Endpoint(endpoint) => Applied::Endpoint((*endpoint).clone()),
        })
    });
    let refused = refusals().into_iter().map(Err);
    applied.chain([Ok(Applied::Removed(7))]).chain(refused).collect()
}

/// The kinds that came after those of [`outcomes`].
pub(crate) fn later_outcomes() -> Vec<Outcome> {
    let text = str::to_owned;
    vec![
        Err(Refusal::Replaced { what: text("node h1"), asked: 3, found: 300 }),
        Err(Refusal::RequestIdUsed {
            request: Uuid::from_bytes(request(1)),
            by: text("the creation of network net"),
        }),
        Err(Refusal::Gone { what: text("endpoint web1") }),
    ]
}

/// The kinds that came with version 2 of the cluster.
pub(crate) fn outcomes_of_version_2() -> Vec<Outcome> {
    let why = "the nodes are others".to_owned();
    vec![
        Err(Refusal::NeedsVersion { needs: Version::V2, has: Version::V1 }),
        Err(Refusal::VersionNotSpoken { speaks: Speaks::UNSAID, cluster: Version::V2 }),
        Err(Refusal::CannotRaise { to: Version::V2, why }),
        Err(Refusal::NotForgotten {
            what: "address 172.16.16.130".to_owned(),
            network: network_name(),
            revision: 300,
        }),
        Err(Refusal::AddressesHeldBack {
            range: "172.16.16.128/25".to_owned(),
            network: network_name(),
            count: 2,
            revision: 300,
        }),
        Err(Refusal::SeatsTaken { voters: Voters::Three, by: "h1, h2, h3".to_owned() }),
        Err(Refusal::LastVoter(name_of_node())),
        Ok(Applied::Voters(Voters::Five)),
    ]
}

fn refusals() -> Vec<Refusal> {
    let endpoint = || "web1".parse::<EndpointName>().unwrap();
    let (network, node) = (network_name, name_of_node);
    let text = str::to_owned;
    let all = vec![
        Refusal::EndpointExists(endpoint()),
        Refusal::NetworkExists(network()),
        Refusal::NodeExists(node()),
        Refusal::VtepExists { address: VTEP.into(), by: text("node h2") },
        Refusal::VniExists { vni: Vni::FIRST, network: network() },
        Refusal::AddressInUse { address: VTEP.into(), endpoint: endpoint() },
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
        // A new kind belongs into a list of its version, and so into a golden file.
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
            | Refusal::UnknownCommand(_)
            // In [`outcomes_of_version_2`].
            | Refusal::NeedsVersion { .. }
            | Refusal::VersionNotSpoken { .. }
            | Refusal::CannotRaise { .. }
            | Refusal::NotForgotten { .. }
            | Refusal::AddressesHeldBack { .. }
            | Refusal::SeatsTaken { .. }
            | Refusal::LastVoter(_)
            // In [`later_outcomes`].
            | Refusal::Replaced { .. }
            | Refusal::RequestIdUsed { .. }
            | Refusal::Gone { .. } => {}
        }
    }
    all
}

fn request(number: u8) -> RequestId {
    [number; 16]
}

/// [`commands`], and those that came after them.
fn later_commands() -> Vec<Command> {
    let later = [
        Command::RemoveNetwork { name: network_name(), only: Some(2) },
        Command::RemoveNode { name: name_of_node(), only: Some(1), with_endpoints: false },
    ];
    commands().into_iter().chain(later).collect()
}

fn behind_nat() -> Option<SocketAddr> {
    Some("192.168.7.1:7400".parse().unwrap())
}

/// A log with a node behind 1:1 NAT, which earlier versions did not know.
pub(crate) fn entries_behind_nat() -> Vec<Vec<u8>> {
    let mut command = commands().swap_remove(0);
    if let Command::RegisterNode { local_listen, .. } = &mut command {
        *local_listen = behind_nat();
    }
    log_of(vec![command])
}

pub(crate) fn check_entries_behind_nat(entries: &[Vec<u8>]) {
    let read = |entry: &Vec<u8>| rmp_serde::from_slice::<Envelope>(entry).unwrap();
    let expected = entries_behind_nat();
    assert_eq!(entries.iter().map(read).collect::<Vec<_>>(), [read(&expected[0])]);
}

/// The row of such a node.
pub(crate) fn rows_behind_nat() -> Vec<Row> {
    let row = rows().swap_remove(0);
    let Row::Node(node) = row else { unreachable!("the first row is the node's: {row:?}") };
    vec![Row::from(Node { local_listen: behind_nat(), ..(*node).clone() })]
}

/// What the log holds of `command`, under a request id of its own.
fn envelope((number, command): (u8, Command)) -> Envelope {
    Envelope::new(Mutation::new(request(number), &command), command)
}

fn log_of(commands: Vec<Command>) -> Vec<Vec<u8>> {
    (1..).zip(commands).map(envelope).map(|entry| entry.encode().unwrap()).collect()
}

fn versions(oldest: Version, newest: Version) -> Speaks {
    Speaks::new(oldest, newest).unwrap()
}

/// The commands and fields that came with version 2 of the cluster.
pub(crate) fn commands_of_version_2() -> Vec<Command> {
    let both = versions(Version::V1, Version::V2);
    let mut register = commands().swap_remove(0);
    if let Command::RegisterNode { speaks, .. } = &mut register {
        *speaks = Some(both);
    }
    let remove = Command::RemoveNode { name: name_of_node(), only: Some(1), with_endpoints: true };
    let raise = Command::RaiseVersion { to: Version::V2, speaks: [(1, both)].into() };
    let begin = Command::BeginLife { name: name_of_node(), only: 1, ended: RaftId::new(1) };
    let name = name_of_node;
    let promote = Command::Promote { name: name(), only: Some(1), instead_of: Some(2) };
    let demote =
        Command::Demote { name: name(), only: Some(1), ended: RaftId::new(1), for_good: true };
    let voters = Command::SetVoters { voters: Voters::Five };
    let exchange = Command::ExchangeVteps {
        name: name(),
        from: VTEP.into(),
        other: "h2".parse().unwrap(),
        to: [10, 0, 0, 7].into(),
    };
    let keep = Command::KeepEndpoint { id: 3 };
    let name = name_of_node();
    let lost = Command::NoteLease { name, only: 1, epoch: 1, lease: Lease::Lost };
    vec![register, remove, keep, begin, promote, demote, voters, exchange, lost, raise]
}

/// A log as a cluster at version 2 holds them, and an endpoint's creation as its leader logs it.
pub(crate) fn entries_of_version_2() -> Vec<Vec<u8>> {
    let state = State::new(Version::V2);
    let create = commands().swap_remove(2);
    let commands = (1..).zip(commands_of_version_2().into_iter().chain([create]));
    let entry = |(number, command): (u8, Command)| {
        let request = Mutation::new(request(number), &command);
        let provisional = matches!(command, Command::CreateEndpoint { .. }).then_some(u64::MAX);
        state
            .entry_noting(request, command, Noted { provisional, confirmed: provisional })
            .encode()
            .unwrap()
    };
    commands.map(entry).collect()
}

pub(crate) fn check_entries_of_version_2(entries: &[Vec<u8>]) {
    let found = entries.iter().map(|entry| State::read(entry).unwrap());
    let expected = entries_of_version_2();
    let expected = expected.iter().map(|entry| State::read(entry).unwrap());
    assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

/// The row of a node that says what it speaks.
pub(crate) fn rows_of_version_2() -> Vec<Row> {
    let row = rows().swap_remove(0);
    let Row::Node(node) = row else { unreachable!("the first row is the node's: {row:?}") };
    let speaks = Some(versions(Version::V1, Version::V2));
    vec![Row::from(Node { speaks, ..(*node).clone() })]
}

/// Nodes that are doubted and lost.
pub(crate) fn rows_with_leases() -> Vec<Row> {
    let row = rows().swap_remove(0);
    let Row::Node(node) = row else { unreachable!("the first row is the node's: {row:?}") };
    let with = |lease| Row::from(Node { lease, ..(*node).clone() });
    vec![with(Lease::Doubted), with(Lease::Lost)]
}

/// An endpoint that may be taken back.
pub(crate) fn provisional_rows() -> Vec<Row> {
    let row = rows().swap_remove(2);
    let Row::Endpoint(endpoint) = row else { unreachable!("an endpoint is the third: {row:?}") };
    vec![Row::from(Endpoint { provisional: Some(u64::MAX), ..(*endpoint).clone() })]
}

/// The state after [`log`] and a raise.
pub(crate) fn snapshot_of_version_2() -> Vec<u8> {
    let mut state = State::from_snapshot(&snapshot()).unwrap();
    let raise = commands_of_version_2().pop().unwrap();
    let request = Mutation::new(request(11), &raise);
    let entry = state.entry(request, raise);
    assert_eq!(state.apply(11, entry), Ok(Applied::Raised(Version::V2)));
    state.snapshot()
}

pub(crate) fn check_snapshot_of_version_2(bytes: &[u8]) {
    let mut state = State::from_snapshot(bytes).unwrap();
    assert_eq!((state.version(), state.revision()), (Version::V2, 11));
    let nodes: Vec<Row> = state.nodes().cloned().map(Row::from).collect();
    assert_eq!(nodes, rows_of_version_2());
    let former = State::from_snapshot(&snapshot()).unwrap();
    let others = |state: &State| {
        let networks = state.networks().cloned().map(Row::from);
        networks.chain(state.endpoints().cloned().map(Row::from)).collect::<Vec<_>>()
    };
    assert_eq!(others(&state), others(&former));
    // A request of before is known.
    let in_use = Refusal::NetworkInUse { network: network_name(), endpoints: 2 };
    let again = envelope((7, log()[6].clone()));
    assert_eq!(state.apply(12, again), Err(in_use));
}

/// A log as it holds [`commands`].
pub(crate) fn entries() -> Vec<Vec<u8>> {
    log_of(commands())
}

/// A log as it holds [`later_commands`].
pub(crate) fn later_entries() -> Vec<Vec<u8>> {
    log_of(later_commands())
}

pub(crate) fn check_later_entries(entries: &[Vec<u8>]) {
    check_entries_by(Version::V1.number(), entries);
}

/// Entries of a version that wrote no number of its rules.
pub(crate) fn check_entries_without_rules(entries: &[Vec<u8>]) {
    check_entries_by(0, entries);
}

fn check_entries_by(rules: u32, entries: &[Vec<u8>]) {
    let found = entries.iter().map(|entry| rmp_serde::from_slice::<Envelope>(entry).unwrap());
    let expected = (1..).zip(later_commands()).map(envelope);
    let expected: Vec<_> = expected.map(|entry| Envelope { rules, ..entry }).collect();
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

/// Entries of a version that wrote no digest of what was asked for.
pub(crate) fn check_entries(entries: &[Vec<u8>]) {
    assert_eq!(entries.len(), commands().len());
    for ((number, command), entry) in (1..).zip(commands()).zip(entries) {
        let found: Envelope = rmp_serde::from_slice(entry).unwrap();
        assert_eq!(
            found,
            Envelope {
                request: request(number),
                asked: None,
                rules: 0,
                noted: Noted::default(),
                command
            }
        );
    }
}

/// The log that leads to [`snapshot`]: some of [`commands`].
fn log() -> [Command; 10] {
    let made = [0, 1, 2, 3].map(|which| commands().swap_remove(which));
    let removed = Command::RegisterNode {
        instance: [2; 16],
        name: "gone".parse().unwrap(),
        vtep: Ipv4Addr::new(10, 10, 10, 2).into(),
        listen: "10.10.10.2:7400".parse().unwrap(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
    };
    let goes =
        Command::RemoveNode { name: "gone".parse().unwrap(), only: None, with_endpoints: false };
    let refused = Command::RemoveNetwork { name: network_name(), only: None };
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
            addresses: EndpointAddrs::default(),
        },
        permissions: Permissions::NONE,
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
                local_listen: None,
                speaks: None,
            }
        }
        other => unreachable!("{other:?}"),
    };
    let [_, network, web1, sw1] = made;
    [first, network, web1, sw1, removed, goes, refused, other, given, gone]
}

/// The state after [`log`].
pub(crate) fn snapshot() -> Vec<u8> {
    let mut state = State::default();
    for (number, command) in (1..).zip(log()) {
        let entry = envelope((number, command)).encode().unwrap();
        drop(state.apply_entry(number.into(), &entry));
    }
    state.snapshot()
}

pub(crate) fn check_snapshot(bytes: &[u8]) {
    check_snapshot_of(bytes, rows(), LegId::default().next().next().next());
}

/// The snapshot of a version whose legs had no ids of their own.
pub(crate) fn check_former_snapshot(bytes: &[u8]) {
    check_snapshot_of(bytes, former_rows(), LegId::default().next());
}

/// `next_leg` is the id of the next leg that is made.
fn check_snapshot_of(bytes: &[u8], rows: Vec<Row>, next_leg: LegId) {
    let mut state = State::from_snapshot(bytes).unwrap();
    assert_eq!(state.revision(), 10);
    let held = state.nodes().cloned().map(Row::from);
    let held = held.chain(state.networks().cloned().map(Row::from));
    let held: Vec<Row> = held.chain(state.endpoints().cloned().map(Row::from)).collect();
    let mut expected = rows;
    expected.insert(
        2,
        Row::from(Network {
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
    let mut repeat = |number: u8| {
        let command = log()[usize::from(number) - 1].clone();
        let entry = envelope((number, command)).encode().unwrap();
        state.apply_entry(10 + u64::from(number), &entry)
    };
    let Ok(Applied::Node(node)) = repeat(1) else { panic!("refused") };
    assert_eq!(Row::from(node), expected[0]);
    let in_use = Refusal::NetworkInUse { network: network_name(), endpoints: 2 };
    assert_eq!(repeat(7), Err(in_use));
    assert_eq!(repeat(10), Ok(Applied::Removed(10)));
    // What was given out is not given out again at once.
    let next = Command::CreateEndpoint {
        name: "next".parse().unwrap(),
        network: "other".parse().unwrap(),
        placement: Placement::Node {
            node: name_of_node(),
            netns: "/run/netns/next".into(),
            addresses: EndpointAddrs::default(),
        },
        permissions: Permissions::NONE,
        aliases: BTreeSet::new(),
        ports: PortsWanted::default(),
    };
    let entry = envelope((11, next)).encode().unwrap();
    let Ok(Applied::Endpoint(next)) = state.apply_entry(21, &entry) else { panic!("refused") };
    assert_eq!(
        next.addresses.v4,
        Some(Ipv4Addr::new(10, 128, 0, 2 + 1)),
        "given had the one before"
    );
    let after_given = Ipv4Addr::new(172, 18, 0, 2 + 2);
    assert_eq!(next.leg, Some(Leg { id: next_leg, addresses: after_given.into() }));
}

/// The state with which generation 2 begins.
pub(crate) fn snapshot_of_a_generation() -> Vec<u8> {
    State::from_snapshot(&snapshot_of_version_2())
        .unwrap()
        .restored(1, Generation::FIRST.next(0))
        .snapshot()
}

pub(crate) fn check_snapshot_of_a_generation(bytes: &[u8]) {
    let expected = State::from_snapshot(&snapshot_of_version_2())
        .unwrap()
        .restored(1, Generation::FIRST.next(0));
    assert_eq!(State::from_snapshot(bytes).unwrap(), expected);
}

/// The file of a backup of that state.
pub(crate) fn backup() -> Vec<u8> {
    let state = State::from_snapshot(&snapshot_of_a_generation()).unwrap();
    let mut bytes = Vec::new();
    crate::control::backup::write(Uuid::from_u128(9), &state, &mut bytes).unwrap();
    bytes
}

pub(crate) fn check_backup(bytes: &[u8]) {
    let crate::control::backup::Backup { head, state } =
        crate::control::backup::read(bytes).unwrap();
    assert_eq!(head.cluster, Uuid::from_u128(9));
    assert_eq!(state, State::from_snapshot(&snapshot_of_a_generation()).unwrap());
}

/// The hash of each state whose snapshot an earlier version wrote, a line each.
pub(crate) fn hashes() -> Vec<u8> {
    let files = ["snapshot.4.msgpack", "snapshot.5.msgpack", "snapshot-of-a-generation.1.msgpack"];
    let line = |file: &str| {
        let hash = State::from_snapshot(&crate::golden::file(file)).unwrap().hash();
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hash} {file}\n")
    };
    files.map(line).concat().into_bytes()
}

/// The file's name has the version of the hash.
pub(crate) fn check_hashes(bytes: &[u8]) {
    assert_eq!(HASH_VERSION, 1, "another version has a file of its own");
    let (was, is) = (String::from_utf8_lossy(bytes), hashes());
    assert_eq!(was, String::from_utf8_lossy(&is), "another hash needs another HASH_VERSION");
}
