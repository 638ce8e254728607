//! Constants of the wire formats and the address types that the kernel and user space share.

/// UDP port of VXLAN (RFC 7348, section 8; IANA).
pub const VXLAN_PORT: u16 = 4789;
/// Outer Ethernet (14) + IPv4 (20) + UDP (8) + VXLAN (8), in bytes: what encapsulation adds.
pub const VXLAN_OVERHEAD: u16 = 50;
/// Bytes of the longest packet that each link must carry for IPv6 (RFC 8200, section 5). No sender of IPv6
/// makes smaller packets for a path that takes less.
pub const IPV6_MTU_MIN: u32 = 1280;
/// Smallest number that is accepted from an ICMP message about the path to a VTEP: bytes of the outer IPv4
/// packet that has the smallest packet of IPv6 inside. A smaller number would stop streams instead of slowing
/// them.
pub const PATH_MTU_MIN: u32 = IPV6_MTU_MIN + VXLAN_OVERHEAD as u32;
/// Greatest VNI that fits the header's 24 bits (RFC 7348, section 5).
pub const VNI_MAX: u32 = 0x00ff_ffff;
/// The VNI of the VXLAN device that exists only to let GRO merge VXLAN packets. No network may have it.
pub const VNI_RESERVED: u32 = VNI_MAX;
/// EtherType of the inner frame of a probe, which has [`VNI_RESERVED`]: the first of those for local experiments (IEEE 802,
/// clause 9.2.4).
pub const PROBE_ETHERTYPE: u16 = 0x88b5;
/// The inner source MAC of a probe, locally administered; the inner destination is all zeros. In the answer they are exchanged:
/// so no answer is itself taken for a probe, whatever becomes of its ports on the way.
pub const PROBE_MAC: MacBytes = [0x02, b'o', b'v', b'p', 0, 0];
/// Bytes of the longest frame with a probe that is answered, outer headers included.
pub const PROBE_LEN_MAX: u32 = 128;
/// Bit of the VXLAN header's first word, host byte order: the VNI is valid (RFC 7348, section 5, the I flag).
pub const VNI_VALID: u32 = 0x0800_0000;
/// Bit of the IPv4 header's fragment word, host byte order: the packet must not be fragmented (RFC 791).
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The bits of the type of service that are ECN (RFC 3168, section 5); the others are DSCP.
pub const TOS_ECN: u8 = 0b11;
/// First source port of an encapsulated packet (RFC 7348, section 5: the dynamic range).
pub const SOURCE_PORT_MIN: u16 = 49152;

/// The MAC of the merge pair's receiving end, locally administered. What is sent there gets it as its destination, since
/// the kernel takes a frame to any other MAC for another host's.
pub const MERGE_MAC: MacBytes = [0x02, b'o', b'v', b'm', 0, 0];

/// An address as the maps hold it: 16 bytes, big-endian, IPv4 mapped (`::ffff:a.b.c.d`).
pub type Ip16 = [u8; 16];
/// An Ethernet address, in transmission order.
pub type MacBytes = [u8; 6];
/// All zeros: no address.
pub const IP16_NONE: Ip16 = [0; 16];

/// Maps four bytes of IPv4, in network order, into the 16-byte form.
#[inline(always)]
#[must_use]
pub const fn ip16_from_v4(v4: [u8; 4]) -> Ip16 {
    let mut ip = [0; 16];
    ip[10] = 0xff;
    ip[11] = 0xff;
    ip[12] = v4[0];
    ip[13] = v4[1];
    ip[14] = v4[2];
    ip[15] = v4[3];
    ip
}

/// The IPv4 address in `ip`, if `ip` holds a mapped one.
#[must_use]
pub fn ip16_to_v4(ip: &Ip16) -> Option<[u8; 4]> {
    if ip[..10] == [0; 10] && ip[10] == 0xff && ip[11] == 0xff {
        Some([ip[12], ip[13], ip[14], ip[15]])
    } else {
        None
    }
}
