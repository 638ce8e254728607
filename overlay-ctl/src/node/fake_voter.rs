//! A voter of the tests, behind a connection in memory or a port of this host: it says who it is, and takes every registration.

use crate::{
    control::peers::{Admission, Directory, Generations},
    proto::v1::{
        BackupPiece, BackupRequest, JoinRequest, JoinResponse, MemberRequest, MemberStatus,
        MembersRequest, MembersResponse, SetVotersRequest, SetVotersResponse, StatusRequest,
        StatusResponse,
        cluster_server::{Cluster, ClusterServer},
    },
};
use hyper_util::rt::TokioIo;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};
use tokio::{io::DuplexStream, net::TcpListener, sync::mpsc, time::Instant};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Request, Response, Status,
    transport::{Endpoint, Server, Uri, server::TcpIncoming},
};
use uuid::Uuid;

pub(crate) fn at(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 7400).into()
}

struct Voter {
    status: StatusResponse,
    answer: JoinResponse,
    joined: mpsc::UnboundedSender<Instant>,
}

#[tonic::async_trait]
impl Cluster for Voter {
    type BackupStream = tokio_stream::Empty<Result<BackupPiece, Status>>;

    async fn backup(
        &self,
        _: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented("nobody asks for one"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.status.clone()))
    }

    async fn member(&self, _: Request<MemberRequest>) -> Result<Response<MemberStatus>, Status> {
        Err(Status::unimplemented("no node asks for it"))
    }

    async fn members(
        &self,
        _: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        Err(Status::unimplemented("no node asks for it"))
    }

    async fn set_voters(
        &self,
        _request: Request<SetVotersRequest>,
    ) -> Result<Response<SetVotersResponse>, Status> {
        Err(Status::unimplemented("no node asks for it"))
    }

    /// Who asks for another life gets one, which nobody had.
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let heard = self.joined.send(Instant::now());
        heard.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut answer = self.answer.clone();
        if answer.life_used && !request.get_ref().log_lost.is_empty() {
            (answer.raft_id, answer.life_used) = (answer.raft_id + 1, false);
        }
        Ok(Response::new(answer))
    }
}

/// Serves a voter of `cluster` behind the directory's connection to `place`. Returns when it was asked to take a node in.
pub(crate) fn serve(
    cluster: Uuid,
    (directory, place): (&Directory, SocketAddr),
    status: StatusResponse,
    answer: JoinResponse,
) -> mpsc::UnboundedReceiver<Instant> {
    let (connections, incoming) = mpsc::unbounded_channel::<io::Result<DuplexStream>>();
    let connector = tower::service_fn(move |_: Uri| {
        let (client, server) = tokio::io::duplex(1 << 16);
        let sent = connections.send(Ok(server));
        async move { sent.map(|()| TokioIo::new(client)).map_err(io::Error::other) }
    });
    let (joined, joins) = mpsc::unbounded_channel();
    let server = Server::builder()
        .layer(Admission::new(cluster, Generations::default()))
        .add_service(ClusterServer::new(Voter { status, answer, joined }))
        .serve_with_incoming(UnboundedReceiverStream::new(incoming));
    tokio::spawn(server);
    let channel = Endpoint::from_static("http://voter").connect_with_connector_lazy(connector);
    directory.put_channel(place, channel);
    joins
}

/// Serves a node of `cluster` that takes nobody in, at a port of this host.
pub(crate) async fn listen(cluster: Uuid, status: StatusResponse) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let place = listener.local_addr().unwrap();
    let node =
        Voter { status, answer: JoinResponse::default(), joined: mpsc::unbounded_channel().0 };
    let server = Server::builder()
        .layer(Admission::new(cluster, Generations::default()))
        .add_service(ClusterServer::new(node))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    place
}
