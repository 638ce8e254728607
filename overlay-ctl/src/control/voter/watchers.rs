//! Counts the agents that watch a voter.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The number of agents that watch a voter. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Watchers(Arc<AtomicUsize>);

/// An agent counts as watching while this lives.
pub struct WatcherHold(Watchers);

impl Watchers {
    /// Counts one more agent until the returned value is dropped.
    #[must_use]
    pub fn hold(&self) -> WatcherHold {
        self.0.fetch_add(1, Ordering::Relaxed);
        WatcherHold(self.clone())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for WatcherHold {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_counts_while_it_watches() {
        let watchers = Watchers::default();
        let (first, second) = (watchers.hold(), watchers.clone().hold());
        assert_eq!(watchers.count(), 2);
        drop(first);
        assert_eq!(watchers.count(), 1);
        drop(second);
        assert_eq!(watchers.count(), 0);
    }
}
