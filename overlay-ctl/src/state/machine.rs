use super::{Outcome, State, changes::REMEMBERED};
use crate::{
    consensus::{RestoreError, StateMachine},
    model::Revision,
};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// The state as readers share it with the consensus thread, and the revision to wait on.
#[derive(Clone)]
pub struct SharedState {
    state: Arc<RwLock<State>>,
    revision: watch::Receiver<Revision>,
}

impl SharedState {
    /// Reads. Holds up apply meanwhile: copy out what is needed and return.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        // A poisoned lock means that apply panicked, which ends the process.
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes after every batch of applied entries.
    #[must_use]
    pub fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.clone()
    }
}

/// The state behind the consensus layer's trait.
pub struct Machine {
    state: Arc<RwLock<State>>,
    revision: watch::Sender<Revision>,
    /// How many changes the state remembers.
    remembered: usize,
}

impl Machine {
    /// An empty state, and the readers' side of it.
    #[must_use]
    pub fn new() -> (Self, SharedState) {
        Self::remembering(REMEMBERED)
    }

    /// As [`Machine::new`], with a change log of so many changes.
    pub(crate) fn remembering(changes: usize) -> (Self, SharedState) {
        let state = Arc::new(RwLock::new(State::default().remembering(changes)));
        let (sender, receiver) = watch::channel(0);
        let shared = SharedState { state: Arc::clone(&state), revision: receiver };
        (Self { state, revision: sender, remembered: changes }, shared)
    }

    fn write<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        write(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StateMachine for Machine {
    type Outcome = Outcome;
    type Snapshot = State;

    fn apply(&mut self, index: u64, command: &[u8]) -> Outcome {
        self.write(|state| state.apply(index, command))
    }

    fn membership(&mut self, _index: u64, voters: &[u64], learners: &[u64]) {
        // Who votes is the consensus layer's to know; a node's row says who is meant to.
        tracing::info!(?voters, ?learners, "membership");
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).snapshot()
    }

    fn read_snapshot(snapshot: &[u8]) -> Result<State, RestoreError> {
        Ok(State::from_snapshot(snapshot)?)
    }

    fn restore(&mut self, snapshot: State) {
        let restored = snapshot.remembering(self.remembered);
        self.write(|state| *state = restored);
    }

    fn batch_applied(&mut self, index: u64) {
        self.revision.send_replace(index);
    }
}
