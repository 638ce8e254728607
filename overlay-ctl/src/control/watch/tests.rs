//! An agent and the voters that it may follow: real streams over connections in memory, in virtual time.

use super::{Ended, HEARTBEAT, follow_a_voter, serve_agent};
use crate::{
    control::{
        consensus::{self, StateMachine as _},
        peers::{Admission, Directory, Peer},
        state::{Command, Delta, Envelope, Mutation, Placement, PortsWanted, View},
        voter::{Machine, Quorum, SharedState, StatusTable},
    },
    dataplane::kernel::LocalStatus,
    model::{EndpointAddrs, NetworkOptions, NodeId, Pool, Revision},
    proto::internal::{
        CheckEndpointRequest, CheckEndpointResponse, ForwardRequest, ForwardResponse, RaftMessage,
        RaftResponse, ReportResponse, StatusReport, WatchDown, WatchUp,
        peers_server::{Peers, PeersServer},
    },
};
use futures::stream;
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Endpoint, Server, Uri},
};
use uuid::Uuid;

/// Bounds every wait. Time is virtual: it passes at once when nothing else can happen.
const BOUND: Duration = Duration::from_secs(60);
/// The nodes that register first vote.
const VOTERS: NodeId = 3;
/// The one after them.
const AGENT: NodeId = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Takes part in the quorum.
    Serving,
    /// The same, but proves nothing: nobody hears it.
    Unheard,
    /// Streams stay open, and nothing more is said in them.
    Silent,
    /// Streams break, and none can be opened.
    Away,
}

/// One voter, as its agents see it.
struct Voter {
    machine: Machine,
    revision: Revision,
    service: Service,
    mode: watch::Sender<Mode>,
}

#[derive(Clone)]
struct Service {
    state: SharedState,
    table: StatusTable,
    cluster: watch::Sender<consensus::Status>,
    quorum: Quorum,
    mode: watch::Receiver<Mode>,
    opened: Arc<Mutex<usize>>,
}

impl Voter {
    fn new() -> Self {
        let (machine, state) = Machine::new();
        let (mode, heard) = watch::channel(Mode::Serving);
        let leads = consensus::Status { leader: Some(1), ..Default::default() };
        let service = Service {
            state,
            table: StatusTable::default(),
            cluster: watch::Sender::new(leads),
            quorum: Quorum::default(),
            mode: heard,
            opened: Arc::default(),
        };
        Self { machine, revision: 0, service, mode }
    }

    fn apply(&mut self, command: Command) {
        self.revision += 1;
        let mut request = [0; 16];
        request[..8].copy_from_slice(&self.revision.to_be_bytes());
        let entry = Envelope::new(Mutation::new(request, &command), command).encode().unwrap();
        self.machine.apply(self.revision, &entry).unwrap();
        self.machine.batch_applied(self.revision);
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many streams were opened here.
    fn opened(&self) -> usize {
        *self.service.opened.lock().unwrap()
    }
}

type Down = Pin<Box<dyn Stream<Item = Result<WatchDown, Status>> + Send>>;

#[tonic::async_trait]
impl Peers for Service {
    type WatchStream = Down;

    async fn watch(&self, request: Request<Streaming<WatchUp>>) -> Result<Response<Down>, Status> {
        let mode = self.mode.clone();
        if *mode.borrow() == Mode::Away {
            return Err(Status::unavailable("away"));
        }
        let Self { state, table, cluster, quorum, .. } = self.clone();
        let (up, cluster) = (request.into_inner(), cluster.subscribe());
        let down = serve_agent(state, table, cluster, quorum, up).await?;
        *self.opened.lock().unwrap() += 1;
        let said = stream::unfold(Box::pin(down), move |mut down| {
            let mut mode = mode.clone();
            async move {
                let broken = async {
                    let ended = |mode: &Mode| matches!(mode, Mode::Away | Mode::Silent);
                    mode.wait_for(ended).await.is_ok_and(|mode| *mode == Mode::Away)
                };
                tokio::select! {
                    biased;
                    away = broken => if away { None } else { std::future::pending().await },
                    message = down.next() => Some((message?, down)),
                }
            }
        });
        Ok(Response::new(Box::pin(said)))
    }

    async fn raft(
        &self,
        _: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftResponse>, Status> {
        Err(Status::unimplemented("an agent does not vote"))
    }

    async fn report(
        &self,
        _: Request<Streaming<StatusReport>>,
    ) -> Result<Response<ReportResponse>, Status> {
        Err(Status::unimplemented("an agent reports in its watch"))
    }

    async fn check_endpoint(
        &self,
        _: Request<CheckEndpointRequest>,
    ) -> Result<Response<CheckEndpointResponse>, Status> {
        Err(Status::unimplemented("an agent asks nobody"))
    }

    async fn forward(
        &self,
        _: Request<ForwardRequest>,
    ) -> Result<Response<ForwardResponse>, Status> {
        Err(Status::unimplemented("an agent forwards nothing"))
    }
}

/// Voters, and one agent that follows one of them. All nodes are registered, and the agent has an endpoint
/// on the network `net`.
struct World {
    voters: Vec<Voter>,
    directory: Directory,
    view: watch::Receiver<Option<Arc<View>>>,
    // What the agent reads from: it ends with them.
    _epoch: watch::Sender<Revision>,
    status: watch::Sender<LocalStatus>,
    agent: JoinHandle<Ended>,
}

fn listen(id: NodeId) -> SocketAddr {
    (Ipv4Addr::new(10, 10, 10, u8::try_from(id).unwrap()), 7400).into()
}

impl World {
    /// With this many voters; all three are known, and those that are not here do not answer.
    fn new(voters: NodeId) -> Self {
        let cluster = Uuid::new_v4();
        let peers = (1..=VOTERS).map(|id| Peer { id, listen: listen(id), voter: true });
        let directory = Directory::new(cluster, peers);
        let mut here = Vec::new();
        for id in 1..=VOTERS {
            if id <= voters {
                let voter = Voter::new();
                serve(cluster, id, &directory, &voter);
                tokio::spawn(prove(voter.service.quorum.clone(), voter.mode.subscribe()));
                here.push(voter);
            } else {
                directory.put_channel(listen(id), nobody());
            }
        }
        let (view, views) = watch::channel(None);
        let (epoch, epochs) = watch::channel(AGENT);
        let (status, statuses) = watch::channel(LocalStatus::default());
        let agent = follow_a_voter(AGENT, epochs, directory.clone(), view, statuses);
        let mut world = Self {
            voters: here,
            directory,
            view: views,
            _epoch: epoch,
            status,
            agent: tokio::spawn(agent),
        };
        for id in 1..=AGENT {
            world.apply(Command::RegisterNode {
                instance: [u8::try_from(id).unwrap(); 16],
                name: format!("h{id}").parse().unwrap(),
                vtep: Ipv4Addr::new(10, 10, 10, u8::try_from(id).unwrap()).into(),
                listen: listen(id),
                returning: None,
                gateway: None,
                metrics: None,
            });
        }
        world.network("net", "172.16.16.0/24");
        world.endpoint("net", "web", AGENT);
        world
    }

    fn apply(&mut self, command: Command) {
        for voter in &mut self.voters {
            voter.apply(command.clone());
        }
    }

    fn network(&mut self, name: &str, subnet: &str) {
        self.apply(network(name, subnet));
    }

    fn endpoint(&mut self, network: &str, name: &str, node: NodeId) {
        self.apply(Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network: network.parse().unwrap(),
            placement: Placement::Node {
                node: format!("h{node}").parse().unwrap(),
                netns: format!("/run/netns/{name}").into(),
                addresses: EndpointAddrs::default(),
            },
            forwards: false,
            aliases: BTreeSet::new(),
            ports: PortsWanted::default(),
        });
    }

    fn remove_endpoint(&mut self, name: &str) {
        self.apply(Command::RemoveEndpoint {
            name: name.parse().unwrap(),
            network: None,
            only: None,
        });
    }

    /// The agent's view, once it is of this revision.
    async fn view_at(&mut self, revision: Revision) -> Arc<View> {
        let there =
            |view: &Option<Arc<View>>| view.as_ref().is_some_and(|view| view.revision >= revision);
        let view = timeout(BOUND, self.view.wait_for(there)).await;
        view.unwrap_or_else(|_| panic!("the agent never held revision {revision}"))
            .unwrap()
            .clone()
            .unwrap()
    }

    /// Waits until the voter, by its place in the list, has this status of the agent.
    async fn status_at(&self, voter: usize, revision: Revision) {
        let table = &self.voters[voter].service.table;
        let mut changed = table.watch();
        let wait = async {
            while table.programmed(AGENT) != Some(revision) {
                changed.changed().await.unwrap();
            }
        };
        timeout(BOUND, wait).await.expect("the status arrives");
    }
}

fn network(name: &str, subnet: &str) -> Command {
    Command::CreateNetwork {
        name: name.parse().unwrap(),
        pool: Some(Pool::whole(subnet.parse().unwrap())),
        vni: None,
        options: NetworkOptions::default(),
    }
}

/// Serves the voter behind the directory's connection to it.
fn serve(cluster: Uuid, id: NodeId, directory: &Directory, voter: &Voter) {
    let (connections, incoming) = mpsc::unbounded_channel::<io::Result<DuplexStream>>();
    let connector = tower::service_fn(move |_: Uri| {
        let (client, server) = tokio::io::duplex(1 << 16);
        let sent = connections.send(Ok(server));
        async move { sent.map(|()| TokioIo::new(client)).map_err(io::Error::other) }
    });
    let channel = Endpoint::from_static("http://voter").connect_with_connector_lazy(connector);
    directory.put_channel(listen(id), channel);
    let server = Server::builder()
        .layer(Admission::new(cluster))
        .add_service(PeersServer::new(voter.service.clone()))
        .serve_with_incoming(UnboundedReceiverStream::new(incoming));
    tokio::spawn(server);
}

/// A connection to nobody.
fn nobody() -> tonic::transport::Channel {
    let connector = tower::service_fn(|_: Uri| async {
        Err::<TokioIo<DuplexStream>, _>(io::Error::from(io::ErrorKind::ConnectionRefused))
    });
    Endpoint::from_static("http://nobody").connect_with_connector_lazy(connector)
}

/// What linearizable reads prove of a voter while it serves.
async fn prove(quorum: Quorum, mode: watch::Receiver<Mode>) {
    loop {
        if *mode.borrow() == Mode::Serving {
            quorum.proved_at(Instant::now());
        }
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_stays_where_nothing_changes() {
    let mut world = World::new(1);
    let first = world.view_at(6).await;
    assert_eq!(first.networks.len(), 1);
    world.view.mark_unchanged();
    // Many times what a silent voter is given.
    sleep(Duration::from_secs(300)).await;
    assert_eq!(world.voters[0].opened(), 1);
    assert!(!world.view.has_changed().unwrap(), "that nothing changed is no new view");
    world.status.send_modify(|status| status.programmed = 6);
    world.status_at(0, 6).await;
    assert!(!world.agent.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_agent_leaves_a_voter_that_nobody_hears() {
    let mut world = World::new(2);
    world.view_at(6).await;
    assert_eq!((world.voters[0].opened(), world.voters[1].opened()), (1, 0));
    // It still believes to know the leader. The quorum goes on without it.
    world.voters[0].set(Mode::Unheard);
    world.voters[1].apply(network("late", "172.16.17.0/24"));
    world.view_at(7).await;
    // And its status is where the leader hears of it.
    world.status.send_modify(|status| status.programmed = 7);
    world.status_at(1, 7).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_leaves_a_voter_that_is_behind_it() {
    let mut world = World::new(2);
    world.view_at(6).await;
    world.voters[0].set(Mode::Away);
    world.voters[1].apply(network("late", "172.16.17.0/24"));
    world.view_at(7).await;
    // The one that has it goes. The other one is of the quorum, as far as it can prove, but behind.
    world.voters[1].set(Mode::Away);
    world.voters[0].set(Mode::Serving);
    let opened = world.voters[0].opened();
    let tried = async {
        while world.voters[0].opened() == opened {
            sleep(HEARTBEAT).await;
        }
    };
    timeout(BOUND, tried).await.expect("the agent asks the voter that is left");
    world.voters[1].set(Mode::Serving);
    world.voters[1].apply(network("later", "172.16.18.0/24"));
    let view = world.view_at(8).await;
    assert_eq!(view.revision, 8);
}

#[tokio::test(start_paused = true)]
async fn an_agent_leaves_a_silent_voter() {
    let mut world = World::new(2);
    world.view_at(6).await;
    world.voters[0].set(Mode::Silent);
    world.apply(network("late", "172.16.17.0/24"));
    world.view_at(7).await;
    assert_eq!(world.voters[1].opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_anywhere_an_agent_keeps_its_view_and_a_new_one_gets_what_there_is() {
    let mut world = World::new(2);
    let held = world.view_at(6).await;
    for voter in &world.voters {
        voter.set(Mode::Unheard);
        voter.service.cluster.send_modify(|status| status.leader = None);
    }
    // Time for many rounds.
    sleep(Duration::from_secs(30)).await;
    assert!(world.voters.iter().all(|voter| voter.opened() > 2), "it asks both again and again");
    assert_eq!(world.view.borrow().as_deref(), Some(&*held));

    // An agent that has just started is no worse off than one that ran on.
    let (view, mut views) = watch::channel(None);
    let epochs = watch::channel(AGENT).1;
    let statuses = watch::channel(LocalStatus::default()).1;
    tokio::spawn(follow_a_voter(AGENT, epochs, world.directory.clone(), view, statuses));
    let got = timeout(BOUND, views.wait_for(Option::is_some)).await.expect("a view").unwrap();
    assert_eq!(got.as_deref(), Some(&*held));
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_while_an_agent_was_cut_off_is_gone_from_its_view() {
    let mut world = World::new(2);
    world.network("other", "172.16.17.0/24");
    world.endpoint("other", "api", AGENT);
    world.endpoint("net", "far", 1);
    let held = world.view_at(9).await;
    assert_eq!((held.networks.len(), held.all_endpoints().count()), (2, 3));
    for voter in &world.voters {
        voter.set(Mode::Away);
    }
    // Its last endpoint on one network, so that it has no part in it any more; and one elsewhere on the other.
    world.remove_endpoint("api");
    world.remove_endpoint("far");
    // Another voter than it was with takes it up where it was.
    world.voters[1].set(Mode::Serving);
    let view = world.view_at(11).await;
    let names: Vec<String> =
        view.networks.values().map(|network| network.name.to_string()).collect();
    assert_eq!(names, ["net"]);
    let names: Vec<String> =
        view.all_endpoints().map(|endpoint| endpoint.name.to_string()).collect();
    assert_eq!(names, ["web"]);
    assert_eq!(*view, world.voters[1].service.state.read(|state| whole(state.view_of(AGENT))));
}

fn whole(delta: Delta) -> View {
    let mut view = View::default();
    view.apply(delta);
    view
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_removed_ends() {
    let mut world = World::new(1);
    world.remove_endpoint("web");
    world.view_at(7).await;
    world.apply(Command::RemoveNode { name: "h4".parse().unwrap(), only: None });
    let ended = timeout(BOUND, world.agent).await.expect("it ends").unwrap();
    assert!(matches!(ended, Ended::Removed));
}
