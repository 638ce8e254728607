//! Packets made with etherparse, whose authors read the formats' definitions independently of the programs.

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, IpFragOffset, IpHeaders, IpNumber,
    Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, UdpHeader,
};
use overlay_common::{Direction, MacBytes, VXLAN_OVERHEAD, VXLAN_PORT};

use super::world::{
    A, B, FAR, FAR_VTEP, OWN_VTEP, ROUTER_MAC, STRANGER, Station, UNDERLAY_MAC, VNI,
};

pub(crate) const BROADCAST: MacBytes = [0xff; 6];
/// The group MAC of 224.0.0.251 (RFC 1112, section 6.4).
pub(crate) const GROUP: MacBytes = [1, 0, 0x5e, 0, 0, 0xfb];
/// The ethertype for local experiments (IEEE 802), which no kernel handles.
pub(crate) const EXPERIMENTAL: u16 = 0x88b5;
pub(crate) const PAYLOAD: &[u8] = b"sixteen bytes...";

/// The differences from the plainest IP headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) tos: u8,
    pub(crate) source_port: u16,
    pub(crate) id: u16,
}

impl Default for Flow {
    fn default() -> Self {
        Self { tos: 0, source_port: 40_000, id: 0x4242 }
    }
}

/// A UDP datagram over IPv4, from `from` to `to`.
pub(crate) fn ipv4(from: Station, to: Station, flow: Flow) -> Vec<u8> {
    let mut ip = Ipv4Header::new(0, 64, IpNumber::UDP, from.ip, to.ip).expect("short");
    ip.identification = flow.id;
    set_tos(&mut ip, flow.tos);
    let udp = PacketBuilder::ethernet2(from.mac, to.mac)
        .ip(IpHeaders::Ipv4(ip, Default::default()))
        .udp(flow.source_port, 5001);
    let mut frame = Vec::new();
    udp.write(&mut frame, PAYLOAD).expect("a vector takes all");
    frame
}

/// A UDP datagram over IPv6, between the stations' MACs.
pub(crate) fn ipv6(from: Station, to: Station, flow: Flow) -> Vec<u8> {
    let address = |station: Station| {
        let mut address = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        address[12..].copy_from_slice(&station.ip);
        address
    };
    let ip = Ipv6Header {
        traffic_class: flow.tos,
        // Each flow has its own label (RFC 6437), which is all that the kernel's hash uses.
        flow_label: Ipv6FlowLabel::try_new(0xa0000 | u32::from(flow.source_port))
            .expect("twenty bits"),
        payload_length: 0,
        next_header: IpNumber::UDP,
        hop_limit: 64,
        source: address(from),
        destination: address(to),
    };
    let udp = PacketBuilder::ethernet2(from.mac, to.mac)
        .ip(IpHeaders::Ipv6(ip, Default::default()))
        .udp(flow.source_port, 5001);
    let mut frame = Vec::new();
    udp.write(&mut frame, PAYLOAD).expect("a vector takes all");
    frame
}

/// A frame of another protocol.
pub(crate) fn other(from: MacBytes, to: MacBytes, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let header =
        Ethernet2Header { source: from, destination: to, ether_type: EtherType(ethertype) };
    [&header.to_bytes()[..], payload].concat()
}

/// The frame with a tag of VLAN 7.
pub(crate) fn tagged(frame: &[u8], tpid: u16) -> Vec<u8> {
    tagged_with(frame, tpid, 7)
}

/// The frame with a tag whose control word is `tci`.
pub(crate) fn tagged_with(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, [tpid.to_be_bytes(), tci.to_be_bytes()].concat());
    tagged
}

/// The frame with these ports in its UDP header, behind an IP header of `ip_len` bytes.
pub(crate) fn with_ports(mut frame: Vec<u8>, ip_len: usize, from: u16, to: u16) -> Vec<u8> {
    frame[14 + ip_len..][..4].copy_from_slice(&[from.to_be_bytes(), to.to_be_bytes()].concat());
    frame
}

/// An ICMPv6 message of neighbour discovery between the stations' MACs, from a link-local address. `before`
/// lies between the IPv6 header and the message, and `next` is the type of the header behind the IPv6 header.
pub(crate) fn discovery(from: Station, to: Station, next: u8, before: &[u8], kind: u8) -> Vec<u8> {
    let mut frame = ipv6(from, to, Flow::default());
    frame.truncate(14 + 40);
    frame[14 + 6] = next;
    frame[14 + 7] = 255;
    frame[14 + 8..][..2].copy_from_slice(&[0xfe, 0x80]);
    frame.extend_from_slice(before);
    frame.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    let len = (frame.len() - 14 - 40) as u16;
    frame[14 + 4..][..2].copy_from_slice(&len.to_be_bytes());
    frame
}

/// A message of neighbour discovery of this kind between the stations' MACs, about `target` (RFC 4861, sections 4.3 and
/// 4.4), with the sender's MAC as an option.
pub(crate) fn neighbour(
    (from, to): (Station, Station),
    kind: u8,
    source: [u8; 16],
    target: [u8; 16],
) -> Vec<u8> {
    let mut frame = discovery(from, to, 58, &[], kind);
    frame[14 + 8..][..16].copy_from_slice(&source);
    frame.extend([&target[..], &[2, 1], &from.mac].concat());
    let len = (frame.len() - 14 - 40) as u16;
    frame[14 + 4..][..2].copy_from_slice(&len.to_be_bytes());
    frame
}

/// An address that ends in the identifier which is made of the MAC (RFC 4291, appendix A).
pub(crate) fn address_of(mac: MacBytes) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

/// An address of fd00::/64 with this last byte.
pub(crate) fn unique(last: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// The frame with a length of `len` bytes, and with the matching length in its IPv4 header.
pub(crate) fn long_ipv4(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.resize(len, 0x5a);
    frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    frame
}

/// Returns true for ARP without a tag, which may come from the underlay in VXLAN.
pub(crate) fn is_arp(direction: Direction, packet: &[u8]) -> bool {
    let at = if direction == Direction::FromUnderlay { VXLAN_OVERHEAD.into() } else { 0 } + 12;
    packet.get(at..at + 2) == Some(&[8, 6])
}

/// The frame with another destination MAC.
pub(crate) fn to_mac(mut frame: Vec<u8>, mac: MacBytes) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac);
    frame
}

/// The first `len` bytes of the frame.
pub(crate) fn cut(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.truncate(len);
    frame
}

/// The fields of an ARP packet, and of its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// The frame's source MAC.
    pub(crate) from: MacBytes,
    pub(crate) to: MacBytes,
    pub(crate) operation: u16,
    pub(crate) sender: Station,
    pub(crate) target: Station,
}

impl Default for Ask {
    /// A broadcast request from A for the far endpoint.
    fn default() -> Self {
        Self {
            from: A.mac,
            to: BROADCAST,
            operation: 1,
            sender: A,
            target: Station { mac: [0; 6], ip: FAR.ip },
        }
    }
}

/// An ARP packet in a frame.
pub(crate) fn arp(ask: Ask) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation(ask.operation),
        sender_mac: ask.sender.mac,
        sender_ipv4: ask.sender.ip,
        target_mac: ask.target.mac,
        target_ipv4: ask.target.ip,
    };
    other(ask.from, ask.to, 0x0806, &packet.to_bytes())
}

/// A's broadcast request for `ip`.
pub(crate) fn who_has(ip: [u8; 4]) -> Vec<u8> {
    arp(Ask { target: Station { mac: [0; 6], ip }, ..Ask::default() })
}

/// The outer headers of a packet from the underlay.
#[derive(Clone, Debug)]
pub(crate) struct Vxlan {
    pub(crate) to_mac: MacBytes,
    pub(crate) from: [u8; 4],
    pub(crate) to: [u8; 4],
    pub(crate) tos: u8,
    pub(crate) protocol: IpNumber,
    pub(crate) from_port: u16,
    pub(crate) port: u16,
    /// IPv4 options, whose length in bytes is a multiple of four.
    pub(crate) options: Vec<u8>,
    pub(crate) more_fragments: bool,
    /// Fragment offset in units of eight bytes.
    pub(crate) fragment_offset: u16,
    pub(crate) flags: u8,
    /// The reserved bytes, which a receiver ignores (RFC 7348, section 5).
    pub(crate) reserved: u8,
    pub(crate) vni: u32,
}

impl Default for Vxlan {
    /// A packet from the far node to this one.
    fn default() -> Self {
        Self {
            to_mac: UNDERLAY_MAC,
            from: FAR_VTEP,
            to: OWN_VTEP,
            tos: 0,
            protocol: IpNumber::UDP,
            from_port: 50_000,
            port: VXLAN_PORT,
            options: Vec::new(),
            more_fragments: false,
            fragment_offset: 0,
            flags: 0x08,
            reserved: 0,
            vni: VNI,
        }
    }
}

impl Vxlan {
    /// The whole packet around `inner`.
    pub(crate) fn around(&self, inner: &[u8]) -> Vec<u8> {
        let mut vxlan = [self.reserved; 8];
        vxlan[0] = self.flags;
        vxlan[4..7].copy_from_slice(&self.vni.to_be_bytes()[1..]);
        let payload = [&vxlan, inner].concat();
        let udp = UdpHeader::without_ipv4_checksum(self.from_port, self.port, payload.len());
        let udp = udp.expect("short").to_bytes();
        let len = udp.len() + payload.len();
        let mut ip =
            Ipv4Header::new(len as u16, 63, self.protocol, self.from, self.to).expect("short");
        set_tos(&mut ip, self.tos);
        ip.dont_fragment = !self.more_fragments && self.fragment_offset == 0;
        ip.more_fragments = self.more_fragments;
        ip.fragment_offset = IpFragOffset::try_new(self.fragment_offset).expect("13 bits");
        ip.options = self.options[..].try_into().expect("whole words");
        ip.set_payload_len(len).expect("short");
        ip.header_checksum = ip.calc_header_checksum();
        let packet = [&ip.to_bytes()[..], &udp, &payload].concat();
        other(ROUTER_MAC, self.to_mac, 0x0800, &packet)
    }
}

/// The far node's packet around `inner`.
pub(crate) fn vxlan(inner: &[u8]) -> Vec<u8> {
    Vxlan::default().around(inner)
}

/// A packet from A to B, which are both on this node.
pub(crate) fn a_to_b() -> Vec<u8> {
    ipv4(A, B, Flow::default())
}

/// A packet from A to the far endpoint.
pub(crate) fn a_to_far() -> Vec<u8> {
    ipv4(A, FAR, Flow::default())
}

/// A packet from the far endpoint to A.
pub(crate) fn far_to_a() -> Vec<u8> {
    ipv4(FAR, A, Flow::default())
}

/// `own` with a stranger's MAC if `mac` is true, or else with a stranger's address.
pub(crate) fn half_stranger(own: Station, mac: bool) -> Station {
    if mac {
        Station { mac: STRANGER.mac, ip: own.ip }
    } else {
        Station { mac: own.mac, ip: STRANGER.ip }
    }
}

fn set_tos(ip: &mut Ipv4Header, tos: u8) {
    ip.dscp = (tos >> 2).try_into().expect("six bits");
    ip.ecn = (tos & 3).try_into().expect("two bits");
}
