//! A voter that leads, and an agent that forwards to it.

mod backup;
mod copies;
mod dead_nodes;
mod forgotten;
mod joins;
mod leader_change;
mod places;
mod refusals;
mod seats;
mod stale;
mod streams;
mod taking_back;

use super::*;
use crate::{
    control::{
        consensus::{Lack, ProposeError, Room},
        peers::{Admission, Generations, Peer},
        state::{Command, Envelope, Mutation, Placement, PortsWanted, RequestId, State},
        voter::tests::alone_in,
    },
    dataplane::{
        host::{SharedNamespaces, SharedPorts},
        netlink::HeldNamespaces,
    },
    faces::api::PeersService,
    model::{EndpointAddrs, NetworkOptions, Permissions, Pool},
    proto::internal::peers_server::PeersServer,
};
use futures::future::join_all;
use hyper_util::rt::TokioIo;
use std::{io, net::SocketAddr, path::Path, time::Duration};
use tempfile::TempDir;
use tokio::{io::DuplexStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};

const BOUND: Duration = Duration::from_secs(60);
/// More rows than are made at once.
const MANY: usize = lists::FEW + 100;

async fn within<T>(asked: impl Future<Output = T>) -> T {
    timeout(BOUND, asked).await.expect("an answer within the bound")
}

fn check(dir: &Path) -> EndpointCheck {
    let held = SharedNamespaces::new(HeldNamespaces::new(dir.join("netns")));
    EndpointCheck::new(SharedPorts::default(), held)
}

fn register(id: u8) -> Register {
    Register {
        instance: [id; 16],
        name: format!("h{id}").parse().unwrap(),
        vtep: [10, 0, 0, id].into(),
        listen: SocketAddr::from(([10, 0, 0, id], 7400)),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
        log_lost: None,
        incarnation: None,
    }
}

fn network(request: RequestId, name: &str) -> CreateNetwork {
    let name = name.parse().unwrap();
    let pool = Pool::new("172.16.0.0/16".parse().unwrap(), None).unwrap();
    CreateNetwork { request, name, pool: Some(pool), vni: None, options: NetworkOptions::default() }
}

/// An endpoint behind a VTEP that is not the cluster's: no kernel is asked.
fn endpoint(request: RequestId, network: &str, n: u16) -> CreateEndpoint {
    let [high, low] = n.to_be_bytes();
    CreateEndpoint {
        request,
        name: format!("e{n}").parse().unwrap(),
        network: network.parse().unwrap(),
        placement: Placement::External {
            vtep: [192, 168, 0, 1].into(),
            mac: format!("02:99:00:00:{high:02x}:{low:02x}").parse().unwrap(),
            addresses: [172, 16, high, low].into(),
        },
        permissions: Permissions::NONE,
        aliases: [].into(),
        ports: PortsWanted::default(),
        wait: true,
    }
}

fn remove_endpoint(request: RequestId, n: u16) -> RemoveEndpoint {
    let name = format!("e{n}").parse().unwrap();
    RemoveEndpoint { request, name, network: None, only: None, wait: true }
}

fn entry(request: u8, n: u16, command: Command) -> Vec<u8> {
    let mut id = [request; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    Envelope::new(Mutation::new(id, &command), command).encode().unwrap()
}

/// A state in which node 1 is registered.
fn state() -> State {
    let Register {
        instance,
        name,
        vtep,
        listen,
        returning,
        gateway,
        metrics,
        local_listen,
        speaks,
        log_lost: _,
        incarnation: _,
    } = register(1);
    let register = Command::RegisterNode {
        instance,
        name,
        vtep,
        listen,
        returning,
        gateway,
        metrics,
        local_listen,
        speaks,
    };
    let mut state = State::default();
    state.apply_entry(1, &entry(0xff, 0, register)).unwrap();
    state
}

/// A cluster of one voter, which leads.
struct Cluster {
    dir: TempDir,
    voter: VoterParts,
    leader: Controller,
}

impl Cluster {
    fn new() -> Self {
        let cluster = Uuid::new_v4();
        let (dir, voter) = alone_in(cluster, &state());
        let peer = Peer { id: 1, listen: register(1).listen, voter: true, raft_id: None };
        let directory = Directory::new(cluster, [peer]);
        let leader = Controller::new(1, directory, Some(voter.clone()), check(dir.path()));
        Self { dir, voter, leader }
    }

    /// Makes a network `full` with many endpoints.
    async fn fill(&self) {
        let CreateNetwork { name, pool, vni, options, .. } = network([0; 16], "full");
        let network = Command::CreateNetwork { name, pool, vni, options };
        let endpoints = (2..).take(MANY).map(|n| {
            let CreateEndpoint { name, network, placement, permissions, aliases, ports, .. } =
                endpoint([0; 16], "full", n);
            let command =
                Command::CreateEndpoint { name, network, placement, permissions, aliases, ports };
            entry(0xfd, n, command)
        });
        let entries = [entry(0xfe, 0, network)].into_iter().chain(endpoints);
        let proposed = entries.map(|entry| self.voter.consensus.propose(entry));
        for outcome in within(join_all(proposed)).await {
            outcome.unwrap().1.unwrap();
        }
    }

    /// An agent that knows the leader, and reaches it by `channel`.
    fn agent(&self, channel: Channel) -> Controller {
        let peer = Peer { id: 1, listen: register(1).listen, voter: true, raft_id: None };
        let directory = Directory::new(self.leader.cluster(), [peer.clone()]);
        directory.put_channel(peer.listen, channel);
        Controller::new(9, directory, None, check(self.dir.path()))
    }

    /// A connection to the service of the node with this controller.
    fn channel(controller: &Controller) -> Channel {
        let (connections, incoming) = mpsc::unbounded_channel::<io::Result<DuplexStream>>();
        let service = PeersServer::new(PeersService::new(controller.clone()));
        let server = Server::builder()
            .layer(Admission::new(controller.cluster(), Generations::default()))
            .add_service(service);
        tokio::spawn(server.serve_with_incoming(UnboundedReceiverStream::new(incoming)));
        Endpoint::from_static("http://node").connect_with_connector_lazy(tower::service_fn(
            move |_: Uri| {
                let (client, server) = tokio::io::duplex(1 << 16);
                let sent = connections.send(Ok(server));
                async move { sent.map(|()| TokioIo::new(client)).map_err(io::Error::other) }
            },
        ))
    }
}

async fn names(rows: Rows<EndpointInfo>) -> Vec<String> {
    let gathered = rows.gather(Vec::new(), |names, row| {
        names.push(row.endpoint.name.to_string());
        Ok(())
    });
    within(gathered).await.unwrap()
}

/// What was read, and shows all that was acknowledged.
async fn latest<T>(read: impl Future<Output = Result<Read<T>, ControllerError>>) -> T {
    let Read { answer, as_of } = within(read).await.unwrap();
    assert_eq!(as_of, None);
    answer
}

#[tokio::test]
async fn a_voter_of_no_quorum_has_no_leader_though_it_hears_one() {
    let cluster = Cluster::new();
    let mut status = cluster.voter.consensus.status();
    within(status.wait_for(|status| status.leader == Some(1))).await.unwrap();
    assert_eq!(cluster.leader.leader(), None, "it has proved nothing yet");
    assert!(!cluster.leader.is_served());
    cluster.voter.quorum.proved_at(tokio::time::Instant::now());
    assert!(cluster.leader.is_served());
    assert_eq!(cluster.leader.leader(), Some(1));
}

#[tokio::test]
async fn each_request_waits_for_the_barrier_once() {
    let cluster = Cluster::new();
    let asked = &cluster.leader;
    let mut before = 0;
    let mut once = |what: &str| {
        let now = cluster.voter.consensus.reads();
        assert_eq!(now - before, 1, "barriers of {what}");
        before = now;
    };
    within(asked.create_network(network([1; 16], "net"))).await.unwrap();
    once("network create");
    within(asked.create_endpoint(endpoint([2; 16], "net", 9))).await.unwrap();
    once("endpoint create");
    within(asked.register(register(2))).await.unwrap();
    once("a registration");
    within(asked.register(register(2))).await.unwrap();
    once("a repeated registration");
    within(asked.list_networks(Reading::Latest)).await.unwrap();
    once("network ls");
    let (name, network) = ("e9".parse().unwrap(), None);
    within(asked.inspect_endpoint(InspectEndpoint { name, network }, Reading::Latest))
        .await
        .unwrap();
    once("endpoint inspect");
    within(asked.remove_endpoint(remove_endpoint([3; 16], 9))).await.unwrap();
    once("endpoint rm");
    let name = "h2".parse().unwrap();
    within(asked.remove_node(RemoveNode { request: [4; 16], name, only: None, force: false }))
        .await
        .unwrap();
    once("node rm");
    let name = "net".parse().unwrap();
    let remove = RemoveNetwork { request: [5; 16], name, only: None };
    within(asked.remove_network(remove)).await.unwrap();
    once("network rm");
}

#[tokio::test]
async fn whoever_is_asked_answers_what_the_leader_does() {
    let cluster = Cluster::new();
    cluster.fill().await;
    let leader = &cluster.leader;
    let near = cluster.agent(Cluster::channel(leader));
    // An agent may be asked by another one.
    let far = cluster.agent(Cluster::channel(&near));
    for (agent, id) in [(&near, 1), (&far, 2)] {
        let create = network([id; 16], &format!("net{id}"));
        let made = within(agent.create_network(create.clone())).await;
        assert_eq!(made, within(leader.create_network(create.clone())).await, "a repetition");
        assert!(made.is_ok(), "{made:?}");
        let other = CreateNetwork { request: [id + 100; 16], ..create };
        let refused = within(agent.create_network(other.clone())).await;
        assert!(matches!(
            &refused,
            Err(ControllerError::Refused(Refusal::NetworkExists(name))) if *name == other.name
        ));
        let list = || ListEndpoints { network: None, node: None };
        let listed = names(latest(agent.list_endpoints(list(), Reading::Latest)).await).await;
        assert_eq!(listed.len(), MANY);
        assert_eq!(
            listed,
            names(latest(leader.list_endpoints(list(), Reading::Latest)).await).await
        );
        let inspect = |brief| InspectNetwork { name: "full".parse().unwrap(), brief };
        let detail = latest(agent.inspect_network(inspect(false), Reading::Latest)).await;
        assert_eq!(detail.network.endpoints, MANY);
        assert_eq!(names(detail.endpoints).await, listed);
        let brief = latest(agent.inspect_network(inspect(true), Reading::Latest)).await;
        assert_eq!((brief.network, names(brief.endpoints).await), (detail.network, Vec::new()));
        let name: EndpointName = "e7".parse().unwrap();
        let inspect = || InspectEndpoint { name: name.clone(), network: None };
        let found = latest(agent.inspect_endpoint(inspect(), Reading::Latest)).await;
        assert_eq!(found, latest(leader.inspect_endpoint(inspect(), Reading::Latest)).await);
        let found = within(agent.existing("full".parse().unwrap(), "none".parse().unwrap())).await;
        assert!(matches!(found, Ok(Existing { network: true, endpoint: false })), "{found:?}");
    }
}

#[tokio::test]
async fn a_request_to_a_node_that_is_not_reached_may_have_had_an_effect() {
    let cluster = Cluster::new();
    // Nobody listens there.
    let nobody =
        Endpoint::from_static("http://node").connect_with_connector_lazy(tower::service_fn(
            |_: Uri| async { Err::<TokioIo<DuplexStream>, _>(io::Error::other("cut off")) },
        ));
    let agent = cluster.agent(nobody);
    let soon = Duration::from_millis(150);
    let error = within(agent.at_leader(network([1; 16], "net"), soon)).await.unwrap_err();
    assert!(matches!(error, ControllerError::NoLeader { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Unknown);
    let error = within(agent.at_leader(ListNetworks, soon)).await.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "a list changes nothing");
    // Nobody was asked at all.
    let alone = Controller::new(9, Directory::new(Uuid::new_v4(), []), None, agent.check().clone());
    let error = within(alone.at_leader(network([1; 16], "net"), soon)).await.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error:?}");
}

#[tokio::test]
async fn a_node_that_stops_says_whether_the_request_had_an_effect() {
    let cluster = Cluster::new();
    cluster.voter.consensus.shutdown().await;
    let error = within(cluster.leader.create_network(network([1; 16], "net"))).await.unwrap_err();
    assert_eq!(error, ControllerError::Stopping { effect: Effect::None });
    // The barrier fails, and an earlier attempt may have passed it.
    assert_eq!(error.clone().after(Effect::Unknown).effect(), Effect::Unknown);
    let refused = ControllerError::from(Refusal::VnisExhausted);
    assert_eq!(refused.after(Effect::Unknown).effect(), Effect::None, "the state knows");
    // These come before anything is logged: an earlier attempt may still run.
    let (why, effect) = (|| "why".to_owned(), Effect::None);
    for error in [
        ControllerError::NodeDown { node: "h1".parse().unwrap(), why: why(), effect },
        ControllerError::CannotMake { why: why(), effect },
        ControllerError::Members { why: why(), effect },
        ControllerError::NotLoggable { why: why(), effect },
    ] {
        assert_eq!(error.effect(), Effect::None, "{error:?}");
        assert_eq!(error.clone().after(Effect::Unknown).effect(), Effect::Unknown, "{error:?}");
        assert_eq!(error.after(Effect::None).effect(), Effect::None);
    }
    // As it travels.
    let bytes = verb::encode(&error).unwrap();
    assert_eq!(verb::decode::<ControllerError>(&bytes), Ok(error));
}

#[tokio::test]
async fn an_endpoint_that_can_not_be_made_is_refused_before_anything_is_logged() {
    let cluster = Cluster::new();
    let leader = &cluster.leader;
    within(leader.create_network(network([1; 16], "net"))).await.unwrap();
    let made = within(leader.create_endpoint(endpoint([2; 16], "net", 9))).await.unwrap();
    assert_eq!((made.lagging.len(), made.endpoint.state), (0, EndpointState::External));
    // The namespace is not there: refused before anything is logged.
    let revision = cluster.voter.state.read(State::revision);
    let (node, netns) = ("h1".parse().unwrap(), cluster.dir.path().join("none"));
    let placement = Placement::Node { node, netns, addresses: EndpointAddrs::default() };
    let create = CreateEndpoint { placement, ..endpoint([3; 16], "net", 10) };
    let error = within(leader.create_endpoint(create)).await.unwrap_err();
    assert!(matches!(error, ControllerError::CannotMake { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert_eq!(cluster.voter.state.read(State::revision), revision);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_served_while_another_leader_is_elected() {
    let peer = Peer { id: 1, listen: register(1).listen, voter: true, raft_id: None };
    let directory = Directory::new(Uuid::new_v4(), [peer]);
    let dir = tempfile::tempdir().unwrap();
    let agent = Controller::new(9, directory.clone(), None, check(dir.path()));
    assert!(!agent.is_served(), "it has heard of no leader yet");
    directory.set_leader(Some(1));
    directory.set_leader(None);
    assert_eq!(agent.leader(), None);
    assert!(agent.is_served());
    tokio::time::advance(LAPSE).await;
    assert!(!agent.is_served());
}
