//! Tests of the addresses of gateway legs in the state.

use super::*;
use crate::model::Location;

/// h1 with a gateway bridge of 172.18.0.0/16, and two networks.
fn replica() -> Replica {
    let mut r = Replica::default();
    r.node_at(1, "172.18.0.0/16").unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    r.network("other", "10.0.1.0/24", None).unwrap();
    r
}

fn leg(endpoint: Result<Endpoint, Refusal>) -> Option<String> {
    endpoint.unwrap().leg.map(|leg| leg.addresses.to_string())
}

fn some(address: &str) -> Option<String> {
    Some(address.to_owned())
}

#[test]
fn a_namespace_has_one_leg_whatever_its_networks() {
    let mut r = replica();
    r.internal("inside", "10.0.2.0/24").unwrap();
    assert_eq!(leg(r.wish(&Wish::new("web1"))), some("172.18.0.2"));
    assert_eq!(leg(r.wish(&Wish::new("web2"))), some("172.18.0.3"));
    let also = Wish { network: "other", netns: "web1", ..Wish::new("web1") };
    assert_eq!(leg(r.wish(&also)), some("172.18.0.2"), "shared");
    let inside = Wish { network: "inside", netns: "web1", ..Wish::new("db") };
    assert_eq!(leg(r.wish(&inside)), None, "its network has no way out");
    let alone = Wish { network: "inside", ..Wish::new("alone") };
    assert_eq!(leg(r.wish(&alone)), None);
    let later = Wish { netns: "alone", ..Wish::new("later") };
    assert_eq!(leg(r.wish(&later)), some("172.18.0.4"));

    let remove = |name: &str, network: &str| Command::RemoveEndpoint {
        name: name.parse().unwrap(),
        network: Some(network.parse().unwrap()),
        only: None,
    };
    r.apply(remove("web1", "net")).unwrap();
    assert_eq!(leg(r.wish(&Wish::new("web3"))), some("172.18.0.5"), "web1 is still used");
    r.apply(remove("web1", "other")).unwrap();
    assert_eq!(leg(r.wish(&Wish::new("web4"))), some("172.18.0.6"), "and then comes last");
}

#[test]
fn each_node_gives_out_its_own() {
    let mut r = replica();
    r.node_at(2, "172.18.0.0/16").unwrap();
    r.node(3).unwrap();
    for (name, node) in [("a", "h1"), ("b", "h2")] {
        assert_eq!(leg(r.wish(&Wish { node, ..Wish::new(name) })), some("172.18.0.2"));
    }
    let none = r.wish(&Wish { node: "h3", ..Wish::new("c") });
    assert_eq!(leg(none), None, "it has said no gateway subnet");
    let publish = Wish { node: "h3", publish: &["80"], ..Wish::new("d") };
    let refusal = r.wish(&publish).unwrap_err();
    assert!(matches!(refusal, Refusal::CannotPublish { .. }), "{refusal}");
}

#[test]
fn addresses_rove_also_behind_a_snapshot_and_run_out() {
    let mut r = Replica::default();
    // .2 to .6.
    r.node_at(1, "172.18.0.0/29").unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    for name in ["a", "b", "c"] {
        r.wish(&Wish::new(name)).unwrap();
    }
    r.remove("a").unwrap();
    r.state = State::from_snapshot(&r.state.snapshot()).unwrap();
    assert_eq!(leg(r.wish(&Wish::new("d"))), some("172.18.0.5"));
    assert_eq!(leg(r.wish(&Wish::new("e"))), some("172.18.0.6"));
    assert_eq!(leg(r.wish(&Wish::new("f"))), some("172.18.0.2"));
    let refusal = r.wish(&Wish::new("g")).unwrap_err();
    assert!(matches!(refusal, Refusal::GatewayExhausted { .. }), "{refusal}");
    assert!(refusal.to_string().contains("172.18.0.0/29"), "{refusal}");
}

#[test]
fn one_network_once_in_a_namespace() {
    let mut r = replica();
    r.wish(&Wish::new("web1")).unwrap();
    let refusal = r.wish(&Wish { netns: "web1", ..Wish::new("web2") }).unwrap_err();
    let expected =
        "namespace /run/netns/web1 of node h1 is on network net already, as endpoint web1";
    assert!(refusal.to_string().starts_with(expected), "{refusal}");
    r.node_at(2, "172.18.0.0/16").unwrap();
    r.wish(&Wish { netns: "web1", node: "h2", ..Wish::new("web2") }).unwrap();
}

#[test]
fn a_network_and_a_gateway_do_not_share_addresses() {
    let mut r = replica();
    let overlap = |refusal: Refusal| match refusal {
        Refusal::GatewayOverlap { network, node, .. } => (network.to_string(), node.to_string()),
        other => panic!("{other}"),
    };
    let expected = ("near".to_owned(), "h1".to_owned());
    assert_eq!(overlap(r.network("near", "172.18.9.0/24", None).unwrap_err()), expected);
    r.internal("within", "172.18.9.0/24").unwrap();
    // A namespace that has the leg can't have the network: routes would lead to the wrong one.
    r.wish(&Wish { network: "within", ..Wish::new("a") }).unwrap();
    let behind = r.wish(&Wish { netns: "a", ..Wish::new("b") }).unwrap_err();
    assert_eq!(overlap(behind), ("within".to_owned(), "h1".to_owned()));
    r.wish(&Wish::new("c")).unwrap();
    let behind = r.wish(&Wish { network: "within", netns: "c", ..Wish::new("d") }).unwrap_err();
    assert_eq!(overlap(behind), ("within".to_owned(), "h1".to_owned()));

    // A network that was there first stays, but not on that node.
    r.node_at(2, "172.19.0.0/16").unwrap();
    r.network("early", "172.20.0.0/24", None).unwrap();
    r.node_at(3, "172.20.0.0/16").unwrap();
    let refused = r.wish(&Wish { network: "early", node: "h3", ..Wish::new("e") }).unwrap_err();
    assert_eq!(overlap(refused), ("early".to_owned(), "h3".to_owned()));
    r.wish(&Wish { network: "early", node: "h2", ..Wish::new("e") }).unwrap();
    assert_eq!(
        overlap(r.node_at(2, "172.20.0.0/16").unwrap_err()),
        ("early".to_owned(), "h2".to_owned())
    );
    assert_eq!(r.legs(), [("c".into(), "172.18.0.2".into()), ("e".into(), "172.19.0.2".into())]);
}

#[test]
fn subnets_that_nobody_asked_for_keep_clear_of_gateways() {
    let mut r = Replica::default();
    r.node_at(1, "10.128.0.0/23").unwrap();
    let made = r.apply(Command::CreateNetwork {
        name: "net".parse().unwrap(),
        pool: None,
        vni: None,
        options: NetworkOptions::default(),
    });
    match made.unwrap() {
        Applied::Network(network) => assert_eq!(network.pool.subnet.to_string(), "10.128.2.0/24"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_gateway_subnet_numbers_the_legs_anew_in_order() {
    let mut r = replica();
    r.internal("inside", "10.0.2.0/24").unwrap();
    for name in ["a", "b", "c", "d"] {
        r.wish(&Wish::new(name)).unwrap();
    }
    r.wish(&Wish { network: "other", netns: "c", ..Wish::new("c2") }).unwrap();
    r.wish(&Wish { network: "inside", ..Wish::new("in") }).unwrap();
    r.remove("a").unwrap();
    let before = r.state.revision();
    let held: BTreeSet<_> = r.state.networks().map(|network| network.id).collect();

    r.node_at(1, "172.21.0.0/24").unwrap();
    let numbered =
        [("b", "172.21.0.2"), ("c", "172.21.0.3"), ("c2", "172.21.0.3"), ("d", "172.21.0.4")];
    let numbered = numbered.map(|(name, leg)| (name.to_owned(), leg.to_owned()));
    assert_eq!(r.legs(), numbered);
    let changed: BTreeSet<String> = r
        .state
        .delta_for(1, before, &held)
        .upserts
        .into_iter()
        .filter_map(|row| match row {
            Row::Endpoint(endpoint) => Some(endpoint.name.to_string()),
            Row::Node(_) | Row::Network(_) => None,
        })
        .collect();
    assert_eq!(changed, ["b", "c", "c2", "d"].map(str::to_owned).into(), "agents are told");
    assert_eq!(leg(r.wish(&Wish::new("e"))), some("172.21.0.5"), "the cursor moved along");

    let epoch = |r: &Replica| r.state.nodes().next().map(|node| node.epoch);
    let before = epoch(&r);
    r.node_at(1, "172.21.0.0/24").unwrap();
    assert_eq!(epoch(&r), before, "the same again is no change");
    let refusal = r.node_at(1, "172.22.0.0/30").unwrap_err();
    assert!(matches!(refusal, Refusal::GatewayExhausted { .. }), "{refusal}");
    assert_eq!(r.legs()[..4], numbered);

    r.node(1).unwrap();
    assert_eq!(r.legs(), [], "a node without a gateway bridge has no legs");
    r.node_at(1, "172.18.0.0/16").unwrap();
    assert_eq!(r.legs().len(), 5, "nor are they lost");
    assert_eq!(State::from_snapshot(&r.state.snapshot()).unwrap(), r.state);
}

#[test]
fn what_a_namespace_has_from_before_keeps_its_one_leg() {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    // Refused where there is a gateway; a log from before may have it.
    for name in ["a", "b"] {
        r.wish(&Wish { netns: "ns", ..Wish::new(name) }).unwrap();
    }
    r.node_at(1, "172.18.0.0/16").unwrap();
    assert_eq!(r.legs(), [("a".into(), "172.18.0.2".into()), ("b".into(), "172.18.0.2".into())]);
    let all_there = r.state.endpoints().all(|e| matches!(e.location, Location::Node { .. }));
    assert!(all_there);
}

/// An entry of an earlier version, applied later by this one, must make the row that the earlier version made.
#[test]
fn an_entry_is_applied_by_the_rules_of_its_version() {
    const V1: u32 = Version::V1.number();
    let mut r = replica();
    let mut create = |name: &'static str, rules: u32| {
        let command = Wish::new(name).command();
        let entry = Envelope {
            rules,
            ..Envelope::new(Mutation::new(request_id(r.index + 1), &command), command)
        };
        r.index += 1;
        let applied = r.state.apply_entry(r.index, &entry.encode().unwrap());
        applied.map(|applied| match applied {
            Applied::Endpoint(endpoint) => endpoint.leg.unwrap().id.get(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(create("former", 0), Ok(0xac12_0002), "the number that 172.18.0.2 is");
    assert_eq!(create("web1", V1), Ok(1));
    assert_eq!(create("also-former", 0), Ok(0xac12_0004));
    assert_eq!(create("web2", V1), Ok(2));

    // A change of the gateway subnet numbers all legs anew, by the same rules.
    let mut register = |subnet: &str, rules: u32| {
        let command = Command::RegisterNode {
            instance: [1; 16],
            name: "h1".parse().unwrap(),
            vtep: Ipv4Addr::new(10, 10, 10, 1).into(),
            listen: (Ipv4Addr::new(10, 10, 10, 1), 7400).into(),
            returning: None,
            gateway: Some(subnet.parse().unwrap()),
            metrics: None,
            local_listen: None,
            speaks: None,
        };
        let request = Mutation::new(request_id(r.index + 1), &command);
        let entry = Envelope { rules, ..Envelope::new(request, command) };
        r.index += 1;
        r.state.apply_entry(r.index, &entry.encode().unwrap()).unwrap();
        let ids = r.state.endpoints().map(|endpoint| endpoint.leg.unwrap().id.get());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(register("172.19.0.0/16", 0), [0xac13_0002, 0xac13_0003, 0xac13_0004, 0xac13_0005]);
    assert_eq!(register("172.20.0.0/16", V1), [3, 4, 5, 6]);
    assert_eq!(State::from_snapshot(&r.state.snapshot()).unwrap(), r.state);
}

/// The device of a leg is made anew where its address changes.
#[test]
fn a_leg_with_another_address_has_another_id() {
    let mut r = replica();
    let first = r.wish(&Wish::new("web1")).unwrap();
    let shared = Wish { network: "other", netns: "web1", ..Wish::new("also") };
    assert_eq!(r.wish(&shared).unwrap().leg, first.leg);
    r.node_at(1, "172.19.0.0/16").unwrap();
    let of = |id| r.state.endpoint(id).unwrap().leg.unwrap();
    let now = of(first.id);
    assert_eq!(now.addresses.to_string(), "172.19.0.2");
    assert_ne!(now.id, first.leg.unwrap().id);
    assert!(r.state.endpoints().all(|endpoint| endpoint.leg == Some(now)));
    for network in ["net", "other"] {
        let name = if network == "net" { "web1" } else { "also" };
        r.apply(Command::RemoveEndpoint {
            name: name.parse().unwrap(),
            network: Some(network.parse().unwrap()),
            only: None,
        })
        .unwrap();
    }
    let next = r.wish(&Wish::new("web2")).unwrap().leg.unwrap();
    assert_eq!(next.id, now.id.next());
    assert_eq!(next.addresses.to_string(), "172.19.0.3", "a freed address comes last");
}

#[test]
fn legs_are_numbered_anew_in_the_order_of_their_endpoints() {
    let mut r = replica();
    r.wish(&Wish { network: "other", ..Wish::new("first") }).unwrap();
    r.wish(&Wish::new("second")).unwrap();
    r.node_at(1, "172.19.0.0/16").unwrap();
    let numbered = [("first", "172.19.0.2"), ("second", "172.19.0.3")];
    assert_eq!(r.legs(), numbered.map(|(name, leg)| (name.to_owned(), leg.to_owned())));
}
