//! A log of version 2 that has each of its commands, and the state after it, in which every field is used: what version 2 writes,
//! and what its rules make of it, is frozen.

use super::*;

/// What a leader noted at the time: a revision that no command of this log has.
const LATER: Revision = 1_000;

fn name(number: u8) -> NodeName {
    format!("h{number}").parse().unwrap()
}

fn vtep(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 10, 10, number)
}

fn register(number: u8) -> Command {
    Command::RegisterNode {
        instance: [number; 16],
        name: name(number),
        vtep: vtep(number).into(),
        listen: (vtep(number), 7_400).into(),
        returning: None,
        gateway: Some(gateway()),
        metrics: Some((vtep(number), 7_401).into()),
        local_listen: behind_nat().filter(|_| number == 5),
        speaks: Some(versions(Version::V1, Version::V2)),
    }
}

fn create(endpoint: &str, node: u8, network: &NetworkName) -> Command {
    Command::CreateEndpoint {
        name: endpoint.parse().unwrap(),
        network: network.clone(),
        placement: Placement::Node {
            node: name(node),
            netns: format!("/run/netns/{endpoint}").into(),
            addresses: EndpointAddrs::default(),
        },
        permissions: Permissions::NONE,
        aliases: BTreeSet::new(),
        ports: PortsWanted::default(),
    }
}

/// The commands, in the order of their revisions, which are also the ids of what they make. The last two are refused.
fn log() -> Vec<Command> {
    let other: NetworkName = "other".parse().unwrap();
    let [network, web1, sw1] = [1, 2, 3].map(|which| commands().swap_remove(which));
    let second = Command::CreateNetwork {
        name: other.clone(),
        pool: None,
        vni: None,
        options: NetworkOptions::default(),
    };
    let remove = |endpoint: &str| Command::RemoveEndpoint {
        name: endpoint.parse().unwrap(),
        network: Some(other.clone()),
        only: None,
    };
    let lease = |number: u8, lease| Command::NoteLease {
        name: name(number),
        only: number.into(),
        epoch: number.into(),
        lease,
    };
    vec![
        register(1),
        register(2),
        register(3),
        register(4),
        register(5),
        register(6),
        network.clone(),
        second,
        web1,
        Command::KeepEndpoint { id: 9 },
        sw1,
        create("provisional", 2, &other),
        create("gone", 2, &other),
        remove("gone"),
        Command::SetVoters { voters: Voters::Five },
        Command::Promote { name: name(4), only: Some(4), instead_of: None },
        Command::Demote { name: name(3), only: Some(3), ended: RaftId::new(3), for_good: true },
        Command::BeginLife { name: name(2), only: 2, ended: RaftId::new(2) },
        lease(4, Lease::Doubted),
        lease(5, Lease::Lost),
        Command::ExchangeVteps {
            name: name(4),
            from: vtep(4).into(),
            other: name(5),
            to: vtep(5).into(),
        },
        create("goes", 6, &other),
        Command::RemoveNode { name: name(6), only: Some(6), with_endpoints: true },
        network,
        Command::RemoveNetwork { name: network_name(), only: Some(9_999) },
    ]
}

/// The log as a leader writes it, and the state after it.
fn written() -> (Vec<Vec<u8>>, State) {
    let mut state = State::new(Version::V2);
    let mut entries = Vec::new();
    for (number, command) in (1..).zip(log()) {
        let request = Mutation::new(request(number), &command);
        let noted = match &command {
            Command::CreateEndpoint { .. } => {
                Noted { provisional: Some(LATER), confirmed: Some(1) }
            }
            _ => Noted::default(),
        };
        let entry = state.entry_noting(request, command, noted).encode().unwrap();
        drop(state.apply_entry(number.into(), &entry));
        entries.push(entry);
    }
    (entries, state)
}

pub(crate) fn log_of_version_2() -> Vec<Vec<u8>> {
    written().0
}

/// The log is written as it was, and by the rules of version 2 it leads to the state to which it led.
pub(crate) fn check_log_of_version_2(entries: &[Vec<u8>]) {
    assert!(entries == log_of_version_2(), "an entry of version 2 is written in another way");
    let mut state = State::new(Version::V2);
    let mut refused = Vec::new();
    for (index, entry) in (1..).zip(entries) {
        assert_eq!(State::read(entry).unwrap().rules, Version::V2.number());
        if state.apply_entry(index, entry).is_err() {
            refused.push(index);
        }
    }
    let last = entries.len() as u64;
    assert_eq!(refused, [last - 1, last], "the others do something");
    check_state_of_version_2(&state.snapshot());
    let was = crate::golden::file("state-of-version-2.1.msgpack");
    assert!(state.snapshot() == was, "the rules of version 2 make another state of its log");
}

pub(crate) fn state_of_version_2() -> Vec<u8> {
    written().1.snapshot()
}

/// Each field of the rows and of the snapshot that version 2 has is set somewhere, and it is written as it was.
pub(crate) fn check_state_of_version_2(bytes: &[u8]) {
    let state = State::from_snapshot(bytes).unwrap();
    assert!(state.snapshot() == bytes, "version 2 writes its snapshot in another way");
    let nodes: Vec<&Node> = state.nodes().collect();
    assert!(nodes.iter().all(|node| node.speaks.is_some()));
    assert!(
        nodes.iter().any(|node| node.raft_id.is_some()) && nodes.iter().any(|node| node.demoted)
    );
    let leases: BTreeSet<String> = nodes.iter().map(|node| format!("{:?}", node.lease)).collect();
    assert_eq!(leases.len(), 3, "{leases:?}");
    assert!(state.endpoints().any(|endpoint| endpoint.provisional == Some(LATER)));
    assert_eq!((state.withdrawn.len(), state.voters()), (2, Voters::Five));
}
