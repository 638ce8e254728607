//! The agents: nodes without a log, each with one stream to any voter. A host is one as long as it has no seat: most never get
//! one, and a voter becomes one when it lost its own.

use super::{
    commands,
    host::AGENTS,
    jobs::leaders_state,
    request::Request,
    stream::Stream,
    world::{Actor, World, note},
};
use crate::{
    control::{
        peers::Peer,
        state::{Applied, Refusal, View},
        watch::is_new_enough,
    },
    model::NodeId,
    proto::internal::WatchDown,
};

/// How often an agent looks whether something has come, in steps.
const LOOKS: u64 = 3;

/// An agent's process.
#[derive(Default)]
pub(super) struct Agent {
    pub(super) number: u64,
    joins: Option<Request>,
    pub(super) view: Option<View>,
    /// What is being programmed, and when that is done.
    pass: Option<(u64, View)>,
    pub(super) stream: Option<Stream>,
    /// The voter that it asks next, and when.
    pub(super) turn: u64,
    pub(super) next: u64,
    pub(super) reported: u64,
    /// Its program is one that speaks version 1 alone.
    is_old: bool,
}

/// All agents.
pub(super) struct Agents {
    agents: Vec<Agent>,
    /// Of so many steps one has a fault of an agent, about; 0 = none.
    faults: u64,
}

impl Agents {
    /// One for each host.
    pub(super) fn new(world: &World, faults: u64) -> Self {
        let agent = |number| Agent {
            number,
            turn: number,
            is_old: world.old.contains(&number),
            ..Agent::default()
        };
        Self { agents: world.numbers().into_iter().map(agent).collect(), faults }
    }

    fn strike(&mut self, world: &mut World) {
        let count = u64::try_from(self.agents.len()).unwrap();
        let which = usize::try_from(world.rng.below(count)).unwrap();
        let agent = &mut self.agents[which];
        let number = agent.number;
        if world.host(number).life.is_some() || world.host(number).node.is_none() {
            return;
        }
        note!(world, "fault at agent {number}");
        match world.rng.below(6) {
            0 => {
                world.reach.hit("agent: killed");
                agent.restart(world);
                let until = world.rng.pick(&[0, 0, 400, 1_200]).unwrap();
                agent.next = world.now + until;
            }
            1 => {
                world.reach.hit("agent: without power");
                agent.restart(world);
                world.host(number).kernel.clear();
                let until = world.now + world.rng.pick(&[1, 1, 500, 1_500]).unwrap();
                world.off.insert(number, until);
            }
            2 => {
                world.reach.hit("agent: stood still");
                agent.next = world.now + world.rng.below(800);
            }
            3 => {
                world.reach.hit("partition: an agent from voters");
                for host in world.numbers() {
                    if host != number && world.rng.percent(70) {
                        world.net.cut(number, host);
                        world.net.cut(host, number);
                    }
                }
            }
            4 => {
                world.reach.hit("partition: an agent from voters, and not from agents");
                for host in world.with_a_log() {
                    world.net.cut(number, host);
                    world.net.cut(host, number);
                }
            }
            _ if agent.joins.is_none() && number > AGENTS => {
                world.reach.hit("agent: registered anew");
                let mut place = world.host(number).listen;
                place.set_port(place.port() + 1);
                agent.leave(world, "agent: stream broke");
                world.move_to(number, place);
                agent.join(world);
            }
            _ => {}
        }
    }
}

impl Agent {
    fn join(&mut self, world: &mut World) {
        let speaks = world.speaks(self.number);
        let command = commands::registration(world.host(self.number), speaks);
        self.joins = Some(Request::new(world, command));
    }

    /// Its process ends, and another one begins.
    fn restart(&mut self, world: &mut World) {
        self.leave(world, "agent: stream broke");
        (self.view, self.pass) = (None, None);
        let host = world.host(self.number);
        host.kernel.gate = None;
        host.probed.clear();
        host.forget_places();
    }

    pub(super) fn leave(&mut self, world: &mut World, row: &str) {
        let node = world.host(self.number).node;
        if let (Some(stream), Some(node)) = (self.stream.take(), node) {
            world.reach.hit(row);
            world.host(stream.host).table.stream_ended(node);
            world.host(self.number).directory.lost(stream.voter, stream.places[1]);
        }
    }

    /// The cluster does not know its node: it is to join as another one.
    pub(super) fn begin_anew(&mut self, world: &mut World) {
        world.reach.hit("generation: a node that is unknown by now joined anew");
        self.restart(world);
        world.agents_to_come += 1;
        let host = world.host(self.number);
        host.kernel.clear();
        (host.node, host.lives) = (None, host.lives + 1);
        self.join(world);
    }

    /// Follows its own registration.
    fn register(&mut self, world: &mut World) {
        let number = self.number;
        if let Some(joins) = &mut self.joins {
            if let Some(outcome) = joins.poll(world) {
                let node = match outcome {
                    Ok(Applied::Node(node)) => node,
                    Err(Refusal::VersionNotSpoken { .. }) => {
                        // The version was raised just before, or somebody put an old program there.
                        if world.old.remove(&number) {
                            world.reach.hit("version: an old program is not registered");
                        }
                        self.join(world);
                        return;
                    }
                    // The node whose row has its address has moved, and is to say so first: one with a row follows its move then.
                    Err(Refusal::VtepExists { .. }) => {
                        world.reach.hit("places: the address is another node's still");
                        self.joins = None;
                        if world.host(number).node.is_none() {
                            self.join(world);
                        }
                        return;
                    }
                    // The generation does not know it, since it is younger than the backup.
                    Err(Refusal::NodeRemoved(_)) => return self.begin_anew(world),
                    outcome => panic!("not registered: {outcome:?}"),
                };
                note!(world, "agent {number} is node {} of epoch {}", node.id, node.epoch);
                if world.host(number).node.is_none() {
                    // A host that was replaced lost its node, and is none of those that are to come for the first time.
                    world.agents_to_come = world.agents_to_come.saturating_sub(1);
                    world.reach.hit("agent: joined");
                    world.machines.insert(node.id, number);
                    let rows =
                        leaders_state(world).map(|state| state.nodes().map(Peer::from).collect());
                    let host = world.host(number);
                    host.node = Some(node.id);
                    host.know(rows.unwrap_or_default());
                }
                let host = world.host(number);
                (host.node, host.epoch) = (Some(node.id), node.epoch);
                let newest = world.truths.keys().next_back().copied().unwrap_or_default();
                let host = world.host(number);
                let has_log = host.life.is_some();
                host.generations.adopt_unless(newest, || has_log);
                self.joins = None;
            }
        } else if world.host(number).node.is_none()
            && number > AGENTS
            && world.in_hand != Some(number)
            && world.lives.len() >= world.voters
        {
            self.join(world);
        }
    }

    fn step(&mut self, world: &mut World) {
        let number = self.number;
        if world.off.get(&number).is_some_and(|until| *until <= world.now) {
            world.power_on(number);
        }
        let is_old = world.old.contains(&number);
        if self.is_old != is_old {
            self.is_old = is_old;
            self.restart(world);
        }
        self.register(world);
        let is_about = world.in_hand == Some(number);
        let host = world.host(number);
        let node = host.node.filter(|_| host.life.is_none() && host.runs() && !is_about);
        let Some(node) = node.filter(|_| !world.off.contains_key(&number)) else {
            if self.view.is_some() || self.stream.is_some() {
                self.leave(world, "agent: stream broke");
                (self.view, self.pass) = (None, None);
            }
            return;
        };
        if world.now < self.next {
            return;
        }
        if self.view.is_none() && world.host(number).kernel.gate.is_some() {
            // It was a voter until now.
            self.view = Some(world.host(number).kernel.held.clone());
        }
        world.probe(number);
        self.program(world, node);
        match self.stream.take() {
            Some(stream) => self.follow(world, node, stream),
            None => self.open(world, node),
        }
    }

    /// Takes what a voter sent.
    pub(super) fn take(&mut self, world: &mut World, node: NodeId, message: WatchDown) {
        let (complete, revision) = (message.complete, message.revision);
        let mut view = self.view.clone().unwrap_or_default();
        let before = view.revision;
        let is_new =
            crate::control::watch::take(message, &mut view).expect("a message of this version");
        if !is_new {
            world.reach.hit("agent: heard that nothing changed");
            return;
        }
        note!(world, "agent {} goes from {before} to {revision}: {complete}", self.number);
        world.reach.hit(match (complete, before) {
            (true, 0) => "agent: first view",
            (true, _) => "agent: whole view, as the changes are forgotten",
            (false, _) => "agent: changes",
        });
        assert!(complete || revision >= before, "agent {} goes back", self.number);
        if world.is_healed || (revision + self.number).is_multiple_of(3) {
            let truth = world.truths.get(&view.generation).unwrap_or(&world.truth);
            truth.holds(node, &view);
        }
        world
            .host(self.number)
            .directory
            .replace(view.nodes.values().map(|node| Peer::from(&**node)));
        let due = self.pass.as_ref().map_or(now_plus(world), |(due, _)| *due);
        self.pass = Some((due, view.clone()));
        self.view = Some(view);
    }

    /// Makes the kernel that of the view, when the time has come.
    fn program(&mut self, world: &mut World, node: NodeId) {
        if self.pass.as_ref().is_none_or(|(due, _)| *due > world.now) {
            return;
        }
        let Some((_, view)) = self.pass.take() else { return };
        let World { hosts, truth, truths, reach, .. } = world;
        let truth = truths.get(&view.generation).unwrap_or(truth);
        let host = hosts.get_mut(&self.number).expect("a host of this run");
        let kernel = &mut host.kernel;
        let newest = kernel.newest();
        let gate = *kernel.gate.get_or_insert(newest);
        if is_new_enough(view.revision, gate) {
            if view.revision < kernel.held.revision {
                reach.hit("agent: kernel goes back to an older view");
            }
            kernel.program(node, view, truth);
            // Said at once.
            self.reported = 0;
        } else {
            reach.hit("agent: view older than its kernel");
        }
    }
}

fn now_plus(world: &mut World) -> u64 {
    world.now + 1 + world.rng.below(30)
}

impl Actor for Agents {
    fn step(&mut self, world: &mut World) {
        if self.faults > 0 && world.rng.below(self.faults) == 0 {
            self.strike(world);
        }
        let now = world.now;
        let is_due = |agent: &&mut Agent| (now + agent.number).is_multiple_of(LOOKS);
        self.agents.iter_mut().filter(is_due).for_each(|agent| agent.step(world));
    }

    fn finish(&mut self) {
        self.faults = 0;
    }

    /// Each kernel is as new as what was acknowledged.
    fn is_at_rest(&self, world: &World) -> bool {
        let floor = world.truth.floor();
        let is_new = |number: &u64| world.hosts[number].kernel.held.revision >= floor;
        self.agents.iter().all(|agent| agent.joins.is_none() && is_new(&agent.number))
    }
}
