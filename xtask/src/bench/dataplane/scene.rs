//! The terms that rows and contestants share: the places of the two ends, the packets on the wire, and the
//! contestants.

/// What is between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bench) enum Topology {
    /// One wire: a veth with a host at each end, which takes super-packets of any size.
    Wire,
    /// For each host a bridge, and a router between the bridges. Their devices have the kernel's default sizes.
    Router,
}

/// The network between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bench) struct Underlay {
    pub(in crate::bench) topology: Topology,
    pub(in crate::bench) mtu: u32,
}

impl Underlay {
    /// The two hosts of most rows: one wire, with the MTU of Ethernet.
    pub(in crate::bench) const USUAL: Self = Self { topology: Topology::Wire, mtu: 1500 };
}

/// The places of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bench) enum Place {
    /// On two hosts, which this underlay connects.
    TwoHosts(Underlay),
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
/// Two hosts as in [`UNDERLAY`], each of which also runs a node of this project.
pub(in crate::bench) const BESIDE: &str = "underlay beside ours";
pub(in crate::bench) const HUNDRED: &str = "ours, 100";
pub(in crate::bench) const MILLION: &str = "ours, 1,000,000";
/// All contestants, in the order in which they are printed.
pub(in crate::bench) const ALL: [&str; 8] =
    [UNDERLAY, BESIDE, BRIDGE, KERNEL, DOCKER, OURS, HUNDRED, MILLION];
