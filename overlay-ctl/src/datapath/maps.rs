//! The maps: their shapes, typed views of them, and what is in them.

use std::{collections::BTreeMap, fs, io, path::Path};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError, MapInfo, MapType, PerCpuArray},
};
use nix::errno::Errno;
use overlay_common::{
    ApiKey, Config, Counter, Direction, DropReason, ENDPOINTS_MAX, EVENTS_BYTES, FdbEntry, FdbKey,
    FloodEntry, GatewayPortEntry, HopEntry, MAP_APIS, MAP_CONFIG, MAP_EVENTS, MAP_FDB, MAP_FLOOD,
    MAP_GATEWAY_PORTS, MAP_HOPS, MAP_METRICS, MAP_NEIGH, MAP_NODES, MAP_PATHS, MAP_PORTS,
    MAP_TRAFFIC, METRICS_MAX, NETWORKS_MAX, NODES_MAX, NeighEntry, NeighKey, NodeEntry, NodeKey,
    PORTS_MAX, PathMtu, PortEntry, TRAFFIC_MAX, Traffic, VXLAN_OVERHEAD, metric_index,
};

use super::{DatapathError, host::Folders};
use crate::reconcile::{TableChange, Tables};

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

/// One hash map.
struct Table<K, V> {
    name: &'static str,
    capacity: u32,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod + Ord, V: Pod> Table<K, V> {
    fn take(ebpf: &mut Ebpf, name: &'static str, capacity: u32) -> Result<Self, DatapathError> {
        let map = ebpf.take_map(name).ok_or(DatapathError::Incomplete(name))?;
        let map = HashMap::try_from(map).map_err(DatapathError::table(name, "opened"))?;
        Ok(Self { name, capacity, map })
    }

    fn read(&self) -> Result<BTreeMap<K, V>, DatapathError> {
        let read: Result<_, MapError> = self.map.iter().collect();
        read.map_err(DatapathError::table(self.name, "read"))
    }

    fn put(&mut self, key: &K, value: &V) -> Result<(), DatapathError> {
        self.map.insert(key, value, 0).map_err(|source| match errno(&source) {
            Some(Errno::E2BIG | Errno::ENOSPC) => {
                DatapathError::TableFull { name: self.name, capacity: self.capacity }
            }
            _ => DatapathError::Table { name: self.name, action: "written", source },
        })
    }

    fn delete(&mut self, key: &K) -> Result<(), DatapathError> {
        match self.map.remove(key) {
            Err(error) if errno(&error) != Some(Errno::ENOENT) => {
                Err(DatapathError::table(self.name, "written")(error))
            }
            _ => Ok(()),
        }
    }

    fn usage(&self) -> Result<MapUsage, DatapathError> {
        let mut entries = 0;
        for key in self.map.keys() {
            key.map_err(DatapathError::table(self.name, "read"))?;
            entries += 1;
        }
        Ok(MapUsage { name: self.name, entries, capacity: self.capacity })
    }
}

fn errno(error: &MapError) -> Option<Errno> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error().map(Errno::from_raw),
        _ => None,
    }
}

/// Views of all maps but EVENTS, which its reader opens.
pub(super) struct Maps {
    fdb: Table<FdbKey, FdbEntry>,
    neigh: Table<NeighKey, NeighEntry>,
    ports: Table<u32, PortEntry>,
    nodes: Table<NodeKey, NodeEntry>,
    flood: Table<u32, FloodEntry>,
    gateway_ports: Table<u32, GatewayPortEntry>,
    apis: Table<ApiKey, u64>,
    hops: Array<MapData, HopEntry>,
    traffic: PerCpuArray<MapData, Traffic>,
    config: Array<MapData, Config>,
    metrics: PerCpuArray<MapData, Counter>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let incomplete = |name| DatapathError::Incomplete(name);
        let config = ebpf.take_map(MAP_CONFIG).ok_or(incomplete(MAP_CONFIG))?;
        let metrics = ebpf.take_map(MAP_METRICS).ok_or(incomplete(MAP_METRICS))?;
        let hops = ebpf.take_map(MAP_HOPS).ok_or(incomplete(MAP_HOPS))?;
        let traffic = ebpf.take_map(MAP_TRAFFIC).ok_or(incomplete(MAP_TRAFFIC))?;
        Ok(Self {
            hops: Array::try_from(hops).map_err(DatapathError::table(MAP_HOPS, "opened"))?,
            traffic: PerCpuArray::try_from(traffic)
                .map_err(DatapathError::table(MAP_TRAFFIC, "opened"))?,
            fdb: Table::take(ebpf, MAP_FDB, ENDPOINTS_MAX)?,
            neigh: Table::take(ebpf, MAP_NEIGH, ENDPOINTS_MAX)?,
            ports: Table::take(ebpf, MAP_PORTS, PORTS_MAX)?,
            nodes: Table::take(ebpf, MAP_NODES, NODES_MAX)?,
            flood: Table::take(ebpf, MAP_FLOOD, NETWORKS_MAX)?,
            gateway_ports: Table::take(ebpf, MAP_GATEWAY_PORTS, PORTS_MAX)?,
            apis: Table::take(ebpf, MAP_APIS, NODES_MAX)?,
            config: Array::try_from(config).map_err(DatapathError::table(MAP_CONFIG, "opened"))?,
            metrics: PerCpuArray::try_from(metrics)
                .map_err(DatapathError::table(MAP_METRICS, "opened"))?,
        })
    }

    pub(super) fn tables(&self) -> Result<Tables, DatapathError> {
        let nodes = self.nodes.read()?;
        Ok(Tables {
            hops: nodes.values().map(|node| self.hop(node.hop)).collect::<Result<_, _>>()?,
            nodes,
            fdb: self.fdb.read()?,
            neigh: self.neigh.read()?,
            ports: self.ports.read()?,
            flood: self.flood.read()?,
            gateway_ports: self.gateway_ports.read()?,
            apis: self.apis.read()?,
        })
    }

    pub(super) fn write(&mut self, change: &TableChange) -> Result<(), DatapathError> {
        match change {
            TableChange::PutFdb(key, entry) => self.fdb.put(key, entry),
            TableChange::DeleteFdb(key) => self.fdb.delete(key),
            TableChange::PutNeigh(key, entry) => self.neigh.put(key, entry),
            TableChange::DeleteNeigh(key) => self.neigh.delete(key),
            TableChange::PutPort(key, entry) => self.ports.put(key, entry),
            TableChange::DeletePort(key) => self.ports.delete(key),
            TableChange::PutNode(key, entry) => self.nodes.put(key, entry),
            TableChange::DeleteNode(key) => self.nodes.delete(key),
            TableChange::PutHop(index, hop) => self.set_hop(*index, hop),
            TableChange::DeleteHop(index) => self.set_hop(*index, &NO_HOP),
            TableChange::PutFlood(key, entry) => self.flood.put(key, entry),
            TableChange::DeleteFlood(key) => self.flood.delete(key),
            TableChange::PutGatewayPort(key, entry) => self.gateway_ports.put(key, entry),
            TableChange::DeleteGatewayPort(key) => self.gateway_ports.delete(key),
            TableChange::PutApi(key, node) => self.apis.put(key, node),
            TableChange::DeleteApi(key) => self.apis.delete(key),
        }
    }

    fn hop(&self, index: u32) -> Result<(u32, HopEntry), DatapathError> {
        let hop = self.hops.get(&index, 0).map_err(DatapathError::table(MAP_HOPS, "read"))?;
        Ok((index, hop))
    }

    /// An element of an array is not replaced whole as one of a hash is. So a program must not find the
    /// device beside headers that are not the device's: it goes out first, and comes in last.
    fn set_hop(&mut self, index: u32, hop: &HopEntry) -> Result<(), DatapathError> {
        let failed = DatapathError::table(MAP_HOPS, "written");
        for step in
            [HopEntry { ifindex: 0, ..self.hop(index)?.1 }, HopEntry { ifindex: 0, ..*hop }, *hop]
        {
            self.hops.set(index, step, 0).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn usage(&self) -> Result<Vec<MapUsage>, DatapathError> {
        Ok(vec![
            self.fdb.usage()?,
            self.neigh.usage()?,
            self.ports.usage()?,
            self.nodes.usage()?,
            self.flood.usage()?,
            self.gateway_ports.usage()?,
            self.apis.usage()?,
        ])
    }

    pub(super) fn set_config(&mut self, config: &Config) -> Result<(), DatapathError> {
        self.config.set(0, config, 0).map_err(DatapathError::table(MAP_CONFIG, "written"))
    }

    /// What all endpoints sent, and received from the underlay.
    fn traffic(&self) -> Result<[Counter; 2], DatapathError> {
        let mut sums = [Counter::default(); 2];
        for slot in 0..TRAFFIC_MAX {
            let cpus =
                self.traffic.get(&slot, 0).map_err(DatapathError::table(MAP_TRAFFIC, "read"))?;
            for cpu in cpus.iter() {
                sums = [add(sums[0], &cpu.sent), add(sums[1], &cpu.received)];
            }
        }
        Ok(sums)
    }

    /// Summed over the CPUs, in the order of the reasons' numbers, forwarded ones first.
    pub(super) fn counters(
        &self,
    ) -> Result<Vec<(Option<DropReason>, Direction, Counter)>, DatapathError> {
        let reasons = std::iter::once(None).chain(DropReason::ALL.iter().copied().map(Some));
        let mut counters = Vec::new();
        let [sent, received] = self.traffic()?;
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

const NO_HOP: HopEntry =
    HopEntry { header: [0; VXLAN_OVERHEAD as usize], mtu: 0, csum: 0, ifindex: 0, flags: 0 };

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
