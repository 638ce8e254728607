//! A host: a disk that outlives what runs on it, a clock, and the voter that runs, if one does.

use super::{
    disaster::CLUSTER,
    duties::Duties,
    kernel::Kernel,
    ledger::Ledger,
    places::{Moving, Way, first_place},
    trace::digest,
    truth::Truth,
};
use crate::{
    control::{
        consensus::{Core, ProposeError, Role, Status},
        peers::{Directory, Generations},
        state::{Command, Mutation, Noted, Outcome, State},
        voter::{Quorum, StatusTable, members::Change},
        watch::OwnView,
    },
    durable::simulated::SimulatedFolder,
    model::{NetworkId, NodeId, Revision, Version},
    node::probing::Results,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};
use tokio::{sync::oneshot, time::Instant};

/// Hosts after this one are agents at first.
pub(super) const AGENTS: u64 = 100;
/// How many steps a tick has by a clock that is right.
pub(super) const TICK: u64 = 10;

/// Where the answer to a request comes to.
pub(super) type Pending<T> = oneshot::Receiver<Result<T, ProposeError>>;
/// Where it comes from.
pub(super) type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

/// What waits for a voter's driver.
pub(super) enum Item {
    Message(Vec<u8>),
    Unreachable(u64),
    Snapshot(u64, bool),
    Propose(Mutation, Command, Reply<(u64, Outcome)>),
    Read(Reply<u64>),
    Add(u64, Reply<u64>),
    Remove(u64, Reply<u64>),
    Replace(u64, Reply<u64>),
    HandOver(u64, Reply<()>),
}

/// What is wrong with a host's disk, by a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskFaults {
    /// It was given a bound.
    pub(super) is_full: bool,
    /// It holds an older log than its mark says.
    pub(super) is_rolled_back: bool,
    /// Its host is not started, until an operator has seen to it.
    pub(super) is_lost: bool,
}

/// The leader's duty to make the members those of the rows.
pub(super) struct Duty {
    pub(super) change: Change,
    pub(super) answer: Pending<u64>,
    pub(super) until: u64,
}

pub(super) struct Host {
    pub(super) number: u64,
    pub(super) disk: SimulatedFolder,
    pub(super) faults: DiskFaults,
    /// The Raft id of the log on its disk, once it has asked for one; `None` = it is no member.
    pub(super) life: Option<u64>,
    /// The id and the epoch of its node, once it is registered.
    pub(super) node: Option<NodeId>,
    pub(super) epoch: Revision,
    /// Where it listens, what it knows of the places of others, and its ways to them.
    pub(super) listen: SocketAddr,
    pub(super) directory: Directory,
    pub(super) ways: BTreeMap<NodeId, Way>,
    /// It asks the leader to have its row changed.
    pub(super) moving: Option<Moving>,
    /// It runs with a folder of which a copy runs elsewhere, as this node.
    pub(super) copied: Option<NodeId>,
    /// How often it was removed. Each time it registers as another instance.
    pub(super) lives: u64,
    /// The last Raft id under which it began a log.
    pub(super) last_life: Option<u64>,
    /// Its process does not run. (That of a voter runs if it has a core.)
    pub(super) is_down: bool,
    /// When it registers again next, and the leader that it asked.
    pub(super) next_renewal: u64,
    pub(super) renewal: Option<(u64, Pending<u64>)>,
    /// What its probes have shown, and when it sends the next ones.
    pub(super) probed: Results,
    pub(super) next_probe: u64,
    /// Its generation: that of its log, if it has one.
    pub(super) generations: Generations,
    /// It outlives the voter's process.
    pub(super) kernel: Kernel,
    /// What nodes reported to it.
    pub(super) table: StatusTable,
    pub(super) quorum: Quorum,
    /// The proof of its quorum that it waits for, and when it asks for the next one.
    pub(super) proof: Option<(Instant, Pending<u64>)>,
    pub(super) next_proof: u64,
    pub(super) next_report: u64,
    /// What it makes of its own state for its kernel.
    pub(super) own: Option<OwnView>,
    /// Up to which revision it has made that.
    pub(super) owned: u64,
    pub(super) core: Option<Core<Ledger>>,
    /// How many steps one of its ticks has.
    pub(super) period: u64,
    pub(super) next_tick: u64,
    pub(super) ticks: u64,
    /// Its driver waits for the disk until then.
    pub(super) busy_until: u64,
    /// It stands still until then, as after SIGSTOP.
    pub(super) paused_until: u64,
    pub(super) inbox: VecDeque<Item>,
    /// A snapshot is among what waits.
    pub(super) has_snapshot: bool,
    /// It was told to end.
    pub(super) is_stopping: bool,
    /// The members that it is removing, as the leader.
    pub(super) leaving: BTreeSet<u64>,
    pub(super) duty: Option<Duty>,
    /// Its other duties, and the tick at which it looked last.
    pub(super) duties: Duties,
    pub(super) looked: u64,
    /// What it was when it was looked at last.
    pub(super) seen: Seen,
}

/// What is compared between two turns.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) role: Role,
    pub(super) term: u64,
    pub(super) members: [Vec<u64>; 3],
    pub(super) range: (u64, u64),
    /// The term of the last entry.
    pub(super) last_term: u64,
    pub(super) restored: u64,
    pub(super) alarms: BTreeSet<&'static str>,
}

impl Host {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            disk: SimulatedFolder::default(),
            faults: DiskFaults::default(),
            life: None,
            node: None,
            epoch: 0,
            listen: first_place(number),
            directory: Directory::new(CLUSTER, []),
            ways: BTreeMap::new(),
            moving: None,
            copied: None,
            lives: 0,
            last_life: None,
            is_down: false,
            next_renewal: 0,
            renewal: None,
            probed: Results::new(),
            generations: Generations::default(),
            next_probe: 0,
            kernel: Kernel::default(),
            table: StatusTable::default(),
            quorum: Quorum::default(),
            proof: None,
            next_proof: 0,
            next_report: 0,
            own: None,
            owned: 0,
            core: None,
            period: TICK,
            next_tick: 0,
            ticks: 0,
            busy_until: 0,
            paused_until: 0,
            inbox: VecDeque::new(),
            has_snapshot: false,
            is_stopping: false,
            leaving: BTreeSet::new(),
            duty: None,
            duties: Duties::default(),
            looked: 0,
            seen: Seen::default(),
        }
    }

    /// Its name in the cluster.
    pub(super) fn name(&self) -> String {
        match self.number.checked_sub(AGENTS) {
            Some(agent) => format!("a{agent}"),
            None => format!("h{}", self.number),
        }
    }

    /// By what a registration of its present life is known.
    pub(super) fn instance(&self) -> [u8; 16] {
        let mut instance = [0; 16];
        instance[..8].copy_from_slice(&self.number.to_be_bytes());
        instance[8..].copy_from_slice(&self.lives.to_be_bytes());
        instance
    }

    pub(super) fn is_up(&self) -> bool {
        self.core.is_some()
    }

    /// Whether the node's process runs, as a voter or as an agent.
    pub(super) fn runs(&self) -> bool {
        self.is_up() || (self.life.is_none() && self.node.is_some() && !self.is_down)
    }

    pub(super) fn status(&self) -> Option<Status> {
        self.core.as_ref().map(|core| core.seen().clone())
    }

    pub(super) fn leads(&self) -> bool {
        self.core.as_ref().is_some_and(|core| core.seen().role == Role::Leader)
    }

    /// Its own process is gone, with all that waited for it.
    pub(super) fn end(&mut self) {
        self.core = None;
        self.inbox.clear();
        self.has_snapshot = false;
        self.is_stopping = false;
        self.leaving.clear();
        self.duty = None;
        self.duties = Duties::default();
        self.looked = 0;
        (self.renewal, self.moving) = (None, None);
        self.probed.clear();
        self.forget_places();
        self.table = StatusTable::default();
        self.quorum = Quorum::default();
        self.proof = None;
        (self.own, self.owned) = (None, 0);
        self.kernel.gate = None;
        self.busy_until = 0;
        self.paused_until = 0;
    }

    /// Puts a request into the driver's queue. Without a driver it is answered that nobody is there.
    pub(super) fn ask(&mut self, item: Item) {
        if self.is_up() {
            self.inbox.push_back(item);
        }
    }

    /// Whether its driver can take a turn.
    pub(super) fn is_ready(&self, now: u64) -> bool {
        self.is_up() && now >= self.busy_until && now >= self.paused_until
    }

    /// Gives the core what waits, and time, if it is due. Returns false if there was nothing.
    pub(super) fn feed(&mut self, now: u64, seed: u64, truth: &Truth) -> Result<bool, String> {
        let Some(core) = &mut self.core else { return Ok(false) };
        let mut is_fed = !self.inbox.is_empty();
        while let Some(item) = self.inbox.pop_front() {
            match item {
                Item::Message(bytes) => core.step(&bytes).map_err(|error| {
                    format!("a message {:x} was refused: {error}", digest(&bytes))
                })?,
                Item::Unreachable(peer) => core.report_unreachable(peer),
                Item::Snapshot(peer, delivered) => core.report_snapshot(peer, delivered),
                Item::Propose(request, command, reply) => {
                    match logged(core, &self.table, truth, request, command) {
                        Ok(entry) => core.propose(entry, reply),
                        // The caller may have gone.
                        Err(error) => drop(reply.send(Err(error))),
                    }
                }
                Item::Read(reply) => core.read_index(reply),
                Item::Add(id, reply) => core.add_learner(id, reply),
                Item::Remove(id, reply) => core.remove(id, reply),
                Item::Replace(id, reply) => core.replace(id, reply),
                // The caller may have gone.
                Item::HandOver(next, reply) => drop(reply.send(core.hand_over_to(next))),
            }
        }
        // After a long stall there is one tick, as in the driver.
        if now >= self.next_tick {
            core.draw_timeout(seed);
            core.tick();
            self.ticks += 1;
            self.next_tick = now + self.period;
            is_fed = true;
        }
        Ok(is_fed)
    }
}

/// The entry of a command, as a leader logs it now.
fn logged(
    core: &Core<Ledger>,
    table: &StatusTable,
    truth: &Truth,
    request: Mutation,
    mut command: Command,
) -> Result<Vec<u8>, ProposeError> {
    let (role, leader) = {
        let status = core.seen();
        (status.role, status.leader)
    };
    if role != Role::Leader {
        return Err(ProposeError::NotLeader { leader });
    }
    let state = core.machine().state.copy();
    // Voters that are still of version 1 would drop it, and so hold another row.
    if let Command::RegisterNode { speaks, .. } = &mut command {
        *speaks = speaks.filter(|_| state.version() >= Version::V2);
    }
    let mut noted = Noted::default();
    if let Some(network) = network_of(&state, &command) {
        let nodes = state.to_forget(network);
        let confirmed = table.confirmed(&nodes).min(state.revision());
        let counts = |node: &NodeId| !table.is_down(*node) && !table.holds_nothing_back(*node);
        let live = nodes.into_iter().filter(counts);
        truth.is_confirmed(live, confirmed);
        noted.confirmed = Some(confirmed);
    }
    let entry = state.entry_noting(request, command, noted).encode().unwrap();
    truth.proposed(request.id, &entry);
    Ok(entry)
}

/// The network of the endpoint that is to come or to go.
fn network_of(state: &State, command: &Command) -> Option<NetworkId> {
    match command {
        Command::CreateEndpoint { network, .. } => Some(state.network_named(network).ok()?.id),
        Command::RemoveEndpoint { name, network, .. } => {
            Some(state.endpoint_named(name, network.as_ref()).ok()?.network)
        }
        _ => None,
    }
}
