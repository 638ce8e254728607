//! The rows of the cluster's state: networks, nodes and endpoints, and the types of their ids.

use super::{
    EndpointAddrs, EndpointName, EndpointPort, Lease, Leg, Mac, NetworkName, NodeName, Permissions,
    Pool, Published, RaftId, Speaks, Subnet, Version, Vni, Vtep,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

/// Index of a Raft entry: the version of the whole state after it.
pub type Revision = u64;
/// Revision that created the network.
pub type NetworkId = u64;
/// Revision that created the endpoint.
pub type EndpointId = u64;
/// A node's id, never reused. It is not its [`RaftId`].
pub type NodeId = u64;

/// The options of a network: what its endpoints may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// Endpoints may reach each other.
    pub icc: bool,
    /// Endpoints have no leg to the outside.
    pub internal: bool,
    /// Broadcast and multicast are carried.
    pub multicast: bool,
    /// MTU in bytes; `None` = the underlay's MTU minus the bytes of the encapsulation.
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
    /// Pool that its addresses come from.
    pub pool: Pool,
    /// Its options.
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
    pub vtep: Vtep,
    /// Address that serves its API and its peers' streams.
    pub listen: SocketAddr,
    /// Number that the node chose when it first joined, by which a repeated join is recognised as the same.
    pub instance: [u8; 16],
    /// Revision of its registration. Messages that name an older epoch are ignored.
    pub epoch: Revision,
    /// The node is to be a voter (once it has caught up with the log).
    pub voter: bool,
    /// The subnet of its gateway bridge; `None` = the node has not reported one (yet).
    #[serde(default)]
    pub gateway: Option<Subnet>,
    /// Address that serves its metrics; `None` = no address that another host reaches.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Address that serves its API on its own host, where that is not [`Node::listen`]: the node is behind 1:1 NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_listen: Option<SocketAddr>,
    /// What the node's program speaks, as it said when it registered. `None` = the cluster is at version 1, in whose rows
    /// this is not noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaks: Option<Speaks>,
    /// The Raft id of the present life of its log, if it is to hold one: see [`Node::life`]. `None` = it is to hold none, or
    /// it registered when the cluster was at version 1, where a node's Raft id is its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<RaftId>,
    /// Whether it counts as alive. From version 2 on; before, every node does.
    #[serde(default, skip_serializing_if = "Lease::is_held")]
    pub lease: Lease,
    /// An operator took its seat, or wants it to have none: it gets one only by `overlay node promote`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub demoted: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Node {
    /// The oldest version of the cluster whose rows may hold what this one holds.
    #[must_use]
    pub fn needs(&self) -> Version {
        let Self {
            id: _,
            name: _,
            vtep: _,
            listen: _,
            instance: _,
            epoch: _,
            voter: _,
            gateway: _,
            metrics: _,
            local_listen: _,
            speaks,
            raft_id,
            lease,
            demoted,
        } = self;
        let is_of_version_1 = speaks.is_none() && raft_id.is_none() && lease.is_held() && !*demoted;
        if is_of_version_1 { Version::V1 } else { Version::V2 }
    }

    /// Its address on the underlay, if packets are sent there: not to a node that is [lost](Lease::Lost).
    #[must_use]
    pub fn reachable_vtep(&self) -> Option<Vtep> {
        (self.lease != Lease::Lost).then_some(self.vtep)
    }

    /// The Raft id under which it holds the log, or is to hold it; `None` if it is an agent.
    #[must_use]
    pub fn life(&self) -> Option<RaftId> {
        self.raft_id.or(RaftId::new(self.id)).filter(|_| self.voter)
    }

    /// The addresses from which endpoints are kept: those of its API and of its metrics, as others reach them and as its
    /// own host has them.
    pub fn services(&self) -> impl Iterator<Item = SocketAddr> {
        let translated = self.metrics.filter(|_| self.local_listen.is_some());
        let translated =
            translated.map(|metrics| SocketAddr::new(self.listen.ip(), metrics.port()));
        [self.listen].into_iter().chain(self.local_listen).chain(self.metrics).chain(translated)
    }
}

/// The place of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// In a namespace of a node.
    Node {
        /// The node.
        node: NodeId,
        /// Absolute path of the namespace there.
        netns: PathBuf,
    },
    /// Behind a VTEP that is not a node of the cluster.
    External {
        /// Its underlay address.
        vtep: Vtep,
    },
}

/// An endpoint: an interface in a namespace, or behind an external VTEP, with an address on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Identity, never reused.
    pub id: EndpointId,
    /// Unique on its network.
    pub name: EndpointName,
    /// Its network.
    pub network: NetworkId,
    /// Its place.
    pub location: Location,
    /// Each is unique on its network.
    #[serde(rename = "address")]
    pub addresses: EndpointAddrs,
    /// Unique on its network.
    pub mac: Mac,
    /// What it may send beyond its own MAC and address.
    #[serde(rename = "forwards")]
    pub permissions: Permissions,
    /// Further names under which it is resolved on its network; several endpoints may share one.
    #[serde(default)]
    pub aliases: BTreeSet<EndpointName>,
    /// Ports that it declares as served.
    #[serde(default)]
    pub exposed: BTreeSet<EndpointPort>,
    /// Ports of its node that lead to it.
    #[serde(default)]
    pub published: BTreeSet<Published>,
    /// Its leg on its node's gateway bridge. Endpoints of one namespace share the leg. `None` = the endpoint has no
    /// leg to the outside.
    #[serde(default, rename = "gateway")]
    pub leg: Option<Leg>,
    /// The run of its node's data plane in which it was created. As long as that run says that the endpoint is down and never
    /// was up, whoever leads takes it back: its caller is told that it was made only if it was up, or this is cleared. `None` =
    /// it stays, up or down. Only from version 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisional: Option<u64>,
}

impl Endpoint {
    /// The oldest version of the cluster whose rows may hold what this one holds.
    #[must_use]
    pub fn needs(&self) -> Version {
        let Self {
            id: _,
            name: _,
            network: _,
            location: _,
            addresses: _,
            mac: _,
            permissions: _,
            aliases: _,
            exposed: _,
            published: _,
            leg: _,
            provisional,
        } = self;
        if provisional.is_some() { Version::V2 } else { Version::V1 }
    }

    /// The node it is on; `None` if it is behind an external VTEP.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self.location {
            Location::Node { node, .. } => Some(node),
            Location::External { .. } => None,
        }
    }
}
