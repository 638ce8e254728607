//! Events that count, and events that do not.

use super::*;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};

const UNDERLAY: u32 = 2;
const ROUTER: Key = (UNDERLAY, Ipv4Addr::new(10, 0, 0, 1));
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Of a node with 10.0.0.5 whose VTEPs are behind a router, on another device, and behind one that has no next hops.
fn interest() -> Interest {
    let underlay = Underlay {
        ifindex: UNDERLAY,
        name: "eth0".to_owned(),
        address: [10, 0, 0, 5].into(),
        mtu: 1500,
        is_silent: false,
        link_layer: crate::dataplane::kernel::LinkLayer::Ethernet,
        is_veth: false,
        vrf: None,
    };
    let interest = Interest::default();
    interest.expect(&[[192, 0, 2, 7].into(), [10, 9, 0, 2].into()].into(), &underlay);
    for device in [UNDERLAY, 4, 6] {
        interest.watch_device(device);
    }
    for hop in [ROUTER, (4, Ipv4Addr::new(10, 9, 0, 2))] {
        interest.watch(hop);
        interest.saw(hop, Some(MAC));
    }
    interest
}

fn link(index: u32, name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn neighbour((ifindex, ip): Key, state: NeighbourState, mac: [u8; 6]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    (message.header.family, message.header.ifindex) = (AddressFamily::Inet, ifindex);
    message.header.state = state;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

fn address(index: u32, ip: [u8; 4]) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    (message.header.family, message.header.index) = (AddressFamily::Inet, index);
    message.attributes.push(AddressAttribute::Local(Ipv4Addr::from(ip).into()));
    RouteNetlinkMessage::NewAddress(message)
}

fn route(to: [u8; 4], length: u8) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = length;
    if length > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to.into())));
    }
    RouteNetlinkMessage::NewRoute(message)
}

#[test]
fn a_device_counts_if_it_is_ours_or_on_a_way() {
    let interest = interest();
    let told = |event: RouteNetlinkMessage| interest.concerns(&event);
    let (new, gone) = (RouteNetlinkMessage::NewLink, RouteNetlinkMessage::DelLink);
    for (index, name, counts) in [
        (UNDERLAY, "eth0", true),
        (4, "eth1", true),
        (6, "vpn0", true),
        (9, "veth9", false),
        (11, "ovp2a", true),
        (12, "ov_gwbridge", true),
        (11, "renamed", true),
    ] {
        assert_eq!(told(new(link(index, name))).is_some(), counts, "{name}");
    }
    assert_eq!(told(gone(link(11, "renamed"))), Some(Change::Link));
    assert_eq!(told(new(link(11, "veth11"))), None, "another device has its index now");
    assert_eq!(told(address(12, [172, 18, 0, 1])), Some(Change::Link), "the bridge's");
    assert_eq!(told(address(9, [10, 0, 0, 5])), Some(Change::Link), "our own, elsewhere");
    assert_eq!(told(address(UNDERLAY, [10, 0, 0, 9])), Some(Change::Link));
    assert_eq!(told(address(9, [10, 0, 0, 9])), None);
    interest.retain(&[ROUTER].into(), [UNDERLAY, 4].into());
    assert_eq!(told(new(link(6, "vpn0"))), None, "no packet leaves by it any more");
}

#[test]
fn a_neighbour_counts_if_it_is_a_hop_whose_mac_changed() {
    let interest = interest();
    let told = |state, mac| {
        interest.concerns(&RouteNetlinkMessage::NewNeighbour(neighbour(ROUTER, state, mac)))
    };
    let (reachable, stale) = (NeighbourState::Reachable, NeighbourState::Stale);
    assert_eq!(told(stale, MAC), None, "the kernel would use it still");
    assert_eq!(told(reachable, [4; 6]), Some(Change::Way), "another MAC");
    assert_eq!(told(reachable, [4; 6]), None);
    assert_eq!(told(NeighbourState::Failed, [4; 6]), Some(Change::Way), "none any more");
    assert_eq!(told(NeighbourState::Incomplete, [4; 6]), None, "still none");
    assert_eq!(told(stale, [4; 6]), Some(Change::Way), "it is back");
    let gone = RouteNetlinkMessage::DelNeighbour(neighbour(ROUTER, stale, [4; 6]));
    assert_eq!(interest.concerns(&gone), Some(Change::Way), "deleted");

    let other = neighbour((UNDERLAY, Ipv4Addr::new(10, 0, 0, 77)), reachable, MAC);
    let mut learnt = neighbour(ROUTER, reachable, [6; 6]);
    learnt.header.family = AddressFamily::Bridge;
    for foreign in [other, learnt] {
        assert_eq!(interest.concerns(&RouteNetlinkMessage::NewNeighbour(foreign)), None);
    }
    interest.retain(&[].into(), [].into());
    assert_eq!(told(reachable, [8; 6]), None, "it is no hop any more");
}

#[test]
fn a_route_counts_if_it_may_lead_to_a_vtep() {
    let interest = interest();
    for (to, length, counts) in [
        ([0, 0, 0, 0], 0, true),
        ([192, 0, 2, 0], 24, true),
        ([192, 0, 2, 7], 32, true),
        ([192, 0, 2, 6], 32, false),
        ([198, 51, 100, 0], 24, false),
        ([10, 9, 0, 0], 16, true),
    ] {
        assert_eq!(interest.concerns(&route(to, length)).is_some(), counts, "{to:?}/{length}");
    }
}

#[test]
fn a_rule_counts_unless_it_is_about_other_packets() {
    let interest = interest();
    let ip = |last| IpAddr::from([10, 9, 0, last]);
    let own = IpAddr::from([10, 0, 0, 5]);
    for (attributes, lengths, counts) in [
        (vec![], (0, 0), true),
        (vec![RuleAttribute::Table(7)], (0, 0), true),
        (vec![RuleAttribute::Destination(ip(2))], (32, 0), true),
        (vec![RuleAttribute::Destination(ip(0))], (24, 0), true),
        (vec![RuleAttribute::Destination(ip(3))], (32, 0), false),
        (vec![RuleAttribute::Source(own)], (0, 32), true),
        (vec![RuleAttribute::Source(ip(2))], (0, 32), false),
        (vec![RuleAttribute::Source(own), RuleAttribute::Destination(ip(3))], (32, 32), false),
        (vec![RuleAttribute::FwMark(0)], (0, 0), true),
        (vec![RuleAttribute::FwMark(51820)], (0, 0), false),
        (vec![RuleAttribute::Iifname("lo".to_owned())], (0, 0), true),
        (vec![RuleAttribute::Iifname("eth1".to_owned())], (0, 0), false),
    ] {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        (message.header.dst_len, message.header.src_len) = lengths;
        message.attributes = attributes;
        let told = |event| interest.concerns(&event);
        let wanted = counts.then_some(Change::Way);
        assert_eq!(told(RouteNetlinkMessage::NewRule(message.clone())), wanted, "{message:?}");
        assert_eq!(told(RouteNetlinkMessage::DelRule(message.clone())), wanted, "{message:?}");
        message.header.flags = RuleFlags::Invert;
        let inverted = told(RouteNetlinkMessage::NewRule(message.clone()));
        assert_eq!(inverted, Some(Change::Way), "all but those: {message:?}");
        message.header.family = AddressFamily::Inet6;
        assert_eq!(told(RouteNetlinkMessage::NewRule(message)), None, "of another family");
    }
}

#[test]
fn before_the_first_look_everything_counts() {
    let interest = Interest::default();
    let events = [
        RouteNetlinkMessage::NewLink(link(9, "veth9")),
        RouteNetlinkMessage::NewNeighbour(neighbour(
            (9, [10; 4].into()),
            NeighbourState::Stale,
            MAC,
        )),
        address(9, [10; 4]),
        route([198, 51, 100, 0], 24),
    ];
    for event in events {
        assert!(interest.concerns(&event).is_some(), "{event:?}");
    }
}
