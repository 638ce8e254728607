//! Agents, and the voters that they may follow: real streams over connections in memory, in virtual time.

mod agent;
mod commands;
mod deltas;
mod reports;
mod serve;
mod sources;
mod unreadable;
mod versions;

use super::{Ended, HEARTBEAT, follow_a_voter, serve_agent};
use crate::{
    control::{
        consensus::{self, StateMachine as _},
        peers::{Directory, Peer},
        state::{Command, Envelope, Mutation, Placement, PortsWanted, REMEMBERED, View},
        voter::{LAPSE, Machine, Quorum, SharedState, StatusTable},
    },
    dataplane::kernel::LocalStatus,
    model::{EndpointAddrs, NetworkOptions, NodeId, Permissions, Pool, Revision},
    proto::internal::{
        BackupPiece, BackupRequest, CheckEndpointRequest, CheckEndpointResponse, ForwardRequest,
        ForwardResponse, RaftMessage, RaftResponse, ReportResponse, StatusReport, WatchDown,
        WatchUp, peers_server::Peers,
    },
};
use commands::{create_endpoint, network, register, register_at};
use futures::stream;
use serve::{nobody, prove, serve, serve_at};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// Bounds every wait. Time is virtual: it passes at once when nothing else can happen.
const BOUND: Duration = Duration::from_secs(60);
/// The nodes that register first vote; the agent is the one after them.
const VOTERS: NodeId = 3;
const AGENT: NodeId = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Takes part in the quorum.
    Serving,
    /// The same, and what it sends is that of a newer version.
    Newer,
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
    directory: Directory,
    mode: watch::Receiver<Mode>,
    opened: Arc<Mutex<usize>>,
    asked: watch::Sender<Vec<Instant>>,
}

impl Voter {
    /// Its state remembers so many changes.
    fn remembering(changes: usize) -> Self {
        let (machine, state) = Machine::remembering(changes);
        let (mode, heard) = watch::channel(Mode::Serving);
        let leads = consensus::Status { leader: Some(1), ..Default::default() };
        let service = Service {
            state,
            table: StatusTable::default(),
            cluster: watch::Sender::new(leads),
            quorum: Quorum::default(),
            directory: Directory::new(Uuid::new_v4(), peers()),
            mode: heard,
            opened: Arc::default(),
            asked: watch::Sender::default(),
        };
        Self { machine, revision: 0, service, mode }
    }

    fn apply(&mut self, command: Command) {
        self.revision += 1;
        let mut request = [0; 16];
        request[..8].copy_from_slice(&self.revision.to_be_bytes());
        let entry = Envelope::new(Mutation::new(request, &command), command).encode().unwrap();
        self.machine.apply(self.revision, &entry).unwrap().unwrap();
        self.machine.batch_applied(self.revision);
    }

    /// The agent's view, made whole from this voter's state.
    fn view(&self) -> View {
        let mut view = View::default();
        view.apply(self.service.state.read(|state| state.view_of(AGENT)));
        view
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many streams were opened here.
    fn opened(&self) -> usize {
        *self.service.opened.lock().unwrap()
    }

    /// Waits until it has this status of the node.
    async fn status_of(&self, node: NodeId, revision: Revision) {
        let table = &self.service.table;
        let mut changed = table.watch();
        let wait = async {
            while table.programmed(node) != Some(revision) {
                changed.changed().await.unwrap();
            }
        };
        timeout(BOUND, wait).await.expect("the status arrives");
    }

    /// When it was asked for the next four streams, whether or not it opened them.
    async fn asked_next(&self) -> Vec<Instant> {
        let mut asked = self.service.asked.subscribe();
        let before = asked.borrow().len();
        let next = timeout(BOUND, asked.wait_for(|asked| asked.len() >= before + 4)).await;
        next.expect("it is asked again and again").unwrap()[before..].to_vec()
    }
}

fn is_ascending(times: &[Instant]) -> bool {
    times.windows(2).all(|pair| pair[0] < pair[1])
}

impl Service {
    fn is_asked(&self) -> Result<(), Status> {
        self.asked.send_modify(|asked| asked.push(Instant::now()));
        match *self.mode.borrow() {
            Mode::Away => Err(Status::unavailable("away")),
            _ => Ok(()),
        }
    }
}

type Down = Pin<Box<dyn Stream<Item = Result<WatchDown, Status>> + Send>>;

#[tonic::async_trait]
impl Peers for Service {
    type BackupStream = stream::Empty<Result<BackupPiece, Status>>;

    async fn backup(
        &self,
        _: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented("nobody asks for one"))
    }

    type WatchStream = Down;

    async fn watch(&self, request: Request<Streaming<WatchUp>>) -> Result<Response<Down>, Status> {
        self.is_asked()?;
        let mode = self.mode.clone();
        let Self { state, table, cluster, quorum, directory, .. } = self.clone();
        let (up, cluster) = (request.into_inner(), cluster.subscribe());
        let down = serve_agent(state, table, cluster, quorum, directory, up).await?;
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
                    message = down.next() => {
                        let newer = *mode.borrow() == Mode::Newer;
                        let message = message?;
                        Some((if newer { message.map(unreadable::newer) } else { message }, down))
                    }
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
        request: Request<Streaming<StatusReport>>,
    ) -> Result<Response<ReportResponse>, Status> {
        self.is_asked()?;
        let mut reports = request.into_inner();
        while let Some(report) = reports.next().await {
            let StatusReport { nodes, node_id, differs_at } = report?;
            nodes.into_iter().for_each(|status| self.table.record_report(status));
            if let Some(told) = self.state.hashes().to_tell(node_id, differs_at) {
                return Ok(Response::new(told));
            }
        }
        Ok(Response::new(ReportResponse::default()))
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
    agent: Agent,
}

struct Agent {
    view: watch::Receiver<Option<Arc<View>>>,
    epoch: watch::Sender<Revision>,
    status: watch::Sender<LocalStatus>,
    follows: JoinHandle<Ended>,
}

impl Agent {
    fn start(id: NodeId, epoch: Revision, directory: &Directory) -> Self {
        Self::begin(id, epoch, directory, None)
    }

    /// One that holds a view already.
    fn holding(view: Arc<View>, directory: &Directory) -> Self {
        Self::begin(AGENT, AGENT, directory, Some(view))
    }

    fn begin(id: NodeId, epoch: Revision, directory: &Directory, view: Option<Arc<View>>) -> Self {
        let (sender, view) = watch::channel(view);
        let (epoch, epochs) = watch::channel(epoch);
        let (status, statuses) = watch::channel(LocalStatus::default());
        let follows = follow_a_voter(id, epochs, directory.clone(), sender, statuses);
        Self { view, epoch, status, follows: tokio::spawn(follows) }
    }

    /// Its view, once it is of this revision.
    async fn view_at(&mut self, revision: Revision) -> Arc<View> {
        let there =
            |view: &Option<Arc<View>>| view.as_ref().is_some_and(|view| view.revision >= revision);
        let view = timeout(BOUND, self.view.wait_for(there)).await;
        view.unwrap_or_else(|_| panic!("the agent never held revision {revision}"))
            .unwrap()
            .clone()
            .unwrap()
    }

    async fn ended(self) -> Ended {
        timeout(BOUND, self.follows).await.expect("it ends").unwrap()
    }
}

fn listen(id: NodeId) -> SocketAddr {
    (Ipv4Addr::new(10, 10, 10, u8::try_from(id).unwrap()), 7400).into()
}

/// All three voters.
fn peers() -> impl Iterator<Item = Peer> {
    (1..=VOTERS).map(|id| Peer { id, listen: listen(id), voter: true, raft_id: None })
}

impl World {
    /// With this many voters; all three are known, and those that are not here do not answer.
    fn new(voters: NodeId) -> Self {
        Self::remembering(voters, REMEMBERED)
    }

    /// As [`World::new`], with voters that remember so many changes.
    fn remembering(voters: NodeId, changes: usize) -> Self {
        let cluster = Uuid::new_v4();
        let directory = Directory::new(cluster, peers());
        let mut here = Vec::new();
        for id in 1..=VOTERS {
            if id <= voters {
                let voter = Voter::remembering(changes);
                serve(cluster, id, &directory, &voter);
                tokio::spawn(prove(voter.service.quorum.clone(), voter.mode.subscribe()));
                here.push(voter);
            } else {
                directory.put_channel(listen(id), nobody());
            }
        }
        let agent = Agent::start(AGENT, AGENT, &directory);
        let mut world = Self { voters: here, directory, agent };
        for id in 1..=AGENT {
            world.apply(register(id));
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
        self.apply(create_endpoint(network, name, node));
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
        self.agent.view_at(revision).await
    }

    /// Waits until the voter, by its place in the list, has this status of the agent.
    async fn status_at(&self, voter: usize, revision: Revision) {
        self.voters[voter].status_of(AGENT, revision).await;
    }
}
