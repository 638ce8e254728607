//! The real state machine, watched: each command that it applies, and each snapshot that it takes over, is shown to the
//! [`Truth`].

use super::truth::Truth;
use crate::control::{
    consensus::{RestoreError, StateMachine, Stop},
    state::{Outcome, State},
    voter::{Machine, SharedState},
};
use crate::model::Version;
use std::cell::Cell;

thread_local! {
    /// Whether what is read now is read by a program that speaks version 1 alone.
    static IS_OLD: Cell<bool> = const { Cell::new(false) };
}

/// From now on a program reads that speaks version 1 alone, or one that speaks all versions. Such a program is a model: what it
/// can't read it says as the product does.
pub(super) fn read_as_old(is_old: bool) {
    IS_OLD.set(is_old);
}

/// A voter's state machine.
pub(super) struct Ledger {
    machine: Machine,
    /// What its readers see.
    pub(super) state: SharedState,
    /// Voters, those before a joint configuration, and learners.
    pub(super) members: [Vec<u64>; 3],
    truth: Truth,
    /// The last index that was applied and published.
    pub(super) published: u64,
    /// A snapshot was taken over, and its index is not known yet.
    is_restored: bool,
    /// How often one was.
    pub(super) restored: u64,
}

impl Ledger {
    /// Its state remembers so many changes, for agents that are behind.
    pub(super) fn new(truth: Truth, remembered: usize) -> Self {
        let (machine, state) = Machine::remembering(remembered);
        Self {
            machine,
            state,
            members: Default::default(),
            truth,
            published: 0,
            is_restored: false,
            restored: 0,
        }
    }
}

impl StateMachine for Ledger {
    type Outcome = Outcome;
    type Snapshot = State;

    fn apply(&mut self, index: u64, command: &[u8]) -> Result<Outcome, Stop> {
        let entry = State::read(command).expect("an entry of this version");
        if IS_OLD.get() && entry.rules > Version::V1.number() {
            return Err(Stop::Unreadable(format!("it is by the rules of version {}", entry.rules)));
        }
        let outcome = self.machine.apply(index, command)?;
        self.truth.applied(index, &entry, &outcome, &self.state.copy());
        Ok(outcome)
    }

    fn membership(&mut self, index: u64, voters: &[u64], outgoing: &[u64], learners: &[u64]) {
        self.machine.membership(index, voters, outgoing, learners);
        self.members = [voters, outgoing, learners].map(<[u64]>::to_vec);
        self.truth.members(index, &self.members);
    }

    fn snapshot(&self) -> Vec<u8> {
        self.machine.snapshot()
    }

    fn snapshot_version(&self) -> u32 {
        self.machine.snapshot_version()
    }

    fn max_voters(&self) -> Option<usize> {
        self.machine.max_voters()
    }

    fn read_snapshot(snapshot: &[u8]) -> Result<State, RestoreError> {
        let state = Machine::read_snapshot(snapshot)?;
        if IS_OLD.get() && state.version() > Version::V1 {
            return Err(RestoreError::Newer(format!("it is of version {}", state.version())));
        }
        Ok(state)
    }

    fn restore(&mut self, snapshot: State) {
        self.machine.restore(snapshot);
        self.is_restored = true;
        self.restored += 1;
    }

    fn batch_applied(&mut self, index: u64) {
        assert!(index > self.published, "published in order");
        if std::mem::take(&mut self.is_restored) {
            self.truth.restored(index, &self.state.copy());
        }
        self.machine.batch_applied(index);
        self.published = index;
    }
}
