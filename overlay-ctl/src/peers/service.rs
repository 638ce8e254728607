use crate::{
    consensus::Consensus,
    node::EndpointCheck,
    proto::internal::{
        CheckEndpointRequest, CheckEndpointResponse, RaftMessage, RaftResponse, ReportResponse,
        StatusReport, WatchDown, WatchUp, peers_server::Peers,
    },
    state::{Machine, SharedState},
    watch::{Quorum, StatusTable, serve_agent},
};
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// The voter's half of a node: what an agent does not have.
#[derive(Clone)]
pub struct VoterParts {
    /// The log.
    pub consensus: Consensus<Machine>,
    /// What it makes.
    pub state: SharedState,
    /// Who programmed what.
    pub table: StatusTable,
    /// Whether it takes part in a quorum.
    pub quorum: Quorum,
}

/// What a node answers to its peers.
pub struct PeersService {
    voter: Option<VoterParts>,
    check: EndpointCheck,
}

impl PeersService {
    /// `voter` is `None` on an agent. Who may call is decided before: see [`super::Admission`].
    #[must_use]
    pub fn new(voter: Option<VoterParts>, check: EndpointCheck) -> Self {
        Self { voter, check }
    }

    fn voter(&self) -> Result<&VoterParts, Status> {
        self.voter.as_ref().ok_or_else(|| Status::unimplemented("this node is an agent"))
    }
}

#[tonic::async_trait]
impl Peers for PeersService {
    async fn raft(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftResponse>, Status> {
        let consensus = self.voter()?.consensus.clone();
        let mut messages = request.into_inner();
        while let Some(message) = messages.next().await {
            if let Err(error) = consensus.step(message?.data) {
                // Raft repeats what was lost; a full queue must not end the stream.
                tracing::debug!(%error, "raft message dropped");
            }
        }
        Ok(Response::new(RaftResponse {}))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchDown, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchUp>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let VoterParts { state, table, quorum, consensus } = self.voter()?.clone();
        let cluster = consensus.status();
        let down = serve_agent(state, table, cluster, quorum, request.into_inner()).await?;
        Ok(Response::new(Box::pin(down)))
    }

    async fn report(
        &self,
        request: Request<Streaming<StatusReport>>,
    ) -> Result<Response<ReportResponse>, Status> {
        let table = self.voter()?.table.clone();
        let mut reports = request.into_inner();
        while let Some(report) = reports.next().await {
            for status in report?.nodes {
                table.record_report(status);
            }
        }
        Ok(Response::new(ReportResponse {}))
    }

    async fn check_endpoint(
        &self,
        request: Request<CheckEndpointRequest>,
    ) -> Result<Response<CheckEndpointResponse>, Status> {
        Ok(Response::new(self.check.check(request.into_inner()).await))
    }
}
