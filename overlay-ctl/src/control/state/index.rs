//! The rows and the indexes over them: changed here and nowhere else, so that a row is never without
//! its indexes.

use super::State;
use crate::model::{
    Endpoint, EndpointId, EndpointName, Location, Network, NetworkId, Node, NodeId, Transport,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    num::NonZeroU16,
    path::{Path, PathBuf},
};

/// Endpoints by a key that several may have.
pub(super) type Shared<K> = BTreeMap<K, BTreeSet<EndpointId>>;
/// A port of a node.
pub(super) type HostPort = (NodeId, Transport, NonZeroU16);

impl State {
    /// Inserts the row and its indexes: the one place that a snapshot's rows pass too.
    pub(super) fn insert_network(&mut self, network: Network) {
        self.network_names.insert(network.name.clone(), network.id);
        self.addresses.entry(network.id).or_default();
        self.networks.insert(network.id, network);
    }

    /// Inserts the row and its indexes: the one place that a snapshot's rows pass too.
    pub(super) fn insert_node(&mut self, node: Node) {
        self.node_names.insert(node.name.clone(), node.id);
        self.nodes.insert(node.id, node);
    }

    /// Inserts the row and its indexes: the one place that a snapshot's rows pass too.
    pub(super) fn insert_endpoint(&mut self, endpoint: Endpoint) {
        let Endpoint {
            id, name, network, location, address, mac, aliases, published, gateway, ..
        } = &endpoint;
        self.endpoint_names.insert((*network, name.clone()), *id);
        self.folded_names.entry((*network, name.folded())).or_default().insert(*id);
        for alias in aliases {
            self.aliases.entry((*network, alias.folded())).or_default().insert(*id);
        }
        self.addresses.entry(*network).or_default().insert(*address, *id);
        self.macs.insert((*network, *mac), *id);
        if let Location::Node { node, netns } = location {
            self.placements.entry((*node, *network)).or_default().insert(*id);
            self.namespaces.entry((*node, netns.clone())).or_default().insert(*id);
            if let Some(leg) = gateway {
                self.legs.entry(*node).or_default().entry(*leg).or_default().insert(*id);
            }
            for port in published {
                let key = (*node, port.port.transport, port.host_port);
                self.published.entry(key).or_default().insert(port.host, *id);
            }
        }
        self.endpoints.insert(*id, endpoint);
    }

    /// The reverse of [`State::insert_endpoint`].
    pub(super) fn forget_endpoint(&mut self, endpoint: &Endpoint) {
        let Endpoint {
            id, name, network, location, address, mac, aliases, published, gateway, ..
        } = endpoint;
        self.endpoints.remove(id);
        self.endpoint_names.remove(&(*network, name.clone()));
        take(&mut self.folded_names, &(*network, name.folded()), *id);
        for alias in aliases {
            take(&mut self.aliases, &(*network, alias.folded()), *id);
        }
        self.macs.remove(&(*network, *mac));
        if let Some(addresses) = self.addresses.get_mut(network) {
            addresses.remove(address);
        }
        if let Location::Node { node, netns } = location {
            take(&mut self.placements, &(*node, *network), *id);
            take(&mut self.namespaces, &(*node, netns.clone()), *id);
            if let Some(leg) = gateway
                && let Some(legs) = self.legs.get_mut(node)
            {
                take(legs, leg, *id);
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

    /// The network that the endpoint is on.
    pub(super) fn network_of(&self, endpoint: &Endpoint) -> &Network {
        self.networks.get(&endpoint.network).unwrap_or_else(|| {
            unreachable!("network {} is removed before its endpoints", endpoint.network)
        })
    }

    /// The endpoints in one namespace of a node, by id.
    pub(super) fn endpoints_in(
        &self,
        node: NodeId,
        netns: &Path,
    ) -> impl Iterator<Item = &Endpoint> {
        self.rows(self.namespaces.get(&(node, PathBuf::from(netns))))
    }

    /// The endpoint of a network whose name is `name` where names resolve.
    pub(super) fn named(&self, network: NetworkId, name: &EndpointName) -> Option<&Endpoint> {
        self.rows(self.folded_names.get(&(network, name.folded()))).next()
    }

    /// An endpoint of a network that answers to `alias` besides its name.
    pub(super) fn with_alias(&self, network: NetworkId, alias: &EndpointName) -> Option<&Endpoint> {
        self.rows(self.aliases.get(&(network, alias.folded()))).next()
    }

    /// The endpoint that already has packets to this port of a node: one published on all its
    /// addresses has those to each.
    pub(super) fn publisher(&self, port: HostPort, host: Ipv4Addr) -> Option<&Endpoint> {
        let hosts = self.published.get(&port)?;
        self.endpoints.get(taken_by(hosts, host)?)
    }

    fn rows<'a>(
        &'a self,
        ids: Option<&'a BTreeSet<EndpointId>>,
    ) -> impl Iterator<Item = &'a Endpoint> {
        ids.into_iter().flatten().filter_map(|id| self.endpoints.get(id))
    }
}

/// What of one host port's publications gets packets that one on `host` would get, as
/// [`Published::conflicts`](crate::model::Published::conflicts) has it.
pub(super) fn taken_by<V>(hosts: &BTreeMap<Ipv4Addr, V>, host: Ipv4Addr) -> Option<&V> {
    if host.is_unspecified() {
        return hosts.values().next();
    }
    hosts.get(&host).or_else(|| hosts.get(&Ipv4Addr::UNSPECIFIED))
}

fn take<K: Ord>(index: &mut Shared<K>, key: &K, id: EndpointId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
