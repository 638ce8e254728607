//! Ethernet frames: from an endpoint, from an endpoint's gateway leg, and from the underlay.

use etherparse::IpNumber;
use overlay_common::VXLAN_PORT;
use proptest::{prelude::*, sample::select, strategy::Union};

use super::{
    l3::{arp, body, checksum, ipv4},
    l4::some_bytes,
    mostly,
    mutations::mutated,
    nearly_always,
};
use crate::{
    packets::{BROADCAST, GROUP, Vxlan, far_to_a},
    world::{
        A, A_OUT, B, B_OUT, FAR, FAR_VTEP, GATEWAY, IDLE_VTEP, OTHER_VNI, OUTSIDE, OWN_VTEP,
        ROUTER_MAC, STRANGE_VTEP, STRANGER, Station, UNDERLAY_MAC, VNI,
    },
};

/// Frames that `own` might send on its network, some of them cut or spoiled.
pub(super) fn from_endpoint(own: Station) -> BoxedStrategy<Vec<u8>> {
    mutated(frame(own, vec![B, FAR, B, FAR, A])).boxed()
}

/// A frame from `own` to one of `others`, or to a group.
fn frame(own: Station, others: Vec<Station>) -> BoxedStrategy<Vec<u8>> {
    let of_one = |to: Station| {
        let group = vec![BROADCAST, GROUP, [0x33, 0x33, 0, 0, 0, 1], STRANGER.mac, [0; 6]];
        let to_mac = mostly(to.mac, group);
        let from_mac = mostly(own.mac, vec![A.mac, B.mac, FAR.mac, STRANGER.mac, GROUP, [0; 6]]);
        (to_mac, from_mac, tags(), body(own, to))
    };
    let others = others.into_iter().chain([STRANGER]);
    Union::new(others.map(of_one))
        .prop_map(|(to, from, tags, (ethertype, body))| {
            [&to[..], &from, &tags, &ethertype.to_be_bytes(), &body].concat()
        })
        .boxed()
}

/// VLAN tags, most often none, otherwise up to three, with the VIDs that have a meaning.
fn tags() -> BoxedStrategy<Vec<u8>> {
    let tpid = select(vec![0x8100u16, 0x8100, 0x88a8, 0x9100]);
    let control = select(vec![7u16, 0, 0xe000, 0x1000, 0xefff, 1, 0x0fff]);
    let tag = (tpid, control)
        .prop_map(|(tpid, control)| [tpid.to_be_bytes(), control.to_be_bytes()].concat());
    let tags = proptest::collection::vec(tag, 1..4).prop_map(|tags| tags.concat());
    prop_oneof![5 => Just(Vec::new()), 1 => tags].boxed()
}

/// Packets that may come from the underlay: VXLAN that is right in most respects, messages of routers about
/// VXLAN, and packets that are not for the overlay.
pub(super) fn from_underlay() -> BoxedStrategy<Vec<u8>> {
    let inner = mutated(frame(FAR, vec![A, B, A, B, FAR]));
    let vxlan =
        (outer(), lies(), inner).prop_map(|(outer, lies, inner)| lies.told(outer.around(&inner)));
    let tags = prop_oneof![19 => Just(Vec::new()), 1 => tags()];
    let tagged = (vxlan, tags).prop_map(|(mut packet, tags)| {
        packet.splice(12..12, tags);
        packet
    });
    mutated(prop_oneof![8 => tagged, 1 => too_big(), 1 => frame(ROUTER, vec![NODE])]).boxed()
}

/// VXLAN from senders that are no nodes, as often as from a node.
pub(super) fn from_strangers() -> BoxedStrategy<Vec<u8>> {
    let from = select(vec![STRANGE_VTEP, OWN_VTEP, FAR_VTEP, IDLE_VTEP]);
    let forged =
        (outer(), from).prop_map(|(outer, from)| Vxlan { from, ..outer }.around(&far_to_a()));
    mutated(forged).boxed()
}

/// A router's message that a packet from this node to a VTEP was too big (RFC 792, RFC 1191).
fn too_big() -> BoxedStrategy<Vec<u8>> {
    let kind = mostly([3u8, 4], vec![[3, 3], [11, 0], [8, 0], [5, 1]]);
    let mtu = select(vec![0u16, 68, 552, 1000, 1329, 1330, 1331, 1400, 1400, 1499, 1500, 9000]);
    let source_port = mostly(50_000u16, vec![49_151, 49_152, 65_535, 9]);
    let len = mostly(1500u16, vec![0, 552, 1330, 1400, 1401, 9001]);
    let from = mostly(OWN_VTEP, vec![FAR_VTEP, STRANGE_VTEP]);
    let vtep = prop_oneof![4 => Just(FAR_VTEP), 2 => Just(IDLE_VTEP), 1 => Just(STRANGE_VTEP)];
    let port = mostly(VXLAN_PORT, vec![8472, 53]);
    let protocol = mostly(17u8, vec![6, 1]);
    ((kind, mtu, from, vtep), (source_port, port, protocol, len))
        .prop_map(|((kind, mtu, from, vtep), (source_port, port, protocol, len))| {
            let ip = |protocol: u8, from: [u8; 4], to: [u8; 4], total: u16, payload: &[u8]| {
                let total = total.to_be_bytes();
                let start = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 60, protocol, 0, 0];
                let mut header = [&start[..], &from, &to].concat();
                let sum = checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                [&header, payload].concat()
            };
            let udp = [source_port, port, 1480, 0].map(u16::to_be_bytes).concat();
            let quoted = ip(protocol, from, vtep, len, &udp);
            let icmp = [&kind[..], &[0, 0, 0, 0], &mtu.to_be_bytes(), &quoted].concat();
            let packet = ip(1, [10, 10, 10, 1], OWN_VTEP, 20 + icmp.len() as u16, &icmp);
            [&UNDERLAY_MAC[..], &ROUTER_MAC, &[8, 0], &packet].concat()
        })
        .boxed()
}

/// Sender and receiver of packets that are not VXLAN.
const ROUTER: Station = Station { mac: ROUTER_MAC, ip: FAR_VTEP };
const NODE: Station = Station { mac: UNDERLAY_MAC, ip: OWN_VTEP };

/// Outer headers in which each field is nearly always right.
fn outer() -> BoxedStrategy<Vxlan> {
    let to_mac = nearly_always(UNDERLAY_MAC, vec![BROADCAST, GROUP, STRANGER.mac, ROUTER_MAC]);
    let from = prop_oneof![
        16 => Just(FAR_VTEP),
        3 => Just(IDLE_VTEP),
        1 => select(vec![OWN_VTEP, STRANGE_VTEP, [0; 4], FAR.ip]),
    ];
    let to = nearly_always(OWN_VTEP, vec![IDLE_VTEP, FAR_VTEP, [255; 4]]);
    let tos = prop_oneof![1 => Just(0u8), 1 => 0u8..4, 1 => any::<u8>()];
    let protocol = nearly_always(IpNumber::UDP, vec![IpNumber::TCP, IpNumber(136)]);
    let ports =
        (nearly_always(50_000, vec![VXLAN_PORT]), nearly_always(VXLAN_PORT, vec![8472, 53]));
    let options = nearly_always(Vec::new(), vec![vec![1; 4], vec![1; 40], vec![131, 3, 4, 0]]);
    let fragment =
        nearly_always((false, 0u16), vec![(true, 0), (true, 185), (false, 185), (false, 1)]);
    let vxlan = (
        nearly_always(8u8, vec![0, 0xff, 0x88, 0xf7, 0x0c]),
        nearly_always(0u8, vec![0xff]),
        prop_oneof![16 => Just(VNI), 3 => Just(OTHER_VNI), 1 => select(vec![0, 0xff_ffff])],
    );
    ((to_mac, from, to, tos), (protocol, ports, options, fragment), vxlan)
        .prop_map(|((to_mac, from, to, tos), (protocol, ports, options, fragment), vxlan)| {
            let (from_port, port) = ports;
            let (more_fragments, fragment_offset) = fragment;
            let (flags, reserved, vni) = vxlan;
            Vxlan {
                to_mac,
                from,
                to,
                tos,
                protocol,
                from_port,
                port,
                options,
                more_fragments,
                fragment_offset,
                flags,
                reserved,
                vni,
            }
        })
        .boxed()
}

/// The errors in outer headers, as differences from the right values.
#[derive(Clone, Debug)]
struct Lies {
    total_len: u16,
    udp_len: u16,
    checksum: u16,
    first: u8,
}

fn lies() -> BoxedStrategy<Lies> {
    let len = || nearly_always(0u16, vec![1, 0xffff, 100]);
    (len(), len(), nearly_always(0u16, vec![1]), nearly_always(0u8, vec![0x20, 1, 5, 0x0f]))
        .prop_map(|(total_len, udp_len, checksum, first)| Lies {
            total_len,
            udp_len,
            checksum,
            first,
        })
        .boxed()
}

impl Lies {
    fn told(&self, mut packet: Vec<u8>) -> Vec<u8> {
        let mut add = |at: usize, lie: u16| {
            if let Some([a, b]) = packet.get(at..at + 2).map(|word| [word[0], word[1]]) {
                let word = u16::from_be_bytes([a, b]).wrapping_add(lie).to_be_bytes();
                packet[at..at + 2].copy_from_slice(&word);
            }
        };
        add(16, self.total_len);
        add(38, self.udp_len);
        add(24, self.checksum);
        packet[14] ^= self.first;
        packet
    }
}

/// A text in every payload of [`from_gateway`], by which A's bytes are recognised anywhere.
pub(crate) const MARK: &[u8] = b"A sent this";

/// Frames that A might send on its gateway leg.
pub(crate) fn from_gateway() -> BoxedStrategy<Vec<u8>> {
    let body = prop_oneof![
        6 => ipv4(outward()).prop_map(|packet| (0x0800u16, packet)),
        3 => arp(A_OUT, GATEWAY.ip).prop_map(|packet| (0x0806, packet)),
        1 => body(A_OUT, GATEWAY),
        1 => (select(vec![0x0026u16, 0x86dd, 0x8035, 0x8847, 0x88b5]), some_bytes()),
    ];
    let to = mostly(
        GATEWAY.mac,
        vec![B_OUT.mac, B.mac, STRANGER.mac, A_OUT.mac, BROADCAST, GROUP, [0; 6]],
    );
    let from = mostly(A_OUT.mac, vec![B_OUT.mac, A.mac, GATEWAY.mac, STRANGER.mac, GROUP]);
    let tags = prop_oneof![9 => Just(Vec::new()), 1 => tags()];
    let frame = (to, from, tags, body).prop_map(|(to, from, tags, (ethertype, body))| {
        [&to[..], &from, &tags, &ethertype.to_be_bytes(), &body, MARK].concat()
    });
    mutated(frame).boxed()
}

fn outward() -> BoxedStrategy<([u8; 4], [u8; 4])> {
    let from = mostly(A_OUT.ip, vec![B_OUT.ip, GATEWAY.ip, A.ip, [0; 4], [127, 0, 0, 1]]);
    let to = prop_oneof![
        4 => select(vec![GATEWAY.ip, OUTSIDE, OWN_VTEP, FAR_VTEP]),
        2 => select(vec![
            B_OUT.ip, A_OUT.ip, [172, 18, 255, 255], [172, 18, 0, 0], [172, 18, 9, 9],
            [255; 4], [0; 4], [0, 0, 0, 1], [224, 0, 0, 1], [239, 1, 2, 3], [127, 0, 0, 1],
            [127, 0, 0, 11], [169, 254, 1, 1], [10, 10, 10, 255], [240, 0, 0, 1], B.ip,
        ]),
    ];
    (from, to).boxed()
}
