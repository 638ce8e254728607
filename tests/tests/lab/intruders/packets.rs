//! Packets that are built byte by byte, because no network stack of a lab would send them.

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, UdpHeader};

use crate::frames::{MARK, Party};

pub(super) const VXLAN_PORT: u16 = 4789;
const IPV4: u16 = 0x0800;
pub(super) const VLAN: u16 = 0x8100;
pub(super) const QINQ: u16 = 0x88a8;
/// A tag of switches before IEEE 802.1ad. Linux knows no such tag.
pub(super) const OLD_QINQ: u16 = 0x9100;
const IPV6: u16 = 0x86dd;
const ETHERNET: usize = 14;

/// An Ethernet II frame.
pub(super) fn ethernet(from: [u8; 6], to: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// An IEEE 802.3 frame: it has a length where Ethernet II has a type, followed by LLC (IEEE 802.2).
pub(super) fn llc(from: [u8; 6], to: [u8; 6], header: &[u8]) -> Vec<u8> {
    let payload = [header, MARK.as_bytes()].concat();
    let length = u16::try_from(payload.len()).expect("short");
    ethernet(from, to, length, &payload)
}

/// The frame with one more VLAN tag, outside of any other tag.
pub(super) fn tagged(frame: &[u8], protocol: u16, id: u16) -> Vec<u8> {
    [&frame[..12], &protocol.to_be_bytes(), &id.to_be_bytes(), &frame[12..]].concat()
}

/// An IPv4 packet in a frame. `edit` changes its header before the checksum is computed.
pub(super) fn ipv4(
    from: Party,
    to: Party,
    protocol: IpNumber,
    payload: &[u8],
    edit: impl FnOnce(&mut Ipv4Header),
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    let mut ip = Ipv4Header::new(length, 64, protocol, from.ip.octets(), to.ip.octets())
        .expect("it fits a packet");
    ip.dont_fragment = false;
    ip.identification = 0x4242;
    edit(&mut ip);
    ip.set_payload_len(payload.len()).expect("it fits a packet");
    ip.header_checksum = ip.calc_header_checksum();
    ethernet(from.mac, to.mac, IPV4, &[&ip.to_bytes()[..], payload].concat())
}

/// The frame with other bytes at `at`.
pub(super) fn patched(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// An IPv4 packet with these options, which are filled up with zeros to whole words.
pub(super) fn with_options(
    from: Party,
    to: Party,
    protocol: IpNumber,
    payload: &[u8],
    options: &[u8],
) -> Vec<u8> {
    let mut words = options.to_vec();
    words.resize(options.len().next_multiple_of(4), 0);
    ipv4(from, to, protocol, payload, |ip| {
        ip.options = words.as_slice().try_into().expect("40 bytes at most");
    })
}

/// A piece of an IPv4 packet, as if it lay `at` bytes behind the header of the whole packet.
pub(super) fn fragment(
    from: Party,
    to: Party,
    protocol: IpNumber,
    piece: &[u8],
    (at, more): (u16, bool),
) -> Vec<u8> {
    ipv4(from, to, protocol, piece, |ip| {
        ip.fragment_offset = offset(at);
        ip.more_fragments = more;
    })
}

/// A UDP header and its payload, without a checksum.
pub(super) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let header = UdpHeader::without_ipv4_checksum(source, destination, payload.len());
    [&header.expect("short").to_bytes()[..], payload].concat()
}

/// A VXLAN packet around a frame, from the UDP header on.
pub(super) fn vxlan_datagram(vni: u32, inner: &[u8]) -> Vec<u8> {
    let mut header = [0x08, 0, 0, 0, 0, 0, 0, 0];
    header[4..7].copy_from_slice(&vni.to_be_bytes()[1..]);
    udp(50_000, VXLAN_PORT, &[&header[..], inner].concat())
}

/// A VXLAN packet from one host to another, in a frame.
pub(super) fn vxlan(from: Party, to: Party, vni: u32, inner: &[u8]) -> Vec<u8> {
    ipv4(from, to, IpNumber::UDP, &vxlan_datagram(vni, inner), |_| {})
}

/// The packet of [`vxlan`] in two fragments. The first has `first` bytes (a multiple of eight) behind the
/// IPv4 header.
pub(super) fn vxlan_in_pieces(
    from: Party,
    to: Party,
    vni: u32,
    inner: &[u8],
    first: u16,
) -> [Vec<u8>; 2] {
    let datagram = vxlan_datagram(vni, inner);
    let (head, tail) = datagram.split_at(usize::from(first));
    [
        ipv4(from, to, IpNumber::UDP, head, |ip| ip.more_fragments = true),
        ipv4(from, to, IpNumber::UDP, tail, |ip| ip.fragment_offset = offset(first)),
    ]
}

/// A fragment's offset in IPv4's unit, from one in bytes.
pub(super) fn offset(bytes: u16) -> IpFragOffset {
    IpFragOffset::try_new(bytes / 8).expect("13 bits")
}

/// The ICMP error "fragmentation needed" about a packet that was too large, with the MTU that would fit (RFC
/// 1191, section 4). `lost` is the packet's frame.
pub(super) fn fragmentation_needed(from: Party, to: Party, mtu: u16, lost: &[u8]) -> Vec<u8> {
    let quoted = &lost[ETHERNET..][..28];
    icmp(from, to, &[&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes(), quoted].concat())
}

/// An ICMP error about a packet (RFC 792). `lost` is the packet's frame.
pub(super) fn icmp_error(from: Party, to: Party, kind: u8, code: u8, lost: &[u8]) -> Vec<u8> {
    let quoted = &lost[ETHERNET..][..28];
    icmp(from, to, &[&[kind, code, 0, 0, 0, 0, 0, 0], quoted, MARK.as_bytes()].concat())
}

/// The ICMP error "port unreachable" about a packet. `lost` is the packet's frame.
pub(super) fn port_unreachable(from: Party, to: Party, lost: &[u8]) -> Vec<u8> {
    icmp_error(from, to, 3, 3, lost)
}

/// An ICMP message, which gets its checksum here.
pub(super) fn icmp(from: Party, to: Party, message: &[u8]) -> Vec<u8> {
    let mut message = patched(message.to_vec(), 2, &[0, 0]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, IpNumber::ICMP, &message, |_| {})
}

/// An ICMP redirect to another gateway, for the destination of the packet in `about`'s frame (RFC 792).
pub(super) fn redirect(from: Party, to: Party, gateway: Party, about: &[u8]) -> Vec<u8> {
    let quoted = &about[ETHERNET..][..28];
    icmp(from, to, &[&[5, 1, 0, 0][..], &gateway.ip.octets(), quoted, MARK.as_bytes()].concat())
}

/// One end of an IPv6 packet: a MAC and an address.
pub(super) type Party6 = ([u8; 6], [u8; 16]);

/// An address of the link, which ends with these bytes.
pub(super) fn link_local(end: [u8; 2]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&[0xfe, 0x80]);
    address[14..].copy_from_slice(&end);
    address
}

/// The address of the link that is made of a MAC (RFC 4291, appendix A).
pub(super) fn made_of(mac: [u8; 6]) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

/// An IPv6 packet in a frame.
pub(super) fn ipv6(from: Party6, to: Party6, next_header: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &length, &[next_header, hops], &from.1, &to.1].concat();
    ethernet(from.0, to.0, IPV6, &[&header, payload].concat())
}

/// An ICMPv6 message, with its checksum.
pub(super) fn icmpv6(from: Party6, to: Party6, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let pseudo = [&from.1[..], &to.1, &length, &[0, 0, 0, 58]].concat();
    let zero = patched(message.to_vec(), 2, &[0, 0]);
    let sum = checksum(&[&pseudo[..], &zero].concat());
    // Neighbour discovery is believed with this limit alone (RFC 4861, section 6.1.2).
    ipv6(from, to, 58, 255, &patched(zero, 2, &sum.to_be_bytes()))
}

/// Packets to a host, each with `inner` (a frame) inside, in the way of another tunnel.
pub(super) fn tunnels(from: Party, to: Party, vni: u32, inner: &[u8]) -> Vec<Vec<u8>> {
    let inner_ip = &inner[ETHERNET..];
    let number = vni.to_be_bytes();
    let ip = |protocol: u8, payload: &[u8]| ipv4(from, to, IpNumber(protocol), payload, |_| {});
    let by_udp = |port: u16, header: &[u8], inner: &[u8]| {
        ip(17, &udp(50_000, port, &[header, inner].concat()))
    };
    let vxlan = &vxlan_datagram(vni, inner)[8..];
    let geneve = [&[0, 0, 0x65, 0x58], &number[1..], &[0]].concat();
    let keyed_gre = [&[0x20, 0, 0x65, 0x58], &number[..]].concat();
    let mut all = vec![
        // GRE, around IP and around Ethernet.
        ip(47, &[&[0, 0, 0x08, 0][..], inner_ip].concat()),
        ip(47, &[&keyed_gre[..], inner].concat()),
        // The port of Linux's older VXLAN, VXLAN-GPE, Geneve.
        by_udp(8472, &[], vxlan),
        by_udp(4790, &[], vxlan),
        by_udp(6081, &geneve, inner),
        // IP in UDP (Linux's FOU), GRE in UDP, GUE, L2TP, GTP-U, MPLS, ESP, Teredo.
        by_udp(5555, &[], inner_ip),
        by_udp(4754, &keyed_gre, inner),
        by_udp(6080, &[0, 4, 0, 0], inner_ip),
        by_udp(1701, &[0, 2, 0, 7, 0, 7, 0, 0], inner),
        by_udp(2152, &[0x30, 0xff, 0, 64, 0, 0, 0, 7], inner_ip),
        by_udp(6635, &[0, 0, 0x71, 0xff], inner_ip),
        by_udp(4500, &[0, 0, 1, 0, 0, 0, 0, 1], inner_ip),
        by_udp(3544, &[], inner_ip),
        // EtherIP.
        ip(97, &[&[0x30, 0], inner].concat()),
    ];
    // Other protocols with ports, to VXLAN's: UDP-Lite, DCCP, SCTP.
    all.extend([136, 33, 132].map(|protocol| ip(protocol, &udp(50_000, VXLAN_PORT, vxlan))));
    // IP in IP, IPv6 in IP, MPLS, L2TP, ESP, AH, IPComp, no next header, and two that are nobody's.
    all.extend([4, 41, 137, 115, 50, 51, 108, 59, 0, 255].map(|protocol| ip(protocol, inner_ip)));
    all
}

/// The checksum of RFC 1071.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
