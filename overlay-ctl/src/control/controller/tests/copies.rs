//! Two processes of one node: one of them has a copy of the other's state folder.

use super::*;
use crate::{
    control::peers::{CallError, Incarnation},
    model::Node,
    node::fake_voter::{at, serve},
    proto::{
        internal::{NodeStatus, Place, RaftMessage},
        v1::{JoinResponse, StatusResponse},
    },
};
use futures::stream;
use tokio_stream::wrappers::ReceiverStream;

fn run(number: u128) -> Incarnation {
    Incarnation::from_u128(number)
}

/// The node of this number, as a process of it registers.
fn process(id: u8, number: u128) -> Register {
    Register { incarnation: Some(run(number)), ..register(id) }
}

impl Cluster {
    /// A process answers at the place as the node.
    fn answers(&self, place: SocketAddr, node_id: u64, incarnation: Option<Incarnation>) {
        let incarnation = incarnation.map(|run| run.as_bytes().to_vec()).unwrap_or_default();
        let status = StatusResponse { node_id, incarnation, ..StatusResponse::default() };
        let there = (self.leader.directory(), place);
        std::mem::forget(serve(self.leader.cluster(), there, status, JoinResponse::default()));
    }

    /// The node was heard lately.
    fn hears(&self, node: &Node) {
        let Node { id: node_id, epoch, .. } = *node;
        self.voter.table.record(NodeStatus { node_id, epoch, ..NodeStatus::default() });
    }

    /// Nobody answers at the place.
    fn is_silent(&self, place: SocketAddr) {
        let refuses = tower::service_fn(|_: Uri| async {
            Err::<TokioIo<DuplexStream>, _>(io::Error::other("nobody listens"))
        });
        let channel = Endpoint::from_static("http://nobody").connect_with_connector_lazy(refuses);
        self.leader.directory().put_channel(place, channel);
    }

    async fn registers(&self, process: Register) -> Result<Joined, ControllerError> {
        within(self.leader.register(process)).await
    }

    fn last(&self) -> u64 {
        self.voter.state.read(State::revision)
    }
}

fn runs_at(id: u8, listen: SocketAddr) -> ControllerError {
    ControllerError::RunsElsewhere { node: format!("h{id}").parse().unwrap(), listen }
}

#[tokio::test]
async fn a_second_process_of_a_node_that_runs_is_refused_and_the_first_one_hears_of_it() {
    let cluster = Cluster::new();
    let first = cluster.registers(process(2, 1)).await.unwrap();
    assert_eq!(first.copy_at, None);
    cluster.answers(at(2), first.node.id, Some(run(1)));
    cluster.hears(&first.node);
    let before = cluster.last();
    let copy = Register { listen: at(77), ..process(2, 2) };
    for copy in [copy.clone(), Register { log_lost: Some([7; 16]), ..copy }] {
        let refused = cluster.registers(copy).await.unwrap_err();
        assert_eq!(refused, runs_at(2, at(2)));
        assert_eq!(refused.effect(), Effect::None);
    }
    assert_eq!(cluster.last(), before, "nothing was logged");
    let first = cluster.registers(process(2, 1)).await.unwrap();
    assert_eq!(first.copy_at, Some(at(77)));
    // It has another address: what answers at the former one is itself.
    let moved = Register { listen: at(22), ..process(2, 1) };
    assert_eq!(cluster.registers(moved).await.unwrap().node.listen, at(22));
}

#[tokio::test]
async fn the_place_of_a_process_that_is_gone_is_free_and_it_does_not_come_back() {
    let cluster = Cluster::new();
    let node = cluster.registers(process(2, 1)).await.unwrap().node;
    cluster.is_silent(at(2));
    cluster.hears(&node);
    let next = Register { listen: at(22), ..process(2, 2) };
    assert_eq!(cluster.registers(next).await.unwrap().node.listen, at(22));
    // It stood still meanwhile.
    cluster.answers(at(22), node.id, Some(run(2)));
    assert_eq!(cluster.registers(process(2, 1)).await.unwrap_err(), runs_at(2, at(22)));

    // Its address is another node's by now.
    let node = cluster.registers(process(3, 1)).await.unwrap().node;
    cluster.answers(at(3), node.id + 1, Some(run(9)));
    cluster.hears(&node);
    let next = Register { listen: at(33), ..process(3, 2) };
    assert_eq!(cluster.registers(next).await.unwrap().node.listen, at(33));
}

/// A machine was cloned with its address.
#[tokio::test]
async fn of_two_processes_with_one_address_the_later_one_goes_on() {
    let cluster = Cluster::new();
    for number in [1, 2, 2] {
        cluster.registers(process(2, number)).await.expect("it may have been started anew");
    }
    assert_eq!(cluster.registers(process(2, 1)).await.unwrap_err(), runs_at(2, at(2)));
    cluster.registers(process(2, 2)).await.unwrap();
}

#[tokio::test]
async fn a_copy_of_the_leader_is_refused_wherever_it_is() {
    let cluster = Cluster::new();
    let own = cluster.leader.directory().incarnation();
    cluster.leader.directory().introduce(1, at(1));
    let leader = Register { incarnation: Some(own), ..register(1) };
    cluster.registers(leader.clone()).await.expect("itself");
    for listen in [at(1), at(77)] {
        let copy = Register { listen, ..process(1, 7) };
        assert_eq!(cluster.registers(copy).await.unwrap_err(), runs_at(1, at(1)));
    }
    let earlier = Register { listen: at(77), ..register(1) };
    assert_eq!(cluster.registers(earlier).await.unwrap_err(), runs_at(1, at(1)));
    cluster.registers(register(1)).await.expect("an earlier program, and it may be the leader");
}

/// Raft's messages come under one Raft id.
#[tokio::test]
async fn a_voter_hears_one_process_of_a_node_at_a_time() {
    let cluster = Cluster::new();
    let agent = cluster.agent(Cluster::channel(&cluster.leader));
    let voter = agent.directory().peer(1).unwrap();
    let message = |number: Option<u128>| {
        let listen = if number == Some(2) { at(77) } else { at(7) };
        RaftMessage {
            to: 1,
            data: Vec::new(),
            places: vec![Place { node_id: 7, listen: listen.to_string(), raft_id: 7 }],
            incarnation: number.map(|it| run(it).as_bytes().to_vec()).unwrap_or_default(),
        }
    };
    let mut client = agent.directory().client(&voter);
    let (open, held) = mpsc::channel(1);
    open.send(message(Some(1))).await.unwrap();
    let first = tokio::spawn({
        let mut client = client.clone();
        async move { client.raft(ReceiverStream::new(held)).await.map(drop) }
    });
    let known = async {
        while cluster.leader.directory().places(7).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within(known).await;
    let mut send = async |number| {
        within(client.raft(stream::iter([message(number)])))
            .await
            .map(drop)
            .map_err(CallError::from)
    };
    assert!(matches!(send(Some(2)).await, Err(CallError::RunsElsewhere(_))));
    assert_eq!(send(None).await, Ok(()), "one of an earlier program does not say which it is");
    assert_eq!(send(Some(1)).await, Ok(()), "another stream of the same");
    drop(open);
    within(first).await.unwrap().unwrap();
    assert_eq!(send(Some(2)).await, Ok(()), "the first one has ended");
}
