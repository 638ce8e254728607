//! Calls to another node that have one answer: a forwarded request, a check of a new endpoint, and a registration.

use super::{Client, Directory, Peer, connect_lazy};
use crate::{
    model::{NodeId, Revision},
    proto::{
        internal::{
            BackupRequest, CheckEndpointRequest, CheckEndpointResponse, ForwardRequest,
            ForwardResponse, forward_response::Outcome,
        },
        v1::{
            JoinRequest, JoinResponse, MemberRequest, MemberStatus, StatusRequest, StatusResponse,
            cluster_client::ClusterClient,
        },
    },
};
use std::{net::SocketAddr, time::Duration};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Response, Status, metadata::MetadataMap, metadata::MetadataValue};
use uuid::Uuid;

/// Metadata of the refusal by which a node learns that it was removed from the cluster.
const REMOVED: &str = "overlay-node-removed";
/// Metadata of the refusal by which a process learns that another one runs as its node.
const ELSEWHERE: &str = "overlay-node-runs-elsewhere";

/// Why a call to another node gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The status was `UNAVAILABLE`: the node was not reached, it can't serve now, or the connection was lost during
    /// the call. So the call may have had an effect. Another node can be asked.
    #[error("{0}")]
    Unavailable(String),
    /// The connection broke during the call, perhaps after a long wait. The call may have had an effect.
    #[error("{0}")]
    Broken(String),
    /// The node is of a version that has no such call.
    #[error("{0}")]
    Unknown(String),
    /// The node refused the call before it had an effect.
    #[error("{0}")]
    Refused(String),
    /// The call failed at the node or on its way, with a status that does not tell how far it came: the answer was
    /// longer than the connection carries, for example. The call may have had an effect.
    #[error("{0}")]
    Failed(String),
    /// The node refused the call because the cluster has removed the caller.
    #[error("this node was removed from the cluster")]
    Removed,
    /// The node refused the call because another process runs as the caller's node.
    #[error("{0}")]
    RunsElsewhere(String),
}

impl From<Status> for CallError {
    /// A connection that breaks during a call gives whatever code its transport error maps to, with that
    /// error as source.
    fn from(status: Status) -> Self {
        let why = with_cause(&status);
        if status.code() == Code::Unavailable {
            return Self::Unavailable(why);
        }
        if std::error::Error::source(&status).is_some() {
            return Self::Broken(why);
        }
        if status.metadata().contains_key(REMOVED) {
            return Self::Removed;
        }
        if is_elsewhere(&status) {
            return Self::RunsElsewhere(why);
        }
        match status.code() {
            Code::Unimplemented => Self::Unknown(why),
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition => Self::Refused(why),
            _ => Self::Failed(why),
        }
    }
}

/// The status' message, and what is behind it: of a connection that fails the message says no more than that.
fn with_cause(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    while let Some(next) = cause.and_then(std::error::Error::source) {
        cause = Some(next);
    }
    let why = status.message().to_owned();
    match cause.map(ToString::to_string).filter(|cause| !why.contains(cause.as_str())) {
        Some(cause) => format!("{why}: {cause}"),
        None => why,
    }
}

/// Marks a refusal as the one that a removed node understands: [`CallError::Removed`].
pub fn mark_removed(metadata: &mut MetadataMap) {
    metadata.insert(REMOVED, MetadataValue::from_static("1"));
}

/// Marks a refusal as the one that a second process of a node understands: [`CallError::RunsElsewhere`].
pub fn mark_elsewhere(metadata: &mut MetadataMap) {
    metadata.insert(ELSEWHERE, MetadataValue::from_static("1"));
}

/// Whether it is a refusal that [`mark_elsewhere`] marked.
pub(super) fn is_elsewhere(status: &Status) -> bool {
    status.metadata().contains_key(ELSEWHERE)
}

impl Directory {
    /// Forwards a request of the controller's to `peer`, which may look for a leader for as long as `patience`.
    /// Answers the bytes of the peer's answer, or those of its error.
    ///
    /// # Errors
    /// There is neither.
    pub async fn forward(
        &self,
        peer: &Peer,
        request: Vec<u8>,
        patience: Duration,
    ) -> Result<Result<Vec<u8>, Vec<u8>>, CallError> {
        let (outcome, _) = self.send(peer, request, patience, false).await?;
        Ok(outcome)
    }

    /// Forwards a request that `peer`, a voter, answers by its own state, without a leader. With the answer, or the error,
    /// comes the revision of that state; `None` if the peer is of a version that asks the leader, for as long as `patience`.
    ///
    /// # Errors
    /// There is neither.
    pub async fn forward_stale(
        &self,
        peer: &Peer,
        request: Vec<u8>,
        patience: Duration,
    ) -> Result<(Result<Vec<u8>, Vec<u8>>, Option<Revision>), CallError> {
        self.send(peer, request, patience, true).await
    }

    async fn send(
        &self,
        peer: &Peer,
        request: Vec<u8>,
        patience: Duration,
        stale: bool,
    ) -> Result<(Result<Vec<u8>, Vec<u8>>, Option<Revision>), CallError> {
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let mut client: Client = self.client(peer);
        let request = ForwardRequest { request, patience_ms, stale };
        let ForwardResponse { outcome, as_of } = client.forward(request).await?.into_inner();
        let as_of = Some(as_of).filter(|revision| *revision > 0);
        match outcome {
            Some(Outcome::Answer(answer)) => Ok((Ok(answer), as_of)),
            Some(Outcome::Error(error)) => Ok((Err(error), as_of)),
            None => Err(CallError::Unknown("it answered nothing that this version knows".into())),
        }
    }

    /// Has `peer`, a voter, make a backup, which comes in pieces.
    ///
    /// # Errors
    /// The peer was not reached or refused. Each piece fails as the call does.
    pub async fn backup(
        &self,
        peer: &Peer,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, CallError>> + Send + Unpin + use<>, CallError>
    {
        let pieces = self.client(peer).backup(BackupRequest {}).await?.into_inner();
        Ok(pieces.map(|piece| Ok(piece?.data)))
    }

    /// Asks `peer` whether it could make an endpoint.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn check_endpoint(
        &self,
        peer: &Peer,
        request: CheckEndpointRequest,
    ) -> Result<CheckEndpointResponse, CallError> {
        Ok(self.client(peer).check_endpoint(request).await?.into_inner())
    }

    /// The id of the node that listens at `place` if that is of this cluster.
    ///
    /// # Errors
    /// The node there was not reached, or is of another cluster.
    pub async fn node_at(&self, place: SocketAddr) -> Result<NodeId, CallError> {
        Ok(self.status_at(place).await?.node_id)
    }

    /// What the node says of itself that listens at `place` if that is of this cluster, and of this node's generation or of a
    /// newer one.
    ///
    /// # Errors
    /// As [`Self::node_at`].
    pub async fn status_at(&self, place: SocketAddr) -> Result<StatusResponse, CallError> {
        let channel = self.channel(place).or_newer();
        answer(ClusterClient::new(channel).status(StatusRequest {})).await
    }

    /// What the node that listens at `place` says of its log and of the voters, if that is of this cluster and generation.
    ///
    /// # Errors
    /// As [`Self::node_at`]; [`CallError::Unknown`] if its program is an earlier one.
    pub async fn member_at(&self, place: SocketAddr) -> Result<MemberStatus, CallError> {
        answer(ClusterClient::new(self.channel(place)).member(MemberRequest {})).await
    }

    /// Registers this node anew at the node that listens at `place` if that is of this cluster, and of this node's generation or
    /// of a newer one.
    ///
    /// # Errors
    /// The node there was not reached or refused.
    pub async fn join(
        &self,
        place: SocketAddr,
        request: JoinRequest,
    ) -> Result<JoinResponse, CallError> {
        answer(ClusterClient::new(self.channel(place).or_newer()).join(request)).await
    }
}

/// Asks the node that listens at `place`, of whatever cluster it is, to take this node in.
///
/// # Errors
/// The node there was not reached or refused.
pub async fn join(place: SocketAddr, request: JoinRequest) -> Result<JoinResponse, CallError> {
    answer(ClusterClient::new(connect_lazy(place)).join(request)).await
}

/// The cluster of the node that listens at `place`; `None` if nobody there says it.
pub async fn cluster_at(place: SocketAddr) -> Option<Uuid> {
    let status = answer(ClusterClient::new(connect_lazy(place)).status(StatusRequest {})).await;
    status.ok()?.cluster.parse().ok()
}

async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    Ok(call.await?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_codes_say_that_the_call_had_no_effect() {
        let why = || "why".to_owned();
        let error = |code| CallError::from(Status::new(code, why()));
        for refused in [
            Code::PermissionDenied,
            Code::Unauthenticated,
            Code::InvalidArgument,
            Code::NotFound,
            Code::AlreadyExists,
            Code::FailedPrecondition,
        ] {
            assert_eq!(error(refused), CallError::Refused(why()), "{refused:?}");
        }
        for failed in [
            Code::Internal,
            Code::Cancelled,
            Code::OutOfRange,
            Code::ResourceExhausted,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::DataLoss,
            Code::Unknown,
        ] {
            assert_eq!(error(failed), CallError::Failed(why()), "{failed:?}");
        }
        assert_eq!(error(Code::Unavailable), CallError::Unavailable(why()));
        let mut refused = Status::new(Code::Unavailable, "tcp connect error");
        refused.set_source(std::sync::Arc::new(std::io::Error::other("Connection refused")));
        let said = CallError::Unavailable("tcp connect error: Connection refused".to_owned());
        assert_eq!(CallError::from(refused), said);
        assert_eq!(error(Code::Unimplemented), CallError::Unknown(why()));
    }
}
