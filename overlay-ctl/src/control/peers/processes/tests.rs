//! Which of two processes of one node is heard.

use super::*;

const NODE: NodeId = 3;

fn incarnation(number: u128) -> Incarnation {
    Incarnation::from_u128(number)
}

fn at(last: u8) -> Option<SocketAddr> {
    Some(([10, 0, 0, last], 7400).into())
}

#[test]
fn streams_are_taken_of_one_process_at_a_time() {
    let mut processes = Processes::default();
    let [first, second] = [1, 2].map(incarnation);
    assert!(processes.open(NODE, first, at(3)));
    assert!(!processes.open(NODE, second, at(33)));
    assert!(!processes.open(NODE, second, None), "it does not say where it is");
    assert!(processes.open(4, second, at(33)), "of another node");
    assert!(processes.open(NODE, first, at(3)), "the end of the one before is not seen yet");
    processes.close(NODE, first);
    assert!(!processes.open(NODE, second, at(33)), "one is open still");
    processes.close(NODE, first);
    assert!(processes.open(NODE, second, at(33)), "the first one has ended");
    assert!(!processes.open(NODE, first, at(3)));
}

/// A machine without power does not close its streams.
#[test]
fn a_process_takes_the_place_of_the_one_before_it_at_its_address() {
    let mut processes = Processes::default();
    let [before, now] = [1, 2].map(incarnation);
    assert!(processes.open(NODE, before, at(3)) && processes.open(NODE, before, at(3)));
    assert!(processes.is_current(NODE, before) && !processes.is_current(NODE, now));
    assert!(processes.open(NODE, now, at(3)));
    assert!(!processes.open(NODE, before, at(33)), "it is over");
    assert!(!processes.open(NODE, before, at(3)), "it stood still, and its successor runs");
    assert!(!processes.is_current(NODE, before), "nor is it heard on the streams that it has");
    assert!(processes.is_current(NODE, now));
    // The ends of the former one's streams are seen late.
    processes.close(NODE, before);
    processes.close(NODE, before);
    assert!(!processes.open(NODE, before, at(33)), "the present one's is open");
    processes.close(NODE, now);
    assert!(processes.open(NODE, before, at(33)));
}

#[tokio::test(start_paused = true)]
async fn a_process_does_not_come_back_after_its_successor() {
    let mut processes = Processes::default();
    let [first, second, third] = [1, 2, 3].map(incarnation);
    assert!(!processes.is_superseded(NODE, first), "nothing is known");
    for process in [first, second, second] {
        processes.register(NODE, process);
    }
    assert!(processes.is_superseded(NODE, first));
    assert!(!processes.is_superseded(NODE, second), "it is the present one");
    assert!(!processes.is_superseded(NODE, third), "it is new");
    assert!(!processes.is_superseded(4, first), "of another node");
    tokio::time::advance(LATELY).await;
    assert!(!processes.is_superseded(NODE, first), "the second one has not registered for long");
    for number in 10..10 + 2 * FORMER_MAX as u128 {
        processes.register(NODE, incarnation(number));
    }
    assert_eq!(processes.registered[&NODE].former.len(), FORMER_MAX);
    assert!(!processes.is_superseded(NODE, first), "it is long ago");
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_news_for_a_while() {
    let mut processes = Processes::default();
    let place = ([10, 0, 0, 9], 7400).into();
    processes.note_copy(NODE, place);
    assert_eq!((processes.copy_of(NODE), processes.copy_of(4)), (Some(place), None));
    tokio::time::advance(LATELY).await;
    assert_eq!(processes.copy_of(NODE), None);
    processes.note_copy(NODE, place);
    processes.forget(NODE);
    assert_eq!(processes.copy_of(NODE), None);
}

#[test]
fn another_process_is_known_by_its_number() {
    let own = incarnation(1);
    let says = |node_id, incarnation: Option<Incarnation>| StatusResponse {
        node_id,
        incarnation: incarnation.map(|it| it.as_bytes().to_vec()).unwrap_or_default(),
        ..StatusResponse::default()
    };
    assert!(!is_another(&says(NODE, Some(own)), NODE, Some(own)));
    assert!(is_another(&says(NODE, Some(incarnation(2))), NODE, Some(own)));
    assert!(is_another(&says(NODE, None), NODE, Some(own)), "of an earlier program");
    assert!(!is_another(&says(4, Some(incarnation(2))), NODE, Some(own)), "another node");
}
