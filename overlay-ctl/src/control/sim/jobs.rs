//! What an operator does about one host, or about the cluster, from its first request until it is done.

use super::{
    clones::go_on_elsewhere,
    commands,
    disaster::Disaster,
    host::{DiskFaults, Item, Pending},
    request::Request,
    start::Started,
    world::{World, note},
};
use crate::{
    control::{
        peers::Peer,
        state::{Applied, Command, Refusal, State},
    },
    durable::simulated::SimulatedFolder,
    model::{Node, RaftId, Version},
};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Why a host is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Wish,
    Wiped,
    Forgot,
    Demoted,
    /// A copy of its folder is started on another machine.
    Cloned,
}

pub(super) enum Job {
    /// A host registers, and starts with the id that it gets.
    Register(Request),
    /// The group is to decide without the host's present life.
    Remove { life: u64, asked: Option<(u64, Pending<u64>, u64)>, again: u64 },
    /// Its endpoints go, and then its row.
    Clear { life: u64, request: Option<Request> },
    /// It comes back as another member, with the node that it was.
    Begin { ended: u64, request: Request },
    /// Its row says that it has no seat.
    Demote { life: u64, request: Request },
    /// An agent gets a seat.
    Promote(Request),
    /// So many are to vote.
    SetVoters(Request),
    /// It got an older log back, and starts.
    Restart,
    /// Most voters are lost.
    Disaster(Disaster),
}

/// The job that begins with the end of a membership.
pub(super) fn remove_first(life: u64) -> Job {
    Job::Remove { life, asked: None, again: 0 }
}

/// The same, some time after: by then the leader may have given the seat to another node.
pub(super) fn remove_later(world: &mut World, life: u64) -> Job {
    let wait = world.rng.pick(&[0, 0, 600, 1_200]).unwrap();
    Job::Remove { life, asked: None, again: world.now + wait }
}

/// An older row of the host has its name, as a backup brought it back: that node is removed first.
fn remove_namesake(world: &mut World, host: u64) -> Job {
    let name = world.host(host).name();
    let namesake = leaders_state(world).and_then(|state| {
        let node = state.nodes().find(|node| node.name.as_str() == name)?;
        Some((node.id, node.life()))
    });
    let Some((node, life)) = namesake else { return Job::Register(register(world, host)) };
    world.host(host).node = Some(node);
    match life {
        Some(life) => remove_first(life.get()),
        None => Job::Clear { life: 0, request: None },
    }
}

impl Job {
    /// The job after this one, and why, or none. `next` is when the operator does something else.
    pub(super) fn go_on(
        self,
        world: &mut World,
        host: u64,
        why: Why,
        next: &mut u64,
    ) -> Option<(Why, Self)> {
        self.goes_on(world, host, why, next).map(|job| (why, job))
    }

    fn goes_on(mut self, world: &mut World, host: u64, why: Why, next: &mut u64) -> Option<Self> {
        let job = &mut self;
        match job {
            Self::Register(request) => {
                let Some(outcome) = request.poll(world) else { return Some(self) };
                // Its row may have been removed in between, by nobody: there is one operator.
                let node = match outcome {
                    Ok(Applied::Node(node)) => node,
                    // The version was raised just before, or somebody put an old program there.
                    Err(Refusal::VersionNotSpoken { .. }) => {
                        if world.old.remove(&host) {
                            world.reach.hit("version: an old program is not registered");
                        }
                        return Some(Self::Register(register(world, host)));
                    }
                    Err(Refusal::NodeExists(_)) => return Some(remove_namesake(world, host)),
                    outcome => panic!("not registered: {outcome:?}"),
                };
                let first = world.host(host).life;
                let life = node.life().map(RaftId::get);
                assert!(first.is_none() || first == life, "another id than the log's");
                world.settle(host, &node);
                world.reach.hit(match why {
                    Why::Wish => "members: joined",
                    Why::Wiped | Why::Cloned => "members: wiped one came as another",
                    Why::Forgot => "members: rolled-back one came as another",
                    Why::Demoted => unreachable!("its node stays registered"),
                });
                if first.is_none() && life.is_some() {
                    world.start(host);
                }
                *next = world.now + 10 + world.rng.below(60);
                None
            }
            Self::Remove { life, asked, again } => {
                if !remove(world, *life, asked, again) {
                    return Some(self);
                }
                note!(world, "node {life} is no member any more");
                let life = *life;
                if why == Why::Demoted {
                    return Some(demote(world, host, life));
                }
                if why == Why::Cloned {
                    go_on_elsewhere(world, host, life);
                }
                if world.host(host).life.is_some() {
                    wipe(world, host);
                }
                if why != Why::Wish
                    && let Some(request) = begin_life(world, host, life)
                {
                    return Some(Self::Begin { ended: life, request });
                }
                Some(Self::Clear { life, request: None })
            }
            Self::Clear { life, request } => {
                if let Some(running) = request {
                    if running.poll(world).is_some() {
                        *request = None;
                    }
                    return Some(self);
                }
                match next_removal(world, host) {
                    Removal::Unknown => Some(self),
                    Removal::Next(command) => {
                        *request = Some(Request::new(world, command));
                        Some(self)
                    }
                    Removal::Done => {
                        release(world, *life);
                        world.host(host).kernel.clear();
                        world.host(host).node = None;
                        world.host(host).lives += 1;
                        let request = register(world, host);
                        Some(Self::Register(request))
                    }
                }
            }
            Self::Begin { ended, request } => {
                let Some(outcome) = request.poll(world) else { return Some(self) };
                let node = match outcome {
                    Ok(Applied::Node(node)) => node,
                    // Another one was given to it meanwhile.
                    Err(Refusal::Replaced { .. }) => {
                        release(world, *ended);
                        world.reach.hit("members: its life was another by then");
                        return None;
                    }
                    outcome => panic!("no other life: {outcome:?}"),
                };
                release(world, *ended);
                world.settle(host, &node);
                if let Some(life) = node.life().map(RaftId::get) {
                    world.reach.hit("members: came back as another life of its node");
                    note!(world, "host {host} goes on as {life}");
                    world.start(host);
                } else {
                    world.reach.hit("members: came back as an agent");
                }
                None
            }
            Self::Demote { life, request } => {
                let Some(outcome) = request.poll(world) else { return Some(self) };
                release(world, *life);
                world.reach.hit(match outcome {
                    Ok(_) => "operator: demoted",
                    Err(_) => "operator: not demoted, as it had another seat by then",
                });
                None
            }
            Self::Promote(request) => {
                let Some(outcome) = request.poll(world) else { return Some(self) };
                world.reach.hit(match outcome {
                    Ok(_) => "operator: promoted",
                    Err(_) => "operator: not promoted, as there is no room",
                });
                None
            }
            Self::SetVoters(request) => {
                if request.poll(world).is_none() {
                    return Some(self);
                }
                world.reach.hit("operator: number of voters set");
                None
            }
            Self::Disaster(disaster) => disaster.goes_on(world).then_some(self),
            Self::Restart => match world.start(host) {
                Started::Up => {
                    world.host(host).faults.is_rolled_back = false;
                    None
                }
                Started::Failed => Some(self),
                Started::Forgot => {
                    let life = world.host(host).life?;
                    wipe(world, host);
                    Some(remove_later(world, life))
                }
            },
        }
    }
}

pub(super) fn register(world: &mut World, host: u64) -> Request {
    let speaks = world.speaks(host);
    let command = commands::registration(world.host(host), speaks);
    Request::new(world, command)
}

/// The end of a seat, by an operator, once its membership has ended.
fn demote(world: &mut World, host: u64, life: u64) -> Job {
    let (name, only) = (world.host(host).name().parse().unwrap(), world.host(host).node);
    let demote = Command::Demote { name, only, ended: RaftId::new(life), for_good: true };
    Job::Demote { life, request: Request::new(world, demote) }
}

/// The state of whoever leads.
pub(super) fn leaders_state(world: &mut World) -> Option<State> {
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

impl World {
    /// A host has this node from now on, and its Raft id, if it has one.
    fn settle(&mut self, number: u64, node: &Node) {
        let life = node.life().map(RaftId::get);
        note!(self, "host {number} is node {}, member {life:?}", node.id);
        let host = self.host(number);
        (host.node, host.epoch) = (Some(node.id), node.epoch);
        if let Some(life) = life {
            let is_new = host.last_life < Some(life);
            assert!(is_new || host.life == Some(life), "Raft id {life} was used before");
            (host.life, host.last_life) = (Some(life), Some(life));
            self.lives.insert(life, number);
        }
        self.machines.insert(node.id, number);
        let rows = leaders_state(self).map(|state| state.nodes().map(Peer::from).collect());
        let known =
            || self.hosts.values().find(|host| host.is_up()).map(|host| host.directory.peers());
        let peers: Vec<Peer> = rows.or_else(known).unwrap_or_default();
        self.host(number).know(peers);
        let newest = self.truths.keys().next_back().copied().unwrap_or_default();
        self.host(number).generations.adopt_unless(newest, || false);
    }
}

/// The disk of the host is as if it was new, and runs nothing.
pub(super) fn wipe(world: &mut World, host: u64) {
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
    // Whoever does not look for its endpoints first is refused.
    let looks = world.rng.percent(90);
    Removal::Next(match state.endpoints_on(node).next().filter(|_| looks) {
        Some(endpoint) => Command::RemoveEndpoint {
            name: endpoint.name.clone(),
            network: state.network(endpoint.network).map(|network| network.name.clone()),
            only: Some(endpoint.id),
        },
        None => Command::RemoveNode { name, only: Some(node), with_endpoints: false },
    })
}
