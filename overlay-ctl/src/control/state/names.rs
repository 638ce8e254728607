//! Names and aliases of an endpoint on its network. A name belongs to one endpoint, an alias to one or more.
//! No word is both, so that a name never resolves to another endpoint's address.

use super::{Refusal, State};
use crate::model::{EndpointName, Network};
use std::collections::BTreeSet;

impl State {
    /// The aliases of a new endpoint of `network`: those that are asked for, each once whatever its
    /// case, without its own name, which resolves anyway.
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
