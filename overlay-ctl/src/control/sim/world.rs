//! The cluster on virtual time: hosts, the network between them, and the loop of steps in one thread. Nothing here reads a
//! clock or draws a number that the seed does not make, so that a seed is a run.

use super::{
    duties::Terms,
    host::{Host, Item, Pending, TICK},
    ledger::{Ledger, read_as_old},
    net::{Net, Packet},
    node::STEP,
    reach::Reach,
    trace::{Trace, digest},
    truth::Truth,
};
use crate::{
    control::consensus::{ConsensusConfig, FatalError, Transport, Undeliverable},
    model::{Generation, NodeId},
    seeded::Rng,
};
use futures::FutureExt as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

/// Whoever acts in a run beside the voters: clients, an operator, the faults. In each step each acts once, in a fixed order.
pub(super) trait Actor {
    /// Acts at the present step.
    fn step(&mut self, world: &mut World);

    /// Begins nothing new from now on: the run comes to its end.
    fn finish(&mut self);

    /// Whether nothing that it began is under way.
    fn is_at_rest(&self, world: &World) -> bool;
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) now: u64,
    /// How many voters there are to be at first.
    pub(super) voters: usize,
    pub(super) terms: Terms,
    pub(super) config: ConsensusConfig,
    pub(super) net: Net,
    /// By number.
    pub(super) hosts: BTreeMap<u64, Host>,
    /// The host of each Raft id that is or was in use.
    pub(super) lives: BTreeMap<u64, u64>,
    /// That of the newest generation, and those of all.
    pub(super) truth: Truth,
    pub(super) truths: BTreeMap<Generation, Truth>,
    pub(super) trace: Trace,
    pub(super) reach: Reach,
    /// How many agents there are, and how many of them are still to be registered.
    pub(super) agents: u64,
    pub(super) agents_to_come: u64,
    /// How many changes a state remembers.
    pub(super) remembered: usize,
    /// The host of each node.
    pub(super) machines: BTreeMap<NodeId, u64>,
    /// The hosts whose program speaks version 1 alone.
    pub(super) old: BTreeSet<u64>,
    /// The hosts without power, and from when on they have it again; that of a voter comes with its start.
    pub(super) off: BTreeMap<u64, u64>,
    /// When the data path of each host began to run, if it did not at the start.
    pub(super) on_since: BTreeMap<u64, u64>,
    /// The host at each address, and how many were given out beside the first ones.
    pub(super) addresses: BTreeMap<SocketAddr, u64>,
    pub(super) moves: u16,
    /// The host that the operator is about.
    pub(super) in_hand: Option<u64>,
    /// Hosts whose log is that of a life that is over.
    pub(super) over: BTreeSet<u64>,
    /// All faults are over.
    pub(super) is_healed: bool,
    /// The answer of a leader that was asked to hand over.
    pub(super) handed_over: Option<Pending<()>>,
    /// So many of the next snapshots are lost without anybody noticing.
    pub(super) swallow: u64,
}

/// What a core sends in a turn.
#[derive(Default)]
struct Outbox(Vec<(u64, Vec<u8>, bool)>);

impl Transport for Outbox {
    fn send(&mut self, to: u64, bytes: Vec<u8>, is_snapshot: bool) -> Result<(), Undeliverable> {
        self.0.push((to, bytes, is_snapshot));
        Ok(())
    }
}

/// Notes an event: `note!(world, "host {} is killed", 3)`.
macro_rules! note {
    ($world:expr, $($event:tt)*) => {
        $world.trace.note($world.now, format_args!($($event)*))
    };
}
pub(super) use note;

impl World {
    /// One step: everybody acts, what is due arrives, and each driver that has something to do takes a turn.
    pub(super) fn step(&mut self, actors: &mut [Box<dyn Actor>]) {
        self.now += 1;
        // The clock is moved when the future is polled first; nobody waits for it.
        let _ = tokio::time::advance(Duration::from_millis(STEP)).now_or_never();
        for actor in actors {
            actor.step(self);
        }
        if let Some(Ok(answer)) = self.handed_over.as_mut().map(|answer| answer.try_recv()) {
            self.handed_over = None;
            if let Err(error) = answer {
                self.hit_error(&error);
            }
        }
        while let Some((packet, is_overtaken)) = self.net.arrive(self.now) {
            if is_overtaken {
                self.reach.hit("network: message overtaken");
            }
            self.deliver(packet);
        }
        for number in self.numbers() {
            self.turn(number);
            self.renew(number);
            self.end_if_older(number);
            self.end_if_copied(number);
        }
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.hosts.keys().copied().collect()
    }

    /// The hosts that have a log, or are to have one.
    pub(super) fn with_a_log(&self) -> Vec<u64> {
        self.hosts.values().filter(|host| host.life.is_some()).map(|host| host.number).collect()
    }

    pub(super) fn host(&mut self, number: u64) -> &mut Host {
        self.hosts.get_mut(&number).expect("a host of this run")
    }

    /// The hosts whose voters run.
    pub(super) fn up(&self) -> Vec<u64> {
        self.hosts.values().filter(|host| host.is_up()).map(|host| host.number).collect()
    }

    /// The host that leads the highest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leaders = self.hosts.values().filter(|host| host.leads());
        let term = |host: &&Host| host.core.as_ref().map(|core| core.seen().term);
        leaders.max_by_key(term).map(|host| host.number)
    }

    fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, life, bytes, is_snapshot, is_double, reports } = packet;
        let is_there = self.hosts.get(&to).is_some_and(|it| it.is_up() && it.life == Some(life));
        let is_delivered =
            is_there && !self.net.is_cut(from, to) && self.is_of_one_generation(from, to);
        if !reports.is_empty() {
            if is_delivered {
                self.take_reports(to, reports);
            }
            return;
        }
        note!(self, "{from} -> {to}: {:x} {is_snapshot} {is_delivered}", digest(&bytes));
        if is_delivered {
            self.tell(from, to);
            let host = self.host(to);
            host.inbox.push_back(Item::Message(bytes));
            host.has_snapshot |= is_snapshot;
        } else {
            self.reach.hit("network: message to nobody");
        }
        if !is_double {
            self.report(from, life, is_snapshot, is_delivered);
        }
    }

    /// Tells a sender what became of its message, as its connection does.
    fn report(&mut self, from: u64, life: u64, is_snapshot: bool, is_delivered: bool) {
        if is_snapshot {
            let row =
                if is_delivered { "raft: snapshot arrived" } else { "network: snapshot lost" };
            self.reach.hit(row);
            self.host(from).ask(Item::Snapshot(life, is_delivered));
        } else if !is_delivered {
            self.host(from).ask(Item::Unreachable(life));
        }
    }

    fn post(&mut self, from: u64, outbox: Outbox) {
        for (life, bytes, is_snapshot) in outbox.0 {
            if is_snapshot {
                self.reach.hit("raft: snapshot sent");
                if self.swallow > 0 {
                    self.swallow -= 1;
                    self.reach.hit("network: snapshot lost unnoticed");
                    continue;
                }
            }
            let Some(to) = self.way_to(from, life) else {
                self.report(from, life, is_snapshot, false);
                continue;
            };
            let packet = Packet { from, to, life, bytes, is_snapshot, ..Packet::default() };
            let fate = self.net.send(packet, self.now, &mut self.rng);
            for (is_so, row) in [
                (fate.is_lost, "network: message lost"),
                (fate.is_late, "network: message late"),
                (fate.is_doubled, "network: message doubled"),
                (fate.is_doubled && is_snapshot, "network: snapshot doubled"),
            ] {
                if is_so {
                    self.reach.hit(row);
                }
            }
            if fate.is_lost {
                self.report(from, life, is_snapshot, false);
            }
        }
    }

    /// A turn of a host's driver: it takes what waits, and does what follows. While its disk works it takes no other one.
    fn turn(&mut self, number: u64) {
        let (now, seed) = (self.now, self.seed);
        if !self.hosts.get(&number).is_some_and(|host| host.is_ready(now)) {
            return;
        }
        let (truth, is_old) = (self.truth_of(number), self.old.contains(&number));
        let host = self.host(number);
        let had_snapshot = std::mem::take(&mut host.has_snapshot);
        read_as_old(is_old);
        let fed = host.feed(now, seed, &truth).unwrap_or_else(|why| panic!("host {number}: {why}"));
        if !fed && !host.is_stopping {
            return;
        }
        let began = host.disk.busy();
        let mut outbox = Outbox::default();
        let core = host.core.as_mut().expect("a driver that is ready");
        let mut pumped = core.pump(&mut outbox);
        let mut may_stop = false;
        if pumped.is_ok() && host.is_stopping {
            may_stop = core.may_stop();
            if !may_stop {
                pumped = core.pump(&mut outbox);
            }
        }
        let took = host.disk.busy() - began;
        host.busy_until = now + u64::try_from(took.as_millis()).unwrap() * TICK / 100;
        self.check(number);
        self.post(number, outbox);
        match pumped {
            Ok(()) if may_stop => {
                note!(self, "host {number} has stopped");
                self.reach.hit("fault: stopped in order");
                self.end(number, Ending::Kill);
            }
            Ok(()) => {
                if self.host(number).disk.failed() {
                    panic!("host {number} goes on with a disk that failed it");
                }
                self.do_duty(number);
                self.do_the_rest(number);
            }
            Err(error) if is_newer(&error) => {
                assert!(is_old, "host {number} ended: {}", crate::error_chain(&error));
                note!(self, "host {number} ends, as its program is too old: {error}");
                self.reach.hit("version: an old program stops before what it can't read");
                self.end(number, Ending::Kill);
            }
            Err(error) => {
                let host = self.host(number);
                let is_expected = host.disk.failed() || host.faults.is_full;
                assert!(is_expected, "host {number} ended: {}", crate::error_chain(&error));
                if host.disk.failed() {
                    self.reach.hit("fault: disk failed in a turn");
                } else {
                    self.reach.hit("fault: disk full to the last byte");
                }
                if had_snapshot {
                    self.reach.hit("raft: snapshot interrupted by a crash");
                }
                let ending = if self.rng.percent(50) { Ending::Kill } else { Ending::PowerCut };
                note!(self, "host {number} ends, since its disk failed: {ending:?}");
                self.end(number, ending);
            }
        }
    }
}

/// Whether the node ends since it can't read what later programs wrote.
pub(super) fn is_newer(error: &FatalError) -> bool {
    matches!(error, FatalError::Unreadable { .. } | FatalError::Newer { .. })
}

/// How a voter ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All that its process wrote is there.
    Kill,
    /// What it did not sync may be lost or torn.
    PowerCut,
}

impl World {
    /// Ends a host's voter, or the machine of one that does not run.
    pub(super) fn end(&mut self, number: u64, ending: Ending) {
        let Self { rng, hosts, reach, .. } = self;
        let host = hosts.get_mut(&number).expect("a host of this run");
        if host.disk.sync_failed() {
            reach.hit("fault: fsync failed");
        }
        let left = match ending {
            Ending::Kill => host.disk.after_kill(),
            Ending::PowerCut => host.disk.after_power_cut(rng),
        };
        if left.is_torn() {
            reach.hit("fault: write torn");
        }
        host.end();
        host.disk = left;
        host.is_down = true;
        if ending == Ending::PowerCut {
            host.kernel.clear();
            self.off.insert(number, u64::MAX);
        }
    }

    /// The process of a host starts, on a machine that has power.
    pub(super) fn power_on(&mut self, number: u64) {
        self.host(number).is_down = false;
        if self.off.remove(&number).is_some() {
            self.on_since.insert(number, self.now);
        }
    }

    /// The settings of a core that starts on a host.
    pub(super) fn settings(&mut self, number: u64) -> ConsensusConfig {
        let start = [self.rng.next().to_be_bytes(), self.rng.next().to_be_bytes()].concat();
        let disk = self.hosts[&number].disk.clone();
        ConsensusConfig {
            start: start.try_into().expect("16 bytes"),
            clock: std::sync::Arc::new(move || disk.busy()),
            ..self.config.clone()
        }
    }

    /// A new state machine.
    pub(super) fn ledger(&self, number: u64) -> Ledger {
        Ledger::new(self.truth_of(number), self.remembered)
    }

    /// The truth of a host's generation.
    pub(super) fn truth_of(&self, number: u64) -> Truth {
        let generation = self.hosts[&number].generations.ours();
        self.truths.get(&generation).unwrap_or(&self.truth).clone()
    }

    /// Pumps a core that has just started, and sends what it says.
    pub(super) fn first_turn(&mut self, number: u64) -> Result<(), FatalError> {
        let mut outbox = Outbox::default();
        let core = self.host(number).core.as_mut().expect("it has just started");
        let pumped = core
            .pump(&mut outbox)
            .and_then(|()| core.campaign_if_alone())
            .and_then(|()| core.pump(&mut outbox));
        self.check(number);
        self.post(number, outbox);
        pumped
    }
}
