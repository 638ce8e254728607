//! The majority of the voters is lost for good: an operator recovers on a voter that has lived on, or restores a backup. What is
//! written then, and whether it may be, is the product's (`node/recover.rs`, `node/restore.rs`, `control/backup.rs`,
//! `state/generation.rs`); that an operator does it, and with which host, is a model.
//!
//! What was acknowledged may be lost then. So each generation has a truth of its own.

use super::{
    jobs::{Job, wipe},
    start::{Started, identity},
    world::{Ending, World, note},
};
use crate::{
    control::{
        backup,
        consensus::{Beginning, LogStore},
        state::State,
    },
    durable::simulated::SimulatedFolder,
    model::{Generation, RaftId, Version},
    node::{
        recover::{check_lost, replayed},
        restore::{check_dead, first_term},
    },
    proto::v1::{NodeRole, StatusResponse},
};
use std::net::SocketAddr;
use uuid::Uuid;

/// The id of every simulated cluster.
pub(super) const CLUSTER: Uuid = Uuid::from_u128(1);

/// What an operator goes on from.
pub(super) enum Source {
    /// The log of this host, which is one of the voters.
    Log(u64),
    /// A backup, which makes this host the first.
    Backup(u64, Vec<u8>),
}

impl Source {
    fn host(&self) -> u64 {
        match self {
            Self::Log(host) | Self::Backup(host, _) => *host,
        }
    }
}

/// A disaster that has happened.
pub(super) struct Disaster {
    source: Source,
    /// When the operator does something about it.
    at: u64,
    /// The hosts that come back with their disks, and are no majority of the former voters.
    back: Vec<u64>,
}

/// A backup, as an operator takes one from whoever leads.
pub(super) fn back_up(world: &World) -> Option<Vec<u8>> {
    let leader = &world.hosts[&world.leader()?];
    // A read would have been answered.
    if !leader.quorum.holds() {
        return None;
    }
    let state = leader.core.as_ref()?.machine().state.copy();
    if state.version() < Version::V2 {
        return None;
    }
    let mut bytes = Vec::new();
    backup::write(CLUSTER, &state, &mut bytes).expect("memory takes what is written");
    Some(bytes)
}

/// Takes the majority of the voters away, and says which job that makes.
pub(super) fn strike(world: &mut World, backup: Option<Vec<u8>>) -> Option<Job> {
    let voters = world.with_a_log();
    let survivor = world.rng.pick(&voters).filter(|_| voters.len() > 1)?;
    would_be_refused(world, survivor);
    let source = match backup {
        Some(backup) => {
            let state = backup::read(&*backup).expect("it was just made").state;
            let known = world.host(survivor).node.and_then(|node| state.node(node));
            // The backup does not know the others.
            known?;
            Source::Backup(survivor, backup)
        }
        None => Source::Log(survivor),
    };
    note!(world, "the voters are lost, all but that of host {survivor}");
    let most = (voters.len() - 1) / 2;
    let mut back = Vec::new();
    for number in voters.iter().copied() {
        let ending = if world.rng.percent(50) { Ending::Kill } else { Ending::PowerCut };
        world.end(number, ending);
        let keeps = number != survivor && back.len() < most && world.rng.percent(50);
        let is_survivor = number == survivor && matches!(source, Source::Log(_));
        if keeps {
            back.push(number);
        } else if !is_survivor {
            world.host(number).disk = SimulatedFolder::default();
        }
        world.host(number).faults.is_lost = true;
    }
    let at = world.now + 50 + world.rng.below(300);
    Some(Job::Disaster(Disaster { source, at, back }))
}

/// While the others live nothing is recovered, and nothing restored.
fn would_be_refused(world: &mut World, survivor: u64) {
    let answers = answers(world, survivor);
    let is_led = answers.iter().any(|(_, answer)| !answer.leader.is_empty());
    let host = world.host(survivor);
    let Some(core) = host.core.as_ref().filter(|_| is_led) else { return };
    let (name, ours) = (host.name().parse().unwrap(), host.generations.ours());
    let (rest, state) = (core.store().rest().unwrap(), core.machine().state.copy());
    let own = core.id();
    let lost = check_lost(&name, own, ours, &rest.committed, &state, &answers);
    assert!(lost.is_err(), "a cluster that lives is recovered");
    assert!(check_dead(ours, answers).is_err(), "a backup is restored over a cluster that lives");
    world.reach.hit("generation: recovery refused, as the cluster lives");
}

/// What the other hosts answer to whoever asks who they are.
fn answers(world: &World, asks: u64) -> Vec<(SocketAddr, StatusResponse)> {
    let others = world.hosts.values().filter(|host| host.number != asks && host.runs());
    let reached = others.filter(|host| world.reaches(asks, host.number));
    let answer = |host: &super::host::Host| {
        let leader = host.status().and_then(|status| status.leader);
        let leader = leader.and_then(|life| world.lives.get(&life)).map(|number| {
            world.hosts.get(number).map_or_else(String::new, super::host::Host::name)
        });
        let role = if host.is_up() { NodeRole::Voter } else { NodeRole::Agent };
        let status = StatusResponse {
            role: role.into(),
            node: host.name(),
            node_id: host.node.unwrap_or_default(),
            leader: leader.unwrap_or_default(),
            generation: host.generations.ours().number(),
            ..StatusResponse::default()
        };
        (host.listen, status)
    };
    reached.map(answer).collect()
}

impl Disaster {
    pub(super) fn host(&self) -> u64 {
        self.source.host()
    }

    /// Goes on with the ways back. Returns false once it is done.
    pub(super) fn goes_on(&mut self, world: &mut World) -> bool {
        if world.now < self.at {
            return true;
        }
        let number = self.host();
        if world.host(number).faults.is_lost {
            // An operator goes on from a disk that is sound.
            let disk = &world.host(number).disk;
            disk.mend();
            disk.set_room(None);
            disk.reserve(0);
            let Some((state, term)) = self.begins(world) else { return false };
            let generation = state.generation();
            note!(world, "host {number} begins generation {generation} at {}", state.revision());
            let (index, life) = (state.revision(), world.host(number).life.unwrap_or_default());
            let disk = world.host(number).disk.clone();
            let bytes = state.snapshot();
            let with = Beginning { generation: generation.number(), index, term, state: &bytes };
            let replaces = matches!(self.source, Source::Log(_));
            drop(LogStore::begin_in(&disk, identity(number, life), with, replaces).unwrap());
            world.begin_generation(generation, index, &state);
            let host = world.host(number);
            (host.faults.is_lost, host.faults.is_full, host.faults.is_rolled_back) =
                (false, false, false);
        }
        if world.start(number) != Started::Up {
            return true;
        }
        for number in world.with_a_log() {
            let is_back = self.back.contains(&number);
            let host = world.host(number);
            if std::mem::take(&mut host.faults.is_lost) && !is_back {
                wipe(world, number);
                world.over.insert(number);
            }
        }
        false
    }

    /// The state with which the generation begins, and the term.
    fn begins(&self, world: &mut World) -> Option<(State, u64)> {
        let number = self.host();
        let answers = answers(world, number);
        let host = world.host(number);
        let (node, ours) = (host.node?, host.generations.ours());
        let name = host.name().parse().unwrap();
        match &self.source {
            Source::Log(_) => {
                let log = LogStore::open_in(&host.disk, None).unwrap().expect("a voter's log");
                let rest = log.rest().unwrap();
                let state = replayed(&log, &rest).unwrap();
                let own = log.identity().raft_id;
                check_lost(&name, own, ours, &rest.committed, &state, &answers).unwrap();
                world.reach.hit("generation: recovered");
                Some((state.recovered(node, ours.next(0)), rest.term + 1))
            }
            Source::Backup(_, bytes) => {
                let backup = backup::read(&**bytes).unwrap();
                let greatest = check_dead(backup.head.generation, answers).unwrap();
                let state = backup.state.restored(node, greatest.next(0));
                let life = state.node(node).and_then(|row| row.life()).map(RaftId::get);
                world.reach.hit("generation: restored");
                let host = world.host(number);
                (host.life, host.last_life) = (life, life);
                world.lives.extend(life.map(|life| (life, number)));
                let term = first_term(state.generation());
                Some((state, term))
            }
        }
    }
}

impl World {
    /// From now on there is another truth: what the state has.
    fn begin_generation(&mut self, generation: Generation, index: u64, state: &State) {
        self.truth = self.truth.successor(index, state);
        self.truths.insert(generation, self.truth.clone());
    }

    /// Whether a message reaches a host of the same generation. If not, the older one of the two hears of the newer.
    pub(super) fn is_of_one_generation(&mut self, from: u64, to: u64) -> bool {
        let generation = |number: &u64| self.hosts.get(number).map(|host| host.generations.clone());
        let (Some(theirs), Some(ours)) = (generation(&from), generation(&to)) else { return false };
        let ordering = ours.compare(theirs.ours(), None);
        if ordering.is_lt() {
            theirs.compare(ours.ours(), None);
        }
        if ordering.is_ne() {
            self.reach.hit("generation: message of another one refused");
        }
        ordering.is_eq()
    }

    /// A voter that has met a newer generation ends, to come back as another member. An agent goes on into it when it has
    /// registered there.
    pub(super) fn end_if_older(&mut self, number: u64) {
        let Some(host) = self.hosts.get(&number) else { return };
        let is_older = host.is_up() && host.generations.met_newer();
        if is_older {
            note!(self, "host {number} is of an older generation, and ends");
            self.reach.hit("generation: a voter of an older one ended");
            self.host(number).end();
            self.host(number).faults.is_lost = true;
            self.over.insert(number);
        }
    }
}
