//! Packets that are built byte by byte, because no network stack of a lab would send them.

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, UdpHeader};

use crate::frames::{MARK, Party};

pub(super) const VXLAN_PORT: u16 = 4789;
const IPV4: u16 = 0x0800;
pub(super) const VLAN: u16 = 0x8100;
pub(super) const QINQ: u16 = 0x88a8;
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
    let mut icmp = [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes(), quoted].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, IpNumber::ICMP, &icmp, |_| {})
}

/// The ICMP error "port unreachable" about a packet (RFC 792). `lost` is the packet's frame.
pub(super) fn port_unreachable(from: Party, to: Party, lost: &[u8]) -> Vec<u8> {
    let quoted = &lost[ETHERNET..][..28];
    let mut icmp = [&[3, 3, 0, 0, 0, 0, 0, 0], quoted, MARK.as_bytes()].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, IpNumber::ICMP, &icmp, |_| {})
}

/// An ICMP redirect to another gateway, for the destination of the packet in `about`'s frame (RFC 792).
pub(super) fn redirect(from: Party, to: Party, gateway: Party, about: &[u8]) -> Vec<u8> {
    let quoted = &about[ETHERNET..][..28];
    let mut icmp = [&[5, 1, 0, 0][..], &gateway.ip.octets(), quoted, MARK.as_bytes()].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, IpNumber::ICMP, &icmp, |_| {})
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
