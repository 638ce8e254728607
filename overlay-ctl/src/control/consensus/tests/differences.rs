//! A voter whose state is another one than that of others, as it is told.

use super::harness::Cluster;
use crate::control::consensus::{Alarm, ConsensusConfig, Difference, FatalError, OpenError};

#[test]
fn a_voter_with_another_state_than_a_majority_ends_and_its_log_is_not_used_again() {
    for leads in [false, true] {
        let mut cluster = Cluster::of_three(ConsensusConfig::default());
        cluster.commit("before");
        let leader = cluster.leader().unwrap();
        let victim = if leads { leader } else { (1..=3).find(|id| *id != leader).unwrap() };
        cluster.ends.insert(victim, None);
        let difference = Difference { revision: 7, has_majority: true };
        cluster.node(victim).note_difference(Some(difference));
        cluster.until("it ends", |cluster| cluster.ends[&victim].is_some());
        let end = cluster.ends.remove(&victim).flatten();
        assert!(matches!(end, Some(FatalError::Differs { revision: 7 })), "{end:?}");
        let opened = cluster.open(victim).map(drop);
        let Err(OpenError::Amnesia { detail, .. }) = opened else { panic!("{opened:?}") };
        assert!(
            detail.starts_with("at revision 7 the state of this node is another one"),
            "{detail}"
        );
        cluster.until("the others have a leader", |cluster| cluster.leader().is_some());
        cluster.commit("after");
    }
}

#[test]
fn where_no_majority_has_the_same_state_each_goes_on_with_an_alarm() {
    let mut cluster = Cluster::of_three(ConsensusConfig::default());
    cluster.commit("before");
    let alarm = Alarm::Differs { revision: 7 };
    for id in 1..=3 {
        let difference = Difference { revision: 7, has_majority: false };
        cluster.node(id).note_difference(Some(difference));
    }
    cluster.until("each says so", |cluster| {
        (1..=3).all(|id| cluster.status(id).alarms == [alarm.clone()])
    });
    cluster.commit("they go on");
    cluster.node(1).note_difference(None);
    cluster.until("it is over", |cluster| cluster.status(1).alarms.is_empty());
}
