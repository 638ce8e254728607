//! To which endpoint or node an address, a device or a VTEP belongs, as the programs know it: single look-ups in
//! the pinned maps, which need no lock.

use std::path::Path;

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, PerCpuArray},
};
use overlay_common::{
    Counter, FdbEntry, FdbKey, Ip16, MacBytes, MapRow, NodeEntry, NodeKey, PortEntry, Traffic, map,
};

use super::DatapathError;

/// Views of the maps that say who is where.
pub struct Whereabouts {
    fdb: Hash<map::FDB>,
    ports: Hash<map::PORTS>,
    nodes: Hash<map::NODES>,
    traffic: PerCpuArray<MapData, Traffic>,
}

type Hash<M> = HashMap<MapData, <M as MapRow>::Key, <M as MapRow>::Value>;

impl std::fmt::Debug for Whereabouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Whereabouts").finish_non_exhaustive()
    }
}

impl Whereabouts {
    pub(super) fn open(maps: &Path) -> Result<Self, DatapathError> {
        Ok(Self {
            fdb: open::<map::FDB>(maps)?,
            ports: open::<map::PORTS>(maps)?,
            nodes: open::<map::NODES>(maps)?,
            traffic: {
                let failed = DatapathError::table(map::TRAFFIC::NAME, "opened");
                let data = MapData::from_pin(maps.join(map::TRAFFIC::NAME)).map_err(failed)?;
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

    /// What the endpoint with this slot sent and received, summed over the CPUs; `None` for slot 0, which all
    /// endpoints without a slot of their own share.
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

fn open<M: MapRow<Key: Pod, Value: Pod>>(maps: &Path) -> Result<Hash<M>, DatapathError> {
    let failed = DatapathError::table(M::SHAPE.name, "opened");
    let data = MapData::from_pin(maps.join(M::SHAPE.name)).map_err(failed)?;
    HashMap::try_from(Map::HashMap(data)).map_err(failed)
}
