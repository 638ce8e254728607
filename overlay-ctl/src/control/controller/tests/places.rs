//! Where nodes listen: what the leader takes and refuses, and what peers tell each other.

use super::*;
use crate::proto::internal::{NodeStatus, Place, RaftMessage};
use futures::stream;
use tonic::Code;

fn at(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 7400).into()
}

#[tokio::test]
async fn no_node_is_taken_in_at_the_address_of_another_one_that_runs() {
    let cluster = Cluster::new();
    let leader = &cluster.leader;
    let node = within(leader.register(register(2))).await.unwrap().node;
    let same_place = |id| Register { listen: at(2), ..register(id) };
    within(leader.register(same_place(3))).await.expect("nobody has heard of node 2");

    let status = NodeStatus { node_id: node.id, epoch: node.epoch, ..NodeStatus::default() };
    cluster.voter.table.record(status.clone());
    let error = within(leader.register(same_place(4))).await.unwrap_err();
    assert_eq!(error.effect(), Effect::None);
    assert_eq!(
        error.to_string(),
        r#"listen "10.0.0.2:7400" is where node h2 listens, which runs: give each node a --listen of its own"#
    );
    cluster.voter.table.record(status.clone());
    let elsewhere = Register { vtep: [10, 0, 0, 22].into(), ..register(2) };
    let node = within(leader.register(elsewhere)).await.expect("it is its own").node;

    let status = NodeStatus { epoch: node.epoch, ..status };
    cluster.voter.table.record(status);
    leader.directory().heard_from(node.id, at(22));
    within(leader.register(same_place(4))).await.expect("it has left");
}

#[tokio::test]
async fn a_stream_of_raft_tells_where_nodes_listen_and_is_meant_for_one_node() {
    let cluster = Cluster::new();
    let agent = cluster.agent(Cluster::channel(&cluster.leader));
    let voter = agent.directory().peer(1).unwrap();
    let places = [(7, "10.0.0.7:7400"), (8, "10.0.0.8:7400"), (9, "nowhere")];
    let places: Vec<Place> = places
        .map(|(node_id, listen)| Place {
            node_id,
            listen: listen.to_owned(),
            raft_id: 70 + node_id,
        })
        .into_iter()
        .collect();
    let send = async |to| {
        let message = RaftMessage { to, data: Vec::new(), places: places.clone() };
        let mut client = agent.directory().client(&voter);
        within(client.raft(stream::iter([message]))).await.map(drop)
    };
    let known = || [7, 8, 9].map(|id| cluster.leader.directory().places(id));
    let error = send(2).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    assert_eq!(error.message(), "this is member 1, not member 2");
    assert_eq!(known(), [vec![at(7)], vec![at(8)], vec![]], "the sender is where it says");
    send(1).await.unwrap();
    let whose = [77, 78, 7].map(|life| cluster.leader.directory().node_of(life));
    assert_eq!(whose, [Some(7), Some(8), None]);
}
