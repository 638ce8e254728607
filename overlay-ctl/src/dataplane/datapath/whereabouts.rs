//! Whose an address, a device or a VTEP is, as the programs know it: single look-ups in the pinned maps,
//! beside whoever writes them.

use std::path::Path;

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, PerCpuArray},
};
use overlay_common::{
    Counter, FdbEntry, FdbKey, Ip16, MAP_FDB, MAP_NODES, MAP_PORTS, MAP_TRAFFIC, MacBytes,
    NodeEntry, NodeKey, PortEntry, Traffic,
};

use super::DatapathError;

/// Views of the maps that say who is where.
pub struct Whereabouts {
    fdb: HashMap<MapData, FdbKey, FdbEntry>,
    ports: HashMap<MapData, u32, PortEntry>,
    nodes: HashMap<MapData, NodeKey, NodeEntry>,
    traffic: PerCpuArray<MapData, Traffic>,
}

impl std::fmt::Debug for Whereabouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Whereabouts").finish_non_exhaustive()
    }
}

impl Whereabouts {
    pub(super) fn open(maps: &Path) -> Result<Self, DatapathError> {
        Ok(Self {
            fdb: open(maps, MAP_FDB)?,
            ports: open(maps, MAP_PORTS)?,
            nodes: open(maps, MAP_NODES)?,
            traffic: {
                let failed = DatapathError::table(MAP_TRAFFIC, "opened");
                let data = MapData::from_pin(maps.join(MAP_TRAFFIC)).map_err(failed)?;
                PerCpuArray::try_from(Map::PerCpuArray(data)).map_err(failed)?
            },
        })
    }

    /// The endpoint of a network that has this MAC.
    #[must_use]
    pub fn endpoint(&self, vni: u32, mac: MacBytes) -> Option<FdbEntry> {
        self.fdb.get(&FdbKey { vni, mac, pad: [0; 2] }, 0).ok()
    }

    /// The endpoint whose port this host-side device is.
    #[must_use]
    pub fn port(&self, ifindex: u32) -> Option<PortEntry> {
        self.ports.get(&ifindex, 0).ok()
    }

    /// The other node that has this VTEP.
    #[must_use]
    pub fn node(&self, vtep: Ip16) -> Option<NodeEntry> {
        self.nodes.get(&NodeKey { vtep }, 0).ok()
    }

    /// What the endpoint with this slot sent and received, summed over the CPUs; `None` = the slot is
    /// everybody's who has none.
    #[must_use]
    pub fn traffic(&self, slot: u32) -> Option<Traffic> {
        if slot == 0 {
            return None;
        }
        let cpus = self.traffic.get(&slot, 0).ok()?;
        Some(cpus.iter().fold(Traffic::default(), |sum, cpu| Traffic {
            sent: add(sum.sent, cpu.sent),
            received: add(sum.received, cpu.received),
            from_neighbours: add(sum.from_neighbours, cpu.from_neighbours),
            dropped: add(sum.dropped, cpu.dropped),
        }))
    }
}

fn add(a: Counter, b: Counter) -> Counter {
    Counter { packets: a.packets.wrapping_add(b.packets), bytes: a.bytes.wrapping_add(b.bytes) }
}

fn open<K: Pod, V: Pod>(
    maps: &Path,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, DatapathError> {
    let failed = DatapathError::table(name, "opened");
    let data = MapData::from_pin(maps.join(name)).map_err(failed)?;
    HashMap::try_from(Map::HashMap(data)).map_err(failed)
}
