//! Which voter an agent follows, and when it leaves it.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_agent_stays_where_nothing_changes() {
    let mut world = World::new(1);
    let first = world.view_at(6).await;
    assert_eq!(first.networks.len(), 1);
    world.agent.view.mark_unchanged();
    // Many times what a silent voter is given.
    sleep(Duration::from_secs(300)).await;
    assert_eq!(world.voters[0].opened(), 1);
    assert!(!world.agent.view.has_changed().unwrap(), "that nothing changed is no new view");
    world.agent.status.send_modify(|status| status.programmed = 6);
    world.status_at(0, 6).await;
    assert!(!world.agent.follows.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_agent_leaves_a_voter_that_nobody_hears() {
    let mut world = World::new(2);
    world.view_at(6).await;
    assert_eq!((world.voters[0].opened(), world.voters[1].opened()), (1, 0));
    // It still believes to know the leader. The quorum goes on without it.
    world.voters[0].set(Mode::Unheard);
    world.voters[1].apply(network("late", "172.16.17.0/24"));
    world.view_at(7).await;
    // And its status is where the leader hears of it, and nowhere else.
    world.agent.status.send_modify(|status| status.programmed = 7);
    world.status_at(1, 7).await;
    sleep(HEARTBEAT).await;
    let passed_on = |voter: &Voter| voter.service.table.first_hand().len();
    assert_eq!((passed_on(&world.voters[0]), passed_on(&world.voters[1])), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_agent_leaves_a_voter_that_is_behind_it() {
    let mut world = World::new(2);
    world.view_at(6).await;
    world.voters[0].set(Mode::Away);
    world.voters[1].apply(network("late", "172.16.17.0/24"));
    world.view_at(7).await;
    // The one that has it goes. The other one is of the quorum, as far as it can prove, but behind.
    world.voters[1].set(Mode::Away);
    world.voters[0].set(Mode::Serving);
    let opened = world.voters[0].opened();
    let tried = async {
        while world.voters[0].opened() == opened {
            sleep(HEARTBEAT).await;
        }
    };
    timeout(BOUND, tried).await.expect("the agent asks the voter that is left");
    world.voters[1].set(Mode::Serving);
    world.voters[1].apply(network("later", "172.16.18.0/24"));
    let view = world.view_at(8).await;
    assert_eq!(view.revision, 8);
}

#[tokio::test(start_paused = true)]
async fn an_agent_leaves_a_silent_voter() {
    let mut world = World::new(2);
    world.view_at(6).await;
    world.voters[0].set(Mode::Silent);
    world.apply(network("late", "172.16.17.0/24"));
    world.view_at(7).await;
    assert_eq!(world.voters[1].opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_anywhere_an_agent_keeps_its_view_and_a_new_one_gets_what_there_is() {
    let mut world = World::new(2);
    let held = world.view_at(6).await;
    for voter in &world.voters {
        voter.set(Mode::Unheard);
        voter.service.cluster.send_modify(|status| status.leader = None);
    }
    // Time for many rounds.
    sleep(Duration::from_secs(30)).await;
    assert!(world.voters.iter().all(|voter| voter.opened() > 2), "it asks both again and again");
    assert_eq!(world.agent.view.borrow().as_deref(), Some(&*held));

    // An agent that has just started is no worse off than one that ran on.
    let mut started = Agent::start(AGENT, AGENT, &world.directory);
    assert_eq!(started.view_at(6).await, held);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_nobody_serves_knows_no_leader() {
    let mut world = World::new(2);
    world.view_at(6).await;
    assert_eq!(world.directory.leader(), Some(1));
    world.voters.iter().for_each(|voter| voter.set(Mode::Away));
    sleep(BOUND).await;
    assert_eq!(world.directory.leader(), None);
    world.voters[1].set(Mode::Serving);
    sleep(BOUND).await;
    assert_eq!(world.directory.leader(), Some(1));
}

/// An election takes less time than a request for a leader waits.
#[tokio::test(start_paused = true)]
async fn an_agent_is_led_while_another_leader_is_elected() {
    let mut world = World::new(1);
    world.view_at(6).await;
    let elect = |leader| {
        world.voters[0].service.cluster.send_modify(|status| status.leader = leader);
    };
    elect(None);
    sleep(LAPSE / 2).await;
    assert_eq!(world.directory.leader(), None);
    assert!(world.directory.is_led(LAPSE));
    elect(Some(2));
    sleep(LAPSE).await;
    assert!(world.directory.is_led(LAPSE));
    elect(None);
    sleep(2 * LAPSE).await;
    assert!(!world.directory.is_led(LAPSE), "this is no election");
}

#[tokio::test(start_paused = true)]
async fn a_voter_without_a_quorum_tells_an_agent_of_no_leader() {
    let mut world = World::new(1);
    world.view_at(6).await;
    world.voters[0].set(Mode::Unheard);
    sleep(2 * LAPSE).await;
    let opened = world.voters[0].opened();
    for _ in 0..200 {
        assert_eq!(world.directory.leader(), None);
        sleep(Duration::from_millis(50)).await;
    }
    assert!(world.voters[0].opened() > opened, "it is asked again and again");
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_while_an_agent_was_cut_off_is_gone_from_its_view() {
    let mut world = World::new(2);
    world.network("other", "172.16.17.0/24");
    world.endpoint("other", "api", AGENT);
    world.endpoint("net", "far", 1);
    let held = world.view_at(9).await;
    assert_eq!((held.networks.len(), held.all_endpoints().count()), (2, 3));
    for voter in &world.voters {
        voter.set(Mode::Away);
    }
    // Its last endpoint on one network, so that it has no part in it any more; and one elsewhere on the other.
    world.remove_endpoint("api");
    world.remove_endpoint("far");
    // Another voter than it was with takes it up where it was.
    world.voters[1].set(Mode::Serving);
    let view = world.view_at(11).await;
    let names: Vec<String> =
        view.networks.values().map(|network| network.name.to_string()).collect();
    assert_eq!(names, ["net"]);
    let names: Vec<String> =
        view.all_endpoints().map(|endpoint| endpoint.name.to_string()).collect();
    assert_eq!(names, ["web"]);
    assert_eq!(*view, world.voters[1].view());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_removed_ends() {
    let mut world = World::new(1);
    world.remove_endpoint("web");
    world.view_at(7).await;
    world.apply(Command::RemoveNode {
        name: "h4".parse().unwrap(),
        only: None,
        with_endpoints: false,
    });
    assert!(matches!(world.agent.ended().await, Ended::Removed));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_removed_while_it_was_cut_off_ends() {
    let mut world = World::new(1);
    world.view_at(6).await;
    world.voters[0].set(Mode::Away);
    world.remove_endpoint("web");
    world.apply(Command::RemoveNode {
        name: "h4".parse().unwrap(),
        only: None,
        with_endpoints: false,
    });
    world.voters[0].set(Mode::Serving);
    assert!(matches!(world.agent.ended().await, Ended::Removed));
    let restarted = Agent::start(AGENT, AGENT, &world.directory);
    assert!(matches!(restarted.ended().await, Ended::Removed), "a voter says so at once");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_a_voter_does_not_know_yet_asks_the_others() {
    let mut world = World::new(2);
    world.view_at(6).await;
    let mut late = Agent::start(5, 7, &world.directory);
    sleep(BOUND).await;
    assert!(late.view.borrow().is_none() && !late.follows.is_finished(), "nobody knows it yet");
    world.voters[1].apply(register(5));
    late.view_at(7).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_served_only_as_it_was_last_registered() {
    let mut world = World::new(1);
    world.view_at(6).await;
    let mut older = Agent::start(AGENT, AGENT - 1, &world.directory);
    sleep(BOUND).await;
    assert!(older.view.borrow().is_none(), "the node has registered anew since");
    let asked = timeout(BOUND, world.directory.asked_to_register()).await;
    asked.expect("it is registered anew at once");
    older.epoch.send_replace(AGENT);
    older.view_at(6).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_nobody_serves_pauses_before_it_asks_all_again() {
    let mut world = World::new(1);
    world.view_at(6).await;
    world.voters[0].set(Mode::Away);
    let asked = world.voters[0].asked_next().await;
    assert!(is_ascending(&asked), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_says_where_it_listens() {
    let mut world = World::new(1);
    let elsewhere = (Ipv4Addr::new(10, 10, 20, 4), 7400).into();
    world.directory.introduce(AGENT, elsewhere);
    world.view_at(6).await;
    assert_eq!(world.voters[0].service.directory.places(AGENT), [elsewhere]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_asks_its_voters_at_every_place_that_it_knows_until_their_rows_are_right() {
    let mut world = World::new(0);
    let elsewhere = (Ipv4Addr::new(10, 10, 20, 1), 7400).into();
    world.directory.heard_from(1, elsewhere);
    let mut voter = Voter::remembering(REMEMBERED);
    serve_at(world.directory.cluster(), elsewhere, &world.directory, &voter);
    tokio::spawn(prove(voter.service.quorum.clone(), voter.mode.subscribe()));
    for id in 1..=AGENT {
        voter.apply(register(id));
    }
    world.view_at(AGENT).await;
    assert_eq!(world.directory.places(1), [elsewhere, listen(1)]);
    assert!(!world.directory.is_confirmed(), "its row says another address");
    voter.apply(register_at(1, elsewhere));
    world.view_at(AGENT + 1).await;
    assert_eq!(world.directory.places(1), [elsewhere]);
    assert!(world.directory.is_confirmed());
    assert_eq!(world.directory.places(2), [listen(2)]);
}

/// A machine without power does not close its streams, and may be back before their end is seen.
#[tokio::test(start_paused = true)]
async fn a_process_whose_place_another_one_has_taken_is_heard_no_more() {
    let mut world = World::new(1);
    world.directory.introduce(AGENT, listen(AGENT));
    world.agent.follows.abort();
    let before = Agent::start(AGENT, AGENT, &world.directory);
    world.agent = before;
    world.view_at(6).await;
    world.agent.status.send_modify(|status| status.programmed = 6);
    world.status_at(0, 6).await;
    let registers = world.directory.asked_to_register();
    let opened = world.voters[0].opened();
    let now = Agent::start(AGENT, AGENT, &world.directory.clone().run_by(Uuid::new_v4()));
    now.status.send_modify(|status| status.programmed = 7);
    world.voters[0].status_of(AGENT, 7).await;
    timeout(BOUND, registers).await.expect("the one before is told of it");
    for programmed in 8..18 {
        world.agent.status.send_modify(|status| status.programmed = programmed);
        sleep(HEARTBEAT).await;
        assert_eq!(world.voters[0].service.table.programmed(AGENT), Some(7));
    }
    assert_eq!(world.voters[0].opened(), opened + 1, "nor does it open another stream");
}
