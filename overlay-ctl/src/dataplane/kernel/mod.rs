//! The contract between the reconciler and the kernel: what is asked, what is seen, and what a node says of it.

mod mtu;
mod names;
mod status;
mod tables;

pub use mtu::{MtuSource, Mtus, packet_mtu};
pub use names::{Names, Namespace, NetworkNames};
pub use status::{EndpointHealth, GatewayHealth, LegHealth, LocalStatus, SuperPacketHealth};
pub use tables::{TableChange, Tables};

use crate::{
    dataplane::gateway::Target,
    model::{EndpointId, Transport},
};
use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::Ipv4Addr,
    num::NonZeroU16,
    path::PathBuf,
    sync::Arc,
};

/// A failure that is not one endpoint's own.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct KernelError {
    /// What was being done.
    pub what: &'static str,
    /// What the kernel said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl KernelError {
    /// Wraps what the kernel said.
    pub fn new(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { what, source: source.into() }
    }
}

/// Why a device was not made, of which nothing is left then, or not brought up.
#[derive(Debug, thiserror::Error)]
pub enum DeviceFailure {
    /// The endpoint's own trouble (its namespace is gone, say): it is shown as down.
    #[error("{0}")]
    Endpoint(String),
    /// Anything else: the pass fails.
    #[error(transparent)]
    Kernel(KernelError),
}

/// A veth pair of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceId {
    /// An endpoint's port on its network.
    Port(EndpointId),
    /// A namespace's leg on the gateway bridge, by its address there.
    Leg(Ipv4Addr),
}

/// What a veth pair must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Absolute path of the namespace.
    pub netns: PathBuf,
    /// MAC of the side inside.
    pub mac: [u8; 6],
    /// Address of the side inside.
    pub address: Ipv4Addr,
    /// Prefix length of the subnet.
    pub prefix: u8,
    /// Bytes, both sides.
    pub mtu: u32,
    /// A leg's default route; `None` for a port.
    pub gateway: Option<Ipv4Addr>,
}

/// A veth pair of ours, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedDevice {
    /// Whose, as its mark says.
    pub id: DeviceId,
    /// Host side.
    pub ifname: String,
    /// Host side.
    pub ifindex: u32,
    /// The side inside.
    pub interface: String,
    /// Bytes.
    pub mtu: u32,
    /// Index of the bridge that a leg is in; 0 for a port, and for a leg that is in none.
    pub bridge: u32,
    /// It was brought up, and packets flow.
    pub up: bool,
    /// How it differs from what its endpoint needs, if it does: it must be built anew then. Addresses
    /// inside are the endpoint's own to change; the data path enforces them.
    pub fault: Option<String>,
}

/// How a VTEP is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Device.
    pub ifindex: u32,
    /// Outer destination MAC.
    pub mac: [u8; 6],
    /// Outer source MAC.
    pub source_mac: [u8; 6],
}

/// What is known of the way to a VTEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Bytes of the largest outer packet, by the device and the route.
    pub mtu: u32,
    /// `None`: it is not resolved.
    pub hop: Option<NextHop>,
}

/// Ports of this node and where they lead: protocol, address of the node (unspecified = all), port.
pub type PublishedPorts = BTreeMap<(Transport, Ipv4Addr, NonZeroU16), Target>;

/// Entries of the FDB, and where to go on.
pub type FdbPart<C> = (Vec<(FdbKey, FdbEntry)>, Option<C>);
/// Neighbours, and where to go on.
pub type NeighPart<C> = (Vec<(NeighKey, NeighEntry)>, Option<C>);

/// What the reconciler asks of the kernel. Real: [`crate::node`]; a fake lets the reconciler be
/// tested without root.
pub trait Kernel: Send {
    /// A place in a walk through a map.
    type Cursor: Copy + Send;
    /// Makes sure of all that a pass does not look at one by one: devices that packets need, or would be
    /// slower without, and the program on the underlay.
    fn read_back(&mut self) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Reads the maps.
    fn tables(&mut self) -> impl Future<Output = Result<Tables, KernelError>> + Send;
    /// Reads all maps but the FDB and the neighbours.
    fn small_tables(&mut self) -> impl Future<Output = Result<Tables, KernelError>> + Send;
    /// Reads some of the FDB behind a place, and says where to go on; `None` after the last entry.
    fn fdb_behind(
        &mut self,
        place: Option<Self::Cursor>,
    ) -> impl Future<Output = Result<FdbPart<Self::Cursor>, KernelError>> + Send;
    /// The same of the neighbours.
    fn neigh_behind(
        &mut self,
        place: Option<Self::Cursor>,
    ) -> impl Future<Output = Result<NeighPart<Self::Cursor>, KernelError>> + Send;
    /// Looks up FDB entries.
    fn fdb(
        &mut self,
        keys: Vec<FdbKey>,
    ) -> impl Future<Output = Result<Vec<Option<FdbEntry>>, KernelError>> + Send;
    /// Looks up neighbours.
    fn neigh(
        &mut self,
        keys: Vec<NeighKey>,
    ) -> impl Future<Output = Result<Vec<Option<NeighEntry>>, KernelError>> + Send;
    /// Lets what these slots of TRAFFIC counted be the node's own, and empties them for others.
    fn free_slots(
        &mut self,
        slots: BTreeSet<u32>,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Changes map entries, in this order.
    fn write(
        &mut self,
        changes: &[TableChange],
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Lets this version's programs replace those of another layout, which forward by maps of their own until
    /// then: the tables hold all that a complete, current view says. Called after every such sync, and does
    /// nothing after the first.
    fn swap_programs(&mut self) -> impl Future<Output = Result<(), KernelError>> + Send {
        std::future::ready(Ok(()))
    }
    /// Lists the devices of ours, each held against what `wanted` says of it.
    fn devices(
        &mut self,
        wanted: &BTreeMap<DeviceId, DeviceSpec>,
    ) -> impl Future<Output = Result<Vec<ObservedDevice>, KernelError>> + Send;
    /// These are the namespaces of all endpoints of this node: others need not be held for one.
    fn hold_namespaces(&mut self, _named: &BTreeSet<PathBuf>) {}
    /// Makes a device with its program attached, down.
    fn create(
        &mut self,
        id: DeviceId,
        spec: &DeviceSpec,
    ) -> impl Future<Output = Result<ObservedDevice, DeviceFailure>> + Send;
    /// Sets it up, and returns when packets flow.
    fn raise(
        &mut self,
        device: &ObservedDevice,
    ) -> impl Future<Output = Result<(), DeviceFailure>> + Send;
    /// Makes sure of an existing device's program.
    fn ensure_attached(
        &mut self,
        device: &ObservedDevice,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Removes a device, its program's link included.
    fn delete(
        &mut self,
        device: &ObservedDevice,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Somebody wrote to the ruleset: what was published is to be looked at when it is next.
    fn doubt_rules(&mut self) {}
    /// Makes exactly these ports of the node lead to endpoints.
    fn publish(
        &mut self,
        ports: &PublishedPorts,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Makes exactly these names resolve, in exactly these namespaces. What a namespace would need
    /// that is not among them is swept only where `is_whole`: the names may come from an old view.
    fn resolve(
        &mut self,
        names: &Arc<Names>,
        is_whole: bool,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// What is done in a slower way than it could be, or is not done for one endpoint, in words.
    fn fallbacks(&self) -> Vec<String> {
        Vec::new()
    }
    /// What is done for the way to and from the outside.
    fn gateway(&self) -> GatewayHealth {
        GatewayHealth::default()
    }
    /// How each VTEP is reached; those without a route are left out. The resolution of those without a
    /// hop begins.
    fn ways(
        &mut self,
        vteps: &BTreeSet<Ipv4Addr>,
    ) -> impl Future<Output = Result<BTreeMap<Ipv4Addr, Way>, KernelError>> + Send;
    /// Bytes: the underlay device's MTU, now.
    fn underlay_mtu(&mut self) -> impl Future<Output = Result<u32, KernelError>> + Send;
    /// Makes the devices, which were last listed, what they were held against in all that can be changed
    /// while packets flow, and notes their new MTUs; and lets the gateway bridge have `gateway_mtu`.
    fn fit(
        &mut self,
        gateway_mtu: u32,
        devices: &mut BTreeMap<DeviceId, ObservedDevice>,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// How large super-packets are.
    fn super_packets(&self) -> SuperPacketHealth {
        SuperPacketHealth::default()
    }
}
