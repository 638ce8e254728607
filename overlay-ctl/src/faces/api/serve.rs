//! Serves the API to users and the service between nodes to peers, on connections that were accepted elsewhere.

use super::{PeersService, health::Told, routes};
use crate::{
    control::{
        controller::Controller,
        peers::{Admission, MESSAGE_MAX},
    },
    faces::ServedNode,
    proto::internal::peers_server::PeersServer,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpStream, UnixListener},
    sync::mpsc,
};
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{self, Server};

/// A peer lost to power is found out after this, and its connection given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Why the API is not served (any more).
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The API can't be put together.
    #[error("the API's descriptors can't be read")]
    Descriptors(#[from] tonic_reflection::server::Error),
    /// The server ended by itself.
    #[error("the API ended")]
    Transport(#[from] transport::Error),
}

fn peers(controller: Controller) -> PeersServer<PeersService> {
    PeersServer::new(PeersService::new(controller))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}

/// Serves the API on both kinds of sockets, and the other nodes with all that is not Raft's over TCP. Ends soon after
/// `stop`; before the sockets are closed, the health of all services says so.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    node: Arc<ServedNode>,
    admission: Admission,
    tcp: mpsc::Receiver<std::net::TcpStream>,
    unix: UnixListener,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let peers = peers(node.controller.clone());
    let (reporter, health) = tonic_health::server::health_reporter();
    let local = routes(Arc::clone(&node), health.clone())?;
    let remote = routes(Arc::clone(&node), health)?.add_service(peers);
    let close = CancellationToken::new();
    let told = Told::new(reporter, &node.facts()).await;
    let told = async {
        told.follow(|| node.facts(), node.status.clone(), stop).await;
        close.cancel();
        Ok::<_, transport::Error>(())
    };
    let unix =
        Server::builder().layer(admission.clone()).add_routes(local).serve_with_incoming_shutdown(
            UnixListenerStream::new(unix),
            close.clone().cancelled_owned(),
        );
    let tcp = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(admission)
        .add_routes(remote)
        .serve_with_incoming_shutdown(
            ReceiverStream::new(tcp).map(TcpStream::from_std),
            close.clone().cancelled_owned(),
        );
    tokio::try_join!(unix, tcp, told)?;
    Ok(())
}

/// Serves the service between nodes on Raft's own connections.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve_raft(
    controller: Controller,
    admission: Admission,
    connections: mpsc::Receiver<TcpStream>,
) -> Result<(), ServeError> {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(admission)
        .add_service(peers(controller))
        .serve_with_incoming(ReceiverStream::new(connections).map(Ok::<_, io::Error>))
        .await?;
    Ok(())
}
