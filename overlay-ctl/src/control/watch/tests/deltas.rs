//! What a voter sends to an agent: each change of the agent's view, who leads, and why it ends the stream.

use super::*;
use crate::proto::internal::{WatchHello, watch_up::Up};
use tonic::Code;

impl World {
    /// The agent's view is that of the first voter, once it is as new.
    async fn assert_up_to_date(&mut self) {
        let revision = self.voters[0].revision;
        let view = self.view_at(revision).await;
        assert_eq!(*view, self.voters[0].view());
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_follows_each_change_in_one_stream() {
    let mut world = World::new(1);
    world.assert_up_to_date().await;
    world.network("other", "172.16.17.0/24");
    world.endpoint("other", "far", 1);
    world.assert_up_to_date().await;
    // It comes to have part in a network twice, and what is there changes while it has none.
    for (mine, theirs) in [("api", "far2"), ("api2", "far3")] {
        world.endpoint("other", mine, AGENT);
        world.assert_up_to_date().await;
        world.remove_endpoint(mine);
        world.assert_up_to_date().await;
        world.endpoint("other", theirs, 1);
        world.assert_up_to_date().await;
    }
    world.remove_endpoint("web");
    world.assert_up_to_date().await;
    // An entry of the consensus layer's own, which changes no row.
    let voter = &mut world.voters[0];
    voter.revision += 1;
    voter.machine.batch_applied(voter.revision);
    let newest = voter.revision;
    world.view_at(newest).await;
    assert_eq!(world.voters[0].opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_cut_off_for_too_long_begins_anew() {
    let mut world = World::remembering(1, 2);
    world.network("other", "172.16.17.0/24");
    world.endpoint("other", "api", AGENT);
    world.assert_up_to_date().await;
    world.voters[0].set(Mode::Away);
    world.remove_endpoint("api");
    for (name, subnet) in [("n1", "172.16.18.0/24"), ("n2", "172.16.19.0/24")] {
        world.network(name, subnet);
        world.endpoint(name, &format!("{name}-far"), 1);
    }
    world.voters[0].set(Mode::Serving);
    world.assert_up_to_date().await;
    // What it held before is sent again when it comes back to it.
    world.endpoint("other", "api2", AGENT);
    world.assert_up_to_date().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_told_who_leads() {
    let mut world = World::new(1);
    world.view_at(6).await;
    assert_eq!(world.directory.leader(), Some(1));
    for leader in [Some(2), None, Some(3)] {
        world.voters[0].service.cluster.send_modify(|status| status.leader = leader);
        // Sooner than a voter repeats it.
        sleep(HEARTBEAT).await;
        assert_eq!(world.directory.leader(), leader);
    }
    assert_eq!(world.voters[0].opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_voter_says_why_it_ends_a_stream() {
    let world = World::new(1);
    let voter = world.directory.peer(1).unwrap();
    let reason = async |cursor| {
        let hello = WatchHello { node_id: AGENT, epoch: AGENT, cursor, ..Default::default() };
        let up = stream::iter([WatchUp { up: Some(Up::Hello(hello)) }]);
        let up = stream::StreamExt::chain(up, stream::pending());
        let down = world.directory.client(&voter).watch(up).await.unwrap().into_inner();
        let ended = stream::StreamExt::filter_map(down, async |message| message.err());
        let ended = std::pin::pin!(ended).next().await.expect("a reason");
        assert_eq!(ended.code(), Code::Unavailable);
        ended.message().to_owned()
    };
    let said = timeout(BOUND, reason(99)).await.expect("it ends");
    assert_eq!(said, "this voter is behind what the node holds");
    world.voters[0].set(Mode::Unheard);
    let said = timeout(BOUND, reason(6)).await.expect("it ends");
    assert_eq!(said, "this voter takes part in no quorum");
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_generation_gets_the_whole_view() {
    let world = World::new(1);
    let voter = world.directory.peer(1).unwrap();
    let first = async |generation| {
        let hello = WatchHello {
            node_id: AGENT,
            epoch: AGENT,
            cursor: 6,
            generation,
            ..Default::default()
        };
        let up = stream::iter([WatchUp { up: Some(Up::Hello(hello)) }]);
        let up = stream::StreamExt::chain(up, stream::pending());
        let mut down = world.directory.client(&voter).watch(up).await.unwrap().into_inner();
        let first = timeout(BOUND, down.next()).await.expect("a message").expect("one").unwrap();
        (first.complete, first.generation)
    };
    assert_eq!(first(1).await, (false, 1));
    assert_eq!(first(0).await, (false, 1), "a program that says none is of generation 1");
    assert_eq!(first(2).await, (true, 1));
}
