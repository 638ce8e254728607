//! Packets of IPv4, IPv6 and ARP, right and wrong ones.

use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    l4::{ipv4_payload, ipv6_payload, some_bytes},
    mostly, nearly_always,
};
use crate::world::{A, B, B_OUT, FAR, Station};

/// An ethertype, and a packet.
pub(super) type Body = (u16, Vec<u8>);

/// The contents of a frame from `from` to `to`. Most fields are right, and the others are nearly right.
pub(super) fn body(from: Station, to: Station) -> BoxedStrategy<Body> {
    let ethertypes = vec![0x0026u16, 0x05ff, 0x0600, 0x8035, 0x8847, 0x88b5, 0x9100];
    prop_oneof![
        6 => ipv4(addresses(from.ip, to.ip)).prop_map(|packet| (0x0800, packet)),
        4 => ipv6().prop_map(|packet| (0x86dd, packet)),
        2 => arp(from, to.ip).prop_map(|packet| (0x0806, packet)),
        1 => (select(ethertypes), some_bytes()),
        // An ethertype whose packet does not follow.
        1 => (select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100]), some_bytes()),
    ]
    .boxed()
}

fn addresses(from: [u8; 4], to: [u8; 4]) -> BoxedStrategy<([u8; 4], [u8; 4])> {
    let others = vec![A.ip, B.ip, FAR.ip, B_OUT.ip, [0; 4], [255; 4], [224, 0, 0, 251]];
    (mostly(from, others.clone()), mostly(to, others)).boxed()
}

/// The differences from the plainest IPv4 header.
#[derive(Clone, Debug)]
struct Ipv4 {
    tos: u8,
    /// Flags and fragment offset.
    fragment: u16,
    options: Vec<u8>,
    /// The number that is added to the right length.
    length_lie: u16,
    first: u8,
    checksum_lie: u16,
}

/// An IPv4 packet between these addresses.
pub(super) fn ipv4(
    addresses: impl Strategy<Value = ([u8; 4], [u8; 4])> + 'static,
) -> BoxedStrategy<Vec<u8>> {
    (ipv4_header(), addresses, ipv4_payload())
        .prop_map(|(header, (from, to), (protocol, payload))| {
            let words = 5 + header.options.len() / 4;
            let total = (words * 4 + payload.len()) as u16;
            let mut ip = vec![0x40 | words as u8, header.tos];
            ip[0] ^= header.first;
            let length = total.wrapping_add(header.length_lie);
            ip.extend([length, 0x4242, header.fragment].map(u16::to_be_bytes).concat());
            ip.extend([64, protocol, 0, 0]);
            ip.extend([&from[..], &to, &header.options].concat());
            let sum = checksum(&ip).wrapping_add(header.checksum_lie);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            [ip, payload].concat()
        })
        .boxed()
}

fn ipv4_header() -> BoxedStrategy<Ipv4> {
    let tos = prop_oneof![2 => Just(0), 1 => any::<u8>()];
    let fragment = mostly(0x4000, vec![0u16, 0x2000, 0x2001, 0x6000, 1, 3, 0x1fff, 0x8000]);
    let route = |kind| [&[kind, 7, 4], &B_OUT.ip[..], &[0]].concat();
    let options = mostly(
        Vec::new(),
        vec![
            vec![1; 4],
            vec![1; 40],
            vec![7, 7, 4, 0, 0, 0, 0, 0],
            route(131),
            route(137),
            [vec![1; 8], route(131)].concat(),
            [vec![0; 4], route(137)].concat(),
            vec![7, 200, 4, 0],
            vec![7, 0, 4, 0],
            vec![1, 1, 1, 7],
        ],
    );
    let length_lie = nearly_always(0u16, vec![1, 4, 100, 0xffff, 0xffe0]);
    let first = nearly_always(0u8, vec![1, 5, 0x20, 0x0f]);
    (tos, fragment, options, length_lie, first, nearly_always(0u16, vec![1]))
        .prop_map(|(tos, fragment, options, length_lie, first, checksum_lie)| Ipv4 {
            tos,
            fragment,
            options,
            length_lie,
            first,
            checksum_lie,
        })
        .boxed()
}

fn ipv6() -> BoxedStrategy<Vec<u8>> {
    let address = || {
        let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0xa];
        let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let unique = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 172, 16, 16, 129];
        select(vec![link_local, all_nodes, unique, [0; 16]])
    };
    let extensions = prop_oneof![2 => Just(Vec::new()), 1 => vec(extension(), 1..4)];
    let class = prop_oneof![2 => Just(0), 1 => any::<u8>()];
    // `None` stands for a length of 0, as before a jumbo option.
    let length_lie = mostly(Some(0u16), vec![Some(1), Some(0xfff0), None, None]);
    let version = nearly_always(6u32, vec![4, 0, 15]);
    let hops = prop_oneof![3 => Just(64u8), 1 => Just(255)];
    let start = (version, class, any::<u32>(), length_lie, hops);
    (start, address(), address(), extensions, ipv6_payload())
        .prop_map(
            |(
                (version, class, label, length_lie, hops),
                from,
                to,
                extensions,
                (protocol, payload),
            )| {
                // The headers are built from the last one to the first one, because each names the header
                // behind it.
                let (mut next, mut rest) = (protocol, payload);
                for Extension { kind, mut bytes } in extensions.into_iter().rev() {
                    bytes[0] = next;
                    next = kind;
                    rest = [bytes, rest].concat();
                }
                let word = version << 28 | u32::from(class) << 20 | label & 0xf_ffff;
                let length = length_lie.map_or(0, |lie| (rest.len() as u16).wrapping_add(lie));
                let length = length.to_be_bytes();
                let start = [&word.to_be_bytes()[..], &length, &[next, hops], &from, &to].concat();
                [start, rest].concat()
            },
        )
        .boxed()
}

/// An IPv6 extension header (RFC 8200, section 4). Its first byte is set later.
#[derive(Clone, Debug)]
struct Extension {
    kind: u8,
    bytes: Vec<u8>,
}

fn extension() -> BoxedStrategy<Extension> {
    // Hop-by-hop options, routing, destination options, mobility, and some rare ones.
    let counted =
        (select(vec![0u8, 43, 60, 60, 135, 139, 140, 253]), 0usize..3, mostly(0, vec![1u8, 30]))
            .prop_map(|(kind, words, lie)| {
                let mut bytes = vec![0; 8 + words * 8];
                bytes[1] = words as u8 + lie;
                Extension { kind, bytes }
            });
    let fragment = mostly(0u16, vec![1, 8, 9, 0xfff8, 0xfff9, 2]).prop_map(|offset| {
        let bytes = [&[0, 0], &offset.to_be_bytes()[..], &[0, 0, 0, 1]].concat();
        Extension { kind: 44, bytes }
    });
    // The authentication header, which counts words of four bytes, without the first two (RFC 4302, section
    // 2.2).
    let authentication = (0u8..4).prop_map(|words| {
        let mut bytes = vec![0; 8 + usize::from(words) * 4];
        bytes[1] = words;
        Extension { kind: 51, bytes }
    });
    // The jumbo option (RFC 2675), which a kernel's own super-packets have.
    let jumbo = Just(Extension { kind: 0, bytes: vec![0, 0, 194, 4, 0, 1, 0, 0] });
    prop_oneof![5 => counted, 3 => fragment, 1 => authentication, 1 => jumbo].boxed()
}

/// An ARP packet in which `from` asks for `to`, answers, or sends something similar.
pub(super) fn arp(from: Station, to: [u8; 4]) -> BoxedStrategy<Vec<u8>> {
    let start = nearly_always(
        [0u8, 1, 8, 0, 6, 4],
        vec![[0, 6, 8, 0, 6, 4], [0, 1, 0x86, 0xdd, 6, 4], [0, 1, 8, 0, 8, 4], [0, 1, 8, 0, 6, 16]],
    );
    let operation = mostly(1u16, vec![2, 2, 3, 0, 0x100]);
    let mac = mostly(from.mac, vec![A.mac, B.mac, FAR.mac]);
    let sender = mostly(from.ip, vec![[0; 4], A.ip, B.ip, FAR.ip]);
    let target = mostly(to, vec![from.ip, A.ip, B.ip, FAR.ip, [0; 4]]);
    let padding = select(vec![0usize, 18]);
    (start, operation, mac, sender, target, padding)
        .prop_map(|(start, operation, mac, sender, target, padding)| {
            let operation = operation.to_be_bytes();
            let padding = vec![0x77; padding];
            [&start[..], &operation, &mac, &sender, &B.mac, &target, &padding].concat()
        })
        .boxed()
}

/// The internet checksum (RFC 1071).
pub(super) fn checksum(header: &[u8]) -> u16 {
    let words =
        header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
