//! What an agent does with rows that only a newer version can read: it ends, since the kernel would never get them.

use super::*;
use crate::control::watch::Unreadable;

/// What a newer version sends in place of this: kinds of rows, and in each row something, that this version does not know.
pub(super) fn newer(mut down: WatchDown) -> WatchDown {
    down.upserts.iter_mut().for_each(|row| row.value = vec![0xc1]);
    down.removes.iter_mut().for_each(|key| key.kind = 99);
    down
}

/// The agent ends at this revision, with the view that it had, and asked no second voter.
async fn ends_at(world: World, revision: Revision) -> Unreadable {
    let (view, held) = (world.agent.view.clone(), world.agent.view.borrow().clone());
    let Ended::Unreadable(error) = world.agent.ended().await else {
        panic!("for another reason");
    };
    assert_eq!((error.voter, error.revision), (1, revision), "{error}");
    assert_eq!(*view.borrow(), held, "nothing of it was applied");
    assert_eq!(world.voters[1].opened(), 0, "all voters have the same rows");
    error
}

#[tokio::test(start_paused = true)]
async fn an_agent_ends_at_a_row_that_it_can_not_read() {
    let mut world = World::new(2);
    world.view_at(6).await;
    world.voters[0].set(Mode::Newer);
    world.endpoint("net", "far", 1);
    let said = ends_at(world, 7).await.to_string();
    assert!(said.contains("sent of revision 7 can't be read"), "{said}");
    assert!(said.contains("Install the newer version that the voters run"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_ends_at_a_removal_that_it_can_not_read() {
    let mut world = World::new(2);
    world.endpoint("net", "far", 1);
    world.view_at(7).await;
    world.voters[0].set(Mode::Newer);
    world.remove_endpoint("far");
    let error = ends_at(world, 8).await;
    assert!(error.why.contains("99"), "{error}");
}

/// A start of the agent shows the operator the same.
#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_ends_at_a_view_that_it_can_not_read() {
    let mut world = World::new(2);
    world.view_at(6).await;
    world.voters[0].set(Mode::Newer);
    world.agent = Agent::start(AGENT, AGENT, &world.directory);
    ends_at(world, 6).await;
}
