//! Names and addresses of removed endpoints are given out again when the nodes that live have forgotten them.

use super::*;
use crate::{model::SPEAKS, proto::internal::NodeStatus};

impl Cluster {
    /// Node 2 has an endpoint of `net`, so that it is on that network; `e9` is behind another VTEP.
    async fn on_two_nodes(&self) {
        self.raise().await;
        self.node_with(Some(SPEAKS), 1).await;
        within(self.leader.create_endpoint(external(2))).await.unwrap();
    }

    fn programmed(&self, programmed_revision: u64) {
        let status = NodeStatus { node_id: 2, programmed_revision, ..NodeStatus::default() };
        self.voter.table.record(status);
    }
}

fn external(request: u8) -> CreateEndpoint {
    CreateEndpoint { wait: false, ..endpoint([request; 16], "net", 9) }
}

fn remove(request: u8) -> RemoveEndpoint {
    RemoveEndpoint { wait: false, ..remove_endpoint([request; 16], 9) }
}

#[tokio::test]
async fn a_node_that_lives_is_waited_for_and_named() {
    let cluster = Cluster::new();
    cluster.on_two_nodes().await;
    let gone = within(cluster.leader.remove_endpoint(remove(3))).await.unwrap();
    assert!(gone.lagging.is_empty(), "nobody waited");
    let lives = tokio::spawn({
        let table = cluster.voter.table.clone();
        let status =
            NodeStatus { node_id: 2, programmed_revision: gone.revision - 1, ..Default::default() };
        async move {
            let mut interval = tokio::time::interval(Duration::from_millis(300));
            loop {
                interval.tick().await;
                table.record(status.clone());
            }
        }
    });
    let before = cluster.voter.state.read(State::revision);
    let held_back = within(cluster.leader.create_endpoint(external(4))).await.unwrap_err();
    assert!(matches!(held_back, ControllerError::HeldBack { .. }), "{held_back:?}");
    assert_eq!(held_back.effect(), Effect::None);
    assert!(held_back.to_string().ends_with("(not yet: h2)"), "{held_back}");
    assert_eq!(cluster.voter.state.read(State::revision), before, "nothing was logged");
    lives.abort();
    // As soon as it has.
    let asked = tokio::spawn({
        let leader = cluster.leader.clone();
        async move { leader.create_endpoint(external(5)).await }
    });
    cluster.programmed(gone.revision);
    within(asked).await.unwrap().unwrap();
}

/// It may be cut off from the controllers, and go on with what it has.
#[tokio::test]
async fn a_node_that_is_down_is_named_and_waited_for_until_it_is_lost_for_a_while() {
    let cluster = Cluster::new();
    cluster.on_two_nodes().await;
    // It waits until the node counts as down, and no longer.
    let gone = remove_endpoint([3; 16], 9);
    let gone = within(cluster.leader.remove_endpoint(gone)).await.unwrap();
    assert_eq!(gone.lagging, ["h2".parse().unwrap()]);
    let held_back = within(cluster.leader.create_endpoint(external(4))).await.unwrap_err();
    assert!(held_back.to_string().ends_with("(not yet: h2)"), "{held_back}");
    let signs = cluster.voter.table.signs();
    signs.follow(&[1, 2].into(), &[2].into(), Duration::from_secs(3600));
    let held_back = within(cluster.leader.create_endpoint(external(5))).await.unwrap_err();
    assert!(held_back.to_string().ends_with("(not yet: h2)"), "{held_back}");
    signs.follow(&[1, 2].into(), &[2].into(), Duration::ZERO);
    within(cluster.leader.create_endpoint(external(6))).await.unwrap();
}
