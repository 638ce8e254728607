//! The rows and the indexes over them. They are changed in this file only, so that no row is ever without
//! its indexes.

use super::State;
use crate::model::{
    Endpoint, EndpointId, EndpointName, Location, Network, NetworkId, Node, NodeId, Transport, Vtep,
};
use imbl::{OrdMap, OrdSet};
use std::{net::Ipv4Addr, num::NonZeroU16, path::Path, sync::Arc};

/// An index of endpoints by a key that several endpoints may share.
pub(super) type Shared<K> = OrdMap<K, OrdSet<EndpointId>>;
/// The key of a published port: node, protocol, port.
pub(super) type HostPort = (NodeId, Transport, NonZeroU16);

impl State {
    /// Inserts a network and its index entries. Commands and snapshots both use this function.
    pub(super) fn insert_network(&mut self, network: impl Into<Arc<Network>>) {
        let network = network.into();
        self.network_names.insert(network.name.clone(), network.id);
        self.addresses.entry(network.id).or_default();
        self.networks.insert(network.id, network);
    }

    /// Inserts a node and its index entries. Commands and snapshots both use this function.
    pub(super) fn insert_node(&mut self, node: impl Into<Arc<Node>>) {
        let node = node.into();
        debug_assert!(
            node.needs() <= self.version,
            "nothing newer than the cluster's version is written"
        );
        self.node_names.insert(node.name.clone(), node.id);
        self.nodes.insert(node.id, node);
    }

    /// Inserts an endpoint and its index entries. Commands and snapshots both use this function.
    pub(super) fn insert_endpoint(&mut self, endpoint: impl Into<Arc<Endpoint>>) {
        let endpoint = endpoint.into();
        debug_assert!(
            endpoint.needs() <= self.version,
            "nothing newer than the cluster's version is written"
        );
        let Endpoint {
            id, name, network, location, addresses, mac, aliases, published, leg, ..
        } = &*endpoint;
        self.endpoint_names.insert((*network, name.clone()), *id);
        self.folded_names.entry((*network, name.folded())).or_default().insert(*id);
        for alias in aliases {
            self.aliases.entry((*network, alias.folded())).or_default().insert(*id);
        }
        if let Some(address) = addresses.v4 {
            self.addresses.entry(*network).or_default().insert(address, *id);
        }
        self.macs.insert((*network, *mac), *id);
        match location {
            Location::External { vtep } => {
                self.externals.entry(*vtep).or_default().insert(*id);
            }
            Location::Node { node, netns } => {
                self.placements.entry((*node, *network)).or_default().insert(*id);
                self.namespaces.entry(namespace(*node, netns)).or_default().insert(*id);
                if let Some(address) = leg.and_then(|leg| leg.addresses.v4) {
                    self.legs.entry(*node).or_default().entry(address).or_default().insert(*id);
                }
                for port in published {
                    let key = (*node, port.port.transport, port.host_port);
                    self.published.entry(key).or_default().insert(port.host, *id);
                }
            }
        }
        self.endpoints.insert(*id, endpoint);
    }

    /// Removes an endpoint and its index entries; the reverse of [`State::insert_endpoint`].
    pub(super) fn forget_endpoint(&mut self, endpoint: &Endpoint) {
        let Endpoint {
            id, name, network, location, addresses, mac, aliases, published, leg, ..
        } = endpoint;
        self.endpoints.remove(id);
        self.endpoint_names.remove(&(*network, name.clone()));
        take(&mut self.folded_names, &(*network, name.folded()), *id);
        for alias in aliases {
            take(&mut self.aliases, &(*network, alias.folded()), *id);
        }
        self.macs.remove(&(*network, *mac));
        if let (Some(address), Some(holders)) = (addresses.v4, self.addresses.get_mut(network)) {
            holders.remove(&address);
        }
        match location {
            Location::External { vtep } => take(&mut self.externals, vtep, *id),
            Location::Node { node, netns } => {
                take(&mut self.placements, &(*node, *network), *id);
                take(&mut self.namespaces, &namespace(*node, netns), *id);
                if let Some(address) = leg.and_then(|leg| leg.addresses.v4)
                    && let Some(legs) = self.legs.get_mut(node)
                {
                    take(legs, &address, *id);
                    if legs.is_empty() {
                        self.legs.remove(node);
                    }
                }
                for port in published {
                    let key = (*node, port.port.transport, port.host_port);
                    if let Some(hosts) = self.published.get_mut(&key) {
                        hosts.remove(&port.host);
                        if hosts.is_empty() {
                            self.published.remove(&key);
                        }
                    }
                }
            }
        }
    }

    /// The network that the endpoint is on.
    pub(super) fn network_of(&self, endpoint: &Endpoint) -> &Network {
        self.network(endpoint.network).unwrap_or_else(|| {
            unreachable!("network {} is removed before its endpoints", endpoint.network)
        })
    }

    /// The endpoints in one namespace of a node, ordered by id.
    pub(super) fn endpoints_in(
        &self,
        node: NodeId,
        netns: &Path,
    ) -> impl Iterator<Item = &Endpoint> {
        self.rows(self.namespaces.get(&namespace(node, netns)))
    }

    /// The endpoint of a network that has `name`, whatever the case of its letters, as in DNS.
    pub(super) fn named(&self, network: NetworkId, name: &EndpointName) -> Option<&Endpoint> {
        self.rows(self.folded_names.get(&(network, name.folded()))).next()
    }

    /// An endpoint of a network that has `alias` as an alias.
    pub(super) fn with_alias(&self, network: NetworkId, alias: &EndpointName) -> Option<&Endpoint> {
        self.rows(self.aliases.get(&(network, alias.folded()))).next()
    }

    /// An external endpoint behind this VTEP.
    pub(super) fn external_at(&self, vtep: Vtep) -> Option<&Endpoint> {
        self.rows(self.externals.get(&vtep)).next()
    }

    /// The endpoint to which packets to this port of a node go already. A port that is published on all
    /// addresses gets the packets to each of them.
    pub(super) fn publisher(&self, port: HostPort, host: Ipv4Addr) -> Option<&Endpoint> {
        let hosts = self.published.get(&port)?;
        self.endpoint(*taken_by(hosts, host)?)
    }

    fn rows<'a>(
        &'a self,
        ids: Option<&'a OrdSet<EndpointId>>,
    ) -> impl Iterator<Item = &'a Endpoint> {
        ids.into_iter().flatten().filter_map(|id| self.endpoint(*id))
    }
}

/// Of the publications of one host port, the endpoint that conflicts with a publication on `host`, as
/// [`Published::conflicts`](crate::model::Published::conflicts) defines it.
pub(super) fn taken_by<V: Clone>(hosts: &OrdMap<Ipv4Addr, V>, host: Ipv4Addr) -> Option<&V> {
    if host.is_unspecified() {
        return hosts.values().next();
    }
    hosts.get(&host).or_else(|| hosts.get(&Ipv4Addr::UNSPECIFIED))
}

/// The key of a namespace: a shared path, because a copy of an index copies some of its keys.
fn namespace(node: NodeId, netns: &Path) -> (NodeId, Arc<Path>) {
    (node, Arc::from(netns))
}

fn take<K: Ord + Clone>(index: &mut Shared<K>, key: &K, id: EndpointId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
