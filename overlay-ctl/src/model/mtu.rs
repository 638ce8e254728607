//! What is left of the underlay's MTU for endpoints.

use overlay_common::VXLAN_OVERHEAD;

/// The smallest packet that IPv4 asks every link to carry (RFC 791, section 3.2), in bytes.
pub const ENDPOINT_MTU_MIN: u32 = 68;

/// How the packets of endpoints are carried over the underlay. An outer header of another kind (IPv6) is one more
/// variant: what it costs stands here and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// VXLAN over IPv4 (RFC 7348).
    VxlanIpv4,
}

impl Encapsulation {
    /// The difference between the MTU of the underlay and that of an endpoint, in bytes.
    #[must_use]
    pub const fn overhead(self) -> u32 {
        match self {
            Self::VxlanIpv4 => VXLAN_OVERHEAD as u32,
        }
    }

    /// The smallest MTU of an underlay on which endpoints can be, in bytes.
    #[must_use]
    pub const fn underlay_mtu_min(self) -> u32 {
        ENDPOINT_MTU_MIN + self.overhead()
    }
}
