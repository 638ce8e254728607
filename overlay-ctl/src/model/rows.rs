use super::{EndpointName, EndpointPort, Mac, NetworkName, NodeName, Pool, Published, Subnet, Vni};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// Index of a Raft entry: the version of the whole state after it.
pub type Revision = u64;
/// Revision that created the network.
pub type NetworkId = u64;
/// Revision that created the endpoint.
pub type EndpointId = u64;
/// The node's Raft id. Never reused.
pub type NodeId = u64;

/// What a network's endpoints may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// They may reach each other.
    pub icc: bool,
    /// They have no leg to the outside.
    pub internal: bool,
    /// Broadcast and multicast are carried.
    pub multicast: bool,
    /// Bytes; `None` = the underlay's less the encapsulation.
    pub mtu: Option<u16>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self { icc: true, internal: false, multicast: false, mtu: None }
    }
}

/// A virtual Ethernet segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Identity, never reused.
    pub id: NetworkId,
    /// Unique in the cluster.
    pub name: NetworkName,
    /// Unique in the cluster.
    pub vni: Vni,
    /// Where its addresses come from.
    pub pool: Pool,
    /// What its endpoints may do.
    pub options: NetworkOptions,
}

/// A host that runs the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Identity, never reused.
    pub id: NodeId,
    /// Unique in the cluster.
    pub name: NodeName,
    /// Its address on the underlay; unique in the cluster.
    pub vtep: Ipv4Addr,
    /// Where its API and its peers' streams are served.
    pub listen: SocketAddr,
    /// Chosen by the node when it first joined: a repeated join is the same join.
    pub instance: [u8; 16],
    /// Revision of its registration; what an older epoch says is void.
    pub epoch: Revision,
    /// It is to be one of the voters (once it has caught up with the log).
    pub voter: bool,
    /// The subnet of its gateway bridge; `None` = it has said none (yet).
    #[serde(default)]
    pub gateway: Option<Subnet>,
    /// Where its metrics are served; `None` = nowhere that another host reaches.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// In a namespace of a node.
    Node {
        /// The node.
        node: NodeId,
        /// Absolute path of the namespace there.
        netns: PathBuf,
    },
    /// Behind a VTEP that is not ours.
    External {
        /// Its underlay address.
        vtep: Ipv4Addr,
    },
}

/// A place on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Identity, never reused.
    pub id: EndpointId,
    /// Unique on its network.
    pub name: EndpointName,
    /// Its network.
    pub network: NetworkId,
    /// Where it is.
    pub location: Location,
    /// Unique on its network.
    pub address: Ipv4Addr,
    /// Unique on its network.
    pub mac: Mac,
    /// It may send from addresses that are not its own.
    pub forwards: bool,
    /// Other names that it answers to on its network; others may share them.
    #[serde(default)]
    pub aliases: BTreeSet<EndpointName>,
    /// Ports that it says it serves.
    #[serde(default)]
    pub exposed: BTreeSet<EndpointPort>,
    /// Ports of its node that lead to it.
    #[serde(default)]
    pub published: BTreeSet<Published>,
    /// Its address on its node's gateway bridge. Endpoints of one namespace share the leg, and so the
    /// address. `None` = it has no leg to the outside.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
}

impl Endpoint {
    /// The node it is on, if it is on one of ours.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self.location {
            Location::Node { node, .. } => Some(node),
            Location::External { .. } => None,
        }
    }
}
