//! Backups through the API: from the leader, and from a node that does not lead.

use overlay_ctl::{
    control::backup::{Backup, read},
    proto::v1::BackupRequest,
};
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::{
    fixture::{Api, NETWORK, Node, assert_refused},
    lab::skip,
};

async fn backup(api: &mut Api) -> Backup {
    let mut pieces = api.cluster.backup(BackupRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend(piece.unwrap().data);
    }
    read(&*bytes).unwrap()
}

/// The second node holds the log and has no vote.
#[test]
fn each_node_writes_what_was_acknowledged_while_there_is_a_quorum() {
    if skip() {
        return;
    }
    let [first, second] = Node::start_pair();
    second.call(async move |_, mut api| {
        let network = api.network(NETWORK, "172.16.16.0/24").await;
        let status = api.status().await;
        for _ in 0..2 {
            let Backup { head, state } = backup(&mut api).await;
            assert_eq!(
                (head.cluster.to_string(), head.generation.number()),
                (status.cluster.clone(), 1)
            );
            assert!(head.revision >= network.created_revision);
            assert_eq!(state.network(network.id).unwrap().name.as_str(), NETWORK);
        }
        drop(first);
        let refused = api.cluster.backup(BackupRequest {}).await;
        assert_refused(refused, Code::Unavailable, &["no leader"]);
    });
}
