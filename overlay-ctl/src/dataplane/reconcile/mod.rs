//! Moves the kernel from what is observed to what the state desires, for ever.
//!
//! Level-triggered: a pass compares what is with what should be; no event says what changed. The reconciler remembers
//! what the kernel holds, and two views share what they have in common, so that one changed endpoint among a million
//! costs what one changed endpoint does. It does not trust its memory for ever: after a failure everything is read
//! again, and an audit reads on and on (see `audit`). The next pass makes up for a pass that fails half-way.
//!
//! A pass looks, plans (`plan` for devices, `diff` for tables) and carries the plan out (`pass`, `sync`). A port
//! exists before the tables name it, and the tables forget it before it is removed, so that no entry ever points
//! nowhere.
//!
//! Architecture invariant: nothing is removed before the view is known to be complete and no older than what the
//! kernel holds; see `Gate` in [`crate::node`].
//!
//! Architecture invariant: only devices that carry the overlay's mark are touched.

mod audit;
mod desired;
mod diff;
mod held;
mod hop;
mod names;
mod pass;
mod pass_state;
mod plan;
mod sites;
mod sync;
#[cfg(test)]
mod tests;

pub use desired::LocalNode;
pub use hop::{LocalVtep, hop_entry};

use crate::{
    control::state::View,
    dataplane::kernel::{
        DeviceId, Devices as _, EndpointHealth, Kernel, KernelError, Legs, LocalStatus, Maps, Mtus,
        Names, Outside as _, PublishedPorts, Resolved, Stations, Tables,
    },
    model::{EndpointId, Revision},
};
use audit::Audit;
use held::Held;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// The kernel is looked at this often, whatever events came: all devices, the small tables, and the next part of the
/// large ones.
const RESYNC: Duration = Duration::from_secs(5);
/// A failed pass is tried again after this long.
const RETRY: Duration = Duration::from_millis(500);

/// Events that say that the kernel may have changed.
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
    held: Held,
    /// The last look at the kernel was completed.
    is_settled: bool,
    audit: Audit<<K::Maps as Maps>::Cursor>,
    /// The names that resolve as soon as the resolvers are told.
    names: Arc<Names>,
    /// The names that the resolvers were told, files and all, and had no problem with. `None`: they are to be told
    /// again.
    told: Option<Arc<Names>>,
    /// What the resolvers answered last.
    resolved: Resolved,
    /// The ports that were published last.
    ports: PublishedPorts,
    /// The legs that are set up.
    legs: Legs,
    /// The devices whose sizes could not be changed, and why, as logged.
    unchanged: BTreeMap<DeviceId, String>,
    health: BTreeMap<EndpointId, EndpointHealth>,
    status: watch::Sender<LocalStatus>,
}

impl<K: Kernel> Reconciler<K> {
    /// A reconciler that has not looked at the kernel yet, and the status that it will report.
    pub fn new(kernel: K, node: LocalNode) -> (Self, watch::Receiver<LocalStatus>) {
        let waiting = LocalStatus {
            error: Some(
                "waiting for a voter, or a quorum of them, before the kernel is touched".into(),
            ),
            mtus: Mtus::new(node.gateway.mtu, node.asked_mtu, &BTreeMap::new()),
            super_packets: node.super_packets.clone(),
            ..LocalStatus::default()
        };
        let (status, receiver) = watch::channel(waiting);
        let reconciler = Self {
            kernel,
            held: Held::unknown(&node),
            node,
            is_settled: false,
            audit: Audit::default(),
            names: Arc::default(),
            told: None,
            resolved: Resolved::default(),
            ports: PublishedPorts::new(),
            legs: Legs::new(),
            unchanged: BTreeMap::new(),
            health: BTreeMap::new(),
            status,
        };
        (reconciler, receiver)
    }

    /// Runs until the view's sender is dropped.
    pub async fn run(mut self, mut views: watch::Receiver<Arc<View>>, mut nudges: Nudges) {
        let mut resync = tokio::time::interval(RESYNC);
        resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut trigger = Trigger::KernelChanged;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let retry = match self.work(&view, trigger).await {
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
            trigger = loop {
                tokio::select! {
                    changed = views.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break Trigger::NewView;
                    }
                    // A failed pass causes events of its own: they wait for the retry.
                    Some(()) = nudges.devices.recv(), if retry.is_none() => {}
                    Some(()) = nudges.rules.recv(), if retry.is_none() => {
                        self.kernel.outside().doubt_rules();
                        // A published port that is gone cannot wait for a pass. Where it cannot be put back, a pass
                        // reports it.
                        if self.kernel.outside().publish(&self.ports, &self.legs).await.is_ok() {
                            continue;
                        }
                    }
                    _ = resync.tick() => break Trigger::Periodic,
                    () = sleep_or_never(retry) => break Trigger::Periodic,
                }
                break Trigger::KernelChanged;
            };
        }
    }

    async fn work(&mut self, view: &View, trigger: Trigger) -> Result<(), KernelError> {
        let is_settled = std::mem::replace(&mut self.is_settled, false);
        if is_settled && matches!(trigger, Trigger::NewView) && self.follow(view).await? {
            self.is_settled = true;
            return Ok(());
        }
        if matches!(trigger, Trigger::Periodic) || !self.held.is_certain() {
            self.held.sites.update(view);
            let wanted = desired::devices(view, &self.node, self.held.sites.here());
            self.repair(&wanted.stations()).await?;
            if self.held.is_certain() {
                self.read_small().await?;
            }
        }
        self.pass(view).await?;
        if matches!(trigger, Trigger::Periodic) {
            self.audit().await?;
        }
        self.is_settled = true;
        Ok(())
    }

    /// Repairs what a pass does not look at, and makes the next pass tell the resolvers their names again.
    async fn repair(&mut self, stations: &Stations) -> Result<(), KernelError> {
        self.kernel.outside().repair(&self.node.gateway, stations).await?;
        self.told = None;
        Ok(())
    }

    /// Makes names resolve before the view may be acted on, provided that it knows every endpoint that the kernel
    /// delivers to: the names of those endpoints, and no other. It changes no map, port or rule.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub async fn preview(&mut self, view: &View) -> Result<(), KernelError> {
        let here = view.all_endpoints().filter(|endpoint| endpoint.node() == Some(self.node.id));
        let wanted = desired::devices(view, &self.node, here);
        self.repair(&wanted.stations()).await?;
        let tables = self.kernel.maps().tables().await?;
        if !names::is_known(view, &tables) {
            return Ok(());
        }
        let observed = self.kernel.devices().observe(&wanted.paths()).await?;
        let devices = plan::plan(&wanted, observed).keep;
        self.names = Arc::new(names::desired_names(view, &self.node, &tables, &devices));
        self.tell_names(false).await;
        Ok(())
    }
}

/// The reason for a look at the kernel.
#[derive(Clone, Copy, Debug)]
enum Trigger {
    /// The view changed.
    NewView,
    /// The kernel reported a change.
    KernelChanged,
    /// No event can be relied on, because time has passed or the last pass failed: what a pass does not compare is
    /// repaired, and the small tables and a part of the large ones are read again.
    Periodic,
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
