//! The hash maps as a whole: written in batches, read without the data path's lock.

use std::{
    borrow::Borrow as _,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aya::Ebpf;
use overlay_common::{
    ApiKey, ENDPOINTS_MAX, FdbEntry, FdbKey, FloodEntry, GatewayPortEntry, HopEntry, MAP_APIS,
    MAP_FDB, MAP_FLOOD, MAP_GATEWAY_PORTS, MAP_NEIGH, MAP_NODES, MAP_PORTS, NETWORKS_MAX,
    NODES_MAX, NeighEntry, NeighKey, NodeEntry, NodeKey, PORTS_MAX, PortEntry,
};

use super::{
    DatapathError, MapUsage,
    batch::Cursor,
    table::{Hops, NO_HOP, Table},
};
use crate::dataplane::kernel::{TableChange, Tables};

/// Some entries of a table, and where to go on; `None` after the last one.
type Page<K, V> = (Vec<(K, V)>, Option<Cursor>);

/// Counting entries takes at most this share of one CPU, however often it is asked for.
const COUNTING_SHARE: u32 = 100;
/// What took no longer is counted anew each time.
const CHEAP: Duration = Duration::from_millis(20);

/// Reads the tables. Needs no lock, so that a long look at a large table holds nobody up: clones are
/// handles of the same maps.
#[derive(Clone)]
pub struct TableReader {
    tables: HashTables,
    counted: Arc<Mutex<Option<Counted>>>,
}

struct Counted {
    at: Instant,
    took: Duration,
    usage: Vec<MapUsage>,
}

impl std::fmt::Debug for TableReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableReader").finish_non_exhaustive()
    }
}

impl TableReader {
    pub(super) fn new(tables: HashTables) -> Self {
        Self { tables, counted: Arc::default() }
    }

    /// Every entry of all tables.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn tables(&self) -> Result<Tables, DatapathError> {
        Ok(Tables {
            fdb: self.tables.fdb.read()?,
            neigh: self.tables.neigh.read()?,
            ..self.small()?
        })
    }

    /// Every entry of the tables that grow with the node and not with the cluster's endpoints: all but
    /// the FDB and the neighbours, which are left empty.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn small(&self) -> Result<Tables, DatapathError> {
        let nodes = self.tables.nodes.read()?;
        Ok(Tables {
            ports: self.tables.ports.read()?,
            hops: self.tables.hops(&nodes)?,
            nodes,
            flood: self.tables.flood.read()?,
            gateway_ports: self.tables.gateway_ports.read()?,
            apis: self.tables.apis.read()?,
            ..Tables::default()
        })
    }

    /// Some thousand entries of the FDB behind `cursor`; the second says where to go on, `None` after
    /// the last one.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn fdb_behind(
        &self,
        cursor: Option<Cursor>,
    ) -> Result<Page<FdbKey, FdbEntry>, DatapathError> {
        let mut entries = Vec::new();
        let cursor = self.tables.fdb.read_on(cursor, &mut entries)?;
        Ok((entries, cursor))
    }

    /// The same of the neighbours.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn neigh_behind(
        &self,
        cursor: Option<Cursor>,
    ) -> Result<Page<NeighKey, NeighEntry>, DatapathError> {
        let mut entries = Vec::new();
        let cursor = self.tables.neigh.read_on(cursor, &mut entries)?;
        Ok((entries, cursor))
    }

    /// What the FDB has under these keys.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn fdb(
        &self,
        keys: impl IntoIterator<Item = FdbKey>,
    ) -> Result<Vec<Option<FdbEntry>>, DatapathError> {
        self.tables.fdb.get(keys)
    }

    /// What the neighbours have under these keys.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn neigh(
        &self,
        keys: impl IntoIterator<Item = NeighKey>,
    ) -> Result<Vec<Option<NeighEntry>>, DatapathError> {
        self.tables.neigh.get(keys)
    }

    /// How full the tables are. The kernel has no such number: they are counted, so the last count is
    /// given again while a new one would take more than a hundredth of the time since.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn usage(&self) -> Result<Vec<MapUsage>, DatapathError> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = &*counted
            && counted.took > CHEAP
            && counted.at.elapsed() < counted.took * COUNTING_SHARE
        {
            return Ok(counted.usage.clone());
        }
        let start = Instant::now();
        let usage = self.tables.usage()?;
        let at = Instant::now();
        *counted = Some(Counted { at, took: at - start, usage: usage.clone() });
        Ok(usage)
    }
}

/// Handles of all maps that the controller fills.
#[derive(Clone)]
pub(super) struct HashTables {
    fdb: Table<FdbKey, FdbEntry>,
    neigh: Table<NeighKey, NeighEntry>,
    ports: Table<u32, PortEntry>,
    nodes: Table<NodeKey, NodeEntry>,
    flood: Table<u32, FloodEntry>,
    gateway_ports: Table<u32, GatewayPortEntry>,
    apis: Table<ApiKey, u64>,
    hops: Hops,
}

impl HashTables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            fdb: Table::take(ebpf, MAP_FDB, ENDPOINTS_MAX)?,
            neigh: Table::take(ebpf, MAP_NEIGH, ENDPOINTS_MAX)?,
            ports: Table::take(ebpf, MAP_PORTS, PORTS_MAX)?,
            nodes: Table::take(ebpf, MAP_NODES, NODES_MAX)?,
            flood: Table::take(ebpf, MAP_FLOOD, NETWORKS_MAX)?,
            gateway_ports: Table::take(ebpf, MAP_GATEWAY_PORTS, PORTS_MAX)?,
            apis: Table::take(ebpf, MAP_APIS, NODES_MAX)?,
            hops: Hops::take(ebpf)?,
        })
    }

    /// The elements of HOPS that these nodes name.
    fn hops(
        &self,
        nodes: &BTreeMap<NodeKey, NodeEntry>,
    ) -> Result<BTreeMap<u32, HopEntry>, DatapathError> {
        nodes.values().map(|node| Ok((node.hop, self.hops.get(node.hop)?))).collect()
    }

    fn usage(&self) -> Result<Vec<MapUsage>, DatapathError> {
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

    /// In their order; those of one kind that follow each other go to the kernel together.
    pub(super) fn write(&self, changes: &[TableChange]) -> Result<(), DatapathError> {
        let is_alike = |a: &TableChange, b: &TableChange| {
            std::mem::discriminant(a) == std::mem::discriminant(b)
        };
        changes.chunk_by(is_alike).try_for_each(|alike| self.write_alike(alike))
    }

    fn write_alike(&self, changes: &[TableChange]) -> Result<(), DatapathError> {
        macro_rules! batches {
            ($($table:ident: $put:ident, $delete:ident;)*) => {
                match changes.first() {
                    None => Ok(()),
                    Some(TableChange::PutHop(..) | TableChange::DeleteHop(_)) => {
                        changes.iter().try_for_each(|change| match change {
                            TableChange::PutHop(index, hop) => self.hops.set(*index, hop),
                            TableChange::DeleteHop(index) => self.hops.set(*index, &NO_HOP),
                            _ => Ok(()),
                        })
                    }
                    $(
                        Some(TableChange::$put(..)) => {
                            let entry = |change: &TableChange| match change {
                                TableChange::$put(key, value) => Some((*key, *value.borrow())),
                                _ => None,
                            };
                            self.$table.put(&changes.iter().filter_map(entry).collect::<Vec<_>>())
                        }
                        Some(TableChange::$delete(..)) => {
                            let key = |change: &TableChange| match change {
                                TableChange::$delete(key) => Some(*key),
                                _ => None,
                            };
                            self.$table.delete(&changes.iter().filter_map(key).collect::<Vec<_>>())
                        }
                    )*
                }
            };
        }
        batches! {
            fdb: PutFdb, DeleteFdb;
            neigh: PutNeigh, DeleteNeigh;
            ports: PutPort, DeletePort;
            nodes: PutNode, DeleteNode;
            flood: PutFlood, DeleteFlood;
            gateway_ports: PutGatewayPort, DeleteGatewayPort;
            apis: PutApi, DeleteApi;
        }
    }
}
