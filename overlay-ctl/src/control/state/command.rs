use super::Refusal;
use crate::model::{
    Endpoint, EndpointName, EndpointPort, Mac, Network, NetworkName, NetworkOptions, Node, NodeId,
    NodeName, Pool, Publish, Revision, Subnet, Transport, Vni,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
};

/// Made up by the caller: the same id is carried out once.
pub type RequestId = [u8; 16];

/// A command as the log holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Whose retry this may be.
    pub request: RequestId,
    /// What to do.
    pub command: Command,
}

impl Envelope {
    /// The log's encoding: MessagePack with named fields, so that a field can be added.
    ///
    /// # Errors
    /// None for the types here; the codec's signature has one.
    pub fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Makes a network.
    CreateNetwork {
        /// Must be free.
        name: NetworkName,
        /// `None` = the next free /24 of the pool.
        pool: Option<Pool>,
        /// `None` = the next free one.
        vni: Option<Vni>,
        /// What its endpoints may do.
        options: NetworkOptions,
    },
    /// Removes a network that has no endpoints.
    RemoveNetwork {
        /// Which.
        name: NetworkName,
    },
    /// Enters a node, or says its addresses anew. The same instance keeps its id.
    RegisterNode {
        /// Made once by the node.
        instance: [u8; 16],
        /// Must be free, or this instance's.
        name: NodeName,
        /// Must be free, or this instance's.
        vtep: Ipv4Addr,
        /// Where its peers reach it.
        listen: SocketAddr,
        /// The id that it had: a node that was removed is not taken in again as another.
        #[serde(default)]
        returning: Option<NodeId>,
        /// The subnet of its gateway bridge. Where it differs from the one before, the node's endpoints
        /// get new addresses on the bridge.
        #[serde(default)]
        gateway: Option<Subnet>,
        /// Where its metrics are served, if others than the host itself reach that: endpoints must not.
        #[serde(default)]
        metrics: Option<SocketAddr>,
    },
    /// Removes a node that has no endpoints.
    RemoveNode {
        /// Which.
        name: NodeName,
    },
    /// Makes an endpoint.
    CreateEndpoint {
        /// Must be free on the network.
        name: EndpointName,
        /// Its network.
        network: NetworkName,
        /// Where it will be.
        placement: Placement,
        /// It may send from addresses that are not its own.
        forwards: bool,
        /// Other names on its network. None may be an endpoint's name there.
        #[serde(default)]
        aliases: BTreeSet<EndpointName>,
        /// What is published, and what of the node is free for it.
        #[serde(default)]
        ports: PortsWanted,
    },
    /// Removes an endpoint.
    RemoveEndpoint {
        /// Which.
        name: EndpointName,
        /// Needed only where several networks have the name.
        network: Option<NetworkName>,
        /// Only if it is the one of this id: undoes a creation without touching a successor.
        only: Option<u64>,
    },
}

/// Where a new endpoint will be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Placement {
    /// In a namespace of a node.
    Node {
        /// The node.
        node: NodeName,
        /// Absolute path of the namespace there.
        netns: PathBuf,
        /// `None` = the next free one.
        address: Option<Ipv4Addr>,
    },
    /// Behind a VTEP that is not ours.
    External {
        /// Its underlay address.
        vtep: Ipv4Addr,
        /// Must be free on the network.
        mac: Mac,
        /// Must be free on the network.
        address: Ipv4Addr,
    },
}

/// The ports that a new endpoint shows to the outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortsWanted {
    /// Ports that it says it serves.
    pub exposed: BTreeSet<EndpointPort>,
    /// Ports to publish.
    pub publish: Vec<Publish>,
    /// Publish each exposed port, too, at a free port of the node.
    pub publish_all: bool,
    /// Ports of the node that programs have, as the node said when it was asked: those are not given
    /// out.
    pub busy: BTreeSet<(Transport, NonZeroU16)>,
}

impl PortsWanted {
    /// Whether any port of the node is asked for.
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.publish_all || !self.publish.is_empty()
    }

    /// The protocols for which any free port of the node is asked for.
    #[must_use]
    pub fn any_of(&self) -> BTreeSet<Transport> {
        let exposed = self.exposed.iter().filter(|_| self.publish_all).map(|port| port.transport);
        let publish = self.publish.iter().filter(|wish| wish.host_port.is_none());
        publish.map(|wish| wish.port.transport).chain(exposed).collect()
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Applied {
    /// The network that was made.
    Network(Network),
    /// The endpoint that was made.
    Endpoint(Endpoint),
    /// The node as it is registered.
    Node(Node),
    /// What was named is gone, since this revision.
    Removed(Revision),
}

impl Applied {
    /// Whether this can be what `command` did. A request's id is its caller's, who may have used it
    /// for another request before: the answer is then that one's.
    #[must_use]
    pub fn answers(&self, command: &Command) -> bool {
        match (self, command) {
            (Self::Network(network), Command::CreateNetwork { name, .. }) => network.name == *name,
            (Self::Endpoint(endpoint), Command::CreateEndpoint { name, .. }) => {
                endpoint.name == *name
            }
            (Self::Node(node), Command::RegisterNode { instance, .. }) => {
                node.instance == *instance
            }
            (
                Self::Removed(_),
                Command::RemoveNetwork { .. }
                | Command::RemoveNode { .. }
                | Command::RemoveEndpoint { .. },
            ) => true,
            (Self::Network(_) | Self::Endpoint(_) | Self::Node(_) | Self::Removed(_), _) => false,
        }
    }
}

/// Answer of apply.
pub type Outcome = Result<Applied, Refusal>;
