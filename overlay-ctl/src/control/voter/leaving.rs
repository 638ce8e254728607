//! The members whose life in consensus is being ended.

use crate::model::RaftId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The lives that this node, as the leader, is ending: their membership may have ended while their nodes' rows still name
/// them. They must not be made members again meanwhile. Clones share the list.
#[derive(Clone, Default)]
pub struct Leaving(Arc<Mutex<Vec<RaftId>>>);

impl Leaving {
    /// Counts the life as being ended until the returned value is dropped.
    #[must_use]
    pub fn hold(&self, life: RaftId) -> LeavingHold {
        self.lives().push(life);
        LeavingHold { leaving: self.clone(), life }
    }

    /// Returns true if the life is being ended.
    #[must_use]
    pub fn contains(&self, life: RaftId) -> bool {
        self.lives().contains(&life)
    }

    fn lives(&self) -> MutexGuard<'_, Vec<RaftId>> {
        // A list of ids is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A life counts as being ended while this lives.
pub struct LeavingHold {
    leaving: Leaving,
    life: RaftId,
}

impl Drop for LeavingHold {
    fn drop(&mut self) {
        let mut lives = self.leaving.lives();
        if let Some(position) = lives.iter().position(|life| *life == self.life) {
            lives.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_being_ended_until_the_last_hold_is_dropped() {
        let [two, three] = [2, 3].map(|id| RaftId::new(id).unwrap());
        let leaving = Leaving::default();
        let first = leaving.hold(two);
        let second = leaving.clone().hold(two);
        assert!(leaving.contains(two) && !leaving.contains(three));
        drop(first);
        assert!(leaving.contains(two));
        drop(second);
        assert!(!leaving.contains(two));
    }
}
