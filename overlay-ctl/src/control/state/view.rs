//! A node's view of the state: the rows that concern the node, and the deltas that bring a view up to date.

use super::{RowKey, State};
use crate::model::{
    Endpoint, EndpointId, Generation, Network, NetworkId, Node, NodeId, Revision, Version,
};
use imbl::{OrdMap, ordmap::DiffItem};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

/// A row as a delta stream carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    /// A node.
    Node(Arc<Node>),
    /// A network.
    Network(Arc<Network>),
    /// An endpoint.
    Endpoint(Arc<Endpoint>),
}

impl Row {
    /// The key of the row.
    #[must_use]
    pub fn key(&self) -> RowKey {
        match self {
            Self::Node(node) => RowKey::Node(node.id),
            Self::Network(network) => RowKey::Network(network.id),
            Self::Endpoint(endpoint) => RowKey::Endpoint(endpoint.network, endpoint.id),
        }
    }
}

/// The rows that one node needs: all nodes, and all rows of the networks of which it has an endpoint.
///
/// A clone shares its content with the original. A clone, a change, and the search for what differs between
/// two views cost next to nothing, whatever the size of the view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The revision of the state that the view shows.
    pub revision: Revision,
    /// The cluster's version.
    pub version: Version,
    /// The generation of the cluster whose state the view shows.
    pub generation: Generation,
    /// All nodes.
    pub nodes: OrdMap<NodeId, Arc<Node>>,
    /// The networks of which the node has an endpoint.
    pub networks: OrdMap<NetworkId, Arc<Network>>,
    /// Their endpoints.
    pub endpoints: OrdMap<NetworkId, OrdMap<EndpointId, Arc<Endpoint>>>,
}

/// A row that differs between two views.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Changed<'a, T> {
    /// The row in the older view; `None` = the row is new.
    pub old: Option<&'a T>,
    /// The row in the newer view; `None` = the row was removed.
    pub new: Option<&'a T>,
}

/// The difference between two views of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The delta has all rows of the view: rows that are not in it were removed.
    pub complete: bool,
    /// The revision of the view after the delta.
    pub revision: Revision,
    /// The cluster's version.
    pub version: Version,
    /// The cluster's generation.
    pub generation: Generation,
    /// New or changed rows.
    pub upserts: Vec<Row>,
    /// Removed rows. The endpoints of a removed network are removed with it and not named.
    pub removes: Vec<RowKey>,
}

impl View {
    /// The endpoints of all networks of the view.
    pub fn all_endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values().flat_map(OrdMap::values).map(Arc::as_ref)
    }

    /// The endpoints of one network, ordered by id.
    pub fn endpoints_of(&self, network: NetworkId) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.get(&network).into_iter().flat_map(OrdMap::values).map(Arc::as_ref)
    }

    /// The nodes' rows that differ from those of an `older` view.
    pub fn changed_nodes<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = Changed<'a, Node>> {
        older.nodes.diff(&self.nodes).map(changed)
    }

    /// The networks' rows that differ from those of an `older` view.
    pub fn changed_networks<'a>(
        &'a self,
        older: &'a Self,
    ) -> impl Iterator<Item = Changed<'a, Network>> {
        older.networks.diff(&self.networks).map(changed)
    }

    /// The endpoints' rows that differ from those of an `older` view.
    pub fn changed_endpoints<'a>(
        &'a self,
        older: &'a Self,
    ) -> impl Iterator<Item = Changed<'a, Endpoint>> {
        static NONE: LazyLock<OrdMap<EndpointId, Arc<Endpoint>>> = LazyLock::new(OrdMap::new);
        older.endpoints.diff(&self.endpoints).flat_map(|network| {
            let (old, new) = match network {
                DiffItem::Add(_, new) => (&*NONE, new),
                DiffItem::Update { old: (_, old), new: (_, new) } => (old, new),
                DiffItem::Remove(_, old) => (old, &*NONE),
            };
            old.diff(new).map(changed)
        })
    }

    /// Applies a delta: the view then shows the delta's revision.
    pub fn apply(&mut self, delta: Delta) {
        if delta.complete {
            *self = Self::default();
        }
        for key in delta.removes {
            match key {
                RowKey::Node(id) => {
                    self.nodes.remove(&id);
                }
                RowKey::Network(id) => {
                    self.networks.remove(&id);
                    self.endpoints.remove(&id);
                }
                RowKey::Endpoint(network, id) => {
                    if let Some(endpoints) = self.endpoints.get_mut(&network) {
                        endpoints.remove(&id);
                    }
                }
            }
        }
        for row in delta.upserts {
            match row {
                Row::Node(node) => {
                    self.nodes.insert(node.id, node);
                }
                Row::Network(network) => {
                    self.networks.insert(network.id, network);
                }
                Row::Endpoint(endpoint) => {
                    let endpoints = self.endpoints.entry(endpoint.network).or_default();
                    endpoints.insert(endpoint.id, endpoint);
                }
            }
        }
        self.revision = delta.revision;
        self.version = delta.version;
        self.generation = delta.generation;
    }
}

fn changed<'a, K, T>(item: DiffItem<'a, 'a, K, Arc<T>>) -> Changed<'a, T> {
    match item {
        DiffItem::Add(_, new) => Changed { old: None, new: Some(new) },
        DiffItem::Update { old: (_, old), new: (_, new) } => {
            Changed { old: Some(old), new: Some(new) }
        }
        DiffItem::Remove(_, old) => Changed { old: Some(old), new: None },
    }
}

impl State {
    /// The complete view of `node`, as a delta to an empty view.
    #[must_use]
    pub fn view_of(&self, node: NodeId) -> Delta {
        let nodes = self.nodes.values().cloned().map(Row::Node);
        let networks = self.networks_of(node).flat_map(|id| self.network_rows(id));
        Delta {
            complete: true,
            revision: self.revision,
            version: self.version,
            generation: self.generation,
            upserts: nodes.chain(networks).collect(),
            removes: Vec::new(),
        }
    }

    /// The delta for `node`, which has all rows of the networks `held` as of revision `cursor`. It is the complete
    /// view if the change log does not reach back to the cursor.
    #[must_use]
    pub fn delta_for(&self, node: NodeId, cursor: Revision, held: &BTreeSet<NetworkId>) -> Delta {
        let Some(changed) = self.changes.since(cursor).filter(|_| cursor > 0) else {
            return self.view_of(node);
        };
        let joined: BTreeSet<NetworkId> = self.networks_of(node).collect();
        let mut upserts = Vec::new();
        let mut removes: Vec<RowKey> =
            held.difference(&joined).map(|id| RowKey::Network(*id)).collect();
        for id in joined.difference(held) {
            upserts.extend(self.network_rows(*id));
        }
        for key in changed {
            let row = match key {
                RowKey::Node(id) => self.nodes.get(&id).cloned().map(Row::Node),
                RowKey::Network(id) | RowKey::Endpoint(id, _)
                    if !joined.contains(&id) || !held.contains(&id) =>
                {
                    continue;
                }
                RowKey::Network(id) => self.networks.get(&id).cloned().map(Row::Network),
                RowKey::Endpoint(_, id) => self.endpoints.get(&id).cloned().map(Row::Endpoint),
            };
            match row {
                Some(row) => upserts.push(row),
                None => removes.push(key),
            }
        }
        let Self { revision, version, generation, .. } = *self;
        Delta { complete: false, revision, version, generation, upserts, removes }
    }

    fn network_rows(&self, id: NetworkId) -> impl Iterator<Item = Row> {
        let network = self.networks.get(&id).cloned().map(Row::Network);
        let endpoints = self.addresses.get(&id).into_iter().flat_map(OrdMap::values);
        let endpoints = endpoints.filter_map(|id| self.endpoints.get(id));
        network.into_iter().chain(endpoints.cloned().map(Row::Endpoint))
    }
}
