//! The real resolvers.

use crate::dataplane::{
    dns::{Counts, Fate, Resolvers},
    kernel::{Names, Resolve, Resolved},
};
use std::sync::Arc;

/// The resolvers in the namespaces of endpoints.
pub struct HostResolve(Resolvers);

impl HostResolve {
    /// These resolvers.
    #[must_use]
    pub fn new(resolvers: Resolvers) -> Self {
        Self(resolvers)
    }

    /// What becomes of the questions that endpoints ask.
    #[must_use]
    pub fn questions(&self) -> Questions {
        Questions(Arc::clone(self.0.counts()))
    }
}

/// What became of the questions that the endpoints of a node asked, since the node started.
#[derive(Clone, Debug)]
pub struct Questions(Arc<Counts>);

impl Questions {
    /// Each fate that a question can have, by its name, and how many questions had it.
    #[must_use]
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        Fate::ALL.iter().map(|fate| (fate.name(), self.0.get(*fate))).collect()
    }
}

impl Resolve for HostResolve {
    async fn resolve(&mut self, names: &Arc<Names>, is_whole: bool) -> Resolved {
        let mut trouble = self.0.answer(Arc::clone(names)).await;
        if is_whole {
            trouble.extend(self.0.write_files().await);
        }
        Resolved { resolvers: self.0.count(), trouble, fallbacks: self.0.fallbacks() }
    }
}
