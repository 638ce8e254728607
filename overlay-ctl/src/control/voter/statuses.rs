//! The statuses that nodes reported: what each has programmed, how its endpoints are, and whether the node is down.

use super::watchers::Watchers;
use crate::{
    control::consensus::DiskTimes,
    dataplane::kernel::{EndpointHealth, LegHealth, LocalStatus},
    model::{EndpointId, NodeId, Revision, SPEAKS, Speaks},
    proto::internal::{EndpointStatus, LegStatus, NodeStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
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
}

struct Heard {
    status: NodeStatus,
    at: Instant,
    /// Since when it has said, with no pause in which it counted as down, that it speaks the same versions.
    speaks_since: Instant,
    /// The node itself reported it, over a stream that is still open: this voter passes it on to the leader.
    first_hand: bool,
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

    fn insert(&self, status: NodeStatus, first_hand: bool) {
        let at = Instant::now();
        let news = self.lock(|rows| {
            let before = rows.get(&status.node_id);
            if before.is_some_and(|before| before.status.epoch > status.epoch) {
                return false;
            }
            let news = before.is_none_or(|before| before.status != status);
            let same =
                before.filter(|before| before.is_fresh() && before.speaks() == said(&status));
            let speaks_since = same.map_or(at, |before| before.speaks_since);
            rows.insert(status.node_id, Heard { status, at, speaks_since, first_hand });
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

    /// How long the disk of a voter takes to write to its log; `None` if it has not been heard of lately.
    #[must_use]
    pub fn disk(&self, node: NodeId) -> Option<DiskTimes> {
        self.fresh(node, |status| DiskTimes {
            writes: status.disk_writes,
            average: Duration::from_micros(status.disk_write_us),
        })
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
    }

    /// The fresh statuses that nodes reported to this voter themselves, which it passes on.
    #[must_use]
    pub fn first_hand(&self) -> Vec<NodeStatus> {
        self.lock(|rows| {
            rows.values()
                .filter(|heard| heard.first_hand && heard.is_fresh())
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
        oldest_version: SPEAKS.oldest().number(),
        newest_version: SPEAKS.newest().number(),
        // Only a voter has a log: see `with_disk`.
        disk_writes: 0,
        disk_write_us: 0,
    }
}

/// The same status of a voter whose disk takes so long to write to the log.
#[must_use]
pub fn with_disk(status: NodeStatus, disk: DiskTimes) -> NodeStatus {
    let DiskTimes { writes, average } = disk;
    let disk_write_us = u64::try_from(average.as_micros()).unwrap_or(u64::MAX);
    NodeStatus { disk_writes: writes, disk_write_us, ..status }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn status(node_id: NodeId, epoch: Revision, programmed_revision: Revision) -> NodeStatus {
        NodeStatus { node_id, epoch, programmed_revision, ..NodeStatus::default() }
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
        assert_eq!(table.programmed(2), Some(1), "what was passed on here counts as well");
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

    #[test]
    fn an_endpoint_is_as_its_node_says_until_that_is_forgotten() {
        let table = StatusTable::default();
        let health = |id| EndpointStatus { id, mtu: 1400, ..EndpointStatus::default() };
        table.record(NodeStatus { endpoints: vec![health(3), health(5)], ..status(1, 1, 1) });
        assert_eq!(table.health(1, 5), Some(Some(health(5))));
        assert_eq!(table.health(1, 4), Some(None), "the report does not name it");
        assert_eq!(table.health(2, 5), None, "the node was not heard");
        table.forget(1);
        assert_eq!(table.health(1, 5), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_down_once_it_has_been_silent_for_a_while() {
        let table = StatusTable::default();
        table.record(status(1, 1, 10));
        let heard = |table: &StatusTable| {
            (table.programmed(1), table.first_hand().len(), table.is_down(1), table.is_down(2))
        };
        advance(NODE_DOWN_AFTER - Duration::from_millis(1)).await;
        assert_eq!(heard(&table), (Some(10), 1, false, false));
        advance(Duration::from_millis(1)).await;
        assert_eq!(heard(&table), (None, 0, true, true), "silent, or never heard");
        table.record(status(1, 1, 10));
        assert_eq!(heard(&table), (Some(10), 1, false, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_gives_every_node_the_time_to_report() {
        let table = StatusTable::default();
        advance(NODE_DOWN_AFTER).await;
        assert!(table.is_down(1));
        table.listen_anew();
        assert!(!table.is_down(1));
    }

    #[test]
    fn only_a_status_that_says_something_else_is_news() {
        let table = StatusTable::default();
        let mut news = table.watch();
        let mut is_news = |status| {
            table.record(status);
            let is_news = news.has_changed().unwrap();
            news.mark_unchanged();
            is_news
        };
        assert!(is_news(status(1, 1, 10)));
        assert!(!is_news(status(1, 1, 10)), "a repetition");
        assert!(is_news(status(1, 1, 11)));
        assert!(!is_news(status(1, 0, 12)), "of an older epoch");
        assert!(is_news(status(2, 1, 11)), "of another node");
    }

    #[test]
    fn all_of_a_status_is_sent() {
        let leg =
            LegHealth { interface: "eth1".into(), ifname: "ovg7".into(), ifindex: 8, mtu: 1500 };
        let up = EndpointHealth {
            down: None,
            ifname: "ov7".into(),
            ifindex: 7,
            mtu: 1450,
            interface: "eth0".into(),
            gateway: Some(leg),
        };
        let down = EndpointHealth { down: Some("no namespace".into()), ..Default::default() };
        let status = LocalStatus {
            programmed: 20,
            endpoints: [(11, up), (12, down)].into(),
            ..LocalStatus::default()
        };
        let leg = LegStatus {
            interface: "eth1".into(),
            host_interface: "ovg7".into(),
            host_ifindex: 8,
            mtu: 1500,
        };
        let up = EndpointStatus {
            id: 11,
            up: true,
            reason: String::new(),
            host_interface: "ov7".into(),
            host_ifindex: 7,
            mtu: 1450,
            interface: "eth0".into(),
            gateway: Some(leg),
        };
        let down = EndpointStatus { id: 12, reason: "no namespace".into(), ..Default::default() };
        let sent = NodeStatus {
            node_id: 2,
            epoch: 9,
            programmed_revision: 20,
            endpoints: vec![up, down],
            oldest_version: SPEAKS.oldest().number(),
            newest_version: SPEAKS.newest().number(),
            disk_writes: 0,
            disk_write_us: 0,
        };
        assert_eq!(to_wire(2, 9, &status), sent);
        let disk = DiskTimes { writes: 4, average: Duration::from_micros(1_500) };
        let of_voter = NodeStatus { disk_writes: 4, disk_write_us: 1_500, ..sent.clone() };
        assert_eq!(with_disk(sent, disk), of_voter);
    }
}
