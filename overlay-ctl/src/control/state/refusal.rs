//! Why the state refuses a command, in words for the caller.

use crate::model::{EndpointName, Invalid, Mac, NetworkName, NodeName, Subnet, Transport, Vni};
use serde::{Deserialize, Serialize};
use std::{net::Ipv4Addr, path::PathBuf};
use uuid::Uuid;

/// Why apply refused a command. The state is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// In Docker's words, which its users know.
    #[error("service endpoint with name {0} already exists")]
    EndpointExists(EndpointName),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    NetworkExists(NetworkName),
    /// The name is taken.
    #[error("node with name {0} already exists; choose another with --name")]
    NodeExists(NodeName),
    /// Another node or an external endpoint has it.
    #[error("underlay address {address} is already used by {by}")]
    VtepExists {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        by: String,
    },
    /// The VNI is taken.
    #[error("VNI {vni} is already used by network {network}; leave --vni out to get a free one")]
    VniExists {
        /// The VNI.
        vni: Vni,
        /// Who has it.
        network: NetworkName,
    },
    /// Another endpoint of the network has it.
    #[error("address {address} is already in use by endpoint {endpoint}")]
    AddressInUse {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        endpoint: EndpointName,
    },
    /// Another endpoint of the network has it.
    #[error("MAC {mac} is already in use by endpoint {endpoint}")]
    MacInUse {
        /// The address.
        mac: Mac,
        /// Who has it.
        endpoint: EndpointName,
    },
    /// The address can't be an endpoint's.
    #[error("{field} {value:?} {why}")]
    Invalid {
        /// The field's name in the API.
        field: String,
        /// What was given.
        value: String,
        /// The end of the sentence.
        why: String,
    },
    /// Nothing left to give.
    #[error(
        "no free address in {range} of network {network}; remove endpoints or make a larger network"
    )]
    AddressesExhausted {
        /// The range.
        range: String,
        /// The network.
        network: NetworkName,
    },
    /// Nothing left to give.
    #[error("no free subnet in 10.128.0.0/9; give one with --subnet")]
    SubnetsExhausted,
    /// Nothing left to give.
    #[error("no free VNI")]
    VnisExhausted,
    /// No such row.
    #[error("no network with name {0}; `overlay network ls` lists them")]
    NoNetwork(NetworkName),
    /// No such row.
    #[error("no endpoint with name {0}; `overlay endpoint ls` lists them")]
    NoEndpoint(EndpointName),
    /// No such row.
    #[error("no node with name {0}; `overlay node ls` lists them")]
    NoNode(NodeName),
    /// It was one.
    #[error("node {0} was removed from the cluster")]
    NodeRemoved(NodeName),
    /// Its name is a successor's by now.
    #[error(
        "{what} with id {asked} is gone, and one with id {found} has its name; nothing was removed"
    )]
    Replaced {
        /// What was to be removed, by its name.
        what: String,
        /// Its id.
        asked: u64,
        /// The id of what has the name.
        found: u64,
    },
    /// The answer would be that of the other request.
    #[error("request_id {request} was used for {by}; send each request with an id of its own")]
    RequestIdUsed {
        /// The id.
        request: Uuid,
        /// What the request was that had it first.
        by: String,
    },
    /// It was removed since.
    #[error(
        "{what}, which this request made, is gone again; send another request_id to make it anew"
    )]
    Gone {
        /// What was made, by its name.
        what: String,
    },
    /// Several rows.
    #[error("endpoints of several networks have the name {0}; say which with --network")]
    Ambiguous(EndpointName),
    /// Something depends on it.
    #[error("network {network} has {endpoints} endpoints; remove them first")]
    NetworkInUse {
        /// The network.
        network: NetworkName,
        /// How many.
        endpoints: usize,
    },
    /// Something depends on it.
    #[error("node {node} has {endpoints} endpoints; remove them first")]
    NodeInUse {
        /// The node.
        node: NodeName,
        /// How many.
        endpoints: usize,
    },
    /// It would have two interfaces on one segment.
    #[error(
        "namespace {} of node {node} is on network {network} already, as endpoint {endpoint}; use another namespace or another network",
        netns.display()
    )]
    NamespaceInUse {
        /// The namespace.
        netns: PathBuf,
        /// Whose.
        node: NodeName,
        /// The network.
        network: NetworkName,
        /// Who is in it.
        endpoint: EndpointName,
    },
    /// An endpoint could not tell a neighbour on its network from the outside's gateway.
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
    /// Nothing left to give.
    #[error(
        "no free address in {subnet}, the gateway subnet of node {node}; remove endpoints there, or start it with a larger --gateway-subnet"
    )]
    GatewayExhausted {
        /// The gateway subnet.
        subnet: Subnet,
        /// Whose.
        node: NodeName,
    },
    /// Nobody could reach it.
    #[error("endpoint {endpoint} can't publish ports: {why}")]
    CannotPublish {
        /// The endpoint.
        endpoint: EndpointName,
        /// The end of the sentence, and what to do.
        why: String,
    },
    /// Another endpoint of the node has it.
    #[error(
        "host port {host_port}/{transport} of node {node} is already published by endpoint {endpoint} of network {network}; choose another, or leave it out to get a free one"
    )]
    HostPortInUse {
        /// The port.
        host_port: u16,
        /// Its protocol.
        transport: Transport,
        /// Whose.
        node: NodeName,
        /// Who has it.
        endpoint: EndpointName,
        /// Where that is.
        network: NetworkName,
    },
    /// A packet can go to one port only.
    #[error(
        "host port {host_port}/{transport} is asked for twice; publish each port of the endpoint at a host port of its own"
    )]
    HostPortTwice {
        /// The port.
        host_port: u16,
        /// Its protocol.
        transport: Transport,
    },
    /// Nothing left to give.
    #[error(
        "node {node} has no free host port for {transport} from 32768 up; remove endpoints there, or ask for a lower one by its number"
    )]
    HostPortsExhausted {
        /// The protocol.
        transport: Transport,
        /// The node.
        node: NodeName,
    },
    /// One word can't be both.
    #[error(
        "alias {alias} is the name of endpoint {endpoint} of network {network}; choose another alias"
    )]
    AliasIsName {
        /// The alias.
        alias: EndpointName,
        /// Whose name it is.
        endpoint: EndpointName,
        /// Their network.
        network: NetworkName,
    },
    /// One word can't be both.
    #[error(
        "name {name} is an alias of endpoint {endpoint} of network {network}; choose another name"
    )]
    NameIsAlias {
        /// The name.
        name: EndpointName,
        /// Whose alias it is.
        endpoint: EndpointName,
        /// Their network.
        network: NetworkName,
    },
    /// The entry could not be read: it was written by a newer version.
    #[error("this version does not know the command ({0}); all nodes must run the same version")]
    UnknownCommand(String),
}

impl From<Invalid> for Refusal {
    fn from(Invalid { field, value, why }: Invalid) -> Self {
        Self::Invalid { field: field.to_owned(), value, why }
    }
}
