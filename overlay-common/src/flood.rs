//! The pages of FLOOD: key, value, and how many there may be. The invariants are those of the other entries.

/// VTEPs, and also local ports, on one page of FLOOD.
pub const FLOOD_MAX: usize = 64;
/// Greatest number of pages of one network. The verifier walks each round of the programs' loops, so there is an end.
pub const FLOOD_PAGES: u32 = 4;

/// Key of FLOOD.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FloodKey {
    /// Network, host byte order.
    pub vni: u32,
    /// Number of the page, below [`FLOOD_PAGES`], or [`FLOOD_BRIDGING`].
    pub page: u32,
}

/// Number of the page that lists bridging endpoints and the VTEPs with some, in the form of a first page. They get the
/// frames to stations that no map has. The page exists for each network with a bridging endpoint that is not down on this node. Those for which it
/// has no room get none of these frames.
pub const FLOOD_BRIDGING: u32 = FLOOD_PAGES;

impl FloodKey {
    /// The key of the network's first page, which exists for each network that the node holds.
    #[inline(always)]
    #[must_use]
    pub const fn first(vni: u32) -> Self {
        Self { vni, page: 0 }
    }

    /// The key of the network's page of bridging endpoints.
    #[inline(always)]
    #[must_use]
    pub const fn bridging(vni: u32) -> Self {
        Self { vni, page: FLOOD_BRIDGING }
    }
}

/// Value of FLOOD: one page of receivers of a network's broadcast and multicast, or of frames to unknown stations. Each list is continued on the next
/// page if this one is full.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodEntry {
    /// Number of filled elements of `hops`.
    pub hop_count: u32,
    /// Number of filled elements of `ports`.
    pub port_count: u32,
    /// On the first page: VTEPs that are on no page. On others 0.
    pub lost_hops: u32,
    /// On the first page: ports that are on no page. On others 0.
    pub lost_ports: u32,
    /// VTEPs with an endpoint of the network, by their indexes in HOPS.
    pub hops: [u32; FLOOD_MAX],
    /// Host-side ifindexes of the network's endpoints on this node.
    pub ports: [u32; FLOOD_MAX],
}

impl FloodEntry {
    /// A page without receivers.
    pub const EMPTY: Self = Self {
        hop_count: 0,
        port_count: 0,
        lost_hops: 0,
        lost_ports: 0,
        hops: [0; FLOOD_MAX],
        ports: [0; FLOOD_MAX],
    };
}
