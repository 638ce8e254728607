//! Raft's messages, of two processes of one node.

use super::*;
use crate::proto::internal::{Place, RaftMessage};
use tokio_stream::wrappers::ReceiverStream;

const NODE: u64 = 2;

/// A message that consensus can't read, which ends no stream, with where its sender is if it is the `first` of its stream.
fn message(process: u8, first: bool) -> RaftMessage {
    let place = Place { node_id: NODE, listen: register(2).listen.to_string(), raft_id: 2 };
    let (places, incarnation) =
        if first { (vec![place], vec![process; 16]) } else { (Vec::new(), Vec::new()) };
    RaftMessage { to: 1, data: b"unreadable".to_vec(), places, incarnation }
}

/// A machine without power does not close its streams, and may be back before their end is seen.
#[tokio::test]
async fn no_message_is_taken_of_a_process_whose_place_another_one_has_taken() {
    let cluster = Cluster::new();
    let peer = Peer { id: 1, listen: register(1).listen, voter: true, raft_id: None };
    let directory = Directory::new(cluster.leader.cluster(), [peer.clone()]);
    directory.put_channel(peer.listen, Cluster::channel(&cluster.leader));
    let (before, messages) = mpsc::channel(1);
    let mut client = directory.client(&peer);
    let stream = tokio::spawn(async move { client.raft(ReceiverStream::new(messages)).await });
    before.send(message(1, true)).await.unwrap();
    let elsewhere = "10.0.0.9:7400";
    let heard = cluster.leader.directory();
    let taken = async {
        while heard.hold_stream(NODE, &[9; 16], elsewhere).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within(taken).await;
    for _ in 0..3 {
        before.send(message(1, false)).await.unwrap();
    }
    assert!(!stream.is_finished(), "it is the node's only process");
    let _now = heard.hold_stream(NODE, &[2; 16], &register(2).listen.to_string()).unwrap();
    drop(before.send(message(1, false)).await);
    let refused = within(stream).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("another process runs as node 2"), "{refused}");
}
