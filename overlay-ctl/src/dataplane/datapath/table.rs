//! One map as a table of typed entries.

use std::{collections::BTreeMap, marker::PhantomData, ops::Range, os::fd::AsFd as _, sync::Arc};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use nix::errno::Errno;
use overlay_common::{HopEntry, MapRow, PathMtu, VXLAN_OVERHEAD, map};

use super::{
    DatapathError,
    batch::{self, Cursor},
};

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

/// One hash map. Clones are handles of the same map, and can be used at the same time.
pub(super) struct Table<M> {
    map: Arc<Map>,
    row: PhantomData<fn() -> M>,
}

impl<M> Clone for Table<M> {
    fn clone(&self) -> Self {
        Self { map: Arc::clone(&self.map), row: PhantomData }
    }
}

impl<M: MapRow<Key: Pod + Ord, Value: Pod>> Table<M> {
    const NAME: &'static str = M::SHAPE.name;

    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let map = ebpf.take_map(Self::NAME).ok_or(DatapathError::Incomplete(Self::NAME))?;
        let table = Self { map: Arc::new(map), row: PhantomData };
        // The batches rely on these sizes: aya checks them.
        table.typed()?;
        Ok(table)
    }

    fn typed(&self) -> Result<HashMap<&MapData, M::Key, M::Value>, DatapathError> {
        HashMap::try_from(&*self.map).map_err(DatapathError::table(Self::NAME, "opened"))
    }

    fn data(&self) -> Result<&MapData, DatapathError> {
        match &*self.map {
            Map::HashMap(data) => Ok(data),
            _ => Err(DatapathError::Incomplete(Self::NAME)),
        }
    }

    /// All entries.
    pub(super) fn read(&self) -> Result<BTreeMap<M::Key, M::Value>, DatapathError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            cursor = self.read_on(cursor, &mut all)?;
            if cursor.is_none() {
                // `collect` sorts, and builds the tree from below: for a million entries this is several
                // times as fast as inserting them one by one.
                return Ok(all.into_iter().collect());
            }
        }
    }

    /// Adds some of the entries behind `cursor`. Returns where the next ones begin, `None` after the last.
    pub(super) fn read_on(
        &self,
        cursor: Option<Cursor>,
        entries: &mut Vec<(M::Key, M::Value)>,
    ) -> Result<Option<Cursor>, DatapathError> {
        let read = batch::read(self.data()?.fd().as_fd(), cursor, entries);
        read.map_err(Self::failed("read", "bpf_map_lookup_batch"))
    }

    /// The entry of each of these keys, if there is one.
    pub(super) fn get(
        &self,
        keys: impl IntoIterator<Item = M::Key>,
    ) -> Result<Vec<Option<M::Value>>, DatapathError> {
        let map = self.typed()?;
        let get = |key: M::Key| match map.get(&key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(DatapathError::table(Self::NAME, "read")(error)),
        };
        keys.into_iter().map(get).collect()
    }

    /// Puts the entries, in their order. Those before one that fails are put.
    pub(super) fn put(&self, entries: &[(M::Key, M::Value)]) -> Result<(), DatapathError> {
        batch::put(self.data()?.fd().as_fd(), entries).map_err(|errno| match errno {
            Errno::E2BIG | Errno::ENOSPC => {
                DatapathError::TableFull { name: Self::NAME, capacity: M::SHAPE.capacity }
            }
            errno => Self::failed("written", "bpf_map_update_batch")(errno),
        })
    }

    /// Deletes the keys. A key that is not there is no error.
    pub(super) fn delete(&self, keys: &[M::Key]) -> Result<(), DatapathError> {
        let deleted = batch::delete(self.data()?.fd().as_fd(), keys);
        deleted.map_err(Self::failed("written", "bpf_map_delete_batch"))
    }

    /// Counts the entries, in about a quarter of a microsecond each.
    pub(super) fn usage(&self) -> Result<MapUsage, DatapathError> {
        let (mut some, mut cursor, mut entries) = (Vec::new(), None, 0);
        loop {
            cursor = self.read_on(cursor, &mut some)?;
            entries += u32::try_from(some.len()).unwrap_or(u32::MAX);
            some.clear();
            if cursor.is_none() {
                return Ok(MapUsage { name: Self::NAME, entries, capacity: M::SHAPE.capacity });
            }
        }
    }

    fn failed(
        action: &'static str,
        call: &'static str,
    ) -> impl Fn(Errno) -> DatapathError + use<M> {
        move |errno| DatapathError::table(Self::NAME, action)(batch::map_error(call)(errno))
    }
}

/// The array HOPS, and the array PATHS beside it, whose elements have the same indexes.
#[derive(Clone)]
pub(super) struct Hops {
    hops: Arc<Map>,
    paths: Arc<Map>,
}

/// The way to no VTEP: an empty element.
pub(super) const NO_HOP: HopEntry =
    HopEntry { header: [0; VXLAN_OVERHEAD as usize], mtu: 0, csum: 0, ifindex: 0, via: 0 };

/// Where the VTEP's address lies in the outer headers (RFC 791, behind 14 bytes of Ethernet).
const VTEP: Range<usize> = 30..34;

impl Hops {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let mut take = |name| ebpf.take_map(name).ok_or(DatapathError::Incomplete(name));
        let hops = Self {
            hops: Arc::new(take(map::HOPS::NAME)?),
            paths: Arc::new(take(map::PATHS::NAME)?),
        };
        hops.typed()?;
        Array::<_, PathMtu>::try_from(&*hops.paths)
            .map_err(DatapathError::table(map::PATHS::NAME, "opened"))?;
        Ok(hops)
    }

    fn typed(&self) -> Result<Array<&MapData, HopEntry>, DatapathError> {
        Array::try_from(&*self.hops).map_err(DatapathError::table(map::HOPS::NAME, "opened"))
    }

    pub(super) fn get(&self, index: u32) -> Result<HopEntry, DatapathError> {
        self.typed()?.get(&index, 0).map_err(DatapathError::table(map::HOPS::NAME, "read"))
    }

    /// Writes an element of HOPS.
    ///
    /// An element of an array is not replaced whole, unlike one of a hash map. So that no program finds a device
    /// beside the headers of another device, the device is removed first and written last. What routers reported
    /// of the way to one VTEP is not true of the next VTEP with the same index, so it is deleted before that way
    /// can be found.
    pub(super) fn set(&self, index: u32, hop: &HopEntry) -> Result<(), DatapathError> {
        let held = self.get(index)?;
        let put = |step| put(&self.hops, map::HOPS::NAME, index, step);
        put(HopEntry { ifindex: 0, ..held })?;
        if held.header[VTEP] != hop.header[VTEP] {
            self::put(&self.paths, map::PATHS::NAME, index, PathMtu::default())?;
        }
        put(HopEntry { ifindex: 0, ..*hop })?;
        put(*hop)
    }
}

/// Writes an element of an array.
fn put<V: Pod>(map: &Map, name: &'static str, index: u32, value: V) -> Result<(), DatapathError> {
    let Map::Array(data) = map else { return Err(DatapathError::Incomplete(name)) };
    let put = batch::put(data.fd().as_fd(), &[(index, value)]);
    put.map_err(|errno| {
        DatapathError::table(name, "written")(batch::map_error("bpf_map_update_batch")(errno))
    })
}
