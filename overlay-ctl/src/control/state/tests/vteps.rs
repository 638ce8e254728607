//! Nodes that have moved to each other's addresses.

use super::*;

fn at(number: u8) -> Vtep {
    Ipv4Addr::new(10, 10, 10, number).into()
}

fn vteps(r: &Replica) -> Vec<Vtep> {
    r.state.nodes().map(|node| node.vtep).collect()
}

#[test]
fn a_node_gets_the_address_that_another_has_left_in_exchange() {
    let mut r = Replica { state: State::new(Version::V2), ..Replica::default() };
    for number in 1..=3 {
        r.node(number).unwrap();
    }
    let epochs = |r: &Replica| r.state.nodes().map(|node| node.epoch).collect::<Vec<_>>();
    let registered = epochs(&r);
    let (other, exchange) = r.state.exchange([1; 16], at(2)).unwrap();
    assert_eq!(other.id, 2);
    let before = r.index;
    r.apply(exchange.clone()).unwrap();
    assert_eq!(vteps(&r), [at(2), at(1), at(3)]);
    assert_eq!(epochs(&r), registered, "both are the nodes that they were");
    let changed = r.state.changes.since(before).unwrap();
    assert_eq!(changed, [RowKey::Node(1), RowKey::Node(2)].into());
    // A second time, as after a change of leaders, it changes nothing.
    r.apply(exchange).unwrap();
    assert_eq!(vteps(&r), [at(2), at(1), at(3)]);
    assert_eq!(r.state.exchange([1; 16], at(2)).map(|(_, command)| command), None, "it has it");
    assert_eq!(r.state.exchange([1; 16], at(9)).map(|(_, command)| command), None, "nobody has it");
    assert_eq!(r.state.exchange([9; 16], at(2)).map(|(_, command)| command), None, "it is new");
}

#[test]
fn three_that_moved_in_a_circle_end_where_they_are() {
    let mut r = Replica { state: State::new(Version::V2), ..Replica::default() };
    for number in 1..=3 {
        r.node(number).unwrap();
    }
    for (number, to) in [(1, 2), (2, 3), (3, 1)] {
        if let Some((_, exchange)) = r.state.exchange([number; 16], at(to)) {
            r.apply(exchange).unwrap();
        }
    }
    assert_eq!(vteps(&r), [at(2), at(3), at(1)]);
}
