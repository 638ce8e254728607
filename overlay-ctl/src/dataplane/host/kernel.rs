//! The kernel contract, kept by the real doors: maps and programs, devices, the outside, and names.

use super::{
    big_tcp::SuperPacketPlan, check::SharedNamespaces, gateway::HostGateway, guard::GuardKeeper,
};
use crate::{
    config::Xdp,
    dataplane::{
        datapath::{Cursor, Datapath, DatapathError, TableReader},
        kernel::{
            DeviceFailure, DeviceId, DeviceSpec, FdbPart, GatewayHealth, Kernel, KernelError,
            Names, NeighPart, NextHop, ObservedDevice, PublishedPorts, SuperPacketHealth,
            TableChange, Tables, Way,
        },
        netlink::{
            self, LegSpec, Netlink, ObservedPeer, PortError, PortSpec, Underlay, UnderlayChoice,
        },
    },
    model::EndpointId,
};
use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Why an endpoint is down whose namespace was held (see `netlink::HeldNamespaces`).
const PROCESS_ENDED: &str = "its namespace was given by way of a process, which has ended, or the host was started anew: remove the endpoint, and create it again where it is to be";

/// The BPF side, shared by the reconciler (which writes it) and the API (which reads its counters).
#[derive(Clone)]
pub struct SharedDatapath(Arc<Mutex<Datapath>>);

impl SharedDatapath {
    /// Takes the data path in.
    #[must_use]
    pub fn new(datapath: Datapath) -> Self {
        Self(Arc::new(Mutex::new(datapath)))
    }

    /// Holds it. No use waits or takes long: a large table is read by [`Datapath::reader`], and
    /// written in parts.
    pub fn lock(&self) -> MutexGuard<'_, Datapath> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The real kernel, behind the two doors.
pub struct HostKernel {
    datapath: SharedDatapath,
    netlink: Netlink,
    underlay: Underlay,
    super_packets: SuperPacketPlan,
    namespaces: SharedNamespaces,
    vxlan_port: u16,
    gateway: HostGateway,
    guard: GuardKeeper,
    fallbacks: Vec<String>,
    /// What each device was last held against: needed to raise it.
    specs: BTreeMap<DeviceId, DeviceSpec>,
    /// Devices whose sizes are to be changed.
    misfits: Vec<Seen>,
    /// Devices that could not be, and why, as last said.
    unfit: BTreeMap<DeviceId, String>,
}

impl HostKernel {
    /// Through these doors.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "one argument for each door; they part with the contract"
    )]
    pub fn new(
        datapath: SharedDatapath,
        netlink: Netlink,
        underlay: Underlay,
        super_packets: SuperPacketPlan,
        namespaces: SharedNamespaces,
        vxlan_port: u16,
        gateway: HostGateway,
        xdp: Xdp,
    ) -> Self {
        Self {
            guard: GuardKeeper::new(xdp, underlay.ifindex),
            datapath,
            netlink,
            underlay,
            super_packets,
            namespaces,
            vxlan_port,
            gateway,
            fallbacks: Vec::new(),
            specs: BTreeMap::new(),
            misfits: Vec::new(),
            unfit: BTreeMap::new(),
        }
    }

    /// Puts `guard_underlay` on the underlay device, or not, as `--xdp` says; then the reconciler keeps
    /// it so.
    pub async fn guard_underlay(&mut self) {
        self.guard.keep(&self.datapath, &self.netlink).await;
    }

    /// Why the device has to be built anew, if it has.
    ///
    /// Inside, only the namespace counts once the device is up: what the endpoint does to its own
    /// interface is its own business. One that never came up is compared with the whole spec.
    async fn fault(&self, seen: &Seen, spec: &DeviceSpec) -> Result<Option<String>, PortError> {
        let Some(peer) = seen.peer() else {
            return Ok(Some("the endpoint's interface is gone".to_owned()));
        };
        let netns = match self.netlink.netns_id(&spec.netns).await {
            Ok(netns) => netns,
            // The name may be gone while the namespace lives on with the processes inside: so does
            // the device.
            // Whatever else is wrong with it is the endpoint's own trouble, and no reason to touch a
            // device that stands.
            Err(PortError::Netlink(error)) => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        if peer.netns != netns {
            return Ok(Some("the namespace was made anew".to_owned()));
        }
        let difference = match seen {
            Seen::Port(port) if !port.complete => {
                port.difference(&port_spec(port.endpoint, spec), netns)
            }
            Seen::Leg(leg) if !leg.complete => leg.difference(&leg_spec(spec), netns),
            Seen::Port(_) | Seen::Leg(_) => None,
        };
        Ok(difference.map(str::to_owned))
    }

    /// The devices and the program that a pass does not look at one by one: all that packets need, or
    /// would be slower without.
    async fn read_back_devices(&mut self) -> Result<(), KernelError> {
        let failed = |e| KernelError::new("making the devices that only exist failed", e);
        let outside = self.netlink.ensure_barrier().await.map_err(failed)?;
        self.netlink.ensure_gro_device(&self.underlay, self.vxlan_port).await.map_err(failed)?;
        self.gateway.read_back(&self.underlay.name).await?;
        let fallbacks: Vec<String> = outside.iter().map(ToString::to_string).collect();
        if fallbacks != self.fallbacks {
            tracing::warn!(?fallbacks, "on a slower path");
            self.fallbacks = fallbacks;
        }
        let choice = UnderlayChoice::Address(self.underlay.address);
        let now = self
            .netlink
            .underlay(&choice)
            .await
            .map_err(|e| KernelError::new("the underlay device can't be used any more", e))?;
        if now.ifindex != self.underlay.ifindex {
            let (address, name) = (now.address, now.name);
            let why = format!("{address} is on another device now, {name}: restart the node");
            return Err(KernelError::new("the underlay changed", why));
        }
        self.guard_underlay().await;
        let kept = self.super_packets.keep(&self.netlink, self.underlay.ifindex).await;
        kept.map_err(|e| KernelError::new("changing the underlay device failed", e))?;
        let attached = self.datapath.lock().ensure_underlay(&self.underlay.name);
        attached.map_err(|e| KernelError::new("attaching to the underlay failed", e))
    }

    fn is_misfit(&self, seen: &Seen) -> bool {
        let Some(spec) = self.specs.get(&seen.id()) else { return false };
        let sizes = self.super_packets.pair(seen.id(), spec.mtu);
        match seen {
            Seen::Port(port) => !sizes.are_of_port(port),
            Seen::Leg(leg) => !sizes.are_of_leg(leg),
        }
    }

    /// Changes one device's sizes. What it is left with where it can't be changed is logged once.
    async fn fit_one(&mut self, seen: &Seen, spec: &DeviceSpec) -> Result<bool, KernelError> {
        let id = seen.id();
        let sizes = self.super_packets.pair(id, spec.mtu);
        let fitted = match seen {
            Seen::Port(port) => self.netlink.fit_port(port, &spec.netns, &sizes).await,
            Seen::Leg(leg) => self.netlink.fit_leg(leg, &spec.netns, &sizes).await,
        };
        let error = match fitted {
            Ok(()) => {
                self.unfit.remove(&id);
                return Ok(true);
            }
            Err(PortError::Netlink(error)) => {
                return Err(KernelError::new("changing a device's sizes failed", error));
            }
            // The endpoint's own trouble: its namespace has no name any more, say.
            Err(error) => crate::error_chain(&error),
        };
        if self.unfit.get(&id) != Some(&error) {
            tracing::warn!(device = ?id, mtu = spec.mtu, error, "a device keeps its MTU");
            self.unfit.insert(id, error);
        }
        Ok(false)
    }

    /// Reads the maps, without holding up who writes them.
    fn reader(&self) -> TableReader {
        self.datapath.lock().reader()
    }

    /// Removes the links of devices that are gone.
    fn detach_gone(&self, devices: &[ObservedDevice]) -> Result<(), KernelError> {
        let failed = |e| KernelError::new("removing the link of a device that is gone failed", e);
        let present: BTreeSet<u32> = devices.iter().map(|device| device.ifindex).collect();
        let mut datapath = self.datapath.lock();
        for gone in datapath.attached().difference(&present) {
            datapath.detach_endpoint(*gone).map_err(failed)?;
        }
        for gone in datapath.attached_gateways().difference(&present) {
            datapath.detach_gateway(*gone).map_err(failed)?;
        }
        Ok(())
    }
}

/// A device of ours as rtnetlink shows it.
#[derive(Clone)]
enum Seen {
    Port(netlink::ObservedPort),
    Leg(netlink::ObservedLeg),
}

impl Seen {
    fn id(&self) -> DeviceId {
        match self {
            Self::Port(port) => DeviceId::Port(port.endpoint),
            Self::Leg(leg) => DeviceId::Leg(leg.address),
        }
    }

    fn peer(&self) -> Option<&ObservedPeer> {
        match self {
            Self::Port(port) => port.peer.as_ref(),
            Self::Leg(leg) => leg.peer.as_ref(),
        }
    }

    fn into_observed(self, fault: Option<String>) -> ObservedDevice {
        let id = self.id();
        let interface = self.peer().map(|peer| peer.ifname.clone()).unwrap_or_default();
        let up = match &self {
            Self::Port(port) => port.is_active(),
            Self::Leg(leg) => leg.is_active(),
        };
        let (ifname, ifindex, mtu, bridge) = match self {
            Self::Port(port) => (port.ifname, port.ifindex, port.mtu, 0),
            Self::Leg(leg) => (leg.ifname, leg.ifindex, leg.mtu, leg.bridge),
        };
        ObservedDevice { id, ifname, ifindex, interface, mtu, bridge, up, fault }
    }
}

fn port_spec(endpoint: EndpointId, spec: &DeviceSpec) -> PortSpec {
    let DeviceSpec { netns, mac, address, prefix, mtu, gateway: _ } = spec.clone();
    PortSpec { endpoint, netns, mac, address, prefix, mtu }
}

fn leg_spec(spec: &DeviceSpec) -> LegSpec {
    let DeviceSpec { netns, mac, address, prefix, mtu, gateway } = spec.clone();
    LegSpec { netns, mac, address, prefix, mtu, gateway: gateway.unwrap_or(address) }
}

fn reading_maps_failed(error: DatapathError) -> KernelError {
    KernelError::new("reading the maps failed", error)
}

fn reading_failed(error: PortError) -> KernelError {
    KernelError::new("reading the devices failed", error)
}

fn not_made(error: PortError) -> DeviceFailure {
    match error {
        PortError::Netlink(error) => {
            DeviceFailure::Kernel(KernelError::new("making a device failed", error))
        }
        PortError::Attach(error) => {
            DeviceFailure::Kernel(KernelError::new("attaching to a device failed", error))
        }
        error => DeviceFailure::Endpoint(crate::error_chain(&error)),
    }
}

impl Kernel for HostKernel {
    type Cursor = Cursor;

    async fn read_back(&mut self) -> Result<(), KernelError> {
        self.read_back_devices().await
    }

    async fn tables(&mut self) -> Result<Tables, KernelError> {
        self.reader().tables().map_err(reading_maps_failed)
    }

    async fn small_tables(&mut self) -> Result<Tables, KernelError> {
        self.reader().small().map_err(reading_maps_failed)
    }

    async fn fdb_behind(&mut self, place: Option<Cursor>) -> Result<FdbPart<Cursor>, KernelError> {
        self.reader().fdb_behind(place).map_err(reading_maps_failed)
    }

    async fn neigh_behind(
        &mut self,
        place: Option<Cursor>,
    ) -> Result<NeighPart<Cursor>, KernelError> {
        self.reader().neigh_behind(place).map_err(reading_maps_failed)
    }

    async fn fdb(&mut self, keys: Vec<FdbKey>) -> Result<Vec<Option<FdbEntry>>, KernelError> {
        self.reader().fdb(keys).map_err(reading_maps_failed)
    }

    async fn neigh(&mut self, keys: Vec<NeighKey>) -> Result<Vec<Option<NeighEntry>>, KernelError> {
        self.reader().neigh(keys).map_err(reading_maps_failed)
    }

    async fn free_slots(&mut self, slots: BTreeSet<u32>) -> Result<(), KernelError> {
        let freed = self.datapath.lock().free_slots(&slots);
        freed.map_err(|e| KernelError::new("taking in what a port counted failed", e))
    }

    fn fallbacks(&self) -> Vec<String> {
        let guard = self.datapath.lock().guard().clone();
        let guard = guard.is_fallback.then(|| format!("no XDP guard: {}", guard.why));
        self.fallbacks.iter().cloned().chain(guard).chain(self.gateway.trouble()).collect()
    }

    fn gateway(&self) -> GatewayHealth {
        self.gateway.health()
    }

    async fn swap_programs(&mut self) -> Result<(), KernelError> {
        let swapped = self.datapath.lock().swap_programs();
        if swapped.map_err(|e| KernelError::new("replacing the programs failed", e))? {
            // It was left alone until now.
            self.guard_underlay().await;
        }
        Ok(())
    }

    async fn write(&mut self, changes: &[TableChange]) -> Result<(), KernelError> {
        let written = self.datapath.lock().write(changes);
        written.map_err(|e| KernelError::new("writing a map failed", e))
    }

    async fn devices(
        &mut self,
        wanted: &BTreeMap<DeviceId, DeviceSpec>,
    ) -> Result<Vec<ObservedDevice>, KernelError> {
        self.specs.clone_from(wanted);
        let (ports, legs) = self.netlink.observe().await.map_err(reading_failed)?;
        let mut devices = Vec::new();
        self.misfits.clear();
        for seen in ports.into_iter().map(Seen::Port).chain(legs.into_iter().map(Seen::Leg)) {
            let fault = match self.specs.get(&seen.id()) {
                Some(spec) => self.fault(&seen, spec).await.map_err(reading_failed)?,
                None => None,
            };
            if fault.is_none() && self.is_misfit(&seen) {
                self.misfits.push(seen.clone());
            }
            devices.push(seen.into_observed(fault));
        }
        self.detach_gone(&devices)?;
        Ok(devices)
    }

    async fn create(
        &mut self,
        id: DeviceId,
        spec: &DeviceSpec,
    ) -> Result<ObservedDevice, DeviceFailure> {
        let datapath = &self.datapath;
        let made = match id {
            DeviceId::Port(endpoint) => {
                let attach =
                    |ifname: &str, ifindex| datapath.lock().attach_endpoint(ifname, ifindex);
                self.netlink.create_port(&port_spec(endpoint, spec), attach).await.map(Seen::Port)
            }
            DeviceId::Leg(_) => {
                let attach =
                    |ifname: &str, ifindex| datapath.lock().attach_gateway(ifname, ifindex);
                self.netlink.create_leg(&leg_spec(spec), attach).await.map(Seen::Leg)
            }
        };
        let made = made.map_err(|error| match error {
            PortError::NoNamespace(_) | PortError::NotNamespace(_)
                if self.namespaces.lock().has(&spec.netns) =>
            {
                DeviceFailure::Endpoint(PROCESS_ENDED.to_owned())
            }
            error => not_made(error),
        });
        Ok(made?.into_observed(None))
    }

    fn hold_namespaces(&mut self, named: &BTreeSet<PathBuf>) {
        self.namespaces.lock().sweep(named, Instant::now());
    }

    async fn raise(&mut self, device: &ObservedDevice) -> Result<(), DeviceFailure> {
        let Some(spec) = self.specs.get(&device.id) else { return Ok(()) };
        let raised = match device.id {
            DeviceId::Port(endpoint) => {
                self.netlink.activate_port(&port_spec(endpoint, spec)).await
            }
            DeviceId::Leg(_) => self.netlink.activate_leg(&leg_spec(spec)).await,
        };
        raised.map_err(|error| match error {
            PortError::Netlink(error) => {
                DeviceFailure::Kernel(KernelError::new("setting a device up failed", error))
            }
            error => DeviceFailure::Endpoint(crate::error_chain(&error)),
        })
    }

    async fn ensure_attached(&mut self, device: &ObservedDevice) -> Result<(), KernelError> {
        let ObservedDevice { id, ifname, ifindex, .. } = device;
        let mut datapath = self.datapath.lock();
        let attached = match id {
            DeviceId::Port(_) => datapath.attach_endpoint(ifname, *ifindex),
            DeviceId::Leg(_) => datapath.attach_gateway(ifname, *ifindex),
        };
        attached.map_err(|e| KernelError::new("attaching to a device failed", e))
    }

    async fn delete(&mut self, device: &ObservedDevice) -> Result<(), KernelError> {
        let ObservedDevice { id, ifname, ifindex, .. } = device;
        let deleted = match id {
            DeviceId::Port(_) => self.netlink.delete_port(ifname).await,
            DeviceId::Leg(_) => self.netlink.delete_leg(ifname).await,
        };
        deleted.map_err(|e| KernelError::new("removing a device failed", e))?;
        let mut datapath = self.datapath.lock();
        let detached = match id {
            DeviceId::Port(_) => datapath.detach_endpoint(*ifindex),
            DeviceId::Leg(_) => datapath.detach_gateway(*ifindex),
        };
        detached.map_err(|e| KernelError::new("removing a device's link failed", e))
    }

    fn doubt_rules(&mut self) {
        self.gateway.doubt();
    }

    async fn publish(&mut self, ports: &PublishedPorts) -> Result<(), KernelError> {
        self.gateway.publish(ports).await
    }

    async fn resolve(&mut self, names: &Arc<Names>, is_whole: bool) -> Result<(), KernelError> {
        self.gateway.resolve(names, is_whole).await;
        Ok(())
    }

    async fn ways(
        &mut self,
        vteps: &BTreeSet<Ipv4Addr>,
    ) -> Result<BTreeMap<Ipv4Addr, Way>, KernelError> {
        let mut ways = BTreeMap::new();
        for vtep in vteps {
            let way = self.netlink.way(*vtep, &self.underlay).await;
            let way = way.map_err(|e| KernelError::new("looking up a route failed", e))?;
            if let Some(netlink::Way { mtu, hop }) = way {
                let hop = hop.map(|netlink::NextHop { ifindex, mac, source_mac }| NextHop {
                    ifindex,
                    mac,
                    source_mac,
                });
                ways.insert(*vtep, Way { mtu, hop });
            }
        }
        Ok(ways)
    }

    async fn underlay_mtu(&mut self) -> Result<u32, KernelError> {
        let sizes = self.netlink.device_sizes(self.underlay.ifindex).await;
        let sizes = sizes.map_err(|e| KernelError::new("looking at the underlay failed", e))?;
        // One that is gone is what `read_back` complains of.
        if let Some(sizes) = sizes {
            self.underlay.mtu = sizes.mtu;
        }
        Ok(self.underlay.mtu)
    }

    async fn fit(
        &mut self,
        gateway_mtu: u32,
        devices: &mut BTreeMap<DeviceId, ObservedDevice>,
    ) -> Result<(), KernelError> {
        let gateway = *self.super_packets.gateway();
        // The bridge takes no more than its legs do, at no moment.
        if gateway_mtu < self.gateway.mtu() {
            self.gateway.fit(gateway_mtu, &gateway).await?;
        }
        let mut failed = Ok(());
        for seen in std::mem::take(&mut self.misfits) {
            let Some(spec) = self.specs.get(&seen.id()).cloned() else { continue };
            match self.fit_one(&seen, &spec).await {
                Ok(true) => {
                    devices.entry(seen.id()).and_modify(|device| device.mtu = spec.mtu);
                }
                Ok(false) => {}
                Err(error) => failed = Err(error),
            }
        }
        self.gateway.fit(gateway_mtu, &gateway).await?;
        failed
    }

    fn super_packets(&self) -> SuperPacketHealth {
        self.super_packets.health().clone()
    }
}
