//! What a table of statuses says.

use super::*;
use crate::control::voter::with_disk;
use tokio::time::advance;

fn status(node_id: NodeId, epoch: Revision, programmed_revision: Revision) -> NodeStatus {
    NodeStatus { node_id, epoch, programmed_revision, ..NodeStatus::default() }
}

#[test]
fn an_older_epoch_is_void() {
    let table = StatusTable::default();
    table.record(status(1, 5, 10));
    table.record(status(1, 4, 99));
    assert_eq!(table.programmed(1), Some(10));
    table.record(status(1, 6, 1));
    assert_eq!(table.programmed(1), Some(1));
}

#[test]
fn only_first_hand_knowledge_is_passed_on() {
    let table = StatusTable::default();
    table.record(status(1, 1, 1));
    table.record_report(status(2, 1, 1));
    let passed_on = |table: &StatusTable| -> Vec<NodeId> {
        table.first_hand().iter().map(|status| status.node_id).collect()
    };
    assert_eq!(passed_on(&table), [1]);
    table.stream_ended(1);
    assert!(passed_on(&table).is_empty());
    assert_eq!(table.programmed(1), Some(1), "it is not down for that");
    assert_eq!(table.programmed(2), Some(1), "what was passed on here counts as well");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_all_are_there_and_names_those_that_are_not() {
    let table = StatusTable::default();
    table.record(status(1, 1, 10));
    let late = table.wait_programmed([1, 2].into(), 10, Duration::from_secs(1)).await;
    assert_eq!(late, [2].into());
    let waiting = table.clone();
    let wait = tokio::spawn(async move {
        waiting.wait_programmed([1, 2].into(), 10, Duration::from_secs(1000)).await
    });
    tokio::task::yield_now().await;
    table.record(status(2, 1, 11));
    assert_eq!(wait.await.unwrap(), BTreeSet::new());
}

#[test]
fn an_endpoint_is_as_its_node_says_until_that_is_forgotten() {
    let table = StatusTable::default();
    let health = |id| EndpointStatus { id, mtu: 1400, ..EndpointStatus::default() };
    table.record(NodeStatus { endpoints: vec![health(3), health(5)], ..status(1, 1, 1) });
    assert_eq!(table.health(1, 5), Some(Some(health(5))));
    assert_eq!(table.health(1, 4), Some(None), "the report does not name it");
    assert_eq!(table.health(2, 5), None, "the node was not heard");
    table.forget(1);
    assert_eq!(table.health(1, 5), None);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_down_once_it_has_been_silent_for_a_while() {
    let table = StatusTable::default();
    table.record(status(1, 1, 10));
    let heard = |table: &StatusTable| {
        (table.programmed(1), table.first_hand().len(), table.is_down(1), table.is_down(2))
    };
    advance(NODE_DOWN_AFTER - Duration::from_millis(1)).await;
    assert_eq!(heard(&table), (Some(10), 1, false, false));
    advance(Duration::from_millis(1)).await;
    assert_eq!(heard(&table), (None, 0, true, true), "silent, or never heard");
    table.record(status(1, 1, 10));
    assert_eq!(heard(&table), (Some(10), 1, false, true));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_every_node_the_time_to_report() {
    let table = StatusTable::default();
    advance(NODE_DOWN_AFTER).await;
    assert!(table.is_down(1));
    table.listen_anew();
    assert!(!table.is_down(1));
}

#[test]
fn only_a_status_that_says_something_else_is_news() {
    let table = StatusTable::default();
    let mut news = table.watch();
    let mut is_news = |status| {
        table.record(status);
        let is_news = news.has_changed().unwrap();
        news.mark_unchanged();
        is_news
    };
    assert!(is_news(status(1, 1, 10)));
    assert!(!is_news(status(1, 1, 10)), "a repetition");
    assert!(is_news(status(1, 1, 11)));
    assert!(!is_news(status(1, 0, 12)), "of an older epoch");
    assert!(is_news(status(2, 1, 11)), "of another node");
}

#[test]
fn all_of_a_status_is_sent() {
    let leg = LegHealth { interface: "eth1".into(), ifname: "ovg7".into(), ifindex: 8, mtu: 1500 };
    let up = EndpointHealth {
        down: None,
        was_up: true,
        ifname: "ov7".into(),
        ifindex: 7,
        mtu: 1450,
        interface: "eth0".into(),
        gateway: Some(leg),
    };
    let down = EndpointHealth { down: Some("no namespace".into()), ..Default::default() };
    let status = LocalStatus {
        run: 77,
        programmed: 20,
        endpoints: [(11, up), (12, down)].into(),
        ..LocalStatus::default()
    };
    let leg = LegStatus {
        interface: "eth1".into(),
        host_interface: "ovg7".into(),
        host_ifindex: 8,
        mtu: 1500,
    };
    let up = EndpointStatus {
        id: 11,
        up: true,
        was_up: true,
        reason: String::new(),
        host_interface: "ov7".into(),
        host_ifindex: 7,
        mtu: 1450,
        interface: "eth0".into(),
        gateway: Some(leg),
    };
    let down = EndpointStatus { id: 12, reason: "no namespace".into(), ..Default::default() };
    let sent = NodeStatus {
        node_id: 2,
        epoch: 9,
        programmed_revision: 20,
        endpoints: vec![up, down],
        oldest_version: SPEAKS.oldest().number(),
        newest_version: SPEAKS.newest().number(),
        disk_writes: 0,
        disk_write_us: 0,
        lacks_data_plane: false,
        run: 77,
        state_hashes: Vec::new(),
        hash_version: 0,
        probes: Vec::new(),
    };
    assert_eq!(to_wire(2, 9, &status), sent);
    let disk = DiskTimes { writes: 4, average: Duration::from_micros(1_500) };
    let of_voter = NodeStatus { disk_writes: 4, disk_write_us: 1_500, ..sent.clone() };
    assert_eq!(with_disk(sent, disk), of_voter);
}

/// It is not told "alive" for want of time to hear of the node, nor "down".
#[tokio::test(start_paused = true)]
async fn whether_a_node_is_down_is_known_when_it_was_heard_or_had_the_time() {
    let table = StatusTable::default();
    let began = Instant::now();
    assert!(table.known_as_down(1).await);
    assert_eq!(began.elapsed(), NODE_DOWN_AFTER);
    table.listen_anew();
    let asked = tokio::spawn({
        let table = table.clone();
        async move { (table.known_as_down(1).await, Instant::now()) }
    });
    advance(LOOK_AGAIN / 2).await;
    table.record(status(1, 1, 1));
    let reported = Instant::now();
    assert_eq!(asked.await.unwrap(), (false, reported), "as soon as it reports");
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_is_what_every_node_has_that_may_go_on_with_it() {
    let table = StatusTable::default();
    table.record(status(1, 1, 10));
    table.record(status(2, 1, 12));
    let without = NodeStatus { lacks_data_plane: true, ..status(3, 1, 0) };
    table.record(without);
    assert_eq!(table.confirmed(&[1, 2, 3].into()), 10);
    assert_eq!(table.confirmed(&[2, 3].into()), 12);
    assert_eq!(table.confirmed(&[1, 4].into()), 0, "4 had no time to report");
    advance(NODE_DOWN_AFTER).await;
    table.record(status(1, 1, 13));
    assert_eq!(table.confirmed(&[1, 2].into()), 12, "it is down, and has what it had");
    assert_eq!(table.confirmed(&[1, 2, 4].into()), 0, "so may have any that never reported");
    let (all, quiet) = ([1, 2, 3, 4].into(), Duration::from_secs(30));
    table.signs().follow(&all, &[2, 4].into(), quiet);
    assert_eq!(table.confirmed(&[1, 2].into()), 12, "it is lost only now");
    advance(quiet).await;
    assert_eq!(table.confirmed(&[1, 2, 4].into()), 13, "it was lost for a while");
    assert_eq!(table.confirmed(&[2, 4].into()), Revision::MAX);
    // Who has just begun to lead can't know since when.
    table.listen_anew();
    table.signs().follow(&all, &[2, 4].into(), quiet);
    assert_eq!(table.confirmed(&[2, 4].into()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_silent_since_a_controller_heard_of_it_last() {
    let table = StatusTable::default();
    let second = Duration::from_secs(1);
    advance(second * 5).await;
    assert_eq!(table.silence(1), second * 5, "as long as anybody listens");
    table.record(status(1, 1, 1));
    advance(second).await;
    assert_eq!(table.silence(1), second);
    table.signs().registered(1);
    assert_eq!(table.silence(1), Duration::ZERO);
    advance(second * 2).await;
    table.listen_anew();
    advance(second).await;
    assert_eq!(table.silence(1), second, "a new leader knows of nothing before");
}

/// What a node learnt by probes is no news that others wait for, and is passed on with its age.
#[tokio::test(start_paused = true)]
async fn what_a_node_learnt_by_probes_is_passed_on_with_its_age() {
    let table = StatusTable::default();
    let probe = |asked_ms_ago, answered_ms_ago, unanswered| ProbeStatus {
        node_id: 2,
        asked_ms_ago,
        answered_ms_ago,
        unanswered,
    };
    table.record(NodeStatus { probes: vec![probe(100, Some(100), 0)], ..status(1, 1, 1) });
    let seen = table.watch();
    advance(Duration::from_millis(400)).await;
    assert_eq!(table.signs().answered(2), Some(Duration::from_millis(500)));
    assert_eq!(table.first_hand()[0].probes, [probe(500, Some(500), 0)]);
    table.record(NodeStatus { probes: vec![probe(0, Some(500), 1)], ..status(1, 1, 1) });
    assert!(!seen.has_changed().unwrap(), "nobody is woken for it");
    assert_eq!(table.signs().answered(2), Some(Duration::from_millis(500)));
}
