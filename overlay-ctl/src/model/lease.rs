//! What the cluster knows of a node's life.

use serde::{Deserialize, Serialize};

/// Whether a node counts as alive. The leader notes each change in the log.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Lease {
    /// The node is alive, as far as the cluster knows.
    #[default]
    Held,
    /// No controller has heard of it for a while. Its endpoints stay reachable: the nodes that share a network with it ask
    /// its data path whether it is alive.
    Doubted,
    /// Neither a controller nor another node has heard of it during its whole lease. Nothing is sent to its endpoints, and
    /// their names do not resolve; names and addresses stay theirs.
    Lost,
}

impl Lease {
    /// Returns true if nothing is known against the node.
    #[must_use]
    pub fn is_held(&self) -> bool {
        *self == Self::Held
    }
}
