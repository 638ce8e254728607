//! What is known by name: the tables that every resolver of a node answers from.

use std::{net::Ipv4Addr, path::PathBuf};

use imbl::OrdMap;

use crate::model::{Endpoint, NetworkId, NetworkName, Subnet};

/// The names of a node's networks, and which namespace may ask for which.
///
/// Its maps share what they have in common with the names that it was cloned from: one name among a
/// million changes at the price of one.
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
    /// Addresses in it belong to endpoints, or to nobody.
    pub subnet: Subnet,
    /// Names and aliases of endpoints, in lower case, to the addresses of all that hold them, in order.
    pub records: OrdMap<String, Vec<Ipv4Addr>>,
    /// Addresses to the endpoint's own name, as it was written.
    pub pointers: OrdMap<Ipv4Addr, String>,
}

/// A network namespace that a resolver stands in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// The networks that it resolves names of; where two know a bare name, the first one's counts.
    pub networks: Vec<NetworkId>,
    /// Another number says that the namespace at this path was made anew.
    pub incarnation: u32,
}

impl NetworkNames {
    /// None of the network's yet.
    #[must_use]
    pub fn new(name: NetworkName, subnet: Subnet) -> Self {
        Self { name, subnet, records: OrdMap::new(), pointers: OrdMap::new() }
    }

    /// Lets an endpoint be found by its name, its aliases and its address.
    pub fn insert(&mut self, endpoint: &Endpoint) {
        for name in spoken(endpoint) {
            let holders = self.records.entry(name).or_default();
            if let Err(place) = holders.binary_search(&endpoint.address) {
                holders.insert(place, endpoint.address);
            }
        }
        self.pointers.insert(endpoint.address, endpoint.name.to_string());
    }

    /// The reverse of [`NetworkNames::insert`].
    pub fn remove(&mut self, endpoint: &Endpoint) {
        for name in spoken(endpoint) {
            let Some(holders) = self.records.get_mut(&name) else { continue };
            holders.retain(|holder| *holder != endpoint.address);
            if holders.is_empty() {
                self.records.remove(&name);
            }
        }
        self.pointers.remove(&endpoint.address);
    }
}

fn spoken(endpoint: &Endpoint) -> impl Iterator<Item = String> {
    std::iter::once(&endpoint.name).chain(&endpoint.aliases).map(|name| name.folded().into())
}
