//! The statuses that nodes reported: what each has programmed, how its endpoints are, and whether the node is down.

use super::{
    signs::{Signs, aged, probe_to_wire},
    watchers::Watchers,
};
use crate::{
    control::{consensus::DiskTimes, state::StateHash},
    dataplane::kernel::{EndpointHealth, LegHealth, LocalStatus},
    model::{EndpointId, NodeId, Revision, SPEAKS, Speaks},
    proto::internal::{self, EndpointStatus, LegStatus, NodeStatus, ProbeStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// A node that has not been heard of for longer than this counts as down.
pub const NODE_DOWN_AFTER: Duration = Duration::from_secs(3);

/// How often a wait checks whether a node has fallen silent, which no report announces.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The last status of each node. Clones share it.
#[derive(Clone)]
pub struct StatusTable {
    rows: Arc<Mutex<BTreeMap<NodeId, Heard>>>,
    changed: watch::Sender<u64>,
    /// Since when every node that is alive had the time to report here.
    since: Arc<Mutex<Instant>>,
    watchers: Watchers,
    signs: Signs,
    half_silent: Arc<AtomicBool>,
}

struct Heard {
    /// Without what it reported of probes.
    status: NodeStatus,
    probes: Vec<ProbeStatus>,
    at: Instant,
    /// Since when it has said, with no pause in which it counted as down, that it speaks the same versions.
    speaks_since: Instant,
    /// The node itself reported it, over a stream that is still open: this voter passes it on to the leader.
    first_hand: bool,
    /// One of its endpoints is down and never was up: few nodes are asked which.
    has_never_up: bool,
}

fn is_never_up(endpoint: &EndpointStatus) -> bool {
    !endpoint.up && !endpoint.was_up
}

impl Heard {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < NODE_DOWN_AFTER
    }

    fn speaks(&self) -> Speaks {
        said(&self.status)
    }
}

/// What a node says that it speaks. What makes no sense counts as nothing said: the version is not raised for it.
fn said(status: &NodeStatus) -> Speaks {
    Speaks::from_wire(status.oldest_version, status.newest_version).unwrap_or(Speaks::UNSAID)
}

impl Default for StatusTable {
    fn default() -> Self {
        let since = Arc::new(Mutex::new(Instant::now()));
        Self {
            rows: Arc::default(),
            changed: watch::Sender::default(),
            since,
            watchers: Watchers::default(),
            signs: Signs::default(),
            half_silent: Arc::default(),
        }
    }
}

impl StatusTable {
    fn lock<T>(&self, with: impl FnOnce(&mut BTreeMap<NodeId, Heard>) -> T) -> T {
        with(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records the status that a node reports of itself. A status of an older epoch is ignored.
    pub fn record(&self, status: NodeStatus) {
        self.insert(status, true);
    }

    /// Records the status of a node that another voter passed on. It is not passed on again.
    pub fn record_report(&self, status: NodeStatus) {
        self.insert(status, false);
    }

    /// Notes that the node's stream ended: its status may still be fresh, but another voter may have a newer one.
    pub fn stream_ended(&self, node: NodeId) {
        self.lock(|rows| {
            if let Some(heard) = rows.get_mut(&node) {
                heard.first_hand = false;
            }
        });
    }

    fn insert(&self, mut status: NodeStatus, first_hand: bool) {
        let at = Instant::now();
        // They are others each time, and nobody waits for them.
        let probes = mem::take(&mut status.probes);
        self.signs.note(status.node_id, &probes, at);
        let news = self.lock(|rows| {
            let before = rows.get(&status.node_id);
            if before.is_some_and(|before| before.status.epoch > status.epoch) {
                return false;
            }
            let news = before.is_none_or(|before| before.status != status);
            let same =
                before.filter(|before| before.is_fresh() && before.speaks() == said(&status));
            let speaks_since = same.map_or(at, |before| before.speaks_since);
            let has_never_up = status.run != 0 && status.endpoints.iter().any(is_never_up);
            let heard = Heard { status, probes, at, speaks_since, first_hand, has_never_up };
            rows.insert(heard.status.node_id, heard);
            news
        });
        if news {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    fn fresh<T>(&self, node: NodeId, read: impl FnOnce(&NodeStatus) -> T) -> Option<T> {
        self.lock(|rows| {
            let heard = rows.get(&node)?;
            heard.is_fresh().then(|| read(&heard.status))
        })
    }

    /// What the node's program speaks, and for how long it has said so without a pause; `None` if the node has not been
    /// heard of lately.
    #[must_use]
    pub fn speaks(&self, node: NodeId) -> Option<(Speaks, Duration)> {
        self.lock(|rows| {
            let heard = rows.get(&node).filter(|heard| heard.is_fresh())?;
            Some((heard.speaks(), heard.speaks_since.elapsed()))
        })
    }

    /// The revision that the node's kernel holds; `None` if the node has not been heard of lately.
    #[must_use]
    pub fn programmed(&self, node: NodeId) -> Option<Revision> {
        self.fresh(node, |status| status.programmed_revision)
    }

    /// The revision that each of these nodes has programmed, as far as it was heard of, however long ago; 0 where one has not
    /// been heard of yet. Nodes that [hold nothing back](Self::holds_nothing_back) do not count. What a node has programmed it
    /// has for ever, so that a node that is silent is waited for no longer than one that is late.
    #[must_use]
    pub fn confirmed(&self, nodes: &BTreeSet<NodeId>) -> Revision {
        let holding = nodes.iter().filter(|node| !self.holds_nothing_back(**node));
        let programmed = |node| {
            self.lock(|rows| rows.get(&node).map_or(0, |heard| heard.status.programmed_revision))
        };
        holding.map(|node| programmed(*node)).min().unwrap_or(Revision::MAX)
    }

    /// Whether what removed endpoints had may be given out again though the node has not forgotten it: it lacks a data plane,
    /// or has been lost for a while.
    #[must_use]
    pub fn holds_nothing_back(&self, node: NodeId) -> bool {
        self.signs.is_given_up(node)
            || self.fresh(node, |status| status.lacks_data_plane) == Some(true)
    }

    /// For how long no controller has heard of the node, as far as this voter can tell: no longer than it has listened.
    #[must_use]
    pub fn silence(&self, node: NodeId) -> Duration {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let reported = self.lock(|rows| rows.get(&node).map(|heard| heard.at));
        let last = reported.max(self.signs.registered_at(node));
        last.map_or(since, |last| last.max(since)).elapsed()
    }

    /// Signs of life beside the statuses.
    #[must_use]
    pub fn signs(&self) -> &Signs {
        &self.signs
    }

    /// Whether half of the nodes or more are silent at once, to this voter as the leader.
    #[must_use]
    pub fn is_half_silent(&self) -> bool {
        self.half_silent.load(Ordering::Relaxed)
    }

    pub(super) fn set_half_silent(&self, is_so: bool) {
        self.half_silent.store(is_so, Ordering::Relaxed);
    }

    /// The run of the node's data plane; `None` if the node has not been heard of lately, or does not say.
    #[must_use]
    pub fn run(&self, node: NodeId) -> Option<u64> {
        self.fresh(node, |status| status.run).filter(|run| *run != 0)
    }

    /// The endpoints that are down and never were up, as far as the present run of their node's data plane knows: the run,
    /// and what the node says of the endpoint.
    #[must_use]
    pub fn never_up(&self) -> Vec<(NodeId, u64, EndpointStatus)> {
        self.lock(|rows| {
            let heard = rows.values().filter(|heard| heard.has_never_up && heard.is_fresh());
            let never_up = heard.flat_map(|heard| {
                let status = &heard.status;
                let endpoints = status.endpoints.iter().filter(|endpoint| is_never_up(endpoint));
                endpoints.map(|endpoint| (status.node_id, status.run, endpoint.clone()))
            });
            never_up.collect()
        })
    }

    /// How long the disk of a voter takes to write to its log; `None` if it has not been heard of lately.
    #[must_use]
    pub fn disk(&self, node: NodeId) -> Option<DiskTimes> {
        self.fresh(node, |status| DiskTimes {
            writes: status.disk_writes,
            average: Duration::from_micros(status.disk_write_us),
        })
    }

    /// The hashes of its state that the node told, by revision; `None` if it has not been heard of lately, or its program makes
    /// hashes of another version.
    #[must_use]
    pub fn state_hashes(
        &self,
        node: NodeId,
        version: u32,
    ) -> Option<BTreeMap<Revision, StateHash>> {
        let told = self.fresh(node, |status| {
            let hashes = status.state_hashes.iter();
            let hash = |told: &internal::StateHash| {
                Some((told.revision, StateHash::try_from(&*told.hash).ok()?))
            };
            (status.hash_version == version).then(|| hashes.filter_map(hash).collect())
        });
        told.flatten()
    }

    /// The agents that watch this voter.
    #[must_use]
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// What the node reports of one of its endpoints: `None` if the node has not been heard of lately, `Some(None)` if
    /// its report does not contain the endpoint.
    #[must_use]
    pub fn health(&self, node: NodeId, endpoint: EndpointId) -> Option<Option<EndpointStatus>> {
        self.fresh(node, |status| {
            // A node lists its endpoints in the order of their ids.
            let found = status.endpoints.binary_search_by_key(&endpoint, |health| health.id);
            found.ok().and_then(|position| status.endpoints.get(position).cloned())
        })
    }

    /// Notes that this node leads from now on. The reports went to its predecessor before, so that no node counts as
    /// down before it had the time to report here.
    pub fn listen_anew(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.signs.listen_anew();
    }

    /// The fresh statuses that nodes reported to this voter themselves, which it passes on.
    #[must_use]
    pub fn first_hand(&self) -> Vec<NodeStatus> {
        self.lock(|rows| {
            rows.values()
                .filter(|heard| heard.first_hand && heard.is_fresh())
                .map(|heard| NodeStatus {
                    probes: aged(&heard.probes, heard.at.elapsed()),
                    ..heard.status.clone()
                })
                .collect()
        })
    }

    /// Returns true if the node is down: it has not been heard of for a while, and the table has listened for a while.
    #[must_use]
    pub fn is_down(&self, node: NodeId) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.elapsed() >= NODE_DOWN_AFTER && self.programmed(node).is_none()
    }

    /// Returns true if the node is down. Waits, where this node has only begun to lead, until the node was heard of or had
    /// the time to report: [`NODE_DOWN_AFTER`] at most.
    pub async fn known_as_down(&self, node: NodeId) -> bool {
        let mut changed = self.watch();
        loop {
            changed.borrow_and_update();
            if self.is_down(node) {
                return true;
            }
            if self.programmed(node).is_some() {
                return false;
            }
            // No report says that a node had the time.
            drop(tokio::time::timeout(LOOK_AGAIN, changed.changed()).await);
        }
    }

    /// A number that changes with every new status.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether nobody is to wait for what the node programs: it is down, or lacks a data plane.
    pub fn programs_nothing(&self, node: NodeId) -> bool {
        self.is_down(node) || self.fresh(node, |status| status.lacks_data_plane) == Some(true)
    }

    /// Waits until each of `nodes` has programmed `revision` or [programs nothing](Self::programs_nothing), or until
    /// `deadline` is over. Returns the nodes that have not programmed it.
    pub async fn wait_programmed(
        &self,
        nodes: BTreeSet<NodeId>,
        revision: Revision,
        deadline: Duration,
    ) -> BTreeSet<NodeId> {
        let mut changed = self.watch();
        let mut late = nodes;
        let wait = async {
            loop {
                late.retain(|node| self.programmed(*node).is_none_or(|held| held < revision));
                if late.iter().all(|node| self.programs_nothing(*node)) {
                    return;
                }
                // No report says that a node has fallen silent: check again after a while.
                drop(tokio::time::timeout(LOOK_AGAIN, changed.changed()).await);
            }
        };
        // The nodes that are left are the answer, also when the time is over.
        drop(tokio::time::timeout(deadline, wait).await);
        late
    }

    /// Forgets a node that was removed.
    pub fn forget(&self, node: NodeId) {
        self.lock(|rows| rows.remove(&node));
    }
}

/// A node's own status, as it is sent to other nodes.
#[must_use]
pub fn to_wire(node_id: NodeId, epoch: Revision, status: &LocalStatus) -> NodeStatus {
    let leg = |leg: &LegHealth| LegStatus {
        interface: leg.interface.clone(),
        host_interface: leg.ifname.clone(),
        host_ifindex: leg.ifindex,
        mtu: leg.mtu,
    };
    let endpoint = |(id, health): (&EndpointId, &EndpointHealth)| EndpointStatus {
        id: *id,
        up: health.down.is_none(),
        was_up: health.was_up,
        reason: health.down.clone().unwrap_or_default(),
        host_interface: health.ifname.clone(),
        host_ifindex: health.ifindex,
        mtu: health.mtu,
        interface: health.interface.clone(),
        gateway: health.gateway.as_ref().map(leg),
    };
    NodeStatus {
        node_id,
        epoch,
        programmed_revision: status.programmed,
        endpoints: status.endpoints.iter().map(endpoint).collect(),
        oldest_version: SPEAKS.oldest().number(),
        newest_version: SPEAKS.newest().number(),
        // Only a voter has a log: see `with_disk`.
        disk_writes: 0,
        disk_write_us: 0,
        lacks_data_plane: status.lacks_data_plane,
        run: status.run,
        // Only a voter has all rows: see `Hashes::tell`.
        state_hashes: Vec::new(),
        hash_version: 0,
        probes: status.probes.iter().map(probe_to_wire).collect(),
    }
}

#[cfg(test)]
mod tests;
