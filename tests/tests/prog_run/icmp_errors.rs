//! ICMP errors: every decision of the programs about what an endpoint says of a packet.

use etherparse::IpNumber;
use overlay_common::{DropReason::*, FLAG_ADVERTISING, FLAG_BRIDGING, FLAG_ROUTING};

use super::{
    cases::{Case, Expected::*, case},
    outward::Outward,
    packets::{address_of, discovery, tagged_with, unique, vxlan},
    world::{
        A, A_OUT, B, B_OUT, FAR, FORWARDS as ALL_PERMISSIONS, GATEWAY, OUTSIDE, OWN_VTEP, STRANGER,
        Station, World,
    },
};

const AS_USUAL: fn(&mut World) = |_| {};
const FORWARDS: fn(&mut World) = |world| world.flag(ALL_PERMISSIONS);
const ROUTING: fn(&mut World) = |world| world.flag(FLAG_ROUTING);
const REDIRECTING: fn(&mut World) = |world| world.flag(FLAG_ROUTING | FLAG_ADVERTISING);

/// The start of a packet of UDP, as an error quotes it.
fn quoted(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    Outward { from: Station { ip: from, ..A_OUT }, to, ..Outward::default() }.frame()[14..42]
        .to_vec()
}

/// The start of "fragmentation needed" (RFC 1191, section 4).
fn fragmentation_needed(mtu: u16) -> [u8; 8] {
    let [high, low] = mtu.to_be_bytes();
    [3, 4, 0, 0, 0, 0, high, low]
}

/// An ICMP message out by A's leg.
fn icmp(start: &[u8; 8], quoted: &[u8]) -> Outward {
    let payload = [&start[..], quoted].concat();
    Outward { protocol: IpNumber::ICMP, payload, ..Outward::default() }
}

/// An ICMP message on the network.
fn between(from: Station, to: Station, message: Outward) -> Outward {
    Outward { from, to_mac: to.mac, to: to.ip, ..message }
}

/// An ICMPv6 message of this kind on the network, about a packet to `target`.
fn icmpv6(from: Station, to: Station, kind: u8, target: [u8; 16]) -> Vec<u8> {
    let mut frame = discovery(from, to, 58, &[], kind);
    // No router says it: the sender's address is not the link's, and the limit is an ordinary one.
    frame[14 + 7] = 64;
    frame[14 + 8..][..2].copy_from_slice(&[0xfd, 0]);
    let start = [0x60, 0, 0, 0, 0, 8, 17, 64];
    frame.extend([&start[..], &unique(2), &target, &[0; 8]].concat());
    let len = (frame.len() - 14 - 40) as u16;
    frame[14 + 4..][..2].copy_from_slice(&len.to_be_bytes());
    frame
}

/// On a network, from an endpoint of this node.
#[rustfmt::skip]
pub(crate) fn from_endpoint() -> Vec<Case> {
    let error = |kind: u8, quoted: &[u8]| between(A, B, icmp(&[kind, 1, 0, 0, 0, 0, 0, 0], quoted));
    let too_big = |mtu: u16, quoted: &[u8]| between(A, B, icmp(&fragmentation_needed(mtu), quoted));
    let (own, others) = (quoted(B.ip, A.ip), quoted(B.ip, FAR.ip));
    let about = |kind, target| icmpv6(A, B, kind, target);
    vec![
        case("ICMP: a port is unreachable", AS_USUAL, error(3, &own).frame(), Redirect),
        case("ICMP: a time is exceeded", AS_USUAL, error(11, &own).frame(), Redirect),
        case("ICMP: a parameter is wrong", AS_USUAL, error(12, &own).frame(), Redirect),
        case("ICMP: a neighbour's port is unreachable", AS_USUAL, error(3, &others).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: of a port outside", AS_USUAL, error(3, &quoted(B.ip, OUTSIDE)).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: of its leg's port", AS_USUAL, error(3, &quoted(B.ip, A_OUT.ip)).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: a neighbour's port is unreachable, behind options", AS_USUAL, Outward { options: vec![1; 40], ..error(3, &others) }.frame(), Drop(IcmpAboutOthers)),
        case("ICMP: a neighbour's port is unreachable, on VLAN 0", AS_USUAL, tagged_with(&error(3, &others).frame(), 0x8100, 0), Drop(IcmpAboutOthers)),
        case("ICMP: a neighbour's port is unreachable, all allowed", FORWARDS, error(3, &others).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: of a port outside, routing", ROUTING, error(3, &quoted(B.ip, OUTSIDE)).frame(), Redirect),
        case("ICMP: of a port outside, bridging", |w| w.flag(FLAG_BRIDGING), error(3, &quoted(B.ip, OUTSIDE)).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: of a station's own port", |w| w.flag(FLAG_BRIDGING), between(STRANGER, B, icmp(&[3, 3, 0, 0, 0, 0, 0, 0], &quoted(B.ip, STRANGER.ip))).frame(), Redirect),
        case("ICMP: of its leg's port, all allowed", FORWARDS, error(3, &quoted(B.ip, A_OUT.ip)).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: a neighbour's time is exceeded", AS_USUAL, error(11, &others).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: a redirect of its own", AS_USUAL, error(5, &own).frame(), Drop(IcmpFromRouter)),
        case("ICMP: a redirect of a neighbour", AS_USUAL, error(5, &others).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: a redirect of a neighbour, all allowed", FORWARDS, error(5, &others).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: a redirect, routing alone", ROUTING, error(5, &quoted(B.ip, OUTSIDE)).frame(), Drop(IcmpFromRouter)),
        case("ICMP: a redirect, allowed", REDIRECTING, error(5, &quoted(B.ip, OUTSIDE)).frame(), Redirect),
        case("ICMP: a packet was too big", AS_USUAL, too_big(1400, &own).frame(), Drop(IcmpFromRouter)),
        case("ICMP: a packet was too big, in a first fragment", AS_USUAL, Outward { more_fragments: true, ..too_big(552, &own) }.frame(), Drop(IcmpFromRouter)),
        case("ICMP: a neighbour's packet was too big", AS_USUAL, too_big(1400, &others).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: a neighbour's packet was too big, all allowed", FORWARDS, too_big(1400, &others).frame(), Drop(IcmpAboutOthers)),
        case("ICMP: a packet was too big, allowed", ROUTING, too_big(1400, &quoted(B.ip, OUTSIDE)).frame(), Redirect),
        case("ICMP: a packet was too big for less than each way carries", FORWARDS, too_big(1279, &quoted(B.ip, OUTSIDE)).frame(), Drop(IcmpFromRouter)),
        case("ICMP: about less than a header", AS_USUAL, error(3, &own[..19]).frame(), Drop(Malformed)),
        case("ICMP: about a header and no more", AS_USUAL, error(3, &own[..20]).frame(), Redirect),
        case("ICMP: no message", AS_USUAL, Outward { payload: vec![], ..error(3, &[]) }.frame(), Redirect),
        case("ICMP: a later fragment", AS_USUAL, Outward { fragment_offset: 1, payload: others.clone(), ..error(3, &[]) }.frame(), Redirect),
        case("ICMP: an echo request", AS_USUAL, error(8, &others).frame(), Redirect),
        case("ICMPv6: a port is unreachable", AS_USUAL, about(1, address_of(A.mac)), Redirect),
        case("ICMPv6: of an address that nobody has", AS_USUAL, about(1, unique(1)), Redirect),
        case("ICMPv6: of an address that is made of nobody's MAC", AS_USUAL, about(1, address_of(STRANGER.mac)), Redirect),
        case("ICMPv6: a neighbour's port is unreachable", AS_USUAL, about(1, address_of(FAR.mac)), Drop(IcmpAboutOthers)),
        case("ICMPv6: a neighbour's time is exceeded", AS_USUAL, about(3, address_of(FAR.mac)), Drop(IcmpAboutOthers)),
        case("ICMPv6: an error that nobody knows", AS_USUAL, about(127, address_of(FAR.mac)), Drop(IcmpAboutOthers)),
        case("ICMPv6: a neighbour's port is unreachable, all allowed", FORWARDS, about(1, address_of(FAR.mac)), Drop(IcmpAboutOthers)),
        case("ICMPv6: a packet was too big", AS_USUAL, about(2, address_of(A.mac)), Drop(IcmpFromRouter)),
        case("ICMPv6: a packet was too big, allowed", ROUTING, about(2, unique(1)), Redirect),
        case("ICMPv6: a neighbour's packet was too big, all allowed", FORWARDS, about(2, address_of(FAR.mac)), Drop(IcmpAboutOthers)),
        case("ICMPv6: about less than a header", AS_USUAL, about(1, unique(1))[..14 + 40 + 47].to_vec(), Drop(Malformed)),
        case("ICMPv6: an echo request", AS_USUAL, about(128, address_of(FAR.mac)), Redirect),
    ]
}

/// On a network, from a node that may not run these programs.
#[rustfmt::skip]
pub(crate) fn from_underlay() -> Vec<Case> {
    let says = |message: Outward| vxlan(&between(FAR, A, message).frame());
    let error = |kind: u8, to: [u8; 4]| says(icmp(&[kind, 1, 0, 0, 0, 0, 0, 0], &quoted(A.ip, to)));
    let too_big = |to: [u8; 4]| says(icmp(&fragmentation_needed(1400), &quoted(A.ip, to)));
    vec![
        case("ICMP: a port is unreachable", AS_USUAL, error(3, FAR.ip), Redirect),
        case("ICMP: a neighbour's port is unreachable", AS_USUAL, error(3, B.ip), Drop(IcmpAboutOthers)),
        case("ICMP: a neighbour's port is unreachable, all allowed", FORWARDS, error(3, B.ip), Drop(IcmpAboutOthers)),
        case("ICMP: of a port outside, routing", ROUTING, error(3, OUTSIDE), Redirect),
        case("ICMP: a redirect", AS_USUAL, error(5, FAR.ip), Drop(IcmpFromRouter)),
        case("ICMP: a packet was too big", AS_USUAL, too_big(FAR.ip), Drop(IcmpFromRouter)),
        case("ICMP: a packet was too big, allowed", ROUTING, too_big(OUTSIDE), Redirect),
        case("ICMP: a neighbour's packet was too big, all allowed", FORWARDS, too_big(B.ip), Drop(IcmpAboutOthers)),
        case("ICMPv6: a neighbour's port is unreachable", AS_USUAL, vxlan(&icmpv6(FAR, A, 1, address_of(B.mac))), Drop(IcmpAboutOthers)),
        case("ICMPv6: a packet was too big", AS_USUAL, vxlan(&icmpv6(FAR, A, 2, unique(1))), Drop(IcmpFromRouter)),
    ]
}

/// On a gateway leg. The quoted packet has the flow's opposite direction.
#[rustfmt::skip]
pub(crate) fn from_gateway() -> Vec<Case> {
    let quote = |to: [u8; 4]| quoted(OUTSIDE, to);
    let error = |kind: u8, quoted: &[u8]| icmp(&[kind, 1, 0, 0, 0, 0, 0, 0], quoted);
    let (own, others) = (quote(A_OUT.ip), quote(B_OUT.ip));
    let too_big = |mtu: u16, quoted: &[u8]| icmp(&fragmentation_needed(mtu), quoted);
    vec![
        case("a port is unreachable", AS_USUAL, error(3, &own).frame(), Allow),
        case("a source is quenched", AS_USUAL, error(4, &own).frame(), Allow),
        case("a redirect of a flow of one's own", AS_USUAL, error(5, &own).frame(), Drop(IcmpFromRouter)),
        case("a redirect, of one who forwards", FORWARDS, error(5, &own).frame(), Drop(IcmpFromRouter)),
        case("a packet was too big", AS_USUAL, too_big(1400, &own).frame(), Drop(IcmpFromRouter)),
        case("a packet was too big, for nobody", AS_USUAL, too_big(552, &own).frame(), Drop(IcmpFromRouter)),
        case("a packet was too big, for any way", AS_USUAL, too_big(u16::MAX, &own).frame(), Drop(IcmpFromRouter)),
        case("a packet was too big, behind options", AS_USUAL, Outward { options: vec![1; 40], ..too_big(1400, &own) }.frame(), Drop(IcmpFromRouter)),
        case("a packet was too big, of one who forwards", FORWARDS, too_big(1400, &own).frame(), Allow),
        case("a packet was too big for the least that each way carries", FORWARDS, too_big(1280, &own).frame(), Allow),
        case("a packet was too big for less", FORWARDS, too_big(1279, &own).frame(), Drop(IcmpFromRouter)),
        case("a packet was too big, by a word without a size", FORWARDS, too_big(0, &own).frame(), Drop(IcmpFromRouter)),
        case("a neighbour's packet was too big, of one who forwards", FORWARDS, too_big(1400, &others).frame(), Drop(IcmpAboutOthers)),
        case("a time is exceeded", AS_USUAL, error(11, &own).frame(), Allow),
        case("a parameter is wrong", AS_USUAL, error(12, &own).frame(), Allow),
        case("a port is unreachable, to the gateway", AS_USUAL, Outward { to: GATEWAY.ip, ..error(3, &own) }.frame(), Allow),
        case("a neighbour's port is unreachable", AS_USUAL, error(3, &others).frame(), Drop(IcmpAboutOthers)),
        case("a neighbour's port is unreachable, to the node", AS_USUAL, Outward { to: OWN_VTEP, ..error(3, &others) }.frame(), Drop(IcmpAboutOthers)),
        case("a neighbour's port is unreachable, behind options", AS_USUAL, Outward { options: vec![1; 40], ..error(3, &others) }.frame(), Drop(IcmpAboutOthers)),
        case("a neighbour's port is unreachable, in a first fragment", AS_USUAL, Outward { more_fragments: true, ..error(3, &others) }.frame(), Drop(IcmpAboutOthers)),
        case("a neighbour's masqueraded flow", AS_USUAL, error(3, &quote(OUTSIDE)).frame(), Drop(IcmpAboutOthers)),
        case("a node's flow", AS_USUAL, error(3, &quote(OWN_VTEP)).frame(), Drop(IcmpAboutOthers)),
        case("a neighbour's source is quenched", AS_USUAL, error(4, &others).frame(), Drop(IcmpAboutOthers)),
        case("a neighbour is redirected", AS_USUAL, error(5, &others).frame(), Drop(IcmpAboutOthers)),
        case("a neighbour's time is exceeded", AS_USUAL, error(11, &others).frame(), Drop(IcmpAboutOthers)),
        case("a neighbour's parameter is wrong", AS_USUAL, error(12, &others).frame(), Drop(IcmpAboutOthers)),
        case("an error about a header and no more", AS_USUAL, error(3, &own[..20]).frame(), Allow),
        case("an error about less than a header", AS_USUAL, error(3, &own[..19]).frame(), Drop(Malformed)),
        case("an error about nothing", AS_USUAL, error(3, &[]).frame(), Drop(Malformed)),
        case("an error of a byte", AS_USUAL, Outward { payload: vec![3], ..error(3, &own) }.frame(), Drop(Malformed)),
        case("an error in a first fragment, its quote in the next", AS_USUAL, Outward { more_fragments: true, ..error(3, &own[..16]) }.frame(), Drop(Malformed)),
        // A later fragment is useless without its first one.
        case("an error's later fragment", AS_USUAL, Outward { fragment_offset: 1, payload: others.clone(), ..error(3, &[]) }.frame(), Allow),
        case("an echo request", AS_USUAL, error(8, &others).frame(), Allow),
        case("an echo reply", AS_USUAL, error(0, &others).frame(), Allow),
        case("a timestamp request", AS_USUAL, error(13, &others).frame(), Allow),
    ]
}
