//! Headers as they lie in a packet. Packed: nothing in a packet is aligned. Fields of more than one
//! byte are big-endian; the names say where a method converts.

use overlay_common::MacBytes;

pub const ETH_P_IP: u16 = 0x0800;
pub const ETH_P_ARP: u16 = 0x0806;
pub const ETH_P_8021Q: u16 = 0x8100;
pub const ETH_P_IPV6: u16 = 0x86dd;
pub const ETH_P_8021AD: u16 = 0x88a8;
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;

/// Ethernet II.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ethernet {
    pub dst: MacBytes,
    pub src: MacBytes,
    ethertype: u16,
}

impl Ethernet {
    #[inline(always)]
    pub fn new(dst: MacBytes, src: MacBytes, ethertype: u16) -> Self {
        Self { dst, src, ethertype: ethertype.to_be() }
    }

    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        u16::from_be(self.ethertype)
    }

    /// Broadcast or multicast.
    #[inline(always)]
    pub fn is_to_group(&self) -> bool {
        self.dst[0] & 1 == 1
    }

    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        matches!(self.ethertype(), ETH_P_8021Q | ETH_P_8021AD)
    }
}

/// IPv4 without options (RFC 791, section 3.1).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    tot_len: u16,
    id: u16,
    frag_off: u16,
    pub ttl: u8,
    pub protocol: u8,
    check: u16,
    pub src: [u8; 4],
    pub dst: [u8; 4],
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

impl Ipv4 {
    /// A UDP packet's header, unfragmentable, checksum filled in. `tot_len` 0 stands for a
    /// super-packet of more than 65,535 bytes, as the kernel has it (6.3, commit b1a78b9b9886).
    #[inline(always)]
    pub fn udp(tos: u8, tot_len: u16, ttl: u8, src: [u8; 4], dst: [u8; 4]) -> Self {
        let mut header = Self {
            version_ihl: 0x45,
            tos,
            tot_len: tot_len.to_be(),
            id: 0,
            frag_off: DONT_FRAGMENT.to_be(),
            ttl,
            protocol: IPPROTO_UDP,
            check: 0,
            src,
            dst,
        };
        header.check = header.checksum();
        header
    }

    /// RFC 1071 over the header with its checksum taken as zero.
    #[inline(always)]
    fn checksum(&self) -> u16 {
        let src = u32::from_ne_bytes(self.src);
        let dst = u32::from_ne_bytes(self.dst);
        let mut sum = u32::from(u16::from_ne_bytes([self.version_ihl, self.tos]))
            + u32::from(self.tot_len)
            + u32::from(self.id)
            + u32::from(self.frag_off)
            + u32::from(u16::from_ne_bytes([self.ttl, self.protocol]))
            + (src & 0xffff)
            + (src >> 16)
            + (dst & 0xffff)
            + (dst >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }

    /// Points the header at another destination.
    #[inline(always)]
    pub fn set_destination(&mut self, dst: [u8; 4]) {
        self.dst = dst;
        self.check = self.checksum();
    }

    /// Sets the type of service and mends the checksum by the difference (RFC 1624, equation 3).
    #[inline(always)]
    pub fn set_tos(&mut self, tos: u8) {
        let old = u16::from_ne_bytes([self.version_ihl, self.tos]);
        let new = u16::from_ne_bytes([self.version_ihl, tos]);
        let mut sum = u32::from(!self.check) + u32::from(!old) + u32::from(new);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        self.check = !(sum as u16);
        self.tos = tos;
    }

    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Header and payload in bytes, as the header says; 0 also for a super-packet (see [`Self::udp`]).
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        usize::from(u16::from_be(self.tot_len))
    }

    #[inline(always)]
    pub fn has_options(&self) -> bool {
        self.version_ihl != 0x45
    }

    /// In bytes, as the header says.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0xf) * 4
    }

    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        u16::from_be(self.frag_off) & FRAGMENT_OFFSET != 0
    }

    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        u16::from_be(self.frag_off) & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == MORE_FRAGMENTS
    }
}

/// The first word of IPv6 (RFC 8200, section 3): version, traffic class, flow label.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv6Start {
    bytes: [u8; 4],
}

impl Ipv6Start {
    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        self.bytes[0] << 4 | self.bytes[1] >> 4
    }

    /// The word of a checksum that the class lies in, as it lies in the packet.
    #[inline(always)]
    pub fn class_word(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[0], self.bytes[1]])
    }

    #[inline(always)]
    pub fn set_traffic_class(&mut self, class: u8) {
        self.bytes[0] = self.bytes[0] & 0xf0 | class >> 4;
        self.bytes[1] = self.bytes[1] & 0x0f | class << 4;
    }
}

/// UDP (RFC 768).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Udp {
    src: u16,
    dst: u16,
    len: u16,
    check: u16,
}

impl Udp {
    /// Without a checksum, as VXLAN over IPv4 has it (RFC 7348, section 5).
    #[inline(always)]
    pub fn new(src: u16, dst: u16, len: u16) -> Self {
        Self { src: src.to_be(), dst: dst.to_be(), len: len.to_be(), check: 0 }
    }

    #[inline(always)]
    pub fn destination(&self) -> u16 {
        u16::from_be(self.dst)
    }
}

/// How UDP and TCP begin.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ports {
    src: u16,
    dst: u16,
}

impl Ports {
    /// Where [`Self::destination`] lies.
    pub const DESTINATION_AT: usize = core::mem::offset_of!(Self, dst);

    #[inline(always)]
    pub fn destination(&self) -> u16 {
        u16::from_be(self.dst)
    }
}

/// TCP up to its flags (RFC 9293, section 3.1).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct TcpStart {
    ports: Ports,
    sequence: u32,
    acknowledgment: u32,
    data_offset: u8,
    pub flags: u8,
}

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

impl TcpStart {
    /// Where `flags` lie.
    pub const FLAGS_AT: usize = core::mem::offset_of!(Self, flags);

    /// A segment with these flags asks for a connection.
    #[inline(always)]
    pub fn opens(flags: u8) -> bool {
        flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }
}

/// VXLAN (RFC 7348, section 5).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Vxlan {
    flags: u32,
    vni: u32,
}

/// The I flag: the VNI is valid.
const VNI_VALID: u32 = 0x0800_0000;

impl Vxlan {
    #[inline(always)]
    pub fn new(vni: u32) -> Self {
        Self { flags: VNI_VALID.to_be(), vni: (vni << 8).to_be() }
    }

    /// The VNI, where the header says that it is one.
    #[inline(always)]
    pub fn vni(&self) -> Option<u32> {
        if u32::from_be(self.flags) & VNI_VALID == 0 {
            return None;
        }
        Some(u32::from_be(self.vni) >> 8)
    }
}

/// All that encapsulation pushes.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Outer {
    pub eth: Ethernet,
    pub ip: Ipv4,
    pub udp: Udp,
    pub vxlan: Vxlan,
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Arp {
    hardware: u16,
    protocol: u16,
    lengths: u16,
    operation: u16,
    pub sender_mac: MacBytes,
    pub sender_ip: [u8; 4],
    pub target_mac: MacBytes,
    pub target_ip: [u8; 4],
}

const ARP_ETHERNET: u16 = 1;
/// Lengths of the addresses: 6 and 4 bytes.
const ARP_LENGTHS: u16 = 0x0604;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

impl Arp {
    #[inline(always)]
    pub fn is_request(&self) -> bool {
        self.is_ipv4_over_ethernet() && self.operation == ARP_REQUEST.to_be()
    }

    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.is_ipv4_over_ethernet() && self.operation == ARP_REPLY.to_be()
    }

    #[inline(always)]
    fn is_ipv4_over_ethernet(&self) -> bool {
        self.hardware == ARP_ETHERNET.to_be()
            && self.protocol == ETH_P_IP.to_be()
            && self.lengths == ARP_LENGTHS.to_be()
    }

    /// Turns the request into the answer that `mac` has the address asked for.
    #[inline(always)]
    pub fn answer(&mut self, mac: MacBytes) {
        self.operation = ARP_REPLY.to_be();
        let asked = self.target_ip;
        self.target_mac = self.sender_mac;
        self.target_ip = self.sender_ip;
        self.sender_mac = mac;
        self.sender_ip = asked;
    }
}

const _: () = {
    assert!(size_of::<Ethernet>() == 14);
    assert!(size_of::<Ipv4>() == 20);
    assert!(size_of::<Outer>() == overlay_common::VXLAN_OVERHEAD as usize);
    assert!(size_of::<Arp>() == 28);
    assert!(size_of::<TcpStart>() == 14);
};
