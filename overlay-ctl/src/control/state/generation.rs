//! The state with which a generation of the cluster begins, after a restore or a forced recovery.

use super::{ChangeLog, State};
use crate::model::{Generation, Node, NodeId, RaftId, Revision, Version};
use std::sync::Arc;

/// How many revisions a new generation skips. What was lost may have used the revisions after those of the state that is
/// known, and networks and endpoints have them as ids: at 1,000 writes a second this many last 34 years.
const REVISIONS: Revision = 1 << 40;
/// How many ids of nodes, and as many Raft ids, it skips.
const NODES: NodeId = 1 << 20;
/// How many ids of gateway legs it skips. They are few: the numbers from 16,777,218 on are those of older legs.
const LEGS: u64 = 1 << 16;

impl State {
    /// The cluster's generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The state with which the next generation begins on the node `voter`, which was restored from a backup.
    #[must_use]
    pub fn restored(self, voter: NodeId, generation: Generation) -> Self {
        self.next_generation(voter, generation).with_new_lives(|_| true)
    }

    /// The state with which the next generation begins on the node `voter`, which goes on with its own log.
    #[must_use]
    pub fn recovered(self, voter: NodeId, generation: Generation) -> Self {
        self.next_generation(voter, generation).with_new_lives(|id| id != voter)
    }

    /// Of the nodes, `voter` has the only vote at first; which others are to be voters stays as it was, but they are no more
    /// than are wished for.
    ///
    /// What was lost with the former generation may have given out revisions and ids that this state does not know. They are
    /// skipped, so that none is used twice. The cluster is at version 2 at least, which is the first that has generations.
    ///
    /// Two generations that begin from the same one have numbers of their own, which are seconds, and so have what each gives
    /// out: 65,536 revisions a second, and 1,024 ids of nodes. Endpoints have revisions as ids, which have to fit into the names
    /// of their devices, 48 bits: seconds that fit into 32 bits do, until 2106.
    fn next_generation(mut self, voter: NodeId, generation: Generation) -> Self {
        let number = generation.number();
        let skip = |last: u64, by: u64, shift: u32| last.saturating_add(by).max(number << shift);
        let of_lives = self.last_raft_id.or(RaftId::new(self.last_node_id));
        self.last_raft_id = RaftId::new(skip(of_lives.map_or(0, RaftId::get), NODES, 10));
        self.generation = generation;
        self.version = self.version.max(Version::V2);
        self.dedup = std::mem::take(&mut self.dedup).at(self.version);
        self.revision = skip(self.revision, REVISIONS, 16);
        self.last_node_id = skip(self.last_node_id, NODES, 10);
        self.last_leg_id = self.last_leg_id.after(LEGS);
        self.changes = ChangeLog::starting_after(self.revision);
        self.change(voter, |node| (node.voter, node.demoted) = (true, false));
        let others = self.nodes().filter(|node| node.voter && node.id != voter);
        let excess: Vec<NodeId> =
            others.map(|node| node.id).skip(self.voters.count() - 1).collect();
        for id in excess {
            self.change(id, |node| (node.voter, node.raft_id) = (false, None));
        }
        self
    }

    /// Gives those of the nodes that are to hold the log other Raft ids: what log they have is of no use any more.
    fn with_new_lives(mut self, of: impl Fn(NodeId) -> bool) -> Self {
        let holds = self.nodes().filter(|node| node.voter && of(node.id));
        let ended: Vec<NodeId> = holds.map(|node| node.id).collect();
        for id in ended {
            let life = Some(RaftId::after(self.last_raft_id));
            self.change(id, |node| node.raft_id = life);
            self.last_raft_id = life;
        }
        self
    }

    fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(&id) {
            change(Arc::make_mut(node));
        }
    }
}
