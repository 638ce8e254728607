//! The nodes that are being removed from the cluster.

use crate::model::NodeId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The nodes that this node, as the leader, is removing: their membership may have ended while their rows still stand.
/// They must not be made members again meanwhile. Clones share the list.
#[derive(Clone, Default)]
pub struct Leaving(Arc<Mutex<Vec<NodeId>>>);

impl Leaving {
    /// Counts the node as leaving until the returned value is dropped.
    #[must_use]
    pub fn hold(&self, node: NodeId) -> LeavingHold {
        self.nodes().push(node);
        LeavingHold { leaving: self.clone(), node }
    }

    /// Returns true if the node is being removed.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes().contains(&node)
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<NodeId>> {
        // A list of ids is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node counts as leaving while this lives.
pub struct LeavingHold {
    leaving: Leaving,
    node: NodeId,
}

impl Drop for LeavingHold {
    fn drop(&mut self) {
        let mut nodes = self.leaving.nodes();
        if let Some(position) = nodes.iter().position(|node| *node == self.node) {
            nodes.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_leaves_until_the_last_hold_is_dropped() {
        let leaving = Leaving::default();
        let first = leaving.hold(2);
        let second = leaving.clone().hold(2);
        assert!(leaving.contains(2) && !leaving.contains(3));
        drop(first);
        assert!(leaving.contains(2));
        drop(second);
        assert!(!leaving.contains(2));
    }
}
