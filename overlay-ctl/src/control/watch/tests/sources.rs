//! What a voter sent whose state was another one than that of the others.

use super::*;
use crate::model::RaftId;

/// Two voters, of which the first has another state, and the agent holds it.
async fn a_world_with_a_voter_that_differs() -> World {
    let mut world = World::new(2);
    world.apply(versions::raise());
    world.view_at(7).await;
    let endpoint = |name: &str| create_endpoint("net", name, AGENT);
    world.voters[1].apply(endpoint("right"));
    world.voters[0].apply(endpoint("wrong"));
    let view = world.view_at(8).await;
    assert_eq!(*view, world.voters[0].view());
    assert_ne!(*view, world.voters[1].view(), "it is what the voter that differs has");
    world
}

/// Waits until the view is that of the second voter.
async fn holds_what_the_second_has(world: &World, views: &mut watch::Receiver<Option<Arc<View>>>) {
    let right = world.voters[1].view();
    let same = |view: &Option<Arc<View>>| view.as_deref() == Some(&right);
    let mended = timeout(BOUND, views.wait_for(same)).await.is_ok();
    assert!(mended, "it holds {:?}", views.borrow());
}

#[tokio::test(start_paused = true)]
async fn what_a_voter_sent_whose_state_differs_is_sent_anew_when_its_life_is_over() {
    let mut world = a_world_with_a_voter_that_differs().await;
    // It ends, and begins another life.
    world.voters[0].set(Mode::Away);
    let ended = RaftId::new(1);
    world.voters[1].apply(Command::BeginLife { name: "h1".parse().unwrap(), only: 1, ended });
    let mut views = world.agent.view.clone();
    holds_what_the_second_has(&world, &mut views).await;
    // The life of nobody who sent it is over from now on.
    let opened = world.voters[1].opened();
    world.voters[1].apply(network("late", "172.16.17.0/24"));
    world.view_at(10).await;
    sleep(BOUND).await;
    assert_eq!(world.voters[1].opened(), opened, "it is asked for once");
}

/// An older view would make the agent forget what it rightly holds.
#[tokio::test(start_paused = true)]
async fn all_is_taken_anew_only_of_a_voter_that_is_not_behind() {
    let mut world = World::new(2);
    let held = world.view_at(6).await;
    world.agent.follows.abort();
    world.voters[0].apply(network("late", "172.16.17.0/24"));
    let newer = Arc::new(View { revision: 8, ..View::clone(&held) });
    let mut agent = Agent::holding(newer, &world.directory);
    sleep(BOUND).await;
    assert_eq!(agent.view.borrow().as_ref().map(|view| view.revision), Some(8));
    world.voters[1].apply(network("late", "172.16.17.0/24"));
    world.voters[1].apply(network("later", "172.16.18.0/24"));
    holds_what_the_second_has(&world, &mut agent.view).await;
}

/// Nobody compares the state of a voter that has left its seat any more.
#[tokio::test(start_paused = true)]
async fn a_voter_that_becomes_an_agent_takes_nothing_over_from_its_own_log() {
    let world = a_world_with_a_voter_that_differs().await;
    let wrong = Arc::new(world.voters[0].view());
    world.agent.follows.abort();
    world.voters[0].set(Mode::Away);
    let mut agent = Agent::holding(wrong, &world.directory);
    holds_what_the_second_has(&world, &mut agent.view).await;
}
