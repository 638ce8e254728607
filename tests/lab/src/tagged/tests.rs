//! What counts as lost and as misdelivered.

use super::*;
use std::path::Path;

/// Two networks with two parties each, whose addresses are the same; without sockets.
fn run() -> Run {
    let party = |network: u32, last: u8| Party {
        name: format!("{network}-{last}"),
        netns: Netns::unmade("none", Path::new("/nonexistent")),
        address: Ipv4Addr::new(10, 1, 0, last),
        network,
    };
    let parties = vec![party(0, 1), party(0, 2), party(1, 1), party(1, 2)];
    let flows = [(0, 1), (1, 0), (2, 3), (3, 2)];
    let flows = flows.map(|(from, to)| Flow { from, to, arrived: vec![false; 3] }).into();
    Run { parties, sockets: Vec::new(), flows, tally: Tally::default() }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, last])
}

#[test]
fn a_tag_is_read_back_and_nothing_else_is_one() {
    assert_eq!(tag(&packet(3, 70_000)), Some((3, 70_000)));
    assert_eq!(tag(&packet(3, 70_000)[..19]), None);
    assert_eq!(tag(b"something else of 20"), None);
}

#[test]
fn what_arrives_once_where_it_should_is_neither_lost_nor_misdelivered() {
    let mut run = run();
    for number in [2, 0, 1] {
        run.note(1, &packet(0, number), address(1));
        run.note(0, &packet(1, number), address(2));
        run.note(3, &packet(2, number), address(1));
        run.note(2, &packet(3, number), address(2));
    }
    assert!(run.has_all());
    assert_eq!(run.count(), Tally { sent: 12, ..Tally::default() });
}

#[test]
fn a_packet_for_the_same_address_of_another_network_is_misdelivered_and_lost() {
    let mut run = run();
    run.note(3, &packet(0, 0), address(1));
    run.note(1, &packet(0, 1), address(7));
    run.note(1, &packet(0, 2), address(1));
    run.note(1, &packet(0, 2), address(1));
    run.note(0, b"hello", address(2));
    assert!(!run.has_all());
    let tally = run.count();
    let counted = [tally.sent, tally.lost, tally.misdelivered, tally.doubled];
    assert_eq!(counted, [12, 11, 3, 1], "{:?}", tally.examples);
    assert!(tally.examples[0].contains("1-2 got packet 0 of 0-1 to 0-2"), "{:?}", tally.examples);
}
