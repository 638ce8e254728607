//! Names and addresses of removed endpoints. They are not given out again before the nodes concerned have forgotten them: a
//! node that still reaches the former owner would take the new one for it.

use super::{Noted, Refusal, State};
use crate::model::{Endpoint, EndpointId, EndpointName, Network, NetworkId, NodeId, Revision};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

/// The removed endpoints whose names and addresses are held back. A removal adds one, and a later command about the network
/// releases those that its leader knows to be forgotten. There are no more of them than addresses, since each holds one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Withdrawn {
    rows: OrdMap<(NetworkId, Revision, EndpointId), Arc<Row>>,
    addresses: OrdMap<(NetworkId, Ipv4Addr), Revision>,
    /// As DNS compares them.
    names: OrdMap<(NetworkId, EndpointName), Revision>,
}

/// A removed endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// The revision that removed it.
    revision: Revision,
    id: EndpointId,
    network: NetworkId,
    name: EndpointName,
    /// Its IPv4 address.
    address: Option<Ipv4Addr>,
    /// The node that it was on.
    node: Option<NodeId>,
}

impl Row {
    pub(super) fn new(revision: Revision, endpoint: &Endpoint) -> Self {
        Self {
            revision,
            id: endpoint.id,
            network: endpoint.network,
            name: endpoint.name.clone(),
            address: endpoint.addresses.v4,
            node: endpoint.node(),
        }
    }
}

impl Withdrawn {
    pub(super) fn insert(&mut self, row: impl Into<Arc<Row>>) {
        let row = row.into();
        let Row { revision, id, network, .. } = *row;
        if let Some(address) = row.address {
            self.addresses.insert((network, address), revision);
        }
        self.names.insert((network, row.name.folded()), revision);
        self.rows.insert((network, revision, id), row);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All, by network and revision.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }

    /// Releases what was removed from a network up to this revision.
    pub(super) fn release(&mut self, network: NetworkId, confirmed: Revision) {
        let range = (network, 0, 0)..=(network, confirmed, EndpointId::MAX);
        let released: Vec<Arc<Row>> =
            self.rows.range(range).map(|(_, row)| Arc::clone(row)).collect();
        for row in released {
            self.rows.remove(&(network, row.revision, row.id));
            // Another removal may hold it back by now.
            let address = row.address.map(|address| (network, address));
            if let Some(key) = address.filter(|key| self.addresses.get(key) == Some(&row.revision))
            {
                self.addresses.remove(&key);
            }
            let key = (network, row.name.folded());
            if self.names.get(&key) == Some(&row.revision) {
                self.names.remove(&key);
            }
        }
    }
}

impl Noted {
    /// Whether what was removed at `revision` is held back.
    fn holds_back(&self, revision: Revision) -> bool {
        let is_held = self.confirmed.is_some_and(|confirmed| revision > confirmed);
        is_held && !planted!(ReusedEarly)
    }
}

impl State {
    /// The nodes that must have forgotten the removed endpoints of a network before their names and addresses are given out
    /// again: those that are on it, and those that these endpoints were on.
    #[must_use]
    pub fn to_forget(&self, network: NetworkId) -> BTreeSet<NodeId> {
        let all =
            (network, Revision::MIN, EndpointId::MIN)..=(network, Revision::MAX, EndpointId::MAX);
        let mut rows = self.withdrawn.rows.range(all).peekable();
        if rows.peek().is_none() {
            return BTreeSet::new();
        }
        let owners = rows.filter_map(|(_, row)| row.node);
        let owners = owners.filter(|node| self.nodes.contains_key(node));
        owners.chain(self.nodes_of(network)).collect()
    }

    /// Fails if the name is held back.
    pub(super) fn check_name_forgotten(
        &self,
        network: &Network,
        name: &EndpointName,
        noted: Noted,
    ) -> Result<(), Refusal> {
        match self.withdrawn.names.get(&(network.id, name.folded())) {
            Some(revision) if noted.holds_back(*revision) => Err(Refusal::NotForgotten {
                what: format!("name {name}"),
                network: network.name.clone(),
                revision: *revision,
            }),
            _ => Ok(()),
        }
    }

    /// The revision since which the address is held back.
    pub(super) fn held_back(
        &self,
        network: NetworkId,
        address: Ipv4Addr,
        noted: Noted,
    ) -> Option<Revision> {
        let revision = self.withdrawn.addresses.get(&(network, address))?;
        noted.holds_back(*revision).then_some(*revision)
    }
}
