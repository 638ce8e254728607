//! Whose an address, a device or a VTEP is, as the programs know it: single look-ups in the pinned maps,
//! beside whoever writes them.

use std::path::Path;

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use overlay_common::{
    FdbEntry, FdbKey, Ip16, MAP_FDB, MAP_NODES, MAP_PORTS, MacBytes, NodeEntry, NodeKey, PortEntry,
};

use super::DatapathError;

/// Views of the maps that say who is where.
pub struct Whereabouts {
    fdb: HashMap<MapData, FdbKey, FdbEntry>,
    ports: HashMap<MapData, u32, PortEntry>,
    nodes: HashMap<MapData, NodeKey, NodeEntry>,
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
}

fn open<K: Pod, V: Pod>(
    maps: &Path,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, DatapathError> {
    let failed = DatapathError::table(name, "opened");
    let data = MapData::from_pin(maps.join(name)).map_err(failed)?;
    HashMap::try_from(Map::HashMap(data)).map_err(failed)
}
