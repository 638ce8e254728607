//! The wanted contents of the table `ip overlay`, and their reasons.
//!
//! ```text
//! prerouting, output ── to an address of the host ──> publish ── in a map ──> DNAT to the endpoint
//! forward            ── into the bridge: answers, and what publish sent; nothing else
//! input              ── to the VXLAN port: counted, since the programs take all that they see
//! postrouting        ── out of the bridge's subnet, hairpin, localhost: masquerade
//! ```
//!
//! Masquerade keeps a flow's source port where it is free, and takes any other where it is not. VXLAN's must not be
//! among them: an answer to that port, from a node's address, would pass for VXLAN of that node.
//!
//! Without a gateway leg there is only the chain `forward`, and no rule of it asks for a connection's state: as long as any
//! table translates addresses or asks for states, the kernel tracks each connection of the host.
//!
//! The rules are the same for one published port and for a thousand: what is published are elements of
//! maps, found by hash. A further port only adds elements, and packets do not pass more rules for it. A port
//! has one element in a map to its endpoint's address and one in a map to the endpoint's port, because nft
//! 1.0.6 (Debian 12) cannot read a map to both from JSON.

use super::expression::{
    both, compare, counter, destination_port, dnat, either, equal, field_of, has, in_set, ip,
    masquerade_to, meta, named, needs_tracking, prefix, range, text, to_port,
};
use crate::{
    dataplane::kernel::{HostPort, Target},
    model::Subnet,
};
use nftables::{
    expr::{Expression, Fib, FibFlag, FibResult, MetaKey, NamedExpression},
    schema::{Chain, Map, NfListObject, Rule, SetType, SetTypeValue, Table},
    stmt::{JumpTarget, Operator, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::Ipv4Addr,
};

pub(super) const FAMILY: NfFamily = NfFamily::IP;
pub(super) const TABLE: &str = "overlay";
/// Maps of the ports that are published on one address of the host. Key: address . protocol . port.
pub(super) const ON_ONE_TO_ADDRESS: &str = "published_on_one_to_address";
pub(super) const ON_ONE_TO_PORT: &str = "published_on_one_to_port";
/// Maps of the ports that are published on all addresses of the host. Key: protocol . port.
pub(super) const ON_ALL_TO_ADDRESS: &str = "published_on_all_to_address";
pub(super) const ON_ALL_TO_PORT: &str = "published_on_all_to_port";
/// The chain that counts what reaches the VXLAN port of the host's own stack. It tracks no connection.
pub(super) const INPUT: &str = "input";
/// Set of the devices whose forwarding the node switched on.
pub(super) const OPENED: &str = "opened";
/// Set of pairs: an opened device, and the bridge whose frames come in by it and stay in the bridge.
pub(super) const BRIDGED: &str = "bridged";
/// The type of these sets: an index, and not a name, so that an element follows a device that is renamed, also while no
/// node runs. The crate does not know this type.
const INDEX: &str = "iface_index";

/// Priorities `dstnat` and `srcnat`: destination NAT comes before routing, source NAT after it.
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
/// Priority `filter`.
const FILTER: i32 = 0;

/// The values from which a node's table is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The gateway bridge's name.
    pub bridge: String,
    /// Its subnet.
    pub subnet: Subnet,
    /// VXLAN's UDP port, which no endpoint's flow may get.
    pub vxlan_port: u16,
    /// Devices whose forwarding the node switched on, so that the outside reaches the bridge through them.
    /// Packets that come in on one of them are forwarded to the bridge only.
    pub forwarding: BTreeSet<String>,
    /// Pairs of an opened device and a bridge: the bridge itself, or a VLAN device on it, and the bridge. With br_netfilter
    /// the frames that a bridge carries between its ports pass here too, and they are not routed.
    pub bridged: BTreeSet<(String, String)>,
    /// There are legs. Without any, no rule translates addresses or asks for the state of a connection: for either the
    /// kernel tracks each connection of the host, which costs each of its packets time.
    pub translates: bool,
    /// Ports of the host (address 0.0.0.0 = all its addresses) and their targets.
    pub published: BTreeMap<HostPort, Target>,
}

pub(super) fn table() -> Table<'static> {
    Table { family: FAMILY, name: TABLE.into(), handle: None }
}

/// The objects of the table without its elements, in nft's JSON and in the order that nft needs: maps and chains come
/// before the rules that name them.
pub(super) fn skeleton(rules: &Rules) -> Vec<Value> {
    let on_one = [SetType::Ipv4Addr, SetType::InetProto, SetType::InetService];
    let on_all = [SetType::InetProto, SetType::InetService];
    let mut objects = vec![
        map(ON_ONE_TO_ADDRESS, &on_one, SetType::Ipv4Addr),
        map(ON_ONE_TO_PORT, &on_one, SetType::InetService),
        map(ON_ALL_TO_ADDRESS, &on_all, SetType::Ipv4Addr),
        map(ON_ALL_TO_PORT, &on_all, SetType::InetService),
        chain(INPUT, Some((NfChainType::Filter, NfHook::Input, FILTER))),
        chain("forward", Some((NfChainType::Filter, NfHook::Forward, FILTER))),
    ];
    if rules.translates {
        objects.extend([
            chain("publish", None),
            chain("prerouting", Some((NfChainType::NAT, NfHook::Prerouting, DSTNAT))),
            chain("output", Some((NfChainType::NAT, NfHook::Output, DSTNAT))),
            chain("postrouting", Some((NfChainType::NAT, NfHook::Postrouting, SRCNAT))),
        ]);
    }
    let is_wanted = |(chain, _, statements): &Described| {
        let stands = ["forward", INPUT].contains(chain);
        rules.translates || (stands && !statements.iter().any(needs_tracking))
    };
    for (chain, comment, statements) in described(rules).into_iter().filter(is_wanted) {
        objects.push(NfListObject::Rule(Rule {
            family: FAMILY,
            table: TABLE.into(),
            chain: chain.into(),
            expr: statements.into(),
            comment: Some(comment.into()),
            ..Rule::default()
        }));
    }
    let sets = [set(OPENED, &json!(INDEX)), set(BRIDGED, &json!([INDEX, INDEX]))];
    sets.into_iter().chain(objects.iter().map(value)).collect()
}

/// An object in nft's JSON.
pub(super) fn value(object: &NfListObject<'static>) -> Value {
    match serde_json::to_value(object) {
        Ok(value) => value,
        Err(error) => unreachable!("these objects are made of strings and numbers: {error}"),
    }
}

type Described = (&'static str, &'static str, Vec<Statement<'static>>);

fn described(rules: &Rules) -> Vec<Described> {
    let Rules { bridge, subnet, vxlan_port, .. } = rules;
    let into_bridge = || equal(meta(MetaKey::Oifname), text(bridge.to_owned()));
    let out_of_bridge = || equal(meta(MetaKey::Iifname), text(bridge.to_owned()));
    let from_subnet =
        || equal(ip("saddr"), prefix(subnet.net().network(), subnet.net().prefix_len()));
    let loopback = || prefix(Ipv4Addr::new(127, 0, 0, 0), 8);
    let to_this_host = || {
        let flags = HashSet::from([FibFlag::Daddr]);
        let fib = NamedExpression::Fib(Fib { result: FibResult::Type, flags });
        equal(named(fib), text("local"))
    };
    let publish = || Statement::Jump(JumpTarget { target: "publish".into() });
    let masquerade = || Statement::Masquerade(None);
    // Not on lo: what the host sends to the bridge's address stays the host's.
    let out_of_host =
        || compare(meta(MetaKey::Oifname), Operator::NEQ, either(&[bridge.as_str(), "lo"]));
    let mut all = vec![
        (
            "publish",
            "published on the address that was asked for",
            vec![dnat(
                vec![ip("daddr"), meta(MetaKey::L4proto), destination_port()],
                ON_ONE_TO_ADDRESS,
                ON_ONE_TO_PORT,
            )],
        ),
        (
            "publish",
            "published on every address",
            vec![dnat(
                vec![meta(MetaKey::L4proto), destination_port()],
                ON_ALL_TO_ADDRESS,
                ON_ALL_TO_PORT,
            )],
        ),
    ];
    all.extend([
        // Destination NAT comes before the kernel's check for loopback addresses from outside. Without
        // the first match a neighbour on the wire could reach ports that are published on 127.0.0.1.
        (
            "prerouting",
            "published ports, for everybody but this host; nothing from outside is for localhost",
            vec![compare(ip("daddr"), Operator::NEQ, loopback()), to_this_host(), publish()],
        ),
        (INPUT, "VXLAN that no program took", vec![to_port("udp", *vxlan_port), counter()]),
        ("output", "published ports, for this host itself", vec![to_this_host(), publish()]),
        (
            "forward",
            "answers to endpoints",
            vec![
                into_bridge(),
                has("state", Expression::List(vec![text("established"), text("related")])),
                Statement::Accept(None),
            ],
        ),
        (
            "forward",
            "published ports",
            vec![into_bridge(), has("status", text("dnat")), Statement::Accept(None)],
        ),
        // Any host with a route to the subnet would otherwise reach every port of every endpoint.
        (
            "forward",
            "endpoints are reached at published ports alone",
            vec![into_bridge(), counter(), Statement::Drop(None)],
        ),
        // Source NAT leaves such a packet as it is. It would go out with an address that is not reached
        // from outside, and the other side would reset the connection it seems to belong to.
        (
            "forward",
            "what belongs to no connection can't be masqueraded",
            vec![out_of_bridge(), has("state", text("invalid")), counter(), Statement::Drop(None)],
        ),
        // These frames are not routed: the bridge carries them, as it did before the node came.
        (
            "forward",
            "a bridge carries frames between its ports (br_netfilter)",
            vec![equal(both(MetaKey::Iif, MetaKey::Oif), in_set(BRIDGED)), Statement::Accept(None)],
        ),
        // Forwarding must be on for a device through which the bridge is reached. Without this rule, that
        // would make the host a router between its other networks too.
        (
            "forward",
            "the overlay makes this host no router between its other networks",
            vec![equal(meta(MetaKey::Iif), in_set(OPENED)), counter(), Statement::Drop(None)],
        ),
    ]);
    all.extend(beside(*vxlan_port).into_iter().map(|(comment, first, last)| {
        let ports = || range(first, last);
        let sent_from = equal(field_of("udp", "sport"), ports());
        (
            "postrouting",
            comment,
            vec![from_subnet(), out_of_host(), sent_from, masquerade_to(ports())],
        )
    }));
    all.extend([
        (
            "postrouting",
            "endpoints reach the outside by this host's address",
            vec![from_subnet(), out_of_host(), masquerade()],
        ),
        // The answer must come back to the host to be rewritten. Without masquerading, the endpoint would
        // send it directly to its neighbour, which had asked another address.
        (
            "postrouting",
            "hairpin: an endpoint at a published port of its own host",
            vec![into_bridge(), from_subnet(), has("status", text("dnat")), masquerade()],
        ),
        // The endpoint could not answer: 127.0.0.1 is its own loopback address.
        (
            "postrouting",
            "this host at a published port of localhost",
            vec![into_bridge(), equal(ip("saddr"), loopback()), masquerade()],
        ),
    ]);
    all
}

/// The ports below and above a port among which masquerade may choose. Masquerade replaces a port below 1024 only by
/// another below 1024.
fn beside(port: u16) -> Vec<(&'static str, u16, u16)> {
    let (first, last) = if port < 1024 { (1, 1023) } else { (1024, u16::MAX) };
    let below = ("UDP from a port below VXLAN's stays below it", first, port.saturating_sub(1));
    let above = ("UDP from a port above VXLAN's stays above it", port.saturating_add(1), last);
    // None where the port is the first or the last.
    let is_some = |(_, first, last): &(_, u16, u16)| first <= last && *first != port;
    [below, above].into_iter().filter(is_some).collect()
}

/// A map, without a comment, because nft 1.0.6 loses the comments of maps and sets.
fn map(name: &'static str, key: &[SetType], value: SetType) -> NfListObject<'static> {
    NfListObject::Map(Box::new(Map {
        family: FAMILY,
        table: TABLE.into(),
        name: name.into(),
        set_type: SetTypeValue::Concatenated(key.to_vec().into()),
        map: SetTypeValue::Single(value),
        ..Map::default()
    }))
}

/// A set of devices.
fn set(name: &str, of: &Value) -> Value {
    json!({"set": {"family": FAMILY, "table": TABLE, "name": name, "type": of}})
}

fn chain(name: &'static str, hook: Option<(NfChainType, NfHook, i32)>) -> NfListObject<'static> {
    let mut chain =
        Chain { family: FAMILY, table: TABLE.into(), name: name.into(), ..Chain::default() };
    if let Some((kind, hook, priority)) = hook {
        chain._type = Some(kind);
        chain.hook = Some(hook);
        chain.prio = Some(priority);
        chain.policy = Some(NfChainPolicy::Accept);
    }
    NfListObject::Chain(chain)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn some() -> Rules {
        Rules {
            bridge: "ov_gwbridge".to_owned(),
            subnet: "172.18.0.0/16".parse().unwrap(),
            vxlan_port: 4789,
            forwarding: BTreeSet::new(),
            bridged: BTreeSet::new(),
            translates: true,
            published: BTreeMap::new(),
        }
    }

    #[test]
    fn each_port_but_one_has_a_side() {
        for port in [1, 2, 500, 1022, 1023, 1024, 1025, 4789, 65534, 65535] {
            let sides = beside(port);
            let like = if port < 1024 { 1..=1023 } else { 1024..=u16::MAX };
            for other in like {
                let of = |(_, first, last): &&(_, u16, u16)| (*first..=*last).contains(&other);
                let count = sides.iter().filter(of).count();
                assert_eq!(count, usize::from(other != port), "{other} beside {port}: {sides:?}");
            }
        }
    }

    #[test]
    fn without_a_leg_nothing_makes_the_kernel_track_connections() {
        let bare = skeleton(&Rules { translates: false, ..some() });
        let text = serde_json::to_string(&bare).unwrap();
        for word in [r#""nat""#, r#""ct""#, "masquerade", "dnat", "jump"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
        // What keeps the host from routing for others stays.
        assert!(text.contains("@opened") && text.contains("@bridged"), "{text}");
    }

    #[test]
    fn each_rule_says_what_it_is_for() {
        let mut comments = BTreeSet::new();
        for (chain, comment, _) in described(&some()) {
            assert!(
                !comment.is_empty() && comment == super::super::contents::printable(comment),
                "{chain}: {comment}"
            );
            assert!(comments.insert(comment), "{comment}");
        }
    }
}
