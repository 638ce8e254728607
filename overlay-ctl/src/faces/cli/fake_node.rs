//! A fake node for tests: a real gRPC server on a unix socket, with prepared answers.

use crate::proto::v1::{
    cluster_server::{Cluster, ClusterServer},
    endpoints_server::{Endpoints, EndpointsServer},
    networks_server::{Networks, NetworksServer},
    nodes_server::{Nodes, NodesServer},
    watch_server::{Watch, WatchServer},
    *,
};
use std::{
    os::unix::net::UnixListener as StdUnixListener,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// The fake node's behaviour when a network is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Answer,
    /// Accepts the request and never answers.
    Hang,
}

#[derive(Clone)]
struct Service {
    mode: Mode,
    created: mpsc::UnboundedSender<CreateNetworkRequest>,
    watched: Arc<Mutex<Watched>>,
    status: Arc<Mutex<StatusResponse>>,
    members: Arc<Mutex<Members>>,
    backup: Arc<Mutex<Vec<Result<BackupPiece, Status>>>>,
}

/// The events that a monitor gets, and the requests that it sent.
#[derive(Default)]
struct Watched {
    events: Vec<Event>,
    requests: Vec<EventsRequest>,
}

/// The nodes that the fake one knows, and its endpoints.
#[derive(Clone, Default)]
pub(super) struct Members {
    pub(super) nodes: Vec<Node>,
    pub(super) endpoints: Vec<Endpoint>,
    /// Why no node is removed.
    pub(super) refusal: Option<Status>,
    /// The nodes that were to be removed: name, id, and whether by force.
    pub(super) asked: Vec<(String, u64, bool)>,
    /// How the voters are.
    pub(super) voters: MembersResponse,
}

type Events = tokio_stream::Iter<std::vec::IntoIter<Result<Event, Status>>>;

#[tonic::async_trait]
impl Networks for Service {
    async fn create(
        &self,
        request: Request<CreateNetworkRequest>,
    ) -> Result<Response<Network>, Status> {
        let request = request.into_inner();
        self.created.send(request.clone()).unwrap();
        if self.mode == Mode::Hang {
            return std::future::pending().await;
        }
        if request.name == "taken" {
            return Err(Status::already_exists(
                "network with name taken already exists\nchoose another",
            ));
        }
        Ok(Response::new(Network {
            id: 1,
            name: request.name,
            vni: 4097,
            subnet: request.subnet,
            ip_range: request.ip_range,
            options: request.options,
            endpoint_count: 0,
            created_revision: 7,
        }))
    }

    async fn list(
        &self,
        request: Request<ListNetworksRequest>,
    ) -> Result<Response<ListNetworksResponse>, Status> {
        let answer = ListNetworksResponse { networks: Vec::new() };
        Ok(marked(answer, request.get_ref().stale))
    }

    async fn inspect(
        &self,
        request: Request<InspectNetworkRequest>,
    ) -> Result<Response<NetworkDetail>, Status> {
        let InspectNetworkRequest { name, brief: _, stale } = request.into_inner();
        // The answer about any other one lacks the network.
        let network = (name == "n").then(Network::default);
        let detail = NetworkDetail { network, ..NetworkDetail::default() };
        Ok(marked(detail, stale))
    }

    async fn remove(
        &self,
        request: Request<RemoveNetworkRequest>,
    ) -> Result<Response<RemoveNetworkResponse>, Status> {
        match request.into_inner().name.as_str() {
            "busy" => Err(Status::failed_precondition("network busy has 2 endpoints")),
            "gone" => Err(Status::unavailable("no quorum")),
            _ => Ok(Response::new(RemoveNetworkResponse { revision: 9 })),
        }
    }
}

/// An answer that shows revision 812, if it may be stale.
fn marked<T>(answer: T, stale: bool) -> Response<T> {
    let mut response = Response::new(answer);
    if stale {
        response.metadata_mut().insert("overlay-as-of", 812.into());
    }
    response
}

fn published() -> Vec<PublishedPort> {
    let published = |port: &str, host_port| PublishedPort {
        port: port.to_owned(),
        host_ip: "0.0.0.0".to_owned(),
        host_port,
    };
    vec![published("80/tcp", 32768), published("53/udp", 53)]
}

/// The answer to a creation always says that host2 has not programmed it yet.
#[tonic::async_trait]
impl Endpoints for Service {
    async fn create(
        &self,
        request: Request<CreateEndpointRequest>,
    ) -> Result<Response<CreateEndpointResponse>, Status> {
        let request = request.into_inner();
        let endpoint = Endpoint {
            name: request.name,
            network: request.network,
            node: "host1".to_owned(),
            address: "172.16.16.129/24".to_owned(),
            mac: "02:42:ac:10:10:81".to_owned(),
            published: if request.publish_all { published() } else { Vec::new() },
            ..Endpoint::default()
        };
        let lagging_nodes = vec!["host2".to_owned()];
        Ok(Response::new(CreateEndpointResponse { endpoint: Some(endpoint), lagging_nodes }))
    }

    async fn list(
        &self,
        request: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        let mut endpoints = self.members.lock().unwrap().endpoints.clone();
        endpoints.retain(|endpoint| endpoint.node == request.get_ref().node);
        Ok(Response::new(ListEndpointsResponse { endpoints }))
    }

    async fn inspect(
        &self,
        request: Request<InspectEndpointRequest>,
    ) -> Result<Response<Endpoint>, Status> {
        let InspectEndpointRequest { name, network: _, stale } = request.into_inner();
        let published = if name == "web1" { published() } else { Vec::new() };
        Ok(marked(Endpoint { published, ..Endpoint::default() }, stale))
    }

    async fn remove(
        &self,
        request: Request<RemoveEndpointRequest>,
    ) -> Result<Response<RemoveEndpointResponse>, Status> {
        let late = (request.get_ref().name == "late").then(|| "host2".to_owned());
        let lagging_nodes = late.into_iter().collect();
        Ok(Response::new(RemoveEndpointResponse { revision: 9, lagging_nodes }))
    }
}

#[tonic::async_trait]
impl Nodes for Service {
    /// Without nodes it is one of another version.
    async fn list(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let nodes = self.members.lock().unwrap().nodes.clone();
        if nodes.is_empty() {
            return Err(Status::unimplemented(""));
        }
        Ok(Response::new(ListNodesResponse { nodes }))
    }

    async fn inspect(
        &self,
        _request: Request<InspectNodeRequest>,
    ) -> Result<Response<Node>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn remove(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let request = request.into_inner();
        let mut members = self.members.lock().unwrap();
        members.asked.push((request.name, request.id, request.force));
        match members.refusal.clone() {
            Some(refusal) => Err(refusal),
            None => Ok(Response::new(RemoveNodeResponse { revision: 12 })),
        }
    }

    async fn promote(
        &self,
        request: Request<PromoteNodeRequest>,
    ) -> Result<Response<Node>, Status> {
        let PromoteNodeRequest { name, .. } = request.into_inner();
        Ok(Response::new(Node { id: 4, name, role: NodeRole::Learner.into(), ..Node::default() }))
    }

    async fn demote(&self, request: Request<DemoteNodeRequest>) -> Result<Response<Node>, Status> {
        let DemoteNodeRequest { name, .. } = request.into_inner();
        match self.members.lock().unwrap().refusal.clone() {
            Some(refusal) => Err(refusal),
            None => Ok(Response::new(Node {
                id: 4,
                name,
                role: NodeRole::Agent.into(),
                ..Node::default()
            })),
        }
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    type BackupStream = tokio_stream::Iter<std::vec::IntoIter<Result<BackupPiece, Status>>>;

    async fn backup(
        &self,
        _request: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let pieces = self.backup.lock().unwrap().clone();
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.status.lock().unwrap().clone()))
    }

    async fn join(&self, _request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("the command line joins nothing"))
    }

    async fn member(&self, _: Request<MemberRequest>) -> Result<Response<MemberStatus>, Status> {
        Err(Status::unimplemented("nodes ask this of each other"))
    }

    async fn members(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let answer = self.members.lock().unwrap().voters.clone();
        Ok(marked(answer, request.get_ref().stale))
    }

    async fn set_voters(
        &self,
        request: Request<SetVotersRequest>,
    ) -> Result<Response<SetVotersResponse>, Status> {
        Ok(Response::new(SetVotersResponse { voters: request.into_inner().voters }))
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type DropsStream = Events;
    type EventsStream = Events;

    async fn drops(&self, _request: Request<DropsRequest>) -> Result<Response<Events>, Status> {
        Err(Status::unimplemented("the command line asks for events"))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Events>, Status> {
        let mut watched = self.watched.lock().unwrap();
        watched.requests.push(request.into_inner());
        let events: Vec<_> = watched.events.drain(..).map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(events)))
    }
}

/// A server that runs until it is dropped, which also breaks every connection.
pub(super) struct Serving(Option<Runtime>);

impl Drop for Serving {
    fn drop(&mut self) {
        // Dropping a runtime waits for it, which is not allowed inside another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A socket, and the requests that reached it. [`Self::serve`] starts a server on it.
pub(super) struct FakeNode {
    _folder: TempDir,
    listener: StdUnixListener,
    pub(super) socket: PathBuf,
    service: Service,
    created: mpsc::UnboundedReceiver<CreateNetworkRequest>,
}

impl FakeNode {
    /// Listens. No server runs yet, so that a connection waits.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("overlay.sock");
        let listener = StdUnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (sender, created) = mpsc::unbounded_channel();
        let service = Service {
            mode: Mode::Answer,
            created: sender,
            watched: Arc::default(),
            status: Arc::default(),
            members: Arc::default(),
            backup: Arc::default(),
        };
        Self { _folder: folder, listener, socket, service, created }
    }

    /// Serves until the value is dropped.
    pub(super) fn serve(&self, mode: Mode) -> Serving {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = self.listener.try_clone().unwrap();
        let service = Service { mode, ..self.service.clone() };
        runtime.spawn(async move {
            let connections = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
            Server::builder()
                .add_service(NetworksServer::new(service.clone()))
                .add_service(EndpointsServer::new(service.clone()))
                .add_service(NodesServer::new(service.clone()))
                .add_service(ClusterServer::new(service.clone()))
                .add_service(WatchServer::new(service))
                .serve_with_incoming(connections)
                .await
        });
        Serving(Some(runtime))
    }

    /// The next creation that reached the node.
    pub(super) async fn created(&mut self) -> CreateNetworkRequest {
        self.created.recv().await.unwrap()
    }

    /// Sets the events that the next monitor gets before its stream ends.
    pub(super) fn tell(&self, events: Vec<Event>) {
        self.service.watched.lock().unwrap().events = events;
    }

    /// Sets what the node says of itself.
    pub(super) fn set_status(&self, status: StatusResponse) {
        *self.service.status.lock().unwrap() = status;
    }

    /// Sets the nodes that it knows, and its endpoints.
    pub(super) fn set_members(&self, members: Members) {
        *self.service.members.lock().unwrap() = members;
    }

    /// Sets the backup that it sends.
    pub(super) fn set_backup(&self, pieces: Vec<Result<BackupPiece, Status>>) {
        *self.service.backup.lock().unwrap() = pieces;
    }

    /// The nodes that were to be removed.
    pub(super) fn asked_to_remove(&self) -> Vec<(String, u64, bool)> {
        self.service.members.lock().unwrap().asked.clone()
    }

    /// The requests of the monitors.
    pub(super) fn watched(&self) -> Vec<EventsRequest> {
        self.service.watched.lock().unwrap().requests.clone()
    }
}
