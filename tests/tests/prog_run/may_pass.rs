//! What may pass on a gateway leg, by a reading of the frame that is not the program's own; and frames
//! that come near it.

use overlay_common::VXLAN_PORT;
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    mutation::mutations,
    outward::{ACK, SYN},
    packets::{BROADCAST, GROUP, tagged},
    world::{A, A_OUT, API_PORT, B, B_OUT, FAR_VTEP, GATEWAY, OUTSIDE, OWN_VTEP, STRANGER},
};

/// What should become of a frame of A's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes up to the gateway.
    Up,
    /// A has an answer.
    Answered,
    /// It ends.
    Nothing,
}

/// The fate of `frame` as A sends it by its leg.
pub(crate) fn fate(frame: &[u8]) -> Fate {
    fate_if_whole(frame).unwrap_or(Fate::Nothing)
}

/// None where something is missing of it.
fn fate_if_whole(frame: &[u8]) -> Option<Fate> {
    let to_gateway = frame.get(..6)? == GATEWAY.mac;
    if frame.get(6..12)? != A_OUT.mac {
        return None;
    }
    let body = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            let arp = body.get(..28)?;
            if arp[..6] != [0, 1, 8, 0, 6, 4] || arp[8..14] != A_OUT.mac {
                return None;
            }
            let own = arp[14..18] == A_OUT.ip;
            let for_gateway = arp[24..28] == GATEWAY.ip;
            match (&arp[6..8], for_gateway) {
                ([0, 1], true) if own || arp[14..18] == [0; 4] => Some(Fate::Answered),
                ([0, 2], true) if own && to_gateway => Some(Fate::Up),
                _ => None,
            }
        }
        [0x08, 0x00] if to_gateway => may_pass_ipv4(body).then_some(Fate::Up),
        _ => None,
    }
}

fn may_pass_ipv4(ip: &[u8]) -> bool {
    let Some((&first, _)) = ip.split_first() else { return false };
    let header = usize::from(first % 16) * 4;
    if first / 16 != 4 || header < 20 || ip.len() < header {
        return false;
    }
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let Some(payload) = ip.get(header..total) else { return false };
    let to: [u8; 4] = ip[16..20].try_into().expect("four");
    ip[12..16] == A_OUT.ip
        && may_be_destination(to)
        && has_no_source_route(&ip[20..header])
        && may_be_payload(to, ip[9], u16::from_be_bytes([ip[6], ip[7]]), payload)
}

fn may_be_destination(to: [u8; 4]) -> bool {
    let in_subnet = to[..2] == GATEWAY.ip[..2];
    to == GATEWAY.ip
        || !in_subnet && !matches!(to, [0 | 127, ..] | [255, 255, 255, 255]) && to[0] & 0xf0 != 0xe0
}

fn has_no_source_route(mut options: &[u8]) -> bool {
    loop {
        options = match options {
            [] | [0, ..] => return true,
            [1, rest @ ..] => rest,
            [131 | 137, ..] | [_] => return false,
            [_, len, ..] => match options.get(usize::from(*len)..) {
                Some(rest) if *len >= 2 => rest,
                _ => return false,
            },
        };
    }
}

fn may_be_payload(to: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> bool {
    let is_later = fragment & 0x1fff != 0;
    let more_follow = fragment & 0x2000 != 0;
    if is_later || !matches!(protocol, 6 | 17) {
        return true;
    }
    let Some(ports) = payload.get(..4) else { return false };
    let port = u16::from_be_bytes([ports[2], ports[3]]);
    if protocol == 17 {
        return port != VXLAN_PORT;
    }
    let to_api = port == API_PORT && (to == OWN_VTEP || to == FAR_VTEP);
    let opens_nothing = payload.get(13).is_some_and(|flags| flags & (SYN | ACK) != SYN);
    !to_api || opens_nothing && !more_follow
}

/// In every payload, so that a byte of A's is known wherever it turns up.
pub(crate) const MARK: &[u8] = b"A sent this";

/// Frames of which most fields are A's own or a near miss, some spoiled thereafter.
pub(crate) fn frames() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        6 => ipv4().prop_map(|packet| (0x0800u16, packet)),
        3 => arp().prop_map(|packet| (0x0806, packet)),
        1 => vec(any::<u8>(), 0..80).prop_map(|bytes| (0x86dd, [&[0x60], &bytes[..], MARK].concat())),
        1 => (select(vec![0x0026u16, 0x0800, 0x0806, 0x8035, 0x8100, 0x8847, 0x88a8, 0x88b5, 0x9100]), vec(any::<u8>(), 0..80))
            .prop_map(|(ethertype, bytes)| (ethertype, [&bytes[..], MARK].concat())),
    ];
    let to = mostly(
        GATEWAY.mac,
        vec![B_OUT.mac, B.mac, STRANGER.mac, A_OUT.mac, BROADCAST, GROUP, [0; 6]],
    );
    let from = mostly(A_OUT.mac, vec![B_OUT.mac, A.mac, GATEWAY.mac, STRANGER.mac, GROUP]);
    let frame = (to, from, body).prop_map(|(to, from, (ethertype, body))| {
        [&to[..], &from, &ethertype.to_be_bytes(), &body].concat()
    });
    let tag = proptest::option::weighted(0.1, select(vec![0x8100u16, 0x88a8, 0x9100]));
    let padding = select(vec![0usize, 0, 0, 18]);
    let whole = (frame, tag, padding).prop_map(|(frame, tag, padding)| {
        let frame = tag.map_or(frame.clone(), |tpid| tagged(&frame, tpid));
        [frame, vec![0; padding]].concat()
    });
    let spoiled = prop_oneof![2 => Just(Vec::new()), 1 => mutations()];
    (whole, spoiled).prop_map(|(mut frame, mutations)| {
        for mutation in mutations {
            mutation.apply(&mut frame);
        }
        frame
    })
}

fn mostly<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    others: Vec<T>,
) -> impl Strategy<Value = T> {
    prop_oneof![4 => Just(usual), 1 => select(others)]
}

fn arp() -> impl Strategy<Value = Vec<u8>> {
    let to = mostly(GATEWAY.ip, vec![B_OUT.ip, A_OUT.ip, OUTSIDE, [0; 4]]);
    let mac = mostly(A_OUT.mac, vec![B_OUT.mac, GATEWAY.mac]);
    let from = mostly(A_OUT.ip, vec![[0; 4], B_OUT.ip, GATEWAY.ip]);
    (select(vec![1u16, 1, 2, 2, 3]), mac, from, to).prop_map(|(operation, mac, from, to)| {
        let start = [0, 1, 8, 0, 6, 4];
        [&start[..], &operation.to_be_bytes(), &mac, &from, &B_OUT.mac, &to, MARK].concat()
    })
}

fn ipv4() -> impl Strategy<Value = Vec<u8>> {
    let from = mostly(A_OUT.ip, vec![B_OUT.ip, GATEWAY.ip, A.ip, [0; 4], [127, 0, 0, 1]]);
    let to = prop_oneof![
        4 => select(vec![GATEWAY.ip, OUTSIDE, OWN_VTEP, FAR_VTEP]),
        2 => select(vec![
            B_OUT.ip, A_OUT.ip, [172, 18, 255, 255], [172, 18, 0, 0], [172, 18, 9, 9],
            [255; 4], [0; 4], [0, 0, 0, 1], [224, 0, 0, 1], [239, 1, 2, 3], [127, 0, 0, 1],
            [127, 0, 0, 11], [169, 254, 1, 1], [10, 10, 10, 255], [240, 0, 0, 1], B.ip,
        ]),
    ];
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
        ],
    );
    let fragment = mostly(0u16, vec![0x4000, 0x2000, 0x2001, 1, 3, 0x1fff, 0x8000]);
    let protocol = select(vec![17u8, 17, 6, 6, 1, 2, 4, 41, 47, 132, 0, 255]);
    let inner = (
        select(vec![VXLAN_PORT, API_PORT, 53, 80]),
        select(vec![SYN, ACK, SYN | ACK, 0]),
        0usize..40,
    );
    (from, to, options, fragment, protocol, inner).prop_map(
        |(from, to, options, fragment, protocol, (port, flags, cut))| {
            let ports = [0x9c40, port].map(u16::to_be_bytes).concat();
            let mut payload = [&ports[..], &[0, 40, 0, 0, 0, 0, 0, 0, 0x50, flags], MARK].concat();
            // Now and then not all of it.
            payload.truncate(if cut < 16 { cut } else { payload.len() });
            let header = 20 + options.len();
            let total = (header + payload.len()) as u16;
            let mut ip = vec![0x40 | (header / 4) as u8, 0];
            ip.extend([total, 0x4242, fragment].map(u16::to_be_bytes).concat());
            ip.extend([64, protocol, 0, 0]);
            ip.extend([&from[..], &to, &options].concat());
            let sum = !checksum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            [ip, payload].concat()
        },
    )
}

/// RFC 1071: a header that a host would not throw away.
fn checksum(header: &[u8]) -> u16 {
    let words =
        header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}
