//! The commands that the log holds, their encoding, and what they answer.

use super::Refusal;
use crate::model::{
    Endpoint, EndpointId, EndpointName, EndpointPort, Mac, Network, NetworkId, NetworkName,
    NetworkOptions, Node, NodeId, NodeName, Pool, Publish, Revision, Subnet, Transport, Vni,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
};
use uuid::Uuid;

/// Made up by the caller: the same id is carried out once.
pub type RequestId = [u8; 16];
/// Digest of what a request asks for.
pub type Digest = Uuid;

/// A request for a command, by its caller's id for it and by what it asks for. A repetition has both; the
/// same id with something else to do is a mistake of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The caller's id.
    pub id: RequestId,
    /// Digest of the command.
    pub asked: Digest,
}

impl Mutation {
    /// The request `id` for `command`, which is as its caller gave it: what the leader adds is not asked
    /// for, and may differ when the request is repeated.
    #[must_use]
    pub fn new(id: RequestId, command: &Command) -> Self {
        Self { id, asked: command.digest() }
    }
}

/// A command as the log holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Whose retry this may be.
    pub request: RequestId,
    /// Digest of what the caller asked for. `None` = of a version that wrote none.
    #[serde(default)]
    pub asked: Option<Digest>,
    /// What to do.
    pub command: Command,
}

impl Envelope {
    /// `command`, as the log is to hold it, for `request`.
    #[must_use]
    pub fn new(request: Mutation, command: Command) -> Self {
        Self { request: request.id, asked: Some(request.asked), command }
    }

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
        /// Only if it is the one of this id, and not a successor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<NetworkId>,
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
        /// Only if it is the one of this id, and not a successor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<NodeId>,
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
        /// Only if it is the one of this id, and not a successor.
        only: Option<EndpointId>,
    },
}

impl Command {
    /// Digest of what it asks for: verb, target and parameters.
    ///
    /// A field that is added to a command later has to be left out of its encoding where it says nothing:
    /// a request that is repeated across an upgrade must have the same digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let encoded = rmp_serde::to_vec_named(self)
            .unwrap_or_else(|error| unreachable!("the types here all encode: {error}"));
        Digest::new_v5(&Uuid::nil(), &encoded)
    }
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

/// Answer of apply.
pub type Outcome = Result<Applied, Refusal>;
