use crate::{
    model::{EndpointId, NodeId, Revision},
    proto::internal::{EndpointStatus, NodeStatus},
    reconcile::LocalStatus,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A node that has not been heard of for so long is down.
pub const NODE_DOWN_AFTER: Duration = Duration::from_secs(3);

/// Who programmed what, as last heard. Clones share it.
#[derive(Clone)]
pub struct StatusTable {
    rows: Arc<Mutex<BTreeMap<NodeId, Heard>>>,
    changed: watch::Sender<u64>,
    since: Instant,
}

struct Heard {
    status: NodeStatus,
    at: Instant,
    /// From the node itself, over a stream that still stands: to be passed on.
    first_hand: bool,
}

impl Default for StatusTable {
    fn default() -> Self {
        let changed = watch::Sender::new(0);
        Self { rows: Arc::default(), changed, since: Instant::now() }
    }
}

impl StatusTable {
    fn lock<T>(&self, with: impl FnOnce(&mut BTreeMap<NodeId, Heard>) -> T) -> T {
        with(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in what a node says of itself. What an older epoch says is void.
    pub fn record(&self, status: NodeStatus) {
        self.insert(status, true);
    }

    /// Takes in what another voter heard of a node. It is not passed on: whoever heard it does that.
    pub fn record_report(&self, status: NodeStatus) {
        self.insert(status, false);
    }

    /// The node's stream ended: its status may still be fresh, but another voter may know better.
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

    /// The node's last status, while it is fresh.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<NodeStatus> {
        self.lock(|rows| {
            let heard = rows.get(&node)?;
            (heard.at.elapsed() < NODE_DOWN_AFTER).then(|| heard.status.clone())
        })
    }

    /// The fresh statuses that nodes gave this one themselves: what to pass on.
    #[must_use]
    pub fn first_hand(&self) -> Vec<NodeStatus> {
        self.lock(|rows| {
            rows.values()
                .filter(|heard| heard.first_hand && heard.at.elapsed() < NODE_DOWN_AFTER)
                .map(|heard| heard.status.clone())
                .collect()
        })
    }

    /// Whether the node is down: not heard of for a while, by a table that has listened for a while.
    #[must_use]
    pub fn is_down(&self, node: NodeId) -> bool {
        self.since.elapsed() >= NODE_DOWN_AFTER && self.get(node).is_none()
    }

    /// Changes with every news.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until each of `nodes` has programmed `revision`, or `deadline` is over. Gives those that
    /// have not.
    pub async fn wait_programmed(
        &self,
        mut nodes: BTreeSet<NodeId>,
        revision: Revision,
        deadline: Duration,
    ) -> BTreeSet<NodeId> {
        let mut changed = self.watch();
        let wait = async {
            loop {
                changed.borrow_and_update();
                nodes.retain(|node| {
                    self.get(*node).is_none_or(|status| status.programmed_revision < revision)
                });
                if nodes.is_empty() || changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Late is an answer too: whoever is left in `nodes`.
        drop(tokio::time::timeout(deadline, wait).await);
        nodes
    }

    /// Forgets a node that was removed.
    pub fn forget(&self, node: NodeId) {
        self.lock(|rows| rows.remove(&node));
    }
}

/// A node's own status as it travels.
#[must_use]
pub fn to_wire(node_id: NodeId, epoch: Revision, status: &LocalStatus) -> NodeStatus {
    let endpoint =
        |(id, health): (&EndpointId, &crate::reconcile::EndpointHealth)| EndpointStatus {
            id: *id,
            up: health.down.is_none(),
            reason: health.down.clone().unwrap_or_default(),
            host_interface: health.ifname.clone(),
            host_ifindex: health.ifindex,
            mtu: health.mtu,
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
        assert_eq!(table.get(1).map(|s| s.programmed_revision), Some(10));
        table.record(status(1, 6, 1));
        assert_eq!(table.get(1).map(|s| s.programmed_revision), Some(1));
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
        assert_eq!(passed_on(&table), []);
        assert!(table.get(1).is_some(), "it is not down for that");
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
