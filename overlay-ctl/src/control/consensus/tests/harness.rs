//! A cluster without threads: nodes, disks that lose what was not synced, a network that can be cut,
//! and a clock that is a counter.

use super::{commands, oracle::Oracle};
use crate::{
    control::{
        consensus::{
            ConsensusConfig, Core, FatalError, Identity, LogStore, OpenError, ProposeError,
            RestoreError, Role, StateMachine, Status, Stop, Transport, Undeliverable,
        },
        state::State,
        voter::{Machine, SharedState},
    },
    durable::simulated::{Fault, SimulatedFolder},
    seeded::Rng,
};
use raft::{GetEntriesContext, Storage as _};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tokio::sync::oneshot::{self, error::TryRecvError};
use uuid::Uuid;

/// Beside the real state machine: every command with its index, so that two are equal only if they
/// applied the same commands in the same places.
pub(crate) struct Ledger {
    pub(crate) commands: Vec<(u64, Vec<u8>)>,
    /// Voters, those who voted before a joint configuration, and learners.
    pub(crate) members: [Vec<u64>; 3],
    pub(crate) published: u64,
    pub(crate) state: SharedState,
    machine: Machine,
    /// `None`: it was lied to, and need not be right.
    oracle: Option<Oracle>,
    /// From a snapshot, which is to be checked when its index is known.
    restored: bool,
    /// How often the state was encoded.
    pub(crate) encoded: Cell<usize>,
    /// Reads the commands of a newer version, too.
    is_newer: bool,
}

impl Ledger {
    fn new(oracle: Option<Oracle>, remembered: usize, is_newer: bool) -> Self {
        let (machine, state) = Machine::remembering(remembered);
        Self {
            commands: Vec::new(),
            members: Default::default(),
            published: 0,
            state,
            machine,
            oracle,
            restored: false,
            encoded: Cell::default(),
            is_newer,
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(Some(Oracle::default()), 1_000, false)
    }
}

impl StateMachine for Ledger {
    type Outcome = usize;
    type Snapshot = (Vec<(u64, Vec<u8>)>, State);

    fn apply(&mut self, index: u64, command: &[u8]) -> Result<usize, Stop> {
        let known = match command.strip_prefix(&[commands::NEWER]) {
            Some(known) if self.is_newer => known,
            _ => command,
        };
        let outcome = self.machine.apply(index, known)?;
        if let Some(oracle) = &self.oracle {
            let last = self.commands.last().map_or(0, |(last, _)| *last);
            assert!(last < index, "applied in order");
            oracle.applied(index, command, &outcome);
        }
        self.commands.push((index, command.to_vec()));
        Ok(self.commands.len())
    }

    fn membership(&mut self, index: u64, voters: &[u64], outgoing: &[u64], learners: &[u64]) {
        self.machine.membership(index, voters, outgoing, learners);
        self.members = [voters, outgoing, learners].map(<[u64]>::to_vec);
        if let Some(oracle) = &self.oracle {
            oracle.members(index, &self.members);
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        self.encoded.update(|times| times + 1);
        rmp_serde::to_vec(&(&self.commands, self.machine.snapshot())).unwrap()
    }

    fn read_snapshot(snapshot: &[u8]) -> Result<Self::Snapshot, RestoreError> {
        let damaged = |error: rmp_serde::decode::Error| RestoreError::Damaged(error.into());
        let (commands, state): (_, Vec<u8>) = rmp_serde::from_slice(snapshot).map_err(damaged)?;
        Ok((commands, Machine::read_snapshot(&state)?))
    }

    fn restore(&mut self, (commands, state): Self::Snapshot) {
        self.commands = commands;
        self.machine.restore(state);
        self.restored = true;
    }

    fn batch_applied(&mut self, index: u64) {
        let restored = std::mem::take(&mut self.restored);
        if let Some(oracle) = &self.oracle {
            assert!(index > self.published || index == 1, "published in order");
            if restored {
                oracle.restored(index, &self.commands);
            }
        }
        self.machine.batch_applied(index);
        self.published = index;
    }
}

#[derive(Clone)]
struct Packet {
    from: u64,
    to: u64,
    bytes: Vec<u8>,
    is_snapshot: bool,
    /// It arrives at this time.
    due: u64,
}

pub(super) struct Outbox(pub(super) Vec<(u64, Vec<u8>, bool)>);

impl Transport for Outbox {
    fn send(&mut self, to: u64, bytes: Vec<u8>, is_snapshot: bool) -> Result<(), Undeliverable> {
        self.0.push((to, bytes, is_snapshot));
        Ok(())
    }
}

/// A proposal's answer, when it comes.
pub(crate) type Pending<T> = oneshot::Receiver<Result<T, ProposeError>>;

pub(crate) struct Cluster {
    pub(crate) config: ConsensusConfig,
    pub(crate) rng: Rng,
    /// Lost on the way, in percent.
    pub(crate) loss: u64,
    /// How many snapshots were sent, by receiver.
    pub(crate) snapshots: BTreeMap<u64, usize>,
    /// This many snapshots get lost without anybody noticing.
    pub(crate) swallow: usize,
    /// Snapshots become those of a newer version on their way.
    pub(crate) newer_snapshots: bool,
    /// Who runs an older version than the others from its next start on.
    pub(crate) older: BTreeSet<u64>,
    /// Who may end by itself, and why it did.
    pub(crate) ends: BTreeMap<u64, Option<FatalError>>,
    pub(crate) oracle: Oracle,
    /// How many changes a node's state remembers.
    remembered: usize,
    disks: BTreeMap<u64, SimulatedFolder>,
    nodes: BTreeMap<u64, Core<Ledger>>,
    packets: VecDeque<Packet>,
    /// From whom to whom nothing comes through.
    cut: BTreeSet<(u64, u64)>,
    /// How many ticks a packet is under way, from whom to whom.
    delay: BTreeMap<(u64, u64), u64>,
    /// Those that stand still, as after SIGSTOP; what is sent to them waits.
    paused: BTreeSet<u64>,
    /// How many of a hundred ticks a node sees.
    pace: BTreeMap<u64, u64>,
    now: u64,
    /// Up to where the oracle has seen each node's log.
    checked: BTreeMap<u64, u64>,
}

impl Cluster {
    /// Node 1 alone.
    pub(crate) fn new(config: ConsensusConfig) -> Self {
        Self::seeded(config, Rng::directed(), 1_000)
    }

    /// Node 1 alone, in a run that is what `rng` makes. Its state remembers so many changes.
    pub(crate) fn seeded(config: ConsensusConfig, rng: Rng, remembered: usize) -> Self {
        let mut cluster = Self {
            // The engine's own randomness can't be seeded: none, and uneven ticks instead.
            config: ConsensusConfig { max_election_ticks: config.election_ticks + 1, ..config },
            rng,
            loss: 0,
            snapshots: BTreeMap::new(),
            swallow: 0,
            newer_snapshots: false,
            older: BTreeSet::new(),
            ends: BTreeMap::new(),
            oracle: Oracle::default(),
            remembered,
            disks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            packets: VecDeque::new(),
            cut: BTreeSet::new(),
            delay: BTreeMap::new(),
            paused: BTreeSet::new(),
            pace: BTreeMap::new(),
            now: 0,
            checked: BTreeMap::new(),
        };
        let disk = SimulatedFolder::default();
        let state = Ledger::default().snapshot();
        drop(LogStore::bootstrap_in(&disk, identity(1), &state).unwrap());
        cluster.disks.insert(1, disk);
        cluster.start(1);
        cluster
    }

    /// Voters 1 to 3, grown from node 1 the way an operator does it.
    pub(crate) fn of_three(config: ConsensusConfig) -> Self {
        Self::new(config).grown()
    }

    /// With voters 2 and 3.
    pub(crate) fn grown(mut self) -> Self {
        for id in [2, 3] {
            self.join(id);
        }
        self.until("three voters", |cluster| {
            (1..=3).all(|id| cluster.status(id).voters == [1, 2, 3])
        });
        self
    }

    /// A new node that nobody knows yet.
    pub(crate) fn create(&mut self, id: u64) {
        let disk = SimulatedFolder::default();
        drop(LogStore::join_in(&disk, identity(id)).unwrap());
        self.disks.insert(id, disk);
        self.start(id);
    }

    /// A new node that asks to be a member, and is one.
    pub(crate) fn join(&mut self, id: u64) {
        self.create(id);
        loop {
            let mut pending = self.change(|core, reply| core.add_learner(id, reply));
            match self.answer(&mut pending) {
                Ok(_) => return,
                Err(ProposeError::Refused(_)) => self.tick(),
                Err(error) => panic!("node {id} can't join: {error}"),
            }
        }
    }

    pub(crate) fn start(&mut self, id: u64) {
        self.try_start(id).unwrap_or_else(|error| panic!("node {id}: {error}"));
    }

    /// Starts a node that may end in its start.
    pub(crate) fn try_start(&mut self, id: u64) -> Result<(), FatalError> {
        let opened = LogStore::open_in(&self.disks[&id], None);
        let store = opened.unwrap_or_else(|error| panic!("node {id}: {error}")).expect("a log");
        let ledger =
            Ledger::new(Some(self.oracle.clone()), self.remembered, !self.older.contains(&id));
        let start = [self.rng.next().to_be_bytes(), self.rng.next().to_be_bytes()].concat();
        let disk = self.disks[&id].clone();
        let config = ConsensusConfig {
            start: start.try_into().unwrap(),
            // The time that passes while a node writes is its disk's.
            clock: Arc::new(move || disk.busy()),
            ..self.config.clone()
        };
        let mut core = Core::new(config, store, ledger)?;
        let mut outbox = Outbox(Vec::new());
        core.pump(&mut outbox)?;
        core.campaign_if_alone()?;
        core.pump(&mut outbox)?;
        self.nodes.insert(id, core);
        self.checked.remove(&id);
        self.check(id);
        self.post(id, outbox);
        Ok(())
    }

    /// Takes a node away at once; its log is closed without a word to anybody.
    pub(crate) fn stop(&mut self, id: u64) {
        self.nodes.remove(&id);
        self.paused.remove(&id);
        self.packets.retain(|packet| packet.to != id);
    }

    /// Takes a node away as SIGKILL does: its log is left as it was while open.
    pub(crate) fn kill(&mut self, id: u64) {
        let left = self.copy_folder(id);
        self.stop(id);
        self.put_back(id, left);
    }

    /// A node's disk as it is now, as a backup holds it.
    pub(crate) fn copy_folder(&self, id: u64) -> SimulatedFolder {
        self.disks[&id].after_kill()
    }

    /// Puts a copy in the place of the disk of a node that does not run.
    pub(crate) fn put_back(&mut self, id: u64, copy: SimulatedFolder) {
        self.disks.insert(id, copy);
    }

    /// What comes of opening the log of a node that does not run.
    pub(crate) fn open(&self, id: u64) -> Result<Option<LogStore>, OpenError> {
        LogStore::open_in(&self.disks[&id], None)
    }

    /// Takes a node away, or the machine of one that is away already, as a power cut does: of what it
    /// did not sync, anything may be lost.
    pub(crate) fn cut_power(&mut self, id: u64) {
        let left = self.disks[&id].after_power_cut(&mut self.rng);
        self.stop(id);
        self.put_back(id, left);
    }

    /// A node's disk.
    pub(crate) fn disk(&self, id: u64) -> &SimulatedFolder {
        &self.disks[&id]
    }

    /// Lets a node stand still, as SIGSTOP does.
    pub(crate) fn pause(&mut self, id: u64) {
        self.paused.insert(id);
    }

    /// Lets a node go on.
    pub(crate) fn resume(&mut self, id: u64) {
        self.paused.remove(&id);
    }

    /// The clock of a node ticks in so many of a hundred ticks.
    pub(crate) fn set_pace(&mut self, id: u64, percent: u64) {
        self.pace.insert(id, percent);
    }

    /// What `from` sends to `to` is under way for so many ticks.
    pub(crate) fn set_delay(&mut self, from: u64, to: u64, ticks: u64) {
        self.delay.insert((from, to), ticks);
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Core<Ledger> {
        self.nodes.get_mut(&id).expect("a running node")
    }

    pub(crate) fn ledger(&self, id: u64) -> &Ledger {
        self.nodes[&id].machine()
    }

    /// A copy of a node, as a restart would make it, that may be lied to.
    pub(crate) fn copy_of(&self, id: u64) -> Core<Ledger> {
        let disk = self.disks[&id].after_kill();
        let store = LogStore::open_in(&disk, None).unwrap().expect("a log");
        let ledger = Ledger::new(None, self.remembered, !self.older.contains(&id));
        let mut core = Core::new(self.config.clone(), store, ledger).unwrap();
        core.pump(&mut Outbox(Vec::new())).unwrap();
        core
    }

    pub(crate) fn status(&self, id: u64) -> Status {
        self.nodes[&id].status().borrow().clone()
    }

    /// The node that leads the highest term.
    pub(crate) fn leader(&self) -> Option<u64> {
        let statuses = self.nodes.keys().map(|id| self.status(*id));
        statuses.filter(|s| s.role == Role::Leader).max_by_key(|s| s.term).map(|s| s.id)
    }

    pub(crate) fn cut(&mut self, a: u64, b: u64) {
        self.cut.extend([(a, b), (b, a)]);
    }

    /// Nothing that `from` sends comes to `to`; the other way is open.
    pub(crate) fn cut_one_way(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    pub(crate) fn isolate(&mut self, id: u64) {
        for other in self.disks.keys().copied().collect::<Vec<_>>() {
            if other != id {
                self.cut(id, other);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.delay.clear();
        self.paused.clear();
        self.pace.clear();
        self.loss = 0;
    }

    /// Proposes the [word](commands::word) `command`.
    pub(crate) fn propose(&mut self, at: u64, command: &str) -> Pending<(u64, usize)> {
        self.propose_entry(at, commands::word(command))
    }

    pub(crate) fn propose_entry(&mut self, at: u64, entry: Vec<u8>) -> Pending<(u64, usize)> {
        let (tx, rx) = oneshot::channel();
        self.node(at).propose(entry, tx);
        rx
    }

    pub(crate) fn read(&mut self, at: u64) -> Pending<u64> {
        let (tx, rx) = oneshot::channel();
        self.node(at).read_index(tx);
        rx
    }

    /// Asks the leader for a membership change.
    pub(crate) fn change(
        &mut self,
        ask: impl FnOnce(&mut Core<Ledger>, oneshot::Sender<Result<u64, ProposeError>>),
    ) -> Pending<u64> {
        self.until("a leader", |cluster| cluster.leader().is_some());
        let (tx, rx) = oneshot::channel();
        let leader = self.leader().expect("a leader");
        ask(self.node(leader), tx);
        rx
    }

    /// The answer, which must come within a bounded time whatever the network does.
    pub(crate) fn answer<T>(&mut self, pending: &mut Pending<T>) -> Result<T, ProposeError> {
        for _ in 0..200 {
            self.settle();
            match pending.try_recv() {
                Ok(answer) => return answer,
                Err(TryRecvError::Empty) => self.tick(),
                Err(TryRecvError::Closed) => return Err(ProposeError::Stopped),
            }
        }
        panic!("no answer");
    }

    /// Commits the [word](commands::word) `command` through whoever leads, and says its index.
    pub(crate) fn commit(&mut self, command: &str) -> u64 {
        self.commit_entry(commands::word(command))
    }

    pub(crate) fn commit_entry(&mut self, entry: Vec<u8>) -> u64 {
        self.until("a leader", |cluster| cluster.leader().is_some());
        let leader = self.leader().expect("a leader");
        let mut pending = self.propose_entry(leader, entry);
        self.answer(&mut pending).unwrap_or_else(|error| panic!("{error}")).0
    }

    /// Lets time pass until `done`.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            self.settle();
            if done(self) {
                return;
            }
            self.tick();
        }
        let statuses: Vec<_> = self.nodes.keys().map(|id| self.status(*id)).collect();
        panic!("never: {what}; {statuses:#?}");
    }

    /// One tick everywhere, and everything that follows from it.
    pub(crate) fn tick(&mut self) {
        self.advance();
        self.settle();
    }

    /// One tick everywhere. All election timeouts are the same, so clocks that run in step would split
    /// every vote for ever: these don't.
    pub(crate) fn advance(&mut self) {
        self.now += 1;
        for id in self.running() {
            let pace = self.pace.get(&id).copied().unwrap_or(85);
            if !self.paused.contains(&id) && self.rng.percent(pace) {
                self.node(id).tick();
            }
        }
    }

    /// Pumps and delivers until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            for id in self.running() {
                self.pump(id);
            }
            if !self.deliver() {
                return;
            }
            while self.deliver() {}
        }
        panic!("the cluster never comes to rest");
    }

    pub(crate) fn pump(&mut self, id: u64) {
        if self.paused.contains(&id) {
            return;
        }
        let mut outbox = Outbox(Vec::new());
        let pumped = self.node(id).pump(&mut outbox);
        if pumped.is_ok() {
            self.check(id);
        }
        self.post(id, outbox);
        match (pumped, self.ends.get_mut(&id)) {
            (Ok(()), _) => {}
            (Err(error), Some(end)) => {
                *end = Some(error);
                self.stop(id);
            }
            (Err(error), None) => panic!("node {id} ended: {error}"),
        }
    }

    /// Pumps a node whose disk fails at one of its next operations. If it got so far the node is dead,
    /// and its machine may be, too.
    pub(crate) fn pump_on_a_failing_disk(&mut self, id: u64) {
        if self.paused.contains(&id) {
            return;
        }
        let (operation, fault) = (self.rng.below(20), Fault::any(&mut self.rng));
        self.disks[&id].fail_at(operation, fault);
        let mut outbox = Outbox(Vec::new());
        let died = self.node(id).pump(&mut outbox).is_err();
        assert_eq!(died, self.disks[&id].failed(), "a node goes on with a disk that failed it");
        // What left before the failure is on its way all the same.
        self.post(id, outbox);
        match died {
            true if self.rng.percent(50) => self.kill(id),
            true => self.cut_power(id),
            false => {
                self.disks[&id].mend();
                self.check(id);
            }
        }
    }

    /// Shows the oracle what a node has applied since the last time.
    fn check(&mut self, id: u64) {
        let store = self.nodes[&id].store();
        let applied = self.nodes[&id].status().borrow().applied;
        let from = self.checked.get(&id).map_or(0, |checked| checked + 1);
        let from = from.max(store.first_index().unwrap());
        if from <= applied {
            let context = GetEntriesContext::empty(false);
            for entry in store.entries(from, applied + 1, None, context).unwrap() {
                self.oracle.committed(id, &entry);
            }
            self.checked.insert(id, applied);
        }
        let mut next = self.nodes[&id].configuration().learners_next;
        next.sort_unstable();
        self.oracle.learners_next(id, applied, &next);
    }

    /// Sends a packet that is under way once more, or behind the others.
    pub(crate) fn shuffle(&mut self) {
        if self.packets.is_empty() {
            return;
        }
        let at = self.rng.below(self.packets.len() as u64) as usize;
        let again = self.packets[at].clone();
        if self.rng.percent(50) {
            self.packets.remove(at);
        }
        self.packets.push_back(again);
    }

    fn post(&mut self, from: u64, outbox: Outbox) {
        for (to, bytes, is_snapshot) in outbox.0 {
            *self.snapshots.entry(to).or_default() += usize::from(is_snapshot);
            let due = self.now + self.delay.get(&(from, to)).copied().unwrap_or_default();
            self.packets.push_back(Packet { from, to, bytes, is_snapshot, due });
        }
    }

    /// Delivers, or loses, one packet. False when there is none that is due.
    pub(crate) fn deliver(&mut self) -> bool {
        let arrives = |packet: &Packet| packet.due <= self.now && !self.paused.contains(&packet.to);
        let Some(next) = self.packets.iter().position(arrives) else { return false };
        let Some(Packet { from, to, mut bytes, is_snapshot, .. }) = self.packets.remove(next)
        else {
            return false;
        };
        if is_snapshot && self.newer_snapshots {
            bytes = commands::with_a_newer_snapshot(&bytes);
        }
        if is_snapshot && self.swallow > 0 {
            self.swallow -= 1;
            return true;
        }
        let lost = self.cut.contains(&(from, to)) || self.rng.percent(self.loss);
        let delivered = match self.nodes.get_mut(&to) {
            Some(node) if !lost => {
                node.step(&bytes).unwrap();
                true
            }
            _ => false,
        };
        if let Some(sender) = self.nodes.get_mut(&from) {
            if is_snapshot {
                sender.report_snapshot(to, delivered);
            } else if !delivered {
                sender.report_unreachable(to);
            }
        }
        true
    }

    /// All running nodes applied the same commands.
    pub(crate) fn assert_equal(&mut self) {
        self.until("everybody has applied everything", |cluster| {
            let applied: BTreeSet<_> =
                cluster.nodes.keys().map(|id| cluster.status(*id).applied).collect();
            applied.len() == 1
        });
        let ids = self.running();
        for pair in ids.windows(2) {
            let (a, b) = (self.ledger(pair[0]), self.ledger(pair[1]));
            assert_eq!(a.commands, b.commands, "nodes {pair:?}");
            assert_eq!(a.members, b.members, "nodes {pair:?}");
            assert_eq!(a.published, b.published, "nodes {pair:?}");
            a.state.read(|a| b.state.read(|b| assert_eq!(a, b, "nodes {pair:?}")));
        }
    }
}

pub(crate) fn identity(raft_id: u64) -> Identity {
    Identity { cluster: Uuid::from_u128(1), name: format!("node{raft_id}"), raft_id }
}
