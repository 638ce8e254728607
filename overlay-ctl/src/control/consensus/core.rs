//! The consensus node without threads, clocks and sockets.
//!
//! Callers hand in ticks, messages and requests, and then call [`Core::pump`]. It runs the engine until nothing is
//! left to do; everything that was handed in shares one transaction.

mod apply;
mod contacts;
mod difference;
mod disk;
mod handover;
mod members;
mod proof;
mod proposals;
mod room;
mod rounds;
#[cfg(test)]
mod seam;
mod silence;
mod snapshots;
mod stall;
mod voters;

#[cfg(test)]
pub(in crate::control) use self::seam::{Logged, watch_applied};
use super::{
    ConsensusConfig, Difference, DiskTimes, FatalError, Measures, PeerStatus, ProposeError, Role,
    StateMachine, Status, Transport,
    codec::{self, BadMessage},
    reads::Reads,
    storage::{Batch, LogStore},
};
use raft::{
    Config, RawNode, Ready, StateRole,
    eraftpb::{ConfState, Message, MessageType},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};
use tokio::sync::{oneshot, watch};

/// The channel for the answer to a proposal.
pub(super) type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

/// A command, and the channel for its index and outcome.
type Proposal<O> = (Vec<u8>, Reply<(u64, O)>);

/// A proposal that waits for the entry at some index.
struct Waiter<O> {
    /// The term in which it was proposed. An entry of another term at this index belongs to another proposal.
    term: u64,
    kind: WaiterKind<O>,
}

enum WaiterKind<O> {
    Command(Reply<(u64, O)>),
    Members(Reply<u64>),
}

impl<O> Waiter<O> {
    fn fail(self, error: ProposeError) {
        self.kind.fail(error);
    }
}

impl<O> WaiterKind<O> {
    fn fail(self, error: ProposeError) {
        // The caller may have gone.
        match self {
            Self::Command(reply) => drop(reply.send(Err(error))),
            Self::Members(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// A node of the cluster that its caller drives.
pub struct Core<S: StateMachine> {
    config: ConsensusConfig,
    node: RawNode<LogStore>,
    machine: S,
    applied: u64,
    ticks: u64,
    /// The tick since which a commit index waits for a transaction that writes it.
    commit_waits: Option<u64>,
    proposals: Vec<Proposal<S::Outcome>>,
    waiters: BTreeMap<u64, Waiter<S::Outcome>>,
    /// Members to be removed, and the callers that wait for that.
    leaving: BTreeMap<u64, Vec<Reply<u64>>>,
    /// Of those that leave: who does so only if a learner takes over its vote.
    replaced: BTreeSet<u64>,
    /// Which learners have caught up, while this node leads.
    rounds: rounds::Rounds,
    reads: Reads,
    /// The decoded snapshot of the last message that had one, with its index and term.
    received: Option<(u64, u64, S::Snapshot)>,
    /// Snapshots that were sent.
    snapshots: snapshots::Sent,
    /// The tick at which each peer was last heard.
    heard: BTreeMap<u64, u64>,
    /// Followers that seem to have forgotten entries, and the index up to which each had acknowledged them.
    doubted: BTreeMap<u64, u64>,
    /// The room in the state folder.
    free: room::Free,
    /// Bytes of the entries that were applied since the last snapshot.
    unsnapshotted: u64,
    /// The [`StateMachine::snapshot_version`] of the stored snapshot.
    snapshot_version: u32,
    /// Whether a majority takes no entries, while this node leads.
    stall: stall::Stall,
    /// Which members are silent, while this node leads.
    silence: silence::Silence,
    last_leader: silence::LastLeader,
    /// How long the disk takes.
    disk: DiskTimes,
    measures: Measures,
    /// How each member keeps up, while this node leads.
    progress: contacts::Progress,
    /// Since which tick this node is to stop, and whether it asked another one to lead.
    stopping: Option<(u64, bool)>,
    /// The error that ends this node at the next [`Self::pump`].
    proof: Option<proof::Proof>,
    /// How its state differs from that of other voters.
    difference: Option<Difference>,
    /// The index of a snapshot that a newer version made, and why it can't be read: it ends this node, too.
    newer: Option<(u64, String)>,
    status: watch::Sender<Status>,
    #[cfg(test)]
    just_applied: Vec<Logged>,
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
    /// Creates a node with the log `store`. `machine` is brought to the snapshot of the log. The first
    /// [`Self::pump`] applies the entries after it, and must come before the first tick.
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
        let mut snapshot_bytes = 0;
        if index > 0 {
            let data = store.snapshot_data()?;
            snapshot_bytes = data.len();
            let snapshot = S::read_snapshot(&data);
            machine.restore(snapshot.map_err(|error| FatalError::of_snapshot(index, error))?);
            let (voters, learners) = (sorted(&members.voters), sorted(&members.learners));
            machine.membership(index, &voters, &sorted(&members.voters_outgoing), &learners);
            machine.batch_applied(index);
        }
        let engine = Config {
            id,
            election_tick: config.election_ticks,
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
        let measures = Measures::new(Arc::clone(&config.clock));
        measures.note_snapshot_bytes(snapshot_bytes);
        let snapshot_version = machine.snapshot_version();
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
            replaced: BTreeSet::new(),
            rounds: rounds::Rounds::default(),
            reads,
            received: None,
            snapshots: snapshots::Sent::default(),
            heard: BTreeMap::new(),
            doubted: BTreeMap::new(),
            free: room::Free::default(),
            unsnapshotted: 0,
            snapshot_version,
            stall: stall::Stall::default(),
            silence: silence::Silence::default(),
            last_leader: silence::LastLeader::default(),
            disk: DiskTimes::default(),
            measures,
            progress: contacts::Progress::default(),
            stopping: None,
            proof: None,
            difference: None,
            newer: None,
            status: watch::Sender::default(),
            #[cfg(test)]
            just_applied: Vec::new(),
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

    /// The state of the cluster, as this node knows it now.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// What this node measures of itself.
    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Queues a read. It is answered with the applied index, once that covers every write that was acknowledged
    /// before. Works on any member: a follower asks the leader.
    pub fn read_index(&mut self, reply: Reply<u64>) {
        self.reads.add(reply);
    }

    /// Accepts a message that another node's transport sent. A message that proves that this node forgot what it
    /// acknowledged, or that has a snapshot of a newer version, ends the node at the next [`Self::pump`].
    ///
    /// # Errors
    /// The message was dropped; nothing else happened.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(), BadMessage> {
        let message = codec::decode_message(bytes, self.id())?;
        // Before a snapshot is decoded, which takes memory and time: the leader sends it again and again.
        let fits = self.has_room_for(&message);
        if let Some(snapshot) = &message.snapshot
            && fits
            && !self.receive(&message, snapshot)?
        {
            return Ok(());
        }
        self.heard.insert(message.from, self.ticks);
        self.note_answer(&message);
        if !self.examine(&message) || !fits {
            return Ok(());
        }
        // The engine would answer a node that was removed. The node, which waits for an entry that it no longer gets,
        // would go on asking, and never find that it has no leader.
        let is_read = message.get_msg_type() == MessageType::MsgReadIndex;
        if is_read && self.node.raft.prs().get(message.from).is_none() {
            tracing::debug!(
                from = message.from,
                "a read of a node that is not a member is ignored"
            );
            return Ok(());
        }
        if let Err(error) = self.node.step(message) {
            // For example, a response from a node that is no longer a member.
            tracing::debug!(%error, "message ignored");
        }
        Ok(())
    }

    /// Advances the time by one tick.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.node.tick();
        self.look_for_room();
        self.look_after_snapshots();
        self.note_contacts();
    }

    /// Starts an election now if this node is the only voter, because it need not wait for others.
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

    /// Reports that a message to `to` was lost.
    pub fn report_unreachable(&mut self, to: u64) {
        self.node.report_unreachable(to);
    }

    /// Does everything there is to do, and gives outgoing messages to `transport`.
    ///
    /// # Errors
    /// The node cannot go on. It must be dropped, and the process should end.
    pub fn pump(&mut self, transport: &mut dyn Transport) -> Result<(), FatalError> {
        // Before any message leaves, so that this node casts no further vote.
        self.stop_if_proved()?;
        self.stop_if_it_differs()?;
        self.stop_if_newer()?;
        self.ask_back(transport);
        self.flush_proposals();
        for context in self.reads.due(self.ticks) {
            #[cfg(test)]
            self.confirm_early(&context);
            self.node.read_index(context);
        }
        self.arrange_members();
        while self.node.has_ready() {
            self.on_ready(transport)?;
            self.make_wanted_snapshots()?;
            self.arrange_members();
        }
        self.room_is_stale();
        let meta = self.store().snapshot_metadata();
        let is_newer = self.machine.snapshot_version() > self.snapshot_version;
        if is_newer || self.applied >= meta.index + self.config.snapshot_every {
            self.make_snapshot()?;
        }
        self.look_at_commits();
        self.fail_stale_waiters();
        self.fail_if_stalled();
        let late = match self.is_stalled() {
            true => ProposeError::Stalled { is_logged: false },
            false => ProposeError::NoQuorum,
        };
        self.reads.settle(self.applied, self.ticks, &late);
        // The engine did not use the snapshot.
        self.received = None;
        self.carry_commit()?;
        self.publish();
        Ok(())
    }

    /// A commit index that moved alone is written by the next transaction. If none comes within a tick it gets a
    /// transaction of its own: a node that restarts and finds no quorum then knows everything that it had applied.
    fn carry_commit(&mut self) -> Result<(), FatalError> {
        if !self.store().commit_waits() {
            self.commit_waits = None;
            return Ok(());
        }
        let since = *self.commit_waits.get_or_insert(self.ticks);
        if self.ticks > since {
            self.write(|store| store.write(&Batch::default()))?;
            self.commit_waits = None;
        }
        Ok(())
    }

    /// Carries out one Ready, in the order that the engine demands.
    fn on_ready(&mut self, transport: &mut dyn Transport) -> Result<(), FatalError> {
        let mut ready: Ready = self.node.ready();

        // 1. A leader's messages promise nothing of its own log (it counts itself only once its
        //    entries are durable), so they travel while the disk works.
        self.send(ready.take_messages(), transport);

        // 2. A snapshot replaces the state. It was decoded when it arrived: a snapshot that this version cannot
        // decode must not get into the log, because every restart would fail on it.
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        if let Some(snapshot) = &snapshot {
            self.install(snapshot)?;
        }

        // 3. Entries that are committed and already durable need not wait for step 4, unless one of them changes
        // the members: the engine panics if a leader that is no longer a member hears that its entries are durable.
        let mut committed = ready.take_committed_entries();
        if !committed.iter().any(apply::is_members) {
            self.apply(std::mem::take(&mut committed))?;
        }

        // 4. Snapshot, entries, term, vote and commit go into one transaction. A commit that moved alone waits for
        // a later one.
        let commit = ready.hs().map(|hard_state| hard_state.commit);
        #[cfg(test)]
        self.send_early(&mut ready, transport);
        if ready.must_sync() {
            let batch = Batch {
                snapshot: snapshot.as_ref(),
                entries: ready.entries(),
                hard_state: ready.hs(),
            };
            self.write(|store| store.write(&batch))?;
        } else if let Some(commit) = commit {
            self.node.mut_store().note_commit(commit);
        }

        // 5. Reads that a quorum confirmed; they are answered once applied.
        for read in ready.take_read_states() {
            self.reads.confirm(&read.request_ctx, read.index);
        }

        // 6. The messages of a follower are promises; step 4 has made them true.
        self.send(ready.take_persisted_messages(), transport);

        // 7. What step 4 made possible: a leader's own entries count now.
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
                let meta = message.snapshot.as_ref().and_then(|it| it.metadata.as_ref());
                self.snapshot_leaves(message.to, meta.map_or(0, |meta| meta.index));
            }
            let sent = transport.send(message.to, codec::encode(&message), is_snapshot);
            match (sent, is_snapshot) {
                (Ok(()), _) => {}
                (Err(_), true) => self.report_snapshot(message.to, false),
                (Err(_), false) => self.report_unreachable(message.to),
            }
        }
    }

    /// A member that was not heard since this tick counts as gone.
    fn horizon(&self) -> u64 {
        self.ticks.saturating_sub(self.config.max_election_ticks as u64)
    }

    /// Returns true if the member was heard lately. A node never hears itself, and counts as heard.
    fn is_alive(&self, id: u64) -> bool {
        self.heard.get(&id).is_some_and(|heard| *heard >= self.horizon())
    }

    /// The leader. A node without a vote never starts an election, and its engine would keep its last leader for
    /// ever. Therefore a leader that is silent does not count.
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
            last_term: self.store().last_term().unwrap_or_default(),
            last_index: self.store().last(),
            voters: sorted(&members.voters),
            outgoing: sorted(&members.voters_outgoing),
            learners: sorted(&members.learners),
            caught_up: self.rounds.caught_up().into_iter().collect(),
            snapshot: self.store().snapshot_metadata().index,
            disk: self.disk,
            alarms: self.alarms(),
            peers,
        };
        let old = self.status.borrow().clone();
        self.log_changes(&old, &status);
        if old != status {
            self.status.send_replace(status);
        }
    }
}

fn sorted(ids: &[u64]) -> Vec<u64> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

/// The engine's log is recorded from warnings up, because it is verbose below that; changes of role and membership
/// are logged here.
fn logger() -> slog::Logger {
    slog::Logger::root(
        slog::Drain::ignore_res(slog::LevelFilter::new(
            tracing_slog::TracingSlogDrain,
            slog::Level::Warning,
        )),
        slog::o!(),
    )
}
