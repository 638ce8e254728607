//! The agents: nodes without a log, each with one stream to any voter. What is said in a stream, and what is made of it, is the
//! product's; streams themselves, and when one is left, are a model of it, since the product's are tonic's.

use super::{
    commands,
    kernel::Kernel,
    node::{HEARTBEAT, status},
    request::Request,
    world::{Actor, World, note},
};
use crate::{
    control::{
        peers::Incarnation,
        state::{Applied, Refusal, View},
        watch::{Follower, Next, hello, is_new_enough, take},
    },
    model::{NodeId, Revision},
    proto::internal::{NodeStatus, WatchDown},
};
use tonic::Code;

/// Agents have the numbers after this one.
pub(super) const FIRST: u64 = 100;
/// After so many steps without a message an agent leaves its voter, and after so many if nothing ever came.
const SILENCE: [u64; 2] = [500, 3_000];
/// How often a voter says that nothing changed, in steps.
const BOOKMARK: u64 = 100;
/// How long a voter without a proof of its quorum, and one that is behind, keeps an agent.
const WELCOME: u64 = 100;
const LAPSE: u64 = 300;
/// Pause after every voter was asked.
const NEXT_ROUND: u64 = 30;

/// A stream to a voter.
struct Stream {
    host: u64,
    life: u64,
    opened: u64,
    follower: Follower,
    /// What is under way down, and since when nothing was sent.
    down: Option<(u64, Result<Box<WatchDown>, Code>)>,
    sent: u64,
    /// The revision of the voter when it sent last, and when the agent heard something last.
    seen: u64,
    heard: Option<u64>,
    /// What is under way up.
    up: Option<(u64, NodeStatus)>,
}

struct Agent {
    number: u64,
    node: Option<NodeId>,
    epoch: Revision,
    port: u16,
    joins: Option<Request>,
    view: Option<View>,
    kernel: Kernel,
    /// What is being programmed, and when that is done.
    pass: Option<(u64, View)>,
    stream: Option<Stream>,
    /// The host that it asks next, and when.
    turn: u64,
    next: u64,
    reported: u64,
}

/// All agents.
pub(super) struct Agents {
    agents: Vec<Agent>,
    /// Of so many steps one has a fault of an agent, about; 0 = none.
    faults: u64,
}

impl Agents {
    pub(super) fn new(count: u64, faults: u64) -> Self {
        let agent = |number| Agent {
            number,
            node: None,
            epoch: 0,
            port: 7400,
            joins: None,
            view: None,
            kernel: Kernel::default(),
            pass: None,
            stream: None,
            turn: number,
            next: 0,
            reported: 0,
        };
        Self { agents: (FIRST + 1..=FIRST + count).map(agent).collect(), faults }
    }

    fn strike(&mut self, world: &mut World) {
        let count = u64::try_from(self.agents.len()).unwrap();
        let which = usize::try_from(world.rng.below(count)).unwrap();
        let agent = &mut self.agents[which];
        note!(world, "fault at agent {}", agent.number);
        match world.rng.below(5) {
            0 => {
                world.reach.hit("agent: killed");
                agent.restart(world);
            }
            1 => {
                world.reach.hit("agent: rebooted");
                agent.restart(world);
                agent.kernel.clear();
            }
            2 => {
                world.reach.hit("agent: stood still");
                agent.next = world.now + world.rng.below(800);
            }
            3 => {
                world.reach.hit("partition: an agent from voters");
                for host in world.numbers() {
                    if world.rng.percent(70) {
                        world.net.cut(agent.number, host);
                        world.net.cut(host, agent.number);
                    }
                }
            }
            _ if agent.joins.is_none() && agent.node.is_some() => {
                world.reach.hit("agent: registered anew");
                agent.port += 1;
                agent.join(world);
            }
            _ => {}
        }
    }
}

impl Agent {
    fn join(&mut self, world: &mut World) {
        let mut instance = [0; 16];
        instance[..8].copy_from_slice(&self.number.to_be_bytes());
        let name = format!("a{}", self.number - FIRST);
        let command = commands::node(&name, instance, self.number, self.port);
        self.joins = Some(Request::new(world, command));
    }

    /// Its process ends, and another one begins.
    fn restart(&mut self, world: &mut World) {
        self.leave(world, "agent: stream broke");
        self.view = None;
        self.pass = None;
        self.kernel.gate = None;
    }

    fn leave(&mut self, world: &mut World, row: &str) {
        if let (Some(stream), Some(node)) = (self.stream.take(), self.node) {
            world.reach.hit(row);
            world.host(stream.host).table.stream_ended(node);
        }
    }

    fn step(&mut self, world: &mut World) {
        if let Some(joins) = &mut self.joins {
            if let Some(outcome) = joins.poll(world) {
                let node = match outcome {
                    Ok(Applied::Node(node)) => node,
                    // The version was raised just before.
                    Err(Refusal::VersionNotSpoken { .. }) => return self.join(world),
                    outcome => panic!("not registered: {outcome:?}"),
                };
                note!(world, "agent {} is node {} of epoch {}", self.number, node.id, node.epoch);
                if self.node.is_none() {
                    world.agents_to_come -= 1;
                    world.reach.hit("agent: joined");
                }
                (self.node, self.epoch, self.joins) = (Some(node.id), node.epoch, None);
            }
        } else if self.node.is_none() && world.lives.len() >= world.voters {
            self.join(world);
        }
        let Some(node) = self.node else { return };
        if world.now < self.next {
            return;
        }
        self.program(world, node);
        match self.stream.take() {
            Some(stream) => self.follow(world, node, stream),
            None => self.open(world, node),
        }
    }

    fn open(&mut self, world: &mut World, node: NodeId) {
        let hosts = u64::try_from(world.hosts.len()).unwrap();
        self.turn += 1;
        self.next = world.now + 1 + world.rng.below(5);
        if self.turn.is_multiple_of(hosts) {
            self.next += NEXT_ROUND;
        }
        let (now, number) = (world.now, 1 + self.turn % hosts);
        let is_cut = world.net.is_cut(self.number, number);
        let host = world.host(number);
        let (Some(core), Some(life)) = (&host.core, host.life) else { return };
        if is_cut || host.paused_until > now {
            return;
        }
        let held = self.view.clone().unwrap_or_default();
        let hello = hello(node, (self.epoch, Incarnation::nil()), &held, None);
        match Follower::admit(&core.machine().state.copy(), &hello) {
            Ok(follower) => {
                world.reach.hit("agent: stream opened");
                let (opened, sent) = (now, now);
                let (down, seen, heard, up) = (None, 0, None, None);
                let mut stream =
                    Stream { host: number, life, opened, follower, down, sent, seen, heard, up };
                serve(world, &mut stream);
                self.stream = Some(stream);
                self.reported = 0;
            }
            Err(status) => world.reach.hit(match status.code() {
                Code::Unavailable => "agent: refused, as the voter does not know it",
                Code::FailedPrecondition => "agent: refused, as its epoch is over",
                code => panic!("agent {} is refused: {code:?}, {}", self.number, status.message()),
            }),
        }
    }

    fn follow(&mut self, world: &mut World, node: NodeId, mut stream: Stream) {
        let (now, number) = (world.now, stream.host);
        let (up, down) =
            (world.net.is_cut(self.number, number), world.net.is_cut(number, self.number));
        let host = world.host(number);
        if !host.is_up() || host.life != Some(stream.life) {
            self.stream = Some(stream);
            self.leave(world, "agent: stream broke");
            return;
        }
        if now >= host.paused_until {
            serve(world, &mut stream);
        }
        let heard = stream.heard.unwrap_or(stream.opened);
        if now > heard + SILENCE[usize::from(stream.heard.is_none())] {
            self.stream = Some(stream);
            self.leave(world, "agent: left a silent voter");
            return;
        }
        if stream.down.as_ref().is_some_and(|(due, _)| *due <= now)
            && !down
            && let Some((_, message)) = stream.down.take()
        {
            stream.heard = Some(now);
            match message {
                Ok(message) => self.take(world, node, *message),
                Err(code) => {
                    assert_ne!(code, Code::NotFound, "node {node} was not removed");
                    self.stream = Some(stream);
                    self.leave(world, "agent: sent away");
                    return;
                }
            }
        }
        if stream.up.as_ref().is_some_and(|(due, _)| *due <= now)
            && !up
            && let Some((_, status)) = stream.up.take()
        {
            world.host(number).table.record(status);
        }
        let programmed = self.kernel.held.revision;
        let is_due = now >= self.reported + HEARTBEAT;
        if stream.up.is_none() && is_due {
            self.reported = now;
            let due = now + 1 + world.rng.below(5);
            stream.up = Some((due, status(node, self.epoch, programmed)));
        }
        self.stream = Some(stream);
    }

    fn take(&mut self, world: &mut World, node: NodeId, message: WatchDown) {
        let (complete, revision) = (message.complete, message.revision);
        let mut view = self.view.clone().unwrap_or_default();
        let before = view.revision;
        let is_new = take(message, &mut view).expect("a message of this version");
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
            world.truth.holds(node, &view);
        }
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
        let kernel = &mut self.kernel;
        let newest = kernel.newest();
        let gate = *kernel.gate.get_or_insert(newest);
        if is_new_enough(view.revision, gate) {
            if view.revision < kernel.held.revision {
                world.reach.hit("agent: kernel goes back to an older view");
            }
            kernel.program(node, view, &world.truth);
            // Said at once.
            self.reported = 0;
        } else {
            world.reach.hit("agent: view older than its kernel");
        }
    }
}

fn now_plus(world: &mut World) -> u64 {
    world.now + 1 + world.rng.below(30)
}

/// The voter's side of a stream.
fn serve(world: &mut World, stream: &mut Stream) {
    let now = world.now;
    let due = now + 1 + world.rng.below(8);
    let host = world.host(stream.host);
    let Some(core) = &host.core else { return };
    if stream.down.is_some() {
        return;
    }
    if !host.quorum.holds() && now >= stream.opened + WELCOME {
        stream.down = Some((due, Err(Code::Unavailable)));
        return;
    }
    let ledger = core.machine();
    if ledger.published == stream.seen && now < stream.sent + BOOKMARK {
        return;
    }
    match stream.follower.next(&ledger.state.copy(), ledger.published, 0) {
        Ok(Next::Behind) => {
            if stream.opened == now {
                world.reach.hit("agent: voter is behind");
            } else if now >= stream.opened + LAPSE {
                stream.down = Some((due, Err(Code::Unavailable)));
            }
        }
        Ok(Next::Removed) => stream.down = Some((due, Err(Code::NotFound))),
        Ok(Next::Message(message)) => {
            (stream.seen, stream.sent) = (ledger.published, now);
            stream.down = Some((due, Ok(message)));
        }
        Err(error) => panic!("a row can't be sent: {error}"),
    }
}

impl Actor for Agents {
    fn step(&mut self, world: &mut World) {
        if self.faults > 0 && world.rng.below(self.faults) == 0 {
            self.strike(world);
        }
        self.agents.iter_mut().for_each(|agent| agent.step(world));
    }

    fn finish(&mut self) {
        self.faults = 0;
    }

    /// Each kernel is as new as what was acknowledged.
    fn is_at_rest(&self, world: &World) -> bool {
        let floor = world.truth.floor();
        self.agents.iter().all(|agent| agent.joins.is_none() && agent.kernel.held.revision >= floor)
    }
}
