//! Ethernet and its VLAN tags.

use crate::maps::FdbWords;
use overlay_common::MacBytes;

pub const ETH_P_IP: u16 = 0x0800;
pub const ETH_P_ARP: u16 = 0x0806;
pub const ETH_P_8021Q: u16 = 0x8100;
pub const ETH_P_IPV6: u16 = 0x86dd;
pub const ETH_P_8021AD: u16 = 0x88a8;

/// Where the packet begins in a frame without tags: behind the Ethernet header.
pub const L3: usize = size_of::<Ethernet>();

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

    #[inline(always)]
    pub fn set_ethertype(&mut self, ethertype: u16) {
        self.ethertype = ethertype.to_be();
    }

    /// Broadcast or multicast.
    #[inline(always)]
    pub fn is_to_group(&self) -> bool {
        self.dst[0] & 1 == 1
    }
}

/// Whether a VLAN tag follows this type.
#[inline(always)]
pub fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, ETH_P_8021Q | ETH_P_8021AD)
}

/// The Ethernet header in words. Every packet's is read: in words it takes few loads and comparisons, and
/// stays in registers while the packet is changed.
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

    /// Whether the destination is one of the group addresses that no bridge passes on, 01:80:c2:00:00:00 to 0f (IEEE
    /// 802.1Q, section 8.6.3).
    #[inline(always)]
    pub fn is_to_reserved_group(self) -> bool {
        const BITS: u64 = u64::from_le_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0, 0]);
        const RESERVED: u64 = u64::from_le_bytes([0x01, 0x80, 0xc2, 0, 0, 0, 0, 0]);
        self.first & BITS == RESERVED
    }

    #[inline(always)]
    pub fn is_from(self, mac: &MacBytes) -> bool {
        let start = u16::from_ne_bytes([mac[0], mac[1]]);
        let end = u32::from_ne_bytes([mac[2], mac[3], mac[4], mac[5]]);
        self.second == end && (self.first >> 48) as u16 == start
    }

    /// Whether the destination is all zeros, which no station has.
    #[inline(always)]
    pub fn is_to_nobody(self) -> bool {
        self.first << 16 == 0
    }

    /// Whether the source is a group's address, which no station has.
    #[inline(always)]
    pub fn is_from_group(self) -> bool {
        self.first >> 48 & 1 == 1
    }

    /// The source, in the lower six bytes.
    #[inline(always)]
    pub fn source(self) -> u64 {
        self.first >> 48 | u64::from(self.second) << 16
    }

    /// The header's bytes as two numbers: the first eight, the last six.
    #[inline(always)]
    pub fn words(self) -> (u64, u64) {
        (self.first, u64::from(self.second) | u64::from(self.ethertype) << 32)
    }

    /// The header of an answer: source and destination are exchanged.
    #[inline(always)]
    pub fn turned(self) -> Self {
        let src = (self.first >> 48) | u64::from(self.second) << 16;
        Self {
            first: src | self.first << 48,
            second: (self.first >> 16) as u32,
            ethertype: self.ethertype,
        }
    }

    /// The same header with another type, which is in the host's byte order.
    #[inline(always)]
    pub fn of_type(self, ethertype: u16) -> Self {
        Self { ethertype: ethertype.to_be(), ..self }
    }

    /// The FDB key of the destination in the network `vni`.
    #[inline(always)]
    pub fn destination_key(self, vni: u32) -> FdbWords {
        FdbWords::new(vni, self.first & 0xffff_ffff_ffff)
    }

    /// The FDB key of the source in the network `vni`.
    #[inline(always)]
    pub fn source_key(self, vni: u32) -> FdbWords {
        FdbWords::new(vni, self.source())
    }
}

/// A VLAN tag (IEEE 802.1Q, section 9.3). In a frame it lies before the type that it tags.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Tag {
    tpid: u16,
    control: u16,
}

/// The bits of the control word that are the VLAN's number.
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

/// The bytes behind a type that announces a tag: the rest of the tag, and the type behind it.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct BehindTpid {
    control: u16,
    ethertype: u16,
}

impl BehindTpid {
    /// The whole tag, whose TPID is `tpid`.
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

const _: () = assert!(size_of::<Ethernet>() == 14 && size_of::<Eth>() == 14);
