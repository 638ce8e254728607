//! What a simulator sees of the core and decides for it: the members, the log, the election timeout, and the bugs that are
//! planted here.

use super::{Core, Status, watch};
use crate::{
    control::consensus::{StateMachine, Transport},
    seeded::Rng,
};
use raft::{
    GetEntriesContext, Ready, Storage as _,
    eraftpb::{ConfState, Entry},
};
use std::cell::Cell;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Whether somebody looks at what is applied on this thread, and takes it.
fn is_watched() -> bool {
    WATCHED.get()
}

/// From now on somebody does, or does not.
pub(in crate::control) fn watch_applied(is_watched: bool) {
    WATCHED.set(is_watched);
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Logged {
    pub(in crate::control) index: u64,
    pub(in crate::control) term: u64,
    /// Its kind, and its bytes.
    pub(in crate::control) content: (i32, Vec<u8>),
}

impl From<&Entry> for Logged {
    fn from(entry: &Entry) -> Self {
        Self {
            index: entry.index,
            term: entry.term,
            content: (entry.entry_type, entry.data.clone()),
        }
    }
}

impl<S: StateMachine> Core<S> {
    /// The state of the cluster, as this node knows it now, as long as nothing is handed in.
    pub(in crate::control) fn seen(&self) -> watch::Ref<'_, Status> {
        self.status.borrow()
    }

    /// Keeps an entry that is about to be applied for whoever looks next: its log may be compacted before.
    pub(super) fn note_applied(&mut self, entry: &Entry) {
        if is_watched() {
            self.just_applied.push(entry.into());
        }
    }

    /// The entries that were applied since the last look.
    pub(in crate::control) fn take_applied(&mut self) -> Vec<Logged> {
        std::mem::take(&mut self.just_applied)
    }

    /// Who votes, follows, and is to follow when a joint configuration ends.
    pub(in crate::control::consensus) fn configuration(&self) -> ConfState {
        self.members()
    }

    /// The learners to be when the joint configuration ends.
    pub(in crate::control) fn next_learners(&self) -> Vec<u64> {
        super::sorted(&self.members().learners_next)
    }

    /// Puts an election timeout that `seed` makes in the place of the one that the engine drew. It is to be asked before each
    /// tick, since nothing else looks at the timeout. It is the same as long as the term is, for a while: the engine does
    /// not say when it draws.
    pub(in crate::control) fn draw_timeout(&mut self, seed: u64) {
        const WHILE: u64 = 40;
        let (least, most) = (self.config.election_ticks, self.config.max_election_ticks);
        let mut drawn = Rng::new(seed);
        for part in [self.id(), self.node.raft.term, self.ticks / WHILE] {
            drawn = Rng::new(drawn.next() ^ part);
        }
        let range = u64::try_from(most - least).unwrap();
        let timeout = least + usize::try_from(drawn.below(range)).unwrap();
        self.node.raft.set_randomized_election_timeout(timeout);
    }

    /// The stored entries from `index` on, or from the first.
    pub(in crate::control) fn logged(&self, index: u64) -> Vec<Logged> {
        let store = self.store();
        let (first, last) = (store.first_index().unwrap(), store.last_index().unwrap());
        let from = index.max(first);
        if from > last {
            return Vec::new();
        }
        let context = GetEntriesContext::empty(false);
        let entries = store.entries(from, last + 1, None, context).unwrap();
        entries.iter().map(Logged::from).collect()
    }

    /// The term of an entry of the log; `None` if the log has no such entry.
    pub(in crate::control) fn term_of(&self, index: u64) -> Option<u64> {
        self.store().term(index).ok()
    }

    /// The first and the last index of the log.
    pub(in crate::control) fn log_range(&self) -> (u64, u64) {
        (self.store().first_index().unwrap(), self.store().last_index().unwrap())
    }

    /// Where that bug is planted: takes the read for confirmed.
    pub(super) fn confirm_early(&mut self, context: &[u8]) {
        if planted!(ReadUnconfirmed) {
            self.reads.confirm(context, self.applied);
        }
    }

    /// Where that bug is planted: sends what promises something that is not on disk yet.
    pub(super) fn send_early(&mut self, ready: &mut Ready, transport: &mut dyn Transport) {
        if planted!(SentBeforeWritten) {
            self.send(ready.take_persisted_messages(), transport);
        }
    }
}
