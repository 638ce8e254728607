//! A kernel in memory, which checks on every write what the data path relies on.

mod devices;
mod outside;

use crate::{
    dataplane::kernel::{
        DeviceFailure, DeviceId, DeviceKind, FdbPart, Kernel, KernelError, Legs, Maps, Names,
        NeighPart, NetnsId, ObservedDevice, OutsideHealth, PublishedPorts, Stations, TableChange,
        Tables,
    },
    model::Vtep,
};
use overlay_common::{
    BridgeKey, FLAG_BRIDGING, FLAG_ROUTING, FdbEntry, FdbKey, FloodKey, NeighEntry, NeighKey,
    NodeKey, ip16_from_v4,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// Index of the gateway bridge.
pub(super) const BRIDGE: u32 = 4711;

/// Index of the device by which VTEPs are reached, unless a test says otherwise.
pub(super) const UNDERLAY: u32 = 1;

/// A call to the kernel that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    Create,
    Attach,
    Update,
    UpdateBridge,
    SwapPrograms,
    AttachUplinks,
    Publish,
    FreeSlots,
    Remove,
    Raise,
}

/// How it fails.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    OfTheEndpoint,
    OfTheKernel,
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct FakeKernel {
    pub(super) tables: Tables,
    pub(super) devices: BTreeMap<u32, ObservedDevice>,
    /// The rules that translate addresses are in place.
    pub(super) translates: bool,
    pub(super) published: PublishedPorts,
    /// The legs whose connections may live.
    pub(super) legs: Legs,
    pub(super) names: Arc<Names>,
    /// The underlay device's; 1500 where nobody changed it.
    pub(super) mtu: Option<u32>,
    /// Of the routes that have one of their own.
    pub(super) route_mtus: BTreeMap<Vtep, u32>,
    pub(super) bridge_mtu: u32,
    /// Another program wrote to the maps, and nobody has looked since.
    pub(super) is_meddled: bool,
    /// Of the MAC behind which all VTEPs are.
    pub(super) router: u8,
    /// The node's own address on the underlay, where it was looked at.
    pub(super) own: Option<Vtep>,
    /// No device has that address. A repair finds another one.
    pub(super) is_own_gone: bool,
    pub(super) up: BTreeSet<u32>,
    /// The namespaces that exist.
    pub(super) namespaces: BTreeSet<PathBuf>,
    pub(super) last_ifindex: u32,
    /// After so many writes that succeed, so many fail.
    pub(super) good_writes: usize,
    pub(super) fail_writes: usize,
    pub(super) faults: BTreeMap<Call, Fault>,
    /// The only device that calls fail for; `None`: they fail for each.
    pub(super) faulty: Option<DeviceId>,
    /// The next look at the devices takes this long.
    pub(super) slow: Option<Duration>,
    /// No more legs have room in the gateway bridge; `None`: any number has.
    pub(super) room: Option<usize>,
    /// The VTEPs whose next hop is not resolved.
    pub(super) unresolved: BTreeSet<Vtep>,
    /// The VTEPs to which there is no route.
    pub(super) unreachable: BTreeSet<Vtep>,
    /// The devices by which VTEPs are reached, where it is not the underlay.
    pub(super) uplinks: BTreeMap<Vtep, u32>,
    /// The devices that were to be uplinks last.
    pub(super) attached_uplinks: BTreeSet<u32>,
    /// The VTEPs of which the kernel does not tell the way.
    pub(super) unknown_ways: BTreeSet<Vtep>,
    /// What cannot be repaired.
    pub(super) unrepaired: Vec<String>,
    /// Somebody removed the gateway bridge.
    pub(super) is_bridge_gone: bool,
    /// What the way to the outside reports; the number of published ports is counted.
    pub(super) outside: OutsideHealth,
    /// The problems of the resolvers.
    pub(super) trouble: Vec<String>,
    /// What the resolvers do worse than they could.
    pub(super) name_fallbacks: Vec<String>,
    /// How often everything was read, the devices and the ways were looked at, an entry was written, names were told, ports were
    /// published, and what a pass does not look at was repaired.
    pub(super) read_whole: usize,
    pub(super) looked: usize,
    /// How often a part of the devices was looked at, and which since somebody emptied this.
    pub(super) glanced: usize,
    pub(super) glanced_at: BTreeSet<DeviceId>,
    pub(super) looked_for_ways: usize,
    pub(super) written: usize,
    pub(super) told: usize,
    pub(super) publications: usize,
    pub(super) repaired: usize,
    /// The least number of addresses that had a name since somebody set it.
    pub(super) fewest_names: usize,
    /// The legs' MACs with which it was repaired last.
    pub(super) stations: Stations,
    /// The devices whose program is attached.
    pub(super) attached: BTreeSet<u32>,
    /// Somebody sets each device down when it was raised.
    pub(super) is_set_down: bool,
    /// The paths of the namespaces that need not be released.
    pub(super) named: BTreeSet<PathBuf>,
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

    /// Whether this call for a device is one that fails.
    fn try_device(&self, call: Call, id: DeviceId) -> Result<(), DeviceFailure> {
        let is_meant = self.faulty.is_none_or(|faulty| faulty == id);
        if is_meant { self.try_any(call) } else { Ok(()) }
    }

    fn try_any(&self, call: Call) -> Result<(), DeviceFailure> {
        match self.faults.get(&call) {
            None => Ok(()),
            Some(Fault::OfTheEndpoint) => {
                Err(DeviceFailure::Endpoint(format!("{call:?} is refused")))
            }
            Some(Fault::OfTheKernel) => {
                let source = format!("{call:?}");
                Err(DeviceFailure::Kernel(KernelError::new("the kernel refused", source)))
            }
        }
    }

    /// Whether this call is one that fails.
    fn try_call(&self, call: Call) -> Result<(), KernelError> {
        self.try_any(call).map_err(|failure| match failure {
            DeviceFailure::Kernel(error) => error,
            DeviceFailure::Endpoint(_) => panic!("{call:?} is of no endpoint"),
        })
    }

    fn write_one(&mut self, change: &TableChange) -> Result<(), KernelError> {
        if self.fail_writes > 0 {
            if self.good_writes == 0 {
                self.fail_writes -= 1;
                return Err(KernelError::new("writing a map", "no memory"));
            }
            self.good_writes -= 1;
        }
        match change {
            TableChange::PutFdb(FdbKey { vni, .. }, entry)
            | TableChange::PutBridge(BridgeKey { vni, .. }, entry) => {
                let first_page = FloodKey::first(*vni);
                assert!(self.tables.flood.contains_key(&first_page), "the network is known first");
                match entry.ifindex {
                    _ if !entry.is_somewhere() => {
                        assert!(!self.is_told(entry), "a name goes before what it leads to");
                    }
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
                        // A port with a permission comes last.
                        let comes_later = entry.flags & (FLAG_ROUTING | FLAG_BRIDGING) != 0
                            && matches!(change, TableChange::PutFdb(..));
                        let port = self.tables.ports.get(&ifindex);
                        assert!(
                            port.map_or(comes_later, |port| port.slot == entry.slot()),
                            "{port:?} of {entry:?}"
                        );
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
                    let mut entries = self.tables.fdb.values().chain(self.tables.bridges.values());
                    let named = entries.any(|e| !e.is_here() && e.hop() == *hop);
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
        self.try_call(Call::FreeSlots)?;
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

/// The device is the leg with this address.
fn has(device: &ObservedDevice, address: Ipv4Addr) -> bool {
    let mut nets = device.peer.iter().flat_map(|peer| &peer.addresses);
    device.id.kind == DeviceKind::Leg && nets.any(|net| net.addr() == address)
}
