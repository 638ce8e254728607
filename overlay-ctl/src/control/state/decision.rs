//! What a command would do to the rows: the result of a decision, before its commit.

use super::{Applied, Command, Refusal, Renumbering};
use crate::model::{
    Endpoint, EndpointId, LegId, Network, NetworkId, Node, RaftId, Version, Voters,
};

/// The change that a command would make. [`State::decide`](super::State::decide) returns it.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The state is already as asked.
    Nothing(Applied),
    /// A new network.
    PutNetwork {
        /// The row.
        network: Network,
        /// True if the VNI was chosen here: the next VNI is searched after it.
        given_out: bool,
    },
    /// A network that has no endpoints is removed.
    RemoveNetwork(Network),
    /// A node is added, or its addresses change.
    PutNode {
        /// The row.
        node: Node,
        /// Its new legs, if its gateway subnet changes.
        renumbering: Renumbering,
    },
    /// A node gets another Raft id.
    BeginLife {
        /// The row with the new id.
        node: Node,
        /// The id that it had.
        ended: RaftId,
    },
    /// A node gets a seat. The row has its Raft id.
    Promote(Node),
    /// A node has no seat any more, or is to get none.
    Demote(Node),
    /// The number of voters is another.
    SetVoters(Voters),
    /// Two nodes exchange their VTEPs.
    ExchangeVteps {
        /// The row of the one that has moved.
        node: Node,
        /// The row of the other.
        other: Node,
    },
    /// A node counts as alive, or not so. The row with that.
    NoteLease(Node),
    /// A node is removed.
    RemoveNode {
        /// The row.
        node: Node,
        /// Its endpoints, which are removed with it.
        endpoints: Vec<EndpointId>,
    },
    /// A new endpoint, or one that changes in what no index has.
    PutEndpoint {
        /// The row.
        endpoint: Endpoint,
        /// True if the address was chosen here: the next address is searched after it.
        given_out: bool,
        /// True if the namespace had no gateway leg: the next leg's address is searched after this one.
        leg_given_out: bool,
        /// The id of the new gateway leg, if it was counted: the next id comes after this one.
        counted: Option<LegId>,
    },
    /// An endpoint is removed.
    RemoveEndpoint(Endpoint),
    /// The cluster's version is raised.
    RaiseVersion {
        /// The new version.
        to: Version,
        /// The rows of all nodes, with what each speaks.
        nodes: Vec<Node>,
    },
}

impl Decision {
    /// The network of the endpoint that is created or removed.
    pub(super) fn network(&self) -> Option<NetworkId> {
        match self {
            Self::PutEndpoint { endpoint, .. } | Self::RemoveEndpoint(endpoint) => {
                Some(endpoint.network)
            }
            _ => None,
        }
    }

    /// Puts the id of the row that would be removed, or of the life that would end, into the command. The log entry then
    /// removes that row or nothing. It never removes a later row of the same name, which may exist when the entry is
    /// applied, or when it is applied a second time.
    pub fn bind(&self, command: &mut Command) {
        match (self, command) {
            (Self::RemoveNetwork(network), Command::RemoveNetwork { only, .. }) => {
                *only = Some(network.id);
            }
            (Self::RemoveNode { node, .. }, Command::RemoveNode { only, .. })
            | (Self::Promote(node), Command::Promote { only, .. })
            // The row of the decision has no seat any more: the life that ends is bound by who ends it.
            | (Self::Demote(node), Command::Demote { only, .. }) => *only = Some(node.id),
            (Self::RemoveEndpoint(endpoint), Command::RemoveEndpoint { only, .. }) => {
                *only = Some(endpoint.id);
            }
            (Self::BeginLife { ended: found, .. }, Command::BeginLife { ended, .. }) => {
                *ended = Some(*found);
            }
            _ => {}
        }
    }
}

/// Fails if a removal asks for a row whose name belongs to another row by now.
pub(super) fn check_id(
    asked: Option<u64>,
    found: u64,
    what: impl FnOnce() -> String,
) -> Result<(), Refusal> {
    match asked {
        Some(asked) if asked != found => Err(Refusal::Replaced { what: what(), asked, found }),
        _ => Ok(()),
    }
}
