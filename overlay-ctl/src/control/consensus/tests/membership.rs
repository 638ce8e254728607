//! Members come and go, and the cluster goes on.

use super::harness::Cluster;
use crate::control::consensus::{ConsensusConfig, ProposeError, Role};

fn config() -> ConsensusConfig {
    ConsensusConfig::default()
}

/// Node 1, and learner 2 that holds its log.
pub(super) fn of_two() -> Cluster {
    let mut cluster = Cluster::new(config());
    cluster.join(2);
    cluster.commit("before");
    cluster.until("the learner holds the log", |cluster| {
        let status = cluster.status(1);
        status.peers.iter().any(|peer| peer.id == 2 && peer.matched == status.commit)
    });
    cluster
}

/// Removes a member as `overlay node rm` does, asking whoever leads until one has carried it out; then it
/// is told, and gone.
pub(super) fn remove(cluster: &mut Cluster, id: u64) {
    for _ in 0..20 {
        let mut pending = cluster.change(|core, reply| core.remove(id, reply));
        match cluster.answer(&mut pending) {
            Ok(_) => {
                if cluster.running().contains(&id) {
                    cluster.stop(id);
                }
                return;
            }
            Err(ProposeError::NotLeader { .. } | ProposeError::Dropped) => cluster.tick(),
            Err(error) => panic!("node {id} is not removed: {error}"),
        }
    }
    panic!("node {id} is never removed");
}

/// The cluster decides, at rest at an odd number of voters, of which no one is gone.
pub(super) fn goes_on(cluster: &mut Cluster, voters: &[u64], learners: &[u64]) {
    cluster.commit("after");
    for id in [voters, learners].concat() {
        if cluster.running().contains(&id) {
            cluster.until("it knows the members", |cluster| {
                let status = cluster.status(id);
                status.voters == voters && status.learners == learners && status.outgoing.is_empty()
            });
        }
    }
    cluster.assert_equal();
}

#[test]
fn two_nodes_are_a_voter_and_a_learner() {
    let mut cluster = of_two();
    for _ in 0..50 {
        cluster.tick();
        assert_eq!(cluster.status(1).voters, [1]);
    }
    assert_eq!(cluster.status(2).role, Role::Learner);
    cluster.stop(2);
    for _ in 0..50 {
        cluster.tick();
    }
    goes_on(&mut cluster, &[1], &[2]);
}

#[test]
fn two_learners_become_voters_at_once() {
    let mut cluster = of_two();
    cluster.join(3);
    let mut steps = 0;
    while cluster.status(3).voters != [1, 2, 3] || !cluster.status(3).outgoing.is_empty() {
        cluster.tick();
        for id in 1..=3 {
            assert_ne!(cluster.status(id).voters.len(), 2, "{:?}", cluster.status(id));
        }
        steps += 1;
        assert!(steps < 1_000, "{:?}", cluster.status(3));
    }
    goes_on(&mut cluster, &[1, 2, 3], &[]);
}

/// The engine takes a member that one message did not reach for one whose log it has to look for, and finds it at the next
/// entry: a cluster at rest has none.
#[test]
fn a_learner_that_was_unreachable_becomes_a_voter_without_another_write() {
    let mut cluster = of_two();
    cluster.cut(1, 2);
    cluster.join(3);
    let holds = |cluster: &Cluster, id| {
        let status = cluster.status(1);
        status.peers.iter().any(|peer| peer.id == id && peer.matched == status.commit)
    };
    cluster.until("the third holds the log", |cluster| holds(cluster, 3));
    cluster.cut(1, 3);
    for _ in 0..50 {
        cluster.tick();
    }
    assert_eq!(cluster.status(1).voters, [1]);
    cluster.heal();
    cluster.until("all vote", |cluster| cluster.status(1).voters == [1, 2, 3]);
    goes_on(&mut cluster, &[1, 2, 3], &[]);
}

#[test]
fn of_two_either_can_be_removed() {
    let mut cluster = of_two();
    remove(&mut cluster, 2);
    goes_on(&mut cluster, &[1], &[]);

    let mut cluster = of_two();
    remove(&mut cluster, 1);
    goes_on(&mut cluster, &[2], &[]);
}

#[test]
fn a_sole_voter_removes_a_member_at_once() {
    let mut cluster = of_two();
    let mut pending = cluster.change(|core, reply| core.remove(2, reply));
    cluster.pump(1);
    pending.try_recv().unwrap().unwrap();
}

#[test]
fn a_restart_knows_the_members_with_which_the_node_acted() {
    let mut cluster = Cluster::new(config());
    let mut pending = cluster.change(|core, reply| core.add_learner(2, reply));
    cluster.pump(1);
    pending.try_recv().unwrap().unwrap();
    assert_eq!(cluster.copy_of(1).configuration().learners, [2]);
}

#[test]
fn of_two_the_dead_one_can_be_removed() {
    let mut cluster = of_two();
    cluster.stop(2);
    remove(&mut cluster, 2);
    goes_on(&mut cluster, &[1], &[]);
}

#[test]
fn of_three_any_can_be_removed_alive_or_dead() {
    for place in 0..3 {
        for dead in [false, true] {
            let mut cluster = Cluster::of_three(config());
            cluster.until("a leader", |cluster| cluster.leader().is_some());
            let leader = cluster.leader().unwrap();
            let mut others = (1..=3).filter(|id| *id != leader);
            let removed = [leader, others.next().unwrap(), others.next().unwrap()][place];
            if dead {
                cluster.stop(removed);
                cluster.until("another leader", |cluster| {
                    cluster.leader().is_some_and(|leader| leader != removed)
                });
            }
            remove(&mut cluster, removed);
            let stays = cluster.leader().unwrap();
            let learner = (1..=3).find(|id| ![removed, stays].contains(id)).unwrap();
            goes_on(&mut cluster, &[stays], &[learner]);
        }
    }
}

#[test]
fn of_three_one_can_be_removed_while_another_is_away() {
    let mut cluster = Cluster::of_three(config());
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    let mut others = (1..=3).filter(|id| *id != leader);
    let (removed, away) = (others.next().unwrap(), others.next().unwrap());
    cluster.stop(away);
    remove(&mut cluster, removed);
    goes_on(&mut cluster, &[leader], &[away]);
    cluster.start(away);
    goes_on(&mut cluster, &[leader], &[away]);
}

#[test]
fn of_three_two_can_be_removed_at_once() {
    for with_the_leader in [false, true] {
        let mut cluster = Cluster::of_three(config());
        cluster.until("a leader", |cluster| cluster.leader().is_some());
        let leader = cluster.leader().unwrap();
        let mut others = (1..=3).filter(|id| *id != leader);
        let second = others.next().unwrap();
        let first = if with_the_leader { leader } else { others.next().unwrap() };
        let mut pendings =
            [first, second].map(|id| (id, cluster.change(|core, reply| core.remove(id, reply))));
        for (id, pending) in &mut pendings {
            match cluster.answer(pending) {
                Ok(_) => cluster.stop(*id),
                Err(ProposeError::NotLeader { .. } | ProposeError::Dropped) => {
                    cluster.until("another leader", |cluster| {
                        cluster.leader().is_some_and(|now| now != leader)
                    });
                    remove(&mut cluster, *id);
                }
                Err(error) => panic!("{error}"),
            }
        }
        let stays = (1..=3).find(|id| ![first, second].contains(id)).unwrap();
        goes_on(&mut cluster, &[stays], &[]);
    }
}

#[test]
fn a_learner_moves_up_in_the_same_change() {
    let mut cluster = Cluster::of_three(config());
    cluster.join(4);
    cluster.commit("more");
    cluster.until("the learner holds the log", |cluster| {
        let leader = cluster.leader().unwrap();
        let status = cluster.status(leader);
        status.peers.iter().any(|peer| peer.id == 4 && peer.matched == status.commit)
    });
    let leader = cluster.leader().unwrap();
    let removed = (1..=3).find(|id| *id != leader).unwrap();
    remove(&mut cluster, removed);
    let voters: Vec<u64> = (1..=4).filter(|id| *id != removed).collect();
    goes_on(&mut cluster, &voters, &[]);
}

/// Of what is sent to it nothing is lost, so only its silence tells.
#[test]
fn a_learner_that_stands_still_does_not_move_up() {
    let mut cluster = Cluster::of_three(config());
    cluster.join(4);
    cluster.commit("more");
    cluster.assert_equal();
    let leader = cluster.leader().unwrap();
    let removed = (1..=3).find(|id| *id != leader).unwrap();
    cluster.pause(4);
    cluster.until("it counts as gone", |cluster| {
        let peers = cluster.status(leader).peers;
        peers.iter().any(|peer| peer.id == 4 && !peer.recent_active)
    });
    remove(&mut cluster, removed);
    assert_eq!(cluster.status(leader).voters, [leader]);
    cluster.commit("after");
}

#[test]
fn the_only_voter_stays_until_somebody_can_take_over() {
    let refused = |cluster: &mut Cluster| {
        let mut pending = cluster.change(|core, reply| core.remove(1, reply));
        match cluster.answer(&mut pending) {
            Err(ProposeError::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let mut cluster = Cluster::new(config());
    assert!(refused(&mut cluster).contains("to end the cluster"));
    let mut cluster = of_two();
    cluster.stop(2);
    for _ in 0..50 {
        cluster.tick();
    }
    assert!(refused(&mut cluster).contains("no other node"));
    goes_on(&mut cluster, &[1], &[2]);
}

#[test]
fn a_removal_nobody_waits_for_does_not_begin() {
    let mut cluster = Cluster::of_three(config());
    drop(cluster.change(|core, reply| core.remove(3, reply)));
    for _ in 0..20 {
        cluster.tick();
    }
    goes_on(&mut cluster, &[1, 2, 3], &[]);
}

/// The leader dies in the middle of a removal, when the joint configuration is all that the others know.
#[test]
fn another_leader_ends_what_the_first_began() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let old = cluster.leader().unwrap();
    let removed = (1..=3).find(|id| *id != old).unwrap();
    let stays = (1..=3).find(|id| ![old, removed].contains(id)).unwrap();
    let pending = cluster.change(|core, reply| core.remove(removed, reply));
    let mut rounds = 0;
    while cluster.status(stays).outgoing.is_empty() {
        for id in 1..=3 {
            cluster.pump(id);
            // Not a word more from a leader that has seen everybody hold the change.
            if id == old && !cluster.status(old).outgoing.is_empty() {
                cluster.cut(old, removed);
            }
        }
        while cluster.deliver() {}
        rounds += 1;
        assert!(rounds < 100, "the change never begins");
    }
    cluster.kill(old);
    drop(pending);
    // Nobody can end it without the one who was to stay.
    for _ in 0..100 {
        cluster.tick();
    }
    cluster.heal();
    cluster.start(old);
    cluster.until("the change is over", |cluster| {
        let status = cluster.status(old);
        status.voters == [old] && status.outgoing.is_empty() && status.learners == [stays]
    });
    cluster.stop(removed);
    goes_on(&mut cluster, &[old], &[stays]);
}

/// A leader that dies between the end of a removal and the end of the node's row leaves a row without a
/// member: it becomes one again, with the log that it still has.
#[test]
fn a_member_that_was_removed_and_never_told_comes_back() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let removed = (1..=3).find(|id| *id != leader).unwrap();
    let mut pending = cluster.change(|core, reply| core.remove(removed, reply));
    cluster.answer(&mut pending).unwrap();
    cluster.commit("without it");
    for _ in 0..50 {
        cluster.tick();
    }
    let mut pending = cluster.change(|core, reply| core.add_learner(removed, reply));
    cluster.answer(&mut pending).unwrap();
    cluster.until("three voters", |cluster| {
        (1..=3).all(|id| {
            let status = cluster.status(id);
            status.voters == [1, 2, 3] && status.outgoing.is_empty()
        })
    });
    goes_on(&mut cluster, &[1, 2, 3], &[]);
}

/// As an older version left it, or a leader that died between two steps: two voters.
#[test]
fn two_voters_become_one_and_a_learner() {
    let mut cluster = of_two();
    let mut pending = cluster.change(|core, reply| core.remove(1, reply));
    for round in 0.. {
        assert!(round < 100, "the learner never gets a vote");
        for id in [1, 2] {
            cluster.pump(id);
        }
        if cluster.status(2).voters == [1, 2] {
            break;
        }
        while cluster.deliver() {}
    }
    // Whoever asked is gone, and whoever was asked was killed.
    assert!(pending.try_recv().is_ok_and(|answer| answer.is_err()));
    cluster.kill(1);
    cluster.kill(2);
    cluster.start(1);
    cluster.start(2);
    assert_eq!((cluster.status(1).voters, cluster.status(2).voters), (vec![1, 2], vec![1, 2]));
    cluster.until("one voter", |cluster| {
        [1, 2].iter().all(|id| cluster.status(*id).voters.len() == 1)
    });
    let leader = cluster.leader().unwrap();
    goes_on(&mut cluster, &[leader], &[3 - leader]);
}

/// A learner is told when its leader is gone, though it never campaigns: whoever watches it has to go
/// elsewhere, and one that was removed has to ask.
#[test]
fn a_learner_that_hears_nobody_knows_no_leader() {
    let mut cluster = of_two();
    assert_eq!(cluster.status(2).leader, Some(1));
    cluster.isolate(2);
    cluster.until("the learner knows no leader", |cluster| cluster.status(2).leader.is_none());
    cluster.heal();
    cluster.until("the learner knows the leader", |cluster| cluster.status(2).leader == Some(1));
}

#[test]
fn a_removed_node_that_goes_on_reading_finds_that_it_has_no_leader() {
    let mut cluster = of_two();
    let mut pending = cluster.change(|core, reply| core.remove(2, reply));
    cluster.answer(&mut pending).unwrap();
    assert_eq!(cluster.status(2).leader, Some(1));
    for _ in 0..2 * config().max_election_ticks {
        drop(cluster.read(2));
        cluster.tick();
    }
    assert_eq!(cluster.status(2).leader, None);
}
