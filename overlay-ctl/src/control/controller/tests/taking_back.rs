//! A creation that its leader did not live to finish is finished when the request is repeated.

use super::*;
use crate::control::state::Noted;
use crate::proto::internal::{EndpointStatus, NodeStatus};

const RUN: u64 = 7;

impl Cluster {
    /// What a leader logged of a creation on node 1, and no more.
    async fn logged(&self, create: &CreateEndpoint) -> u64 {
        self.raise().await;
        within(self.leader.create_network(network([1; 16], "net"))).await.unwrap();
        let CreateEndpoint {
            request, name, network, placement, permissions, aliases, ports, ..
        } = create.clone();
        let command =
            Command::CreateEndpoint { name, network, placement, permissions, aliases, ports };
        let request = Mutation::new(request, &command);
        let noted = Noted { provisional: Some(RUN), ..Noted::default() };
        let entry = self.voter.state.read(|state| state.entry_noting(request, command, noted));
        let (revision, made) =
            within(self.voter.consensus.propose(entry.encode().unwrap())).await.unwrap();
        made.unwrap();
        revision
    }

    fn provisional(&self, id: u64) -> Option<Option<u64>> {
        self.voter.state.read(|state| state.endpoint(id).map(|row| row.provisional))
    }
}

fn on_node_1() -> CreateEndpoint {
    let (node, netns) = ("h1".parse().unwrap(), "/run/netns/x".into());
    let placement = Placement::Node { node, netns, addresses: EndpointAddrs::default() };
    CreateEndpoint { placement, ..endpoint([2; 16], "net", 9) }
}

fn report(id: u64, up: bool, programmed_revision: u64) -> NodeStatus {
    let reason = "a foreign eth0 is there".to_owned();
    let endpoint = EndpointStatus { id, up, was_up: up, reason, ..EndpointStatus::default() };
    let endpoints = vec![endpoint];
    NodeStatus { node_id: 1, run: RUN, endpoints, programmed_revision, ..NodeStatus::default() }
}

#[tokio::test]
async fn what_the_node_could_not_make_is_gone_when_that_is_answered() {
    let cluster = Cluster::new();
    let create = on_node_1();
    let id = cluster.logged(&create).await;
    cluster.voter.table.record(report(id, false, id));
    let error = within(cluster.leader.create_endpoint(create)).await.unwrap_err();
    assert!(matches!(error, ControllerError::NotMade { taken_back: true, .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert!(error.to_string().contains("a foreign eth0 is there"), "{error}");
    assert_eq!(cluster.provisional(id), None, "it is gone");
}

/// The caller is told that it was made, so that nobody takes it back.
#[tokio::test]
async fn what_is_answered_as_made_stays() {
    let cluster = Cluster::new();
    let create = on_node_1();
    let id = cluster.logged(&create).await;
    // Its node says nothing, and counts as down after a while.
    let made = within(cluster.leader.create_endpoint(create.clone())).await.unwrap();
    assert_eq!(made.lagging, ["h1".parse().unwrap()]);
    assert_eq!(cluster.provisional(id), Some(None));
    let cluster = Cluster::new();
    let id = cluster.logged(&create).await;
    let made = CreateEndpoint { wait: false, ..create.clone() };
    within(cluster.leader.create_endpoint(made)).await.unwrap();
    assert_eq!(cluster.provisional(id), Some(None));
    // One that was up needs no word in the log: the node will not say that it never was.
    let cluster = Cluster::new();
    let id = cluster.logged(&create).await;
    cluster.voter.table.record(report(id, true, id));
    let made = within(cluster.leader.create_endpoint(create)).await.unwrap();
    assert!(made.lagging.is_empty(), "{:?}", made.lagging);
    assert_eq!(cluster.provisional(id), Some(Some(RUN)));
    assert_eq!(cluster.voter.state.read(State::revision), id);
}

#[test]
fn a_failure_after_an_effect_says_that_there_may_be_one() {
    let again = error::Attempt::Again { why: "the leader changed", effect: Effect::None };
    let again = again.of_an_effect();
    assert!(matches!(again, error::Attempt::Again { effect: Effect::Unknown, .. }), "{again:?}");
    let failed: error::Attempt = ControllerError::Overloaded { effect: Effect::None }.into();
    let error::Attempt::Failed(error) = failed.of_an_effect() else { panic!("it may be tried") };
    assert_eq!(error.effect(), Effect::Unknown);
}
