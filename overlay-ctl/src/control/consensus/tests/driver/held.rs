//! What happens while the driver is busy, or dies: the state machine does what the test wants.

use std::sync::mpsc;

use super::*;
use crate::control::consensus::{FatalError, RestoreError, Stop};

/// The command at which the driver waits until the test lets it go on.
const WAIT: &[u8] = b"wait";
/// The command at which the state machine panics.
const PANIC: &[u8] = b"panic";

struct Machine {
    /// Tells the test that the driver waits.
    waits: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
    batches: Arc<AtomicUsize>,
}

impl StateMachine for Machine {
    type Outcome = ();
    type Snapshot = ();

    fn apply(&mut self, _: u64, command: &[u8]) -> Result<(), Stop> {
        assert_ne!(command, PANIC, "this panic is part of the test");
        if command == WAIT {
            self.waits.send(()).unwrap();
            self.go_on.recv_timeout(LONG).unwrap();
        }
        Ok(())
    }

    fn membership(&mut self, _: u64, _: &[u64], _: &[u64], _: &[u64]) {}

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn read_snapshot(_: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }

    fn restore(&mut self, (): ()) {}

    fn batch_applied(&mut self, _: u64) {
        self.batches.fetch_add(1, Ordering::SeqCst);
    }
}

/// A node, and the other ends of its state machine.
struct Held {
    node: Consensus<Machine>,
    waits: mpsc::Receiver<()>,
    go_on: mpsc::Sender<()>,
    batches: Arc<AtomicUsize>,
}

fn start(config: ConsensusConfig) -> Held {
    let store = LogStore::bootstrap_in(&SimulatedFolder::default(), identity(1), b"").unwrap();
    let ((waits, is_waiting), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let batches = Arc::new(AtomicUsize::new(0));
    let machine = Machine { waits, go_on: goes_on, batches: Arc::clone(&batches) };
    let node = Consensus::start(config, store, machine, PeerQueues::new(8)).unwrap();
    Held { node, waits: is_waiting, go_on, batches }
}

/// A node whose driver waits, in a command that somebody proposed.
fn held(config: ConsensusConfig) -> (Held, impl Future<Output = Result<(u64, ()), ProposeError>>) {
    let held = start(config);
    let node = held.node.clone();
    let first = tokio::spawn(async move { node.propose(WAIT.to_vec()).await });
    (held, async { first.await.unwrap() })
}

#[tokio::test]
async fn requests_that_wait_share_a_batch_and_are_answered_before_a_shutdown() {
    let (Held { node, waits, go_on, batches }, first) = held(timeless());
    tokio::task::yield_now().await;
    waits.recv_timeout(LONG).unwrap();
    let before = batches.load(Ordering::SeqCst);
    let proposals = join_all((0..100).map(|number| node.propose(vec![number])));
    let shutdown = node.shutdown();
    let release = async { go_on.send(()).unwrap() };
    // In this order: everything waits when the driver goes on.
    let (answers, (), ()) =
        timeout(LONG, async { tokio::join!(biased; proposals, shutdown, release) }).await.unwrap();
    first.await.unwrap();
    for answer in answers {
        answer.unwrap();
    }
    // One is that of the first command.
    assert_eq!(batches.load(Ordering::SeqCst) - before, 2);
}

#[tokio::test]
async fn a_shutdown_waits_for_room_in_the_queue() {
    let (Held { node, waits, go_on, .. }, first) = held(ConsensusConfig { queue: 1, ..timeless() });
    tokio::task::yield_now().await;
    waits.recv_timeout(LONG).unwrap();
    let other = node.clone();
    let second = tokio::spawn(async move { other.propose(b"second".to_vec()).await });
    tokio::task::yield_now().await;
    assert_eq!(node.propose(b"third".to_vec()).await, Err(ProposeError::Overloaded));
    let shutdown = node.shutdown();
    let release = async { go_on.send(()).unwrap() };
    timeout(LONG, async { tokio::join!(biased; shutdown, release) }).await.unwrap();
    first.await.unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(node.propose(b"late".to_vec()).await, Err(ProposeError::Stopped));
}

/// Without the hook the process would go on with a node that is dead.
#[tokio::test]
async fn a_panic_of_the_driver_calls_the_hook_and_stops_the_node() {
    let (said, hears) = mpsc::channel();
    let on_fatal = Arc::new(move |error: FatalError| said.send(error.to_string()).unwrap());
    let Held { node, .. } = start(ConsensusConfig { on_fatal, ..timeless() });
    let answer = timeout(LONG, node.propose(PANIC.to_vec())).await.unwrap();
    assert_eq!(answer, Err(ProposeError::Stopped));
    assert_eq!(hears.recv_timeout(LONG).unwrap(), "the consensus thread panicked");
}
