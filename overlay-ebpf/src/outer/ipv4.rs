//! Ethernet, IPv4, UDP and VXLAN (RFC 7348) around a frame.

use crate::headers::{Eth, Ethernet, Ipv4, Udp};
use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
    BPF_F_ADJ_ROOM_FIXED_GSO,
};
use core::mem::offset_of;
use overlay_common::{HopEntry, SOURCE_PORT_MIN, VNI_VALID, VXLAN_OVERHEAD};

/// Bytes of all outer headers: where the inner frame begins.
pub const LEN: usize = size_of::<OuterUdp>() + size_of::<Vxlan>();
/// Bytes of what becomes the outer packet's own: encapsulation makes a frame into a packet longer by this.
pub const PACKET: u32 = (LEN - size_of::<Ethernet>()) as u32;
/// The same of the outer UDP datagram.
const DATAGRAM: u32 = PACKET - size_of::<Ipv4>() as u32;
/// Where the outer packet names its source and its destination, which is the other VTEP on the way in and
/// on the way out.
pub const SOURCE_AT: usize = size_of::<Ethernet>() + offset_of!(Ipv4, src);
pub const DESTINATION_AT: usize = size_of::<Ethernet>() + offset_of!(Ipv4, dst);
/// What `bpf_skb_adjust_room` must know of the headers for which it makes room.
pub const ROOM_FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64;

// User space fills HOPS by this number.
const _: () = assert!(LEN == VXLAN_OVERHEAD as usize);

/// VXLAN (RFC 7348, section 5).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Vxlan {
    flags: u32,
    vni: u32,
}

impl Vxlan {
    /// The VNI, if the header says that it has a valid one.
    #[inline(always)]
    pub fn vni(&self) -> Option<u32> {
        if u32::from_be(self.flags) & VNI_VALID == 0 {
            return None;
        }
        Some(u32::from_be(self.vni) >> 8)
    }
}

/// The headers by which a packet is recognised as VXLAN.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct OuterUdp {
    pub eth: Ethernet,
    pub ip: Ipv4,
    pub udp: Udp,
}

impl OuterUdp {
    /// Whether the packet is as long as both headers say, in a frame of `len` bytes.
    #[inline(always)]
    pub fn has_length(&self, len: u32) -> bool {
        let total = self.ip.total_len();
        total + size_of::<Ethernet>() == len as usize && self.udp.len() + size_of::<Ipv4>() == total
    }
}

/// All outer headers, and the Ethernet header of the inner frame.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Outer {
    pub udp: OuterUdp,
    pub vxlan: Vxlan,
    pub inner: Eth,
}

/// What the outer headers say of one packet.
#[derive(Clone, Copy)]
pub struct Fields {
    pub vni: u32,
    /// Type of service.
    pub tos: u8,
    /// Hash of the inner flow.
    pub hash: u32,
    /// Bytes of the inner frame.
    pub len: u32,
}

/// The same as they lie in the headers' words. Copies to several VTEPs have them in common, but for the checksum.
#[derive(Clone, Copy)]
pub struct Packed {
    tos: u8,
    total_len: u64,
    udp_len: u64,
    source_port: u64,
    vni: u32,
}

impl Fields {
    #[inline(always)]
    pub fn packed(self) -> Packed {
        // A super-packet of more than 65,535 bytes has length 0, as the kernel has it (6.3, commit
        // b1a78b9b9886); GSO cuts it and fills it in.
        let length = |len: u32| u64::from(if len > 0xffff { 0 } else { (len as u16).to_be() });
        let source_port = SOURCE_PORT_MIN | (self.hash as u16 & !SOURCE_PORT_MIN);
        Packed {
            tos: self.tos,
            total_len: length(self.len + PACKET),
            udp_len: length(self.len + DATAGRAM),
            source_port: source_port.to_be().into(),
            vni: (self.vni << 8).to_be(),
        }
    }
}

/// Eight bytes of a packet, as they are loaded.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Word(pub u64);

/// The outer headers in words: as they are written.
#[repr(C, packed)]
pub struct Words {
    pub words: [Word; 6],
    pub last: u16,
}

/// The outer headers of one packet: those of `hop`, with the packet's own fields, which the hop's entry
/// leaves zero.
///
/// Where the fields lie (RFC 791, 768, 7348), from the start of the outer Ethernet header: type of service
/// 15, total length 16, checksum 24, source port 34, UDP length 38, VNI 46 to 48.
#[inline(always)]
pub fn words(hop: &HopEntry, packed: Packed) -> Words {
    const { assert!(cfg!(target_endian = "little"), "shifts below are a little-endian machine's") };
    let Packed { tos, total_len, udp_len, source_port, vni } = packed;
    let mut sum = hop.csum + (u32::from(tos) << 8) + total_len as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let check = u64::from(!(sum as u16));
    let at = |index: usize| -> u64 {
        // SAFETY: `header` has 50 bytes and begins the entry, which is aligned to eight bytes as all map
        // values are; the index is below six.
        unsafe { *hop.header.as_ptr().cast::<u64>().add(index) }
    };
    let words = [
        Word(at(0)),
        Word(at(1) | u64::from(tos) << 56),
        Word(at(2) | total_len),
        Word(at(3) | check),
        Word(at(4) | source_port << 16 | udp_len << 48),
        Word(at(5) | u64::from(vni & 0xffff) << 48),
    ];
    Words { words, last: (vni >> 16) as u16 }
}
