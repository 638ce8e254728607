//! The payloads of IP packets.

use overlay_common::VXLAN_PORT;
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    outward::{ACK, SYN},
    packets::{address_of, far_to_a, unique, vxlan},
    world::{A, A_OUT, API_PORT, B, B_OUT, FAR, GATEWAY, OUTSIDE, OWN_VTEP, STRANGER},
};

/// Ports that have a meaning for a program, and some that have none.
fn port() -> BoxedStrategy<u16> {
    select(vec![VXLAN_PORT, 8472, API_PORT, 53, 67, 68, 546, 547, 80, 40_000, 40_001, 50_000])
        .boxed()
}

/// The number of a protocol, and a payload of it over IPv4.
pub(super) fn ipv4_payload() -> BoxedStrategy<(u8, Vec<u8>)> {
    prop_oneof![
        4 => udp().prop_map(|bytes| (17, bytes)),
        4 => tcp().prop_map(|bytes| (6, bytes)),
        1 => icmp(select(vec![0u8, 3, 5, 8, 11, 12])).prop_map(|bytes| (1, bytes)),
        2 => icmp_about().prop_map(|bytes| (1, bytes)),
        // VXLAN that an endpoint makes itself, in UDP and in IP.
        1 => Just((17, vxlan(&far_to_a())[34..].to_vec())),
        1 => Just((4, vxlan(&far_to_a())[14..].to_vec())),
        2 => (select(vec![0u8, 2, 4, 41, 47, 50, 58, 132, 255]), some_bytes()),
    ]
    .boxed()
}

/// The number of a protocol, and a payload of it over IPv6.
pub(super) fn ipv6_payload() -> BoxedStrategy<(u8, Vec<u8>)> {
    let kinds = vec![1u8, 2, 128, 129, 130, 133, 134, 134, 135, 136, 137, 137, 143, 255];
    prop_oneof![
        4 => icmp(select(kinds)).prop_map(|bytes| (58, bytes)),
        3 => udp().prop_map(|bytes| (17, bytes)),
        2 => tcp().prop_map(|bytes| (6, bytes)),
        2 => neighbour().prop_map(|bytes| (58, bytes)),
        1 => icmpv6_about().prop_map(|bytes| (58, bytes)),
        1 => (select(vec![59u8, 4, 41, 47, 50, 132, 255]), some_bytes()),
    ]
    .boxed()
}

/// A message of neighbour discovery about one of a few addresses (RFC 4861, section 4), which is seldom too short.
fn neighbour() -> BoxedStrategy<Vec<u8>> {
    let len = prop_oneof![9 => Just(24usize), 1 => 0usize..40];
    (select(vec![133u8, 135, 135, 136, 136]), target(), len)
        .prop_map(|(kind, target, len)| {
            let mut message = [&[kind, 0, 0, 0, 0x20, 0, 0, 0], &target[..]].concat();
            message.resize(len, 0);
            message
        })
        .boxed()
}

/// An IPv6 address that an endpoint may speak for.
fn target() -> BoxedStrategy<[u8; 16]> {
    let targets = [A.mac, B.mac, FAR.mac, STRANGER.mac].map(address_of).into_iter();
    select(targets.chain([1, 2].map(unique)).chain([[0; 16]]).collect::<Vec<_>>()).boxed()
}

/// An ICMPv6 error about a packet to one of these addresses (RFC 4443), which is seldom too short.
fn icmpv6_about() -> BoxedStrategy<Vec<u8>> {
    let len = prop_oneof![9 => Just(56usize), 1 => 0usize..64];
    (select(vec![1u8, 1, 2, 3, 4, 100]), target(), len)
        .prop_map(|(kind, target, len)| {
            let start = [0x60, 0, 0, 0, 0, 8, 17, 64];
            let mut message =
                [&[kind, 0, 0, 0, 0, 0, 5, 0][..], &start, &unique(1), &target].concat();
            message.resize(len, 0);
            message
        })
        .boxed()
}

fn udp() -> BoxedStrategy<Vec<u8>> {
    let len_lie = prop_oneof![9 => Just(0), 1 => any::<u16>()];
    (port(), port(), some_bytes(), len_lie)
        .prop_map(|(from, to, data, lie)| {
            let len = (8 + data.len() as u16).wrapping_add(lie);
            let words = [from, to, len, 0].map(u16::to_be_bytes);
            let words = words.map(|[a, b]| [a, b]).concat();
            [words, data].concat()
        })
        .boxed()
}

fn tcp() -> BoxedStrategy<Vec<u8>> {
    let flags = prop_oneof![4 => select(vec![SYN, ACK, SYN | ACK, ACK | 8, 0]), 1 => any::<u8>()];
    (port(), port(), flags, some_bytes())
        .prop_map(|(from, to, flags, data)| {
            let ports = [from, to].map(u16::to_be_bytes).concat();
            let rest = [0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
            [&ports[..], &rest, &data].concat()
        })
        .boxed()
}

fn icmp(kind: impl Strategy<Value = u8> + 'static) -> BoxedStrategy<Vec<u8>> {
    (kind, 0u8..6, some_bytes())
        .prop_map(|(kind, code, data)| [&[kind, code, 0, 0, 0, 0, 5, 0xdc], &data[..]].concat())
        .boxed()
}

/// An ICMP error about a packet to somebody (RFC 792).
fn icmp_about() -> BoxedStrategy<Vec<u8>> {
    let kind = select(vec![3u8, 3, 4, 5, 11, 12, 13]);
    let on_leg = vec![A_OUT.ip, A_OUT.ip, B_OUT.ip, GATEWAY.ip, OWN_VTEP, OUTSIDE];
    let to = prop_oneof![select(on_leg), select(vec![A.ip, A.ip, B.ip, FAR.ip, FAR.ip])];
    let code = prop_oneof![0u8..6, Just(4)];
    let mtu = select(vec![0u16, 552, 1279, 1280, 1400, u16::MAX]);
    (kind, code, mtu, to, some_bytes())
        .prop_map(|(kind, code, mtu, to, data)| {
            let header = [0x45, 0, 0, 84, 0, 0, 0x40, 0, 63, 17, 0, 0];
            let start = [&[kind, code, 0, 0, 0, 0][..], &mtu.to_be_bytes()].concat();
            [&start[..], &header, &OUTSIDE, &to, &data].concat()
        })
        .boxed()
}

/// A few bytes, sometimes enough to fill a packet, and seldom more.
pub(super) fn some_bytes() -> BoxedStrategy<Vec<u8>> {
    let long = prop_oneof![8 => Just(0), 1 => 0usize..1500, 1 => 0usize..3000];
    (vec(any::<u8>(), 0..24), long)
        .prop_map(|(mut bytes, long)| {
            bytes.resize(bytes.len().max(long), 0x5a);
            bytes
        })
        .boxed()
}
