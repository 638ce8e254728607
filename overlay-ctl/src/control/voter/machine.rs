//! The replicated state as consensus drives it, and as readers share it.

use super::Hashes;
use crate::{
    control::{
        consensus::{RestoreError, StateMachine, Stop},
        state::{Outcome, REMEMBERED, SnapshotError, State},
    },
    model::Revision,
};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// The state as readers share it with the consensus thread, and the revision to wait on.
#[derive(Clone)]
pub struct SharedState {
    state: Arc<RwLock<State>>,
    revision: watch::Receiver<Revision>,
    hashes: Hashes,
}

impl SharedState {
    /// Reads a copy of the present state, so that apply goes on however long that takes.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.copy())
    }

    /// A copy of the present state. It shares all rows with the original, and so costs next to nothing.
    #[must_use]
    pub fn copy(&self) -> State {
        // A poisoned lock means that apply panicked, which ends the process.
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes after every batch of applied entries.
    #[must_use]
    pub fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.clone()
    }

    /// The hashes of the state at fixed revisions.
    #[must_use]
    pub fn hashes(&self) -> &Hashes {
        &self.hashes
    }
}

/// The state behind the consensus layer's trait.
pub struct Machine {
    state: Arc<RwLock<State>>,
    revision: watch::Sender<Revision>,
    /// How many changes the state remembers, for agents that are behind.
    remembered: usize,
    hashes: Hashes,
}

impl Machine {
    /// An empty state, and the readers' side of it.
    #[must_use]
    pub fn new() -> (Self, SharedState) {
        Self::remembering(REMEMBERED)
    }

    /// As [`Machine::new`], with a change log of `changes` changes.
    pub fn remembering(changes: usize) -> (Self, SharedState) {
        let state = Arc::new(RwLock::new(State::default().remembering(changes)));
        let (sender, receiver) = watch::channel(0);
        let hashes = Hashes::default();
        let shared =
            SharedState { state: Arc::clone(&state), revision: receiver, hashes: hashes.clone() };
        (Self { state, revision: sender, remembered: changes, hashes }, shared)
    }

    fn write<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        write(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StateMachine for Machine {
    type Outcome = Outcome;
    type Snapshot = State;

    fn apply(&mut self, index: u64, command: &[u8]) -> Result<Outcome, Stop> {
        // Before the state is locked: readers wait for no more than the change of the rows.
        let entry = State::read(command).map_err(|why| Stop::Unreadable(why.to_string()))?;
        let (outcome, due) = self.write(|state| {
            let due = state.hash_is_due(index).map(|revision| (state.clone(), revision));
            (state.apply(index, entry), due)
        });
        if let Some((before, revision)) = due {
            self.hashes.make(before, revision);
        }
        Ok(outcome)
    }

    fn membership(&mut self, index: u64, voters: &[u64], outgoing: &[u64], learners: &[u64]) {
        // Who votes is the consensus layer's to know; a node's row says who is meant to.
        tracing::info!(index, ?voters, ?learners, ?outgoing, "members");
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).snapshot()
    }

    fn snapshot_version(&self) -> u32 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).version().number()
    }

    fn max_voters(&self) -> Option<usize> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Some(state.voters().count())
    }

    fn read_snapshot(snapshot: &[u8]) -> Result<State, RestoreError> {
        State::from_snapshot(snapshot).map_err(|error| match error {
            SnapshotError::Newer(_) | SnapshotError::Version(_) => {
                RestoreError::Newer(error.to_string())
            }
            SnapshotError::Decode(_) => RestoreError::Damaged(error.into()),
        })
    }

    fn restore(&mut self, snapshot: State) {
        let restored = snapshot.remembering(self.remembered);
        self.write(|state| *state = restored);
        self.hashes.restored();
    }

    fn batch_applied(&mut self, index: u64) {
        self.revision.send_replace(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::state::{Command, Envelope, Mutation};
    use std::{collections::BTreeSet, sync::mpsc, thread, time::Duration};

    fn network(name: &str) -> Vec<u8> {
        let command = Command::CreateNetwork {
            name: name.parse().unwrap(),
            pool: None,
            vni: None,
            options: crate::model::NetworkOptions::default(),
        };
        let request = *uuid::Uuid::new_v4().as_bytes();
        Envelope::new(Mutation::new(request, &command), command).encode().unwrap()
    }

    #[test]
    fn a_state_that_was_received_remembers_as_many_changes_as_the_one_before() {
        let (mut machine, shared) = Machine::remembering(2);
        let received = Machine::read_snapshot(&machine.snapshot()).unwrap();
        machine.restore(received);
        for (index, name) in [(1, "one"), (2, "two"), (3, "three")] {
            machine.apply(index, &network(name)).unwrap().unwrap();
        }
        let has_whole_view =
            |cursor| shared.read(|state| state.delta_for(1, cursor, &BTreeSet::new()).complete);
        assert!(!has_whole_view(1), "the two changes since are remembered");
        machine.apply(4, &network("four")).unwrap().unwrap();
        assert!(has_whole_view(1), "and no third one");
    }

    #[test]
    fn what_can_not_be_read_changes_nothing() {
        let (mut machine, shared) = Machine::new();
        machine.apply(1, &network("one")).unwrap().unwrap();
        let before = shared.copy();
        let stopped = machine.apply(2, b"no entry").unwrap_err();
        assert!(matches!(stopped, Stop::Unreadable(_)), "{stopped:?}");
        assert_eq!(shared.copy(), before, "the revision of the state, too");
    }

    #[test]
    fn a_reader_does_not_hold_up_apply() {
        let entry = network("net");
        let (mut machine, shared) = Machine::new();
        let (sender, applied) = mpsc::channel();
        let read = shared.read(|state| {
            // On a thread of its own, as the consensus driver's.
            thread::spawn(move || sender.send(machine.apply(1, &entry).unwrap().is_ok()));
            let applied = applied.recv_timeout(Duration::from_secs(20));
            assert_eq!(applied, Ok(true), "apply must not wait for the reader");
            (state.revision(), state.networks().count())
        });
        assert_eq!(read, (0, 0), "what is read stays as it was");
        assert_eq!(shared.read(|state| (state.revision(), state.networks().count())), (1, 1));
    }
}
