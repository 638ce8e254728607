//! Whoever runs the cluster: forms it, and replaces its hosts one by one. A host that lost its disk, or got an older log
//! back, comes as a new node when the old one is removed.

use super::{
    commands,
    host::{DiskFaults, Item, Pending},
    request::Request,
    start::Started,
    world::{Actor, Ending, World, note},
};
use crate::{
    control::{
        consensus::LogStore,
        state::{Applied, Command, Refusal, State},
    },
    durable::simulated::SimulatedFolder,
    model::{Node, RaftId, SPEAKS, Version},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Why a host is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Wish,
    Wiped,
    Forgot,
}

enum Job {
    /// A host registers, and starts with the id that it gets.
    Register(Request),
    /// The group is to decide without the host's present life.
    Remove { life: u64, asked: Option<(u64, Pending<u64>, u64)>, again: u64 },
    /// Its endpoints go, and then its row.
    Clear { life: u64, request: Option<Request> },
    /// It comes back as another member, with the node that it was.
    Begin(Request),
    /// The cluster's version is raised.
    Raise(Request),
    /// It got an older log back, and starts.
    Restart,
}

/// The operator, with one host at a time.
pub(super) struct Operator {
    /// Hosts that are still to be registered for the first time.
    new: VecDeque<u64>,
    /// The host that is looked after, and why it is replaced.
    job: Option<(u64, Why, Job)>,
    next: u64,
    /// Whether hosts are replaced.
    does_replace: bool,
    /// Whether the version is still to be raised.
    raises: bool,
    /// Disks as they were, with the life that was on them.
    copies: BTreeMap<u64, (u64, SimulatedFolder)>,
}

impl Operator {
    pub(super) fn new(voters: u64, does_replace: bool, raises: bool) -> Self {
        let new = (1..=voters).collect();
        Self { new, job: None, next: 0, does_replace, raises, copies: BTreeMap::new() }
    }

    fn begin(&mut self, world: &mut World) {
        if let Some(host) = self.new.pop_front() {
            let request = register(world, host);
            self.job = Some((host, Why::Wish, Job::Register(request)));
            return;
        }
        // A place that is free for a moment is an agent's that registers just then.
        if world.agents_to_come > 0 {
            return;
        }
        if self.raises {
            let Some(state) = leaders_state(world) else { return };
            self.raises = state.version() < Version::V2;
            if self.raises {
                let speaks = state.nodes().map(|node| (node.id, SPEAKS)).collect();
                let raise = Command::RaiseVersion { to: Version::V2, speaks };
                self.job = Some((1, Why::Wish, Job::Raise(Request::new(world, raise))));
            }
            return;
        }
        self.next = world.now + 50 + world.rng.below(500);
        let numbers = world.numbers();
        let Some(host) = world.rng.pick(&numbers).filter(|_| self.does_replace) else { return };
        if !is_whole(world) {
            return;
        }
        let Some(life) = world.host(host).life else { return };
        let remove = Job::Remove { life, asked: None, again: 0 };
        if self.copies.get(&host).is_none_or(|(of, _)| *of != life) {
            let disk = world.host(host).disk.after_kill();
            self.copies.insert(host, (life, disk));
            self.next = world.now + 20 + world.rng.below(100);
            return;
        }
        match world.rng.below(8) {
            0..3 => {
                note!(world, "host {host} is to be replaced");
                if world.host(host).leads() {
                    world.reach.hit("members: leader removed");
                }
                self.job = Some((host, Why::Wish, remove));
            }
            3..5 => {
                note!(world, "host {host} is wiped");
                world.reach.hit("fault: wiped");
                wipe(world, host);
                self.job = Some((host, Why::Wiped, remove));
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
                voter.faults.is_rolled_back = true;
                self.job = Some((host, Why::Forgot, Job::Restart));
            }
        }
    }

    /// The next job after `job`, or none.
    fn go_on(&mut self, world: &mut World, host: u64, why: Why, mut job: Job) -> Option<Job> {
        match &mut job {
            Job::Register(request) => {
                let Some(outcome) = request.poll(world) else { return Some(job) };
                // Its row may have been removed in between, by nobody: there is one operator.
                let node = match outcome {
                    Ok(Applied::Node(node)) => node,
                    // The version was raised just before.
                    Err(Refusal::VersionNotSpoken { .. }) => {
                        return Some(Job::Register(register(world, host)));
                    }
                    outcome => panic!("not registered: {outcome:?}"),
                };
                let first = world.host(host).life;
                let life = node.life().map_or(node.id, RaftId::get);
                assert!(first.is_none_or(|first| first == life), "another id than the log's");
                world.settle(host, &node, life);
                world.reach.hit(match why {
                    Why::Wish => "members: joined",
                    Why::Wiped => "members: wiped one came as another",
                    Why::Forgot => "members: rolled-back one came as another",
                });
                if first.is_none() {
                    world.start(host);
                }
                self.next = world.now + 10 + world.rng.below(60);
                None
            }
            Job::Remove { life, asked, again } => {
                if !remove(world, *life, asked, again) {
                    return Some(job);
                }
                note!(world, "node {life} is no member any more");
                let life = *life;
                if world.host(host).life.is_some() {
                    wipe(world, host);
                }
                if why != Why::Wish
                    && let Some(request) = begin_life(world, host, life)
                {
                    return Some(Job::Begin(request));
                }
                Some(Job::Clear { life, request: None })
            }
            Job::Clear { life, request } => {
                if let Some(running) = request {
                    if running.poll(world).is_some() {
                        *request = None;
                    }
                    return Some(job);
                }
                match next_removal(world, host) {
                    Removal::Unknown => Some(job),
                    Removal::Next(command) => {
                        *request = Some(Request::new(world, command));
                        Some(job)
                    }
                    Removal::Done => {
                        release(world, *life);
                        world.host(host).kernel.clear();
                        world.host(host).node = None;
                        world.host(host).lives += 1;
                        let request = register(world, host);
                        Some(Job::Register(request))
                    }
                }
            }
            Job::Begin(request) => {
                let Some(outcome) = request.poll(world) else { return Some(job) };
                let Ok(Applied::Node(node)) = outcome else { panic!("no other life: {outcome:?}") };
                let life = node.life().map_or(node.id, RaftId::get);
                world.lives.keys().for_each(|before| assert_ne!(*before, life, "used before"));
                world.settle(host, &node, life);
                world.hosts.values_mut().for_each(|host| host.leaving.clear());
                world.reach.hit("members: came back as another life of its node");
                world.start(host);
                None
            }
            Job::Raise(request) => {
                let Some(outcome) = request.poll(world) else { return Some(job) };
                if outcome.is_ok() {
                    world.reach.hit("members: version raised");
                }
                None
            }
            Job::Restart => match world.start(host) {
                Started::Up => {
                    world.host(host).faults.is_rolled_back = false;
                    None
                }
                Started::Failed => Some(job),
                Started::Forgot => {
                    let life = world.host(host).life?;
                    wipe(world, host);
                    Some(Job::Remove { life, asked: None, again: 0 })
                }
            },
        }
    }
}

fn register(world: &mut World, host: u64) -> Request {
    let command = commands::registration(world.host(host));
    Request::new(world, command)
}

/// The state of whoever leads.
fn leaders_state(world: &mut World) -> Option<State> {
    let leader = world.leader()?;
    let core = world.host(leader).core.as_ref()?;
    Some(core.machine().state.copy())
}

/// Asks for another life of a host's node; `None` where the cluster's version has none.
fn begin_life(world: &mut World, host: u64, ended: u64) -> Option<Request> {
    let (name, only) = (world.host(host).name().parse().unwrap(), world.host(host).node?);
    let version = leaders_state(world)?.version();
    let command = Command::BeginLife { name, only, ended: RaftId::new(ended) };
    (version >= Version::V2).then(|| Request::new(world, command))
}

/// All members are voters, and each host is one: whatever happens to one of them, the others can decide.
fn is_whole(world: &World) -> bool {
    let Some(leader) = world.leader().and_then(|leader| world.hosts[&leader].status()) else {
        return false;
    };
    let lives: BTreeSet<u64> = world.hosts.values().filter_map(|host| host.life).collect();
    let voters: BTreeSet<u64> = leader.voters.iter().copied().collect();
    lives.len() == world.voters
        && voters == lives
        && leader.outgoing.is_empty()
        && leader.learners.is_empty()
}

impl World {
    /// A host has this node and this Raft id from now on.
    fn settle(&mut self, host: u64, node: &Node, life: u64) {
        note!(self, "host {host} is node {}, member {life}", node.id);
        self.lives.insert(life, host);
        let host = self.host(host);
        (host.life, host.node, host.epoch) = (Some(life), Some(node.id), node.epoch);
    }
}

/// The disk of the host is as if it was new, and runs nothing.
fn wipe(world: &mut World, host: u64) {
    let host = world.host(host);
    host.end();
    host.life = None;
    host.disk = SimulatedFolder::default();
    host.faults = DiskFaults::default();
}

/// Asks whoever leads to remove a member. Returns true when it is done.
fn remove(
    world: &mut World,
    life: u64,
    asked: &mut Option<(u64, Pending<u64>, u64)>,
    again: &mut u64,
) -> bool {
    let Some((host, answer, until)) = asked else {
        if world.now >= *again
            && let Some(leader) = world.leader()
        {
            let (reply, answer) = oneshot::channel();
            let host = world.host(leader);
            host.leaving.insert(life);
            host.ask(Item::Remove(life, reply));
            *asked = Some((leader, answer, world.now + 600));
        }
        return false;
    };
    let error = match answer.try_recv() {
        Ok(Ok(_)) => {
            world.reach.hit("answer: member removal done");
            return true;
        }
        Ok(Err(error)) => Some(error),
        Err(TryRecvError::Empty) if world.now < *until => return false,
        Err(_) => None,
    };
    if let Some(error) = error {
        world.hit_error(&error);
    }
    let host = *host;
    world.host(host).leaving.remove(&life);
    *asked = None;
    *again = world.now + 10 + world.rng.below(100);
    false
}

/// Nobody counts the member as leaving any more.
fn release(world: &mut World, life: u64) {
    for host in world.hosts.values_mut() {
        host.leaving.remove(&life);
    }
}

enum Removal {
    /// Nobody leads.
    Unknown,
    Next(Command),
    Done,
}

/// What is to be removed next of a node, as the leader has it.
fn next_removal(world: &mut World, host: u64) -> Removal {
    let name = world.host(host).name().parse().unwrap();
    let Some(node) = world.host(host).node else { return Removal::Done };
    let Some(state) = leaders_state(world) else { return Removal::Unknown };
    // A new leader may not have applied its row yet.
    if state.node(node).is_none() {
        return if state.was_removed(node) { Removal::Done } else { Removal::Unknown };
    }
    Removal::Next(match state.endpoints_on(node).next() {
        Some(endpoint) => Command::RemoveEndpoint {
            name: endpoint.name.clone(),
            network: state.network(endpoint.network).map(|network| network.name.clone()),
            only: Some(endpoint.id),
        },
        None => Command::RemoveNode { name, only: Some(node), with_endpoints: false },
    })
}

impl Actor for Operator {
    fn step(&mut self, world: &mut World) {
        match self.job.take() {
            Some((host, why, job)) => {
                self.job = self.go_on(world, host, why, job).map(|job| (host, why, job));
            }
            None if world.now >= self.next => self.begin(world),
            None => {}
        }
    }

    fn finish(&mut self) {
        self.does_replace = false;
    }

    fn is_at_rest(&self, world: &World) -> bool {
        self.job.is_none() && self.new.is_empty() && is_whole(world)
    }
}
