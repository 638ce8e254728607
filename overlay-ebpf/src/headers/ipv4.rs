//! IPv4.

use super::transport::Ports;
use overlay_common::DONT_FRAGMENT;

/// IPv4 without options (RFC 791, section 3.1).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    tot_len: u16,
    id: u16,
    pub frag_off: u16,
    pub ttl: u8,
    pub protocol: u8,
    check: u16,
    pub src: [u8; 4],
    pub dst: [u8; 4],
}

const MORE_FRAGMENTS: u16 = 0x2000;
/// The bits of the fragment word that say where the fragment belongs.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

impl Ipv4 {
    /// A header that forbids fragmentation, with its checksum.
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

    /// The checksum (RFC 1071) of the header, whose own field counts as zero.
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

    /// Sets the type of service, and corrects the checksum by the difference (RFC 1624, equation 3).
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

    /// Bytes of the header, as it says itself.
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

/// An IPv4 header without options, and how what it carries begins.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv4Ports {
    pub ip: Ipv4,
    pub ports: Ports,
}

const _: () = assert!(size_of::<Ipv4>() == 20);
