//! The loop that drives the core, on its own thread, and [`Consensus`], the handle to it.
//!
//! The loop has its own thread because fsync blocks. It sleeps until something arrives or a tick is due, takes
//! everything that waits, and pumps the core once for all of it: the busier the node, the more proposals share one
//! fsync.

mod members;

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
    ConsensusConfig, Core, Difference, FatalError, FatalHook, LogStore, Measures, ProposeError,
    StateMachine, Status, Transport, core::Reply,
};

/// The number of requests and messages that are taken before one pump. It bounds how long a heartbeat waits behind
/// a flood of requests.
const MAX_BATCH: usize = 4_096;

enum Request<O> {
    Propose(Vec<u8>, Reply<(u64, O)>),
    Read(Reply<u64>),
    AddLearner(u64, Reply<u64>),
    Remove(u64, Reply<u64>),
    Replace(u64, Reply<u64>),
    HandOver(u64, Reply<()>),
    Difference(Option<Difference>, Reply<()>),
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
    measures: Measures,
    /// How often a linearizable read was asked for. Clones share it.
    #[cfg(test)]
    reads: Arc<std::sync::atomic::AtomicUsize>,
}

impl<S: StateMachine> Clone for Consensus<S> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
            status: self.status.clone(),
            measures: self.measures.clone(),
            #[cfg(test)]
            reads: Arc::clone(&self.reads),
        }
    }
}

impl<S: StateMachine> std::fmt::Debug for Consensus<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

impl<S: StateMachine> Consensus<S> {
    /// Brings `machine` to the state of the log, and starts the node. Returns when all entries that are known to be
    /// committed are applied.
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
        let (status, measures) = (core.status(), core.measures().clone());
        let taken = measures.clone();
        thread::Builder::new()
            .name("consensus".into())
            .spawn(move || {
                let guard = PanicGuard(on_fatal);
                let incoming = Incoming { requests: incoming, measures: taken };
                // Those who wait for the end, which they know by the end of these and of the requests.
                let mut stops = Vec::new();
                match run(&mut core, &incoming, &mut transport, tick, &mut stops) {
                    Ok(()) => drop(core),
                    // The error is told before the log is closed: closing writes to the disk, which may just have failed.
                    Err(error) => {
                        (guard.0)(error);
                        drop(core);
                    }
                }
                drop(stops);
            })
            .map_err(FatalError::Thread)?;
        Ok(Self {
            requests,
            status,
            measures,
            #[cfg(test)]
            reads: Arc::default(),
        })
    }

    /// Replicates a command and answers its index and outcome once it is applied here.
    ///
    /// Never waits longer than an election timeout for a quorum that is gone.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Vec<u8>) -> Result<(u64, S::Outcome), ProposeError> {
        let proposed = self.ask(|reply| Request::Propose(command, reply)).await;
        proposed.inspect_err(|error| self.measures.note_failed(error))
    }

    /// Waits until this node has applied every write that was acknowledged before the call, on any node, and
    /// returns the applied index. Works on every member, not only on the leader.
    ///
    /// # Errors
    /// [`ProposeError::NoQuorum`] after [`ConsensusConfig::read_ticks`]; `Overloaded`; `Stopped`.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        #[cfg(test)]
        self.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.ask(Request::Read).await
    }

    /// How often a linearizable read was asked for here.
    #[cfg(test)]
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// The state of the cluster, as this node knows it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What this node measures of itself.
    #[must_use]
    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Asks the voter `next` to lead from now on. Answers when it was asked; the status shows who leads.
    ///
    /// # Errors
    /// `NotLeader`, `Overloaded`, `Stopped`; `Refused` if it can't lead now.
    pub async fn hand_over(&self, next: u64) -> Result<(), ProposeError> {
        self.ask(|reply| Request::HandOver(next, reply)).await
    }

    /// Notes how the state of this node differs from that of other voters; `None` = in nothing that is known. If a majority has
    /// another one, this node ends, and its log is not used any more; if none has the same, an alarm is raised.
    ///
    /// # Errors
    /// `Overloaded`; `Stopped`, also when this node ends for it.
    pub async fn note_difference(
        &self,
        difference: Option<Difference>,
    ) -> Result<(), ProposeError> {
        self.ask(|reply| Request::Difference(difference, reply)).await
    }

    /// Accepts a message that another node's transport sent. If the queue is full the message is dropped, as the
    /// network might have done.
    ///
    /// # Errors
    /// [`ProposeError::Overloaded`] or [`ProposeError::Stopped`].
    pub fn step(&self, message: Vec<u8>) -> Result<(), ProposeError> {
        self.send(Request::Step(message))
    }

    /// Reports that a message to `peer` was lost.
    pub fn report_unreachable(&self, peer: u64) {
        // If the queue is full the report is lost; the next failed message is reported again.
        drop(self.send(Request::Unreachable(peer)));
    }

    /// Reports whether a snapshot reached `peer`. Must be called for each snapshot that was sent.
    pub fn report_snapshot(&self, peer: u64, delivered: bool) {
        // If the queue is full the report is lost; the snapshot then counts as lost after
        // `ConsensusConfig::snapshot_ticks`.
        drop(self.send(Request::Snapshot(peer, delivered)));
    }

    /// Stops the node. A leader first hands its leadership over, if another voter can take it, and goes on until that one
    /// leads, for an election timeout at most. When this returns the log is closed and may be opened again.
    pub async fn shutdown(&self) {
        let (tx, rx) = oneshot::channel();
        let mut request = Request::Stop(tx);
        // The queue may be full for a moment; the call waits, because the answer is needed.
        while let Err(error) = self.queue(request) {
            match error {
                TrySendError::Full(again) => request = again,
                TrySendError::Disconnected(_) => return,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Nothing is ever sent: the driver drops its end when the log is closed, or when it stops for another reason.
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
        self.queue(request).map_err(|error| match error {
            TrySendError::Full(_) => {
                self.measures.note_refused();
                ProposeError::Overloaded
            }
            TrySendError::Disconnected(_) => ProposeError::Stopped,
        })
    }

    fn queue(&self, request: Request<S::Outcome>) -> Result<(), TrySendError<Request<S::Outcome>>> {
        self.measures.note_waits();
        self.requests.try_send(request).inspect_err(|_| self.measures.note_taken())
    }
}

/// Reports a panic of the driver's thread. Without it the node would seem alive.
struct PanicGuard(FatalHook);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)(FatalError::Panic);
        }
    }
}

/// The requests that wait, and the count of them.
struct Incoming<O> {
    requests: Receiver<Request<O>>,
    measures: Measures,
}

impl<O> Incoming<O> {
    fn wait(&self, patience: Duration) -> Result<Request<O>, RecvTimeoutError> {
        self.requests.recv_timeout(patience).inspect(|_| self.measures.note_taken())
    }

    fn next(&self) -> Option<Request<O>> {
        self.requests.try_recv().ok().inspect(|_| self.measures.note_taken())
    }
}

/// Lets something be logged once a minute at most, because others decide how often it happens.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    const PAUSE: Duration = Duration::from_secs(60);

    /// Whether it may be logged now. If so, it counts as logged.
    fn may(&mut self, now: Instant) -> bool {
        let may = self.0.is_none_or(|last| now.duration_since(last) >= Self::PAUSE);
        if may {
            self.0 = Some(now);
        }
        may
    }
}

/// Runs until the node is told to stop. `stops` takes those who wait for the end.
fn run<S: StateMachine>(
    core: &mut Core<S>,
    incoming: &Incoming<S::Outcome>,
    transport: &mut dyn Transport,
    tick: Duration,
    stops: &mut Vec<oneshot::Sender<()>>,
) -> Result<(), FatalError> {
    let (mut bad, mut full) = (Seldom::default(), Seldom::default());
    let mut refused = 0;
    let mut next_tick = Instant::now() + tick;
    loop {
        let patience = next_tick.saturating_duration_since(Instant::now());
        let mut request = match incoming.wait(patience) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let mut taken = 0;
        while let Some(next) = request.take() {
            match next {
                // What comes after it is looked at only if the node can't stop yet.
                Request::Stop(stop) => {
                    stops.push(stop);
                    break;
                }
                next => handle(core, next, &mut bad),
            }
            taken += 1;
            if taken < MAX_BATCH {
                request = incoming.next();
            }
        }
        // After a long stall there is one tick and not a burst of ticks: the messages that waited come first,
        // because otherwise a slow disk would look like a dead leader.
        if Instant::now() >= next_tick {
            core.tick();
            next_tick = Instant::now() + tick;
            let now = incoming.measures.refused();
            if now > refused && full.may(Instant::now()) {
                tracing::warn!(
                    refused = now - refused,
                    "requests and messages were refused, since too many wait: this voter can't keep up"
                );
                refused = now;
            }
        }
        core.pump(transport)?;
        if !stops.is_empty() {
            if core.may_stop() {
                return Ok(());
            }
            // The message that asks another voter to lead.
            core.pump(transport)?;
        }
    }
}

fn handle<S: StateMachine>(core: &mut Core<S>, request: Request<S::Outcome>, bad: &mut Seldom) {
    match request {
        Request::Propose(command, reply) => core.propose(command, reply),
        Request::Read(reply) => core.read_index(reply),
        Request::AddLearner(id, reply) => core.add_learner(id, reply),
        Request::Remove(id, reply) => core.remove(id, reply),
        Request::Replace(id, reply) => core.replace(id, reply),
        Request::HandOver(next, reply) => {
            let asked = core.hand_over_to(next);
            // The caller may have gone.
            drop(reply.send(asked));
        }
        Request::Difference(difference, reply) => {
            core.note_difference(difference);
            drop(reply.send(Ok(())));
        }
        Request::Step(message) => {
            if let Err(error) = core.step(&message)
                && bad.may(Instant::now())
            {
                tracing::warn!(%error, "raft message refused; further ones are not logged for a minute");
            }
        }
        Request::Unreachable(peer) => core.report_unreachable(peer),
        Request::Snapshot(peer, delivered) => core.report_snapshot(peer, delivered),
        Request::Stop(_) => unreachable!("the loop keeps it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_cause_is_logged_once_a_minute() {
        let (began, mut seldom) = (Instant::now(), Seldom::default());
        let mut may = |secs| seldom.may(began + Duration::from_secs(secs));
        assert_eq!([0, 1, 59, 60, 61, 130].map(&mut may), [true, false, false, true, false, true]);
    }
}
