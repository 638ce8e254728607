//! The commands that the log holds, their encoding, and what they answer.

use super::{Placement, PortsWanted, Refusal};
use crate::model::{
    Endpoint, EndpointId, EndpointName, Lease, Network, NetworkId, NetworkName, NetworkOptions,
    Node, NodeId, NodeName, Permissions, Pool, RaftId, Revision, Speaks, Subnet, Version, Vni,
    Voters, Vtep,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use uuid::Uuid;

/// The caller's id of a request. Requests with the same id are carried out once.
pub type RequestId = [u8; 16];
/// Digest of the command that a request asks for.
pub type Digest = Uuid;

/// Identifies a request: the caller's id, and a digest of what it asks for. A repeated request has the same
/// values in both. The same id with another digest is a mistake of the caller, and is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The caller's id.
    pub id: RequestId,
    /// Digest of the command.
    pub asked: Digest,
}

impl Mutation {
    /// The request `id` for `command`. The command must be as the caller gave it, without what the leader adds,
    /// because that may differ when the request is repeated.
    #[must_use]
    pub fn new(id: RequestId, command: &Command) -> Self {
        Self { id, asked: command.digest() }
    }
}

/// A command as the log holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The request that this command carries out.
    pub request: RequestId,
    /// Digest of what the caller asked for. `None` = an older version wrote the entry, without a digest.
    #[serde(default)]
    pub asked: Option<Digest>,
    /// The rules by which the command is applied: the number of a [`Version`]. An entry of an earlier version is applied by
    /// the rules of that version, so that it makes the same rows now as it made then.
    ///
    /// 0: a new gateway leg gets the id [`LegId::of_addresses`](crate::model::LegId::of_addresses). These entries are older
    /// than version 1, and hold no number. 1 and later: it gets the next id that no leg had.
    #[serde(default)]
    pub rules: u32,
    /// What the leader adds to what was asked for.
    #[serde(default, skip_serializing_if = "Noted::is_nothing")]
    pub noted: Noted,
    /// The command.
    pub command: Command,
}

/// What a leader adds to a command when it logs it, since apply can't know it. It is no part of what was asked for: a repeated
/// request may come with another. Only from version 2 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Of an endpoint's creation: see [`Endpoint::provisional`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisional: Option<u64>,
    /// Of an endpoint's creation or removal: every node of the network, but those that have been lost for a while, has programmed
    /// the state up to this revision, so that what was removed up to it may be given out again. `None` = it was not looked at, and nothing is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Revision>,
}

impl Noted {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Envelope {
    /// The log entry for `command`, which `request` asks for, by the rules of the oldest version that has the command. A
    /// leader logs that of [`State::entry`](super::State::entry), by the rules of its cluster.
    #[must_use]
    pub fn new(request: Mutation, command: Command) -> Self {
        let rules = command.needs().number();
        let noted = Noted::default();
        Self { request: request.id, asked: Some(request.asked), rules, noted, command }
    }

    /// The log's encoding: MessagePack with named fields, so that a field can be added.
    ///
    /// # Errors
    /// None in practice: all of these types can be encoded. The codec's signature has an error.
    pub fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Creates a network.
    CreateNetwork {
        /// Must be free.
        name: NetworkName,
        /// `None` = the next free /24 of the pool.
        pool: Option<Pool>,
        /// `None` = the next free one.
        vni: Option<Vni>,
        /// What the endpoints of the network may do.
        options: NetworkOptions,
    },
    /// Removes a network that has no endpoints.
    RemoveNetwork {
        /// The network.
        name: NetworkName,
        /// The network is removed only if it has this id, and is not a later network of the same name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<NetworkId>,
    },
    /// Registers a node, or updates its addresses. A node with the same `instance` keeps its id.
    RegisterNode {
        /// Random id of the node's state folder, made once by the node.
        instance: [u8; 16],
        /// Must be free, or belong to this instance.
        name: NodeName,
        /// Must be free, or belong to this instance.
        vtep: Vtep,
        /// The address at which the other nodes reach this node.
        listen: SocketAddr,
        /// The id that the node had before. A node that was removed is refused and does not get a new id.
        #[serde(default)]
        returning: Option<NodeId>,
        /// The subnet of its gateway bridge. If it changes, the endpoints of the node get new addresses
        /// on the bridge.
        #[serde(default)]
        gateway: Option<Subnet>,
        /// The address of its metrics, if hosts other than the node itself can reach it. Endpoints are kept
        /// away from that address.
        #[serde(default)]
        metrics: Option<SocketAddr>,
        /// The address of its API on its own host, where the node is behind 1:1 NAT. Endpoints are kept away from it, too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        local_listen: Option<SocketAddr>,
        /// What its program speaks. `None` = the cluster is at version 1, or was when the command was logged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        speaks: Option<Speaks>,
    },
    /// Removes a node, alone or with its endpoints.
    RemoveNode {
        /// The node.
        name: NodeName,
        /// The node is removed only if it has this id, and is not a later node of the same name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<NodeId>,
        /// Its endpoints are removed with it. Without this, a node that has endpoints is refused. From version 2 on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        with_endpoints: bool,
    },
    /// Gives a node that holds the log another Raft id, because the log of its present life is lost. It keeps its id, its name
    /// and its endpoints. The leader has ended its membership under the present id before.
    BeginLife {
        /// The node.
        name: NodeName,
        /// The node has this id, and is not a later node of the same name.
        only: NodeId,
        /// The Raft id that ends. The command is refused if the node has another one by now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<RaftId>,
    },
    /// Gives a node a seat: a Raft id, under which it is to hold the log.
    Promote {
        /// The node.
        name: NodeName,
        /// The node gets a seat only if it has this id, and is not a later node of the same name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<NodeId>,
        /// A node whose seat does not count any more, since it is to lose it: the leader's replacement of a voter that is down.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead_of: Option<NodeId>,
    },
    /// Takes a node's seat. The leader has ended its membership before.
    Demote {
        /// The node.
        name: NodeName,
        /// The node loses its seat only if it has this id, and is not a later node of the same name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<NodeId>,
        /// The Raft id that ends. The command is refused if the node has another one by now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<RaftId>,
        /// An operator asks: the node gets no seat before an operator gives it one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        for_good: bool,
    },
    /// Sets how many nodes are to vote. The leader gives seats to agents, or takes seats, until so many nodes have one.
    SetVoters {
        /// The number.
        voters: Voters,
    },
    /// Creates an endpoint.
    CreateEndpoint {
        /// Must be free on the network.
        name: EndpointName,
        /// The network of the endpoint.
        network: NetworkName,
        /// The place of the endpoint.
        placement: Placement,
        /// What the endpoint may send beyond its own MAC and address.
        #[serde(rename = "forwards")]
        permissions: Permissions,
        /// Further names on its network. No alias may be the name of an endpoint there.
        #[serde(default)]
        aliases: BTreeSet<EndpointName>,
        /// The ports to publish, and the ports of the node that are in use.
        #[serde(default)]
        ports: PortsWanted,
    },
    /// Removes an endpoint.
    RemoveEndpoint {
        /// The endpoint.
        name: EndpointName,
        /// Needed only if endpoints of several networks have the name.
        network: Option<NetworkName>,
        /// The endpoint is removed only if it has this id, and is not a later endpoint of the same name.
        only: Option<EndpointId>,
    },
    /// An endpoint is [provisional](Endpoint::provisional) no more: its caller is told that it was made, though its node did
    /// not say so. Only from version 2 on.
    KeepEndpoint {
        /// The endpoint.
        id: EndpointId,
    },
    /// Gives a node the VTEP of another one that is known to have left it, and that one the VTEP which the first had: two
    /// nodes that swapped their addresses would each wait for the other otherwise. Where the other one is elsewhere, its
    /// next registration says so. Nothing changes if the rows have other VTEPs by now. Only from version 2 on.
    ExchangeVteps {
        /// The node that has moved.
        name: NodeName,
        /// Where it was.
        from: Vtep,
        /// The node whose row has the address.
        other: NodeName,
        /// That address.
        to: Vtep,
    },
    /// Notes whether a node counts as alive, as the leader found out. Only from version 2 on.
    NoteLease {
        /// The node.
        name: NodeName,
        /// The node has this id, and is not a later node of the same name.
        only: NodeId,
        /// The registration of which the leader found it out. The command is refused if the node has registered anew since.
        epoch: Revision,
        /// What it found out.
        lease: Lease,
    },
    /// Raises the cluster's version by one. The leader asks for it, when every node speaks the next one.
    RaiseVersion {
        /// The version after the present one.
        to: Version,
        /// What each node speaks, as the leader heard it. The command is refused if these are not just the nodes that are
        /// registered, as one may have joined that speaks less.
        speaks: BTreeMap<NodeId, Speaks>,
    },
}

impl Command {
    /// The oldest version of the cluster in whose log the command may be. A new command, or a new field that is given, needs
    /// the newest version: an older program can't read the command, and would pass the field over.
    #[must_use]
    pub fn needs(&self) -> Version {
        match self {
            Self::CreateNetwork { name: _, pool: _, vni: _, options: _ }
            | Self::RemoveNetwork { name: _, only: _ }
            | Self::CreateEndpoint {
                name: _,
                network: _,
                placement: _,
                permissions: _,
                aliases: _,
                ports: _,
            }
            | Self::RemoveEndpoint { name: _, network: _, only: _ } => Version::V1,
            Self::RegisterNode {
                instance: _,
                name: _,
                vtep: _,
                listen: _,
                returning: _,
                gateway: _,
                metrics: _,
                local_listen: _,
                speaks,
            } => match speaks {
                Some(_) => Version::V2,
                None => Version::V1,
            },
            Self::RemoveNode { name: _, only: _, with_endpoints } => match with_endpoints {
                true => Version::V2,
                false => Version::V1,
            },
            Self::KeepEndpoint { id: _ } => Version::V2,
            Self::NoteLease { name: _, only: _, epoch: _, lease: _ } => Version::V2,
            Self::BeginLife { name: _, only: _, ended: _ } => Version::V2,
            Self::Promote { name: _, only: _, instead_of: _ }
            | Self::Demote { name: _, only: _, ended: _, for_good: _ }
            | Self::SetVoters { voters: _ } => Version::V2,
            Self::ExchangeVteps { name: _, from: _, other: _, to: _ } => Version::V2,
            // The nodes that read it speak that version: they are asked before it is logged.
            Self::RaiseVersion { to, speaks: _ } => *to,
        }
    }

    /// Kind and name of what the command makes, changes or removes.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::CreateNetwork { name, .. } | Self::RemoveNetwork { name, .. } => {
                format!("network {name}")
            }
            Self::RegisterNode { name, .. }
            | Self::RemoveNode { name, .. }
            | Self::BeginLife { name, .. }
            | Self::Promote { name, .. }
            | Self::Demote { name, .. }
            | Self::ExchangeVteps { name, .. }
            | Self::NoteLease { name, .. } => {
                format!("node {name}")
            }
            Self::CreateEndpoint { name, .. } | Self::RemoveEndpoint { name, .. } => {
                format!("endpoint {name}")
            }
            Self::SetVoters { .. } => "the number of voters".to_owned(),
            Self::KeepEndpoint { id } => format!("the endpoint with id {id}"),
            Self::RaiseVersion { to, .. } => format!("version {to} of the cluster"),
        }
    }

    /// Digest of the command: verb, target and parameters.
    ///
    /// A field that is added to a command later must not be encoded when it has its default value, because a
    /// request that is repeated across an upgrade must have the same digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let encoded = rmp_serde::to_vec_named(self)
            .unwrap_or_else(|error| unreachable!("the types here all encode: {error}"));
        Digest::new_v5(&Uuid::nil(), &encoded)
    }
}

/// The result of a command that was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Applied {
    /// The network that was created.
    Network(Network),
    /// The endpoint that was created.
    Endpoint(Endpoint),
    /// The node as it is registered now.
    Node(Node),
    /// The named object was removed at this revision.
    Removed(Revision),
    /// The cluster's version was raised to this one.
    Raised(Version),
    /// So many nodes are to vote.
    Voters(Voters),
}

/// The answer of `apply`.
pub type Outcome = Result<Applied, Refusal>;
