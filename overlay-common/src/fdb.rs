//! FDB, and BRIDGES, whose values are entries as in FDB. The invariants are those of the other entries.

use crate::wire::{IP16_NONE, Ip16, MacBytes};

/// Key of FDB.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbKey {
    /// Network, host byte order.
    pub vni: u32,
    /// MAC of the endpoint.
    pub mac: MacBytes,
    /// Zero.
    pub pad: [u8; 2],
}

/// Value of FDB. A single lookup of a packet's source gives all that its MAC, its address and its VTEP
/// are checked against.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The VTEP the endpoint is behind; all zero if the endpoint is on this node.
    pub vtep: Ip16,
    /// The endpoint's own address.
    pub ip: Ip16,
    /// Host-side ifindex of the endpoint's veth; 0 if the endpoint is behind a VTEP.
    pub ifindex: u32,
    /// `FLAG_…`
    pub flags: u32,
    /// The endpoint's id, which is the revision that created it.
    pub endpoint: u64,
    /// One number for both kinds of endpoint, since the entry has no room for two: [`FdbEntry::hop`] or
    /// [`FdbEntry::slot`].
    hop_or_slot: u32,
    /// Zero.
    pad: u32,
}

impl FdbEntry {
    /// The entry of an endpoint on this node: `slot` is its index in TRAFFIC.
    #[must_use]
    pub const fn here(endpoint: u64, ip: Ip16, flags: u32, ifindex: u32, slot: u32) -> Self {
        Self { vtep: IP16_NONE, ip, ifindex, flags, endpoint, hop_or_slot: slot, pad: 0 }
    }

    /// The entry of an endpoint behind a VTEP: `hop` is the VTEP's index in HOPS.
    #[must_use]
    pub const fn behind(endpoint: u64, ip: Ip16, flags: u32, vtep: Ip16, hop: u32) -> Self {
        Self { vtep, ip, ifindex: 0, flags, endpoint, hop_or_slot: hop, pad: 0 }
    }

    /// The entry of an endpoint that nothing can be delivered to: its namespace has gone, or the node does not know its
    /// VTEP. Its MAC stays its own.
    #[must_use]
    pub const fn nowhere(endpoint: u64, ip: Ip16, flags: u32) -> Self {
        Self::behind(endpoint, ip, flags, IP16_NONE, 0)
    }

    /// Returns true if the endpoint is on this node, or behind a VTEP.
    #[inline(always)]
    #[must_use]
    pub const fn is_somewhere(&self) -> bool {
        self.ifindex | self.hop_or_slot != 0
    }

    /// Returns true if the endpoint is on this node.
    #[inline(always)]
    #[must_use]
    pub const fn is_here(&self) -> bool {
        self.ifindex != 0
    }

    /// Index in HOPS of the VTEP that the endpoint is behind; 0, which belongs to no VTEP, if the
    /// endpoint is on this node.
    #[inline(always)]
    #[must_use]
    pub const fn hop(&self) -> u32 {
        if self.is_here() { 0 } else { self.hop_or_slot }
    }

    /// Index in TRAFFIC where the endpoint's packets are counted; 0, which all endpoints without a slot
    /// of their own share, if the endpoint is behind a VTEP.
    #[inline(always)]
    #[must_use]
    pub const fn slot(&self) -> u32 {
        if self.is_here() { self.hop_or_slot } else { 0 }
    }
}

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

    /// The key of the network's only bridging endpoint, on this node or on another; one of this node that is down does not
    /// count. A network with several has no such entry.
    #[inline(always)]
    #[must_use]
    pub const fn only(vni: u32) -> Self {
        Self { vtep: IP16_NONE, vni }
    }
}
