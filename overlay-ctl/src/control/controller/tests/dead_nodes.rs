//! The endpoints of a node that is down are removed with it; those of any other node only if that is asked for.

use super::*;
use crate::model::SPEAKS;
use crate::proto::internal::NodeStatus;

impl Cluster {
    /// Node 2 with so many endpoints, of which no kernel is asked.
    pub(super) async fn node_with(&self, speaks: Option<crate::model::Speaks>, endpoints: u16) {
        within(self.leader.register(Register { speaks, ..register(2) })).await.unwrap();
        within(self.leader.create_network(network([1; 16], "net"))).await.unwrap();
        for n in 2..2 + endpoints {
            let (node, netns) = ("h2".parse().unwrap(), format!("/run/netns/{n}").into());
            let placement = Placement::Node { node, netns, addresses: EndpointAddrs::default() };
            let CreateEndpoint { name, network, permissions, aliases, ports, .. } =
                endpoint([0; 16], "net", n);
            let command =
                Command::CreateEndpoint { name, network, placement, permissions, aliases, ports };
            let made = self.voter.consensus.propose(entry(0xfb, n, command));
            within(made).await.unwrap().1.unwrap();
        }
    }

    async fn remove(&self, request: u8, force: bool) -> Result<Removed, ControllerError> {
        let name = "h2".parse().unwrap();
        let remove = RemoveNode { request: [request; 16], name, only: None, force };
        within(self.leader.remove_node(remove)).await
    }

    fn counts(&self) -> (usize, usize) {
        self.voter.state.read(|state| (state.nodes().count(), state.endpoint_count()))
    }
}

/// Also by a leader that has only begun to lead: it waits until the node would have reported.
#[tokio::test]
async fn a_node_that_is_down_goes_with_its_endpoints() {
    let cluster = Cluster::new();
    cluster.raise().await;
    cluster.node_with(Some(SPEAKS), 3).await;
    cluster.voter.table.listen_anew();
    let revision = cluster.voter.state.read(State::revision);
    let removed = cluster.remove(7, false).await.unwrap();
    assert_eq!(removed.revision, revision + 1, "by one entry of the log");
    assert_eq!(cluster.counts(), (1, 0));
    assert_eq!(cluster.remove(7, false).await.unwrap(), removed, "a repetition");
}

#[tokio::test]
async fn a_node_that_is_heard_goes_with_its_endpoints_only_if_that_is_asked_for() {
    let cluster = Cluster::new();
    cluster.raise().await;
    cluster.node_with(Some(SPEAKS), 3).await;
    let heard = || cluster.voter.table.record(NodeStatus { node_id: 2, ..NodeStatus::default() });
    heard();
    let revision = cluster.voter.state.read(State::revision);
    let refused = cluster.remove(7, false).await.unwrap_err();
    assert_eq!(refused.effect(), Effect::None);
    assert_eq!(
        refused.to_string(),
        "node h2 has 3 endpoints; remove them first, or all with it by `overlay node rm --force h2`"
    );
    assert_eq!(cluster.voter.state.read(State::revision), revision, "nothing was logged");
    heard();
    cluster.remove(8, true).await.unwrap();
    assert_eq!(cluster.counts(), (1, 0));
}

#[tokio::test]
async fn a_cluster_of_version_1_keeps_a_node_with_endpoints_and_says_what_helps() {
    let cluster = Cluster::new();
    cluster.node_with(None, 1).await;
    let refused = cluster.remove(7, false).await.unwrap_err();
    assert!(
        matches!(refused, ControllerError::Refused(Refusal::NodeInUse { endpoints: 1, .. })),
        "{refused:?}"
    );
    let refused = cluster.remove(8, true).await.unwrap_err();
    assert!(
        matches!(refused, ControllerError::Refused(Refusal::NeedsVersion { .. })),
        "{refused:?}"
    );
    assert_eq!(cluster.counts(), (2, 1));
}
