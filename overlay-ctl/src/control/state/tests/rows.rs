//! Tests of networks, nodes and endpoints in the state.

use super::*;
use crate::model::Location;

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
        r.apply(Command::RemoveNetwork { name: "net".parse().unwrap(), only: None }),
        r.apply(Command::RemoveNode {
            name: "h1".parse().unwrap(),
            only: None,
            with_endpoints: false,
        }),
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
                addresses: EndpointAddrs::default(),
            },
            permissions: Permissions::NONE,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        },
    );
    let first = r.state.apply_entry(10, &entry);
    assert_eq!(r.state.apply_entry(11, &entry), first);
    let mut restored = State::from_snapshot(&r.state.snapshot()).unwrap();
    assert_eq!(
        restored.apply_entry(12, &entry),
        first,
        "also by a node restored from the snapshot"
    );
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
        vtep: Ipv4Addr::new(10, 10, 10, 99).into(),
        listen: (Ipv4Addr::new(10, 10, 10, 99), 7400).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
    }));
    assert_eq!(moved.id, first.id);
    assert!(moved.epoch > first.epoch);
    let removed = node(r.node(2));
    r.apply(Command::RemoveNode { name: "h2".parse().unwrap(), only: None, with_endpoints: false })
        .unwrap();
    let back = r.apply(Command::RegisterNode {
        instance: removed.instance,
        name: removed.name.clone(),
        vtep: removed.vtep,
        listen: removed.listen,
        returning: Some(removed.id),
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
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
                addresses: addresses(ip),
            },
            permissions: Permissions::ALL,
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

#[test]
fn a_network_knows_on_which_nodes_it_has_endpoints() {
    let mut r = Replica::default();
    for n in 1..=3 {
        r.node(n).unwrap();
    }
    let Applied::Network(net) = r.network("net", "10.0.0.0/24", None).unwrap() else { panic!() };
    r.network("other", "10.1.0.0/24", None).unwrap();
    for (name, network, node) in
        [("a", "net", 1), ("b", "net", 1), ("c", "net", 3), ("d", "other", 2)]
    {
        r.endpoint(name, network, node, None).unwrap();
    }
    let node = |name: &str| r.state.nodes().find(|node| node.name.to_string() == name).unwrap().id;
    assert_eq!(r.state.nodes_of(net.id), [node("h1"), node("h3")].into());
    assert_eq!((r.state.endpoint_count(), r.state.endpoint_count_of(net.id)), (4, 3));
}

#[test]
fn a_row_has_what_was_asked_for() {
    let mut r = Replica::default();
    let metrics = Some("10.10.10.1:7401".parse().unwrap());
    let local_listen = Some("192.168.7.1:7400".parse().unwrap());
    r.apply(Command::RegisterNode {
        instance: [1; 16],
        name: "h1".parse().unwrap(),
        vtep: Ipv4Addr::new(10, 10, 10, 1).into(),
        listen: "10.10.10.1:7400".parse().unwrap(),
        returning: None,
        gateway: None,
        metrics,
        local_listen,
        speaks: None,
    })
    .unwrap();
    let node = r.state.nodes().next().unwrap();
    assert_eq!((node.metrics, node.local_listen), (metrics, local_listen));
    r.network("net", "10.0.0.0/24", None).unwrap();
    let vtep: Vtep = Ipv4Addr::new(203, 0, 113, 77).into();
    let sets = [
        (Permissions::NONE, "10.0.0.200"),
        (Permissions::ALL, "10.0.0.9"),
        ([Permission::Bridging].into_iter().collect(), "10.0.0.10"),
    ];
    for (number, (permissions, address)) in sets.into_iter().enumerate() {
        let name = format!("sw-{number}");
        let asked = addresses(address);
        let made = r.apply(Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network: "net".parse().unwrap(),
            placement: Placement::External {
                vtep,
                mac: Mac::of_endpoint(asked.v4.unwrap()),
                addresses: asked,
            },
            permissions,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        });
        let Ok(Applied::Endpoint(made)) = made else { panic!("{made:?}") };
        assert_eq!((made.permissions, made.addresses), (permissions, asked));
        assert_eq!(made.location, Location::External { vtep });
    }
}

#[test]
fn a_node_that_changes_its_name_leaves_the_old_one_free() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    let register = |instance: u8, name: &str| Command::RegisterNode {
        instance: [instance; 16],
        name: name.parse().unwrap(),
        vtep: Ipv4Addr::new(10, 10, 10, instance).into(),
        listen: (Ipv4Addr::new(10, 10, 10, instance), 7400).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
    };
    r.apply(register(1, "renamed")).unwrap();
    let old = "h1".parse().unwrap();
    assert_eq!(r.state.node_named(&old), Err(Refusal::NoNode(old.clone())));
    r.apply(register(2, "h1")).unwrap();
    assert_eq!(r.state.node_named(&old).unwrap().instance, [2; 16]);
}

/// What is searched after the last address that was given is forgotten with the network or the node.
#[test]
fn what_is_removed_leaves_nothing_behind() {
    let mut r = Replica::default();
    r.node_at(1, "172.18.0.0/16").unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    r.wish(&Wish::new("a")).unwrap();
    assert_eq!((r.state.last_address.len(), r.state.last_leg.len()), (1, 1));
    r.remove("a").unwrap();
    r.apply(Command::RemoveNetwork { name: "net".parse().unwrap(), only: None }).unwrap();
    r.apply(Command::RemoveNode { name: "h1".parse().unwrap(), only: None, with_endpoints: false })
        .unwrap();
    assert_eq!((r.state.last_address.len(), r.state.last_leg.len()), (0, 0));
}

/// A cursor of 0 is that of a node that holds nothing.
#[test]
fn a_node_without_a_view_gets_a_whole_one() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    let none = BTreeSet::new();
    assert!(r.state.delta_for(1, 0, &none).complete);
    assert!(!r.state.delta_for(1, r.state.revision(), &none).complete);
}
