//! A kernel for the reconciler with real maps, but without devices, names and published ports.

use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey};
use overlay_ctl::dataplane::{
    datapath::{Cursor, Datapath, DatapathError},
    kernel::{
        DeviceFailure, DeviceId, DeviceSpec, FdbPart, Kernel, KernelError, Names, NeighPart,
        NextHop, ObservedDevice, PublishedPorts, TableChange, Tables, Way,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// A kernel of which only the maps are real: a device is only a number, all VTEPs are behind one router, and
/// names and published ports are ignored.
pub(crate) struct MapsOnly {
    datapath: Datapath,
    devices: BTreeMap<DeviceId, ObservedDevice>,
    written: Written,
}

/// The time at which the last change was written to the maps.
#[derive(Clone, Default)]
pub(crate) struct Written(Arc<Mutex<Option<Instant>>>);

impl Written {
    /// Returns the time and forgets it.
    pub(crate) fn take(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// Ifindex of the first device, which does not exist in the kernel.
const FIRST_IFINDEX: u32 = 1 << 20;

impl MapsOnly {
    pub(crate) fn new(datapath: Datapath) -> (Self, Written) {
        let written = Written::default();
        (Self { datapath, devices: BTreeMap::new(), written: written.clone() }, written)
    }
}

fn failed(error: DatapathError) -> KernelError {
    KernelError::new("a map", error)
}

impl Kernel for MapsOnly {
    type Cursor = Cursor;

    async fn read_back(&mut self) -> Result<(), KernelError> {
        Ok(())
    }

    async fn tables(&mut self) -> Result<Tables, KernelError> {
        self.datapath.reader().tables().map_err(failed)
    }

    async fn small_tables(&mut self) -> Result<Tables, KernelError> {
        self.datapath.reader().small().map_err(failed)
    }

    async fn fdb_behind(&mut self, place: Option<Cursor>) -> Result<FdbPart<Cursor>, KernelError> {
        self.datapath.reader().fdb_behind(place).map_err(failed)
    }

    async fn neigh_behind(
        &mut self,
        place: Option<Cursor>,
    ) -> Result<NeighPart<Cursor>, KernelError> {
        self.datapath.reader().neigh_behind(place).map_err(failed)
    }

    async fn fdb(&mut self, keys: Vec<FdbKey>) -> Result<Vec<Option<FdbEntry>>, KernelError> {
        self.datapath.reader().fdb(keys).map_err(failed)
    }

    async fn neigh(&mut self, keys: Vec<NeighKey>) -> Result<Vec<Option<NeighEntry>>, KernelError> {
        self.datapath.reader().neigh(keys).map_err(failed)
    }

    async fn free_slots(&mut self, slots: BTreeSet<u32>) -> Result<(), KernelError> {
        self.datapath.free_slots(&slots).map_err(failed)
    }

    async fn write(&mut self, changes: &[TableChange]) -> Result<(), KernelError> {
        self.datapath.write(changes).map_err(failed)?;
        self.written.note();
        Ok(())
    }

    async fn devices(
        &mut self,
        _wanted: &BTreeMap<DeviceId, DeviceSpec>,
    ) -> Result<Vec<ObservedDevice>, KernelError> {
        Ok(self.devices.values().cloned().collect())
    }

    async fn create(
        &mut self,
        id: DeviceId,
        spec: &DeviceSpec,
    ) -> Result<ObservedDevice, DeviceFailure> {
        let ifindex = FIRST_IFINDEX + self.devices.len() as u32;
        let device = ObservedDevice {
            id,
            ifname: format!("device{ifindex}"),
            ifindex,
            interface: "eth0".to_owned(),
            mtu: spec.mtu,
            bridge: 0,
            up: true,
            fault: None,
        };
        self.devices.insert(id, device.clone());
        Ok(device)
    }

    async fn raise(&mut self, _device: &ObservedDevice) -> Result<(), DeviceFailure> {
        Ok(())
    }

    async fn ensure_attached(&mut self, _device: &ObservedDevice) -> Result<(), KernelError> {
        Ok(())
    }

    async fn delete(&mut self, device: &ObservedDevice) -> Result<(), KernelError> {
        self.devices.remove(&device.id);
        Ok(())
    }

    async fn publish(&mut self, _ports: &PublishedPorts) -> Result<(), KernelError> {
        Ok(())
    }

    async fn resolve(&mut self, _names: &Arc<Names>, _is_whole: bool) -> Result<(), KernelError> {
        Ok(())
    }

    async fn ways(
        &mut self,
        vteps: &BTreeSet<Ipv4Addr>,
    ) -> Result<BTreeMap<Ipv4Addr, Way>, KernelError> {
        let hop = NextHop { ifindex: 1, mac: [2; 6], source_mac: [4; 6] };
        let way = Way { mtu: 1500, hop: Some(hop) };
        Ok(vteps.iter().map(|vtep| (*vtep, way)).collect())
    }

    async fn underlay_mtu(&mut self) -> Result<u32, KernelError> {
        Ok(1500)
    }

    async fn fit(
        &mut self,
        _gateway_mtu: u32,
        _devices: &mut BTreeMap<DeviceId, ObservedDevice>,
    ) -> Result<(), KernelError> {
        Ok(())
    }
}
