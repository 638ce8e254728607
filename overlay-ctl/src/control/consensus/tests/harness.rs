//! A cluster without threads: nodes, a network that can be cut, and a clock that is a counter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tempfile::TempDir;
use tokio::sync::oneshot::{self, error::TryRecvError};
use uuid::Uuid;

use crate::control::consensus::{
    ConsensusConfig, Core, FatalError, Identity, LogStore, OpenError, ProposeError, RestoreError,
    Role, StateMachine, Status, Transport, Undeliverable,
};

/// A state machine that keeps every command with its index, so that two are equal only if they
/// applied the same commands in the same places.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Ledger {
    pub(crate) commands: Vec<(u64, Vec<u8>)>,
    #[serde(skip)]
    pub(crate) members: (Vec<u64>, Vec<u64>),
    #[serde(skip)]
    pub(crate) published: u64,
}

impl StateMachine for Ledger {
    type Outcome = usize;

    fn apply(&mut self, index: u64, command: &[u8]) -> usize {
        assert!(self.commands.last().is_none_or(|(last, _)| *last < index), "applied in order");
        self.commands.push((index, command.to_vec()));
        self.commands.len()
    }

    fn membership(&mut self, _index: u64, voters: &[u64], learners: &[u64]) {
        self.members = (voters.to_vec(), learners.to_vec());
    }

    fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        *self = serde_json::from_slice(snapshot)?;
        Ok(())
    }

    fn batch_applied(&mut self, index: u64) {
        assert!(index > self.published || index == 1, "published in order");
        self.published = index;
    }
}

#[derive(Clone)]
struct Packet {
    from: u64,
    to: u64,
    bytes: Vec<u8>,
    is_snapshot: bool,
}

struct Outbox(Vec<(u64, Vec<u8>, bool)>);

impl Transport for Outbox {
    fn send(&mut self, to: u64, bytes: Vec<u8>, is_snapshot: bool) -> Result<(), Undeliverable> {
        self.0.push((to, bytes, is_snapshot));
        Ok(())
    }
}

/// Splitmix64: a seed is all there is to a run.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A proposal's answer, when it comes.
pub(crate) type Pending<T> = oneshot::Receiver<Result<T, ProposeError>>;

pub(crate) struct Cluster {
    pub(crate) config: ConsensusConfig,
    pub(crate) rng: Rng,
    /// Lost on the way, in percent.
    pub(crate) loss: u64,
    /// This many snapshots get lost without anybody noticing.
    pub(crate) swallow: usize,
    /// Who may end by itself, and why it did.
    pub(crate) ends: BTreeMap<u64, Option<FatalError>>,
    dirs: BTreeMap<u64, TempDir>,
    nodes: BTreeMap<u64, Core<Ledger>>,
    packets: VecDeque<Packet>,
    cut: BTreeSet<(u64, u64)>,
}

impl Cluster {
    /// Node 1 alone.
    pub(crate) fn new(config: ConsensusConfig) -> Self {
        let mut cluster = Self {
            config,
            rng: Rng(0),
            loss: 0,
            swallow: 0,
            ends: BTreeMap::new(),
            dirs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            packets: VecDeque::new(),
            cut: BTreeSet::new(),
        };
        let dir = tempfile::tempdir().unwrap();
        let state = Ledger::default().snapshot();
        drop(LogStore::bootstrap(dir.path(), identity(1), &state).unwrap());
        cluster.dirs.insert(1, dir);
        cluster.start(1);
        cluster
    }

    /// Voters 1 to 3, grown from node 1 the way an operator does it.
    pub(crate) fn of_three(config: ConsensusConfig) -> Self {
        let mut cluster = Self::new(config);
        for id in [2, 3] {
            cluster.join(id);
        }
        cluster.until("three voters", |cluster| {
            (1..=3).all(|id| cluster.status(id).voters == [1, 2, 3])
        });
        cluster
    }

    /// A new node that nobody knows yet.
    pub(crate) fn create(&mut self, id: u64) {
        let dir = tempfile::tempdir().unwrap();
        drop(LogStore::join(dir.path(), identity(id)).unwrap());
        self.dirs.insert(id, dir);
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
        let store = LogStore::open(self.dirs[&id].path(), None).unwrap().expect("a log");
        let mut core = Core::new(self.config.clone(), store, Ledger::default()).unwrap();
        let mut outbox = Outbox(Vec::new());
        core.pump(&mut outbox).unwrap();
        core.campaign_if_alone().unwrap();
        core.pump(&mut outbox).unwrap();
        self.nodes.insert(id, core);
        self.post(id, outbox);
    }

    /// Takes a node away at once; its log is closed without a word to anybody.
    pub(crate) fn stop(&mut self, id: u64) {
        self.nodes.remove(&id);
        self.packets.retain(|packet| packet.to != id);
    }

    /// Takes a node away as SIGKILL does: its log is left as it was while open.
    pub(crate) fn kill(&mut self, id: u64) {
        let left = self.copy_folder(id);
        self.stop(id);
        self.put_back(id, left);
    }

    /// A node's folder as it is now, as a backup holds it.
    pub(crate) fn copy_folder(&self, id: u64) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.dirs[&id].path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        copy
    }

    /// Puts a copy in the place of the folder of a node that does not run.
    pub(crate) fn put_back(&mut self, id: u64, copy: TempDir) {
        self.dirs.insert(id, copy);
    }

    /// What comes of opening the log of a node that does not run.
    pub(crate) fn open(&self, id: u64) -> Result<Option<LogStore>, OpenError> {
        LogStore::open(self.dirs[&id].path(), None)
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

    pub(crate) fn isolate(&mut self, id: u64) {
        for other in self.dirs.keys().copied().collect::<Vec<_>>() {
            if other != id {
                self.cut(id, other);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
    }

    pub(crate) fn propose(&mut self, at: u64, command: &str) -> Pending<(u64, usize)> {
        let (tx, rx) = oneshot::channel();
        self.node(at).propose(command.as_bytes().to_vec(), tx);
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

    /// Commits a command through whoever leads, and says its index.
    pub(crate) fn commit(&mut self, command: &str) -> u64 {
        self.until("a leader", |cluster| cluster.leader().is_some());
        let leader = self.leader().expect("a leader");
        let mut pending = self.propose(leader, command);
        self.answer(&mut pending).unwrap_or_else(|error| panic!("{command}: {error}")).0
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

    /// One tick everywhere, and everything that follows from it. Where all election timeouts are
    /// the same, clocks that run in step would split every vote for ever: these don't.
    pub(crate) fn tick(&mut self) {
        let in_step = self.config.max_election_ticks == self.config.election_ticks + 1;
        for id in self.running() {
            if !in_step || self.rng.percent(85) {
                self.node(id).tick();
            }
        }
        self.settle();
    }

    /// Pumps and delivers until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            for id in self.running() {
                self.pump(id);
            }
            if self.packets.is_empty() {
                return;
            }
            while self.deliver() {}
        }
        panic!("the cluster never comes to rest");
    }

    pub(crate) fn pump(&mut self, id: u64) {
        let mut outbox = Outbox(Vec::new());
        let pumped = self.node(id).pump(&mut outbox);
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

    /// Pumps a node whose disk fails at its next transaction; if there was one, it is dead.
    pub(crate) fn pump_on_a_failing_disk(&mut self, id: u64) {
        let mut outbox = Outbox(Vec::new());
        self.node(id).break_disk(true);
        let died = self.node(id).pump(&mut outbox).is_err();
        self.node(id).break_disk(false);
        // What left before the transaction is on its way all the same.
        self.post(id, outbox);
        if died {
            self.stop(id);
        }
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
            self.packets.push_back(Packet { from, to, bytes, is_snapshot });
        }
    }

    /// Delivers, or loses, one packet. False when there is none.
    pub(crate) fn deliver(&mut self) -> bool {
        let Some(Packet { from, to, bytes, is_snapshot }) = self.packets.pop_front() else {
            return false;
        };
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
            assert_eq!(self.ledger(pair[0]), self.ledger(pair[1]), "nodes {pair:?}");
        }
    }
}

pub(crate) fn identity(raft_id: u64) -> Identity {
    Identity { cluster: Uuid::from_u128(1), name: format!("node{raft_id}"), raft_id }
}
