//! The state with which a generation of the cluster begins, after a restore or a forced recovery.

use super::{ChangeLog, State, VOTERS_MAX};
use crate::model::{Generation, Node, NodeId, Revision, Version};
use std::sync::Arc;

/// How many revisions a new generation skips. What was lost may have used the revisions after those of the state that is
/// known, and networks and endpoints have them as ids: at 1,000 writes a second this many last 34 years.
const REVISIONS: Revision = 1 << 40;
/// How many ids of nodes it skips.
const NODES: NodeId = 1 << 20;
/// How many ids of gateway legs it skips. They are few: the numbers from 16,777,218 on are those of older legs.
const LEGS: u64 = 1 << 16;

impl State {
    /// The cluster's generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The state with which the next generation begins. Of its nodes, `voter` has the only vote at first; which others are to
    /// be voters stays as it was, but they are no more than there can be.
    ///
    /// What was lost with the former generation may have given out revisions and ids that this state does not know. They are
    /// skipped, so that none is used twice. The cluster is at version 2 at least, which is the first that has generations.
    #[must_use]
    pub fn next_generation(mut self, voter: NodeId) -> Self {
        self.generation = self.generation.next();
        self.version = self.version.max(Version::V2);
        self.revision = self.revision.saturating_add(REVISIONS);
        self.last_node_id = self.last_node_id.saturating_add(NODES);
        self.last_leg_id = self.last_leg_id.after(LEGS);
        self.changes = ChangeLog::starting_after(self.revision);
        self.set_voter(voter, true);
        let others = self.nodes().filter(|node| node.voter && node.id != voter);
        let excess: Vec<NodeId> = others.map(|node| node.id).skip(VOTERS_MAX - 1).collect();
        excess.into_iter().for_each(|id| self.set_voter(id, false));
        self
    }

    fn set_voter(&mut self, id: NodeId, voter: bool) {
        if let Some(node) = self.nodes.get_mut(&id) {
            *node = Arc::new(Node { voter, ..Node::clone(node) });
        }
    }
}
