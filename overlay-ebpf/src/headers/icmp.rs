//! The messages of ICMP and ICMPv6 that are about a packet.

use super::{ipv4::Ipv4, ipv6::Ipv6};

/// An ICMP message about a packet, up to the IPv4 header of that packet, which it quotes (RFC 792).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct IcmpAbout {
    kind: u8,
    code: u8,
    check: u16,
    rest: u16,
    /// In "fragmentation needed" alone.
    mtu: u16,
    quoted: Ipv4,
}

impl IcmpAbout {
    /// Where the packet size of "fragmentation needed" lies.
    pub const MTU_AT: usize = core::mem::offset_of!(Self, mtu);
    /// Where the destination of the quoted packet lies.
    pub const DESTINATION_AT: usize =
        core::mem::offset_of!(Self, quoted) + core::mem::offset_of!(Ipv4, dst);

    /// Whether messages of this kind are about a packet: destination unreachable, source quench, redirect, time
    /// exceeded, parameter problem.
    #[inline(always)]
    pub fn is(kind: u8) -> bool {
        matches!(kind, 3..=5 | 11 | 12)
    }

    #[inline(always)]
    pub fn is_redirect(kind: u8) -> bool {
        kind == 5
    }

    /// Whether this is "fragmentation needed" (RFC 1191, section 4).
    #[inline(always)]
    pub fn is_too_big(kind: u8, code: u8) -> bool {
        (kind, code) == TooBig::IPV4
    }
}

/// An ICMPv6 error, up to the destination of the packet that it quotes (RFC 4443, section 2.1).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Icmpv6About {
    kind: u8,
    code: u8,
    check: u16,
    rest: u32,
    quoted: Ipv6,
}

impl Icmpv6About {
    pub const TOO_BIG: u8 = TooBig::IPV6.0;
    /// Where the destination of the quoted packet lies.
    pub const DESTINATION_AT: usize =
        core::mem::offset_of!(Self, quoted) + core::mem::offset_of!(Ipv6, dst);

    /// Whether messages of this kind are errors, also those that nobody knows.
    #[inline(always)]
    pub fn is(kind: u8) -> bool {
        kind < 128
    }
}

/// ICMP's and ICMPv6's "the packet is too big" (RFC 1191, section 4; RFC 4443, section 3.2).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct TooBig {
    kind: u8,
    code: u8,
    check: u16,
    /// IPv6 uses all 32 bits, IPv4 the last 16.
    mtu: u32,
}

impl TooBig {
    const IPV4: (u8, u8) = (3, 4);
    const IPV6: (u8, u8) = (2, 0);

    /// The message, still without its checksum.
    #[inline(always)]
    pub fn ipv4(mtu: u32) -> Self {
        Self { kind: Self::IPV4.0, code: Self::IPV4.1, check: 0, mtu: mtu.to_be() }
    }

    /// The message, still without its checksum.
    #[inline(always)]
    pub fn ipv6(mtu: u32) -> Self {
        Self { kind: Self::IPV6.0, code: Self::IPV6.1, check: 0, mtu: mtu.to_be() }
    }

    /// Bytes of the longest packet that gets through, if this is the IPv4 message; 0 from an old router,
    /// which does not say.
    #[inline(always)]
    pub fn ipv4_mtu(&self) -> Option<u32> {
        ((self.kind, self.code) == Self::IPV4).then(|| u32::from_be(self.mtu) & 0xffff)
    }

    /// Sets the checksum, given the folded sum of the message.
    #[inline(always)]
    pub fn set_check(&mut self, sum: u16) {
        self.check = !sum;
    }
}

const _: () = assert!(size_of::<TooBig>() == 8 && size_of::<IcmpAbout>() == 28);
