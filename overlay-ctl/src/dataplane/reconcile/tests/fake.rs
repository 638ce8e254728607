//! A kernel in memory, which checks on every write what the data path relies on.

use crate::{
    dataplane::kernel::{
        Bridge, DeviceFailure, DeviceKind, DeviceSpec, Devices, FdbPart, Kernel, KernelError,
        LocalGateway, Maps, Names, NeighPart, NetnsId, NextHop, Observed, ObservedBridge,
        ObservedDevice, ObservedPeer, Outside, OutsideHealth, PublishedPorts, Resolve, Resolved,
        Stations, SuperPackets, TableChange, Tables, Target, Way, Ways,
    },
    model::{Encapsulation, Vtep},
};
use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey, NodeKey, ip16_from_v4};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
};

/// Index of the gateway bridge.
const BRIDGE: u32 = 4711;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct FakeKernel {
    pub(super) tables: Tables,
    pub(super) devices: BTreeMap<u32, ObservedDevice>,
    pub(super) published: PublishedPorts,
    pub(super) names: Arc<Names>,
    /// The underlay device's; 1500 where nobody changed it.
    pub(super) mtu: Option<u32>,
    /// Of the routes that have one of their own.
    pub(super) route_mtus: BTreeMap<Vtep, u32>,
    pub(super) bridge_mtu: u32,
    /// Devices of this kernel never run.
    pub(super) is_dead: bool,
    /// Another program wrote to the maps, and nobody has looked since.
    pub(super) is_meddled: bool,
    /// Of the MAC behind which all VTEPs are.
    pub(super) router: u8,
    pub(super) up: BTreeSet<u32>,
    /// The namespaces that exist.
    pub(super) namespaces: BTreeSet<PathBuf>,
    pub(super) last_ifindex: u32,
    pub(super) fail_writes: usize,
    /// How often everything was read, the devices were looked at, an entry was written, names were told.
    pub(super) read_whole: usize,
    pub(super) looked: usize,
    pub(super) written: usize,
    pub(super) told: usize,
    pub(super) freed: BTreeSet<u32>,
    /// What the tables held when the programs were first swapped.
    pub(super) swapped_with: Option<Tables>,
    pub(super) log: Vec<String>,
}

impl FakeKernel {
    /// Replaces the namespace that a device leads into by another one of the same name.
    pub(super) fn remake_namespace(&mut self, ifindex: u32) {
        if let Some(peer) = self.devices.get_mut(&ifindex).and_then(|device| device.peer.as_mut()) {
            peer.netns = NetnsId::new(i32::MAX).unwrap();
        }
    }

    /// The namespace at a path.
    fn netns(&self, path: &PathBuf) -> Option<NetnsId> {
        let place = self.namespaces.iter().position(|known| known == path)?;
        NetnsId::new(i32::try_from(place).unwrap())
    }

    fn write_one(&mut self, change: &TableChange) -> Result<(), KernelError> {
        if self.fail_writes > 0 {
            self.fail_writes -= 1;
            return Err(KernelError::new("writing a map", "no memory"));
        }
        match change {
            TableChange::PutFdb(key, entry) => {
                assert!(self.tables.flood.contains_key(&key.vni), "the network is known first");
                match entry.ifindex {
                    0 => {
                        let node = self.tables.nodes[&NodeKey { vtep: entry.vtep }];
                        assert_eq!(node.hop, entry.hop(), "by the hop that its VTEP has");
                        assert!(
                            self.tables.hops.contains_key(&entry.hop()),
                            "the hop stands first"
                        );
                    }
                    ifindex => {
                        assert!(self.devices.contains_key(&ifindex), "the port stands first");
                        assert_eq!(self.tables.ports[&ifindex].slot, entry.slot());
                    }
                }
            }
            TableChange::DeleteFdb(key) => {
                if let Some(entry) = self.tables.fdb.get(key) {
                    assert!(
                        !self.is_told(entry) || self.is_meddled,
                        "a name goes before its entry"
                    );
                }
            }
            TableChange::PutHop(hop, entry) => {
                if let Some(held) = self.tables.hops.get(hop)
                    && held.header[30..34] != entry.header[30..34]
                {
                    let named = self.tables.fdb.values().any(|e| !e.is_here() && e.hop() == *hop);
                    assert!(
                        !named || self.is_meddled,
                        "a hop becomes another VTEP's once nobody names it"
                    );
                }
            }
            _ => {}
        }
        change.apply_to(&mut self.tables);
        Ok(())
    }

    /// Whether a name leads to the endpoint of this entry.
    fn is_told(&self, entry: &FdbEntry) -> bool {
        let mut addresses =
            self.names.networks.values().flat_map(|network| network.pointers.keys());
        addresses.any(|address| ip16_from_v4(address.octets()) == entry.ip)
    }
}

/// A few entries behind a place.
fn part<K: Copy + Ord, V: Copy>(
    table: &BTreeMap<K, V>,
    place: Option<usize>,
) -> (Vec<(K, V)>, Option<usize>) {
    const FEW: usize = 3;
    let place = place.unwrap_or(0);
    let entries = table.iter().skip(place).take(FEW).map(|(key, value)| (*key, *value));
    (entries.collect(), (place + FEW < table.len()).then_some(place + FEW))
}

impl Kernel for &mut FakeKernel {
    type Maps = FakeKernel;
    type Devices = FakeKernel;
    type Outside = FakeKernel;
    type Resolve = FakeKernel;

    fn maps(&mut self) -> &mut FakeKernel {
        self
    }

    fn devices(&mut self) -> &mut FakeKernel {
        self
    }

    fn outside(&mut self) -> &mut FakeKernel {
        self
    }

    fn resolve(&mut self) -> &mut FakeKernel {
        self
    }
}

impl Maps for FakeKernel {
    type Cursor = usize;

    async fn tables(&mut self) -> Result<Tables, KernelError> {
        self.read_whole += 1;
        Ok(self.tables.clone())
    }

    async fn small_tables(&mut self) -> Result<Tables, KernelError> {
        Ok(Tables { fdb: BTreeMap::new(), neigh: BTreeMap::new(), ..self.tables.clone() })
    }

    async fn fdb_behind(&mut self, place: Option<usize>) -> Result<FdbPart<usize>, KernelError> {
        Ok(part(&self.tables.fdb, place))
    }

    async fn neigh_behind(
        &mut self,
        place: Option<usize>,
    ) -> Result<NeighPart<usize>, KernelError> {
        Ok(part(&self.tables.neigh, place))
    }

    async fn fdb(&mut self, keys: Vec<FdbKey>) -> Result<Vec<Option<FdbEntry>>, KernelError> {
        Ok(keys.iter().map(|key| self.tables.fdb.get(key).copied()).collect())
    }

    async fn neigh(&mut self, keys: Vec<NeighKey>) -> Result<Vec<Option<NeighEntry>>, KernelError> {
        Ok(keys.iter().map(|key| self.tables.neigh.get(key).copied()).collect())
    }

    async fn free_slots(&mut self, slots: BTreeSet<u32>) -> Result<(), KernelError> {
        for port in self.tables.ports.values() {
            assert!(!slots.contains(&port.slot), "nobody counts in it any more");
        }
        self.freed.extend(slots);
        Ok(())
    }

    async fn write(&mut self, changes: &[TableChange]) -> Result<(), KernelError> {
        for change in changes {
            self.written += 1;
            self.write_one(change)?;
        }
        Ok(())
    }
}

impl Devices for FakeKernel {
    async fn observe(&mut self, paths: &BTreeSet<PathBuf>) -> Result<Observed, KernelError> {
        self.looked += 1;
        let namespaces = paths.iter().filter_map(|path| Some((path.clone(), self.netns(path)?)));
        Ok(Observed {
            devices: self.devices.values().cloned().collect(),
            namespaces: namespaces.collect(),
            bridge: Some(ObservedBridge { ifindex: BRIDGE, mtu: self.bridge_mtu }),
        })
    }

    async fn create(&mut self, spec: &DeviceSpec) -> Result<ObservedDevice, DeviceFailure> {
        let Some(netns) = self.netns(&spec.netns) else {
            return Err(DeviceFailure::Endpoint("its namespace is gone".into()));
        };
        let row = spec.id.kind.row();
        let is_inside =
            |device: &&ObservedDevice| device.peer.as_ref().is_some_and(|peer| peer.netns == netns);
        let inside: Vec<&str> =
            self.devices.values().filter(is_inside).map(ObservedDevice::interface).collect();
        let ifname = row.interface.choose(&inside);
        if inside.contains(&ifname.as_str()) {
            return Err(DeviceFailure::Endpoint(format!("{ifname} exists")));
        }
        assert!(self.devices.values().all(|device| device.id != spec.id), "the old one goes first");
        self.last_ifindex += 1;
        let peer = ObservedPeer {
            netns,
            ifindex: 2,
            ifname,
            up: false,
            running: false,
            mac: spec.mac.to_vec(),
            mtu: spec.sizes.mtu,
            super_packets: SuperPackets::default(),
            addresses: spec.addresses.clone(),
        };
        let device = ObservedDevice {
            id: spec.id,
            ifname: format!("device{}", self.last_ifindex),
            ifindex: self.last_ifindex,
            up: false,
            running: false,
            complete: false,
            mtu: spec.sizes.mtu,
            super_packets: SuperPackets::default(),
            bridge: if row.bridge == Bridge::Gateway { BRIDGE } else { 0 },
            peer: Some(peer),
        };
        self.devices.insert(device.ifindex, device.clone());
        self.log.push(format!("create {}", spec.id));
        Ok(device)
    }

    async fn attach(&mut self, seen: &ObservedDevice) -> Result<(), KernelError> {
        assert!(self.devices.contains_key(&seen.ifindex));
        Ok(())
    }

    async fn update(
        &mut self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> Result<(), DeviceFailure> {
        let device = self.devices.get_mut(&seen.ifindex).unwrap();
        let is_leg = device.id.kind == DeviceKind::Leg;
        assert!(!is_leg || self.bridge_mtu <= spec.sizes.mtu, "the bridge shrinks before its legs");
        device.mtu = spec.sizes.mtu;
        self.log.push(format!("update {} {}", seen.id, spec.sizes.mtu));
        Ok(())
    }

    async fn raise(
        &mut self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> Result<(), DeviceFailure> {
        assert_eq!(seen.id, spec.id);
        let tables = &self.tables;
        let programmed = match seen.id.kind {
            DeviceKind::Port => tables.ports.contains_key(&seen.ifindex),
            DeviceKind::Leg => {
                let leg = tables.gateway_ports.get(&seen.ifindex);
                leg.is_some_and(|leg| leg.bridge == BRIDGE)
            }
        };
        assert!(programmed, "programmed before it is up");
        if self.is_dead {
            return Err(DeviceFailure::Endpoint("it does not run".into()));
        }
        self.up.insert(seen.ifindex);
        let device = self.devices.get_mut(&seen.ifindex).unwrap();
        (device.up, device.complete) = (true, true);
        Ok(())
    }

    async fn remove(&mut self, seen: &ObservedDevice) -> Result<(), KernelError> {
        let named = self.tables.fdb.values().any(|entry| entry.ifindex == seen.ifindex);
        assert!(!named || self.is_meddled, "the tables forget a port before it goes");
        if seen.id.kind == DeviceKind::Leg {
            let leads = |to: &Target| has(seen, to.address);
            assert!(!self.published.values().any(leads), "nothing leads there");
        }
        self.devices.remove(&seen.ifindex);
        self.up.remove(&seen.ifindex);
        self.log.push(format!("remove {}", seen.id));
        Ok(())
    }
}

impl Outside for FakeKernel {
    async fn repair(
        &mut self,
        _gateway: &LocalGateway,
        _stations: &Stations,
    ) -> Result<(), KernelError> {
        Ok(())
    }

    async fn ways(&mut self, vteps: &BTreeSet<Vtep>) -> Result<Ways, KernelError> {
        let device_mtu = self.mtu.unwrap_or(1500);
        let mac = [2, 0, 0, 0, 0, self.router];
        let hop = NextHop { ifindex: 1, mac, source_mac: [4; 6] };
        let way = |vtep: &Vtep| {
            let mtu = self.route_mtus.get(vtep).map_or(device_mtu, |mtu| device_mtu.min(*mtu));
            (*vtep, Way { mtu, encapsulation: Encapsulation::VxlanIpv4, hop: Some(hop) })
        };
        Ok(Ways { device_mtu, ways: vteps.iter().map(way).collect() })
    }

    async fn swap_programs(&mut self) -> Result<(), KernelError> {
        let now = self.tables.clone();
        self.swapped_with.get_or_insert(now);
        Ok(())
    }

    async fn update_bridge(&mut self, gateway: &LocalGateway) -> Result<(), KernelError> {
        let mut legs = self.devices.values().filter(|device| device.id.kind == DeviceKind::Leg);
        assert!(
            legs.all(|leg| leg.mtu >= gateway.mtu),
            "the bridge takes no more than its legs do"
        );
        self.bridge_mtu = gateway.mtu;
        Ok(())
    }

    async fn publish(&mut self, ports: &PublishedPorts) -> Result<(), KernelError> {
        for target in ports.values() {
            let stands = |device: &ObservedDevice| has(device, target.address);
            assert!(self.devices.values().any(stands), "the leg stands before a port leads there");
        }
        self.published.clone_from(ports);
        Ok(())
    }

    fn health(&self) -> OutsideHealth {
        OutsideHealth { published: self.published.len(), ..OutsideHealth::default() }
    }
}

impl Resolve for FakeKernel {
    async fn resolve(&mut self, names: &Arc<Names>, _is_whole: bool) -> Resolved {
        for network in names.networks.values() {
            for address in network.pointers.keys() {
                let ip = ip16_from_v4(address.octets());
                let held = self.tables.fdb.values().any(|entry| entry.ip == ip);
                assert!(
                    held || self.is_meddled,
                    "a name is there only while the data path has the endpoint"
                );
            }
        }
        self.told += 1;
        self.names = Arc::clone(names);
        Resolved { resolvers: names.namespaces.len(), trouble: Vec::new() }
    }
}

/// The device is the leg with this address.
fn has(device: &ObservedDevice, address: Ipv4Addr) -> bool {
    let mut nets = device.peer.iter().flat_map(|peer| &peer.addresses);
    device.id.kind == DeviceKind::Leg && nets.any(|net| net.addr() == address)
}
