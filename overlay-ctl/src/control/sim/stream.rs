//! An agent's stream to a voter. What is said in it, and what is made of it, is the product's; streams themselves, and when one
//! is left, are a model of it, since the product's are tonic's.

use super::{agents::Agent, node::HEARTBEAT, world::World};
use crate::{
    control::{
        peers::Incarnation,
        watch::{Follower, Next, hello},
    },
    model::NodeId,
    proto::internal::{NodeStatus, WatchDown},
};
use std::net::SocketAddr;
use tonic::Code;

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
pub(super) struct Stream {
    pub(super) host: u64,
    /// Where the two are.
    pub(super) places: [SocketAddr; 2],
    pub(super) voter: NodeId,
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

impl Agent {
    pub(super) fn open(&mut self, world: &mut World, node: NodeId) {
        let voters = world.known_voters(self.number, node);
        let Some(count) = u64::try_from(voters.len()).ok().filter(|count| *count > 0) else {
            return;
        };
        self.turn += 1;
        self.next = world.now + 1 + world.rng.below(5);
        if self.turn.is_multiple_of(count) {
            self.next += NEXT_ROUND;
        }
        let (voter, place, number) = voters[usize::try_from(self.turn % count).unwrap()];
        let places = [world.host(self.number).listen, place];
        let (now, reaches) = (world.now, world.reaches(self.number, number));
        let epoch = world.host(self.number).epoch;
        let speaks = world.speaks(self.number);
        let host = world.host(number);
        let (Some(core), Some(life)) = (&host.core, host.life) else { return };
        if !reaches || host.paused_until > now {
            return;
        }
        let held = self.view.clone().unwrap_or_default();
        let mut hello = hello(node, (epoch, Incarnation::nil()), &held, None);
        (hello.oldest_version, hello.newest_version) =
            (speaks.oldest().number(), speaks.newest().number());
        let state = core.machine().state.copy();
        if !world.is_of_one_generation(self.number, number) {
            return;
        }
        match Follower::admit(&state, &hello) {
            Ok(follower) => {
                world.reach.hit("agent: stream opened");
                world.host(number).directory.heard_from(node, places[0]);
                let (opened, sent) = (now, now);
                let (down, seen, heard, up) = (None, 0, None, None);
                let mut stream = Stream {
                    host: number,
                    places,
                    voter,
                    life,
                    opened,
                    follower,
                    down,
                    sent,
                    seen,
                    heard,
                    up,
                };
                serve(world, &mut stream);
                self.stream = Some(stream);
                self.reported = 0;
            }
            Err(status) => match status.code() {
                Code::Unavailable => {
                    world.reach.hit("agent: refused, as the voter does not know it")
                }
                Code::FailedPrecondition if state.check_speaks(speaks).is_err() => {
                    world.reach.hit("version: an agent with an old program is refused");
                    // Whoever runs it reads why, and starts another program.
                    world.old.remove(&self.number);
                }
                Code::FailedPrecondition => {
                    world.reach.hit("agent: refused, as its epoch is over");
                    self.ask_to_register(world);
                }
                // The generation does not know it any more, since it is younger than the backup.
                Code::NotFound if !state.generation().is_first() => self.begin_anew(world),
                code => panic!("agent {} is refused: {code:?}, {}", self.number, status.message()),
            },
        }
    }

    /// The leader's answer to a registration says which epoch the node has by now. An agent that registers anew waits for its
    /// own; a voter that became one hears of it here.
    fn ask_to_register(&self, world: &mut World) {
        let now = world.now;
        let host = world.host(self.number);
        host.next_renewal = host.next_renewal.min(now);
    }

    pub(super) fn follow(&mut self, world: &mut World, node: NodeId, mut stream: Stream) {
        let (now, number) = (world.now, stream.host);
        let (up, down) =
            (world.net.is_cut(self.number, number), world.net.is_cut(number, self.number));
        let listens = world.host(self.number).listen;
        let host = world.host(number);
        if !host.is_up()
            || host.life != Some(stream.life)
            || [listens, host.listen] != stream.places
        {
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
                Ok(message) => {
                    let directory = &world.host(self.number).directory;
                    directory.served_by(stream.voter, stream.places[1]);
                    self.take(world, node, *message);
                }
                Err(code) => {
                    let is_first = world.host(self.number).generations.ours().is_first();
                    assert!(code != Code::NotFound || !is_first, "node {node} was not removed");
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
        let is_due = now >= self.reported + HEARTBEAT;
        if stream.up.is_none() && is_due {
            self.reported = now;
            let due = now + 1 + world.rng.below(5);
            stream.up = world.own_status(self.number).map(|status| (due, status));
        }
        self.stream = Some(stream);
    }
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
