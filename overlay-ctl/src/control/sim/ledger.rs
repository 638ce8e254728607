//! The real state machine, watched: each command that it applies, and each snapshot that it takes over, is shown to the
//! [`Truth`].

use super::truth::Truth;
use crate::control::{
    consensus::{RestoreError, StateMachine, Stop},
    state::{Outcome, State},
    voter::{Machine, SharedState},
};

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

    fn read_snapshot(snapshot: &[u8]) -> Result<State, RestoreError> {
        Machine::read_snapshot(snapshot)
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
