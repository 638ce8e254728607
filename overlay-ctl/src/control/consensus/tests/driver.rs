//! The node as everybody else sees it: a thread behind a handle.

mod held;

use super::{
    commands,
    harness::{Cluster, Ledger, Outbox, identity},
};
use crate::{
    control::consensus::{
        Consensus, ConsensusConfig, Core, LogStore, Outgoing, PeerQueues, ProposeError, Role,
        StateMachine, codec,
    },
    durable::simulated::{Fault, SimulatedFolder},
};
use futures::future::join_all;
use raft::eraftpb::{Message, MessageType};
use std::{
    os::unix::process::ExitStatusExt as _,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

const LONG: Duration = Duration::from_secs(60);

fn quick() -> ConsensusConfig {
    ConsensusConfig { tick: Duration::from_millis(10), ..ConsensusConfig::default() }
}

/// No tick comes: what happens happens without one.
fn timeless() -> ConsensusConfig {
    ConsensusConfig { tick: Duration::from_secs(3_600), ..ConsensusConfig::default() }
}

fn bootstrap(dir: &std::path::Path) -> LogStore {
    LogStore::bootstrap(dir, identity(1), &Ledger::default().snapshot()).unwrap()
}

#[tokio::test]
async fn a_node_alone_serves_at_once_and_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let start = |store| Consensus::start(quick(), store, Ledger::default(), PeerQueues::new(8));
    let node = start(bootstrap(dir.path())).unwrap();
    assert_eq!(node.status().borrow().role, Role::Leader);
    let answers = join_all((0..300u32).map(|n| {
        let node = node.clone();
        async move { node.propose(commands::word(&n.to_string())).await.unwrap() }
    }));
    let answers = timeout(LONG, answers).await.unwrap();
    let mut counts: Vec<_> = answers.iter().map(|(_, count)| *count).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=300).collect::<Vec<_>>());
    let highest = answers.iter().map(|(index, _)| *index).max().unwrap();
    assert!(node.read_index().await.unwrap() >= highest);
    node.shutdown().await;
    assert_eq!(node.propose(commands::word("late")).await, Err(ProposeError::Stopped));

    let store = LogStore::open(dir.path(), None).unwrap().unwrap();
    let node = start(store).unwrap();
    assert_eq!(node.propose(commands::word("again")).await.unwrap().1, 301);
    node.shutdown().await;
}

#[tokio::test]
async fn three_nodes_talk_through_their_queues() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes = Vec::new();
    let mut queues = Vec::new();
    for (id, dir) in (1..).zip(&dirs) {
        let store = match id {
            1 => bootstrap(dir.path()),
            _ => LogStore::join(dir.path(), identity(id)).unwrap(),
        };
        let peers = PeerQueues::new(256);
        nodes.push(Consensus::start(quick(), store, Ledger::default(), peers.clone()).unwrap());
        queues.push(peers);
    }
    let mut wires = Vec::new();
    let goodbye = Arc::new(Notify::new());
    for (from, queue) in (1..).zip(&queues) {
        for to in (1..=3u64).filter(|to| *to != from) {
            let mut outgoing = queue.connect(to);
            let (sender, receiver) =
                (nodes[from as usize - 1].clone(), nodes[to as usize - 1].clone());
            let goodbye = Arc::clone(&goodbye);
            wires.push(tokio::spawn(async move {
                while let Some(message) = outgoing.recv().await {
                    if kind(&message) == MessageType::MsgTimeoutNow {
                        goodbye.notify_one();
                    }
                    let delivered = receiver.step(message.bytes).is_ok();
                    if message.is_snapshot {
                        sender.report_snapshot(to, delivered);
                    }
                }
            }));
        }
    }
    for id in [2, 3] {
        while let Err(error) = timeout(LONG, nodes[0].add_learner(id)).await.unwrap() {
            assert!(matches!(error, ProposeError::Refused(_)), "{error}");
            tokio::task::yield_now().await;
        }
    }
    let mut status = nodes[2].status();
    timeout(LONG, status.wait_for(|status| status.voters == [1, 2, 3])).await.unwrap().unwrap();
    let (index, _) = timeout(LONG, nodes[0].propose(commands::word("a"))).await.unwrap().unwrap();
    for node in &nodes {
        assert!(timeout(LONG, node.read_index()).await.unwrap().unwrap() >= index);
    }
    // The leader says goodbye, so the others need not wait out an election timeout.
    nodes[0].shutdown().await;
    timeout(LONG, goodbye.notified()).await.unwrap();
    let led = |status: &crate::control::consensus::Status| {
        status.leader.is_some_and(|leader| leader != 1)
    };
    timeout(LONG, status.wait_for(led)).await.unwrap().unwrap();
    for node in &nodes[1..] {
        node.shutdown().await;
    }
    for wire in wires {
        wire.abort();
    }
}

fn kind(message: &Outgoing) -> MessageType {
    codec::decode::<Message>(&message.bytes).unwrap().get_msg_type()
}

/// Its log says that it was alone only after a second member came and went.
#[tokio::test]
async fn a_node_that_is_alone_again_serves_at_once() {
    let mut cluster = Cluster::new(ConsensusConfig::default());
    cluster.join(2);
    // The other member has its snapshot, which names both: that it left is in the log alone.
    cluster.assert_equal();
    let mut pending = cluster.change(|core, reply| core.remove(2, reply));
    cluster.answer(&mut pending).unwrap();
    let store = LogStore::open_in(&cluster.copy_folder(1), None).unwrap().unwrap();
    let node = Consensus::start(timeless(), store, Ledger::default(), PeerQueues::new(8)).unwrap();
    let status = node.status().borrow().clone();
    assert_eq!((status.role, status.voters, status.learners), (Role::Leader, vec![1], vec![]));
    node.shutdown().await;
}

/// Lets the leader bring a learner up to date.
async fn follow(
    leader: &Consensus<Ledger>,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    learner: &mut Core<Ledger>,
    index: u64,
) {
    while learner.status().borrow().applied < index {
        let message = timeout(LONG, outgoing.recv()).await.expect("a message").unwrap();
        learner.step(&message.bytes).unwrap();
        let mut answers = Outbox(Vec::new());
        learner.pump(&mut answers).unwrap();
        if message.is_snapshot {
            leader.report_snapshot(2, true);
        }
        for (_, bytes, _) in answers.0 {
            leader.step(bytes).unwrap();
        }
    }
}

/// How many messages of five writes are sent to a peer that says nothing.
async fn sent(leader: &Consensus<Ledger>, outgoing: &mut mpsc::Receiver<Outgoing>) -> usize {
    while outgoing.try_recv().is_ok() {}
    for number in 0..5 {
        leader.propose(commands::word(&number.to_string())).await.unwrap();
    }
    let messages = std::iter::from_fn(|| outgoing.try_recv().ok());
    messages.filter(|message| kind(message) == MessageType::MsgAppend).count()
}

/// A message that was lost is not followed by all that is written until the next heartbeat.
#[tokio::test]
async fn a_peer_that_is_reported_gets_one_message_at_a_time() {
    let mut cluster = Cluster::new(ConsensusConfig::default());
    cluster.create(2);
    let mut learner = cluster.copy_of(2);
    let store = LogStore::open_in(&cluster.copy_folder(1), None).unwrap().unwrap();
    let queues = PeerQueues::new(256);
    let mut outgoing = queues.connect(2);
    let node = Consensus::start(quick(), store, Ledger::default(), queues).unwrap();
    node.add_learner(2).await.unwrap();
    for number in 0..3 {
        let (index, _) = node.propose(commands::word(&number.to_string())).await.unwrap();
        follow(&node, &mut outgoing, &mut learner, index).await;
    }
    let before = sent(&node, &mut outgoing).await;
    node.report_unreachable(2);
    let after = sent(&node, &mut outgoing).await;
    assert!(before >= 5 && after <= 1, "{before} messages before, {after} after");
    node.shutdown().await;
}

/// A snapshot that the state machine refuses is fatal at the start already.
#[tokio::test]
async fn state_that_can_not_be_restored_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::bootstrap(dir.path(), identity(1), b"not a ledger").unwrap();
    let result = Consensus::start(quick(), store, Ledger::default(), PeerQueues::new(8));
    let error = result.expect_err("refused");
    assert!(
        matches!(error, crate::control::consensus::FatalError::Restore { index: 1, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_disk_error_calls_the_hook_and_stops_the_node() {
    let disk = SimulatedFolder::default();
    let state = Ledger::default().snapshot();
    let store = LogStore::bootstrap_in(&disk, identity(1), &state).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let said = Arc::new(Mutex::new(String::new()));
    let config = ConsensusConfig {
        on_fatal: {
            let (calls, said) = (Arc::clone(&calls), Arc::clone(&said));
            Arc::new(move |error| {
                *said.lock().unwrap() = error.to_string();
                calls.fetch_add(1, Ordering::SeqCst);
            })
        },
        ..quick()
    };
    let node = Consensus::start(config, store, Ledger::default(), PeerQueues::new(8)).unwrap();
    disk.fail_at(0, Fault::Before);
    let answer = timeout(LONG, node.propose(commands::word("a"))).await.unwrap();
    assert_eq!(answer, Err(ProposeError::Stopped));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(*said.lock().unwrap(), "the consensus log failed");
}

/// What the disk holds is unknown then, so nothing may be promised any more: not even by what would run while a
/// process ends in order. The test runs itself in a process of its own, which is to be the one that ends.
#[tokio::test]
async fn a_write_that_fails_ends_the_process() {
    const IS_TO_END: &str = "OVERLAY_TEST_IS_TO_END";
    const SIGABRT: i32 = 6;
    if std::env::var_os(IS_TO_END).is_some() {
        let disk = SimulatedFolder::default();
        let state = Ledger::default().snapshot();
        let store = LogStore::bootstrap_in(&disk, identity(1), &state).unwrap();
        let node = Consensus::start(quick(), store, Ledger::default(), PeerQueues::new(8)).unwrap();
        disk.fail_at(0, Fault::Before);
        let answer = timeout(LONG, node.propose(commands::word("a"))).await;
        panic!("it went on: {answer:?}");
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let test = format!("{module}::a_write_that_fails_ends_the_process");
    let mut this = Command::new(std::env::current_exe().unwrap());
    let ended = this.args(["--exact", &test]).env(IS_TO_END, "yes").output().unwrap();
    assert_eq!(ended.status.signal(), Some(SIGABRT), "{ended:?}");
}
