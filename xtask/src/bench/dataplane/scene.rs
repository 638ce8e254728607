//! The terms that rows and contestants share: the places of the two ends, the packets on the wire, and the
//! contestants.

/// The places of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bench) enum Place {
    /// On two hosts, which are connected by a wire of this MTU.
    TwoHosts { mtu: u32 },
    /// On one host.
    OneHost,
    /// On two hosts whose maps are full of other endpoints.
    Crowd,
}

/// The packets on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bench) enum Wire {
    /// Super-packets of 64 KiB: a device that segments takes them.
    Tso,
    /// Packets of the wire's MTU, which the sender makes and the receiver merges.
    Packets,
}

pub(in crate::bench) const UNDERLAY: &str = "underlay";
pub(in crate::bench) const KERNEL: &str = "kernel VXLAN + bridge";
pub(in crate::bench) const DOCKER: &str = "Docker's overlay";
pub(in crate::bench) const BRIDGE: &str = "bridge";
pub(in crate::bench) const OURS: &str = "ours";
pub(in crate::bench) const HUNDRED: &str = "ours, 100";
pub(in crate::bench) const MILLION: &str = "ours, 1,000,000";
/// All contestants, in the order in which they are printed.
pub(in crate::bench) const ALL: [&str; 7] =
    [UNDERLAY, BRIDGE, KERNEL, DOCKER, OURS, HUNDRED, MILLION];
