//! How the voters are: what this node says of itself, what each other one says that it asks directly, and what to make of it.

mod ask;
mod facts;
mod faults;
mod notes;
mod own;
mod states;
#[cfg(test)]
mod tests;
mod verdict;

use crate::{
    faces::{NoAnswer, ServedNode},
    proto::v1::{MembersResponse, Seat},
};
use ask::Survey;
use std::sync::Arc;

impl ServedNode {
    /// How the voters are, by what they say when they are asked; with `stale`, by what this node knows itself. However many ask,
    /// the others are asked once a second at most.
    pub(super) async fn members(
        self: &Arc<Self>,
        stale: bool,
    ) -> Result<MembersResponse, NoAnswer> {
        if stale {
            return Ok(verdict::judge(&Survey::take(self, true).await));
        }
        let survey = || {
            let node = Arc::clone(self);
            async move { verdict::judge(&Survey::take(&node, false).await) }
        };
        self.surveys.get(survey).await
    }

    /// The nodes that have a seat, as this node's view says.
    fn seats(&self) -> Vec<Seat> {
        let view = self.view.borrow().clone();
        let nodes = view.iter().flat_map(|view| view.nodes.values());
        nodes.filter_map(|node| own::seat(node)).collect()
    }
}
