//! Signs of life of nodes beside their statuses: the answers of their VTEPs to the probes of other nodes, and their
//! registrations; and since when nodes count as lost.

use crate::{dataplane::kernel, model::NodeId, proto::internal::ProbeStatus};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Probes in a row of one prober that count at most: one prober alone proves nothing.
const COUNTED: u32 = 3;

/// The signs of life of each node. Clones share them.
#[derive(Clone, Default)]
pub struct Signs(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<NodeId, Sign>,
    lost: BTreeMap<NodeId, Instant>,
    /// For how long a node has counted as lost when nobody waits for it any more.
    quiet: Duration,
}

#[derive(Default)]
struct Sign {
    /// When its VTEP last answered.
    answered: Option<Instant>,
    registered: Option<Instant>,
    /// When each node that got no answer asked last, and how often it did since it got one.
    unanswered: BTreeMap<NodeId, (Instant, u32)>,
}

/// What probes tell of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Probed {
    /// Time since its VTEP last answered.
    pub(super) answered: Option<Duration>,
    /// The nodes that ask it and get no answer.
    pub(super) probers: usize,
    /// The probes that they sent, of each of them a few at most.
    pub(super) unanswered: u32,
}

impl Signs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole before the next may panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what `prober` reported at this time.
    pub(super) fn note(&self, prober: NodeId, probes: &[ProbeStatus], at: Instant) {
        let mut inner = self.lock();
        for probe in probes {
            let ago = |ms: u64| at.checked_sub(Duration::from_millis(ms));
            let sign = inner.nodes.entry(probe.node_id).or_default();
            if let Some(answered) = probe.answered_ms_ago.and_then(ago) {
                sign.answered = sign.answered.max(Some(answered));
            }
            match ago(probe.asked_ms_ago).filter(|_| probe.unanswered > 0) {
                Some(asked) => {
                    sign.unanswered.insert(prober, (asked, probe.unanswered));
                }
                None => {
                    sign.unanswered.remove(&prober);
                }
            }
        }
    }

    /// Notes that a controller took the node's registration.
    pub fn registered(&self, node: NodeId) {
        self.lock().nodes.entry(node).or_default().registered = Some(Instant::now());
    }

    /// When the node registered last here.
    pub(super) fn registered_at(&self, node: NodeId) -> Option<Instant> {
        self.lock().nodes.get(&node)?.registered
    }

    /// Time since the node's VTEP last answered a probe, as far as that was reported here.
    #[must_use]
    pub fn answered(&self, node: NodeId) -> Option<Duration> {
        self.lock().nodes.get(&node)?.answered.map(|at| at.elapsed())
    }

    /// What probes of the last `within` tell of the node. Of those that got no answer only those count whose prober `lives`.
    pub(super) fn probed(
        &self,
        node: NodeId,
        within: Duration,
        lives: impl Fn(NodeId) -> bool,
    ) -> Probed {
        let inner = self.lock();
        let Some(sign) = inner.nodes.get(&node) else { return Probed::default() };
        let recent = sign.unanswered.iter();
        let recent = recent.filter(|(prober, (at, _))| at.elapsed() < within && lives(**prober));
        let counts: Vec<u32> = recent.map(|(_, (_, count))| (*count).min(COUNTED)).collect();
        Probed {
            answered: sign.answered.map(|at| at.elapsed()),
            probers: counts.len(),
            unanswered: counts.iter().sum(),
        }
    }

    /// Follows which nodes the state says are lost. Nobody waits for one that has been for as long as `quiet`. What is known
    /// of nodes that are none any more is forgotten.
    pub(crate) fn follow(
        &self,
        nodes: &BTreeSet<NodeId>,
        lost: &BTreeSet<NodeId>,
        quiet: Duration,
    ) {
        let mut inner = self.lock();
        inner.quiet = quiet;
        inner.nodes.retain(|node, _| nodes.contains(node));
        for sign in inner.nodes.values_mut() {
            sign.unanswered.retain(|prober, _| nodes.contains(prober));
        }
        inner.lost.retain(|node, _| lost.contains(node));
        for node in lost {
            inner.lost.entry(*node).or_insert_with(Instant::now);
        }
    }

    /// Forgets since when nodes are lost: it is counted anew by who leads.
    pub(super) fn listen_anew(&self) {
        self.lock().lost.clear();
    }

    /// Returns true if the node has been lost for so long that nobody waits for it: nothing that others sent to it is under
    /// way any more.
    #[must_use]
    pub fn is_given_up(&self, node: NodeId) -> bool {
        let inner = self.lock();
        inner.lost.get(&node).is_some_and(|since| since.elapsed() >= inner.quiet)
    }
}

/// What a node reported `since` ago, as it is to be passed on now.
pub(super) fn aged(probes: &[ProbeStatus], since: Duration) -> Vec<ProbeStatus> {
    let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let older = |ms: u64| ms.saturating_add(since);
    let age = |probe: &ProbeStatus| ProbeStatus {
        node_id: probe.node_id,
        asked_ms_ago: older(probe.asked_ms_ago),
        answered_ms_ago: probe.answered_ms_ago.map(older),
        unanswered: probe.unanswered,
    };
    probes.iter().map(age).collect()
}

/// What a probe told, as it is sent to other nodes.
pub(super) fn probe_to_wire(probed: &kernel::Probed) -> ProbeStatus {
    let ago = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let kernel::Probed { node, asked, answered, unanswered } = *probed;
    ProbeStatus {
        node_id: node,
        asked_ms_ago: ago(asked),
        answered_ms_ago: answered.map(ago),
        unanswered,
    }
}
