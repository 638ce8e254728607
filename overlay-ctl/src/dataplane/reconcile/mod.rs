//! Moves the kernel from what is observed to what the state desires, for ever.
//!
//! Level-triggered: a pass compares what is with what should be; nobody tells it what changed. What
//! the kernel holds is remembered, and two views share what they have in common, so that one changed
//! endpoint among a million costs what one changed endpoint does. Memory is not trusted for ever: after
//! a failure everything is read back, and an audit reads on and on (see `audit`). A pass that fails
//! half-way is made up for by the next. In a pass, an endpoint's port stands before the tables name it,
//! and the tables forget it before the port goes, so that no entry ever points nowhere.
//!
//! Architecture invariant: nothing is swept before the view is known to be complete and no older than
//! what the kernel holds; see `Gate` in [`crate::node`].
//!
//! Architecture invariant: only ports that carry our mark are touched.

mod audit;
mod desired;
mod diff;
mod hop;
mod kept;
mod made;
mod members;
mod names;
#[cfg(test)]
mod tests;

pub use desired::{LocalGateway, LocalNode};
pub use hop::{LocalVtep, hop_entry};

use crate::{
    control::state::View,
    dataplane::kernel::{
        DeviceFailure, DeviceId, DeviceSpec, EndpointHealth, Kernel, KernelError, LocalStatus,
        Mtus, Names, PublishedPorts, Tables,
    },
    model::{EndpointId, NodeId, Revision},
};
use audit::Audit;
use kept::Kept;
use made::Made;
use overlay_common::{NodeKey, TRAFFIC_MAX, ip16_from_v4};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// The kernel is looked at this often, whatever was heard of it: all devices, the small tables, and of
/// the large ones the next part.
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
pub struct Reconciler<K: Kernel> {
    kernel: K,
    node: LocalNode,
    /// `None`: what the kernel holds is uncertain.
    kept: Option<Kept>,
    /// The last look at the kernel came to its end.
    is_settled: bool,
    audit: Audit<K::Cursor>,
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
            mtus: Mtus::new(node.gateway.mtu, node.asked_mtu, &BTreeMap::new()),
            super_packets: kernel.super_packets(),
            ..LocalStatus::default()
        };
        let (status, receiver) = watch::channel(waiting);
        let reconciler = Self {
            kernel,
            node,
            kept: None,
            is_settled: false,
            audit: Audit::default(),
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
        let mut due = Due::Pass;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let retry = match self.work(&view, due).await {
                Ok(()) => None,
                Err(error) => {
                    let text = crate::error_chain(&error);
                    if self.status.borrow().error.as_ref() != Some(&text) {
                        tracing::error!(error = %text, revision = view.revision, "reconcile failed");
                    }
                    self.status.send_modify(|status| status.error = Some(text));
                    Some(RETRY)
                }
            };
            due = loop {
                tokio::select! {
                    changed = views.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break Due::View;
                    }
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
                    _ = resync.tick() => break Due::Resync,
                    () = sleep_or_never(retry) => break Due::Resync,
                }
                break Due::Pass;
            };
        }
    }

    async fn work(&mut self, view: &View, due: Due) -> Result<(), KernelError> {
        let is_settled = std::mem::replace(&mut self.is_settled, false);
        if is_settled && matches!(due, Due::View) && self.follow(view).await? {
            self.is_settled = true;
            return Ok(());
        }
        if matches!(due, Due::Resync) || self.kept.is_none() {
            self.kernel.read_back().await?;
            self.read_small().await?;
        }
        self.pass(view).await?;
        if matches!(due, Due::Resync) {
            self.audit().await?;
        }
        self.is_settled = true;
        Ok(())
    }

    /// Lets names resolve before the view may be acted on, provided that it knows every endpoint that the
    /// kernel delivers to: those of them, and no other. No map, port or rule is changed by it.
    ///
    /// # Errors
    /// The kernel can't be read.
    pub async fn preview(&mut self, view: &View) -> Result<(), KernelError> {
        self.kernel.read_back().await?;
        let held = self.kernel.tables().await?;
        if !names::is_known(view, &held) {
            return Ok(());
        }
        let here = view.all_endpoints().filter(|endpoint| endpoint.node() == Some(self.node.id));
        let devices = self.kernel.devices(&desired::devices(view, &self.node, here)).await?;
        let sound = devices.into_iter().filter(|device| device.fault.is_none());
        let devices = sound.map(|device| (device.id, device)).collect();
        self.names = Arc::new(names::desired_names(view, &self.node, &held, &devices));
        self.kernel.resolve(&self.names, false).await
    }

    /// Reads back the tables that a pass compares whole.
    async fn read_small(&mut self) -> Result<(), KernelError> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let small = self.kernel.small_tables().await?;
        let Tables { fdb, neigh, .. } = std::mem::take(&mut kept.tables);
        kept.tables = Tables { fdb, neigh, ..small };
        Ok(())
    }

    /// Puts right what of the large tables' next part is not as the view has it. After a pass: entries
    /// may name only what stands.
    async fn audit(&mut self) -> Result<(), KernelError> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let wrong = self.audit.next(&mut self.kernel, kept, &self.node).await?;
        if wrong.is_empty() {
            return Ok(());
        }
        tracing::warn!(entries = wrong.len(), "the FDB or the neighbours were not as written");
        let written = kept.write(&mut self.kernel, &wrong).await;
        if written.is_err() {
            self.kept = None;
        }
        written
    }

    /// Moves on to a view that differs from the last one by endpoints elsewhere and nothing else: their
    /// entries and names are all there is to do. `false` where it differs by more: a pass is due.
    ///
    /// # Errors
    /// The kernel refused a change.
    async fn follow(&mut self, view: &View) -> Result<bool, KernelError> {
        let Some(kept) = &mut self.kept else { return Ok(false) };
        if kept.members.advance(view) {
            return Ok(false);
        }
        let told = Arc::clone(&self.names);
        self.sync(view, None).await?;
        if !Arc::ptr_eq(&told, &self.names) {
            self.kernel.resolve(&self.names, false).await?;
        }
        self.status.send_if_modified(|now| {
            let changed = now.programmed != view.revision;
            now.programmed = view.revision;
            changed
        });
        Ok(true)
    }

    /// One pass. Says what it reached.
    ///
    /// # Errors
    /// The kernel refused something that is not one endpoint's own trouble.
    pub async fn pass(&mut self, view: &View) -> Result<(), KernelError> {
        if self.kept.is_none() {
            let tables = self.kernel.tables().await?;
            let kept = Kept::new(tables, &self.node);
            let used = kept.slots();
            // Of an earlier process, which may have ended before it got to it.
            let unused = (1..TRAFFIC_MAX).filter(|slot| !used.contains(slot)).collect();
            self.kernel.free_slots(unused).await?;
            self.kept = Some(kept);
        }
        let Some(kept) = &mut self.kept else { return Ok(()) };
        kept.members.advance(view);
        let ways = self.kernel.ways(&kept.members.vteps()).await?;
        let mtus = Mtus::new(self.kernel.underlay_mtu().await?, self.node.asked_mtu, &ways);
        self.follow_mtus(mtus);
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let wanted = desired::devices(view, &self.node, kept.members.here());
        self.kernel.hold_namespaces(&wanted.values().map(|spec| spec.netns.clone()).collect());
        let observed = self.kernel.devices(&wanted).await?;
        let (standing, doomed): (Vec<_>, Vec<_>) = observed
            .into_iter()
            .partition(|device| wanted.contains_key(&device.id) && device.fault.is_none());

        let mut made = Made { ways, ..Made::default() };
        for device in standing {
            made.note(self.kernel.ensure_attached(&device).await);
            made.devices.insert(device.id, device);
        }
        let mtu = self.node.gateway.mtu;
        let fitted = self.kernel.fit(mtu, &mut made.devices).await;
        made.note(fitted);
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
                Err(DeviceFailure::Endpoint(reason)) => {
                    made.refused.insert(device.id, reason);
                }
                Err(DeviceFailure::Kernel(error)) => {
                    made.failed.get_or_insert(error);
                }
            }
        }
        made.note(self.kernel.resolve(&self.names, true).await);
        self.judge(&made);
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
            unresolved: self.unresolved(),
            gateway: self.kernel.gateway(),
            mtus,
            super_packets: self.kernel.super_packets(),
        };
        self.status.send_if_modified(|now| {
            let changed = *now != status;
            *now = status;
            changed
        });
        Ok(())
    }

    /// Lets what is made from here on have these MTUs.
    fn follow_mtus(&mut self, mtus: Mtus) {
        let now = (self.node.endpoint_mtu, self.node.gateway.mtu);
        if now != (mtus.endpoint, mtus.device) {
            let Mtus { underlay, source, device, endpoint } = mtus;
            tracing::info!(underlay, %source, device, endpoint, "the MTU changed");
        }
        self.node.take_mtus(&mtus);
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

    /// Lets the maps, the published ports and the names say what the view and the devices do.
    async fn program(&mut self, view: &View, made: &mut Made) -> Result<(), KernelError> {
        self.sync(view, Some(made)).await?;
        let swapped = self.kernel.swap_programs().await;
        made.note(swapped);
        let Some(kept) = &self.kept else { return Ok(()) };
        self.ports = names::desired_ports(kept.members.here(), &made.devices);
        let published = self.kernel.publish(&self.ports).await;
        made.note(published);
        let resolved = self.kernel.resolve(&self.names, true).await;
        made.note(resolved);
        Ok(())
    }

    /// Makes the tables, and the names with them, those of the view: all that differs from the view
    /// that they are of, and with `made` all that hangs on the devices. A name goes before its endpoint
    /// does, and comes after it.
    async fn sync(&mut self, view: &View, made: Option<&mut Made>) -> Result<(), KernelError> {
        let synced = self.try_sync(view, made).await;
        if synced.is_err() {
            // What the kernel holds is uncertain now: it is read back.
            self.kept = None;
        }
        synced
    }

    async fn try_sync(&mut self, view: &View, made: Option<&mut Made>) -> Result<(), KernelError> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let older = kept.view.clone();
        let is_whole = made.is_some();
        let touched = kept.touched(&older, view, is_whole);
        let mut small = None;
        let mut devices = None;
        if let Some(made) = made {
            made.note(kept.place(view, &self.node, &made.devices));
            small = Some(desired::small_tables(
                view,
                &self.node,
                &kept.members,
                &made.devices,
                &made.ways,
                &kept.placement,
            ));
            devices = Some(&made.devices);
        }
        let rows = kept.rows(&older, view, &self.node, &touched);
        let told = Arc::clone(&self.names);
        match devices.filter(|_| kept.is_strange) {
            Some(devices) => {
                let names = names::desired_names(view, &self.node, &kept.tables, devices);
                self.names = Arc::new(names);
            }
            None => names::forget(&mut self.names, view, &touched, &rows),
        }
        if !Arc::ptr_eq(&told, &self.names) {
            self.kernel.resolve(&self.names, is_whole).await?;
        }
        let changes = kept.changes(small.as_ref(), &rows);
        drop(rows);
        let before = kept.slots();
        kept.write(&mut self.kernel, &changes).await?;
        let now = kept.slots();
        self.kernel.free_slots(&before - &now).await?;
        match devices {
            Some(devices) if kept.is_strange => {
                let names = names::desired_names(view, &self.node, &kept.tables, devices);
                self.names = Arc::new(names);
            }
            _ => names::tell(&mut self.names, view, &touched, &kept.tables),
        }
        if let Some(devices) = devices {
            let here = kept.members.here();
            let namespaces = names::namespaces(view, here, &kept.tables, devices);
            if namespaces != self.names.namespaces {
                Arc::make_mut(&mut self.names).namespaces = namespaces;
            }
        }
        kept.view = view.clone();
        kept.is_strange = false;
        Ok(())
    }

    /// Finds out which endpoints are up, and says what changed.
    fn judge(&mut self, made: &Made) {
        let mut health = BTreeMap::new();
        for endpoint in self.kept.iter().flat_map(|kept| kept.members.here()) {
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

    /// The nodes that packets go to by the slower path.
    fn unresolved(&self) -> Vec<NodeId> {
        let Some(kept) = &self.kept else { return Vec::new() };
        let Tables { nodes, hops, .. } = &kept.tables;
        let keys = kept.members.vteps().into_iter();
        keys.filter_map(|vtep| nodes.get(&NodeKey { vtep: ip16_from_v4(vtep.octets()) }))
            .filter(|node| node.node != 0)
            .filter(|node| hops.get(&node.hop).is_none_or(|hop| hop.ifindex == 0))
            .map(|node| node.node)
            .collect()
    }
}

/// Why the kernel is looked at.
#[derive(Clone, Copy)]
enum Due {
    /// There is another view.
    View,
    /// It said that something is another, or the last pass failed.
    Pass,
    /// It may have said nothing.
    Resync,
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
    tables.fdb.values().map(|entry| entry.endpoint).max().unwrap_or(0)
}
