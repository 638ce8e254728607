//! What the cluster can be asked, in the words of the domain: one request a verb, whoever asks and wherever.
//!
//! A request is answered by the leader. Where this node does not lead, the request is forwarded to the node that does,
//! and tried again while there is no leader; it keeps its request id, so that it is carried out once. The leader
//! waits for the linearizable barrier once, decides by its state, proposes, and waits for apply and for the kernels.
//! A request that can be refused is refused before anything is logged. A read whose answer may be stale asks for none of
//! this: any voter answers it by its own state.

mod backup;
mod barrier;
mod check;
mod copies;
mod endpoints;
mod error;
mod forgotten;
mod forward;
#[cfg(test)]
pub(crate) mod golden;
mod info;
mod leader;
mod lists;
mod lives;
mod networks;
mod nodes;
mod program;
mod seats;
mod stale;
#[cfg(test)]
mod tests;
mod valid;
mod verb;

pub use backup::Pieces;
pub use endpoints::{
    CreateEndpoint, EndpointCreated, EndpointRemoved, InspectEndpoint, ListEndpoints,
    RemoveEndpoint,
};
pub use error::{ControllerError, Effect};
pub use info::{
    Attachment, EndpointInfo, EndpointState, NetworkInfo, NetworkOf, NodeInfo, NodeOf, NodeRole,
    PeerInfo, Peers,
};
pub use lists::{Lists, Rows};
pub use networks::{CreateNetwork, InspectNetwork, ListNetworks, NetworkDetail, RemoveNetwork};
pub use nodes::{InspectNode, Joined, ListNodes, Register, RemoveNode};
pub use seats::{DemoteNode, PromoteNode, SetVoters, VotersSet};
pub use stale::{Read, Reading};
pub use valid::{ALIASES_MAX, PORTS_MAX};

use crate::{
    control::{
        consensus::Role,
        peers::Directory,
        state::Refusal,
        voter::{LAPSE, Seat, VoterParts},
    },
    dataplane::host::EndpointCheck,
    model::{EndpointName, Generation, NetworkName, NodeId, Revision},
};
use backup::Backups;
use leader::LEADER_DEADLINE;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The cluster, as this node can ask it. A clone is the same.
#[derive(Clone)]
pub struct Controller {
    id: NodeId,
    directory: Directory,
    seat: Seat,
    check: EndpointCheck,
    lists: Lists,
    backups: Backups,
}

/// The answer of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The revision since which it is gone.
    pub revision: Revision,
}

/// Which of two names are taken in the cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Existing {
    /// The network's.
    pub network: bool,
    /// The endpoint's, on that network.
    pub endpoint: bool,
}

/// Each request fails as [`ControllerError`] says.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Controller {
    /// Of the node `id`, with what it has while it is a voter.
    #[must_use]
    pub fn new(
        id: NodeId,
        directory: Directory,
        seat: impl Into<Seat>,
        check: EndpointCheck,
    ) -> Self {
        let (lists, backups) = (Lists::default(), Backups::default());
        Self { id, directory, seat: seat.into(), check, lists, backups }
    }

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> Uuid {
        self.directory.cluster()
    }

    /// The generation of the cluster that this node is of.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.directory.generations().ours()
    }

    /// Where the nodes are.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The leader by which this node can have a request answered; `None` where there is none. A voter that takes part in
    /// no quorum has none, though it may hear one: its own messages may be lost.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let Some(voter) = self.seat.get() else { return self.directory.leader() };
        let leader = voter.consensus.status().borrow().leader.filter(|_| voter.quorum.holds());
        leader.and_then(|leader| self.directory.node_of(leader))
    }

    /// Whether this node can have a request answered. An election ends before a request fails for lack of a leader, so that
    /// nothing is said of it: a voter counts for as long as agents stay with it, and an agent for as long after the last
    /// leader.
    #[must_use]
    pub fn is_served(&self) -> bool {
        match self.seat.get() {
            Some(voter) => voter.quorum.holds(),
            None => self.directory.is_led(LAPSE),
        }
    }

    /// Whether this node leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        let role = |voter: VoterParts| voter.consensus.status().borrow().role;
        self.seat.get().map(role) == Some(Role::Leader)
    }

    /// What a voter has; `None` while this node is an agent.
    #[must_use]
    pub fn voter(&self) -> Option<VoterParts> {
        self.seat.get()
    }

    /// Whether this node could make an endpoint.
    #[must_use]
    pub fn check(&self) -> &EndpointCheck {
        &self.check
    }

    /// Makes a network.
    pub async fn create_network(
        &self,
        request: CreateNetwork,
    ) -> Result<NetworkInfo, ControllerError> {
        self.at_leader(request, LEADER_DEADLINE).await
    }

    /// Lists all networks, by id.
    pub async fn list_networks(
        &self,
        reading: Reading,
    ) -> Result<Read<Rows<NetworkInfo>>, ControllerError> {
        self.read(ListNetworks, reading).await
    }

    /// Shows a network with its endpoints.
    pub async fn inspect_network(
        &self,
        request: InspectNetwork,
        reading: Reading,
    ) -> Result<Read<NetworkDetail>, ControllerError> {
        self.read(request, reading).await
    }

    /// Removes a network that has no endpoints.
    pub async fn remove_network(&self, request: RemoveNetwork) -> Result<Removed, ControllerError> {
        self.at_leader(request, LEADER_DEADLINE).await
    }

    /// Makes an endpoint.
    pub async fn create_endpoint(
        &self,
        request: CreateEndpoint,
    ) -> Result<EndpointCreated, ControllerError> {
        self.at_leader(request, LEADER_DEADLINE).await
    }

    /// Lists endpoints, by id.
    pub async fn list_endpoints(
        &self,
        request: ListEndpoints,
        reading: Reading,
    ) -> Result<Read<Rows<EndpointInfo>>, ControllerError> {
        self.read(request, reading).await
    }

    /// Shows an endpoint.
    pub async fn inspect_endpoint(
        &self,
        request: InspectEndpoint,
        reading: Reading,
    ) -> Result<Read<EndpointInfo>, ControllerError> {
        self.read(request, reading).await
    }

    /// Removes an endpoint.
    pub async fn remove_endpoint(
        &self,
        request: RemoveEndpoint,
    ) -> Result<EndpointRemoved, ControllerError> {
        self.at_leader(request, LEADER_DEADLINE).await
    }

    /// Lists all nodes, by id.
    pub async fn list_nodes(
        &self,
        reading: Reading,
    ) -> Result<Read<Rows<NodeInfo>>, ControllerError> {
        self.read(ListNodes, reading).await
    }

    /// Shows a node.
    pub async fn inspect_node(
        &self,
        request: InspectNode,
        reading: Reading,
    ) -> Result<Read<NodeInfo>, ControllerError> {
        self.read(request, reading).await
    }

    /// Removes a node. The endpoints of a node that is down go with it.
    pub async fn remove_node(&self, request: RemoveNode) -> Result<Removed, ControllerError> {
        self.at_leader(request, LEADER_DEADLINE).await
    }

    /// Gives a node a seat.
    pub async fn promote_node(&self, request: PromoteNode) -> Result<NodeInfo, ControllerError> {
        self.at_leader(request, LEADER_DEADLINE).await
    }

    /// Takes a node's seat.
    pub async fn demote_node(&self, request: DemoteNode) -> Result<NodeInfo, ControllerError> {
        self.at_leader(request, LEADER_DEADLINE).await
    }

    /// Sets how many nodes are to vote.
    pub async fn set_voters(&self, request: SetVoters) -> Result<VotersSet, ControllerError> {
        self.at_leader(request, LEADER_DEADLINE).await
    }

    /// Enters a node, or its new addresses.
    pub async fn register(&self, request: Register) -> Result<Joined, ControllerError> {
        self.at_leader(request, LEADER_DEADLINE).await
    }

    /// Says whether there are a network and an endpoint of it with these names. Each node asks at its start: that
    /// costs the same whatever else there is.
    pub async fn existing(
        &self,
        network: NetworkName,
        endpoint: EndpointName,
    ) -> Result<Existing, ControllerError> {
        let inspect = InspectNetwork { name: network.clone(), brief: true };
        let found_network = is_there(self.inspect_network(inspect, Reading::Latest).await)?;
        let inspect = InspectEndpoint { name: endpoint, network: Some(network) };
        let found_endpoint = is_there(self.inspect_endpoint(inspect, Reading::Latest).await)?;
        Ok(Existing { network: found_network, endpoint: found_endpoint })
    }
}

fn is_there<T>(found: Result<T, ControllerError>) -> Result<bool, ControllerError> {
    match found {
        Ok(_) => Ok(true),
        Err(ControllerError::Refused(Refusal::NoNetwork(_) | Refusal::NoEndpoint(_))) => Ok(false),
        Err(error) => Err(error),
    }
}
