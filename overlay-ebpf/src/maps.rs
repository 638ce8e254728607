//! The maps, made of overlay-common's table, and what the programs look up in them.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use overlay_common::{
    ApiKey, BridgeKey, ClaimEntry, Config, FdbEntry, FdbKey, FloodEntry, FloodKey,
    GatewayPortEntry, HopEntry, MacBytes, NeighEntry, NeighKey, NodeEntry, NodeKey, PathMtu,
    PortEntry,
};

const LAZY: usize = BPF_F_NO_PREALLOC as usize;

macro_rules! statics {
    ($($(#[$doc:meta])* $name:ident: $kind:ident<$key:ty, $value:ty>[$capacity:expr];)*) => {
        $(one_static!($kind $name, $key, $value, { $capacity as usize });)*
    };
}

macro_rules! one_static {
    (Hash $name:ident, $key:ty, $value:ty, $capacity:expr) => {
        #[btf_map]
        pub static $name: HashMap<$key, $value, $capacity, LAZY> = HashMap::new();
    };
    (LruHash $name:ident, $key:ty, $value:ty, $capacity:expr) => {
        #[btf_map]
        pub static $name: LruHashMap<$key, $value, $capacity> = LruHashMap::new();
    };
    (Array $name:ident, $key:ty, $value:ty, $capacity:expr) => {
        #[btf_map]
        pub static $name: Array<$value, $capacity> = Array::new();
    };
    (PerCpuArray $name:ident, $key:ty, $value:ty, $capacity:expr) => {
        #[btf_map]
        pub static $name: PerCpuArray<$value, $capacity> = PerCpuArray::new();
    };
    (RingBuf $name:ident, $key:ty, $value:ty, $capacity:expr) => {
        #[btf_map]
        pub static $name: RingBuf<$value, $capacity> = RingBuf::new();
    };
}

overlay_common::maps!(statics);

macro_rules! lookup {
    ($(#[$doc:meta])* $name:ident($map:ident: $key:ty) -> $value:ty) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(key: &$key) -> Option<&'static $value> {
            // SAFETY: user space replaces values whole, and the kernel frees a deleted element only
            // after the program has returned (RCU). No value is read half-old, half-new, because an
            // update of a hash map puts a new element in place of the old one.
            unsafe { $map.get(key) }
        }
    };
}

lookup!(fdb(FDB: FdbKey) -> FdbEntry);
lookup!(neigh(NEIGH: NeighKey) -> NeighEntry);
lookup!(claim(CLAIMS: NeighKey) -> ClaimEntry);
lookup!(port(PORTS: u32) -> PortEntry);
lookup!(node(NODES: NodeKey) -> NodeEntry);
lookup!(flood(FLOOD: FloodKey) -> FloodEntry);
lookup!(bridge(BRIDGES: BridgeKey) -> FdbEntry);
lookup!(gateway_port(GATEWAY_PORTS: u32) -> GatewayPortEntry);
lookup!(api(APIS: ApiKey) -> u64);

/// The way to the VTEP with this index in HOPS; `None` also if user space has not written it.
#[inline(always)]
pub fn hop(index: u32) -> Option<&'static HopEntry> {
    // A value that is read half-old, half-new does no harm: user space takes the device out of it before
    // it changes the rest.
    HOPS.get(index).filter(|hop| hop.mtu != 0)
}

/// What routers reported of the way with this index in HOPS.
#[inline(always)]
pub fn path(index: u32) -> Option<&'static PathMtu> {
    PATHS.get(index)
}

/// The node's configuration, as it is: all zeros before user space has written it. An array has all its elements, so
/// there is always one.
#[inline(always)]
pub fn config_or_zeros() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// The node's configuration; `None` before user space has written it.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0).filter(|config| config.underlay_ifindex != 0)
}

/// A key of FDB, made of words: byte by byte it would take a dozen more stores. It is a whole number of the
/// stack's words long, because the verifier takes only aligned stores there.
#[repr(C)]
pub struct FdbWords {
    first: u64,
    second: u64,
}

impl FdbWords {
    /// The key of the MAC in the lower six bytes of `mac`.
    #[inline(always)]
    pub fn new(vni: u32, mac: u64) -> Self {
        Self { first: u64::from(vni) | mac << 32, second: u64::from((mac >> 32) as u16) }
    }

    /// The key of this MAC.
    #[inline(always)]
    pub fn of(vni: u32, mac: MacBytes) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self::new(vni, u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    #[inline(always)]
    pub fn key(&self) -> &FdbKey {
        const {
            assert!(
                size_of::<FdbKey>() <= size_of::<Self>()
                    && align_of::<FdbKey>() <= align_of::<Self>()
            )
        }
        // SAFETY: long enough and aligned (above); a key begins with its VNI and MAC, in this order
        // (repr(C)), and any bytes are one.
        unsafe { &*core::ptr::from_ref(self).cast::<FdbKey>() }
    }
}
