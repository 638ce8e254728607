//! Every decision about a frame that an endpoint sends on its gateway leg.

use etherparse::IpNumber;
use overlay_common::{Direction, DropReason::*, VXLAN_PORT, ip16_from_v4};

use super::{
    bench::{Skb, on_bench},
    cases::{Case, Expected::*, case, check_all},
    icmp_errors,
    outward::{ACK, Outward, RST, SYN, answers, asks, gateways_answer, tcp, udp, udp_from},
    packets::{Ask, BROADCAST, EXPERIMENTAL, Flow, GROUP, PAYLOAD, arp, cut, ipv6, other, tagged},
    world::{
        A, A_OUT, API_PORT, B, B_OUT, FAR_VTEP, FORWARDS, GATEWAY, LEG_A, LEG_B, OUTSIDE, OWN_VTEP,
        PORT_A, STRANGER, Station, World, api_key,
    },
};

const AS_USUAL: fn(&mut World) = |_| {};

#[test]
fn every_decision() {
    on_bench(|bench| check_all(bench, Direction::FromGateway, cases()));
}

#[test]
fn the_gateway_is_answered_for_byte_by_byte() {
    on_bench(|bench| {
        for ask in [asks(), Ask { to: GATEWAY.mac, ..asks() }, Ask { to: B_OUT.mac, ..asks() }] {
            let outcome = bench.run(Direction::FromGateway, &arp(ask));
            assert_eq!(outcome.packet, gateways_answer(), "{ask:?}");
        }
        // A request without a sender's address is answered to that empty address, and its padding stays
        // unchanged.
        let probe = Ask { sender: Station { ip: [0; 4], ..A_OUT }, ..asks() };
        let outcome = bench.run(Direction::FromGateway, &[arp(probe), vec![0; 18]].concat());
        let mut answer = [gateways_answer(), vec![0; 18]].concat();
        answer[38..42].fill(0);
        assert_eq!(outcome.packet, answer);
    });
}

/// The cases of all tables.
#[rustfmt::skip]
pub(crate) fn cases() -> Vec<Case> {
    [who_it_is(), arp_spoken(), to_whom(), to_vxlan(), to_apis(), icmp_errors::from_gateway(), other_protocols(), options(), malformed()].into_iter().flatten().collect()
}

#[rustfmt::skip]
fn who_it_is() -> Vec<Case> {
    let out = Outward::default;
    let from = |from: Station| Outward { from, ..out() }.frame();
    vec![
        case("out", AS_USUAL, out().frame(), Allow),
        case("a device of no endpoint", |w| { w.gateway_ports.remove(&LEG_A); }, out().frame(), Drop(UnknownPort)),
        case("the endpoint's overlay leg", AS_USUAL, out().frame(), Drop(UnknownPort)).with(Skb { ifindex: PORT_A, gso_size: 0 }),
        case("another endpoint's leg", AS_USUAL, from(B_OUT), Allow).with(Skb { ifindex: LEG_B, gso_size: 0 }),
        case("another endpoint, by one's leg", AS_USUAL, from(B_OUT), Drop(SpoofedMac)),
        case("another's MAC", AS_USUAL, from(Station { mac: STRANGER.mac, ..A_OUT }), Drop(SpoofedMac)),
        case("the gateway's MAC", AS_USUAL, from(Station { mac: GATEWAY.mac, ..A_OUT }), Drop(SpoofedMac)),
        case("a group as the source", AS_USUAL, from(Station { mac: GROUP, ..A_OUT }), Drop(SpoofedMac)),
        case("a neighbour's address", AS_USUAL, from(Station { ip: B_OUT.ip, ..A_OUT }), Drop(SpoofedIp)),
        case("the gateway's address", AS_USUAL, from(Station { ip: GATEWAY.ip, ..A_OUT }), Drop(SpoofedIp)),
        case("a VTEP's address", AS_USUAL, from(Station { ip: OWN_VTEP, ..A_OUT }), Drop(SpoofedIp)),
        case("its overlay address", AS_USUAL, from(Station { ip: A.ip, ..A_OUT }), Drop(SpoofedIp)),
        case("no address", AS_USUAL, from(Station { ip: [0; 4], ..A_OUT }), Drop(SpoofedIp)),
        // An endpoint that routes for its network does not route for the gateway bridge.
        case("another's address, of one who forwards", |w| w.flag(FORWARDS), from(Station { ip: B_OUT.ip, ..A_OUT }), Drop(SpoofedIp)),
        // test_run cannot be given a tag that the device took out of the frame: gateway_bridge.rs tests this.
        case("an 802.1Q tag in the frame", AS_USUAL, tagged(&out().frame(), 0x8100), Drop(VlanUnsupported)),
        case("an 802.1ad tag in the frame", AS_USUAL, tagged(&out().frame(), 0x88a8), Drop(VlanUnsupported)),
        case("a tag around ARP", AS_USUAL, tagged(&arp(asks()), 0x8100), Drop(VlanUnsupported)),
        case("before the node is configured", |w| w.config = None, out().frame(), Drop(NotConfigured)),
    ]
}

#[rustfmt::skip]
fn arp_spoken() -> Vec<Case> {
    let probe = Station { ip: [0; 4], ..A_OUT };
    let target = |ip| Station { mac: [0; 6], ip };
    let ask = |ask: Ask| arp(ask);
    // The offsets in an ARP packet are those of RFC 826.
    let with = |at: usize, byte: u8| { let mut frame = arp(asks()); frame[at] = byte; frame };
    vec![
        case("who has the gateway", AS_USUAL, arp(asks()), Redirect),
        case("the gateway asked", AS_USUAL, ask(Ask { to: GATEWAY.mac, ..asks() }), Redirect),
        case("a neighbour asked for the gateway: it hears nothing", AS_USUAL, ask(Ask { to: B_OUT.mac, ..asks() }), Redirect),
        case("a probe for the gateway", AS_USUAL, ask(Ask { sender: probe, ..asks() }), Redirect),
        case("asked before the node is configured", |w| w.config = None, arp(asks()), Redirect),
        case("padded to Ethernet's least", AS_USUAL, [arp(asks()), vec![0; 18]].concat(), Redirect),
        case("who has a neighbour", AS_USUAL, ask(Ask { target: target(B_OUT.ip), ..asks() }), Drop(GatewayNeighbour)),
        case("a neighbour asked for itself", AS_USUAL, ask(Ask { to: B_OUT.mac, target: B_OUT, ..asks() }), Drop(GatewayNeighbour)),
        case("the gateway asked for a neighbour", AS_USUAL, ask(Ask { to: GATEWAY.mac, target: target(B_OUT.ip), ..asks() }), Drop(GatewayNeighbour)),
        case("who has somebody outside", AS_USUAL, ask(Ask { target: target(OUTSIDE), ..asks() }), Drop(GatewayNeighbour)),
        case("an announcement", AS_USUAL, ask(Ask { target: target(A_OUT.ip), ..asks() }), Drop(ArpOwnAddress)),
        case("an announcement as an answer", AS_USUAL, ask(Ask { operation: 2, target: A_OUT, ..asks() }), Drop(ArpOwnAddress)),
        case("a probe for its own address", AS_USUAL, ask(Ask { sender: probe, target: target(A_OUT.ip), ..asks() }), Drop(ArpOwnAddress)),
        case("an answer to the gateway", AS_USUAL, arp(answers()), Allow),
        case("an answer to the gateway, put into the bridge", World::put_into_bridge, arp(answers()), Redirect),
        case("an answer to all", AS_USUAL, ask(Ask { to: BROADCAST, ..answers() }), Drop(GatewayNeighbour)),
        case("an answer to a neighbour's MAC", AS_USUAL, ask(Ask { to: B_OUT.mac, ..answers() }), Drop(GatewayNeighbour)),
        case("an answer to a neighbour's address", AS_USUAL, ask(Ask { target: B_OUT, ..answers() }), Drop(GatewayNeighbour)),
        case("an answer to a neighbour", AS_USUAL, ask(Ask { to: B_OUT.mac, target: B_OUT, ..answers() }), Drop(GatewayNeighbour)),
        case("an answer without an address", AS_USUAL, ask(Ask { sender: probe, ..answers() }), Drop(SpoofedIp)),
        case("an answer for a neighbour", AS_USUAL, ask(Ask { sender: Station { ip: B_OUT.ip, ..A_OUT }, ..answers() }), Drop(SpoofedIp)),
        case("an answer with a neighbour's MAC", AS_USUAL, ask(Ask { sender: Station { mac: B_OUT.mac, ..A_OUT }, ..answers() }), Drop(SpoofedMac)),
        case("an answer for the gateway", AS_USUAL, ask(Ask { sender: Station { ip: GATEWAY.ip, ..A_OUT }, to: B_OUT.mac, target: B_OUT, ..answers() }), Drop(SpoofedIp)),
        case("another's MAC around it", AS_USUAL, ask(Ask { from: B_OUT.mac, ..asks() }), Drop(SpoofedMac)),
        case("another's MAC in it", AS_USUAL, ask(Ask { sender: Station { mac: B_OUT.mac, ..A_OUT }, ..asks() }), Drop(SpoofedMac)),
        case("another's MAC in a probe", AS_USUAL, ask(Ask { sender: Station { mac: B_OUT.mac, ip: [0; 4] }, ..asks() }), Drop(SpoofedMac)),
        case("another's address in it", AS_USUAL, ask(Ask { sender: Station { ip: B_OUT.ip, ..A_OUT }, ..asks() }), Drop(SpoofedIp)),
        case("RARP's operation", AS_USUAL, ask(Ask { operation: 3, ..asks() }), Drop(ArpNotRequest)),
        case("not Ethernet", AS_USUAL, with(15, 6), Drop(ArpNotRequest)),
        case("ARP for IPv6", AS_USUAL, with(16, 0x86), Drop(ArpNotRequest)),
        case("MACs of another length", AS_USUAL, with(18, 8), Drop(ArpNotRequest)),
        case("addresses of another length", AS_USUAL, with(19, 16), Drop(ArpNotRequest)),
        case("ARP cut", AS_USUAL, cut(arp(asks()), 14 + 27), Drop(Malformed)),
    ]
}

#[rustfmt::skip]
fn to_whom() -> Vec<Case> {
    let to = |to: [u8; 4]| Outward { to, ..Outward::default() }.frame();
    let to_mac = |to_mac| Outward { to_mac, ..Outward::default() }.frame();
    let neighbour = |mac| Outward { to_mac: mac, to: B_OUT.ip, ..Outward::default() }.frame();
    vec![
        case("to the gateway", AS_USUAL, to(GATEWAY.ip), Allow),
        case("to the node, for what it publishes", AS_USUAL, to(OWN_VTEP), Allow),
        case("to another subnet's 172.18", AS_USUAL, to([172, 19, 0, 4]), Allow),
        case("to the metadata of a cloud", AS_USUAL, to([169, 254, 169, 254]), Allow),
        case("to the gateway, put into the bridge", World::put_into_bridge, to(GATEWAY.ip), Redirect),
        case("out, put into the bridge", World::put_into_bridge, to(OUTSIDE), Redirect),
        case("to a neighbour, were it put into the bridge", World::put_into_bridge, neighbour(GATEWAY.mac), Drop(GatewayNeighbour)),
        case("to a neighbour", AS_USUAL, neighbour(B_OUT.mac), Drop(GatewayNeighbour)),
        case("to a neighbour, by the gateway", AS_USUAL, neighbour(GATEWAY.mac), Drop(GatewayNeighbour)),
        case("out, by a neighbour", AS_USUAL, to_mac(B_OUT.mac), Drop(GatewayNeighbour)),
        case("out, by nobody", AS_USUAL, to_mac(STRANGER.mac), Drop(GatewayNeighbour)),
        case("to itself, by the gateway", AS_USUAL, to(A_OUT.ip), Drop(GatewayNeighbour)),
        case("to the subnet's broadcast", AS_USUAL, to([172, 18, 255, 255]), Drop(GatewayNeighbour)),
        case("to the subnet's own address", AS_USUAL, to([172, 18, 0, 0]), Drop(GatewayNeighbour)),
        case("to a neighbour, the subnet being small", |w| { for leg in w.gateway_ports.values_mut() { leg.mask = [255, 255, 255, 248]; } }, to([172, 18, 0, 7]), Drop(GatewayNeighbour)),
        case("beyond a small subnet", |w| { for leg in w.gateway_ports.values_mut() { leg.mask = [255, 255, 255, 248]; } }, to([172, 18, 0, 8]), Allow),
        case("to all, in a frame to all", AS_USUAL, Outward { to_mac: BROADCAST, to: [255; 4], ..Outward::default() }.frame(), Drop(BroadcastOff)),
        case("to one, in a frame to all", AS_USUAL, to_mac(BROADCAST), Drop(BroadcastOff)),
        case("to the gateway, in a frame to a group", AS_USUAL, Outward { to_mac: GROUP, to: GATEWAY.ip, ..Outward::default() }.frame(), Drop(BroadcastOff)),
        case("to all", AS_USUAL, to([255; 4]), Drop(BroadcastOff)),
        case("to a group", AS_USUAL, to([224, 0, 0, 251]), Drop(BroadcastOff)),
        case("to the last group", AS_USUAL, to([239, 255, 255, 255]), Drop(BroadcastOff)),
        case("before the groups", AS_USUAL, to([223, 255, 255, 255]), Allow),
        case("beyond the groups", AS_USUAL, to([240, 0, 0, 1]), Allow),
        case("to no address", AS_USUAL, to([0; 4]), Drop(BroadcastOff)),
        case("to this network", AS_USUAL, to([0, 1, 2, 3]), Drop(BroadcastOff)),
        case("to localhost", AS_USUAL, to([127, 0, 0, 1]), Drop(LoopbackDestination)),
        case("to the end of localhost", AS_USUAL, to([127, 255, 255, 255]), Drop(LoopbackDestination)),
        case("to the host's resolver", AS_USUAL, to([127, 0, 0, 53]), Drop(LoopbackDestination)),
    ]
}

#[rustfmt::skip]
fn to_vxlan() -> Vec<Case> {
    let out = Outward::vxlan;
    let first = |payload: Vec<u8>| Outward { more_fragments: true, payload, ..out() };
    vec![
        case("VXLAN to a node", AS_USUAL, Outward { to: FAR_VTEP, ..out() }.frame(), Drop(VxlanFromEndpoint)),
        case("VXLAN to anybody", AS_USUAL, out().frame(), Drop(VxlanFromEndpoint)),
        case("VXLAN to the gateway", AS_USUAL, Outward { to: GATEWAY.ip, ..out() }.frame(), Drop(VxlanFromEndpoint)),
        case("VXLAN behind options", AS_USUAL, Outward { options: vec![1; 8], ..out() }.frame(), Drop(VxlanFromEndpoint)),
        case("VXLAN behind the most options", AS_USUAL, Outward { options: vec![1; 40], ..out() }.frame(), Drop(VxlanFromEndpoint)),
        case("VXLAN's first fragment", AS_USUAL, first(udp(VXLAN_PORT)).frame(), Drop(VxlanFromEndpoint)),
        case("VXLAN's first fragment behind options", AS_USUAL, Outward { options: vec![1; 4], ..first(udp(VXLAN_PORT)) }.frame(), Drop(VxlanFromEndpoint)),
        case("VXLAN's ports and no more", AS_USUAL, first(cut(udp(VXLAN_PORT), 4)).frame(), Drop(VxlanFromEndpoint)),
        // The packet can never be completed, because its first fragment was dropped.
        case("VXLAN's later fragment", AS_USUAL, Outward { fragment_offset: 3, ..first(udp(VXLAN_PORT)) }.frame(), Allow),
        case("VXLAN's last fragment", AS_USUAL, Outward { fragment_offset: 3, more_fragments: false, ..out() }.frame(), Allow),
        case("a first fragment of other UDP", AS_USUAL, first(udp(53)).frame(), Allow),
        case("from the VXLAN port", AS_USUAL, Outward { payload: udp_from(VXLAN_PORT), ..out() }.frame(), Drop(VxlanFromEndpoint)),
        case("from the VXLAN port, behind options", AS_USUAL, Outward { options: vec![1; 8], payload: udp_from(VXLAN_PORT), ..out() }.frame(), Drop(VxlanFromEndpoint)),
        case("from the VXLAN port, a first fragment", AS_USUAL, first(udp_from(VXLAN_PORT)).frame(), Drop(VxlanFromEndpoint)),
        case("from the VXLAN port to the gateway", AS_USUAL, Outward { to: GATEWAY.ip, payload: udp_from(VXLAN_PORT), ..out() }.frame(), Drop(VxlanFromEndpoint)),
        case("from another VXLAN port", |w| w.config.as_mut().expect("one").vxlan_port = 8472, Outward { payload: udp_from(8472), ..out() }.frame(), Drop(VxlanFromEndpoint)),
        case("from the usual VXLAN port where it is another", |w| w.config.as_mut().expect("one").vxlan_port = 8472, Outward { payload: udp_from(VXLAN_PORT), ..out() }.frame(), Allow),
        case("TCP from the VXLAN port", AS_USUAL, { let mut payload = tcp(80, SYN); payload[..2].copy_from_slice(&VXLAN_PORT.to_be_bytes()); Outward { payload, ..Outward::tcp(OUTSIDE, 80, SYN) } }.frame(), Allow),
        case("TCP to the VXLAN port", AS_USUAL, Outward::tcp(FAR_VTEP, VXLAN_PORT, SYN).frame(), Allow),
        case("another VXLAN port", |w| w.config.as_mut().expect("one").vxlan_port = 8472, Outward { payload: udp(8472), ..out() }.frame(), Drop(VxlanFromEndpoint)),
        case("the usual VXLAN port where it is another", |w| w.config.as_mut().expect("one").vxlan_port = 8472, out().frame(), Allow),
        case("a super-packet of VXLAN", AS_USUAL, out().frame(), Drop(VxlanFromEndpoint)).with(Skb { ifindex: LEG_A, gso_size: 8 }),
    ]
}

#[rustfmt::skip]
fn to_apis() -> Vec<Case> {
    let api = |flags| Outward::tcp(OWN_VTEP, API_PORT, flags);
    let first = |payload: Vec<u8>, flags| Outward { more_fragments: true, payload, ..api(flags) };
    vec![
        case("a connection to the node's API", AS_USUAL, api(SYN).frame(), Drop(ControllerPort)),
        case("a connection to another node's", AS_USUAL, Outward::tcp(FAR_VTEP, API_PORT, SYN).frame(), Drop(ControllerPort)),
        case("a connection, behind options", AS_USUAL, Outward { options: vec![1; 8], ..api(SYN) }.frame(), Drop(ControllerPort)),
        case("a connection, its flags in the next fragment", AS_USUAL, first(cut(tcp(API_PORT, SYN), 8), SYN).frame(), Drop(ControllerPort)),
        case("a connection, too short for flags", AS_USUAL, Outward { payload: cut(tcp(API_PORT, SYN), 13), ..api(SYN) }.frame(), Drop(ControllerPort)),
        case("an answer, which nobody asked for", AS_USUAL, api(SYN | ACK).frame(), Drop(ControllerPort)),
        case("more of a connection", AS_USUAL, api(ACK).frame(), Drop(ControllerPort)),
        case("the end of a connection", AS_USUAL, api(RST).frame(), Drop(ControllerPort)),
        case("no flag", AS_USUAL, api(0).frame(), Drop(ControllerPort)),
        case("a later fragment of a connection", AS_USUAL, Outward { fragment_offset: 1, ..api(SYN) }.frame(), Allow),
        case("from the API's port", AS_USUAL, { let mut payload = tcp(80, SYN); payload[..2].copy_from_slice(&API_PORT.to_be_bytes()); Outward { payload, ..Outward::tcp(OWN_VTEP, 80, SYN) } }.frame(), Allow),
        case("UDP to the same port", AS_USUAL, Outward { to: OWN_VTEP, payload: udp(API_PORT), ..Outward::default() }.frame(), Allow),
        case("another port", AS_USUAL, Outward::tcp(OWN_VTEP, API_PORT + 1, SYN).frame(), Allow),
        case("the same port elsewhere", AS_USUAL, Outward::tcp(OUTSIDE, API_PORT, SYN).frame(), Allow),
        case("no such node any more", |w| { w.apis.remove(&api_key(OWN_VTEP)); }, api(SYN).frame(), Allow),
        case("the node's API by the gateway's address", |w| { w.apis.insert(overlay_common::ApiKey { ip: ip16_from_v4(GATEWAY.ip), port: u32::from(API_PORT) }, 1); }, Outward::tcp(GATEWAY.ip, API_PORT, SYN).frame(), Drop(ControllerPort)),
    ]
}

#[rustfmt::skip]
fn other_protocols() -> Vec<Case> {
    let protocol = |protocol| Outward { protocol, ..Outward::default() }.frame();
    let inner = Outward { from: B_OUT, ..Outward::vxlan() }.frame()[14..].to_vec();
    vec![
        case("ICMP", AS_USUAL, protocol(IpNumber::ICMP), Allow),
        case("SCTP", AS_USUAL, protocol(IpNumber::SCTP), Allow),
        case("IP in IP", AS_USUAL, Outward { protocol: IpNumber::IPV4, payload: inner, ..Outward::default() }.frame(), Allow),
        case("IPv6", AS_USUAL, ipv6(A_OUT, GATEWAY, Flow::default()), Drop(GatewayProtocol)),
        case("IPv6 to a neighbour", AS_USUAL, ipv6(A_OUT, B_OUT, Flow::default()), Drop(GatewayProtocol)),
        case("IPv6 to a group", AS_USUAL, ipv6(A_OUT, Station { mac: [0x33, 0x33, 0, 0, 0, 1], ..B_OUT }, Flow::default()), Drop(GatewayProtocol)),
        case("another protocol to the gateway", AS_USUAL, other(A_OUT.mac, GATEWAY.mac, EXPERIMENTAL, PAYLOAD), Drop(GatewayProtocol)),
        case("another protocol to a neighbour", AS_USUAL, other(A_OUT.mac, B_OUT.mac, EXPERIMENTAL, PAYLOAD), Drop(GatewayProtocol)),
        case("another protocol to all", AS_USUAL, other(A_OUT.mac, BROADCAST, EXPERIMENTAL, PAYLOAD), Drop(GatewayProtocol)),
        case("spanning tree", AS_USUAL, other(A_OUT.mac, [1, 0x80, 0xc2, 0, 0, 0], 38, b"\x42\x42\x03"), Drop(GatewayProtocol)),
        case("an old double tag", AS_USUAL, tagged(&Outward::default().frame(), 0x9100), Drop(GatewayProtocol)),
        case("from an overlay endpoint", AS_USUAL, ipv6(A, B, Flow::default()), Drop(SpoofedMac)),
    ]
}

#[rustfmt::skip]
fn options() -> Vec<Case> {
    let with = |options: &[u8]| Outward { options: options.to_vec(), ..Outward::default() }.frame();
    let route = |kind: u8| [kind, 7, 4, 172, 18, 0, 4, 0];
    vec![
        case("no operation", AS_USUAL, with(&[1; 4]), Allow),
        case("record route", AS_USUAL, with(&[7, 7, 4, 0, 0, 0, 0, 0]), Allow),
        case("a timestamp and a router alert", AS_USUAL, with(&[68, 4, 5, 0, 148, 4, 0, 0]), Allow),
        case("a loose source route", AS_USUAL, with(&route(131)), Drop(SourceRoute)),
        case("a strict source route", AS_USUAL, with(&route(137)), Drop(SourceRoute)),
        case("a source route after others", AS_USUAL, with(&[&[1, 1, 1, 7, 3, 4, 1, 148, 4, 0, 0], &route(131)[..7], &[0, 0]].concat()), Drop(SourceRoute)),
        case("a source route at the very end", AS_USUAL, with(&[&[1; 37], &[131, 3, 4][..]].concat()), Drop(SourceRoute)),
        case("the end, and a source route after it", AS_USUAL, with(&[&[0, 0, 0, 0], &route(131)[..]].concat()), Allow),
        case("a source route within another option", AS_USUAL, with(&[7, 11, 12, 131, 7, 4, 172, 18, 0, 4, 0, 0]), Allow),
        case("an option shorter than itself", AS_USUAL, with(&[7, 1, 1, 1]), Drop(Malformed)),
        case("an option of no length", AS_USUAL, with(&[7, 0, 1, 1]), Drop(Malformed)),
        case("an option longer than the header", AS_USUAL, with(&[7, 5, 4, 0]), Drop(Malformed)),
        case("an option that has its length behind the header", AS_USUAL, with(&[1, 1, 1, 7]), Drop(Malformed)),
    ]
}

#[rustfmt::skip]
fn malformed() -> Vec<Case> {
    let usual = || Outward::default().frame();
    let with = |at: usize, byte: u8| { let mut frame = usual(); frame[at] = byte; frame };
    let payload = |payload: Vec<u8>| Outward { payload, ..Outward::default() };
    vec![
        case("a version that is none", AS_USUAL, with(14, 0x65), Drop(Malformed)),
        case("a header shorter than its least", AS_USUAL, with(14, 0x44), Drop(Malformed)),
        case("a header longer than the packet", AS_USUAL, { let mut frame = payload(vec![]).frame(); frame[14] = 0x46; frame }, Drop(Malformed)),
        case("shorter than its header, by its own word", AS_USUAL, with(17, 19), Drop(Malformed)),
        case("longer than the frame, by its own word", AS_USUAL, with(16, 1), Drop(Malformed)),
        case("the last byte missing", AS_USUAL, cut(usual(), usual().len() - 1), Drop(Malformed)),
        case("no length, and no super-packet", AS_USUAL, with(17, 0), Drop(Malformed)),
        case("a super-packet too long for its length", AS_USUAL, with(17, 0), Allow).with(Skb { ifindex: LEG_A, gso_size: 8 }),
        case("padded", AS_USUAL, [usual(), vec![0; 18]].concat(), Allow),
        case("UDP without its ports", AS_USUAL, payload(vec![0; 3]).frame(), Drop(Malformed)),
        case("UDP's ports in the padding", AS_USUAL, [payload(vec![]).frame(), udp(53)].concat(), Drop(Malformed)),
        case("TCP without its ports", AS_USUAL, Outward { payload: vec![0; 3], ..Outward::tcp(OUTSIDE, 80, SYN) }.frame(), Drop(Malformed)),
        case("a first fragment without its ports", AS_USUAL, Outward { more_fragments: true, ..payload(vec![0; 3]) }.frame(), Drop(Malformed)),
        case("UDP without its ports, behind options", AS_USUAL, Outward { options: vec![1; 4], ..payload(vec![0; 3]) }.frame(), Drop(Malformed)),
        case("a later fragment of a byte", AS_USUAL, Outward { fragment_offset: 1, ..payload(vec![0; 1]) }.frame(), Allow),
        case("ICMP of no byte", AS_USUAL, Outward { protocol: IpNumber::ICMP, ..payload(vec![]) }.frame(), Allow),
    ]
}
