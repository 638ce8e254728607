//! The service that nodes offer one another: Raft messages, watch streams, reports, and checks.

use crate::{
    control::{peers::CLUSTER, voter::VoterParts, watch::serve_agent},
    dataplane::host::EndpointCheck,
    proto::internal::{
        CheckEndpointRequest, CheckEndpointResponse, RaftMessage, RaftResponse, ReportResponse,
        StatusReport, WatchDown, WatchUp, peers_server::Peers,
    },
};
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// What a node answers to its peers.
pub struct PeersService {
    cluster: Uuid,
    voter: Option<VoterParts>,
    check: EndpointCheck,
}

impl PeersService {
    /// For a node of `cluster`; `voter` is `None` on an agent.
    #[must_use]
    pub fn new(cluster: Uuid, voter: Option<VoterParts>, check: EndpointCheck) -> Self {
        Self { cluster, voter, check }
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let named = request.metadata().get(CLUSTER).and_then(|value| value.to_str().ok());
        if named == Some(self.cluster.to_string().as_str()) {
            return Ok(());
        }
        Err(Status::permission_denied(format!("this is a node of cluster {}", self.cluster)))
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
        self.admit(&request)?;
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
        self.admit(&request)?;
        let VoterParts { state, table, consensus, leaving: _ } = self.voter()?.clone();
        let down = serve_agent(state, table, consensus.status(), request.into_inner()).await?;
        Ok(Response::new(Box::pin(down)))
    }

    async fn report(
        &self,
        request: Request<Streaming<StatusReport>>,
    ) -> Result<Response<ReportResponse>, Status> {
        self.admit(&request)?;
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
        self.admit(&request)?;
        Ok(Response::new(self.check.check(request.into_inner()).await))
    }
}
