//! Maps as tables of typed entries.

use std::{collections::BTreeMap, marker::PhantomData, os::fd::AsFd as _, sync::Arc};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use nix::errno::Errno;
use overlay_common::{HopEntry, MAP_HOPS, VXLAN_OVERHEAD};

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

/// The array HOPS.
#[derive(Clone)]
pub(super) struct Hops(Arc<Map>);

/// Nobody's way.
pub(super) const NO_HOP: HopEntry =
    HopEntry { header: [0; VXLAN_OVERHEAD as usize], mtu: 0, csum: 0, ifindex: 0, flags: 0 };

impl Hops {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let map = ebpf.take_map(MAP_HOPS).ok_or(DatapathError::Incomplete(MAP_HOPS))?;
        let hops = Self(Arc::new(map));
        hops.typed()?;
        Ok(hops)
    }

    fn typed(&self) -> Result<Array<&MapData, HopEntry>, DatapathError> {
        Array::try_from(&*self.0).map_err(DatapathError::table(MAP_HOPS, "opened"))
    }

    pub(super) fn get(&self, index: u32) -> Result<HopEntry, DatapathError> {
        self.typed()?.get(&index, 0).map_err(DatapathError::table(MAP_HOPS, "read"))
    }

    /// An element of an array is not replaced whole as one of a hash is. So a program must not find the
    /// device beside headers that are not the device's: it goes out first, and comes in last.
    pub(super) fn set(&self, index: u32, hop: &HopEntry) -> Result<(), DatapathError> {
        let Map::Array(data) = &*self.0 else { return Err(DatapathError::Incomplete(MAP_HOPS)) };
        let held = HopEntry { ifindex: 0, ..self.get(index)? };
        let steps = [held, HopEntry { ifindex: 0, ..*hop }, *hop];
        let set = |step| batch::put(data.fd().as_fd(), &[(index, step)]);
        steps.into_iter().try_for_each(set).map_err(|errno| {
            DatapathError::table(MAP_HOPS, "written")(batch::map_error("bpf_map_update_batch")(
                errno,
            ))
        })
    }
}
