//! Why the state refuses a command, in words for the caller.

use crate::model::{
    EndpointAddrs, EndpointName, Invalid, Mac, NetworkName, NodeName, Revision, Speaks, Subnet,
    Transport, Version, Vni, Voters, Vtep,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use uuid::Uuid;

/// The reason why `apply` refused a command. A refused command changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// An endpoint of the network has this name. The text is Docker's, because its users know it.
    #[error("service endpoint with name {0} already exists")]
    EndpointExists(EndpointName),
    /// A network of this name exists. The text is Docker's, because its users know it.
    #[error("network with name {0} already exists")]
    NetworkExists(NetworkName),
    /// A node has this name.
    #[error("node with name {0} already exists; choose another with --name")]
    NodeExists(NodeName),
    /// Another node, or an external endpoint, has this VTEP address.
    #[error("underlay address {address} is already used by {by}")]
    VtepExists {
        /// The address.
        address: Vtep,
        /// The node or endpoint that has the address.
        by: String,
    },
    /// A network has this VNI.
    #[error("VNI {vni} is already used by network {network}; leave --vni out to get a free one")]
    VniExists {
        /// The VNI.
        vni: Vni,
        /// The network that has the VNI.
        network: NetworkName,
    },
    /// Another endpoint of the network has this address.
    #[error("address {address} is already in use by endpoint {endpoint}")]
    AddressInUse {
        /// The address.
        address: EndpointAddrs,
        /// The endpoint that has the address.
        endpoint: EndpointName,
    },
    /// Another endpoint of the network has this MAC.
    #[error("MAC {mac} is already in use by endpoint {endpoint}")]
    MacInUse {
        /// The MAC.
        mac: Mac,
        /// The endpoint that has the MAC.
        endpoint: EndpointName,
    },
    /// A value of the request is not allowed.
    #[error("{field} {value:?} {why}")]
    Invalid {
        /// The field's name in the API.
        field: String,
        /// The value that was given.
        value: String,
        /// The reason: the end of the error's sentence.
        why: String,
    },
    /// All addresses of the network's range are in use.
    #[error(
        "no free address in {range} of network {network}; remove endpoints or make a larger network"
    )]
    AddressesExhausted {
        /// The range.
        range: String,
        /// The network.
        network: NetworkName,
    },
    /// The name or the address was an endpoint's, and may still be in use on a node.
    #[error(
        "{what} of network {network} was withdrawn at revision {revision}, and not every node has forgotten it; try again in a moment, take another, or remove a node that will not come back (`overlay node rm`)"
    )]
    NotForgotten {
        /// The name or the address, and which of the two it is.
        what: String,
        /// The network.
        network: NetworkName,
        /// The revision that removed its former owner.
        revision: Revision,
    },
    /// All addresses of the network's range are in use or held back.
    #[error(
        "no free address in {range} of network {network}: {count} are held back, since not every node has forgotten their former owners; try again in a moment, or remove a node that will not come back (`overlay node rm`)"
    )]
    AddressesHeldBack {
        /// The range.
        range: String,
        /// The network.
        network: NetworkName,
        /// The number of addresses that are held back.
        count: usize,
        /// The revision that every node must have programmed.
        revision: Revision,
    },
    /// All /24 subnets of the default pool are in use.
    #[error("no free subnet in 10.128.0.0/9; give one with --subnet")]
    SubnetsExhausted,
    /// All VNIs are in use.
    #[error("no free VNI")]
    VnisExhausted,
    /// No network has this name.
    #[error("no network with name {0}; `overlay network ls` lists them")]
    NoNetwork(NetworkName),
    /// No endpoint has this name.
    #[error("no endpoint with name {0}; `overlay endpoint ls` lists them")]
    NoEndpoint(EndpointName),
    /// No node has this name.
    #[error("no node with name {0}; `overlay node ls` lists them")]
    NoNode(NodeName),
    /// The node was removed from the cluster.
    #[error("node {0} was removed from the cluster")]
    NodeRemoved(NodeName),
    /// The named object was replaced: another object has its name now.
    #[error(
        "{what} with id {asked} is gone, and one with id {found} has its name; nothing was removed"
    )]
    Replaced {
        /// Kind and name of the object that was to be removed.
        what: String,
        /// The id of the object that was to be removed.
        asked: u64,
        /// The id of the object that has the name now.
        found: u64,
    },
    /// Another request used the same request id, so its answer would be returned for this one.
    #[error("request_id {request} was used for {by}; send each request with an id of its own")]
    RequestIdUsed {
        /// The request id.
        request: Uuid,
        /// Description of the request that used the id first.
        by: String,
    },
    /// The request was carried out before, and what it made has been removed since.
    #[error(
        "{what}, which this request made, is gone again; send another request_id to make it anew"
    )]
    Gone {
        /// Kind and name of the object that was made.
        what: String,
    },
    /// Endpoints of several networks have this name, and the request names no network.
    #[error("endpoints of several networks have the name {0}; say which with --network")]
    Ambiguous(EndpointName),
    /// The network still has endpoints.
    #[error("network {network} has {endpoints} endpoints; remove them first")]
    NetworkInUse {
        /// The network.
        network: NetworkName,
        /// The number of its endpoints.
        endpoints: usize,
    },
    /// The node still has endpoints.
    #[error(
        "node {node} has {endpoints} endpoints; remove them first, or all with it by `overlay node rm --force {node}`"
    )]
    NodeInUse {
        /// The node.
        node: NodeName,
        /// The number of its endpoints.
        endpoints: usize,
    },
    /// The namespace has an endpoint of the network, and would get a second interface on one segment.
    #[error(
        "namespace {} of node {node} is on network {network} already, as endpoint {endpoint}; use another namespace or another network",
        netns.display()
    )]
    NamespaceInUse {
        /// The namespace.
        netns: PathBuf,
        /// The node of the namespace.
        node: NodeName,
        /// The network.
        network: NetworkName,
        /// The endpoint that is in the namespace.
        endpoint: EndpointName,
    },
    /// The subnet of a network overlaps the gateway subnet of a node: an endpoint could not tell its neighbours
    /// from the gateway.
    #[error(
        "subnet {subnet} of network {network} overlaps {gateway}, the gateway subnet of node {node}; choose another --subnet, make the network --internal, or start the node with another --gateway-subnet"
    )]
    GatewayOverlap {
        /// The network.
        network: NetworkName,
        /// Its subnet.
        subnet: Subnet,
        /// The node.
        node: NodeName,
        /// Its gateway subnet.
        gateway: Subnet,
    },
    /// All addresses of a node's gateway subnet are in use.
    #[error(
        "no free address in {subnet}, the gateway subnet of node {node}; remove endpoints there, or start it with a larger --gateway-subnet"
    )]
    GatewayExhausted {
        /// The gateway subnet.
        subnet: Subnet,
        /// The node that has this gateway subnet.
        node: NodeName,
    },
    /// Nobody could reach the ports that the endpoint wants to publish.
    #[error("endpoint {endpoint} can't publish ports: {why}")]
    CannotPublish {
        /// The endpoint.
        endpoint: EndpointName,
        /// The reason and what to do: the end of the error's sentence.
        why: String,
    },
    /// Another endpoint of the node has published this port.
    #[error(
        "host port {host_port}/{transport} of node {node} is already published by endpoint {endpoint} of network {network}; choose another, or leave it out to get a free one"
    )]
    HostPortInUse {
        /// The port.
        host_port: u16,
        /// Its protocol.
        transport: Transport,
        /// The node of the port.
        node: NodeName,
        /// The endpoint that has published the port.
        endpoint: EndpointName,
        /// The network of that endpoint.
        network: NetworkName,
    },
    /// A request publishes one port of the host twice; a packet can go to one endpoint port only.
    #[error(
        "host port {host_port}/{transport} is asked for twice; publish each port of the endpoint at a host port of its own"
    )]
    HostPortTwice {
        /// The port.
        host_port: u16,
        /// Its protocol.
        transport: Transport,
    },
    /// All ports of the node that are given out automatically are in use.
    #[error(
        "node {node} has no free host port for {transport} from 32768 up; remove endpoints there, or ask for a lower one by its number"
    )]
    HostPortsExhausted {
        /// The protocol.
        transport: Transport,
        /// The node.
        node: NodeName,
    },
    /// An alias is an endpoint's name already: a name resolves to one endpoint only.
    #[error(
        "alias {alias} is the name of endpoint {endpoint} of network {network}; choose another alias"
    )]
    AliasIsName {
        /// The alias.
        alias: EndpointName,
        /// The endpoint that has the alias as its name.
        endpoint: EndpointName,
        /// Their network.
        network: NetworkName,
    },
    /// A name is an endpoint's alias already: a name resolves to one endpoint only.
    #[error(
        "name {name} is an alias of endpoint {endpoint} of network {network}; choose another name"
    )]
    NameIsAlias {
        /// The name.
        name: EndpointName,
        /// The endpoint that has the name as an alias.
        endpoint: EndpointName,
        /// Their network.
        network: NetworkName,
    },
    /// What is asked for is logged as nothing that the cluster's version has.
    #[error(
        "this needs version {needs} of the cluster, which is at version {has}; it rises by itself when every node speaks that, and `overlay status` on the leader names those that do not"
    )]
    NeedsVersion {
        /// The version that has it.
        needs: Version,
        /// The cluster's version.
        has: Version,
    },
    /// The node's program can't read what the cluster writes, or writes what the cluster can't read.
    #[error(
        "the cluster is at version {cluster}, and the node's program speaks {speaks}; start the node with the program that the other nodes run, which `overlay status` names there"
    )]
    VersionNotSpoken {
        /// What the program speaks.
        speaks: Speaks,
        /// The cluster's version.
        cluster: Version,
    },
    /// As many nodes have a seat as are to vote.
    #[error(
        "the cluster has its {voters} voters already ({by}); take the seat of one of them with `overlay node demote`, or raise their number with `overlay cluster voters`"
    )]
    SeatsTaken {
        /// How many nodes are to vote.
        voters: Voters,
        /// The names of the nodes that have a seat.
        by: String,
    },
    /// No other node has a seat, so that nobody would hold the log.
    #[error(
        "node {0} is the cluster's only voter; give another node a seat first: with `overlay node promote`, and where one voter is wished for with `overlay cluster voters 3`"
    )]
    LastVoter(NodeName),
    /// The cluster's version can't be raised. The leader tries again.
    #[error("the cluster's version can't be raised to {to}: {why}")]
    CannotRaise {
        /// The version to which it was to be raised.
        to: Version,
        /// The reason: the end of the error's sentence.
        why: String,
    },
    /// The log entry cannot be decoded, because a newer version wrote it. Only earlier versions answer this, or hold it as
    /// the outcome of a request: this version stops at such an entry ([`Unreadable`](super::Unreadable)).
    #[error("this version does not know the command ({0}); all nodes must run the same version")]
    UnknownCommand(String),
}

impl Refusal {
    /// The revision that the nodes concerned must have programmed before the same command can be carried out.
    #[must_use]
    pub fn held_back_since(&self) -> Option<Revision> {
        match self {
            Self::NotForgotten { revision, .. } | Self::AddressesHeldBack { revision, .. } => {
                Some(*revision)
            }
            _ => None,
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(Invalid { field, value, why }: Invalid) -> Self {
        Self::Invalid { field: field.to_owned(), value, why }
    }
}
