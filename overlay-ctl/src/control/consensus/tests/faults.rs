//! What a cluster does when nodes die and the network lies.

use super::{commands, harness::Cluster};
use crate::control::consensus::{ConsensusConfig, ProposeError, Role};

fn config() -> ConsensusConfig {
    ConsensusConfig::default()
}

#[test]
fn an_isolated_leader_is_replaced_and_its_proposals_fail() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let old = cluster.leader().unwrap();
    cluster.isolate(old);
    let mut lost = cluster.propose(old, "lost");
    cluster.until("another leader", |cluster| {
        cluster.leader().is_some_and(|leader| leader != old)
            && cluster.status(old).role != Role::Leader
    });
    assert_eq!(cluster.answer(&mut lost), Err(ProposeError::Dropped));
    let mut refused = cluster.propose(old, "refused");
    assert_eq!(cluster.answer(&mut refused), Err(ProposeError::NotLeader { leader: None }));
    cluster.commit("after");
    cluster.heal();
    cluster.until("the old leader follows", |cluster| {
        cluster.status(old).leader == cluster.leader() && cluster.leader().is_some()
    });
    cluster.assert_equal();
    let commands: Vec<_> = cluster.ledger(old).commands.iter().map(|(_, c)| c.clone()).collect();
    assert_eq!(commands, ["before", "after"].map(commands::word));
}

#[test]
fn without_a_quorum_everything_is_answered_in_time() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.stop(id);
    }
    // Asked of a leader that does not know yet: it must not answer from memory.
    let mut read = cluster.read(leader);
    let mut write = cluster.propose(leader, "lost");
    assert_eq!(cluster.answer(&mut read), Err(ProposeError::NoQuorum));
    assert_eq!(cluster.answer(&mut write), Err(ProposeError::Dropped));
    // And of one that does.
    let mut read = cluster.read(leader);
    let mut write = cluster.propose(leader, "lost");
    assert_eq!(cluster.answer(&mut read), Err(ProposeError::NoQuorum));
    assert_eq!(cluster.answer(&mut write), Err(ProposeError::NotLeader { leader: None }));
}

#[test]
fn reads_survive_lost_messages() {
    let mut cluster = Cluster::of_three(config());
    let index = cluster.commit("a");
    let follower = (1..=3).find(|id| Some(*id) != cluster.leader()).unwrap();
    cluster.loss = 30;
    let mut answered = 0;
    for _ in 0..20 {
        let mut pending = cluster.read(follower);
        match cluster.answer(&mut pending) {
            Ok(applied) => {
                assert!(applied >= index);
                answered += 1;
            }
            Err(error) => assert_eq!(error, ProposeError::NoQuorum),
        }
    }
    assert!(answered >= 10, "{answered} of 20");
}

/// The commit that made a membership effective is on disk before the membership takes effect. Or
/// node 1, killed at that moment, would come back as the sole voter that it once was.
#[test]
fn a_restart_never_falls_back_to_an_older_quorum() {
    let mut cluster = Cluster::new(config());
    cluster.join(2);
    cluster.join(3);
    for _ in 0..1_000 {
        for id in 1..=3 {
            cluster.node(id).tick();
            cluster.pump(id);
            if cluster.status(1).voters == [1, 2, 3] {
                cluster.kill(1);
                cluster.start(1);
                let status = cluster.status(1);
                assert_eq!(status.voters, [1, 2, 3]);
                assert_ne!(status.role, Role::Leader);
                return;
            }
            while cluster.deliver() {}
        }
    }
    panic!("nodes 2 and 3 are never promoted");
}

/// Whoever proposed is told by the entry's term, even when another leader's entry is applied in the
/// very step that ends this leader's term.
#[test]
fn an_entry_of_another_leader_does_not_answer_a_proposal() {
    use raft::eraftpb::{Entry, Message, MessageType};
    let mut cluster = Cluster::of_three(config());
    let base = cluster.commit("before");
    let old = cluster.leader().unwrap();
    let term = cluster.status(old).term;
    let mut pending = cluster.propose(old, "mine");
    cluster.pump(old);
    let message = Message {
        msg_type: MessageType::MsgAppend as i32,
        from: (1..=3).find(|id| *id != old).unwrap(),
        to: old,
        term: term + 1,
        log_term: term,
        index: base,
        commit: base + 1,
        entries: vec![Entry {
            term: term + 1,
            index: base + 1,
            data: commands::word("theirs"),
            ..Entry::default()
        }],
        ..Message::default()
    };
    cluster.node(old).step(&crate::control::consensus::codec::encode(&message)).unwrap();
    cluster.pump(old);
    assert_eq!(cluster.ledger(old).commands.last(), Some(&(base + 1, commands::word("theirs"))));
    assert_eq!(pending.try_recv(), Ok(Err(ProposeError::Dropped)));
}

/// A leader that hears nobody while all hear it: its heartbeats would keep the others from electing one
/// that can commit.
#[test]
fn a_leader_that_hears_nobody_steps_down() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let old = cluster.leader().unwrap();
    let others: Vec<_> = (1..=3).filter(|id| *id != old).collect();
    for id in &others {
        cluster.cut_one_way(*id, old);
    }
    let mut lost = cluster.propose(old, "lost");
    assert_eq!(cluster.answer(&mut lost), Err(ProposeError::Dropped));
    cluster.until("another leader", |cluster| cluster.leader().is_some_and(|id| id != old));
    cluster.commit("after");
    cluster.heal();
    cluster.until("the old leader follows", |cluster| {
        cluster.status(old).leader == cluster.leader() && cluster.leader().is_some()
    });
    cluster.assert_equal();
}

/// A leader whom nobody hears: it is told of its successor by a higher term only once the way back is
/// open, and commits nothing before.
#[test]
fn a_leader_that_nobody_hears_is_replaced() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let old = cluster.leader().unwrap();
    for id in (1..=3).filter(|id| *id != old) {
        cluster.cut_one_way(old, id);
    }
    let mut lost = cluster.propose(old, "lost");
    assert_eq!(cluster.answer(&mut lost), Err(ProposeError::Dropped));
    cluster.until("another leader", |cluster| cluster.leader().is_some_and(|id| id != old));
    cluster.commit("after");
    cluster.heal();
    cluster.commit("healed");
    cluster.assert_equal();
}

/// A follower that does not hear the leader, but is heard, asks for votes for ever. It must neither
/// depose the leader nor, by its term, make it step down when it hears it again.
#[test]
fn a_follower_that_hears_nobody_disturbs_nobody() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let leader = cluster.leader().unwrap();
    let term = cluster.status(leader).term;
    let deaf = (1..=3).find(|id| *id != leader).unwrap();
    for id in (1..=3).filter(|id| *id != deaf) {
        cluster.cut_one_way(id, deaf);
    }
    cluster.until("it asks for votes", |cluster| cluster.status(deaf).role == Role::Candidate);
    for number in 0..100 {
        cluster.commit(&number.to_string());
        cluster.tick();
    }
    cluster.heal();
    cluster.commit("healed");
    cluster.assert_equal();
    assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
}

/// Two nodes that do not hear each other, and a third between them that hears both.
#[test]
fn a_cut_between_two_is_no_cut_of_the_third() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let cut_off = (1..=3).find(|id| *id != leader).unwrap();
    cluster.cut(leader, cut_off);
    let mut indices = Vec::new();
    for number in 0..60 {
        indices.push(cluster.commit(&number.to_string()));
        cluster.tick();
    }
    assert!(indices.is_sorted());
    cluster.heal();
    cluster.assert_equal();
}

#[test]
fn a_slow_link_is_waited_for() {
    let mut cluster = Cluster::of_three(config());
    let leader = cluster.leader().unwrap();
    let term = cluster.status(leader).term;
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        cluster.set_delay(from, to, 2);
    }
    for number in 0..40 {
        cluster.commit(&number.to_string());
        cluster.tick();
    }
    assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
    cluster.heal();
    cluster.assert_equal();
}

/// A leader that stood still is another's follower, which it does not know when it goes on: what it is
/// asked then it must not answer from memory.
#[test]
fn a_leader_that_stood_still_answers_nothing_stale() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let old = cluster.leader().unwrap();
    cluster.pause(old);
    cluster.until("another leader", |cluster| {
        (1..=3).any(|id| id != old && cluster.status(id).role == Role::Leader)
    });
    // Its term is the higher one, so this goes to the new leader.
    let index = cluster.commit("after");
    let mut read = cluster.read(old);
    let mut write = cluster.propose(old, "late");
    cluster.resume(old);
    match cluster.answer(&mut read) {
        Ok(applied) => {
            assert!(applied >= index, "a read shows {applied}, {index} was acknowledged")
        }
        Err(error) => assert_eq!(error, ProposeError::NoQuorum),
    }
    let answer = cluster.answer(&mut write);
    assert!(
        matches!(answer, Err(ProposeError::Dropped | ProposeError::NotLeader { .. })),
        "{answer:?}"
    );
    cluster.assert_equal();
}

/// Clocks may run apart by much more than quartz does: only who leads depends on them.
#[test]
fn clocks_that_run_apart_cost_leaders_and_nothing_else() {
    let mut cluster = Cluster::of_three(config());
    for (id, pace) in [(1, 100), (2, 35), (3, 70)] {
        cluster.set_pace(id, pace);
    }
    let mut highest = 0;
    for number in 0..60 {
        let index = cluster.commit(&number.to_string());
        assert!(index > highest);
        highest = index;
        for _ in 0..5 {
            cluster.tick();
        }
    }
    cluster.assert_equal();
}

#[test]
fn a_snapshot_nobody_reports_is_sent_again() {
    let limits = ConsensusConfig { snapshot_every: 5, keep_entries: 0, ..config() };
    let mut cluster = Cluster::of_three(limits);
    let leader = cluster.leader().unwrap();
    let slow = (1..=3).find(|id| *id != leader).unwrap();
    cluster.isolate(slow);
    for n in 0..20 {
        cluster.commit(&n.to_string());
    }
    cluster.swallow = 2;
    cluster.heal();
    cluster.until("the snapshot is lost", |cluster| cluster.swallow == 1);
    // It may still be under way: a large one takes its time, and a second one would make it longer.
    for _ in 0..100 {
        cluster.tick();
    }
    assert_eq!(cluster.swallow, 1, "it was sent again at once");
    cluster.until("another one is lost", |cluster| cluster.swallow == 0);
    cluster.assert_equal();
}

#[test]
fn a_follower_slightly_behind_needs_no_snapshot() {
    let limits = ConsensusConfig { snapshot_every: 5, ..config() };
    let mut cluster = Cluster::of_three(limits);
    let leader = cluster.leader().unwrap();
    let slow = (1..=3).find(|id| *id != leader).unwrap();
    cluster.isolate(slow);
    for n in 0..20 {
        cluster.commit(&n.to_string());
    }
    cluster.swallow = 1;
    cluster.heal();
    cluster.assert_equal();
    assert_eq!(cluster.swallow, 1, "a snapshot was sent");
}

/// The removal of node F reaches F alone; F is elected by what it holds, commits its own removal,
/// and has to go: the one who stays ends the change.
#[test]
fn a_leader_that_inherits_its_own_removal_hands_over() {
    let mut cluster = Cluster::of_three(config());
    cluster.commit("before");
    let old = cluster.leader().unwrap();
    let mut others = (1..=3).filter(|id| *id != old);
    let (removed, third) = (others.next().unwrap(), others.next().unwrap());
    cluster.cut(old, third);
    let mut pending = cluster.change(|core, reply| core.remove(removed, reply));
    cluster.pump(old);
    while cluster.deliver() {}
    cluster.isolate(old);
    // Its acknowledgement is lost. With a write under way at every moment, so also in the Ready
    // that commits the removal.
    for round in 0.. {
        assert!(round < 1_000, "the removed node never applies its removal");
        for id in 1..=3 {
            cluster.node(id).tick();
        }
        drop(cluster.propose(removed, "late"));
        for id in 1..=3 {
            cluster.pump(id);
        }
        while cluster.deliver() {}
        if !cluster.status(removed).voters.contains(&removed) {
            break;
        }
    }
    assert_eq!(cluster.answer(&mut pending), Err(ProposeError::Dropped));
    cluster.heal();
    cluster.until("the others go on", |cluster| {
        let status = cluster.status(third);
        cluster.leader() == Some(old)
            && (status.voters, status.outgoing, status.learners) == (vec![old], vec![], vec![third])
    });
    cluster.stop(removed);
    cluster.commit("after");
    cluster.assert_equal();
}
