//! What the leader finds out about a node's life is a row's, and only that of the registration that it knew.

use super::*;
use crate::model::Lease;

/// A cluster at version 2 with h1 and h2.
fn replica() -> Replica {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.node(2).unwrap();
    r.raise();
    r.node(1).unwrap();
    r.node(2).unwrap();
    r
}

impl Replica {
    fn lease(&mut self, epoch: u64, lease: Lease) -> Outcome {
        let name = "h2".parse().unwrap();
        self.apply(Command::NoteLease { name, only: 2, epoch, lease })
    }

    fn h2(&self) -> Node {
        self.state.node(2).unwrap().clone()
    }
}

#[test]
fn a_node_is_doubted_lost_and_back_and_its_rows_stay() {
    let mut r = replica();
    r.network("net", "10.0.0.0/24", None).unwrap();
    r.apply(Wish { node: "h2", ..Wish::new("a") }.command()).unwrap();
    let (before, epoch) = (r.state.endpoints().cloned().collect::<Vec<_>>(), r.h2().epoch);
    for lease in [Lease::Doubted, Lease::Lost, Lease::Held] {
        let cursor = r.state.revision();
        let Ok(Applied::Node(noted)) = r.lease(epoch, lease) else { panic!("it is refused") };
        assert_eq!((noted.lease, noted.epoch), (lease, epoch));
        assert_eq!(noted.reachable_vtep(), Some(noted.vtep).filter(|_| lease != Lease::Lost));
        assert_eq!(r.state.endpoints().cloned().collect::<Vec<_>>(), before);
        let delta = r.state.delta_for(1, cursor, &BTreeSet::new());
        assert_eq!(delta.upserts, [Row::from(noted)], "every node is told, by one row");
        assert_eq!(State::from_snapshot(&r.state.snapshot()).unwrap(), r.state);
        // The same once more changes nothing.
        r.lease(epoch, lease).unwrap();
        assert!(r.state.delta_for(1, r.index - 1, &BTreeSet::new()).upserts.is_empty());
    }
    // Its name and its address are its own all the time.
    r.lease(epoch, Lease::Lost).unwrap();
    assert!(matches!(r.apply(Wish::new("a").command()), Err(Refusal::EndpointExists(_))));
}

#[test]
fn who_registers_is_alive_and_what_was_found_out_before_is_void() {
    let mut r = replica();
    let epoch = r.h2().epoch;
    r.lease(epoch, Lease::Lost).unwrap();
    let Ok(Applied::Node(back)) = r.node(2) else { panic!("it registers") };
    assert_eq!((back.lease, back.epoch), (Lease::Held, r.index), "its registration is another");
    let refused = r.lease(epoch, Lease::Lost).unwrap_err();
    assert!(matches!(refused, Refusal::Replaced { .. }), "{refused:?}");
    assert_eq!(r.h2(), back);
    let other = r.apply(Command::NoteLease {
        name: "h2".parse().unwrap(),
        only: 1,
        epoch: back.epoch,
        lease: Lease::Lost,
    });
    assert!(matches!(other, Err(Refusal::Replaced { .. })), "{other:?}");
    // A node that nobody doubts has no other registration for that it registers again.
    assert!(matches!(r.node(2), Ok(Applied::Node(again)) if again == back));
}
