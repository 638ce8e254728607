//! The one loop that drives the core, and the handle to it.
//!
//! A thread of its own, because fsync blocks. It sleeps until something arrives or a tick is due,
//! takes everything that waits, and pumps the core once for all of it: the busier the node, the
//! more proposals share one fsync.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};

use super::{
    ConsensusConfig, Core, FatalError, FatalHook, LogStore, ProposeError, StateMachine, Status,
    Transport, core::Reply,
};

/// Taken in before one pump. Bounds how long messages and heartbeats wait behind a flood.
const MAX_BATCH: usize = 4_096;

enum Request<O> {
    Propose(Vec<u8>, Reply<(u64, O)>),
    Read(Reply<u64>),
    AddLearner(u64, Reply<u64>),
    Remove(u64, Reply<u64>),
    Step(Vec<u8>),
    Unreachable(u64),
    Snapshot(u64, bool),
    Stop(oneshot::Sender<()>),
}

/// A running node. Cheap to clone; the node stops at [`Consensus::shutdown`], or when the last
/// clone is dropped.
pub struct Consensus<S: StateMachine> {
    requests: SyncSender<Request<S::Outcome>>,
    status: watch::Receiver<Status>,
}

impl<S: StateMachine> Clone for Consensus<S> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), status: self.status.clone() }
    }
}

impl<S: StateMachine> std::fmt::Debug for Consensus<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

impl<S: StateMachine> Consensus<S> {
    /// Brings `machine` to where the log is, and starts the node. Returns once everything known to
    /// be committed is applied.
    ///
    /// # Errors
    /// See [`FatalError`].
    pub fn start(
        config: ConsensusConfig,
        store: LogStore,
        machine: S,
        mut transport: impl Transport,
    ) -> Result<Self, FatalError> {
        let (requests, incoming) = sync_channel(config.queue);
        let (tick, on_fatal) = (config.tick, Arc::clone(&config.on_fatal));
        let mut core = Core::new(config, store, machine)?;
        core.pump(&mut transport)?;
        core.campaign_if_alone()?;
        core.pump(&mut transport)?;
        let status = core.status();
        thread::Builder::new()
            .name("consensus".into())
            .spawn(move || {
                let guard = PanicGuard(on_fatal);
                match run(&mut core, &incoming, &mut transport, tick) {
                    Ok(stop) => {
                        drop(core);
                        // Whoever asked may have gone.
                        stop.and_then(|stop| stop.send(()).ok());
                    }
                    // Before the log is closed, which would write to a disk that just failed.
                    Err(error) => (guard.0)(error),
                }
            })
            .map_err(FatalError::Thread)?;
        Ok(Self { requests, status })
    }

    /// Replicates a command and answers its index and outcome once it is applied here.
    ///
    /// Never waits for a quorum that is gone for longer than an election timeout.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Vec<u8>) -> Result<(u64, S::Outcome), ProposeError> {
        self.ask(|reply| Request::Propose(command, reply)).await
    }

    /// Waits until this node shows every write that was acknowledged, anywhere, before the call.
    /// Answers the applied index then. Works on any member, not only on the leader.
    ///
    /// # Errors
    /// [`ProposeError::NoQuorum`] after [`ConsensusConfig::read_ticks`]; `Overloaded`; `Stopped`.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        self.ask(Request::Read).await
    }

    /// Makes `id` a member without a vote, and answers the index from which it is one. The leader
    /// gives votes by itself, to two that have caught up at once, so that their number stays odd.
    ///
    /// # Errors
    /// See [`ProposeError`]; `Refused` while another change is under way.
    pub async fn add_learner(&self, id: u64) -> Result<u64, ProposeError> {
        self.ask(|reply| Request::AddLearner(id, reply)).await
    }

    /// Removes the member `id`, and answers an index at which it is none any more: the others can decide
    /// without it, and it may be told. May take several changes; dropped, it starts no further one.
    ///
    /// # Errors
    /// See [`ProposeError`]; `Refused` for the only voter where no learner can take over; `NotLeader`
    /// with the successor when the leader is asked to remove itself.
    pub async fn remove(&self, id: u64) -> Result<u64, ProposeError> {
        self.ask(|reply| Request::Remove(id, reply)).await
    }

    /// What this node knows of the cluster.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Hands in a message that another node's transport sent. A full queue drops it, as the
    /// network might have.
    ///
    /// # Errors
    /// [`ProposeError::Overloaded`] or [`ProposeError::Stopped`].
    pub fn step(&self, message: Vec<u8>) -> Result<(), ProposeError> {
        self.send(Request::Step(message))
    }

    /// Says that a message to `peer` was lost.
    pub fn report_unreachable(&self, peer: u64) {
        // A report that finds no room is made up for by the next failed message.
        drop(self.send(Request::Unreachable(peer)));
    }

    /// Says how a snapshot to `peer` went. Must be called for each one that was sent.
    pub fn report_snapshot(&self, peer: u64, delivered: bool) {
        // A report that finds no room is made up for by `ConsensusConfig::snapshot_ticks`.
        drop(self.send(Request::Snapshot(peer, delivered)));
    }

    /// Stops the node, handing the leadership over first if another voter can take it. When this
    /// returns the log is closed and may be opened again.
    pub async fn shutdown(&self) {
        let (tx, rx) = oneshot::channel();
        let mut request = Request::Stop(tx);
        // The queue may be full for a moment; the answer is worth waiting for.
        while let Err(error) = self.requests.try_send(request) {
            match error {
                TrySendError::Full(again) => request = again,
                TrySendError::Disconnected(_) => return,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // An error means that the node stopped for another reason.
        drop(rx.await);
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request<S::Outcome>,
    ) -> Result<T, ProposeError> {
        let (tx, rx) = oneshot::channel();
        self.send(request(tx))?;
        rx.await.unwrap_or(Err(ProposeError::Stopped))
    }

    fn send(&self, request: Request<S::Outcome>) -> Result<(), ProposeError> {
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => ProposeError::Overloaded,
            TrySendError::Disconnected(_) => ProposeError::Stopped,
        })
    }
}

/// Reports a panic of the driver, which would otherwise leave a node that seems alive.
struct PanicGuard(FatalHook);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)(FatalError::Panic);
        }
    }
}

/// Runs until told to stop, and by whom.
fn run<S: StateMachine>(
    core: &mut Core<S>,
    incoming: &Receiver<Request<S::Outcome>>,
    transport: &mut dyn Transport,
    tick: Duration,
) -> Result<Option<oneshot::Sender<()>>, FatalError> {
    let mut next_tick = Instant::now() + tick;
    loop {
        let patience = next_tick.saturating_duration_since(Instant::now());
        let mut request = match incoming.recv_timeout(patience) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        };
        let mut taken = 0;
        while let Some(next) = request.take() {
            if let Request::Stop(stop) = next {
                core.pump(transport)?;
                // Without a word to the successor the others would wait out an election timeout.
                if core.hand_over().is_some() {
                    core.pump(transport)?;
                }
                return Ok(Some(stop));
            }
            handle(core, next);
            taken += 1;
            if taken < MAX_BATCH {
                request = incoming.try_recv().ok();
            }
        }
        // After a long stall one tick, not a burst: the messages of the meantime come first, or a
        // slow disk would look like a dead leader.
        if Instant::now() >= next_tick {
            core.tick();
            next_tick = Instant::now() + tick;
        }
        core.pump(transport)?;
    }
}

fn handle<S: StateMachine>(core: &mut Core<S>, request: Request<S::Outcome>) {
    match request {
        Request::Propose(command, reply) => core.propose(command, reply),
        Request::Read(reply) => core.read_index(reply),
        Request::AddLearner(id, reply) => core.add_learner(id, reply),
        Request::Remove(id, reply) => core.remove(id, reply),
        Request::Step(message) => {
            if let Err(error) = core.step(&message) {
                tracing::warn!(%error, "raft message refused");
            }
        }
        Request::Unreachable(peer) => core.report_unreachable(peer),
        Request::Snapshot(peer, delivered) => core.report_snapshot(peer, delivered),
        Request::Stop(_) => unreachable!("stop ends the loop before it gets here"),
    }
}
