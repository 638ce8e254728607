//! What was written before the gateway leg, and before requests had digests, is read as it was meant.

use super::*;
use crate::model::{Location, NetworkId, NodeId, SPEAKS};
use serde::Serialize;
use std::net::SocketAddr;

#[derive(Serialize)]
struct OldNode {
    id: NodeId,
    name: &'static str,
    vtep: Ipv4Addr,
    listen: SocketAddr,
    instance: [u8; 16],
    epoch: Revision,
    voter: bool,
}

#[derive(Serialize)]
struct OldEndpoint {
    id: EndpointId,
    name: &'static str,
    network: NetworkId,
    location: Location,
    address: Ipv4Addr,
    mac: Mac,
    forwards: bool,
}

#[derive(Serialize)]
struct OldSnapshot {
    format: u32,
    revision: Revision,
    networks: Vec<Network>,
    nodes: Vec<OldNode>,
    endpoints: Vec<OldEndpoint>,
    last_node_id: NodeId,
    last_vni: Option<Vni>,
    last_address: Vec<(NetworkId, Ipv4Addr)>,
    dedup: Vec<(RequestId, Result<OldApplied, Refusal>)>,
}

#[derive(Serialize)]
enum OldApplied {
    Endpoint(OldEndpoint),
    Node(OldNode),
    Removed(Revision),
}

#[derive(Serialize)]
struct OldEnvelope {
    request: RequestId,
    command: OldCommand,
}

#[derive(Serialize)]
enum OldCommand {
    RegisterNode {
        instance: [u8; 16],
        name: &'static str,
        vtep: Ipv4Addr,
        listen: SocketAddr,
        returning: Option<NodeId>,
    },
    CreateEndpoint {
        name: &'static str,
        network: &'static str,
        placement: Placement,
        forwards: bool,
    },
    RemoveEndpoint {
        name: &'static str,
        network: Option<&'static str>,
        only: Option<u64>,
    },
    RemoveNetwork {
        name: &'static str,
    },
    RemoveNode {
        name: &'static str,
    },
}

const VTEP: Ipv4Addr = Ipv4Addr::new(10, 10, 10, 1);

fn node() -> OldNode {
    OldNode {
        id: 1,
        name: "h1",
        vtep: VTEP,
        listen: (VTEP, 7400).into(),
        instance: [1; 16],
        epoch: 1,
        voter: true,
    }
}

fn web1() -> OldEndpoint {
    let address = Ipv4Addr::new(10, 0, 0, 2);
    OldEndpoint {
        id: 3,
        name: "web1",
        network: 2,
        location: Location::Node { node: 1, netns: "/run/netns/web1".into() },
        address,
        mac: Mac::of_endpoint(address),
        forwards: false,
    }
}

fn snapshot(format: u32) -> Vec<u8> {
    let network = Network {
        id: 2,
        name: "net".parse().unwrap(),
        vni: Vni::FIRST,
        pool: Pool::whole("10.0.0.0/24".parse().unwrap()),
        options: NetworkOptions::default(),
    };
    rmp_serde::to_vec_named(&OldSnapshot {
        format,
        revision: 3,
        networks: vec![network],
        nodes: vec![node()],
        endpoints: vec![web1()],
        last_node_id: 1,
        last_vni: Some(Vni::FIRST),
        last_address: vec![(2, Ipv4Addr::new(10, 0, 0, 2))],
        dedup: vec![
            ([1; 16], Ok(OldApplied::Node(node()))),
            ([3; 16], Ok(OldApplied::Endpoint(web1()))),
            ([4; 16], Ok(OldApplied::Removed(3))),
            ([5; 16], Err(Refusal::VnisExhausted)),
        ],
    })
    .unwrap()
}

/// What this version makes of the same commands.
fn replica() -> Replica {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    r.wish(&Wish::new("web1")).unwrap();
    r
}

#[test]
fn an_old_snapshot_is_the_state_it_was() {
    let mut state = State::from_snapshot(&snapshot(1)).unwrap();
    let endpoint = state.endpoint(3).unwrap();
    assert_eq!((&endpoint.leg, endpoint.published.len()), (&None, 0));
    let answer = |id: u8, command: &Command| {
        let asked = Mutation::new([id; 16], command).asked;
        state.recall(&[id; 16], Some(asked), command)
    };
    let (web1, web2) = (Wish::new("web1").command(), Wish::new("web2").command());
    assert_eq!(answer(3, &web1), Some(Ok(Applied::Endpoint(endpoint.clone()))));
    let another = answer(3, &web2).unwrap().unwrap_err();
    assert!(matches!(another, Refusal::RequestIdUsed { .. }), "{another}");
    let remove =
        Command::RemoveNode { name: "h1".parse().unwrap(), only: None, with_endpoints: false };
    assert_eq!(answer(4, &remove), Some(Ok(Applied::Removed(3))));
    assert!(matches!(answer(4, &web1), Some(Err(Refusal::RequestIdUsed { .. }))));
    assert_eq!(answer(5, &web1), Some(Err(Refusal::VnisExhausted)));
    assert_eq!(answer(6, &web1), None);
    state.dedup = replica().state.dedup;
    assert_eq!(state, replica().state);

    // And it goes on from there.
    let mut r = Replica { state, index: 3 };
    r.node_at(1, "172.18.0.0/16").unwrap();
    assert_eq!(r.legs(), [("web1".into(), "172.18.0.2".into())]);
}

#[test]
fn old_entries_do_what_they_did() {
    let mut state = State::default();
    let mut apply = |index: u8, command: OldCommand| {
        let entry = OldEnvelope { request: [index; 16], command };
        state.apply_entry(index.into(), &rmp_serde::to_vec_named(&entry).unwrap()).unwrap()
    };
    let node = apply(
        1,
        OldCommand::RegisterNode {
            instance: [1; 16],
            name: "h1",
            vtep: VTEP,
            listen: (VTEP, 7400).into(),
            returning: None,
        },
    );
    assert!(
        matches!(node, Applied::Node(node) if node.gateway.is_none() && node.metrics.is_none())
    );
    let create = Command::CreateNetwork {
        name: "net".parse().unwrap(),
        pool: Some(Pool::whole("10.0.0.0/24".parse().unwrap())),
        vni: None,
        options: NetworkOptions::default(),
    };
    state.apply_entry(2, &envelope(2, create)).unwrap();
    let mut apply = |index: u8, command: OldCommand| {
        let entry = OldEnvelope { request: [index; 16], command };
        state.apply_entry(index.into(), &rmp_serde::to_vec_named(&entry).unwrap()).unwrap()
    };
    apply(
        3,
        OldCommand::CreateEndpoint {
            name: "web1",
            network: "net",
            placement: Placement::Node {
                node: "h1".parse().unwrap(),
                netns: "/run/netns/web1".into(),
                addresses: EndpointAddrs::default(),
            },
            forwards: false,
        },
    );
    let endpoint = state.endpoint(3).unwrap().clone();
    let again = OldEnvelope {
        request: [3; 16],
        command: OldCommand::CreateEndpoint {
            name: "web1",
            network: "net",
            placement: Placement::Node {
                node: "h1".parse().unwrap(),
                netns: "/run/netns/web1".into(),
                addresses: EndpointAddrs::default(),
            },
            forwards: false,
        },
    };
    let again = rmp_serde::to_vec_named(&again).unwrap();
    assert_eq!(state.apply_entry(4, &again), Ok(Applied::Endpoint(endpoint)), "an old repetition");
    state.revision = 3;
    state.dedup = replica().state.dedup;
    assert_eq!(state, replica().state);

    let mut remove = |index: u64, command: OldCommand| {
        let entry = OldEnvelope { request: [index as u8; 16], command };
        state.apply_entry(index, &rmp_serde::to_vec_named(&entry).unwrap())
    };
    let name = "web1";
    let other = remove(4, OldCommand::RemoveEndpoint { name, network: None, only: Some(2) });
    assert!(matches!(other, Err(Refusal::Replaced { asked: 2, found: 3, .. })), "{other:?}");
    let network = Some("net");
    remove(5, OldCommand::RemoveEndpoint { name, network, only: Some(3) }).unwrap();
    remove(6, OldCommand::RemoveNetwork { name: "net" }).unwrap();
    remove(7, OldCommand::RemoveNode { name: "h1" }).unwrap();
    assert_eq!(state.networks().count() + state.nodes().count(), 0);
}

/// An earlier version refuses it by this number.
#[test]
fn a_snapshot_says_its_format() {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = rmp_serde::from_slice(&replica().state.snapshot()).unwrap();
    assert_eq!(format, 4);
}

#[test]
fn a_newer_snapshot_is_refused() {
    let refused = State::from_snapshot(&snapshot(6));
    assert!(matches!(refused, Err(SnapshotError::Newer(6))), "{refused:?}");
}

/// It says that it is newer, and not that it is damaged.
#[test]
fn a_newer_snapshot_with_other_rows_is_refused_by_its_format() {
    #[derive(Serialize)]
    struct Newer {
        format: u32,
        revision: &'static str,
        leases: Vec<u8>,
    }
    let newer = |format| {
        let snapshot = Newer { format, revision: "the seventh", leases: vec![7] };
        State::from_snapshot(&rmp_serde::to_vec_named(&snapshot).unwrap())
    };
    assert!(matches!(newer(6), Err(SnapshotError::Newer(6))), "{:?}", newer(6));
    assert!(matches!(newer(5), Err(SnapshotError::Decode(_))), "{:?}", newer(5));
}

/// An entry that can't be read is no refused command: the versions that can read it may carry it out.
#[test]
fn an_entry_of_a_newer_version_is_unreadable() {
    #[derive(Serialize)]
    enum Newer {
        TakeLease { node: &'static str },
    }
    #[derive(Serialize)]
    struct NewerEnvelope {
        request: RequestId,
        rules: u32,
        command: Newer,
    }
    let newest = SPEAKS.newest().number();
    let read = |rules: u32| {
        let command = Newer::TakeLease { node: "h1" };
        let newer = NewerEnvelope { request: [1; 16], rules, command };
        State::read(&rmp_serde::to_vec_named(&newer).unwrap()).unwrap_err()
    };
    // The version of the entry tells more than the command that is not known.
    assert_eq!(read(newest + 1), Unreadable::Newer(newest + 1));
    let unreadable = read(newest);
    let said = unreadable.to_string();
    assert!(matches!(unreadable, Unreadable::Unknown(_)) && said.contains("TakeLease"), "{said}");
    for torn in [&[][..], b"no entry", &[0xc1]] {
        assert!(matches!(State::read(torn), Err(Unreadable::Unknown(_))), "{torn:?}");
    }

    let command = Wish::new("web1").command();
    let request = Mutation::new([1; 16], &command);
    for (rules, is_known) in [(0, true), (1, true), (newest, true), (newest + 1, false)] {
        let entry = Envelope { rules, ..Envelope::new(request, command.clone()) };
        let read = State::read(&entry.encode().unwrap());
        assert_eq!(read, if is_known { Ok(entry) } else { Err(Unreadable::Newer(rules)) });
    }
}
