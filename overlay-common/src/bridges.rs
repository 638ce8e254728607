//! The key of BRIDGES. The invariants are those of the other entries.

use crate::wire::{IP16_NONE, Ip16};

/// Key of BRIDGES, whose values are entries as in FDB: they stand for the stations behind bridging endpoints, whose MACs
/// no map has.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeKey {
    /// The VTEP that bridging endpoints are behind; all zero for the network's only one.
    pub vtep: Ip16,
    /// Network, host byte order.
    pub vni: u32,
}

impl BridgeKey {
    /// The key of what stations behind this VTEP may send: an entry without an address, with the flags of all bridging
    /// endpoints there.
    #[inline(always)]
    #[must_use]
    pub const fn behind(vni: u32, vtep: Ip16) -> Self {
        Self { vtep, vni }
    }

    /// The key of the network's only bridging endpoint, on this node or on another. A network with several has no such
    /// entry.
    #[inline(always)]
    #[must_use]
    pub const fn only(vni: u32) -> Self {
        Self { vtep: IP16_NONE, vni }
    }
}
