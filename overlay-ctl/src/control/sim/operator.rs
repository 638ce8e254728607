//! Whoever runs the cluster: forms it, replaces its hosts one by one, says which of them are to vote and how many, and installs
//! its programs. A host that lost its disk, or got an older log back, comes as a new node when the old one is removed.

use super::{
    clones,
    disaster::{self, back_up},
    host::DiskFaults,
    jobs::{Job, Why, leaders_state, register, remove_first, remove_later, wipe},
    request::Request,
    world::{Actor, Ending, World, note},
};
use crate::{
    control::{consensus::LogStore, state::Command},
    durable::simulated::SimulatedFolder,
    model::{NodeId, Version, Voters},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The operator, with one host at a time.
pub(super) struct Operator {
    /// Hosts that are still to be registered for the first time.
    new: VecDeque<u64>,
    /// The host that is looked after, and why it is replaced.
    job: Option<(u64, Why, Job)>,
    next: u64,
    /// Whether hosts are replaced.
    does_replace: bool,
    /// Whether it says who is to vote.
    arranges: bool,
    /// Whether it installs other programs.
    upgrades: bool,
    /// How often most voters are lost.
    disasters: u64,
    backup: Option<Vec<u8>>,
    /// Disks as they were, with the life that was on them.
    copies: BTreeMap<u64, (u64, SimulatedFolder)>,
}

impl Operator {
    pub(super) fn new(world: &mut World) -> Self {
        let voters = u64::try_from(world.voters).unwrap();
        let (does_replace, arranges) = (world.rng.percent(60), world.rng.percent(50));
        Self {
            new: (1..=voters).collect(),
            job: None,
            next: 0,
            does_replace,
            arranges,
            upgrades: world.rng.percent(80),
            disasters: world.rng.pick(&[0, 1, 2]).unwrap(),
            backup: None,
            copies: BTreeMap::new(),
        }
    }

    fn begin(&mut self, world: &mut World) {
        if let Some(host) = self.new.pop_front() {
            let request = register(world, host);
            self.job = Some((host, Why::Wish, Job::Register(request)));
            return;
        }
        if let Some(host) = world.over.first().copied() {
            self.bring_back(world, host);
            return;
        }
        if self.upgrades && world.rng.percent(30) {
            self.next = world.now + 20 + world.rng.below(80);
            if upgrade(world) {
                return;
            }
        }
        // An early backup does not know the agents that come after it.
        if self.disasters > 0 && self.backup.is_none() && world.rng.percent(20) {
            self.backup = back_up(world);
        }
        // A place that is free for a moment is an agent's that registers just then.
        if world.agents_to_come > 0 {
            return;
        }
        self.next = world.now + 50 + world.rng.below(500);
        let hosts = world.with_a_log();
        let Some(host) = world.rng.pick(&hosts) else { return };
        if self.disasters > 0 && world.rng.percent(25) {
            self.meet_a_disaster(world);
        } else if self.arranges && world.rng.percent(40) {
            self.arrange(world, host);
        } else if self.does_replace {
            self.replace(world, host);
        }
    }

    /// A host whose life in consensus is over comes back: as another member, as an agent, or as another node, if the cluster does
    /// not know its own any more.
    fn bring_back(&mut self, world: &mut World, host: u64) {
        let Some(state) = leaders_state(world) else { return };
        world.over.remove(&host);
        // It was given a seat meanwhile, and took it.
        if world.host(host).is_up() {
            return;
        }
        note!(world, "host {host} is to come back");
        wipe(world, host);
        let row = world.host(host).node.and_then(|node| state.node(node));
        let Some(row) = row else {
            world.host(host).kernel.clear();
            let back = world.host(host);
            // A node whose registration was never answered has none, and is to register as the one that it was.
            if back.node.take().is_some() {
                back.lives += 1;
            }
            self.job = Some((host, Why::Wish, Job::Register(register(world, host))));
            return;
        };
        if let Some(life) = row.life() {
            self.job = Some((host, Why::Forgot, remove_first(life.get())));
        }
    }

    /// Says who is to vote, or how many.
    fn arrange(&mut self, world: &mut World, host: u64) {
        let Some(state) = leaders_state(world).filter(|state| state.version() >= Version::V2)
        else {
            return;
        };
        match world.rng.below(5) {
            0..2 if is_whole(world) => {
                let Some(life) = world.host(host).life else { return };
                note!(world, "host {host} is to be demoted");
                self.job = Some((host, Why::Demoted, remove_first(life)));
            }
            2..4 => {
                let agents: Vec<NodeId> =
                    state.nodes().filter(|node| !node.voter).map(|node| node.id).collect();
                let Some(row) = world.rng.pick(&agents).and_then(|id| state.node(id)) else {
                    return;
                };
                let (name, only) = (row.name.clone(), Some(row.id));
                let promote = Command::Promote { name, only, instead_of: None };
                self.job = Some((0, Why::Wish, Job::Promote(Request::new(world, promote))));
            }
            4.. if is_whole(world) => {
                let voters = world.rng.pick(&[Voters::Three, Voters::Five]).unwrap();
                let set = Command::SetVoters { voters };
                self.job = Some((0, Why::Wish, Job::SetVoters(Request::new(world, set))));
            }
            _ => {}
        }
    }

    /// Takes a backup, or needs one.
    fn meet_a_disaster(&mut self, world: &mut World) {
        let is_at_v2 = leaders_state(world).is_some_and(|state| state.version() >= Version::V2);
        if !is_at_v2 || !is_whole(world) {
            return;
        }
        if self.backup.is_none() && world.rng.percent(50) {
            self.backup = back_up(world);
            return;
        }
        let backup = if world.rng.percent(70) { self.backup.take() } else { None };
        if let Some(job) = disaster::strike(world, backup) {
            let Job::Disaster(it) = &job else { return };
            self.disasters -= 1;
            self.job = Some((it.host(), Why::Wish, job));
        }
    }

    /// A host is replaced, or loses what it has.
    fn replace(&mut self, world: &mut World, host: u64) {
        if !is_whole(world) {
            return;
        }
        let Some(life) = world.host(host).life else { return };
        if self.copies.get(&host).is_none_or(|(of, _)| *of != life) {
            let disk = world.host(host).disk.after_kill();
            self.copies.insert(host, (life, disk));
            self.next = world.now + 20 + world.rng.below(100);
            return;
        }
        match world.rng.below(9) {
            0..3 => {
                note!(world, "host {host} is to be replaced");
                if world.host(host).leads() {
                    world.reach.hit("members: leader removed");
                }
                self.job = Some((host, Why::Wish, remove_first(life)));
            }
            3 => {
                if clones::start_a_copy(world, host) {
                    self.job = Some((host, Why::Cloned, remove_first(life)));
                }
            }
            4..6 => {
                note!(world, "host {host} is wiped");
                world.reach.hit("fault: wiped");
                wipe(world, host);
                self.job = Some((host, Why::Wiped, remove_later(world, life)));
            }
            _ => {
                // A power cut may take the mark with it, by which the log is known to be older. A leader then says so to a node
                // that starts (`node/lives.rs`), which is not simulated.
                if !world.host(host).is_up() {
                    return;
                }
                let Some((of, copy)) = self.copies.remove(&host) else { return };
                note!(world, "the log of host {host}, {of}, is rolled back");
                world.reach.hit("fault: log rolled back");
                world.end(host, Ending::Kill);
                let voter = world.host(host);
                if !voter.disk.roll_back(LogStore::FILES[0], &copy) {
                    return;
                }
                let present = voter.disk.clone();
                for name in LogStore::FILES.iter().skip(1) {
                    voter.disk.roll_back(name, &present);
                }
                voter.faults = DiskFaults { is_rolled_back: true, ..voter.faults };
                self.job = Some((host, Why::Forgot, Job::Restart));
            }
        }
    }
}

/// Another program is installed on a host, and started. Returns false if there is nothing to do.
fn upgrade(world: &mut World) -> bool {
    let old: Vec<u64> = world.old.iter().copied().collect();
    let number = match world.rng.pick(&old) {
        Some(number) => {
            note!(world, "host {number} gets a later program");
            world.reach.hit("version: a later program is installed");
            world.old.remove(&number);
            number
        }
        None if world.rng.percent(10) => {
            let Some(number) = world.rng.pick(&world.numbers()) else { return false };
            note!(world, "host {number} gets an earlier program");
            world.reach.hit("version: an earlier program is installed");
            world.old.insert(number);
            number
        }
        None => return false,
    };
    let host = world.host(number);
    host.is_stopping = host.is_up();
    true
}

/// All members are voters, and each host with a seat is one: whatever happens to one of them, the others can decide. As many
/// have a seat as are wished for, or as there are.
fn is_whole(world: &World) -> bool {
    let Some(leader) = world.leader() else { return false };
    let leader = &world.hosts[&leader];
    let (Some(status), Some(core)) = (leader.status(), &leader.core) else { return false };
    let state = core.machine().state.copy();
    let lives: BTreeSet<u64> = world.hosts.values().filter_map(|host| host.life).collect();
    let voters: BTreeSet<u64> = status.voters.iter().copied().collect();
    let seats: BTreeSet<u64> =
        state.seated().filter_map(|node| node.life()).map(|life| life.get()).collect();
    let able = state.nodes().filter(|node| node.voter || !node.demoted).count();
    // Nobody is given a seat at version 1.
    let wanted = match state.version().is_first() {
        true => world.voters,
        false => state.voters().count().min(able),
    };
    let learners: BTreeSet<u64> = status.learners.iter().copied().collect();
    let members: BTreeSet<u64> = voters.union(&learners).copied().collect();
    lives == seats
        && members == lives
        && (seats.len() == wanted || (wanted.is_multiple_of(2) && seats.len() + 1 == wanted))
        && status.outgoing.is_empty()
        // An even number of voters does not rest.
        && learners.len() == usize::from(seats.len().is_multiple_of(2))
}

impl Actor for Operator {
    fn step(&mut self, world: &mut World) {
        match self.job.take() {
            Some((host, why, job)) => {
                self.job =
                    job.go_on(world, host, why, &mut self.next).map(|(why, job)| (host, why, job));
            }
            None if world.now >= self.next || world.is_healed => self.begin(world),
            None => {}
        }
        world.in_hand = self.job.as_ref().map(|(host, ..)| *host);
    }

    fn finish(&mut self) {
        (self.does_replace, self.arranges, self.upgrades) = (false, false, false);
        self.disasters = 0;
    }

    fn is_at_rest(&self, world: &World) -> bool {
        self.job.is_none() && self.new.is_empty() && world.over.is_empty() && is_whole(world)
    }
}
