//! What a node can be asked.

pub(crate) mod check;

use crate::{
    control::{
        consensus::ProposeError,
        peers::Directory,
        state::{Applied, Command, Decision, Envelope, Mutation, View},
        voter::VoterParts,
    },
    dataplane::{
        datapath::Whereabouts,
        host::{EndpointCheck, Monitor, SharedDatapath},
        kernel::LocalStatus,
    },
    faces::api::{Lists, error::refused},
    model::{NodeId, NodeName, Subnet},
};
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::watch;
use tonic::Status;
use uuid::Uuid;

/// What a node is, for its API.
pub struct Controller {
    /// Its cluster.
    pub cluster: Uuid,
    /// Its Raft id.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Who is where.
    pub directory: Directory,
    /// `None` on an agent.
    pub voter: Option<VoterParts>,
    /// What it knows of the cluster; `None` before it knows anything.
    pub view: watch::Receiver<Option<Arc<View>>>,
    /// What its kernel holds.
    pub status: watch::Receiver<LocalStatus>,
    /// Its maps.
    pub datapath: SharedDatapath,
    /// Its packets, as they are dropped or sampled; told by the kernel only while somebody listens.
    pub monitor: Monitor,
    /// Whom they are of.
    pub whereabouts: Whereabouts,
    /// Whether it could make an endpoint.
    pub check: EndpointCheck,
    /// What does not change about its data path.
    pub info: DatapathInfo,
    /// Where its metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
    /// Who makes its long answers.
    pub lists: Lists,
}

/// What does not change about a node's data path while the node runs.
#[derive(Clone, Debug)]
pub struct DatapathInfo {
    /// Device.
    pub underlay: String,
    /// The node's address on it.
    pub vtep: std::net::Ipv4Addr,
    /// VXLAN's UDP port.
    pub vxlan_port: u16,
    /// The VXLAN device that only exists.
    pub gro_device: String,
    /// Folder of the pins.
    pub bpffs: String,
    /// The subnet of the gateway bridge.
    pub gateway: Subnet,
}

/// Why an attempt at the leader gave no answer.
pub(crate) enum Attempt {
    /// It is the answer.
    Failed(Status),
    /// This node does not lead (any more), or lost its quorum meanwhile: find the leader and try
    /// again, with the same request id.
    Again(&'static str),
}

impl From<Status> for Attempt {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

impl From<ProposeError> for Attempt {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { .. } => Self::Again("the leader is not known"),
            ProposeError::Dropped => Self::Again("the leader changed"),
            ProposeError::NoQuorum => Self::Again("no quorum of the voters answers"),
            ProposeError::Overloaded => Self::Failed(Status::resource_exhausted(
                "too many requests wait already; try again later",
            )),
            ProposeError::Stopped => Self::Failed(Status::unavailable("the node is stopping")),
            ProposeError::Invalid(why) => Self::Failed(Status::invalid_argument(why)),
            ProposeError::Refused(why) => Self::Failed(Status::failed_precondition(why)),
        }
    }
}

impl VoterParts {
    /// Carries out a command at the leader: refused before anything is logged if it can be foretold,
    /// logged once whatever the number of attempts. What it answers is the command's own kind.
    pub(crate) async fn execute(
        &self,
        request: Mutation,
        mut command: Command,
    ) -> Result<Applied, Attempt> {
        match self.foretell(request, &command).await? {
            Foretold::Done(applied) => return Ok(applied),
            Foretold::New(decision) => decision.bind(&mut command),
        }
        let entry = Envelope::new(request, command).encode();
        let entry = entry.map_err(|error| Status::internal(error.to_string()))?;
        let (_, outcome) = self.consensus.propose(entry).await?;
        outcome.map_err(|refusal| Attempt::Failed(refused(&refusal)))
    }

    /// Fails if the command would be refused; gives the answer if the request was carried out
    /// before. Reads the state linearizably.
    pub(crate) async fn foretell(
        &self,
        request: Mutation,
        command: &Command,
    ) -> Result<Foretold, Attempt> {
        self.consensus.read_index().await?;
        let foretold = self.state.read(|state| {
            match state.recall(&request.id, Some(request.asked), command) {
                Some(outcome) => outcome.map(Foretold::Done),
                None => state.decide(state.revision() + 1, command.clone()).map(Foretold::New),
            }
        });
        foretold.map_err(|refusal| Attempt::Failed(refused(&refusal)))
    }
}

/// What a request would do.
pub(crate) enum Foretold {
    /// Nothing: it was carried out before, and this is its answer.
    Done(Applied),
    /// This.
    New(Decision),
}
