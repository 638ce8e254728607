//! A client of the API on the node's unix socket. Its requests end within a deadline, and a repeated
//! request is carried out only once.

use super::error::Error;
use crate::proto::v1::{
    cluster_client::ClusterClient, endpoints_client::EndpointsClient,
    networks_client::NetworksClient, nodes_client::NodesClient, watch_client::WatchClient,
};
use hyper_util::rt::TokioIo;
use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint, Uri},
};

/// Longest time that a request may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Longest time of a request that waits until every node concerned has programmed the change.
pub(super) const WAIT_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of the longest answer: a list of all endpoints of a large cluster is far above gRPC's default of
/// 4 MiB.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The client of one node.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Sends the request, and sends it once more if the connection is lost before the answer. Both have the
    /// same request id, so that the cluster carries out only one of them.
    pub(super) async fn call<Req: Clone, Answer>(
        &self,
        deadline: Duration,
        request: Req,
        rpc: impl AsyncFn(Channel, Req) -> Result<Response<Answer>, Status>,
    ) -> Result<Answer, Error> {
        self.ask(deadline, request, rpc).await.map(Response::into_inner)
    }

    /// As [`Self::call`]; answers the metadata, too.
    pub(super) async fn ask<Req: Clone, Answer>(
        &self,
        deadline: Duration,
        request: Req,
        rpc: impl AsyncFn(Channel, Req) -> Result<Response<Answer>, Status>,
    ) -> Result<Response<Answer>, Error> {
        let attempt = async || {
            let channel = self.connect().await?;
            rpc(channel, request.clone()).await.map_err(from_status)
        };
        let twice = async {
            match attempt().await {
                Err(Error::Lost { .. }) => attempt().await,
                answer => answer,
            }
        };
        timeout(deadline, twice).await.unwrap_or(Err(Error::Deadline(deadline)))
    }

    async fn connect(&self) -> Result<Channel, Error> {
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        // HTTP/2 needs an authority; this one is never resolved.
        Endpoint::from_static("http://node.overlay")
            .connect_with_connector(connector)
            .await
            .map_err(|error| no_connection(&self.socket, &error))
    }
}

/// 16 random bytes that identify one mutation, even if it is sent several times.
pub(super) fn request_id() -> Vec<u8> {
    uuid::Uuid::new_v4().into_bytes().to_vec()
}

pub(super) fn networks(channel: Channel) -> NetworksClient<Channel> {
    NetworksClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

pub(super) fn endpoints(channel: Channel) -> EndpointsClient<Channel> {
    EndpointsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

pub(super) fn nodes(channel: Channel) -> NodesClient<Channel> {
    NodesClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

pub(super) fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel)
}

pub(super) fn watch(channel: Channel) -> WatchClient<Channel> {
    WatchClient::new(channel)
}

/// Tells a refusal by the node from a lost connection: a status that the node sent has no source, a status
/// that the client library made from a broken connection has one.
pub(super) fn from_status(status: Status) -> Error {
    match status.source() {
        Some(source) => Error::Lost { reason: root(source).to_string() },
        None => Error::Refused(status),
    }
}

fn no_connection(socket: &Path, error: &(dyn StdError + 'static)) -> Error {
    let socket = socket.to_owned();
    let root = root(error);
    match root.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => Error::NotAllowed { socket },
        Some(io::ErrorKind::NotFound) => {
            Error::NoNode { socket, reason: "there is no such socket".to_owned() }
        }
        Some(io::ErrorKind::ConnectionRefused) => {
            Error::NoNode { socket, reason: "nothing listens on it".to_owned() }
        }
        _ => Error::NoNode { socket, reason: root.to_string() },
    }
}

fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_of_somebody_else_asks_for_root() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = no_connection(Path::new("/run/overlay/overlay.sock"), &denied);
        assert_eq!(
            error.to_string(),
            "cannot open /run/overlay/overlay.sock; permission denied; run as root"
        );
    }
}
