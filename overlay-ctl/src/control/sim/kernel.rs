//! What a node's kernel holds, and what is known of all of them.

use super::truth::Truth;
use crate::{control::state::View, model::NodeId};

/// A kernel, as far as a view tells what it forwards. It outlives the node's process, and not the machine's power.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) held: View,
    /// The least revision of a view that it may be made; `None` = not known yet.
    pub(super) gate: Option<u64>,
}

impl Kernel {
    /// Whether nothing is lost by whatever comes.
    pub(super) fn is_empty(&self) -> bool {
        self.held.all_endpoints().next().is_none()
    }

    /// The newest endpoint in it, whose id is the revision that made it.
    pub(super) fn newest(&self) -> u64 {
        self.held.all_endpoints().map(|endpoint| endpoint.id).max().unwrap_or(0)
    }

    /// Makes it that of a view.
    pub(super) fn program(&mut self, node: NodeId, view: View, truth: &Truth) {
        truth.is_programmed(node, &self.held, &view);
        self.held = view;
    }

    /// Nothing is left of it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
