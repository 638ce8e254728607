//! Whose rows an agent's view is made of, and when it is to be sent anew as a whole.
//!
//! A voter whose state was found to be another one than that of a majority begins another life (`voter/divergence.rs`). What it
//! sent before may be wrong, and the changes since, which another voter sends, would leave it as it is. So the end of the life
//! of any voter that sent a part of the view makes the agent ask for all of it; most lives end for other reasons, and seldom.

use crate::{
    control::state::View,
    model::{Generation, NodeId, RaftId, Revision},
    proto::internal::WatchDown,
};
use std::collections::BTreeMap;
use tonic::Status;

/// The voters that sent an agent's view.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Those that have sent rows since the view was whole last, each with its life at that time, as the rows have it.
    lives: BTreeMap<NodeId, Option<RaftId>>,
    /// The view is to be sent as a whole.
    afresh: bool,
}

impl Sources {
    /// Those of a node that begins to follow. What it holds already is of its own log, as a voter that it was: nobody compares
    /// that with the others' any more.
    pub(super) fn of(held: Option<&View>) -> Self {
        Self { lives: BTreeMap::new(), afresh: held.is_some() }
    }

    /// The revision from which the agent is to be sent changes; 0 = all.
    pub(super) fn cursor(&self, held: &View) -> Revision {
        if self.afresh { 0 } else { held.revision }
    }

    /// Fails if what was sent, since all was asked for, is older than what is `held`: the agent would forget what it rightly
    /// holds.
    ///
    /// # Errors
    /// Another voter is to be asked.
    pub(super) fn check(&self, down: &WatchDown, held: &View) -> Result<(), Status> {
        let is_ours = Generation::from_wire(down.generation) == held.generation;
        if self.afresh && is_ours && down.revision < held.revision {
            return Err(Status::unavailable("this voter is behind what the node holds"));
        }
        Ok(())
    }

    /// Notes that `voter` sent rows, all of them if they are `complete`, which led to the view `now`.
    ///
    /// # Errors
    /// The life of a voter that sent a part of it is over: all of it is to be sent anew.
    pub(super) fn note(&mut self, voter: NodeId, complete: bool, now: &View) -> Result<(), Status> {
        if complete {
            *self = Self::default();
        }
        let life = |node: NodeId| now.nodes.get(&node).and_then(|node| node.life());
        self.lives.entry(voter).or_insert_with(|| life(voter));
        let Some((over, _)) = self.lives.iter().find(|(node, was)| life(**node) != **was) else {
            return Ok(());
        };
        self.afresh = true;
        Err(Status::aborted(format!(
            "the life of node {over} as a voter is over, and a part of what this node holds is of it: all is asked for anew"
        )))
    }
}
