//! Measures how long the disk takes for each write to the log. The clock is the caller's.

use super::Core;
use crate::control::consensus::{LogStore, StateMachine, storage::StoreError};

impl<S: StateMachine> Core<S> {
    /// Writes to the log, and notes how long that took. What writes nothing is not measured.
    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&mut LogStore) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (transactions, began) = (self.store().transactions(), (self.config.clock)());
        let written = write(self.node.mut_store());
        if self.store().transactions() > transactions {
            let took = (self.config.clock)().saturating_sub(began);
            self.disk.note(took);
            self.measures.note_write(took);
        }
        written
    }
}
