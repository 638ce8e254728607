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
mod bridges;
mod desired;
mod diff;
mod flood;
mod held;
mod hop;
mod names;
mod pass;
mod pass_state;
mod plan;
mod rhythm;
mod scope;
mod seen;
mod sites;
mod sync;
#[cfg(test)]
mod tests;
mod ways;

pub use desired::LocalNode;
pub use hop::{LocalVtep, hop_entry};
pub use scope::{Scope, ScopeReceiver, ScopeSender, scopes};

use crate::{
    control::state::View,
    dataplane::kernel::{
        DeviceId, Devices as _, EndpointHealth, GatewayUse, Kernel, KernelError, LocalStatus, Maps,
        Mtus, Names, Outside as _, Resolved, Stations, Tables, Way,
    },
    model::{EndpointId, Revision, Vtep},
};
use audit::Audit;
use held::Held;
use rhythm::Rhythm;
use seen::Seen;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// Events that say that the kernel may have changed.
pub struct Nudges {
    /// Devices, namespaces, and ways to VTEPs: what is to be looked at.
    pub looks: ScopeReceiver,
    /// The ruleset.
    pub rules: mpsc::Receiver<()>,
    /// Forwarding of the host's devices, and the host's addresses.
    pub forwarding: mpsc::Receiver<()>,
}

/// One node's reconciler.
pub struct Reconciler<K: Kernel> {
    kernel: K,
    node: LocalNode,
    held: Held,
    /// The devices, as they were seen last.
    seen: Seen,
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
    /// The ways to VTEPs as they were found last.
    ways: BTreeMap<Vtep, Way>,
    /// The VTEPs whose ways were looked up then, and the MTUs that follow from them.
    looked_up: Option<(BTreeSet<Vtep>, Mtus)>,
    /// What could not be done when the ways were last looked up, and at the last repair, in words.
    ways_trouble: Vec<String>,
    repair_trouble: Vec<String>,
    /// What the last pass left undone, in words.
    left: Vec<String>,
    /// The next pass makes sure that each device has its program. Not every pass does, since the kernel announces the
    /// loss of a device, and each question takes a lock that all of the machine's networking shares (RTNL).
    is_program_due: bool,
    /// The last pass saw a part of the gateway bridge out of its place.
    is_displaced: bool,
    /// No device had the node's own address on the underlay when that was last looked at.
    is_own_gone: bool,
    /// What was published last; `None` before the first pass, when those of an earlier process may stand.
    published: Option<GatewayUse>,
    /// The devices whose sizes could not be changed, and why, as logged.
    unchanged: BTreeMap<DeviceId, String>,
    health: BTreeMap<EndpointId, EndpointHealth>,
    /// The number of this run, as its status says it.
    run: u64,
    status: watch::Sender<LocalStatus>,
}

impl<K: Kernel> Reconciler<K> {
    /// A reconciler that has not looked at the kernel yet, and the status that it will report.
    pub fn new(kernel: K, node: LocalNode) -> (Self, watch::Receiver<LocalStatus>) {
        let (status, receiver) = watch::channel(LocalStatus::default());
        (Self::reporting(kernel, node, status), receiver)
    }

    /// A reconciler that has not looked at the kernel yet, and that reports by `status`: others may have reported by it
    /// before, while there was no data plane.
    pub fn reporting(kernel: K, node: LocalNode, status: watch::Sender<LocalStatus>) -> Self {
        status.send_replace(LocalStatus {
            error: Some(
                "waiting for a voter, or a quorum of them, before the kernel is touched".into(),
            ),
            mtus: Mtus::new(node.gateway.mtu, node.asked_mtu, &BTreeMap::new()),
            super_packets: node.super_packets.clone(),
            ..LocalStatus::default()
        });
        Self {
            kernel,
            held: Held::unknown(&node),
            node,
            seen: Seen::default(),
            is_settled: false,
            audit: Audit::default(),
            names: Arc::default(),
            told: None,
            resolved: Resolved::default(),
            ways: BTreeMap::new(),
            looked_up: None,
            ways_trouble: Vec::new(),
            repair_trouble: Vec::new(),
            left: Vec::new(),
            is_program_due: true,
            is_displaced: false,
            is_own_gone: false,
            published: None,
            unchanged: BTreeMap::new(),
            health: BTreeMap::new(),
            run: (Uuid::new_v4().as_u64_pair().0).max(1),
            status,
        }
    }

    /// Runs until the view's sender is dropped.
    pub async fn run(mut self, mut views: watch::Receiver<Arc<View>>, mut nudges: Nudges) {
        let mut rhythm = Rhythm::begin();
        let mut trigger = Trigger::Start;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let begun = rhythm::now();
            if let Err(error) = self.work(&view, &trigger).await {
                let text = crate::error_chain(&error);
                if self.status.borrow().error.as_ref() != Some(&text) {
                    tracing::error!(error = %text, revision = view.revision, "reconcile failed");
                }
                self.status.send_modify(|status| status.error = Some(text));
            }
            rhythm.ended(&trigger, begun, self.is_settled);
            trigger = loop {
                tokio::select! {
                    changed = views.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break Trigger::NewView;
                    }
                    Some(scope) = rhythm.calm(nudges.looks.recv()) => break Trigger::Changed(scope),
                    // Whatever else fails: a published port that is gone cannot wait for a pass. Where it cannot be put
                    // back, a pass reports it.
                    Some(()) = nudges.rules.recv() => {
                        self.kernel.outside().doubt_rules();
                        if let Some(published) = &self.published
                            && self.kernel.outside().publish(published).await.is_err()
                        {
                            break Trigger::Changed(Scope::whole());
                        }
                    }
                    // The same holds for the way to and from the outside.
                    Some(()) = rhythm.calm_outside(nudges.forwarding.recv()) => {
                        let begun = rhythm::now();
                        self.kernel.outside().doubt_forwarding();
                        let is_kept = match &self.published {
                            Some(published) => {
                                self.kernel.outside().publish(published).await.is_ok()
                            }
                            None => true,
                        };
                        rhythm.outside_ended(begun);
                        if !is_kept {
                            break Trigger::Changed(Scope::whole());
                        }
                    }
                    () = rhythm.look() => break Trigger::Periodic,
                }
            };
        }
    }

    async fn work(&mut self, view: &View, trigger: &Trigger) -> Result<(), KernelError> {
        let was_settled = std::mem::replace(&mut self.is_settled, false);
        let is_followed = match trigger {
            Trigger::NewView if was_settled => self.follow(view).await?,
            Trigger::Changed(scope) if was_settled && scope.is_of_ways() => {
                self.follow_ways(view).await?
            }
            Trigger::Changed(scope) if was_settled && !self.seen.is_concerned(scope) => {
                self.follow(view).await?
            }
            _ => false,
        };
        if is_followed {
            self.is_settled = true;
            return Ok(());
        }
        let scope = match trigger {
            Trigger::NewView if was_settled => Scope::default(),
            Trigger::Changed(scope) if was_settled => scope.clone(),
            _ => Scope::whole(),
        };
        let is_repaired = matches!(trigger, Trigger::Periodic) || !self.held.is_certain();
        if is_repaired {
            self.repair_for(view).await;
            if self.held.is_certain() {
                self.read_small().await?;
            }
        }
        let mut is_complete = self.pass_over(view, &scope).await?;
        if (self.is_displaced || self.is_own_gone) && !is_repaired {
            self.repair_for(view).await;
            is_complete = self.pass(view).await?;
        }
        if matches!(trigger, Trigger::Periodic) {
            self.audit().await?;
        }
        self.is_settled = is_complete;
        Ok(())
    }

    async fn repair_for(&mut self, view: &View) {
        self.held.sites.update(view);
        let wanted = desired::devices(view, &self.node, self.held.sites.here());
        self.repair(&wanted.stations()).await;
    }

    /// Repairs what a pass does not look at, and makes the next pass tell the resolvers their names again and make sure
    /// of the programs.
    async fn repair(&mut self, stations: &Stations) {
        let trouble = self.kernel.outside().repair(&self.node.gateway, stations).await;
        if trouble != self.repair_trouble && !trouble.is_empty() {
            tracing::warn!(?trouble, "a part of the data plane is not as it should be");
        }
        self.repair_trouble = trouble;
        self.is_program_due = true;
        self.told = None;
    }

    /// Makes names resolve before the view may be acted on, provided that it knows every endpoint that the kernel
    /// delivers to: the names of those endpoints, and no other. It changes no map, port or rule.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub async fn preview(&mut self, view: &View) -> Result<(), KernelError> {
        let here = view.all_endpoints().filter(|endpoint| endpoint.node() == Some(self.node.id));
        let wanted = desired::devices(view, &self.node, here);
        self.repair(&wanted.stations()).await;
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
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trigger {
    /// The node has just started.
    Start,
    /// The view changed.
    NewView,
    /// The kernel reported a change of this.
    Changed(Scope),
    /// No event can be relied on, because time has passed or the last pass failed: what a pass does not compare is
    /// repaired, and the small tables and a part of the large ones are read again.
    Periodic,
}

/// The least revision that the tables can be of: that of the newest endpoint in the FDB.
#[must_use]
pub fn programmed_at_least(tables: &Tables) -> Revision {
    tables.fdb.values().map(|entry| entry.endpoint).max().unwrap_or(0)
}
