//! The contract with the kernel: what the reconciler asks of it, what is seen of it, and what a node reports of it.
//!
//! Four doors lead to the kernel: [`Maps`], [`Devices`], [`Outside`] and [`Resolve`]. The real ones are in
//! `dataplane/host`; the tests of the reconciler have a kernel in memory behind them.
//!
//! Architecture invariant: the contract has no memory. A requirement (a spec) and an observation are arguments, so a
//! call means the same whatever calls came before it.

mod device;
mod error;
mod kind;
mod mtu;
mod names;
mod published;
mod sizes;
mod status;
mod tables;
mod way;

pub use device::{
    DeviceFailure, DeviceId, DeviceSpec, LocalGateway, NetnsId, Observed, ObservedBridge,
    ObservedDevice, ObservedPeer, Part, Station, Stations, WantedDevices,
};
pub use error::KernelError;
pub use kind::{
    Bridge, DeviceKind, FIRST_INTERFACE, GATEWAY_INTERFACE, Interface, Kind, Large, LargePackets,
    Program,
};
pub use mtu::{MtuSource, Mtus, packet_mtu};
pub use names::{Names, Namespace, NetworkNames};
pub use published::{GatewayUse, HostPort, Legs, PublishedPorts, Target};
pub use sizes::{PairSizes, SUPER_PACKET_MAX, SuperPackets};
pub use status::{
    EndpointHealth, GatewayHealth, LegHealth, LocalStatus, Probed, SuperPacketHealth,
};
pub use tables::{TableChange, Tables};
pub use way::{LinkLayer, NextHop, Uplink, Way, Ways};

use crate::model::Vtep;
use overlay_common::{Counter, FdbEntry, FdbKey, NeighEntry, NeighKey};
use std::{collections::BTreeSet, future::Future, path::PathBuf, sync::Arc};

/// Some entries of the FDB, and the place after the last of them; `None` after the last entry of the map.
pub type FdbPart<C> = (Vec<(FdbKey, FdbEntry)>, Option<C>);
/// Some neighbour entries, and the place after the last of them; `None` after the last entry of the map.
pub type NeighPart<C> = (Vec<(NeighKey, NeighEntry)>, Option<C>);

/// The four doors to the kernel, as one value.
pub trait Kernel: Send {
    /// The door to the maps.
    type Maps: Maps;
    /// The door to the devices.
    type Devices: Devices;
    /// The door to the underlay and to the outside world.
    type Outside: Outside;
    /// The door to the resolvers.
    type Resolve: Resolve;

    /// The maps.
    fn maps(&mut self) -> &mut Self::Maps;
    /// The devices.
    fn devices(&mut self) -> &mut Self::Devices;
    /// The underlay and the outside world.
    fn outside(&mut self) -> &mut Self::Outside;
    /// The resolvers.
    fn resolve(&mut self) -> &mut Self::Resolve;
}

/// The maps that the programs read.
pub trait Maps: Send {
    /// A place in a walk through a map.
    type Cursor: Copy + Send;

    /// Reads all maps.
    fn tables(&mut self) -> impl Future<Output = Result<Tables, KernelError>> + Send;
    /// Reads all maps except the FDB and the neighbours, which are left empty in the result.
    fn small_tables(&mut self) -> impl Future<Output = Result<Tables, KernelError>> + Send;
    /// Reads some entries of the FDB, from a place on.
    fn fdb_behind(
        &mut self,
        place: Option<Self::Cursor>,
    ) -> impl Future<Output = Result<FdbPart<Self::Cursor>, KernelError>> + Send;
    /// Reads some neighbour entries, from a place on.
    fn neigh_behind(
        &mut self,
        place: Option<Self::Cursor>,
    ) -> impl Future<Output = Result<NeighPart<Self::Cursor>, KernelError>> + Send;
    /// Looks up FDB entries.
    fn fdb(
        &mut self,
        keys: Vec<FdbKey>,
    ) -> impl Future<Output = Result<Vec<Option<FdbEntry>>, KernelError>> + Send;
    /// Looks up neighbour entries.
    fn neigh(
        &mut self,
        keys: Vec<NeighKey>,
    ) -> impl Future<Output = Result<Vec<Option<NeighEntry>>, KernelError>> + Send;
    /// Adds what was counted in these slots of TRAFFIC to the node's own counts, and empties the slots for others.
    /// No entry of PORTS may name them any more.
    fn free_slots(
        &mut self,
        slots: BTreeSet<u32>,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Writes map entries, in this order.
    fn write(
        &mut self,
        changes: &[TableChange],
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
}

/// The devices of endpoints.
pub trait Devices: Send {
    /// Lists all devices of the overlay, and finds the namespaces that these paths lead to. Removes the programs'
    /// links of devices that are gone. A device that the kernel's list leaves out may still stand, if the list was
    /// interrupted: [`Devices::create`] finds it.
    fn observe(
        &mut self,
        paths: &BTreeSet<PathBuf>,
    ) -> impl Future<Output = Result<Observed, KernelError>> + Send;
    /// The same of a part: the devices and the namespaces of it that there are, and the gateway bridge.
    fn observe_part(
        &mut self,
        part: &Part,
    ) -> impl Future<Output = Result<Observed, KernelError>> + Send;
    /// Releases the held namespaces that are not among these, which are the namespaces of all endpoints of this node.
    fn release_namespaces(&mut self, _named: &BTreeSet<PathBuf>) {}
    /// Creates a device, down, with its program attached. Where a device stands that is the wanted one, the result is
    /// that device, as it is.
    fn create(
        &mut self,
        spec: &DeviceSpec,
    ) -> impl Future<Output = Result<ObservedDevice, DeviceFailure>> + Send;
    /// Attaches the program of a device, where it is not attached.
    fn attach(
        &mut self,
        seen: &ObservedDevice,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Gives a device every property that can change while packets flow: its sizes.
    fn update(
        &mut self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> impl Future<Output = Result<(), DeviceFailure>> + Send;
    /// Sets a device up, and returns when packets flow through it: the device as it is read back then.
    fn raise(
        &mut self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> impl Future<Output = Result<ObservedDevice, DeviceFailure>> + Send;
    /// Removes a device, and its program's link.
    fn remove(
        &mut self,
        seen: &ObservedDevice,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
}

/// The underlay, and the way to and from the outside world.
pub trait Outside: Send {
    /// Creates or repairs what a pass does not look at: the barrier, the GRO device, the gateway bridge, and the
    /// programs and sizes of the uplinks. Follows the node's VTEP address to another device, and to another address where
    /// none was asked for. Legs that somebody took
    /// out of the gateway bridge are put back, if they are among `stations`. The bridge gets the MTU of its smallest
    /// leg at most. Marks the ruleset and forwarding as to be looked at again.
    ///
    /// Returns what could not be done, in words. One of these things that fails keeps none of the others from being done.
    fn repair(
        &mut self,
        gateway: &LocalGateway,
        stations: &Stations,
    ) -> impl Future<Output = Vec<String>> + Send;
    /// Looks at the underlay device, and up the ways to these VTEPs. Has the kernel keep their next hops resolved, and
    /// these alone. The way to one VTEP that cannot be found out affects no other.
    fn ways(&mut self, vteps: &BTreeSet<Vtep>) -> impl Future<Output = Ways> + Send;
    /// Makes sure that packets of VXLAN are received by these devices, by which VTEPs are reached, and by every other
    /// uplink: the one that carries the node's VTEP address, and those by which packets come whose answer leaves by
    /// another. Makes the merge pair where one of them is a veth, and removes it where none is. A device on which the
    /// program cannot be attached is named in [`OutsideHealth::fallbacks`], and so is a pair that cannot be made.
    fn attach_uplinks(
        &mut self,
        _devices: &BTreeSet<u32>,
    ) -> impl Future<Output = Result<(), KernelError>> + Send {
        std::future::ready(Ok(()))
    }
    /// Lets this version's programs replace those of another layout, which forward by maps of their own until then.
    /// Called after every sync with a complete, current view; does nothing after the first.
    fn swap_programs(&mut self) -> impl Future<Output = Result<(), KernelError>> + Send {
        std::future::ready(Ok(()))
    }
    /// Gives the gateway bridge this MTU, and the sizes of super-packets that belong to it.
    fn update_bridge(
        &mut self,
        gateway: &LocalGateway,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Marks the ruleset as to be read again by the next [`Outside::publish`], because another program wrote to
    /// nftables.
    fn doubt_rules(&mut self) {}
    /// Marks forwarding as to be looked at again by the next [`Outside::publish`], because somebody may have changed it.
    fn doubt_forwarding(&mut self) {}
    /// Makes exactly these ports of the node lead to endpoints, and ends the connections that led elsewhere, or by a leg
    /// that is not among these. Lets the host's neighbours and the gateway bridge reach each other.
    fn publish(
        &mut self,
        wanted: &GatewayUse,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// The state of all this, as the node reports it.
    fn health(&self) -> OutsideHealth {
        OutsideHealth::default()
    }
}

/// The state of the way to other nodes and to the outside world.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutsideHealth {
    /// The name of the device that carries the node's VTEP address.
    pub underlay: String,
    /// That address, as this host has it.
    pub vtep: Option<Vtep>,
    /// Packets to the VXLAN port that no program of the node took, so that they reached the host's own stack. Those of
    /// another program on the port are not counted.
    pub unseen: Counter,
    /// What is done in a slower way than possible, or is not done for one endpoint, in words.
    pub fallbacks: Vec<String>,
    /// The number of published ports.
    pub published: usize,
    /// Devices whose forwarding the node switched on.
    pub forwarding: BTreeSet<String>,
}

/// The resolvers in the namespaces of endpoints.
pub trait Resolve: Send {
    /// Makes exactly these names resolve, in exactly these namespaces.
    ///
    /// Files of namespaces without endpoints are removed only where `is_whole`, since the names may come from an old
    /// view otherwise.
    fn resolve(
        &mut self,
        names: &Arc<Names>,
        is_whole: bool,
    ) -> impl Future<Output = Resolved> + Send;
}

/// The outcome of [`Resolve::resolve`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The number of namespaces in which names resolve.
    pub resolvers: usize,
    /// The problems, in words. The other namespaces are not affected by them.
    pub trouble: Vec<String>,
    /// What is done worse than it could be, in words, though all names of endpoints resolve.
    pub fallbacks: Vec<String>,
}
