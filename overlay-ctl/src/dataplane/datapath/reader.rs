//! Reading of the tables without the data path's lock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey};

use super::{DatapathError, batch::Cursor, table::MapUsage, tables::HashTables};
use crate::dataplane::kernel::Tables;

/// Some entries of a table, and where the next ones begin; `None` after the last.
type Page<K, V> = (Vec<(K, V)>, Option<Cursor>);

/// Counting entries takes at most one part in so many of a CPU's time, however often it is asked for.
const COUNTING_SHARE: u32 = 100;
/// A count that took no longer is always repeated.
const CHEAP: Duration = Duration::from_millis(20);

/// Reads the tables. It needs no lock, so that reading a large table delays nobody. Clones are handles of the
/// same maps.
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
            ..self.tables.small()?
        })
    }

    /// Every entry of the tables that grow with the node and not with the cluster's endpoints: of all but the FDB
    /// and the neighbours, which are left empty.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn small(&self) -> Result<Tables, DatapathError> {
        self.tables.small()
    }

    /// Some thousand entries of the FDB behind `cursor`, and where the next ones begin.
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

    /// Some thousand entries of the neighbours behind `cursor`, and where the next ones begin.
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

    /// The entries that the FDB has under these keys.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn fdb(
        &self,
        keys: impl IntoIterator<Item = FdbKey>,
    ) -> Result<Vec<Option<FdbEntry>>, DatapathError> {
        self.tables.fdb.get(keys)
    }

    /// The entries that the neighbours have under these keys.
    ///
    /// # Errors
    /// [`DatapathError::Table`].
    pub fn neigh(
        &self,
        keys: impl IntoIterator<Item = NeighKey>,
    ) -> Result<Vec<Option<NeighEntry>>, DatapathError> {
        self.tables.neigh.get(keys)
    }

    /// How full the tables are. The kernel does not know, so that the entries are counted. The last count is
    /// returned again while a new one would take more than a hundredth of the time since.
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
