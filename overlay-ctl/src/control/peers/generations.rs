//! The generation of this node, and the newest one that another node of the cluster said it is of.
//!
//! A restore, or a forced recovery, begins a generation. The log of an earlier one is no part of it: its voter ends and comes
//! back without it. An agent has no log. It goes on into the newer generation as soon as that has taken its registration.

use crate::model::Generation;
use std::{cmp::Ordering, net::SocketAddr};
use tokio::sync::watch;

/// A node of a newer generation, as this node met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newer {
    /// Its generation.
    pub generation: Generation,
    /// Where it answers, or where its call came from; `None` = that is not known.
    pub at: Option<SocketAddr>,
}

/// The generation that each of this node's calls and answers names. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Generations {
    ours: watch::Sender<Generation>,
    newer: watch::Sender<Option<Newer>>,
}

impl Generations {
    /// Of a node of generation `ours`.
    #[must_use]
    pub fn new(ours: Generation) -> Self {
        Self { ours: watch::Sender::new(ours), newer: watch::Sender::default() }
    }

    /// This node's generation.
    #[must_use]
    pub fn ours(&self) -> Generation {
        *self.ours.borrow()
    }

    /// Changes when this node goes on into a newer generation.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Generation> {
        self.ours.subscribe()
    }

    /// Whether a node of a newer generation was met.
    #[cfg(test)]
    pub(in crate::control) fn met_newer(&self) -> bool {
        self.newer.borrow().is_some()
    }

    /// Goes on into `generation`, if that is newer than this node's. Returns true if it is.
    #[cfg(test)]
    pub fn adopt(&self, generation: Generation) -> bool {
        self.adopt_unless(generation, || false)
    }

    /// The same, unless the node has a log: that is asked at the moment of the change. Who begins a log of a generation, and
    /// reads [`Self::ours`] afterwards, so either finds the newer one there or keeps its own.
    pub fn adopt_unless(&self, generation: Generation, has_log: impl Fn() -> bool) -> bool {
        let is_newer = |ours: &mut Generation| {
            let is_newer = generation > *ours && !has_log();
            if is_newer {
                *ours = generation;
            }
            is_newer
        };
        let adopted = self.ours.send_if_modified(is_newer);
        let ours = self.ours();
        self.newer
            .send_if_modified(|newer| newer.take_if(|newer| newer.generation <= ours).is_some());
        adopted
    }

    /// Compares the generation of another node with this node's, and remembers it if it is the newest so far.
    pub(in crate::control) fn compare(
        &self,
        theirs: Generation,
        at: Option<SocketAddr>,
    ) -> Ordering {
        let ordering = theirs.cmp(&self.ours());
        if ordering == Ordering::Greater {
            self.newer.send_if_modified(|newer| {
                let is_news = newer.is_none_or(|newer| newer.generation < theirs);
                if is_news {
                    *newer = Some(Newer { generation: theirs, at });
                }
                is_news
            });
        }
        ordering
    }

    /// Waits until a node of a newer generation was met. Cancel safe.
    pub async fn newer(&self) -> Newer {
        let mut newer = self.newer.subscribe();
        let met = newer.wait_for(Option::is_some).await.map(|newer| *newer);
        match met {
            Ok(Some(newer)) => newer,
            // The sender is this value's own.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn generation(number: u64) -> Generation {
        Generation::from_wire(number)
    }

    #[tokio::test]
    async fn the_newest_generation_that_was_met_is_remembered_until_this_node_is_of_it() {
        let generations = Generations::new(generation(2));
        let at = Some(([10, 0, 0, 1], 7400).into());
        assert_eq!(generations.compare(generation(1), at), Ordering::Less);
        assert_eq!(generations.compare(generation(2), at), Ordering::Equal);
        assert_eq!(generations.newer().now_or_never(), None);
        assert_eq!(generations.compare(generation(4), at), Ordering::Greater);
        assert_eq!(generations.compare(generation(3), None), Ordering::Greater);
        let newer = Newer { generation: generation(4), at };
        assert_eq!(generations.newer().now_or_never(), Some(newer));
        assert!(generations.adopt(generation(3)), "one step towards it");
        assert_eq!(generations.newer().now_or_never(), Some(newer));
        assert!(generations.adopt(generation(4)));
        assert_eq!(generations.newer().now_or_never(), None);
        assert!(!generations.adopt(generation(2)), "never back");
        assert_eq!(generations.ours(), generation(4));
    }
}
