//! Connections in memory to the voters of the tests.

use super::*;
use crate::{
    control::peers::{Admission, Generations},
    proto::internal::peers_server::PeersServer,
};
use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::DuplexStream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Endpoint, Server, Uri};

/// Serves the voter behind the directory's connection to it.
pub(super) fn serve(cluster: Uuid, id: NodeId, directory: &Directory, voter: &Voter) {
    serve_at(cluster, listen(id), directory, voter);
}

/// Serves the voter behind the directory's connection to `place`.
pub(super) fn serve_at(cluster: Uuid, place: SocketAddr, directory: &Directory, voter: &Voter) {
    let (connections, incoming) = mpsc::unbounded_channel::<io::Result<DuplexStream>>();
    let connector = tower::service_fn(move |_: Uri| {
        let (client, server) = tokio::io::duplex(1 << 16);
        let sent = connections.send(Ok(server));
        async move { sent.map(|()| TokioIo::new(client)).map_err(io::Error::other) }
    });
    let channel = Endpoint::from_static("http://voter").connect_with_connector_lazy(connector);
    directory.put_channel(place, channel);
    let server = Server::builder()
        .layer(Admission::new(cluster, Generations::default()))
        .add_service(PeersServer::new(voter.service.clone()))
        .serve_with_incoming(UnboundedReceiverStream::new(incoming));
    tokio::spawn(server);
}

/// A connection to nobody.
pub(super) fn nobody() -> tonic::transport::Channel {
    let connector = tower::service_fn(|_: Uri| async {
        Err::<TokioIo<DuplexStream>, _>(io::Error::from(io::ErrorKind::ConnectionRefused))
    });
    Endpoint::from_static("http://nobody").connect_with_connector_lazy(connector)
}

/// What linearizable reads prove of a voter while it serves.
pub(super) async fn prove(quorum: Quorum, mode: watch::Receiver<Mode>) {
    loop {
        if *mode.borrow() == Mode::Serving {
            quorum.proved_at(Instant::now());
        }
        sleep(Duration::from_millis(500)).await;
    }
}
