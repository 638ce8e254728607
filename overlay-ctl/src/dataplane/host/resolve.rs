//! The real resolvers.

use crate::dataplane::{
    dns::Resolvers,
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
}

impl Resolve for HostResolve {
    async fn resolve(&mut self, names: &Arc<Names>, is_whole: bool) -> Resolved {
        let mut trouble = self.0.answer(Arc::clone(names)).await;
        if is_whole {
            trouble.extend(self.0.write_files().await);
        }
        Resolved { resolvers: self.0.count(), trouble }
    }
}
