//! A kernel for the reconciler with real maps, but without devices, names and published ports.

use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey};
use overlay_ctl::{
    dataplane::{
        datapath::{Cursor, Datapath, DatapathError},
        kernel::{
            DeviceFailure, DeviceId, DeviceSpec, Devices, FdbPart, GatewayUse, Kernel, KernelError,
            LinkLayer, LocalGateway, Maps, Names, NeighPart, NetnsId, NextHop, Observed,
            ObservedBridge, ObservedDevice, ObservedPeer, Outside, Part, Resolve, Resolved,
            Stations, TableChange, Tables, Way, Ways,
        },
    },
    model::{Encapsulation, Vtep},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
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
/// Ifindex of the gateway bridge, which does not exist either.
const BRIDGE: u32 = FIRST_IFINDEX - 1;

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
    type Maps = Self;
    type Devices = Self;
    type Outside = Self;
    type Resolve = Self;

    fn maps(&mut self) -> &mut Self {
        self
    }

    fn devices(&mut self) -> &mut Self {
        self
    }

    fn outside(&mut self) -> &mut Self {
        self
    }

    fn resolve(&mut self) -> &mut Self {
        self
    }
}

impl Maps for MapsOnly {
    type Cursor = Cursor;

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
}

impl Devices for MapsOnly {
    async fn observe(&mut self, _paths: &BTreeSet<PathBuf>) -> Result<Observed, KernelError> {
        let bridge = Some(ObservedBridge { ifindex: BRIDGE, mtu: 1500 });
        let devices = self.devices.values().cloned().collect();
        Ok(Observed { devices, bridge, ..Observed::default() })
    }

    async fn observe_part(&mut self, part: &Part) -> Result<Observed, KernelError> {
        let is_part = |device: &&ObservedDevice| {
            part.indexes.contains(&device.ifindex) || part.ids.contains(&device.id)
        };
        let devices = self.devices.values().filter(is_part).cloned().collect();
        let bridge = Some(ObservedBridge { ifindex: BRIDGE, mtu: 1500 });
        Ok(Observed { devices, bridge, ..Observed::default() })
    }

    async fn create(&mut self, spec: &DeviceSpec) -> Result<ObservedDevice, DeviceFailure> {
        let ifindex = FIRST_IFINDEX + self.devices.len() as u32;
        let mut peer = None;
        if let Some(netns) = NetnsId::new(0) {
            peer = Some(ObservedPeer {
                netns,
                ifindex: 1,
                ifname: "eth0".to_owned(),
                up: true,
                running: true,
                mac: spec.mac.to_vec(),
                mtu: spec.sizes.mtu,
                super_packets: spec.sizes.inside,
                addresses: spec.addresses.clone(),
            });
        }
        let device = ObservedDevice {
            id: spec.id,
            ifname: format!("device{ifindex}"),
            ifindex,
            up: true,
            running: true,
            complete: true,
            queued: false,
            mtu: spec.sizes.mtu,
            super_packets: spec.sizes.outside,
            bridge: BRIDGE,
            peer,
        };
        self.devices.insert(spec.id, device.clone());
        Ok(device)
    }

    async fn attach(&mut self, _seen: &ObservedDevice) -> Result<(), KernelError> {
        Ok(())
    }

    async fn update(
        &mut self,
        _seen: &ObservedDevice,
        _spec: &DeviceSpec,
    ) -> Result<(), DeviceFailure> {
        Ok(())
    }

    async fn raise(
        &mut self,
        seen: &ObservedDevice,
        _spec: &DeviceSpec,
    ) -> Result<ObservedDevice, DeviceFailure> {
        Ok(seen.clone())
    }

    async fn remove(&mut self, seen: &ObservedDevice) -> Result<(), KernelError> {
        self.devices.remove(&seen.id);
        Ok(())
    }
}

impl Outside for MapsOnly {
    async fn repair(&mut self, _gateway: &LocalGateway, _stations: &Stations) -> Vec<String> {
        Vec::new()
    }

    async fn ways(&mut self, vteps: &BTreeSet<Vtep>) -> Ways {
        let hop = NextHop { mac: [2; 6], source_mac: [4; 6] };
        let (encapsulation, link_layer) = (Encapsulation::VxlanIpv4, LinkLayer::Ethernet);
        let way = Way { mtu: 1500, encapsulation, device: 1, link_layer, hop: Some(hop) };
        let ways = vteps.iter().map(|vtep| (*vtep, way)).collect();
        Ways { device_mtu: 1500, ways, ..Ways::default() }
    }

    async fn update_bridge(&mut self, _gateway: &LocalGateway) -> Result<(), KernelError> {
        Ok(())
    }

    async fn publish(&mut self, _wanted: &GatewayUse) -> Result<(), KernelError> {
        Ok(())
    }
}

impl Resolve for MapsOnly {
    async fn resolve(&mut self, _names: &Arc<Names>, _is_whole: bool) -> Resolved {
        Resolved::default()
    }
}
