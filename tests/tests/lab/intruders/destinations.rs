//! Where web1's packets on the leg that leads out may not go, or come from, and what they may not say: a row for each
//! way around.

use anyhow::Result;
use etherparse::IpNumber;

use super::{
    packets::{
        self, VXLAN_PORT, fragment, icmp_error, ipv4, patched, vxlan, vxlan_datagram, with_options,
    },
    scene::{Outward, Scene, party},
    table::{Leg, Table},
};
use crate::frames::{self, MARK, Party};

const API_PORT: u16 = 7400;
const TCP: IpNumber = IpNumber::TCP;
const UDP: IpNumber = IpNumber::UDP;
/// Where fields lie in a frame of IPv4.
const VERSION_AT: usize = 14;
const LENGTH_AT: usize = 16;

/// Addresses that are not web1's or not beyond the gateway, and IPv4 headers that say two things.
pub(super) fn addresses(scene: &Scene, ends: &Outward) -> Result<Table> {
    let Outward { own, neighbour, near, gateway, nodes: [h1, h2, _], stranger } = *ends;
    let mut table = Table::by(Leg::Gateway);
    let on_network = party(&scene.web1)?;
    for ip in [
        neighbour.ip.octets(),
        near.ip.octets(),
        gateway.ip.octets(),
        h1.ip.octets(),
        h2.ip.octets(),
        stranger.ip.octets(),
        on_network.ip.octets(),
        [0; 4],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [255; 4],
    ] {
        let frames =
            [h1, h2, stranger, neighbour, gateway].map(|to| frames::udp(own.with(ip), to, 7));
        table.rows(format!("from {ip:?}"), "spoofed_ip", frames);
        let frames =
            [h1, h2].map(|to| vxlan(own.with(ip), to, scene.other_vni, &frames::udp(own, near, 7)));
        table.rows(format!("VXLAN from {ip:?}"), "spoofed_ip", frames);
    }
    for ip in [
        neighbour.ip.octets(),
        near.ip.octets(),
        own.ip.octets(),
        [172, 18, 0, 0],
        [172, 18, 255, 255],
        [172, 18, 77, 77],
    ] {
        let to = gateway.with(ip);
        let frames =
            [frames::udp(own, to, 7), frames::syn(own, to, 80), frames::udp(own, to, VXLAN_PORT)];
        table.rows(format!("to {ip:?}"), "gateway_neighbour", frames);
    }
    for ip in [[127, 0, 0, 1], [127, 0, 0, 53], [127, 255, 255, 254], [127, 255, 255, 255]] {
        let to = gateway.with(ip);
        let frames = [
            frames::udp(own, to, 53),
            frames::syn(own, to, API_PORT),
            frames::udp(own, to, VXLAN_PORT),
        ];
        table.rows(format!("to {ip:?}"), "loopback_destination", frames);
    }
    for ip in
        [[0; 4], [0, 1, 2, 3], [224, 0, 0, 1], [224, 0, 0, 251], [239, 255, 255, 250], [255; 4]]
    {
        let to = gateway.with(ip);
        let frames = [frames::udp(own, to, 7), frames::udp(own, to, VXLAN_PORT)];
        table.rows(format!("to {ip:?}"), "broadcast_off", frames);
    }

    let good = frames::udp(own, stranger, 7);
    for (name, at, bytes) in [
        ("IPv6's version", VERSION_AT, &[0x65][..]),
        ("version 0", VERSION_AT, &[0x05]),
        ("a header of 16 bytes", VERSION_AT, &[0x44]),
        ("no header", VERSION_AT, &[0x40]),
        ("a header longer than the packet", VERSION_AT, &[0x4f]),
        ("no length", LENGTH_AT, &[0, 0]),
        ("a length within the header", LENGTH_AT, &[0, 19]),
        ("a length of the header alone", LENGTH_AT, &[0, 20]),
        ("a length of half the ports", LENGTH_AT, &[0, 23]),
        ("a length beyond the frame", LENGTH_AT, &[0xff, 0xff]),
    ] {
        table.row(name, "malformed", patched(good.clone(), at, bytes));
    }
    for length in [14, 15, 33, 34, 37] {
        table.row(format!("a frame of {length} bytes"), "malformed", good[..length].to_vec());
    }
    let hops = |option: u8, to: Party| [&[option, 7, 4][..], &to.ip.octets()].concat();
    for to in [neighbour, near, gateway.with([127, 0, 0, 1]), h1] {
        for option in [131, 137] {
            let route = hops(option, to);
            let options = [
                route.clone(),
                [&[1, 1, 1][..], &route].concat(),
                [&[7, 7, 4, 0, 0, 0, 0][..], &route].concat(),
                [&[68, 8, 5, 0, 0, 0, 0, 0][..], &[148, 4, 0, 0], &route].concat(),
                [&[1; 33][..], &route].concat(),
            ];
            let datagram = packets::udp(40_000, 7, MARK.as_bytes());
            let frames =
                options.map(|options| with_options(own, stranger, UDP, &datagram, &options));
            table.rows(format!("source route {option} to {}", to.ip), "source_route", frames);
        }
    }
    for options in
        [&[7, 0, 0, 0][..], &[7, 1, 0, 0], &[7, 9, 4, 0], &[68, 255, 5, 0], &[1, 1, 1, 7]]
    {
        let datagram = packets::udp(40_000, 7, MARK.as_bytes());
        let frame = with_options(own, stranger, UDP, &datagram, options);
        table.row(format!("options {options:?}"), "malformed", frame);
    }
    Ok(table)
}

/// VXLAN, a node's API, and ICMP about what others sent.
pub(super) fn services(scene: &Scene, ends: &Outward) -> Result<Table> {
    let Outward { own, neighbour, near, gateway, nodes, stranger } = *ends;
    let mut table = Table::by(Leg::Gateway);
    let inner = frames::udp(party(&scene.web1)?, party(&scene.far)?, 7);
    let datagram = vxlan_datagram(scene.other_vni, &inner);
    // A second address of a node, and the underlay's broadcast.
    let others =
        [gateway, stranger, gateway.with([10, 10, 10, 111]), gateway.with([10, 10, 10, 255])];
    for node in nodes.into_iter().chain(others) {
        let answer = packets::udp(VXLAN_PORT, 50_000, &datagram[8..]);
        let both = packets::udp(VXLAN_PORT, VXLAN_PORT, &datagram[8..]);
        let frames = [
            ipv4(own, node, UDP, &datagram, |_| {}),
            ipv4(own, node, UDP, &answer, |_| {}),
            ipv4(own, node, UDP, &both, |_| {}),
            with_options(own, node, UDP, &datagram, &[1; 4]),
            with_options(own, node, UDP, &datagram, &[1; 40]),
            fragment(own, node, UDP, &datagram[..8], (0, true)),
            fragment(own, node, UDP, &datagram[..16], (0, true)),
            ipv4(own, node, UDP, &datagram[..4], |_| {}),
            ipv4(own, node, UDP, &datagram, |ip| ip.time_to_live = 1),
            ipv4(own, node, UDP, &datagram, |ip| ip.dont_fragment = true),
        ];
        table.rows(format!("VXLAN to {}", node.ip), "vxlan_from_endpoint", frames);
    }
    for node in nodes {
        let segment = frames::syn(own, node, API_PORT)[34..].to_vec();
        let frames = [
            with_options(own, node, TCP, &segment, &[1; 4]),
            with_options(own, node, TCP, &segment, &[1; 40]),
            fragment(own, node, TCP, &segment[..8], (0, true)),
            fragment(own, node, TCP, &segment, (0, true)),
            ipv4(own, node, TCP, &segment[..4], |_| {}),
        ]
        .into_iter()
        .chain((0..=0xff).map(|flags| frames::tcp(own, node, API_PORT, flags)));
        table.rows(format!("TCP to the API of {}", node.ip), "controller_port", frames);
        let frames = [0, 1, 3].map(|length| ipv4(own, node, TCP, &segment[..length], |_| {}));
        table.rows(format!("TCP without ports to {}", node.ip), "malformed", frames);
        let frames = [0, 1, 3].map(|length| ipv4(own, node, UDP, &datagram[..length], |_| {}));
        table.rows(format!("UDP without ports to {}", node.ip), "malformed", frames);
    }
    // What the neighbour sent and what it was sent, before and after the host gave it another address.
    let sent = packets::udp(6000, 53, b"what was sent");
    let lost = |from: Party, to: Party| ipv4(from, to, UDP, &sent, |_| {});
    let about = [
        lost(neighbour, stranger),
        lost(nodes[0], stranger),
        lost(stranger, neighbour),
        lost(stranger, nodes[0]),
        lost(nodes[1], nodes[0]),
        lost(stranger, near),
        lost(own, stranger),
        lost(gateway, neighbour),
        lost(neighbour, gateway),
    ];
    let kinds = (0..=15).map(|code| (3, code));
    let kinds = kinds.chain((0..=3).map(|code| (5, code))).chain([
        (4, 0),
        (11, 0),
        (11, 1),
        (12, 0),
        (12, 1),
    ]);
    for (kind, code) in kinds {
        let frames = [nodes[0], nodes[1], stranger, gateway]
            .into_iter()
            .flat_map(|to| about.iter().map(move |lost| icmp_error(own, to, kind, code, lost)));
        table.rows(format!("ICMP {kind}/{code}"), "icmp_about_others", frames);
    }
    let whole = icmp_error(own, stranger, 3, 3, &about[0])[34..].to_vec();
    let with = with_options(own, stranger, IpNumber::ICMP, &whole, &[1; 12]);
    table.row("ICMP behind options", "icmp_about_others", with);
    table.row(
        "ICMP in pieces",
        "icmp_about_others",
        fragment(own, stranger, IpNumber::ICMP, &whole[..32], (0, true)),
    );
    let frames =
        [1, 8, 24, 27].map(|length| ipv4(own, stranger, IpNumber::ICMP, &whole[..length], |_| {}));
    table.rows("ICMP cut short", "malformed", frames);
    let frames = [8, 16, 24]
        .map(|length| fragment(own, stranger, IpNumber::ICMP, &whole[..length], (0, true)));
    table.rows("ICMP in small pieces", "malformed", frames);
    Ok(table)
}
