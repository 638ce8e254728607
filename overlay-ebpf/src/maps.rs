//! The maps. Keys, values, names and capacities are overlay-common's.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use overlay_common::{
    ApiKey, Config, Counter, ENDPOINTS_MAX, EVENTS_BYTES, Event, FdbEntry, FdbKey, FloodEntry,
    GatewayPortEntry, HopEntry, METRICS_MAX, NETWORKS_MAX, NODES_MAX, NeighEntry, NeighKey,
    NodeEntry, NodeKey, PORTS_MAX, PathMtu, PortEntry, TRAFFIC_MAX, Traffic,
};

const LAZY: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static FDB: HashMap<FdbKey, FdbEntry, { ENDPOINTS_MAX as usize }, LAZY> = HashMap::new();

#[btf_map]
pub static NEIGH: HashMap<NeighKey, NeighEntry, { ENDPOINTS_MAX as usize }, LAZY> = HashMap::new();

#[btf_map]
pub static PORTS: HashMap<u32, PortEntry, { PORTS_MAX as usize }, LAZY> = HashMap::new();

#[btf_map]
pub static NODES: HashMap<NodeKey, NodeEntry, { NODES_MAX as usize }, LAZY> = HashMap::new();

#[btf_map]
pub static HOPS: Array<HopEntry, { NODES_MAX as usize }> = Array::new();

#[btf_map]
pub static PATHS: Array<PathMtu, { NODES_MAX as usize }> = Array::new();

#[btf_map]
pub static TRAFFIC: PerCpuArray<Traffic, { TRAFFIC_MAX as usize }> = PerCpuArray::new();

#[btf_map]
pub static FLOOD: HashMap<u32, FloodEntry, { NETWORKS_MAX as usize }, LAZY> = HashMap::new();

#[btf_map]
pub static GATEWAY_PORTS: HashMap<u32, GatewayPortEntry, { PORTS_MAX as usize }, LAZY> =
    HashMap::new();

#[btf_map]
pub static APIS: HashMap<ApiKey, u64, { NODES_MAX as usize }, LAZY> = HashMap::new();

#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();

#[btf_map]
pub static METRICS: PerCpuArray<Counter, { METRICS_MAX as usize }> = PerCpuArray::new();

#[btf_map]
pub static EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();

macro_rules! lookup {
    ($(#[$doc:meta])* $name:ident($map:ident: $key:ty) -> $value:ty) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(key: &$key) -> Option<&'static $value> {
            // SAFETY: user space replaces values whole, and the kernel frees a deleted element only
            // after the program has returned (RCU); a value read half-old, half-new can't be, since
            // an update of a hash map puts a new element in place of the old one.
            unsafe { $map.get(key) }
        }
    };
}

lookup!(fdb(FDB: FdbKey) -> FdbEntry);
lookup!(neigh(NEIGH: NeighKey) -> NeighEntry);
lookup!(port(PORTS: u32) -> PortEntry);
lookup!(node(NODES: NodeKey) -> NodeEntry);
lookup!(flood(FLOOD: u32) -> FloodEntry);
lookup!(gateway_port(GATEWAY_PORTS: u32) -> GatewayPortEntry);
lookup!(api(APIS: ApiKey) -> u64);

/// The way to the VTEP with this index in HOPS; `None` also where user space has not written it.
#[inline(always)]
pub fn hop(index: u32) -> Option<&'static HopEntry> {
    // A torn value is no danger: user space takes the device out of it before it changes the rest.
    HOPS.get(index).filter(|hop| hop.mtu != 0)
}

/// What routers said of the way with this index in HOPS.
#[inline(always)]
pub fn path(index: u32) -> Option<&'static PathMtu> {
    PATHS.get(index)
}

/// The node's configuration; `None` before user space has written it.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0).filter(|config| config.underlay_ifindex != 0)
}
