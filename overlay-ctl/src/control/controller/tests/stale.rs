//! Reads that may be stale: answered without a leader, marked, and never more than reads.

use super::*;

/// A cluster with a network and an endpoint on it, whose consensus has stopped: it has no leader and never will.
async fn without_a_leader() -> (Cluster, u64) {
    let cluster = Cluster::new();
    within(cluster.leader.create_network(network([1; 16], "net"))).await.unwrap();
    within(cluster.leader.create_endpoint(endpoint([2; 16], "net", 9))).await.unwrap();
    cluster.voter.consensus.shutdown().await;
    let revision = cluster.voter.state.read(State::revision);
    (cluster, revision)
}

fn list() -> ListEndpoints {
    ListEndpoints { network: None, node: None }
}

#[tokio::test]
async fn a_voter_answers_by_its_own_state_and_says_of_which_revision() {
    let (cluster, revision) = without_a_leader().await;
    let asked = &cluster.leader;
    let refused = within(asked.list_networks(Reading::Latest)).await;
    assert!(matches!(refused, Err(ControllerError::Stopping { .. })), "{refused:?}");

    let Read { answer, as_of } =
        within(asked.list_endpoints(list(), Reading::Stale)).await.unwrap();
    assert_eq!((names(answer).await, as_of), (vec!["e9".to_owned()], Some(revision)));
    let inspect = InspectNetwork { name: "net".parse().unwrap(), brief: false };
    let Read { answer, as_of } =
        within(asked.inspect_network(inspect, Reading::Stale)).await.unwrap();
    assert_eq!((answer.network.endpoints, as_of), (1, Some(revision)));
    let inspect = InspectEndpoint { name: "e9".parse().unwrap(), network: None };
    let found = within(asked.inspect_endpoint(inspect, Reading::Stale)).await.unwrap();
    assert_eq!(
        (found.answer.endpoint.name.to_string(), found.as_of),
        ("e9".to_owned(), Some(revision))
    );
    let inspect = InspectNode { name: "h1".parse().unwrap() };
    let found = within(asked.inspect_node(inspect, Reading::Stale)).await.unwrap();
    assert_eq!((found.answer.node.id, found.as_of), (1, Some(revision)));
    for read in [
        asked.list_nodes(Reading::Stale).await.map(|read| (read.answer.count(), read.as_of)),
        asked.list_networks(Reading::Stale).await.map(|read| (read.answer.count(), read.as_of)),
    ] {
        assert_eq!(read, Ok((1, Some(revision))));
    }
    // What is not there is refused, as ever.
    let inspect = InspectNode { name: "h9".parse().unwrap() };
    let refused = within(asked.inspect_node(inspect, Reading::Stale)).await;
    assert!(matches!(refused, Err(ControllerError::Refused(Refusal::NoNode(_)))), "{refused:?}");
}

#[tokio::test]
async fn an_agent_has_any_voter_answer() {
    let (cluster, revision) = without_a_leader().await;
    let agent = cluster.agent(Cluster::channel(&cluster.leader));
    let Read { answer, as_of } =
        within(agent.list_endpoints(list(), Reading::Stale)).await.unwrap();
    assert_eq!((names(answer).await, as_of), (vec!["e9".to_owned()], Some(revision)));
    let inspect = InspectNode { name: "h9".parse().unwrap() };
    let refused = within(agent.inspect_node(inspect, Reading::Stale)).await;
    assert!(matches!(refused, Err(ControllerError::Refused(Refusal::NoNode(_)))), "{refused:?}");
    // An agent answers no other one.
    let far = cluster.agent(Cluster::channel(&agent));
    let refused = within(far.list_endpoints(list(), Reading::Stale)).await.unwrap_err();
    assert!(matches!(refused, ControllerError::NoVoter { .. }), "{refused:?}");
    let alone = Controller::new(9, Directory::new(Uuid::new_v4(), []), None, agent.check().clone());
    let refused = within(alone.list_endpoints(list(), Reading::Stale)).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.starts_with("no voter answers (none is known)"), "{said}");
}

#[tokio::test]
async fn nothing_is_changed_by_what_may_be_stale() {
    let cluster = Cluster::new();
    let revision = cluster.voter.state.read(State::revision);
    let create = network([1; 16], "net");
    let refused = within(cluster.leader.read(create.clone(), Reading::Stale)).await.unwrap_err();
    assert_eq!((refused.effect(), refused), (Effect::None, ControllerError::StaleWrite));
    // Forwarded, too.
    let forwarded = within(cluster.leader.answer_stale(&verb::pack(&create).unwrap())).await;
    let refused = verb::decode::<ControllerError>(&forwarded.unwrap_err());
    assert_eq!(refused, Ok(ControllerError::StaleWrite));
    assert_eq!(cluster.voter.state.read(State::revision), revision);
}
