//! Headers as they lie in a packet. Packed: nothing in a packet is aligned. Fields of more than one
//! byte are big-endian; the names say where a method converts.

use overlay_common::{FdbKey, MacBytes};

pub const ETH_P_IP: u16 = 0x0800;
pub const ETH_P_ARP: u16 = 0x0806;
pub const ETH_P_8021Q: u16 = 0x8100;
pub const ETH_P_IPV6: u16 = 0x86dd;
pub const ETH_P_8021AD: u16 = 0x88a8;
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
pub const IPPROTO_ICMP: u8 = 1;
pub const IPPROTO_ICMPV6: u8 = 58;
pub const IPPROTO_SCTP: u8 = 132;

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
    pub fn ethertype(&self) -> u16 {
        u16::from_be(self.ethertype)
    }

    /// Broadcast or multicast.
    #[inline(always)]
    pub fn is_to_group(&self) -> bool {
        self.dst[0] & 1 == 1
    }
}

/// Announces a VLAN tag.
#[inline(always)]
pub fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, ETH_P_8021Q | ETH_P_8021AD)
}

/// The same header in words: what is looked at for every packet is loaded and compared in a few, and
/// carried over a change of the packet in registers.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Eth {
    /// The destination, and the source's first two bytes.
    first: u64,
    /// The source's last four.
    second: u32,
    ethertype: u16,
}

impl Eth {
    #[inline(always)]
    pub fn ethertype(self) -> u16 {
        u16::from_be(self.ethertype)
    }

    /// Broadcast or multicast.
    #[inline(always)]
    pub fn is_to_group(self) -> bool {
        self.first & 1 == 1
    }

    #[inline(always)]
    pub fn is_from(self, mac: &MacBytes) -> bool {
        let start = u16::from_ne_bytes([mac[0], mac[1]]);
        let end = u32::from_ne_bytes([mac[2], mac[3], mac[4], mac[5]]);
        self.second == end && (self.first >> 48) as u16 == start
    }

    /// Its bytes as two numbers: the first eight, the last six.
    #[inline(always)]
    pub fn words(self) -> (u64, u64) {
        (self.first, u64::from(self.second) | u64::from(self.ethertype) << 32)
    }

    /// Source and destination exchanged.
    #[inline(always)]
    pub fn turned(self) -> Self {
        let src = (self.first >> 48) | u64::from(self.second) << 16;
        Self {
            first: src | self.first << 48,
            second: (self.first >> 16) as u32,
            ethertype: self.ethertype,
        }
    }

    /// The same of another type, host byte order.
    #[inline(always)]
    pub fn of_type(self, ethertype: u16) -> Self {
        Self { ethertype: ethertype.to_be(), ..self }
    }

    /// The destination in the network `vni`, as FDB has it.
    #[inline(always)]
    pub fn destination_key(self, vni: u32) -> FdbWords {
        FdbWords::new(vni, self.first & 0xffff_ffff_ffff)
    }

    /// The source in the network `vni`, as FDB has it.
    #[inline(always)]
    pub fn source_key(self, vni: u32) -> FdbWords {
        FdbWords::new(vni, self.first >> 48 | u64::from(self.second) << 16)
    }
}

/// A key of FDB, made of words: byte by byte it would be a dozen stores more. A whole number of the
/// stack's words long, since the verifier takes aligned stores there only.
#[repr(C)]
pub struct FdbWords {
    first: u64,
    second: u64,
}

impl FdbWords {
    /// Of the MAC in the lower six bytes of `mac`.
    #[inline(always)]
    fn new(vni: u32, mac: u64) -> Self {
        Self { first: u64::from(vni) | mac << 32, second: u64::from((mac >> 32) as u16) }
    }

    #[inline(always)]
    pub fn key(&self) -> &FdbKey {
        const {
            assert!(
                size_of::<FdbKey>() <= size_of::<Self>()
                    && align_of::<FdbKey>() <= align_of::<Self>()
            )
        }
        // SAFETY: long enough and aligned (above); a key begins with its VNI and MAC, in this order
        // (repr(C)), and any bytes are one.
        unsafe { &*core::ptr::from_ref(self).cast::<FdbKey>() }
    }
}

/// A VLAN tag (IEEE 802.1Q, section 9.3). In a frame it lies before the type that it tags.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Tag {
    tpid: u16,
    control: u16,
}

/// Bits of the control word that number the VLAN.
const VLAN: u16 = 0x0fff;

impl Tag {
    pub const NONE: Self = Self { tpid: 0, control: 0 };

    #[inline(always)]
    pub fn new(tpid: u16, control: u16) -> Self {
        Self { tpid: tpid.to_be(), control: control.to_be() }
    }

    #[inline(always)]
    pub fn tpid(self) -> u16 {
        u16::from_be(self.tpid)
    }

    /// Priority, and number of the VLAN.
    #[inline(always)]
    pub fn control(self) -> u16 {
        u16::from_be(self.control)
    }

    #[inline(always)]
    pub fn vlan(self) -> u16 {
        self.control() & VLAN
    }
}

/// What follows where a frame's own type announces a tag.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct BehindTpid {
    control: u16,
    ethertype: u16,
}

impl BehindTpid {
    /// The tag that it ends, whose TPID was before it.
    #[inline(always)]
    pub fn tag(self, tpid: u16) -> Tag {
        Tag { tpid: tpid.to_be(), control: self.control }
    }

    #[inline(always)]
    pub fn vlan(&self) -> u16 {
        u16::from_be(self.control) & VLAN
    }

    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        u16::from_be(self.ethertype)
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
    /// A header, unfragmentable, checksum filled in.
    #[inline(always)]
    pub fn new(protocol: u8, tot_len: u16, src: [u8; 4], dst: [u8; 4]) -> Self {
        let mut header = Self {
            version_ihl: 0x45,
            tos: 0,
            tot_len: tot_len.to_be(),
            id: 0,
            frag_off: DONT_FRAGMENT.to_be(),
            ttl: 64,
            protocol,
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

    /// Header and payload in bytes, as the header says; 0 also for a super-packet of more than 65,535
    /// bytes, as the kernel has it (6.3, commit b1a78b9b9886).
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
    pub fn is_fragment(&self) -> bool {
        u16::from_be(self.frag_off) & (FRAGMENT_OFFSET | MORE_FRAGMENTS) != 0
    }

    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        u16::from_be(self.frag_off) & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == MORE_FRAGMENTS
    }
}

/// IPv6 (RFC 8200, section 3).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    start: [u8; 4],
    payload_len: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub src: [u8; 16],
    pub dst: [u8; 16],
}

impl Ipv6 {
    #[inline(always)]
    pub fn new(next_header: u8, payload_len: u16, src: [u8; 16], dst: [u8; 16]) -> Self {
        let (start, payload_len) = ([0x60, 0, 0, 0], payload_len.to_be());
        Self { start, payload_len, next_header, hop_limit: 64, src, dst }
    }

    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        self.start[0] << 4 | self.start[1] >> 4
    }

    /// The word of a checksum that the class lies in, as it lies in the packet.
    #[inline(always)]
    pub fn class_word(&self) -> u16 {
        u16::from_ne_bytes([self.start[0], self.start[1]])
    }

    #[inline(always)]
    pub fn set_traffic_class(&mut self, class: u8) {
        self.start[0] = self.start[0] & 0xf0 | class >> 4;
        self.start[1] = self.start[1] & 0x0f | class << 4;
    }

    /// The length is said elsewhere (RFC 2675, section 3).
    #[inline(always)]
    pub fn is_without_length(&self) -> bool {
        self.payload_len == 0
    }

    /// From an address of this link alone (RFC 4291, section 2.5.6).
    #[inline(always)]
    pub fn is_from_link(&self) -> bool {
        is_link_local(&self.src)
    }

    /// To an address of this link alone.
    #[inline(always)]
    pub fn is_to_link(&self) -> bool {
        is_link_local(&self.dst)
    }
}

/// A hop-by-hop header with the jumbo option alone (RFC 2675, section 2).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct JumboOption {
    next_header: u8,
    header_len: u8,
    option: u8,
    option_len: u8,
    payload_len: u32,
}

const JUMBO: u8 = 194;

impl JumboOption {
    /// Before a header of `next_header`, in a packet of `payload_len` bytes behind its IPv6 header.
    #[inline(always)]
    pub fn new(next_header: u8, payload_len: u32) -> Self {
        Self {
            next_header,
            header_len: 0,
            option: JUMBO,
            option_len: 4,
            payload_len: payload_len.to_be(),
        }
    }

    #[inline(always)]
    pub fn is_before(&self, next_header: u8) -> bool {
        self.next_header == next_header && self.header_len == 0 && self.option == JUMBO
    }
}

#[inline(always)]
fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
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
    /// Both as one number: it differs where one of them does.
    #[inline(always)]
    pub fn word(&self) -> u32 {
        u32::from(self.src) | u32::from(self.dst) << 16
    }

    #[inline(always)]
    pub fn source(&self) -> u16 {
        u16::from_be(self.src)
    }

    #[inline(always)]
    pub fn destination(&self) -> u16 {
        u16::from_be(self.dst)
    }
}

/// An IPv4 header without options, and how what it carries begins.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv4Ports {
    pub ip: Ipv4,
    pub ports: Ports,
}

/// TCP up to its flags (RFC 9293, section 3.1).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct TcpStart {
    ports: Ports,
    sequence: u32,
    acknowledgment: u32,
    data_offset: u8,
    flags: u8,
}

impl TcpStart {
    /// In bytes.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }
}

/// An ICMP message about a packet, and how it quotes that (RFC 792).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct IcmpAbout {
    kind: u8,
    code: u8,
    check: u16,
    rest: u32,
    quoted: Ipv4,
}

impl IcmpAbout {
    /// Where the destination of the quoted packet lies.
    pub const DESTINATION_AT: usize =
        core::mem::offset_of!(Self, quoted) + core::mem::offset_of!(Ipv4, dst);

    /// Whether messages of this kind are about a packet: destination unreachable, source quench, redirect, time
    /// exceeded, parameter problem.
    #[inline(always)]
    pub fn is(kind: u8) -> bool {
        matches!(kind, 3..=5 | 11 | 12)
    }
}

/// ICMP's and ICMPv6's "the packet is too big" (RFC 1191, section 4; RFC 4443, section 3.2).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct TooBig {
    kind: u8,
    code: u8,
    check: u16,
    /// IPv6's is 32 bits long, IPv4's the last 16 of these.
    mtu: u32,
}

impl TooBig {
    const IPV4: (u8, u8) = (3, 4);
    const IPV6: (u8, u8) = (2, 0);

    /// Without its checksum.
    #[inline(always)]
    pub fn ipv4(mtu: u32) -> Self {
        Self { kind: Self::IPV4.0, code: Self::IPV4.1, check: 0, mtu: mtu.to_be() }
    }

    /// Without its checksum.
    #[inline(always)]
    pub fn ipv6(mtu: u32) -> Self {
        Self { kind: Self::IPV6.0, code: Self::IPV6.1, check: 0, mtu: mtu.to_be() }
    }

    /// Bytes that get through, where this is the IPv4 message; 0: an old router did not say.
    #[inline(always)]
    pub fn ipv4_mtu(&self) -> Option<u32> {
        ((self.kind, self.code) == Self::IPV4).then(|| u32::from_be(self.mtu) & 0xffff)
    }

    /// Takes the folded sum of the message.
    #[inline(always)]
    pub fn set_check(&mut self, sum: u16) {
        self.check = !sum;
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
    /// The VNI, where the header says that it is one.
    #[inline(always)]
    pub fn vni(&self) -> Option<u32> {
        if u32::from_be(self.flags) & VNI_VALID == 0 {
            return None;
        }
        Some(u32::from_be(self.vni) >> 8)
    }
}

/// By which a packet is known for VXLAN.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct OuterUdp {
    pub eth: Ethernet,
    pub ip: Ipv4,
    pub udp: Udp,
}

/// All that is stripped, and the header of the frame in it.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Outer {
    pub udp: OuterUdp,
    pub vxlan: Vxlan,
    pub inner: Eth,
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
    assert!(size_of::<Ethernet>() == 14 && size_of::<Eth>() == 14);
    assert!(size_of::<Ipv6>() == 40 && size_of::<TooBig>() == 8);
    assert!(size_of::<JumboOption>() == 8);
    assert!(size_of::<Ipv4>() == 20);
    assert!(size_of::<Outer>() - size_of::<Eth>() == overlay_common::VXLAN_OVERHEAD as usize);
    assert!(size_of::<Arp>() == 28);
    assert!(size_of::<TcpStart>() == 14);
};
