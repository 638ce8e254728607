//! Three voters of which the leader dies in the middle of a request, as by `kill -9`.

use super::{check, endpoint, entry, network, register, state, within};
use crate::model::{EndpointAddrs, Permissions};
use crate::{
    control::{
        consensus::{Consensus, ConsensusConfig, Identity, LogStore, PeerQueues, ProposeError},
        controller::{Controller, ControllerError, CreateEndpoint},
        peers::{Admission, Directory, Generations, Peer},
        state::{Command, Placement, PortsWanted, Refusal},
        voter::{Leaving, Machine, NODE_DOWN_AFTER, Quorum, StatusTable, VoterParts},
    },
    faces::api::PeersService,
    proto::internal::{NodeStatus, peers_server::PeersServer},
};
use hyper_util::rt::TokioIo;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::DuplexStream,
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::interval,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use uuid::Uuid;

const VOTERS: [u8; 3] = [1, 2, 3];

/// One voter. Its connections are on a runtime of their own, and end with that.
struct Voter {
    parts: VoterParts,
    queues: PeerQueues,
    channel: Channel,
    runtime: Runtime,
    is_dead: Arc<AtomicBool>,
    _dir: TempDir,
}

fn directory(cluster: Uuid) -> Directory {
    let peer =
        |id| Peer { id: u64::from(id), listen: register(id).listen, voter: true, raft_id: None };
    Directory::new(cluster, VOTERS.map(peer))
}

impl Voter {
    fn start(cluster: Uuid, id: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cluster, name: format!("h{id}"), raft_id: id.into() };
        let log = match id {
            1 => LogStore::bootstrap(dir.path(), identity, &state().snapshot()).unwrap(),
            _ => LogStore::join(dir.path(), identity).unwrap(),
        };
        let (machine, state) = Machine::new();
        let queues = PeerQueues::new(256);
        let config = ConsensusConfig { tick: Duration::from_millis(30), ..Default::default() };
        let consensus = Consensus::start(config, log, machine, queues.clone()).unwrap();
        let parts = VoterParts {
            consensus,
            state,
            table: StatusTable::default(),
            leaving: Leaving::default(),
            quorum: Quorum::default(),
        };
        let voter = Some(parts.clone());
        let controller = Controller::new(id.into(), directory(cluster), voter, check(dir.path()));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (connections, incoming) = mpsc::unbounded_channel::<io::Result<DuplexStream>>();
        let service = PeersServer::new(PeersService::new(controller));
        let server = Server::builder()
            .layer(Admission::new(cluster, Generations::default()))
            .add_service(service);
        runtime.spawn(server.serve_with_incoming(UnboundedReceiverStream::new(incoming)));
        let channel = Endpoint::from_static("http://node").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| {
                let (client, server) = tokio::io::duplex(1 << 16);
                let sent = connections.send(Ok(server));
                async move { sent.map(|()| TokioIo::new(client)).map_err(io::Error::other) }
            }),
        );
        Self { parts, queues, channel, runtime, is_dead: Arc::default(), _dir: dir }
    }

    /// Ends its connections, those of Raft and all others.
    fn kill(self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.runtime.shutdown_background();
    }

    /// Carries Raft's messages to another voter, as long as both live.
    fn carry(&self, id: u64, to: &Self) {
        let mut outgoing = self.queues.connect(id);
        let (sender, receiver) = (self.parts.consensus.clone(), to.parts.consensus.clone());
        let dead = Arc::clone(&to.is_dead);
        self.runtime.spawn(async move {
            while let Some(message) = outgoing.recv().await {
                let is_there = !dead.load(Ordering::SeqCst);
                let delivered = is_there && receiver.step(message.bytes).is_ok();
                if message.is_snapshot {
                    sender.report_snapshot(id, delivered);
                }
            }
        });
    }
}

/// Three voters of which the first leads, and an agent.
async fn start() -> (Vec<Voter>, Controller, TempDir) {
    let cluster = Uuid::new_v4();
    let voters: Vec<Voter> = VOTERS.iter().map(|id| Voter::start(cluster, *id)).collect();
    for (from, voter) in (1..).zip(&voters) {
        for (to, other) in (1..).zip(&voters).filter(|(to, _)| *to != from) {
            voter.carry(to, other);
        }
    }
    let first = &voters[0].parts.consensus;
    for id in [2, 3] {
        while let Err(error) = within(first.add_learner(id)).await {
            assert!(matches!(error, ProposeError::Refused(_)), "{error}");
            tokio::task::yield_now().await;
        }
    }
    let mut status = voters[1].parts.consensus.status();
    within(status.wait_for(|status| status.voters == [1, 2, 3])).await.unwrap();
    let (directory, dir) = (directory(cluster), tempfile::tempdir().unwrap());
    for (id, voter) in VOTERS.iter().zip(&voters) {
        directory.put_channel(register(*id).listen, voter.channel.clone());
    }
    let agent = Controller::new(9, directory, None, check(dir.path()));
    (voters, agent, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_leader_dies_is_carried_out_once_and_answered_alike() {
    let (mut voters, agent, _dir) = start().await;
    within(agent.create_network(network([1; 16], "net"))).await.unwrap();
    // An endpoint of node 1, which is alive and programs nothing: a creation that waits for the kernels waits long.
    let silent = Command::CreateEndpoint {
        name: "silent".parse().unwrap(),
        network: "net".parse().unwrap(),
        placement: Placement::Node {
            node: "h1".parse().unwrap(),
            netns: "/run/netns/silent".into(),
            addresses: EndpointAddrs::default(),
        },
        permissions: Permissions::NONE,
        aliases: [].into(),
        ports: PortsWanted::default(),
    };
    let proposed = voters[0].parts.consensus.propose(entry(0xfc, 0, silent));
    within(proposed).await.unwrap().1.unwrap();
    let table = voters[0].parts.table.clone();
    voters[0].runtime.spawn(async move {
        let mut interval = interval(NODE_DOWN_AFTER / 10);
        loop {
            interval.tick().await;
            table.record(NodeStatus { node_id: 1, ..NodeStatus::default() });
        }
    });

    let create = endpoint([2; 16], "net", 9);
    let asked = tokio::spawn({
        let (agent, create) = (agent.clone(), create.clone());
        async move { agent.create_endpoint(create).await }
    });
    let heir = &voters[1].parts.state;
    let mut revision = heir.revision();
    let applied = revision.wait_for(|_| heir.read(|state| state.endpoint_count() == 2));
    within(applied).await.unwrap();
    assert!(!asked.is_finished(), "the leader waits for node 1");
    voters.remove(0).kill();
    let made = within(asked).await.unwrap().unwrap();

    let again = within(agent.create_endpoint(create.clone())).await.unwrap();
    assert_eq!(again.endpoint.endpoint, made.endpoint.endpoint);
    let node = "h1".parse().unwrap();
    assert_eq!((&*made.lagging, &*again.lagging), ([node].as_slice(), &*made.lagging));
    let other = CreateEndpoint { permissions: Permissions::ALL, ..create };
    let refused = within(agent.create_endpoint(other)).await;
    assert!(
        matches!(refused, Err(ControllerError::Refused(Refusal::RequestIdUsed { .. }))),
        "{refused:?}"
    );
    assert_eq!(voters[0].parts.state.read(|state| state.endpoint_count()), 2);
    for voter in voters {
        voter.kill();
    }
}
