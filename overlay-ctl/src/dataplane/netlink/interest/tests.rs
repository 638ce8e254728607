//! Events that count, and events that do not.

use super::*;
use crate::dataplane::netlink::names::GROUP;
use netlink_packet_route::{
    link::{InfoKind, LinkInfo},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState},
};
use proptest::prelude::*;
use rtnetlink::packet_core::NetlinkMessage;
use std::os::unix::net::UnixDatagram;

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
    for (index, name, change) in [
        (UNDERLAY, "eth0", Some(Change::Link)),
        (4, "eth1", Some(Change::Link)),
        (6, "vpn0", Some(Change::Link)),
        (9, "veth9", None),
        (11, "ovp2a", Some(Change::Device(11))),
        (12, "ov_gwbridge", Some(Change::Device(12))),
        (13, "ovm-in", Some(Change::Link)),
        (11, "renamed", Some(Change::Any)),
    ] {
        assert_eq!(told(new(link(index, name))), change, "{name}");
    }
    let mut of_the_bridge = link(11, "ovp2a");
    of_the_bridge.header.interface_family = AddressFamily::Bridge;
    assert_eq!(told(gone(of_the_bridge)), Some(Change::Device(11)), "it is no port any more");
    assert_eq!(told(gone(link(11, "renamed"))), Some(Change::Any));
    assert_eq!(told(new(link(11, "veth11"))), None, "another device has its index now");
    assert_eq!(told(address(12, [172, 18, 0, 1])), Some(Change::Device(12)), "the bridge's");
    assert_eq!(told(address(9, [10, 0, 0, 5])), Some(Change::Link), "our own, elsewhere");
    assert_eq!(told(address(UNDERLAY, [10, 0, 0, 9])), Some(Change::Link));
    assert_eq!(told(address(9, [10, 0, 0, 9])), None);
    interest.retain(&[ROUTER].into(), [UNDERLAY, 4].into());
    assert_eq!(
        told(new(link(6, "vpn0"))),
        Some(Change::Link),
        "a way by it may come back with its carrier"
    );
    assert_eq!(told(gone(link(6, "vpn0"))), Some(Change::Link));
    assert_eq!(told(new(link(6, "veth6"))), None, "another device has its index now");
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

fn queue(index: i32, parent: TcHandle) -> RouteNetlinkMessage {
    let mut message = TcMessage::default();
    (message.header.index, message.header.parent) = (index, parent);
    RouteNetlinkMessage::NewQueueDiscipline(message)
}

#[test]
fn a_queue_counts_if_all_that_goes_by_a_device_of_ours_waits_in_it() {
    let interest = interest();
    interest.has([11].into_iter());
    let root = queue(11, TcHandle::ROOT);
    assert_eq!(interest.concerns(&root), Some(Change::Device(11)));
    assert!(passes(&filtered(&interest), &root));
    for foreign in
        [queue(9, TcHandle::ROOT), queue(11, TcHandle::CLSACT), queue(-1, TcHandle::ROOT)]
    {
        assert_eq!(interest.concerns(&foreign), None, "{foreign:?}");
    }
    assert!(!passes(&filtered(&interest), &queue(11, TcHandle::CLSACT)));
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
        let change = interest.concerns(&event);
        assert!(matches!(change, Some(Change::Any | Change::Way)), "{event:?}");
    }
}

/// A socket with the program of this node, and one by which it gets messages.
fn filtered(interest: &Interest) -> (Socket, UnixDatagram) {
    let (reads, writes) = UnixDatagram::pair().unwrap();
    reads.set_nonblocking(true).unwrap();
    let socket = Socket::from(std::os::fd::OwnedFd::from(reads));
    interest.come_by(socket.try_clone().unwrap());
    let (hops, devices) = {
        let concerns = interest.lock();
        (concerns.hops.keys().copied().collect(), concerns.devices.clone())
    };
    interest.retain(&hops, devices);
    (socket, writes)
}

fn passes((socket, writes): &(Socket, UnixDatagram), event: &RouteNetlinkMessage) -> bool {
    let mut message = NetlinkMessage::from(event.clone());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    writes.send(&bytes).unwrap();
    let mut read = socket;
    std::io::Read::read(&mut read, &mut vec![0; 1 << 16]).is_ok()
}

#[test]
fn the_kernel_holds_back_what_others_do() {
    let interest = interest();
    let socket = filtered(&interest);
    let new = RouteNetlinkMessage::NewNeighbour;
    let stale = NeighbourState::Stale;
    let mut learnt = neighbour(ROUTER, stale, MAC);
    learnt.header.family = AddressFamily::Bridge;
    for foreign in [
        RouteNetlinkMessage::NewLink(link(9, "veth9")),
        RouteNetlinkMessage::DelLink(link(9, "veth9")),
        address(9, [10, 0, 0, 9]),
        new(neighbour((9, [10, 0, 0, 1].into()), stale, MAC)),
        new(neighbour((UNDERLAY, [10, 77, 0, 1].into()), stale, MAC)),
        new(learnt),
        route([198, 51, 100, 0], 24),
        route([192, 0, 2, 6], 32),
    ] {
        assert!(!passes(&socket, &foreign), "{foreign:?}");
    }
    let mut vxlan = link(9, "vxlan9");
    vxlan.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan)]));
    assert!(passes(&socket, &RouteNetlinkMessage::NewLink(vxlan)), "it may have the node's port");
    let mut renamed = link(11, "renamed");
    renamed.attributes.push(LinkAttribute::Group(GROUP));
    assert!(passes(&socket, &RouteNetlinkMessage::NewLink(renamed)));
    // What is looked at next is not held back before it is looked at.
    let next = new(neighbour((7, [10, 0, 0, 1].into()), stale, MAC));
    assert!(!passes(&socket, &next));
    interest.watch((7, [10, 0, 0, 1].into()));
    assert!(passes(&socket, &next));
}

fn event() -> impl Strategy<Value = RouteNetlinkMessage> {
    let index = || prop::sample::select(vec![UNDERLAY, 4, 6, 9, 11, 300]);
    let ip = || {
        let near = prop::array::uniform4(0..12u8);
        prop_oneof![Just([192, 0, 2, 7]), Just([10, 9, 0, 2]), Just([10, 0, 0, 1]), near]
    };
    let name = prop::sample::select(vec!["eth0", "ovp2a", "ovm-in", "veth9", "o"]);
    prop_oneof![
        (index(), name, any::<bool>()).prop_map(|(index, name, stands)| {
            let made =
                if stands { RouteNetlinkMessage::NewLink } else { RouteNetlinkMessage::DelLink };
            let mut message = link(index, name);
            if name.starts_with("ov") {
                message.attributes.push(LinkAttribute::Group(GROUP));
            }
            made(message)
        }),
        (index(), ip()).prop_map(|(index, ip)| address(index, ip)),
        (index(), ip(), any::<[u8; 6]>()).prop_map(|(index, ip, mac)| {
            let state = NeighbourState::Reachable;
            RouteNetlinkMessage::NewNeighbour(neighbour((index, ip.into()), state, mac))
        }),
        (ip(), 0..=32u8).prop_map(|(ip, length)| {
            let net = Ipv4Net::new(ip.into(), length).unwrap().network();
            route(net.octets(), length)
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_concerns_the_node_is_handed_over(events in prop::collection::vec(event(), 1..32)) {
        let interest = interest();
        // A device of the overlay that has another name now keeps its group.
        let socket = filtered(&interest);
        for event in events {
            let is_named = matches!(&event, RouteNetlinkMessage::NewLink(message)
                | RouteNetlinkMessage::DelLink(message)
                if !message.attributes.iter().any(|a| matches!(a, LinkAttribute::Group(_))));
            let concerned = interest.concerns(&event);
            let is_renamed = is_named && concerned == Some(Change::Any);
            let is_of_ours = matches!(concerned, Some(Change::Device(_)))
                && matches!(event, RouteNetlinkMessage::NewAddress(_));
            if concerned.is_some() && !is_renamed && !is_of_ours {
                prop_assert!(passes(&socket, &event), "{event:?}");
            }
        }
    }
}

#[test]
fn ranges_are_few_and_have_every_address_in_them() {
    let ranges = |ips: &[u32]| event_filter::ranges(ips.iter().copied());
    assert_eq!(ranges(&[]), []);
    assert_eq!(ranges(&[7]), [(7, 7)]);
    assert_eq!(ranges(&[7, 9, 8, 100]), [(7, 7), (8, 8), (9, 9), (100, 100)]);
    let many: Vec<u32> = (0..50).map(|n| n * 2).chain([1 << 30, u32::MAX]).collect();
    let found = ranges(&many);
    assert_eq!(found.len(), 32);
    assert!(many.iter().all(|ip| found.iter().any(|(low, high)| (low..=high).contains(&ip))));
    assert_eq!(found[found.len() - 2..], [(1 << 30, 1 << 30), (u32::MAX, u32::MAX)]);
}
