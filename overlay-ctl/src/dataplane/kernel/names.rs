//! The names from which every resolver of a node answers.

use std::{net::Ipv4Addr, path::PathBuf};

use imbl::OrdMap;

use super::NetnsId;
use crate::model::{Endpoint, NetworkId, NetworkName, Subnet};

/// The names of a node's networks, and which namespace may ask for which.
///
/// A clone shares with its original what they have in common, so that changing one name among a million costs as much
/// as one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The networks that the node has endpoints on.
    pub networks: OrdMap<NetworkId, NetworkNames>,
    /// The namespaces of the node's own endpoints, by absolute path; each gets a resolver.
    pub namespaces: OrdMap<PathBuf, Namespace>,
}

/// The names of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkNames {
    /// Its name, as it is appended to an endpoint's.
    pub name: NetworkName,
    /// Its subnet: an address in it belongs to an endpoint, or to nobody.
    pub subnet: Subnet,
    /// From the names and aliases of endpoints, in lower case, to the IPv4 addresses of all endpoints that have them, in
    /// order.
    pub records: OrdMap<String, Vec<Ipv4Addr>>,
    /// From an IPv4 address to its endpoint's own name, as the user wrote it.
    pub pointers: OrdMap<Ipv4Addr, String>,
}

/// A network namespace with a resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// The networks whose names resolve there. Where two of them know a bare name, the first network counts.
    pub networks: Vec<NetworkId>,
    /// The kernel's number for the namespace, which is another one when the namespace at this path was made anew: as long
    /// as the resolver's sockets are in the old one, its number is not given out again.
    pub netns: Option<NetnsId>,
    /// An endpoint in it is on a network that leads outside. In all other namespaces a question that only the host's
    /// resolvers could answer is refused, because a question can carry any data out.
    pub has_outside: bool,
}

impl NetworkNames {
    /// A network without names yet.
    #[must_use]
    pub fn new(name: NetworkName, subnet: Subnet) -> Self {
        Self { name, subnet, records: OrdMap::new(), pointers: OrdMap::new() }
    }

    /// Adds an endpoint's name, its aliases and its address.
    pub fn insert(&mut self, endpoint: &Endpoint) {
        let Some(address) = endpoint.addresses.v4 else { return };
        for name in spoken(endpoint) {
            let holders = self.records.entry(name).or_default();
            if let Err(place) = holders.binary_search(&address) {
                holders.insert(place, address);
            }
        }
        self.pointers.insert(address, endpoint.name.to_string());
    }

    /// The reverse of [`NetworkNames::insert`].
    pub fn remove(&mut self, endpoint: &Endpoint) {
        let Some(address) = endpoint.addresses.v4 else { return };
        for name in spoken(endpoint) {
            let Some(holders) = self.records.get_mut(&name) else { continue };
            holders.retain(|holder| *holder != address);
            if holders.is_empty() {
                self.records.remove(&name);
            }
        }
        self.pointers.remove(&address);
    }
}

fn spoken(endpoint: &Endpoint) -> impl Iterator<Item = String> {
    std::iter::once(&endpoint.name).chain(&endpoint.aliases).map(|name| name.folded().into())
}
