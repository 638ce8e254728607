//! The node without threads, clocks or sockets.
//!
//! Callers hand in ticks, messages and requests, then [`Core::pump`]: it runs the engine until
//! nothing is left to do, with all that was handed in sharing one transaction.

mod apply;
mod members;
mod proof;
mod proposals;
mod voters;

use super::{
    ConsensusConfig, FatalError, PeerStatus, ProposeError, Role, StateMachine, Status, Transport,
    codec::{self, BadMessage},
    reads::Reads,
    storage::{Batch, LogStore},
};
use raft::{
    Config, RawNode, Ready, SnapshotStatus, StateRole,
    eraftpb::{ConfState, Message, MessageType},
};
use std::{collections::BTreeMap, fmt};
use tokio::sync::{oneshot, watch};

/// Where a proposal's answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

/// A command, and where its index and outcome go.
type Proposal<O> = (Vec<u8>, Reply<(u64, O)>);

/// Who waits for the entry at some index.
struct Waiter<O> {
    /// The term it was proposed in: an entry of another term at its index is somebody else's.
    term: u64,
    kind: WaiterKind<O>,
}

enum WaiterKind<O> {
    Command(Reply<(u64, O)>),
    Members(Reply<u64>),
}

impl<O> Waiter<O> {
    fn fail(self, error: ProposeError) {
        // Whoever asked may have gone.
        match self.kind {
            WaiterKind::Command(reply) => drop(reply.send(Err(error))),
            WaiterKind::Members(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// A node of the cluster, driven from outside.
pub struct Core<S: StateMachine> {
    config: ConsensusConfig,
    node: RawNode<LogStore>,
    machine: S,
    applied: u64,
    ticks: u64,
    /// Since when a commit waits for a transaction to ride on.
    commit_waits: Option<u64>,
    proposals: Vec<Proposal<S::Outcome>>,
    waiters: BTreeMap<u64, Waiter<S::Outcome>>,
    /// Members that are to be removed, and who waits for that.
    leaving: BTreeMap<u64, Vec<Reply<u64>>>,
    reads: Reads,
    /// The snapshot of the last message that had one, read; with its index and term.
    received: Option<(u64, u64, S::Snapshot)>,
    /// Snapshots on their way, and when they left.
    snapshots: BTreeMap<u64, u64>,
    /// When each peer was last heard.
    heard: BTreeMap<u64, u64>,
    /// Followers that seem to have forgotten entries, and up to where they acknowledged them.
    doubted: BTreeMap<u64, u64>,
    /// What ends this node at the next [`Self::pump`].
    proof: Option<proof::Proof>,
    status: watch::Sender<Status>,
}

impl<S: StateMachine> fmt::Debug for Core<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("id", &self.id())
            .field("role", &self.role())
            .field("term", &self.node.raft.term)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

impl<S: StateMachine> Core<S> {
    /// A node with the log `store`, whose `machine` is brought to the log's snapshot. The entries
    /// after it are applied by the first [`Self::pump`], which must come before the first tick.
    ///
    /// # Errors
    /// The snapshot can't be read or restored, or the configuration is invalid.
    pub fn new(
        config: ConsensusConfig,
        store: LogStore,
        mut machine: S,
    ) -> Result<Self, FatalError> {
        let id = store.identity().raft_id;
        let meta = store.snapshot_metadata();
        let (index, members) = (meta.index, meta.conf_state.clone().unwrap_or_default());
        if index > 0 {
            let snapshot = S::read_snapshot(&store.snapshot_data()?);
            machine.restore(snapshot.map_err(|source| FatalError::Restore { index, source })?);
            let (voters, learners) = (sorted(&members.voters), sorted(&members.learners));
            machine.membership(index, &voters, &sorted(&members.voters_outgoing), &learners);
            machine.batch_applied(index);
        }
        let engine = Config {
            id,
            election_tick: config.election_ticks,
            min_election_tick: config.election_ticks,
            max_election_tick: config.max_election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: index,
            max_size_per_msg: config.max_message_bytes,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: config.max_uncommitted_bytes,
            max_committed_size_per_ready: 16 << 20,
            ..Config::default()
        };
        let node = RawNode::new(&engine, store, &logger())?;
        let reads = Reads::new(id, config.start, config.read_ticks, config.heartbeat_ticks as u64);
        let mut core = Self {
            config,
            node,
            machine,
            applied: index,
            ticks: 0,
            commit_waits: None,
            proposals: Vec::new(),
            waiters: BTreeMap::new(),
            leaving: BTreeMap::new(),
            reads,
            received: None,
            snapshots: BTreeMap::new(),
            heard: BTreeMap::new(),
            doubted: BTreeMap::new(),
            proof: None,
            status: watch::Sender::new(Status::default()),
        };
        core.publish();
        Ok(core)
    }

    /// This node's raft id.
    pub fn id(&self) -> u64 {
        self.node.raft.id
    }

    /// The state machine.
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// The log.
    pub fn store(&self) -> &LogStore {
        self.node.store()
    }

    /// What this node knows of the cluster, from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Queues a read; it is answered with the applied index once that covers every write that was
    /// acknowledged before. Works on any member: a follower asks the leader.
    pub fn read_index(&mut self, reply: Reply<u64>) {
        self.reads.add(reply);
    }

    /// Takes a message that another node's transport sent. One that proves that this node forgot what it
    /// acknowledged ends the node at the next [`Self::pump`].
    ///
    /// # Errors
    /// The message was thrown away; nothing else happened.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(), BadMessage> {
        let mut message = codec::decode_message(bytes, self.id())?;
        if let Some(snapshot) = &message.snapshot {
            self.receive(snapshot)?;
        }
        self.heard.insert(message.from, self.ticks);
        if !self.examine(&mut message) {
            return Ok(());
        }
        if let Err(error) = self.node.step(message) {
            // A response from a node that is no member any more, for one.
            tracing::debug!(%error, "message ignored");
        }
        Ok(())
    }

    /// One tick of time has passed.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.node.tick();
        let lost = |sent: &u64| self.ticks >= sent + self.config.snapshot_ticks;
        let lost: Vec<u64> =
            self.snapshots.iter().filter(|(_, sent)| lost(sent)).map(|(to, _)| *to).collect();
        for to in lost {
            self.report_snapshot(to, false);
        }
    }

    /// Stands for election now if this node is the only voter, which need not wait to be asked.
    ///
    /// # Errors
    /// The engine refused.
    pub fn campaign_if_alone(&mut self) -> Result<(), FatalError> {
        let members = self.members();
        if members.voters == [self.id()] && members.voters_outgoing.is_empty() {
            self.node.campaign()?;
        }
        Ok(())
    }

    /// A message to `to` was lost.
    pub fn report_unreachable(&mut self, to: u64) {
        self.node.report_unreachable(to);
    }

    /// A snapshot reached `to`, or did not. Until this is said the leader sends it nothing else.
    pub fn report_snapshot(&mut self, to: u64, delivered: bool) {
        self.snapshots.remove(&to);
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to, status);
    }

    /// Does everything there is to do, and hands outgoing messages to `transport`.
    ///
    /// # Errors
    /// The node can't go on; it must be dropped, and the process should end.
    pub fn pump(&mut self, transport: &mut dyn Transport) -> Result<(), FatalError> {
        // Before anything leaves: not one more vote.
        self.stop_if_proved()?;
        self.ask_back(transport);
        self.flush_proposals();
        for context in self.reads.due(self.ticks) {
            self.node.read_index(context);
        }
        self.arrange_members();
        while self.node.has_ready() {
            self.on_ready(transport)?;
            self.make_wanted_snapshots()?;
            self.arrange_members();
        }
        let meta = self.store().snapshot_metadata();
        if self.applied >= meta.index + self.config.snapshot_every {
            self.make_snapshot()?;
        }
        self.fail_stale_waiters();
        self.reads.settle(self.applied, self.ticks);
        // The engine had no use for it.
        self.received = None;
        self.carry_commit()?;
        self.publish();
        Ok(())
    }

    /// A commit that moved alone rides on the next transaction. Where none comes within a tick it gets
    /// one of its own: a node that restarts, and finds no quorum, then knows all that it had applied and
    /// not all but the last of it.
    fn carry_commit(&mut self) -> Result<(), FatalError> {
        if !self.store().commit_waits() {
            self.commit_waits = None;
            return Ok(());
        }
        let since = *self.commit_waits.get_or_insert(self.ticks);
        if self.ticks > since {
            self.node.mut_store().write(&Batch::default())?;
            self.commit_waits = None;
        }
        Ok(())
    }

    /// One Ready, in the order that the engine demands.
    fn on_ready(&mut self, transport: &mut dyn Transport) -> Result<(), FatalError> {
        let mut ready: Ready = self.node.ready();

        // 1. A leader's messages promise nothing of its own log (it counts itself only once its
        //    entries are durable), so they travel while the disk works.
        self.send(ready.take_messages(), transport);

        // 2. A snapshot replaces the state. It was read when it came: one that this version can't read
        //    must not get into the log, where every restart would meet it again.
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        if let Some(snapshot) = &snapshot {
            self.install(snapshot)?;
        }

        // 3. Entries that are committed and already durable need not wait for step 4. Unless one
        //    of them changes the members: the engine panics if a leader that is none any more
        //    hears that its entries are durable.
        let mut committed = ready.take_committed_entries();
        if !committed.iter().any(apply::is_members) {
            self.apply(std::mem::take(&mut committed))?;
        }

        // 4. Snapshot, entries, term, vote and commit in one transaction. When only the commit
        //    moved it rides on a later one.
        let commit = ready.hs().map(|hard_state| hard_state.commit);
        if ready.must_sync() {
            let batch = Batch {
                snapshot: snapshot.as_ref(),
                entries: ready.entries(),
                hard_state: ready.hs(),
            };
            self.node.mut_store().write(&batch)?;
        } else if let Some(commit) = commit {
            self.node.mut_store().note_commit(commit);
        }

        // 5. Reads that a quorum confirmed; they are answered once applied.
        for read in ready.take_read_states() {
            self.reads.confirm(&read.request_ctx, read.index);
        }

        // 6. A follower's messages are promises that step 4 made true.
        self.send(ready.take_persisted_messages(), transport);

        // 7. What became possible by step 4: a leader's own entries count now.
        let mut light = self.node.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().note_commit(commit);
        }
        self.send(light.take_messages(), transport);
        committed.extend(light.take_committed_entries());
        self.apply(committed)?;
        self.node.advance_apply();
        self.step_down_without_a_vote();
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>, transport: &mut dyn Transport) {
        for message in messages {
            let is_snapshot = message.msg_type == MessageType::MsgSnapshot as i32;
            if is_snapshot {
                self.snapshots.insert(message.to, self.ticks);
            }
            let sent = transport.send(message.to, codec::encode(&message), is_snapshot);
            match (sent, is_snapshot) {
                (Ok(()), _) => {}
                (Err(_), true) => self.report_snapshot(message.to, false),
                (Err(_), false) => self.report_unreachable(message.to),
            }
        }
    }

    /// Who was not heard since this tick is taken for gone.
    fn horizon(&self) -> u64 {
        self.ticks.saturating_sub(self.config.max_election_ticks as u64)
    }

    /// Whether the member was heard lately. Nothing is heard of a node from itself.
    fn is_alive(&self, id: u64) -> bool {
        self.heard.get(&id).is_some_and(|heard| *heard >= self.horizon())
    }

    /// Who leads. A node without a vote never campaigns, so the engine would believe in its last leader
    /// for ever: one that is silent leads nobody here.
    fn leader(&self) -> Option<u64> {
        let id = self.node.raft.leader_id;
        Some(id).filter(|id| *id == self.id() || (*id != raft::INVALID_ID && self.is_alive(*id)))
    }

    fn members(&self) -> ConfState {
        self.node.raft.prs().conf().to_conf_state()
    }

    fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if self.node.raft.promotable() => Role::Follower,
            StateRole::Follower => Role::Learner,
        }
    }

    fn publish(&mut self) {
        let raft = &self.node.raft;
        let members = self.members();
        let mut peers = Vec::new();
        if raft.state == StateRole::Leader {
            let others = raft.prs().iter().filter(|(id, _)| **id != raft.id);
            peers.extend(others.map(|(id, progress)| PeerStatus {
                id: *id,
                matched: progress.matched,
                recent_active: self.is_alive(*id),
            }));
            peers.sort_unstable_by_key(|peer| peer.id);
        }
        let status = Status {
            id: raft.id,
            role: self.role(),
            leader: self.leader(),
            term: raft.term,
            applied: self.applied,
            commit: raft.raft_log.committed,
            voters: sorted(&members.voters),
            outgoing: sorted(&members.voters_outgoing),
            learners: sorted(&members.learners),
            peers,
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }
}

fn sorted(ids: &[u64]) -> Vec<u64> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

/// The engine's log records from warnings up; it is chatty below, and our own records tell the
/// changes of role and membership.
fn logger() -> slog::Logger {
    slog::Logger::root(
        slog::Drain::ignore_res(slog::LevelFilter::new(
            tracing_slog::TracingSlogDrain,
            slog::Level::Warning,
        )),
        slog::o!(),
    )
}
