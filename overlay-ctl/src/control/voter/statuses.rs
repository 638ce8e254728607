//! The statuses that nodes reported: what each has programmed, how its endpoints are, and whether the node is down.

use crate::{
    dataplane::kernel::{EndpointHealth, LegHealth, LocalStatus},
    model::{EndpointId, NodeId, Revision},
    proto::internal::{EndpointStatus, LegStatus, NodeStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

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
}

struct Heard {
    status: NodeStatus,
    at: Instant,
    /// The node itself reported it, over a stream that is still open: this voter passes it on to the leader.
    first_hand: bool,
}

impl Default for StatusTable {
    fn default() -> Self {
        let changed = watch::Sender::new(0);
        Self { rows: Arc::default(), changed, since: Arc::new(Mutex::new(Instant::now())) }
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

    fn insert(&self, status: NodeStatus, first_hand: bool) {
        let at = Instant::now();
        let news = self.lock(|rows| {
            let before = rows.get(&status.node_id);
            if before.is_some_and(|before| before.status.epoch > status.epoch) {
                return false;
            }
            let news = before.is_none_or(|before| before.status != status);
            rows.insert(status.node_id, Heard { status, at, first_hand });
            news
        });
        if news {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    fn fresh<T>(&self, node: NodeId, read: impl FnOnce(&NodeStatus) -> T) -> Option<T> {
        self.lock(|rows| {
            let heard = rows.get(&node)?;
            (heard.at.elapsed() < NODE_DOWN_AFTER).then(|| read(&heard.status))
        })
    }

    /// The revision that the node's kernel holds; `None` if the node has not been heard of lately.
    #[must_use]
    pub fn programmed(&self, node: NodeId) -> Option<Revision> {
        self.fresh(node, |status| status.programmed_revision)
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
    }

    /// The fresh statuses that nodes reported to this voter themselves, which it passes on.
    #[must_use]
    pub fn first_hand(&self) -> Vec<NodeStatus> {
        self.lock(|rows| {
            rows.values()
                .filter(|heard| heard.first_hand && heard.at.elapsed() < NODE_DOWN_AFTER)
                .map(|heard| heard.status.clone())
                .collect()
        })
    }

    /// Returns true if the node is down: it has not been heard of for a while, and the table has listened for a while.
    #[must_use]
    pub fn is_down(&self, node: NodeId) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.elapsed() >= NODE_DOWN_AFTER && self.programmed(node).is_none()
    }

    /// A number that changes with every new status.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until each of `nodes` has programmed `revision` or is down, or until `deadline` is over. Returns the nodes
    /// that have not programmed it.
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
                changed.borrow_and_update();
                late.retain(|node| self.programmed(*node).is_none_or(|held| held < revision));
                if late.iter().all(|node| self.is_down(*node)) {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node_id: NodeId, epoch: Revision, programmed_revision: Revision) -> NodeStatus {
        NodeStatus { node_id, epoch, programmed_revision, endpoints: Vec::new() }
    }

    #[test]
    fn an_older_epoch_is_void() {
        let table = StatusTable::default();
        table.record(status(1, 5, 10));
        table.record(status(1, 4, 99));
        assert_eq!(table.programmed(1), Some(10));
        table.record(status(1, 6, 1));
        assert_eq!(table.programmed(1), Some(1));
    }

    #[test]
    fn only_first_hand_knowledge_is_passed_on() {
        let table = StatusTable::default();
        table.record(status(1, 1, 1));
        table.record_report(status(2, 1, 1));
        let passed_on = |table: &StatusTable| -> Vec<NodeId> {
            table.first_hand().iter().map(|status| status.node_id).collect()
        };
        assert_eq!(passed_on(&table), [1]);
        table.stream_ended(1);
        assert!(passed_on(&table).is_empty());
        assert_eq!(table.programmed(1), Some(1), "it is not down for that");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_all_are_there_and_names_those_that_are_not() {
        let table = StatusTable::default();
        table.record(status(1, 1, 10));
        let late = table.wait_programmed([1, 2].into(), 10, Duration::from_secs(1)).await;
        assert_eq!(late, [2].into());
        let waiting = table.clone();
        let wait = tokio::spawn(async move {
            waiting.wait_programmed([1, 2].into(), 10, Duration::from_secs(1000)).await
        });
        tokio::task::yield_now().await;
        table.record(status(2, 1, 11));
        assert_eq!(wait.await.unwrap(), BTreeSet::new());
    }
}
