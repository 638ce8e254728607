//! The lives in consensus that this node, as the leader, is ending, and those that it gave.

use crate::model::RaftId;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most lives that are known to be new. One that is forgotten counts as used, and costs its node another one.
const NEW: usize = 256;

/// The lives that this node, as the leader, is ending: their membership may have ended while their nodes' rows still name
/// them. They must not be made members again meanwhile. Beside them, the lives that it gave, which nobody had before. Clones
/// share the lists.
#[derive(Clone, Default)]
pub struct Leaving(Arc<Mutex<Lives>>);

#[derive(Default)]
struct Lives {
    ending: Vec<RaftId>,
    /// Each with the term in which it was given, the last one at the end.
    given: VecDeque<(RaftId, u64)>,
}

impl Leaving {
    /// Counts the life as being ended until the returned value is dropped.
    #[must_use]
    pub fn hold(&self, life: RaftId) -> LeavingHold {
        let mut lives = self.lives();
        lives.ending.push(life);
        // If its end is called off it is made a member again, and may have voted before.
        lives.given.retain(|(given, _)| *given != life);
        drop(lives);
        LeavingHold { leaving: self.clone(), life }
    }

    /// Returns true if the life is being ended.
    #[must_use]
    pub fn contains(&self, life: RaftId) -> bool {
        self.lives().ending.contains(&life)
    }

    /// Notes that this node gave the life to its node as the leader of `term`, in which it had none before.
    pub fn give(&self, life: RaftId, term: u64) {
        let mut lives = self.lives();
        lives.given.retain(|(given, of)| *of == term && *given != life);
        if lives.given.len() == NEW {
            lives.given.pop_front();
        }
        lives.given.push_back((life, term));
    }

    /// Returns true if this node gave the life as the leader of `term`, and did not begin to end it: then all that it ever
    /// acknowledged, it acknowledged to this leader.
    #[must_use]
    pub fn has_given(&self, life: RaftId, term: u64) -> bool {
        self.lives().given.contains(&(life, term))
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
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
        if let Some(position) = lives.ending.iter().position(|life| *life == self.life) {
            lives.ending.swap_remove(position);
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

    #[test]
    fn a_life_is_new_for_the_leader_that_gave_it_until_it_begins_to_end_it() {
        let life = |id| RaftId::new(id).unwrap();
        let leaving = Leaving::default();
        assert!(!leaving.has_given(life(2), 5));
        leaving.give(life(2), 5);
        leaving.give(life(3), 5);
        assert!(leaving.has_given(life(2), 5) && !leaving.has_given(life(2), 6));
        drop(leaving.hold(life(2)));
        assert!(!leaving.has_given(life(2), 5), "it was called off, and it may have voted");
        leaving.give(life(4), 7);
        assert!(!leaving.has_given(life(3), 5), "of an earlier term");
        for id in 10..=10 + NEW as u64 {
            leaving.give(life(id), 7);
        }
        assert!(!leaving.has_given(life(10), 7) && leaving.has_given(life(11), 7));
    }
}
