//! What is known by name: the tables that every resolver of a node answers from.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

use crate::model::{NetworkId, NetworkName, Subnet};

/// The names of a node's networks, and which namespace may ask for which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The networks that the node has endpoints on.
    pub networks: BTreeMap<NetworkId, NetworkNames>,
    /// The namespaces of the node's own endpoints, by absolute path; each gets a resolver.
    pub namespaces: BTreeMap<PathBuf, Namespace>,
}

/// The names of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkNames {
    /// Its name, as it is appended to an endpoint's.
    pub name: NetworkName,
    /// Addresses in it belong to endpoints, or to nobody.
    pub subnet: Subnet,
    /// Names and aliases of endpoints, in lower case, to the addresses of all that hold them.
    pub records: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Addresses to the endpoint's own name, as it was written.
    pub pointers: BTreeMap<Ipv4Addr, String>,
}

/// A network namespace that a resolver stands in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// The networks that it resolves names of; where two know a bare name, the first one's counts.
    pub networks: Vec<NetworkId>,
    /// Another number says that the namespace at this path was made anew.
    pub incarnation: u32,
}
