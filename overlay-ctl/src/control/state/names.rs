//! What an endpoint is called on its network. A name is one endpoint's; an alias may be several's; no
//! word is both, so that a name never answers with another endpoint's address.

use super::{Refusal, State};
use crate::model::{EndpointName, Network};
use std::collections::BTreeSet;

impl State {
    /// The aliases that a new endpoint of `network` gets: those it asks for, each once whatever its
    /// case, and without its own name, which it answers to anyway.
    pub(super) fn check_names(
        &self,
        network: &Network,
        name: &EndpointName,
        aliases: BTreeSet<EndpointName>,
    ) -> Result<BTreeSet<EndpointName>, Refusal> {
        if self.endpoint_names.contains_key(&(network.id, name.clone())) {
            return Err(Refusal::EndpointExists(name.clone()));
        }
        if let Some(other) = self.with_alias(network.id, name) {
            return Err(Refusal::NameIsAlias {
                name: name.clone(),
                endpoint: other.name.clone(),
                network: network.name.clone(),
            });
        }
        let mut seen = BTreeSet::from([name.folded()]);
        let mut kept = BTreeSet::new();
        for alias in aliases {
            if !seen.insert(alias.folded()) {
                continue;
            }
            if let Some(other) = self.named(network.id, &alias) {
                return Err(Refusal::AliasIsName {
                    alias,
                    endpoint: other.name.clone(),
                    network: network.name.clone(),
                });
            }
            kept.insert(alias);
        }
        Ok(kept)
    }
}
