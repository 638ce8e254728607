//! A node whose state is another one than that of other voters.

use super::Core;
use crate::control::consensus::{Alarm, Difference, FatalError, StateMachine};

impl<S: StateMachine> Core<S> {
    /// Notes how the state of this node differs from that of other voters.
    pub fn note_difference(&mut self, difference: Option<Difference>) {
        self.difference = difference;
    }

    /// Ends the node if a majority has another state. The note in the folder keeps the log from being used again: it may be
    /// right, and so may what this node would do with it again.
    pub(super) fn stop_if_it_differs(&self) -> Result<(), FatalError> {
        match self.difference {
            Some(Difference { revision, has_majority: true }) => {
                let error = FatalError::Differs { revision };
                drop(self.store().declare_unfit(error.to_string()));
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// What an operator must see to.
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let differs =
            self.difference.map(|Difference { revision, .. }| Alarm::Differs { revision });
        self.room_alarms().chain(self.stall_alarm()).chain(differs).collect()
    }
}
