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
mod kernel;
mod local;
#[cfg(test)]
mod tests;

pub use desired::{LocalNode, desired_tables};
pub use diff::{TableChange, Tables, changes};
pub use kernel::{Kernel, KernelError, NextHop, ObservedPort, PortFailure, PortSpec};
pub use local::{EndpointHealth, LegHealth, LocalStatus};

use crate::{
    model::{Endpoint, EndpointId, Location, NodeId, Revision},
    state::View,
};
use overlay_common::{NODE_NEXT_HOP, NodeKey, ip16_from_v4};
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

/// One node's reconciler.
pub struct Reconciler<K> {
    kernel: K,
    node: LocalNode,
    /// The tables as last read or written, so that a pass need not read them all back.
    tables: Option<Tables>,
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
        let reconciler = Self { kernel, node, tables: None, health: BTreeMap::new(), status };
        (reconciler, receiver)
    }

    /// Runs until the view's sender is gone. `nudges` says that the kernel may have changed.
    pub async fn run(
        mut self,
        mut views: watch::Receiver<Arc<View>>,
        mut nudges: mpsc::Receiver<()>,
    ) {
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
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                // A failed pass makes changes of its own: what they say can wait with the rest.
                Some(()) = nudges.recv(), if retry.is_none() => {}
                _ = resync.tick() => self.tables = None,
                () = sleep_or_never(retry) => {}
            }
        }
    }

    /// One pass. Says what it reached.
    ///
    /// # Errors
    /// The kernel refused something that is not one endpoint's own trouble.
    pub async fn pass(&mut self, view: &View) -> Result<(), KernelError> {
        if self.tables.is_none() {
            self.tables = Some(self.kernel.tables().await?);
        }
        let wanted = self.wanted_ports(view);
        let observed = self.kernel.ports(&wanted).await?;
        let (standing, doomed): (Vec<_>, Vec<_>) = observed
            .into_iter()
            .partition(|port| wanted.contains_key(&port.endpoint) && port.fault.is_none());

        let mut ports: BTreeMap<EndpointId, ObservedPort> = BTreeMap::new();
        // One endpoint's failure must not keep the others from what they need: the pass goes on, and
        // says at its end that it failed.
        let mut failed = None;
        for port in standing {
            if let Err(error) = self.kernel.ensure_attached(&port).await {
                failed.get_or_insert(error);
            }
            ports.insert(port.endpoint, port);
        }
        self.health.retain(|id, _| wanted.contains_key(id));
        let is_doomed = |id: &EndpointId| doomed.iter().any(|port| port.endpoint == *id);
        let missing = wanted.iter().filter(|(id, _)| !is_doomed(id));
        self.create_missing(missing, &mut ports, &mut failed).await;
        self.sync_tables(view, &ports).await?;
        for port in &doomed {
            if let Err(error) = self.kernel.delete_port(port).await {
                failed.get_or_insert(error);
                continue;
            }
            let reason = port.fault.as_deref().unwrap_or("its endpoint is gone");
            tracing::info!(endpoint = port.endpoint, device = %port.ifname, reason, "port removed");
        }
        // A doomed port of a wanted endpoint (its namespace was made anew, say) is built again, now
        // that nothing of the old one is left.
        let replaced = wanted.iter().filter(|(id, _)| is_doomed(id));
        if self.create_missing(replaced, &mut ports, &mut failed).await {
            self.sync_tables(view, &ports).await?;
        }
        for port in ports.values_mut().filter(|port| !port.up) {
            match self.kernel.raise_port(port).await {
                Ok(()) => port.up = true,
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        for (id, port) in ports.iter().filter(|(_, port)| port.up) {
            let health = EndpointHealth {
                down: None,
                ifname: port.ifname.clone(),
                ifindex: port.ifindex,
                mtu: port.mtu,
                interface: "eth0".to_owned(),
                gateway: None,
            };
            if self.health.insert(*id, health.clone()).as_ref() != Some(&health) {
                tracing::info!(endpoint = *id, device = %port.ifname, ifindex = port.ifindex, "endpoint up");
            }
        }
        if let Some(error) = failed {
            self.status.send_modify(|status| status.endpoints.clone_from(&self.health));
            return Err(error);
        }
        let status = LocalStatus {
            programmed: view.revision,
            endpoints: self.health.clone(),
            error: None,
            fallbacks: self.kernel.fallbacks(),
            unresolved: self.unresolved(view),
        };
        self.status.send_if_modified(|now| {
            let changed = *now != status;
            *now = status;
            changed
        });
        Ok(())
    }

    fn wanted_ports(&self, view: &View) -> BTreeMap<EndpointId, PortSpec> {
        view.all_endpoints()
            .filter(|endpoint| endpoint.node() == Some(self.node.id))
            .filter_map(|endpoint| Some((endpoint.id, self.spec(view, endpoint)?)))
            .collect()
    }

    fn spec(&self, view: &View, endpoint: &Endpoint) -> Option<PortSpec> {
        let network = view.networks.get(&endpoint.network)?;
        let Location::Node { netns, .. } = &endpoint.location else { return None };
        Some(PortSpec {
            endpoint: endpoint.id,
            netns: netns.clone(),
            mac: endpoint.mac.octets(),
            address: endpoint.address,
            prefix: network.pool.subnet.net().prefix_len(),
            mtu: network.options.mtu.map_or(self.node.endpoint_mtu, u32::from),
        })
    }

    /// Makes the ports that do not stand yet. Whether there were any.
    async fn create_missing(
        &mut self,
        wanted: impl Iterator<Item = (&EndpointId, &PortSpec)>,
        ports: &mut BTreeMap<EndpointId, ObservedPort>,
        failed: &mut Option<KernelError>,
    ) -> bool {
        let mut any = false;
        for (id, spec) in wanted {
            if ports.contains_key(id) {
                continue;
            }
            match self.kernel.create_port(spec).await {
                Ok(port) => {
                    ports.insert(*id, port);
                    any = true;
                }
                Err(PortFailure::Endpoint(reason)) => self.is_down(*id, reason),
                Err(PortFailure::Kernel(error)) => {
                    self.is_down(*id, crate::error_chain(&error));
                    failed.get_or_insert(error);
                }
            }
        }
        any
    }

    fn is_down(&mut self, endpoint: EndpointId, reason: String) {
        let health = EndpointHealth { down: Some(reason.clone()), ..Default::default() };
        if self.health.insert(endpoint, health.clone()).as_ref() != Some(&health) {
            tracing::warn!(endpoint, reason, "endpoint down");
        }
    }

    async fn sync_tables(
        &mut self,
        view: &View,
        ports: &BTreeMap<EndpointId, ObservedPort>,
    ) -> Result<(), KernelError> {
        let peers: BTreeSet<Ipv4Addr> = desired::remote_vteps(view, &self.node);
        let next_hops = self.kernel.next_hops(&peers).await?;
        let desired = desired_tables(view, &self.node, ports, &next_hops);
        let held = self.tables.get_or_insert_default();
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
            .filter(|node| node.flags & NODE_NEXT_HOP == 0 && node.node != 0)
            .map(|node| node.node)
            .collect()
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
