//! The real maps.

use super::datapath::SharedDatapath;
use crate::dataplane::{
    datapath::{Cursor, DatapathError, TableReader},
    kernel::{FdbPart, KernelError, Maps, NeighPart, TableChange, Tables},
};
use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey};
use std::collections::BTreeSet;

/// The maps of the data path.
pub struct HostMaps(SharedDatapath);

impl HostMaps {
    /// The maps of this data path.
    #[must_use]
    pub fn new(datapath: SharedDatapath) -> Self {
        Self(datapath)
    }

    /// Reads the maps without blocking their writers.
    fn reader(&self) -> TableReader {
        self.0.lock().reader()
    }
}

fn reading_failed(error: DatapathError) -> KernelError {
    KernelError::new("reading the maps failed", error)
}

impl Maps for HostMaps {
    type Cursor = Cursor;

    async fn tables(&mut self) -> Result<Tables, KernelError> {
        self.reader().tables().map_err(reading_failed)
    }

    async fn small_tables(&mut self) -> Result<Tables, KernelError> {
        self.reader().small().map_err(reading_failed)
    }

    async fn fdb_behind(&mut self, place: Option<Cursor>) -> Result<FdbPart<Cursor>, KernelError> {
        self.reader().fdb_behind(place).map_err(reading_failed)
    }

    async fn neigh_behind(
        &mut self,
        place: Option<Cursor>,
    ) -> Result<NeighPart<Cursor>, KernelError> {
        self.reader().neigh_behind(place).map_err(reading_failed)
    }

    async fn fdb(&mut self, keys: Vec<FdbKey>) -> Result<Vec<Option<FdbEntry>>, KernelError> {
        self.reader().fdb(keys).map_err(reading_failed)
    }

    async fn neigh(&mut self, keys: Vec<NeighKey>) -> Result<Vec<Option<NeighEntry>>, KernelError> {
        self.reader().neigh(keys).map_err(reading_failed)
    }

    async fn free_slots(&mut self, slots: BTreeSet<u32>) -> Result<(), KernelError> {
        let freed = self.0.lock().free_slots(&slots);
        freed.map_err(|e| KernelError::new("adding a removed port's counters to METRICS failed", e))
    }

    async fn write(&mut self, changes: &[TableChange]) -> Result<(), KernelError> {
        let written = self.0.lock().write(changes);
        written.map_err(|e| KernelError::new("writing a map failed", e))
    }
}
