//! What a leader does when a majority of the voters answers it and takes no entries.

use super::{commands, harness::Cluster};
use crate::control::consensus::{Alarm, ConsensusConfig, ProposeError};

/// Less than a node keeps free, and more than it needs while it takes nothing.
const FULL: Option<u64> = Some(900 << 10);

const LOGGED: ProposeError = ProposeError::Stalled { is_logged: true };
const REFUSED: ProposeError = ProposeError::Stalled { is_logged: false };

/// A leader with room, and two followers without any.
fn full_followers() -> (Cluster, u64, [u64; 2]) {
    let mut cluster = Cluster::of_three(ConsensusConfig::default());
    cluster.commit("before");
    cluster.assert_equal();
    let leader = cluster.leader().unwrap();
    let followers = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<u64>>();
    let followers: [u64; 2] = followers.try_into().unwrap();
    for id in followers {
        cluster.disk(id).set_room(FULL);
    }
    (cluster, leader, followers)
}

fn is_stalled(cluster: &Cluster, id: u64) -> bool {
    cluster.status(id).alarms.contains(&Alarm::Stalled)
}

#[test]
fn callers_are_told_that_a_majority_takes_no_entries() {
    let (mut cluster, leader, followers) = full_followers();
    let mut logged = cluster.propose(leader, "logged");
    assert_eq!(cluster.answer(&mut logged), Err(LOGGED));
    assert!(is_stalled(&cluster, leader));
    assert_eq!(cluster.leader(), Some(leader), "it is heard, and leads");

    let last = cluster.node(leader).store().transactions();
    let mut refused = cluster.propose(leader, "refused");
    assert_eq!(cluster.answer(&mut refused), Err(REFUSED));
    let mut joins = cluster.change(|core, reply| core.add_learner(4, reply));
    assert_eq!(cluster.answer(&mut joins), Err(REFUSED));
    assert_eq!(cluster.node(leader).store().transactions(), last, "the log does not grow");
    let mut leaves = cluster.change(|core, reply| core.remove(followers[0], reply));
    assert_eq!(cluster.answer(&mut leaves), Err(LOGGED));
    // What is committed can be read.
    let mut read = cluster.read(leader);
    cluster.answer(&mut read).unwrap();

    for id in followers {
        cluster.disk(id).set_room(None);
    }
    cluster.until("the log goes on", |cluster| !is_stalled(cluster, leader));
    cluster.until("the removal, which was logged, is carried out", |cluster| {
        cluster.leader().is_some_and(|id| !cluster.status(id).voters.contains(&followers[0]))
    });
    cluster.stop(followers[0]);
    cluster.commit("after");
    cluster.assert_equal();
    let commands = &cluster.ledger(leader).commands;
    let holds = |command: &str| commands.iter().any(|(_, held)| *held == commands::word(command));
    assert!(holds("logged") && !holds("refused"));
}

/// It has no entry of its own term that is committed, so that it can't confirm a read.
#[test]
fn a_new_leader_tells_who_reads_that_a_majority_takes_no_entries() {
    let (mut cluster, leader, followers) = full_followers();
    let mut logged = cluster.propose(leader, "logged");
    assert_eq!(cluster.answer(&mut logged), Err(LOGGED));
    // The others could lead only by the votes of each other, since their logs are shorter.
    cluster.cut(followers[0], followers[1]);
    cluster.kill(leader);
    cluster.start(leader);
    cluster.until("it leads again", |cluster| cluster.leader() == Some(leader));
    let mut read = cluster.read(leader);
    assert_eq!(cluster.answer(&mut read), Err(REFUSED));
    assert!(is_stalled(&cluster, leader));
    for id in followers {
        cluster.disk(id).set_room(None);
    }
    cluster.until("the log goes on", |cluster| !is_stalled(cluster, leader));
    cluster.heal();
    cluster.commit("after");
    cluster.assert_equal();
}

/// A leader that nobody answers steps down, as ever.
#[test]
fn a_leader_that_is_cut_off_is_not_stalled() {
    let (mut cluster, leader, followers) = full_followers();
    for id in followers {
        cluster.disk(id).set_room(None);
    }
    cluster.isolate(leader);
    let mut lost = cluster.propose(leader, "lost");
    assert_eq!(cluster.answer(&mut lost), Err(ProposeError::Dropped));
    assert!(!is_stalled(&cluster, leader));
}
