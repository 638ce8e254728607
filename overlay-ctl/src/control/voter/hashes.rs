//! The hashes of this voter's state at fixed indices, which it tells the leader, and what the leader found by them.

use crate::{
    control::state::{HASH_VERSION, State, StateHash},
    model::{NodeId, Revision},
    proto::internal,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};
use tokio::sync::watch;

/// So many are told: voters that are some entries apart have most of them in common.
const KEPT: usize = 8;

/// What the leader found: this voter's state is another one than that of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The revision before whose entry the states were found to differ.
    pub revision: Revision,
    /// The hash that a majority of the voters has; `None` = no majority has the same.
    pub majority: Option<StateHash>,
}

/// The hashes of one voter, and what was found by them. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Hashes {
    inner: Arc<Mutex<Inner>>,
    /// What was found of this voter.
    own: watch::Sender<Option<Verdict>>,
    /// How many were made since the start.
    made: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The latest last.
    kept: VecDeque<(Revision, StateHash)>,
    /// One is being made.
    busy: bool,
    /// Raised when another state takes the place of the one before.
    restores: u64,
    /// What this voter found of the others, while it leads.
    found: BTreeMap<NodeId, Verdict>,
    /// How often it found that one of them, or it itself, has another state.
    findings: u64,
    /// The last revision at which a majority had the same, as it found.
    agreed: Revision,
}

impl Hashes {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the hash of `state`, which is that before the entry `revision`, on a thread of its own. While another one is being
    /// made nothing happens: the next one may be in time.
    pub(super) fn make(&self, state: State, revision: Revision) {
        let restores = {
            let mut inner = self.lock();
            if inner.busy {
                return;
            }
            inner.busy = true;
            inner.restores
        };
        let this = self.clone();
        let spawned = thread::Builder::new().name("state hash".to_owned()).spawn(move || {
            let hash = state.hash();
            drop(state);
            this.keep(restores, revision, hash);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, revision, "the state is not compared with that of the other voters this time");
            self.lock().busy = false;
        }
    }

    fn keep(&self, restores: u64, revision: Revision, hash: StateHash) {
        {
            let mut inner = self.lock();
            inner.busy = false;
            if inner.restores == restores {
                inner.kept.push_back((revision, hash));
                if inner.kept.len() > KEPT {
                    inner.kept.pop_front();
                }
            }
        }
        tracing::debug!(revision, "the state was hashed");
        self.made.send_modify(|made| *made += 1);
    }

    /// Forgets the hashes: another state has taken the place of the one before.
    pub(super) fn restored(&self) {
        let mut inner = self.lock();
        inner.restores += 1;
        inner.kept.clear();
    }

    /// The hash at this revision, if it is among the latest.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Option<StateHash> {
        let inner = self.lock();
        inner.kept.iter().find(|(at, _)| *at == revision).map(|(_, hash)| *hash)
    }

    /// The status of this voter, with the latest hashes.
    #[must_use]
    pub fn tell(&self, status: internal::NodeStatus) -> internal::NodeStatus {
        let hash = |(revision, hash): &(Revision, StateHash)| internal::StateHash {
            revision: *revision,
            hash: hash.to_vec(),
        };
        let state_hashes = self.lock().kept.iter().map(hash).collect();
        internal::NodeStatus { state_hashes, hash_version: HASH_VERSION, ..status }
    }

    /// Notes what was found of this voter, by itself if it leads, or by the leader; `None` = nothing, or nothing any more.
    pub fn note(&self, verdict: Option<Verdict>) {
        self.own.send_if_modified(|own| std::mem::replace(own, verdict) != verdict);
    }

    /// What was found of this voter.
    #[must_use]
    pub fn own(&self) -> watch::Receiver<Option<Verdict>> {
        self.own.subscribe()
    }

    /// Notes what this voter found of all, as it leads. Returns what is news.
    pub fn find(
        &self,
        found: BTreeMap<NodeId, Verdict>,
        agreed: Option<Revision>,
    ) -> Vec<(NodeId, Verdict)> {
        let mut inner = self.lock();
        let is_news =
            |(node, verdict): &(&NodeId, &Verdict)| inner.found.get(*node) != Some(*verdict);
        let news: Vec<_> =
            found.iter().filter(is_news).map(|(node, verdict)| (*node, *verdict)).collect();
        inner.findings += news.len() as u64;
        inner.agreed = inner.agreed.max(agreed.unwrap_or_default());
        inner.found = found;
        news
    }

    /// What the leader is to tell the voter, which has noted `noted`; `None` = it knows.
    #[must_use]
    pub fn to_tell(&self, node: NodeId, noted: Revision) -> Option<internal::ReportResponse> {
        let found = self.lock().found.get(&node).copied();
        let revision = found.map_or(0, |verdict| verdict.revision);
        (revision != noted).then(|| internal::ReportResponse {
            differs_at: revision,
            majority: found.and_then(|it| it.majority).map(Vec::from).unwrap_or_default(),
        })
    }

    /// How often this voter found that a voter has another state, since it started.
    #[must_use]
    pub fn findings(&self) -> u64 {
        self.lock().findings
    }

    /// The last revision at which this voter found that a majority has the same state; 0 = it has not compared any.
    #[must_use]
    pub fn agreed(&self) -> Revision {
        self.lock().agreed
    }

    /// Changes with each hash that was made.
    #[cfg(test)]
    pub(crate) fn made(&self) -> watch::Receiver<u64> {
        self.made.subscribe()
    }
}
