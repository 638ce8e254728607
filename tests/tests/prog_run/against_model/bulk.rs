//! Bulk traffic: super-packets of TCP and UDP, and single packets whose checksums the sender leaves to a
//! device. Only packets from real devices can be of this kind.

use proptest::{collection::vec, prelude::*, sample::select};

use super::{l3::checksum, mostly, nearly_always, search::Packet};
use crate::{
    bench::Skb,
    packets::{BROADCAST, GROUP},
    tap::{Bulk, BulkKind, Unfinished},
    world::{A, B, FAR, PORT_A, PORT_B, STRANGER, Station},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// The largest number of bytes that are sent as datagrams at once.
const LARGE: usize = 60_000;
/// The largest payload in bytes, which every kernel takes from a packet socket.
const JUMBO: usize = 67_000;

/// Bulk traffic of A and of B.
pub(super) fn bulk() -> BoxedStrategy<Packet> {
    prop_oneof![4 => of(A, PORT_A), 1 => of(B, PORT_B)].boxed()
}

/// The fields that differ from packet to packet.
#[derive(Clone, Debug)]
struct Fields {
    to: [u8; 6],
    from: [u8; 6],
    tags: Vec<u8>,
    is_v4: bool,
    is_udp: bool,
    /// Addresses of IPv4, and the last bytes of IPv6 addresses.
    source: [u8; 4],
    target: [u8; 4],
    tos: u8,
    id: u16,
    /// Length of the options, in words of four bytes.
    ip_options: usize,
    tcp_options: usize,
    tcp_flags: u8,
    sequence: u32,
    /// Bytes of payload in a segment, and bytes of the whole payload.
    segment: u16,
    payload: usize,
    /// True if the payload is directly behind the headers, and not in other pages.
    in_one_piece: bool,
}

fn of(own: Station, port: u32) -> BoxedStrategy<Packet> {
    let of_one = move |to: Station| {
        let macs = (
            mostly(to.mac, vec![BROADCAST, GROUP, STRANGER.mac]),
            nearly_always(own.mac, vec![STRANGER.mac, FAR.mac]),
        );
        let addresses = (nearly_always(own.ip, vec![STRANGER.ip]), Just(to.ip));
        (macs, addresses)
    };
    let ends = prop_oneof![5 => of_one(FAR), 2 => of_one(B), 1 => of_one(A)];
    let protocol = (any::<bool>(), prop_oneof![3 => Just(false), 1 => Just(true)]);
    let header = (
        prop_oneof![2 => Just(0u8), 1 => any::<u8>()],
        any::<u16>(),
        nearly_always(0usize, vec![1, 10]),
        prop_oneof![1 => Just(0usize), 2 => Just(3), 1 => 0usize..=10],
        any::<u8>(),
        any::<u32>(),
    );
    (ends, tags(), protocol, header, sizes(), any::<bool>())
        .prop_map(
            move |(((to, from), (source, target)), tags, protocol, header, sizes, in_one_piece)| {
                let (is_v4, is_udp) = protocol;
                let (tos, id, ip_options, tcp_options, tcp_flags, sequence) = header;
                let (segment, payload) = sizes;
                let fields = Fields {
                    to,
                    from,
                    tags,
                    is_v4,
                    is_udp,
                    source,
                    target,
                    tos,
                    id,
                    ip_options,
                    tcp_options,
                    // No kernel makes a super-packet of segments with these flags.
                    tcp_flags: tcp_flags & !(SYN | RST | URG),
                    sequence,
                    segment,
                    payload: if is_udp {
                        payload.min(MOST_DATAGRAMS * usize::from(segment)).min(LARGE)
                    } else {
                        payload
                    },
                    in_one_piece,
                };
                fields.packet(port)
            },
        )
        .boxed()
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const URG: u8 = 0x20;
/// The largest number of datagrams into which a kernel cuts a super-packet (UDP_MAX_SEGMENTS of kernels
/// before 6.9).
const MOST_DATAGRAMS: usize = 64;

/// VLAN tags, most often none, otherwise up to three.
fn tags() -> BoxedStrategy<Vec<u8>> {
    let tag = (select(vec![0x8100u16, 0x88a8]), select(vec![7u16, 0, 0xe007]))
        .prop_map(|(tpid, control)| [tpid.to_be_bytes(), control.to_be_bytes()].concat());
    prop_oneof![5 => Just(Vec::new()), 1 => vec(tag, 1..4).prop_map(|tags| tags.concat())].boxed()
}

/// Bytes of a segment, and of the whole payload: one packet, a few segments, many segments, and more than 64
/// KiB.
fn sizes() -> BoxedStrategy<(u16, usize)> {
    let segment = select(vec![64u16, 536, 1000, 1280, 1350, 1386, 1398, 1410, 1411, 1460]);
    let factor = prop_oneof![
        2 => 0.0f64..1.0,
        5 => 1.1f64..6.0,
        2 => 6.0f64..60.0,
    ];
    let usual = (segment.clone(), factor)
        .prop_map(|(segment, factor)| (segment, (f64::from(segment) * factor) as usize));
    let jumbo = (select(vec![1000u16, 1386]), (0xffffusize - 200)..JUMBO);
    prop_oneof![12 => usual, 1 => jumbo]
        .prop_map(|(segment, payload)| (segment, payload.min(JUMBO)))
        .boxed()
}

impl Fields {
    fn packet(&self, port: u32) -> Packet {
        let l4_header = if self.is_udp { 8 } else { 20 + 4 * self.tcp_options };
        let l4_len = l4_header + self.payload;
        let protocol = if self.is_udp { UDP } else { TCP };
        let (ethertype, ip, pseudo) = match self.is_v4 {
            true => (IPV4, self.ipv4(protocol, l4_len), self.pseudo([&self.source, &self.target])),
            false => {
                let [source, target] = [self.source, self.target].map(unique);
                (
                    IPV6,
                    self.ipv6(protocol, l4_len, &source, &target),
                    self.pseudo([&source, &target]),
                )
            }
        };
        // The sum over the pseudo-header, not inverted, which a sender leaves in the field (RFC 9293, section
        // 3.1).
        let len = (l4_len as u32).to_be_bytes();
        let sum = !checksum(&[&pseudo[..], &len, &[0, protocol]].concat());
        let link = [&self.to[..], &self.from, &self.tags, &ethertype.to_be_bytes()].concat();
        let start = (link.len() + ip.len()) as u16;
        let (l4, offset) =
            if self.is_udp { (self.udp(l4_len, sum), 6) } else { (self.tcp(sum), 16) };
        // Each byte of the payload depends on its position.
        let payload: Vec<u8> = (0..self.payload).map(|at| (at / 7) as u8).collect();
        let headers = if self.in_one_piece { 0 } else { start + l4_header as u16 };
        let kind = match (self.is_udp, self.is_v4) {
            (true, _) => BulkKind::Udp,
            (false, true) => BulkKind::TcpV4,
            (false, false) => BulkKind::TcpV6,
        };
        let is_bulk = self.payload > usize::from(self.segment);
        let bulk = is_bulk.then_some(Bulk { kind, segment: self.segment, headers });
        let gso_size = if is_bulk { self.segment.into() } else { 0 };
        Packet {
            skb: Skb { ifindex: port, gso_size },
            bytes: [link, ip, l4, payload].concat(),
            unfinished: Some(Unfinished { start, offset }),
            bulk,
        }
    }

    fn ipv4(&self, protocol: u8, l4_len: usize) -> Vec<u8> {
        let words = 5 + self.ip_options;
        // The field of a super-packet that is too long for it is 0 until the packet is cut.
        let total = u16::try_from(words * 4 + l4_len).unwrap_or(0);
        let mut ip = vec![0x40 | words as u8, self.tos];
        ip.extend([total, self.id, 0x4000].map(u16::to_be_bytes).concat());
        ip.extend([64, protocol, 0, 0]);
        ip.extend([self.source, self.target].concat());
        ip.resize(words * 4, 1);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip
    }

    fn ipv6(&self, protocol: u8, l4_len: usize, source: &[u8; 16], target: &[u8; 16]) -> Vec<u8> {
        let word = 6u32 << 28 | u32::from(self.tos) << 20 | u32::from(self.id);
        // The length is 0 as in IPv4. No jumbo option is added, because even a kernel that knows it removes
        // it from packets of a packet socket.
        let length = u16::try_from(l4_len).unwrap_or(0);
        let start = [&word.to_be_bytes()[..], &length.to_be_bytes(), &[protocol, 64]].concat();
        [start, source.to_vec(), target.to_vec()].concat()
    }

    fn pseudo<const N: usize>(&self, [source, target]: [&[u8; N]; 2]) -> Vec<u8> {
        [&source[..], &target[..]].concat()
    }

    fn udp(&self, l4_len: usize, sum: u16) -> Vec<u8> {
        [40_000, 5001, l4_len as u16, sum].map(u16::to_be_bytes).concat()
    }

    fn tcp(&self, sum: u16) -> Vec<u8> {
        let ports = [40_000u16, 5001].map(u16::to_be_bytes).concat();
        let numbers = [self.sequence, 1].map(u32::to_be_bytes).concat();
        let offset = (5 + self.tcp_options as u8) << 4;
        let rest =
            [&[offset, self.tcp_flags, 0xff, 0xff], &sum.to_be_bytes()[..], &[0, 0]].concat();
        let options = vec![1; 4 * self.tcp_options];
        [ports, numbers, rest, options].concat()
    }
}

/// An IPv6 address of RFC 4193 that ends in an IPv4 address.
fn unique(ip: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[0] = 0xfd;
    address[12..].copy_from_slice(&ip);
    address
}
