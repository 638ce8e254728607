//! Moves the kernel from what is observed to what the state desires, for ever.
//!
//! Level-triggered: each pass looks at the whole desired state, never at what changed. A pass that
//! fails half-way is made up for by the next. In a pass, an endpoint's port stands before the tables
//! name it, and the tables forget it before the port goes, so that no entry ever points nowhere.
//!
//! Architecture invariant: nothing is swept before the view is known to be complete and no older than
//! what the kernel holds; see `Gate` in [`crate::node`].
//!
//! Architecture invariant: only ports that carry our mark are touched.

mod desired;
mod diff;
mod hop;
mod kernel;
mod local;
mod names;
#[cfg(test)]
mod tests;

pub use desired::{LocalGateway, LocalNode, desired_tables};
pub use diff::{TableChange, Tables, changes};
pub use hop::{LocalVtep, hop_entry};
pub use kernel::{
    DeviceFailure, DeviceId, DeviceSpec, Kernel, KernelError, NextHop, ObservedDevice,
    PublishedPorts,
};
pub use local::{EndpointHealth, GatewayHealth, LegHealth, LocalStatus};

use crate::{
    dns::Names,
    model::{EndpointId, NodeId, Revision},
    state::View,
};
use overlay_common::{NodeKey, ip16_from_v4};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// The whole kernel state is read back this often, whatever was heard of it.
const RESYNC: Duration = Duration::from_secs(5);
/// A failed pass is tried again after this long.
const RETRY: Duration = Duration::from_millis(500);

/// Word that the kernel may have changed.
pub struct Nudges {
    /// Devices, addresses, routes, neighbours, namespaces.
    pub devices: mpsc::Receiver<()>,
    /// The ruleset.
    pub rules: mpsc::Receiver<()>,
}

/// One node's reconciler.
pub struct Reconciler<K> {
    kernel: K,
    node: LocalNode,
    /// The tables as last read or written, so that a pass need not read them all back.
    tables: Option<Tables>,
    names: Arc<Names>,
    /// As last asked for.
    ports: PublishedPorts,
    health: BTreeMap<EndpointId, EndpointHealth>,
    status: watch::Sender<LocalStatus>,
}

impl<K: Kernel> Reconciler<K> {
    /// A reconciler that has not looked at the kernel yet, and what it will say.
    pub fn new(kernel: K, node: LocalNode) -> (Self, watch::Receiver<LocalStatus>) {
        let waiting = LocalStatus {
            error: Some(
                "waiting for a voter, or a quorum of them, before the kernel is touched".into(),
            ),
            ..LocalStatus::default()
        };
        let (status, receiver) = watch::channel(waiting);
        let reconciler = Self {
            kernel,
            node,
            tables: None,
            names: Arc::default(),
            ports: PublishedPorts::new(),
            health: BTreeMap::new(),
            status,
        };
        (reconciler, receiver)
    }

    /// Runs until the view's sender is gone.
    pub async fn run(mut self, mut views: watch::Receiver<Arc<View>>, mut nudges: Nudges) {
        let mut resync = tokio::time::interval(RESYNC);
        resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let retry = match self.pass(&view).await {
                Ok(()) => None,
                Err(error) => {
                    // What the kernel holds is uncertain now: read it back.
                    self.tables = None;
                    let text = crate::error_chain(&error);
                    if self.status.borrow().error.as_ref() != Some(&text) {
                        tracing::error!(error = %text, revision = view.revision, "reconcile failed");
                    }
                    self.status.send_modify(|status| status.error = Some(text));
                    Some(RETRY)
                }
            };
            loop {
                tokio::select! {
                    changed = views.changed() => if changed.is_err() { return },
                    // A failed pass makes changes of its own: what they say can wait with the rest.
                    Some(()) = nudges.devices.recv(), if retry.is_none() => {}
                    Some(()) = nudges.rules.recv(), if retry.is_none() => {
                        self.kernel.doubt_rules();
                        // A published port that is gone is worth more than a pass' time. Where it
                        // can't be put back, a pass says so.
                        if self.kernel.publish(&self.ports).await.is_ok() {
                            continue;
                        }
                    }
                    _ = resync.tick() => self.tables = None,
                    () = sleep_or_never(retry) => {}
                }
                break;
            }
        }
    }

    /// Lets names resolve before the view may be acted on, provided that it knows every endpoint that the
    /// kernel delivers to: those of them, and no other. No map, port or rule is changed by it.
    ///
    /// # Errors
    /// The kernel can't be read.
    pub async fn preview(&mut self, view: &View) -> Result<(), KernelError> {
        let held = self.kernel.tables().await?;
        if !names::is_known(view, &held) {
            return Ok(());
        }
        let devices = self.kernel.devices(&desired::devices(view, &self.node)).await?;
        let sound = devices.into_iter().filter(|device| device.fault.is_none());
        let devices = sound.map(|device| (device.id, device)).collect();
        self.names = Arc::new(names::desired_names(view, &self.node, &held, &devices));
        self.kernel.resolve(&self.names, false).await
    }

    /// One pass. Says what it reached.
    ///
    /// # Errors
    /// The kernel refused something that is not one endpoint's own trouble.
    pub async fn pass(&mut self, view: &View) -> Result<(), KernelError> {
        if self.tables.is_none() {
            self.tables = Some(self.kernel.tables().await?);
        }
        let wanted = desired::devices(view, &self.node);
        let observed = self.kernel.devices(&wanted).await?;
        let (standing, doomed): (Vec<_>, Vec<_>) = observed
            .into_iter()
            .partition(|device| wanted.contains_key(&device.id) && device.fault.is_none());

        let mut made = Made::default();
        for device in standing {
            made.note(self.kernel.ensure_attached(&device).await);
            made.devices.insert(device.id, device);
        }
        let is_doomed = |id: &DeviceId| doomed.iter().any(|device| device.id == *id);
        self.create_missing(wanted.iter().filter(|(id, _)| !is_doomed(id)), &mut made).await;
        self.program(view, &mut made).await?;
        for device in &doomed {
            if let Err(error) = self.kernel.delete(device).await {
                made.note(Err(error));
                continue;
            }
            let reason = device.fault.as_deref().unwrap_or("its endpoint is gone");
            tracing::info!(device = %device.ifname, reason, "device removed");
        }
        // A doomed device of a wanted endpoint (its namespace was made anew, say) is built again, now
        // that nothing of the old one is left; and so is a leg in whose place another one was.
        if !doomed.is_empty() && self.create_missing(wanted.iter(), &mut made).await {
            self.program(view, &mut made).await?;
        }
        for device in made.devices.values_mut().filter(|device| !device.up) {
            match self.kernel.raise(device).await {
                Ok(()) => device.up = true,
                Err(error) => {
                    made.failed.get_or_insert(error);
                }
            }
        }
        self.resolve(view, &mut made).await;
        self.judge(view, &made);
        let endpoints = self.health.clone();
        if let Some(error) = made.failed {
            self.status.send_modify(|status| status.endpoints = endpoints);
            return Err(error);
        }
        let status = LocalStatus {
            programmed: view.revision,
            endpoints,
            error: None,
            fallbacks: self.kernel.fallbacks(),
            unresolved: self.unresolved(view),
            gateway: self.kernel.gateway(),
        };
        self.status.send_if_modified(|now| {
            let changed = *now != status;
            *now = status;
            changed
        });
        Ok(())
    }

    /// Makes the devices that do not stand yet. Whether there were any.
    async fn create_missing(
        &mut self,
        wanted: impl Iterator<Item = (&DeviceId, &DeviceSpec)>,
        made: &mut Made,
    ) -> bool {
        let mut any = false;
        for (id, spec) in wanted {
            if made.devices.contains_key(id) {
                continue;
            }
            match self.kernel.create(*id, spec).await {
                Ok(device) => {
                    made.refused.remove(id);
                    made.devices.insert(*id, device);
                    any = true;
                }
                Err(DeviceFailure::Endpoint(reason)) => {
                    made.refused.insert(*id, reason);
                }
                Err(DeviceFailure::Kernel(error)) => {
                    made.refused.insert(*id, crate::error_chain(&error));
                    made.note(Err(error));
                }
            }
        }
        any
    }

    /// Lets the maps, the published ports and the names say what the view and the devices do. A name
    /// goes before its endpoint does, and comes after it.
    async fn program(&mut self, view: &View, made: &mut Made) -> Result<(), KernelError> {
        self.resolve(view, made).await;
        self.sync_tables(view, &made.devices).await?;
        self.ports = names::desired_ports(view, &self.node, &made.devices);
        let published = self.kernel.publish(&self.ports).await;
        made.note(published);
        Ok(())
    }

    /// Makes the names resolve that the data path holds the endpoints of.
    async fn resolve(&mut self, view: &View, made: &mut Made) {
        let Some(held) = &self.tables else { return };
        let names = names::desired_names(view, &self.node, held, &made.devices);
        if names != *self.names {
            self.names = Arc::new(names);
        }
        let resolved = self.kernel.resolve(&self.names, true).await;
        made.note(resolved);
    }

    /// Finds out which endpoints are up, and says what changed.
    fn judge(&mut self, view: &View, made: &Made) {
        let mut health = BTreeMap::new();
        let here = view.all_endpoints().filter(|e| e.node() == Some(self.node.id));
        for endpoint in here {
            let now = made.health(DeviceId::Port(endpoint.id), endpoint.gateway);
            if self.health.get(&endpoint.id) != Some(&now) {
                match &now.down {
                    None => tracing::info!(
                        endpoint = endpoint.id, device = %now.ifname, ifindex = now.ifindex,
                        "endpoint up"
                    ),
                    Some(reason) => {
                        tracing::warn!(endpoint = endpoint.id, reason, "endpoint down");
                    }
                }
            }
            health.insert(endpoint.id, now);
        }
        self.health = health;
    }

    async fn sync_tables(
        &mut self,
        view: &View,
        devices: &BTreeMap<DeviceId, ObservedDevice>,
    ) -> Result<(), KernelError> {
        let peers: BTreeSet<Ipv4Addr> = desired::remote_vteps(view, &self.node);
        let next_hops = self.kernel.next_hops(&peers).await?;
        let held = self.tables.get_or_insert_default();
        let desired = desired_tables(view, &self.node, devices, &next_hops, held);
        for change in changes(held, &desired) {
            self.kernel.write(&change).await?;
            change.apply_to(held);
        }
        Ok(())
    }

    /// The nodes that packets go to by the slower path.
    fn unresolved(&self, view: &View) -> Vec<NodeId> {
        let Some(tables) = &self.tables else { return Vec::new() };
        let peers = desired::remote_vteps(view, &self.node);
        let keys = peers.iter().map(|vtep| NodeKey { vtep: ip16_from_v4(vtep.octets()) });
        keys.filter_map(|key| tables.nodes.get(&key))
            .filter(|node| node.node != 0)
            .filter(|node| tables.hops.get(&node.hop).is_none_or(|hop| hop.ifindex == 0))
            .map(|node| node.node)
            .collect()
    }
}

/// What a pass has found and made so far.
#[derive(Default)]
struct Made {
    devices: BTreeMap<DeviceId, ObservedDevice>,
    /// What could not be made, and why.
    refused: BTreeMap<DeviceId, String>,
    /// One device's failure must not keep the others from what they need: the pass goes on, and says
    /// at its end that it failed.
    failed: Option<KernelError>,
}

impl Made {
    fn note(&mut self, outcome: Result<(), KernelError>) {
        if let Err(error) = outcome {
            self.failed.get_or_insert(error);
        }
    }

    /// An endpoint is up when its port and, where it has one, its gateway leg are.
    fn health(&self, port: DeviceId, leg: Option<Ipv4Addr>) -> EndpointHealth {
        let leg = leg.map(DeviceId::Leg);
        let down = |id: DeviceId| match (self.devices.get(&id), self.refused.get(&id)) {
            (Some(device), _) if device.up => None,
            (_, Some(reason)) => Some(reason.clone()),
            (Some(_), None) => Some("its device could not be set up".to_owned()),
            (None, None) => Some(
                "its address is not of this node's gateway subnet: the node is to register again"
                    .to_owned(),
            ),
        };
        let legs_down = leg.and_then(down).map(|reason| format!("gateway leg: {reason}"));
        if let Some(reason) = down(port).or(legs_down) {
            return EndpointHealth { down: Some(reason), ..EndpointHealth::default() };
        }
        let Some(device) = self.devices.get(&port) else { return EndpointHealth::default() };
        EndpointHealth {
            down: None,
            ifname: device.ifname.clone(),
            ifindex: device.ifindex,
            mtu: device.mtu,
            interface: device.interface.clone(),
            gateway: leg.and_then(|leg| self.devices.get(&leg)).map(|leg| LegHealth {
                interface: leg.interface.clone(),
                ifname: leg.ifname.clone(),
                ifindex: leg.ifindex,
                mtu: leg.mtu,
            }),
        }
    }
}

async fn sleep_or_never(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}

/// The least revision that the tables can be of: that of the newest endpoint in the FDB.
#[must_use]
pub fn programmed_at_least(tables: &Tables) -> Revision {
    tables.fdb.values().map(|entry| entry.generation).max().unwrap_or(0)
}
