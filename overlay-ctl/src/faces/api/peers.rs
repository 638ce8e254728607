//! The service that nodes offer one another: Raft messages, watch streams, reports, checks and forwarded requests.

use crate::{
    control::{
        consensus::ProposeError, controller::Controller, peers::StreamHold, voter::VoterParts,
        watch::serve_agent,
    },
    proto::internal::{
        BackupPiece, BackupRequest, CheckEndpointRequest, CheckEndpointResponse, ForwardRequest,
        ForwardResponse, RaftMessage, RaftResponse, ReportResponse, StatusReport, WatchDown,
        WatchUp, forward_response::Outcome, peers_server::Peers,
    },
};
use std::{pin::Pin, time::Duration};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// The longest request that one node forwards to another, in bytes. The other messages may be longer: they carry rows
/// and parts of the log.
const FORWARDED_MAX: usize = 4 << 20;

/// What a node answers to its peers.
pub struct PeersService(Controller);

impl PeersService {
    /// Who may call is decided before: see [`Admission`](crate::control::peers::Admission).
    #[must_use]
    pub fn new(controller: Controller) -> Self {
        Self(controller)
    }

    fn voter(&self) -> Result<VoterParts, Status> {
        self.0.voter().ok_or_else(|| Status::unimplemented("this node is an agent"))
    }
}

#[tonic::async_trait]
impl Peers for PeersService {
    async fn raft(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftResponse>, Status> {
        let consensus = self.voter()?.consensus;
        let mut messages = request.into_inner();
        let own = consensus.status().borrow().id;
        let mut hold: Option<StreamHold> = None;
        while let Some(message) = messages.next().await {
            let RaftMessage { to, data, places, incarnation } = message?;
            let directory = self.0.directory();
            match (&hold, places.first()) {
                (Some(hold), _) => hold.check()?,
                (None, Some(sender)) => {
                    hold = directory.hold_stream(sender.node_id, &incarnation, &sender.listen)?;
                }
                (None, None) => {}
            }
            // Also where another is meant: nodes that have each other's addresses would find nobody otherwise.
            directory.told(&places);
            if to != own {
                // The sender has other places to try.
                let why = format!("this is member {own}, not member {to}");
                return Err(Status::failed_precondition(why));
            }
            let stepped = consensus.step(data);
            if stepped == Err(ProposeError::Stopped) {
                // The node lost its seat, or is about to end: the sender looks for the member elsewhere.
                return Err(Status::unavailable(format!("member {own} is no more")));
            }
            if let Err(error) = stepped {
                // Raft repeats what was lost; a full queue must not end the stream.
                tracing::debug!(%error, "raft message dropped");
            }
        }
        Ok(Response::new(RaftResponse {}))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupPiece, Status>> + Send>>;

    async fn backup(
        &self,
        _request: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        // An agent would ask another one.
        self.voter()?;
        let pieces = self.0.backup().await?;
        let pieces = pieces.map(|piece| Ok(BackupPiece { data: piece? }));
        Ok(Response::new(Box::pin(pieces)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchDown, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchUp>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let VoterParts { state, table, quorum, consensus, leaving: _ } = self.voter()?;
        let cluster = consensus.status();
        let directory = self.0.directory().clone();
        let up = request.into_inner();
        let down = serve_agent(state, table, cluster, quorum, directory, up).await?;
        Ok(Response::new(Box::pin(down)))
    }

    async fn report(
        &self,
        request: Request<Streaming<StatusReport>>,
    ) -> Result<Response<ReportResponse>, Status> {
        let VoterParts { table, state, .. } = self.voter()?.clone();
        let mut reports = request.into_inner();
        while let Some(report) = reports.next().await {
            let StatusReport { nodes, node_id, differs_at } = report?;
            for status in nodes {
                table.record_report(status);
            }
            if node_id != 0
                && let Some(told) = state.hashes().to_tell(node_id, differs_at)
            {
                return Ok(Response::new(told));
            }
        }
        Ok(Response::new(ReportResponse::default()))
    }

    async fn check_endpoint(
        &self,
        request: Request<CheckEndpointRequest>,
    ) -> Result<Response<CheckEndpointResponse>, Status> {
        Ok(Response::new(self.0.check().check(request.into_inner()).await))
    }

    async fn forward(
        &self,
        request: Request<ForwardRequest>,
    ) -> Result<Response<ForwardResponse>, Status> {
        let ForwardRequest { request, patience_ms, stale } = request.into_inner();
        if request.len() > FORWARDED_MAX {
            let why = format!("a forwarded request is longer than {} MiB", FORWARDED_MAX >> 20);
            return Err(Status::invalid_argument(why));
        }
        let patience = Duration::from_millis(patience_ms);
        let answered = if stale {
            self.0.answer_stale(&request).await
        } else {
            self.0.answer_forwarded(&request, patience).await.map(|answer| (answer, 0))
        };
        let (outcome, as_of) = match answered {
            Ok((answer, as_of)) => (Outcome::Answer(answer), as_of),
            Err(error) => (Outcome::Error(error), 0),
        };
        Ok(Response::new(ForwardResponse { outcome: Some(outcome), as_of }))
    }
}
