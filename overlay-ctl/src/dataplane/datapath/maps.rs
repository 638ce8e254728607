//! The maps: their shapes, typed views of them, and what is in them.

use std::{collections::BTreeSet, fs, io, path::Path};

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError, MapInfo, MapType, PerCpuArray, PerCpuValues},
};
use overlay_common::{
    ApiKey, Config, Counter, Direction, DropReason, ENDPOINTS_MAX, EVENTS_BYTES, FdbEntry, FdbKey,
    FloodEntry, GatewayPortEntry, HopEntry, MAP_APIS, MAP_CONFIG, MAP_EVENTS, MAP_FDB, MAP_FLOOD,
    MAP_GATEWAY_PORTS, MAP_HOPS, MAP_METRICS, MAP_NEIGH, MAP_NODES, MAP_PATHS, MAP_PORTS,
    MAP_TRAFFIC, METRICS_MAX, NETWORKS_MAX, NODES_MAX, NeighEntry, NeighKey, NodeEntry, NodeKey,
    PORTS_MAX, PathMtu, PortEntry, TRAFFIC_MAX, Traffic, metric_index,
};

use super::{DatapathError, host::Folders, reader::HashTables, traffic::TrafficMap};

/// What a map must look like, so that programs and controllers of several versions may share it.
struct Shape {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    capacity: u32,
}

impl Shape {
    const fn new<K, V>(name: &'static str, kind: MapType, capacity: u32) -> Self {
        Self { name, kind, key: size_of::<K>(), value: size_of::<V>(), capacity }
    }
}

const SHAPES: [Shape; 13] = [
    Shape::new::<FdbKey, FdbEntry>(MAP_FDB, MapType::Hash, ENDPOINTS_MAX),
    Shape::new::<NeighKey, NeighEntry>(MAP_NEIGH, MapType::Hash, ENDPOINTS_MAX),
    Shape::new::<u32, PortEntry>(MAP_PORTS, MapType::Hash, PORTS_MAX),
    Shape::new::<NodeKey, NodeEntry>(MAP_NODES, MapType::Hash, NODES_MAX),
    Shape::new::<u32, HopEntry>(MAP_HOPS, MapType::Array, NODES_MAX),
    Shape::new::<u32, PathMtu>(MAP_PATHS, MapType::Array, NODES_MAX),
    Shape::new::<u32, Traffic>(MAP_TRAFFIC, MapType::PerCpuArray, TRAFFIC_MAX),
    Shape::new::<u32, FloodEntry>(MAP_FLOOD, MapType::Hash, NETWORKS_MAX),
    Shape::new::<u32, GatewayPortEntry>(MAP_GATEWAY_PORTS, MapType::Hash, PORTS_MAX),
    Shape::new::<ApiKey, u64>(MAP_APIS, MapType::Hash, NODES_MAX),
    Shape::new::<u32, Config>(MAP_CONFIG, MapType::Array, 1),
    Shape::new::<u32, Counter>(MAP_METRICS, MapType::PerCpuArray, METRICS_MAX),
    Shape::new::<(), ()>(MAP_EVENTS, MapType::RingBuf, EVENTS_BYTES),
];

/// Every map's name.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.name)
}

/// How full a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapUsage {
    /// Its name.
    pub name: &'static str,
    /// Entries in it.
    pub entries: u32,
    /// Entries that fit.
    pub capacity: u32,
}

/// Views of all maps but EVENTS, which its reader opens.
pub(super) struct Maps {
    pub(super) tables: HashTables,
    traffic: TrafficMap,
    config: Array<MapData, Config>,
    metrics: PerCpuArray<MapData, Counter>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let incomplete = |name| DatapathError::Incomplete(name);
        let config = ebpf.take_map(MAP_CONFIG).ok_or(incomplete(MAP_CONFIG))?;
        let metrics = ebpf.take_map(MAP_METRICS).ok_or(incomplete(MAP_METRICS))?;
        Ok(Self {
            tables: HashTables::take(ebpf)?,
            traffic: TrafficMap::take(ebpf)?,
            config: Array::try_from(config).map_err(DatapathError::table(MAP_CONFIG, "opened"))?,
            metrics: PerCpuArray::try_from(metrics)
                .map_err(DatapathError::table(MAP_METRICS, "opened"))?,
        })
    }

    pub(super) fn set_config(&mut self, config: &Config) -> Result<(), DatapathError> {
        self.config.set(0, config, 0).map_err(DatapathError::table(MAP_CONFIG, "written"))
    }

    /// Adds what these slots of TRAFFIC counted to METRICS, CPU by CPU, and empties them. The programs
    /// count nothing of a network in that element of METRICS, and in a slot that no port has.
    pub(super) fn free_slots(&mut self, slots: &BTreeSet<u32>) -> Result<(), DatapathError> {
        for counted in self.traffic.take_out(slots)? {
            self.add_forwarded(Direction::FromEndpoint, counted.iter().map(|cpu| cpu.sent))?;
            self.add_forwarded(Direction::FromUnderlay, counted.iter().map(|cpu| cpu.received))?;
        }
        Ok(())
    }

    fn add_forwarded(
        &mut self,
        direction: Direction,
        counted: impl Iterator<Item = Counter>,
    ) -> Result<(), DatapathError> {
        let failed = DatapathError::table(MAP_METRICS, "written");
        let index = metric_index(0, direction);
        let before = self.metrics.get(&index, 0).map_err(failed)?;
        let sums: Vec<Counter> = before.iter().zip(counted).map(|(a, b)| add(*a, &b)).collect();
        let sums =
            PerCpuValues::try_from(sums).map_err(|error| failed(MapError::IoError(error)))?;
        self.metrics.set(index, sums, 0).map_err(failed)
    }

    /// Summed over the CPUs, in the order of the reasons' numbers, forwarded ones first.
    pub(super) fn counters(
        &self,
    ) -> Result<Vec<(Option<DropReason>, Direction, Counter)>, DatapathError> {
        let reasons = std::iter::once(None).chain(DropReason::ALL.iter().copied().map(Some));
        let mut counters = Vec::new();
        let (mut sent, mut received) = (Counter::default(), Counter::default());
        self.traffic.for_each(|_, cpus| {
            sent = cpus.iter().fold(sent, |sum, cpu| add(sum, &cpu.sent));
            received = cpus.iter().fold(received, |sum, cpu| add(sum, &cpu.received));
        })?;
        for reason in reasons {
            for direction in Direction::ALL {
                let index = metric_index(reason.map_or(0, |reason| reason as u32), direction);
                let cpus = self
                    .metrics
                    .get(&index, 0)
                    .map_err(DatapathError::table(MAP_METRICS, "read"))?;
                let mut sum = cpus.iter().fold(Counter::default(), add);
                match (reason, direction) {
                    (None, Direction::FromEndpoint) => sum = add(sum, &sent),
                    (None, Direction::FromUnderlay) => sum = add(sum, &received),
                    _ => {}
                }
                counters.push((reason, direction, sum));
            }
        }
        Ok(counters)
    }
}

fn add(sum: Counter, more: &Counter) -> Counter {
    Counter {
        packets: sum.packets.wrapping_add(more.packets),
        bytes: sum.bytes.wrapping_add(more.bytes),
    }
}

/// What is pinned can be used by this version; what is not pinned yet will be made.
pub(super) fn check_shapes(folders: &Folders) -> Result<(), DatapathError> {
    for shape in &SHAPES {
        let path = folders.maps.join(shape.name);
        if !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path).map_err(DatapathError::table(shape.name, "opened"))?;
        if let Some(difference) = difference(shape, &info) {
            let folder = folders.root.clone();
            return Err(DatapathError::MapShape { name: shape.name, path, folder, difference });
        }
    }
    Ok(())
}

fn difference(shape: &Shape, info: &MapInfo) -> Option<String> {
    let (key, value) = (info.key_size() as usize, info.value_size() as usize);
    if info.map_type().ok() != Some(shape.kind) {
        Some("it is a map of another kind".to_owned())
    } else if key != shape.key {
        Some(format!("its keys have {key} bytes, not {}", shape.key))
    } else if value != shape.value {
        Some(format!("its values have {value} bytes, not {}", shape.value))
    } else if info.max_entries() != shape.capacity {
        Some(format!("it holds {}, not {}", info.max_entries(), shape.capacity))
    } else {
        None
    }
}

/// Removes the pins; a map goes when the last program that uses it does.
pub(super) fn remove_pins(folder: &Path) -> Result<(), DatapathError> {
    for name in names() {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DatapathError::folder(path, "removed")(error));
            }
            _ => {}
        }
    }
    Ok(())
}
