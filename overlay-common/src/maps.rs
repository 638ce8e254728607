//! The table of maps: one row a map, from which programs and user space take all they know of it.

/// Capacity of FDB and of NEIGH, in entries. Not preallocated: an empty slot costs no memory.
pub const ENDPOINTS_MAX: u32 = 1 << 20;
/// Capacity of CLAIMS: IPv6 addresses that endpoints of this node's networks use. Preallocated, in less than 2 MiB.
pub const CLAIMS_MAX: u32 = 1 << 14;
/// Capacity of PORTS and of GATEWAY_PORTS: endpoints on one node.
pub const PORTS_MAX: u32 = 1 << 14;
/// Capacity of NODES, HOPS, PATHS and APIS.
pub const NODES_MAX: u32 = 1 << 14;
/// Capacity of TRAFFIC: endpoints of one node that have a slot of their own. Further endpoints share
/// slot 0.
pub const TRAFFIC_MAX: u32 = 1 << 12;
/// Networks on one node: each has a first page in FLOOD.
pub const NETWORKS_MAX: u32 = 1 << 14;
/// Capacity of FLOOD, in pages.
pub const FLOOD_CAPACITY: u32 = 2 * NETWORKS_MAX;
/// Capacity of BRIDGES: pairs of a network and a VTEP with a bridging endpoint of it, and networks with only one such
/// endpoint. Not preallocated.
pub const BRIDGES_MAX: u32 = 1 << 16;
/// Bytes of the EVENTS ring buffer. A power of two and a multiple of the page size.
pub const EVENTS_BYTES: u32 = 1 << 18;
/// Elements of METRICS. A power of two, so that a reason can be added without a new map.
pub const METRICS_MAX: u32 = 1024;

/// The version of what the maps mean: of their shapes, of the meaning of each field, and of the numbers
/// of directions and drop reasons.
///
/// User space pins the maps in a folder of this version, and moves the programs from the maps of any
/// other version to new ones (see `overlay_ctl::dataplane::datapath`). So raise it with every change that
/// a program of the version before would misread, even if all sizes stay.
pub const LAYOUT_VERSION: u32 = 6;

/// Names of maps that former layouts had and this one has not. User space removes their pins when it
/// drops such a layout.
pub const FORMER_MAPS: &[&str] = &[];

/// Calls the macro `$with` with the table of maps.
///
/// A row is `NAME: Kind<Key, Value>[capacity];` under the documentation of the map. The macro gets all
/// rows, so that each side can make of them what it needs. Names have at most 15 characters, because the
/// kernel cuts longer ones.
#[macro_export]
macro_rules! maps {
    ($with:ident) => {
        $with! {
            /// (VNI, MAC) -> the endpoint and its place.
            FDB: Hash<$crate::FdbKey, $crate::FdbEntry>[$crate::ENDPOINTS_MAX];
            /// (VNI, IP) -> MAC, for ARP answers.
            NEIGH: Hash<$crate::NeighKey, $crate::NeighEntry>[$crate::ENDPOINTS_MAX];
            /// (VNI, IPv6 address) -> the endpoint that speaks for it. The programs write it; the oldest entries
            /// go first.
            CLAIMS: LruHash<$crate::NeighKey, $crate::ClaimEntry>[$crate::CLAIMS_MAX];
            /// Host-side ifindex -> the endpoint whose veth this is.
            PORTS: Hash<u32, $crate::PortEntry>[$crate::PORTS_MAX];
            /// VTEP address -> the node and its index in HOPS.
            NODES: Hash<$crate::NodeKey, $crate::NodeEntry>[$crate::NODES_MAX];
            /// The way to each VTEP. Index 0 belongs to no VTEP.
            HOPS: Array<u32, $crate::HopEntry>[$crate::NODES_MAX];
            /// The packet sizes that routers on the way to each VTEP have reported, and how the VTEP's TCP
            /// segments arrive, under the VTEP's index in HOPS. The programs write it.
            PATHS: Array<u32, $crate::PathMtu>[$crate::NODES_MAX];
            /// What each endpoint sent and received, under its slot.
            TRAFFIC: PerCpuArray<u32, $crate::Traffic>[$crate::TRAFFIC_MAX];
            /// VNI and page -> VTEPs and local ports that receive broadcast and multicast. The first page
            /// exists for every VNI that this node holds, even if it lists none. One more page lists bridging
            /// endpoints.
            FLOOD: Hash<$crate::FloodKey, $crate::FloodEntry>[$crate::FLOOD_CAPACITY];
            /// (VNI, VTEP) -> what stations behind the bridging endpoints there may send; VNI alone -> the
            /// network's only bridging endpoint.
            BRIDGES: Hash<$crate::BridgeKey, $crate::FdbEntry>[$crate::BRIDGES_MAX];
            /// When each endpoint may do again what is limited, under its slot. The programs write it.
            LIMITS: Array<u32, $crate::Limits>[$crate::TRAFFIC_MAX];
            /// Host-side ifindex -> the endpoint whose gateway leg this is.
            GATEWAY_PORTS: Hash<u32, $crate::GatewayPortEntry>[$crate::PORTS_MAX];
            /// Addresses of the nodes' APIs, which endpoints must not reach -> the node's id.
            APIS: Hash<$crate::ApiKey, u64>[$crate::NODES_MAX];
            /// The node's configuration: one element.
            CONFIG: Array<u32, $crate::Config>[1];
            /// What was forwarded and what was dropped, under [`metric_index`]($crate::metric_index).
            METRICS: PerCpuArray<u32, $crate::Counter>[$crate::METRICS_MAX];
            /// Records of packets, for whoever monitors.
            EVENTS: RingBuf<(), $crate::Event>[$crate::EVENTS_BYTES];
        }
    };
}

/// The way in which the kernel keeps a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// A hash map whose entries are allocated when they are put.
    Hash,
    /// A hash map with room for all its entries from the start. When it is full, an entry that was not used for long
    /// goes.
    LruHash,
    /// An array: every element exists from the start, and is zero.
    Array,
    /// An array of which each CPU has its own.
    PerCpuArray,
    /// A ring buffer of records. It has no keys; its capacity is in bytes.
    RingBuf,
}

/// A map, as a type: what its row says.
pub trait MapRow {
    /// Its keys; `u32` for an array.
    type Key;
    /// Its values, or the records of a ring buffer.
    type Value;
    /// What the kernel knows of it.
    const SHAPE: MapShape;
}

/// What the kernel knows of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// Its name, in the object and as a pin.
    pub name: &'static str,
    /// How it is kept.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many entries it holds.
    pub capacity: u32,
}

impl MapShape {
    const fn new<K, V>(name: &'static str, kind: MapKind, capacity: u32) -> Self {
        assert!(name.len() <= 15, "the kernel cuts longer names");
        let (key_size, value_size) = match kind {
            // Records of any length: the kernel knows no sizes.
            MapKind::RingBuf => (0, 0),
            MapKind::Hash | MapKind::LruHash | MapKind::Array | MapKind::PerCpuArray => {
                (size_of::<K>() as u32, size_of::<V>() as u32)
            }
        };
        Self { name, kind, key_size, value_size, capacity }
    }
}

/// The maps, each a type with the map's name.
#[allow(non_camel_case_types, reason = "they are called as the maps are")]
pub mod map {
    use super::{MapKind, MapRow, MapShape};

    macro_rules! rows {
        ($($(#[$doc:meta])* $name:ident: $kind:ident<$key:ty, $value:ty>[$capacity:expr];)*) => {
            $(
                $(#[$doc])*
                #[derive(Clone, Copy, Debug)]
                pub struct $name;

                impl $name {
                    /// The map's name, in the object and as a pin.
                    pub const NAME: &str = stringify!($name);
                }

                impl MapRow for $name {
                    type Key = $key;
                    type Value = $value;
                    const SHAPE: MapShape =
                        MapShape::new::<$key, $value>(Self::NAME, MapKind::$kind, $capacity);
                }
            )*

            /// What the kernel knows of each map.
            pub const ALL: &[MapShape] = &[$($name::SHAPE,)*];
        };
    }
    crate::maps!(rows);
}

/// Index into METRICS of a reason in a direction. The reason [`FORWARDED`](crate::FORWARDED) counts
/// forwarded packets. Of the packets on a network it counts only those that TRAFFIC no longer holds,
/// because their endpoint is gone.
#[inline(always)]
#[must_use]
pub const fn metric_index(reason: u32, direction: crate::Direction) -> u32 {
    index(reason, direction as u32)
}

#[inline(always)]
const fn index(reason: u32, direction: u32) -> u32 {
    reason * DIRECTIONS_MAX + direction
}

/// Room for directions in METRICS, so that a direction can be added without moving the counters.
const DIRECTIONS_MAX: u32 = 8;

const _: () = {
    assert!(crate::Direction::COUNT < DIRECTIONS_MAX, "there is room for one more direction");
    assert!(crate::DropReason::COUNT * DIRECTIONS_MAX <= METRICS_MAX);
    assert!(EVENTS_BYTES.is_power_of_two() && EVENTS_BYTES.is_multiple_of(4096));
};

/// A number that differs when a name, a kind, a size, a capacity or the place of a counter does.
const fn fingerprint() -> u32 {
    // FNV-1a.
    const fn mix(hash: u32, number: u32) -> u32 {
        (hash ^ number).wrapping_mul(0x0100_0193)
    }
    let mut hash = mix(0x811c_9dc5, DIRECTIONS_MAX);
    let mut row = 0;
    while row < map::ALL.len() {
        let MapShape { name, kind, key_size, value_size, capacity } = map::ALL[row];
        let mut byte = 0;
        while byte < name.len() {
            hash = mix(hash, name.as_bytes()[byte] as u32);
            byte += 1;
        }
        hash = mix(mix(mix(mix(hash, kind as u32), key_size), value_size), capacity);
        row += 1;
    }
    hash
}

const _: () = assert!(
    fingerprint() == 0x44d3_c065,
    "the maps' shapes changed: raise LAYOUT_VERSION, then state the new fingerprint here"
);

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::{Direction, DropReason};
    use std::collections::BTreeSet;

    #[test]
    fn each_reason_has_a_counter_of_its_own_in_eight_directions() {
        let indexes = (0..DropReason::COUNT)
            .flat_map(|reason| (0..8).map(move |direction| index(reason, direction)));
        let distinct: BTreeSet<u32> = indexes.clone().collect();
        assert_eq!(distinct.len(), indexes.count());
        assert!(distinct.iter().all(|index| *index < METRICS_MAX));
        for direction in Direction::ALL {
            assert_eq!(metric_index(3, direction), 24 + direction as u32);
        }
    }
}
