//! One node whose peers are the test: it hands in what they say, and sees what the node sends.

use raft::{
    Storage as _,
    eraftpb::{ConfState, Entry, Message, MessageType, Snapshot, SnapshotMetadata},
};
use tokio::sync::oneshot;

use super::{
    commands,
    harness::{Cluster, Ledger, Outbox, Pending},
};
use crate::control::consensus::{ConsensusConfig, Core, Role, StateMachine, Status, codec};

fn config() -> ConsensusConfig {
    ConsensusConfig::default()
}

/// Stepped and pumped by the test alone.
pub(super) struct Node(pub(super) Core<Ledger>);

impl Node {
    /// A copy of a node of `cluster`, as a restart would make it.
    pub(super) fn copy(cluster: &Cluster, id: u64) -> Self {
        Self(cluster.copy_of(id))
    }

    pub(super) fn status(&self) -> Status {
        self.0.status().borrow().clone()
    }

    pub(super) fn last_index(&self) -> u64 {
        self.0.store().last_index().unwrap()
    }

    /// A message to the node in its present term.
    pub(super) fn message(&self, from: u64, kind: MessageType) -> Message {
        let term = self.status().term;
        Message { msg_type: kind as i32, to: self.0.id(), from, term, ..Message::default() }
    }

    /// An append of entries with these words, behind everything that the node has.
    fn append(&self, from: u64, commit: u64, words: &[&str]) -> Message {
        let (term, last) = (self.status().term, self.last_index());
        let entry = |(index, word): (u64, &&str)| Entry {
            term,
            index,
            data: commands::word(word),
            ..Entry::default()
        };
        Message {
            index: last,
            log_term: self.0.store().term(last).unwrap(),
            commit,
            entries: (last + 1..).zip(words).map(entry).collect(),
            ..self.message(from, MessageType::MsgAppend)
        }
    }

    /// `from` acknowledges everything up to `index`.
    pub(super) fn acknowledge(&mut self, from: u64, index: u64) {
        self.hand_in(&Message { index, ..self.message(from, MessageType::MsgAppendResponse) });
    }

    pub(super) fn answer_heartbeat(&mut self, from: u64) {
        self.hand_in(&self.message(from, MessageType::MsgHeartbeatResponse));
    }

    pub(super) fn hand_in(&mut self, message: &Message) {
        self.0.step(&codec::encode(message)).unwrap();
    }

    /// What the node sends.
    pub(super) fn pump(&mut self) -> Vec<Message> {
        let mut outbox = Outbox(Vec::new());
        self.0.pump(&mut outbox).unwrap();
        outbox.0.iter().map(|(_, bytes, _)| codec::decode(bytes).unwrap()).collect()
    }

    pub(super) fn propose(&mut self, command: &str) -> Pending<(u64, usize)> {
        let (reply, pending) = oneshot::channel();
        self.0.propose(commands::word(command), reply);
        pending
    }

    fn add_learner(&mut self, id: u64) -> Pending<u64> {
        let (reply, pending) = oneshot::channel();
        self.0.add_learner(id, reply);
        pending
    }

    /// Makes it the leader, by the votes of those whom it asks.
    pub(super) fn elect(&mut self) {
        for _ in 0..1_000 {
            self.0.tick();
            for asked in self.pump() {
                let granted = match kind(&asked) {
                    MessageType::MsgRequestPreVote => MessageType::MsgRequestPreVoteResponse,
                    MessageType::MsgRequestVote => MessageType::MsgRequestVoteResponse,
                    _ => continue,
                };
                let vote = self.message(asked.to, granted);
                self.hand_in(&Message { term: asked.term, ..vote });
            }
            if self.status().role == Role::Leader {
                return;
            }
        }
        panic!("it never leads: {:?}", self.status());
    }
}

pub(super) fn kind(message: &Message) -> MessageType {
    MessageType::from_i32(message.msg_type).expect("a kind")
}

/// The only voter of a cluster that has written something, leading.
fn sole_voter(config: ConsensusConfig) -> Node {
    let mut cluster = Cluster::new(config);
    for number in 0..10 {
        cluster.commit(&number.to_string());
    }
    let mut node = Node::copy(&cluster, 1);
    node.0.campaign_if_alone().unwrap();
    node.pump();
    assert_eq!(node.status().role, Role::Leader);
    node
}

/// A sole voter, and a learner that says that it holds the log.
fn with_a_learner(config: ConsensusConfig) -> Node {
    let mut node = sole_voter(config);
    drop(node.add_learner(2));
    node.pump();
    node.acknowledge(2, node.last_index());
    node.pump();
    node
}

/// Voter 2 of three; 1 and 3 are the test.
fn of_three(config: ConsensusConfig) -> Node {
    let mut cluster = Cluster::of_three(config);
    cluster.commit("before");
    cluster.assert_equal();
    Node::copy(&cluster, 2)
}

#[test]
fn a_follower_that_hears_nobody_asks_for_votes_within_the_longest_timeout() {
    // So long that a timeout at random from a wider range would be noticed.
    let mut node = of_three(ConsensusConfig { election_ticks: 200, ..Default::default() });
    for _ in 0..201 {
        assert_eq!(node.status().role, Role::Follower);
        node.0.tick();
        node.pump();
        if node.status().role == Role::Candidate {
            return;
        }
    }
    panic!("it does not ask: {:?}", node.status());
}

/// A pre-candidate knows no leader, and takes none another's place when it hears the same one of the same term again.
#[test]
fn who_hears_its_leader_again_in_the_same_term_counts_no_change() {
    let mut node = of_three(config());
    let hears = |node: &mut Node| {
        node.hand_in(&node.message(1, MessageType::MsgHeartbeat));
        node.pump();
        assert_eq!(node.status().leader, Some(1));
        node.0.measures().leader_changes()
    };
    assert_eq!(hears(&mut node), 1);
    let term = node.status().term;
    for _ in 0..3 {
        for _ in 0..=config().max_election_ticks {
            node.0.tick();
            node.pump();
        }
        assert_eq!((node.status().leader, node.status().term), (None, term));
        assert_eq!(hears(&mut node), 1, "the same one");
    }
    let later = Message { term: term + 1, ..node.message(1, MessageType::MsgHeartbeat) };
    node.hand_in(&later);
    node.pump();
    assert_eq!(node.0.measures().leader_changes(), 2);
}

#[test]
fn what_was_reported_lost_is_sent_again_when_the_follower_is_heard() {
    let mut node = with_a_learner(config());
    drop(node.propose("lost"));
    node.pump();
    node.0.report_unreachable(2);
    node.answer_heartbeat(2);
    let sent = node.pump();
    let entries: Vec<_> = sent.iter().flat_map(|message| &message.entries).collect();
    assert!(entries.iter().any(|entry| entry.data == commands::word("lost")), "{sent:?}");
}

fn snapshots(sent: &[Message]) -> usize {
    sent.iter().filter(|message| kind(message) == MessageType::MsgSnapshot).count()
}

/// A leader that has just sent a snapshot to a learner. The snapshot that it had does not know the learner.
fn sends_a_snapshot(config: ConsensusConfig) -> Node {
    let mut node = sole_voter(ConsensusConfig { snapshot_every: 5, keep_entries: 0, ..config });
    drop(node.add_learner(2));
    let sent = node.pump();
    let append = sent.iter().find(|message| kind(message) == MessageType::MsgAppend).unwrap();
    // It holds nothing.
    let refusal = node.message(2, MessageType::MsgAppendResponse);
    node.hand_in(&Message { index: append.index, reject: true, ..refusal });
    for _ in 0..=ConsensusConfig::default().heartbeat_ticks {
        match snapshots(&node.pump()) {
            0 => node.0.tick(),
            _ => return node,
        }
    }
    panic!("it waits for another word of the learner");
}

#[test]
fn a_snapshot_that_has_to_be_made_first_is_sent_without_another_request() {
    let node = sends_a_snapshot(config());
    let members = node.0.store().snapshot_metadata().conf_state.clone().unwrap();
    assert_eq!(members.learners, [2]);
}

#[test]
fn a_snapshot_counts_as_lost_after_its_time_and_not_before() {
    let snapshot_ticks = 7;
    let mut node = sends_a_snapshot(ConsensusConfig { snapshot_ticks, ..config() });
    for tick in 1..=snapshot_ticks {
        node.0.tick();
        node.answer_heartbeat(2);
        assert_eq!(snapshots(&node.pump()), usize::from(tick == snapshot_ticks), "tick {tick}");
    }
}

/// The driver hands in messages, then lets time pass, then pumps: the second snapshot is under way when the time of the
/// first is over.
#[test]
fn the_time_of_a_snapshot_is_its_own_and_not_that_of_the_one_before() {
    let snapshot_ticks = 7;
    let limits = ConsensusConfig { snapshot_ticks, room_ticks: 1, ..config() };
    let mut node = sends_a_snapshot(limits);
    let sent_at = node.0.store().snapshot_metadata().index;
    node.0.report_snapshot(2, true);
    for _ in 1..snapshot_ticks {
        node.0.tick();
        node.answer_heartbeat(2);
        assert_eq!(snapshots(&node.pump()), 0);
    }
    // The learner still holds nothing.
    let refusal = node.message(2, MessageType::MsgAppendResponse);
    node.hand_in(&Message { index: sent_at, reject: true, ..refusal });
    node.0.tick();
    let first = snapshots(&node.pump());
    node.answer_heartbeat(2);
    let second = snapshots(&node.pump());
    assert_eq!((first, second), (1, 0), "it is sent once");
}

#[test]
fn learners_are_promoted_when_a_round_was_short_and_need_not_hold_all() {
    let mut node = sole_voter(config());
    for id in [2, 3] {
        drop(node.add_learner(id));
        node.pump();
    }
    let early = node.last_index();
    for number in 0..10 {
        drop(node.propose(&number.to_string()));
    }
    node.pump();
    let target = node.last_index();
    node.acknowledge(2, target);
    for index in [early, target - 1] {
        node.acknowledge(3, index);
        node.pump();
        assert_eq!(node.status().voters, [1], "learner 3 holds {index} of {target}");
    }
    drop(node.propose("more"));
    node.pump();
    assert_eq!((node.status().voters, node.status().caught_up), (vec![1], vec![2]));
    node.acknowledge(3, target);
    node.pump();
    assert_eq!(node.status().voters, [1, 2, 3]);
    // The leader ends it, and never the engine: it would end it only if nobody else came to lead.
    let joint = node.0.configuration();
    assert_eq!((joint.voters_outgoing, joint.auto_leave), (vec![1], false));
}

/// With a write under way, so that the removal is committed in the Ready that has new entries too.
#[test]
fn a_leader_whose_inherited_log_removes_it_steps_down() {
    use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, EntryType};
    let mut node = of_three(config());
    let removal =
        ConfChangeSingle { change_type: ConfChangeType::RemoveNode as i32, node_id: node.0.id() };
    let removal = ConfChangeV2 { changes: vec![removal], ..ConfChangeV2::default() };
    let mut append = node.append(3, 0, &[""]);
    append.entries[0].entry_type = EntryType::EntryConfChangeV2 as i32;
    append.entries[0].data = codec::encode(&removal);
    node.hand_in(&append);
    node.pump();
    node.elect();
    node.acknowledge(1, node.last_index());
    let mut late = node.propose("late");
    node.pump();
    let status = node.status();
    assert_eq!((status.role, status.voters), (Role::Learner, vec![1, 3]));
    assert!(late.try_recv().unwrap().is_err());
}

/// A leader of an older term says what its snapshot was. It comes between a snapshot's arrival and its use.
#[test]
fn the_snapshot_that_is_installed_is_the_one_that_was_accepted() {
    let mut node = of_three(config());
    let (commit, term) = (node.status().commit, node.status().term);
    let snapshot = |index, term, word: &str| {
        let mut ledger = Ledger::default();
        ledger.apply(index, &commands::word(word)).unwrap();
        let members = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        let metadata = SnapshotMetadata { conf_state: Some(members), index, term };
        Message {
            term,
            snapshot: Some(Snapshot { data: ledger.snapshot(), metadata: Some(metadata) }),
            ..node.message(1, MessageType::MsgSnapshot)
        }
    };
    let accepted = snapshot(commit + 10, term + 1, "accepted");
    let late = snapshot(commit + 20, term, "late");
    node.hand_in(&accepted);
    node.hand_in(&late);
    node.pump();
    assert_eq!(node.status().applied, commit + 10);
    assert_eq!(node.0.machine().commands, [(commit + 10, commands::word("accepted"))]);
}

/// Each commit index has a tick's time to find a transaction that carries it.
#[test]
fn a_commit_index_waits_for_a_transaction_and_costs_one_after_a_tick() {
    let mut node = of_three(config());
    let first = node.last_index() + 1;
    let mut spent = node.0.store().transactions();
    let mut costs = |node: &mut Node| {
        node.pump();
        let before = std::mem::replace(&mut spent, node.0.store().transactions());
        spent - before
    };
    let commit = |node: &mut Node, commit| {
        node.hand_in(&Message { commit, ..node.message(3, MessageType::MsgHeartbeat) });
    };
    node.hand_in(&node.append(3, 0, &["a"]));
    assert_eq!(costs(&mut node), 1);
    commit(&mut node, first);
    assert_eq!(costs(&mut node), 0, "it waits");
    node.hand_in(&node.append(3, first, &["b", "c"]));
    assert_eq!(costs(&mut node), 1, "and is carried");
    node.0.tick();
    for index in [first + 1, first + 2] {
        // What waited before is over.
        commit(&mut node, index);
        assert_eq!(costs(&mut node), 0, "{index} waits");
        node.0.tick();
        assert_eq!(costs(&mut node), 1, "none came for {index}");
    }
}
