//! Maps as tables of typed entries.

use std::{collections::BTreeMap, marker::PhantomData, ops::Range, os::fd::AsFd as _, sync::Arc};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use nix::errno::Errno;
use overlay_common::{HopEntry, MAP_HOPS, MAP_PATHS, PathMtu, VXLAN_OVERHEAD};

use super::{
    DatapathError, MapUsage,
    batch::{self, Cursor},
};

/// One hash map. Clones are handles of the same map, and may be used side by side.
pub(super) struct Table<K, V> {
    name: &'static str,
    capacity: u32,
    map: Arc<Map>,
    entries: PhantomData<(K, V)>,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { map: Arc::clone(&self.map), ..*self }
    }
}

impl<K: Pod + Ord, V: Pod> Table<K, V> {
    pub(super) fn take(
        ebpf: &mut Ebpf,
        name: &'static str,
        capacity: u32,
    ) -> Result<Self, DatapathError> {
        let map = ebpf.take_map(name).ok_or(DatapathError::Incomplete(name))?;
        let table = Self { name, capacity, map: Arc::new(map), entries: PhantomData };
        // The batches rely on these sizes: aya checks them.
        table.typed()?;
        Ok(table)
    }

    fn typed(&self) -> Result<HashMap<&MapData, K, V>, DatapathError> {
        HashMap::try_from(&*self.map).map_err(DatapathError::table(self.name, "opened"))
    }

    fn data(&self) -> Result<&MapData, DatapathError> {
        match &*self.map {
            Map::HashMap(data) => Ok(data),
            _ => Err(DatapathError::Incomplete(self.name)),
        }
    }

    /// All entries.
    pub(super) fn read(&self) -> Result<BTreeMap<K, V>, DatapathError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            cursor = self.read_on(cursor, &mut all)?;
            if cursor.is_none() {
                // Sorts, and builds the tree from below: for a million entries several times as fast
                // as inserting them.
                return Ok(all.into_iter().collect());
            }
        }
    }

    /// Adds some of the entries behind `cursor`; says where to go on, `None` after the last one.
    pub(super) fn read_on(
        &self,
        cursor: Option<Cursor>,
        entries: &mut Vec<(K, V)>,
    ) -> Result<Option<Cursor>, DatapathError> {
        let read = batch::read(self.data()?.fd().as_fd(), cursor, entries);
        read.map_err(self.failed("read", "bpf_map_lookup_batch"))
    }

    /// The entries of these keys, where there are any.
    pub(super) fn get(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<V>>, DatapathError> {
        let map = self.typed()?;
        let get = |key: K| match map.get(&key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(DatapathError::table(self.name, "read")(error)),
        };
        keys.into_iter().map(get).collect()
    }

    pub(super) fn put(&self, entries: &[(K, V)]) -> Result<(), DatapathError> {
        batch::put(self.data()?.fd().as_fd(), entries).map_err(|errno| match errno {
            Errno::E2BIG | Errno::ENOSPC => {
                DatapathError::TableFull { name: self.name, capacity: self.capacity }
            }
            errno => self.failed("written", "bpf_map_update_batch")(errno),
        })
    }

    pub(super) fn delete(&self, keys: &[K]) -> Result<(), DatapathError> {
        let deleted = batch::delete(self.data()?.fd().as_fd(), keys);
        deleted.map_err(self.failed("written", "bpf_map_delete_batch"))
    }

    /// Walks the whole map: about a quarter of a microsecond an entry.
    pub(super) fn usage(&self) -> Result<MapUsage, DatapathError> {
        let (mut some, mut cursor, mut entries) = (Vec::new(), None, 0);
        loop {
            cursor = self.read_on(cursor, &mut some)?;
            entries += u32::try_from(some.len()).unwrap_or(u32::MAX);
            some.clear();
            if cursor.is_none() {
                return Ok(MapUsage { name: self.name, entries, capacity: self.capacity });
            }
        }
    }

    fn failed(
        &self,
        action: &'static str,
        call: &'static str,
    ) -> impl Fn(Errno) -> DatapathError + use<K, V> {
        let name = self.name;
        move |errno| DatapathError::table(name, action)(batch::map_error(call)(errno))
    }
}

/// The array HOPS, and the array PATHS beside it, whose elements have the same indexes.
#[derive(Clone)]
pub(super) struct Hops {
    hops: Arc<Map>,
    paths: Arc<Map>,
}

/// Nobody's way.
pub(super) const NO_HOP: HopEntry =
    HopEntry { header: [0; VXLAN_OVERHEAD as usize], mtu: 0, csum: 0, ifindex: 0, flags: 0 };

/// Where the VTEP's address lies in the headers that lead to it (RFC 791, behind 14 bytes of Ethernet).
const VTEP: Range<usize> = 30..34;

impl Hops {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let mut take = |name| ebpf.take_map(name).ok_or(DatapathError::Incomplete(name));
        let hops = Self { hops: Arc::new(take(MAP_HOPS)?), paths: Arc::new(take(MAP_PATHS)?) };
        hops.typed()?;
        Array::<_, PathMtu>::try_from(&*hops.paths)
            .map_err(DatapathError::table(MAP_PATHS, "opened"))?;
        Ok(hops)
    }

    fn typed(&self) -> Result<Array<&MapData, HopEntry>, DatapathError> {
        Array::try_from(&*self.hops).map_err(DatapathError::table(MAP_HOPS, "opened"))
    }

    pub(super) fn get(&self, index: u32) -> Result<HopEntry, DatapathError> {
        self.typed()?.get(&index, 0).map_err(DatapathError::table(MAP_HOPS, "read"))
    }

    /// An element of an array is not replaced whole as one of a hash is. So a program must not find the
    /// device beside headers that are not the device's: it goes out first, and comes in last. What routers
    /// said of the way to one VTEP is not true of the way to the next one with its index: it goes before that
    /// way can be found.
    pub(super) fn set(&self, index: u32, hop: &HopEntry) -> Result<(), DatapathError> {
        let held = self.get(index)?;
        let put = |step| put(&self.hops, MAP_HOPS, index, step);
        put(HopEntry { ifindex: 0, ..held })?;
        if held.header[VTEP] != hop.header[VTEP] {
            self::put(&self.paths, MAP_PATHS, index, PathMtu::default())?;
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
