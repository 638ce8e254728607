//! A write that is asked for until it is answered: of one host after another, with the same request id.

use super::{
    host::{Item, Pending},
    world::{World, note},
};
use crate::control::{
    consensus::ProposeError,
    state::{Command, Mutation, Outcome, RequestId},
};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// A write under way.
pub(super) struct Request {
    request: Mutation,
    command: Command,
    /// The greatest index that was acknowledged when it was first asked for.
    floor: u64,
    tries: u64,
    /// Whom it was asked, and until when the answer is waited for.
    asked: Option<(u64, Pending<(u64, Outcome)>, u64)>,
    /// When it is asked again, and of whom, if somebody said so.
    again: u64,
    hint: Option<u64>,
}

impl Request {
    /// A write that nobody was asked for yet.
    pub(super) fn new(world: &mut World, command: Command) -> Self {
        let mut id: RequestId = [0; 16];
        id[..8].copy_from_slice(&world.rng.next().to_be_bytes());
        id[8..].copy_from_slice(&world.rng.next().to_be_bytes());
        Self {
            request: Mutation::new(id, &command),
            command,
            floor: world.truth.floor(),
            tries: 0,
            asked: None,
            again: 0,
            hint: None,
        }
    }

    /// How often it was asked for.
    pub(super) fn tries(&self) -> u64 {
        self.tries
    }

    /// What came of it, once somebody says so. Asks again where an answer is an error, or does not come.
    pub(super) fn poll(&mut self, world: &mut World) -> Option<Outcome> {
        if let Some((host, answer, until)) = &mut self.asked {
            let (host, answered) = (*host, answer.try_recv());
            let answer = match answered {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) if world.now < *until => return None,
                Err(TryRecvError::Empty) => {
                    world.reach.hit("answer: none in time");
                    self.wait(world, None);
                    return None;
                }
                Err(TryRecvError::Closed) => Err(ProposeError::Stopped),
            };
            match answer {
                Ok((index, outcome)) => {
                    self.succeed(world, host, index, &outcome);
                    return Some(outcome);
                }
                Err(error) => {
                    note!(world, "host {host} answers: {error}");
                    world.hit_error(&error);
                    let leader = match error {
                        ProposeError::NotLeader { leader } => leader,
                        _ => None,
                    };
                    let hint = leader.and_then(|life| world.lives.get(&life).copied());
                    self.wait(world, hint);
                }
            }
        } else if world.now >= self.again {
            self.ask(world);
        }
        None
    }

    fn wait(&mut self, world: &mut World, hint: Option<u64>) {
        self.asked = None;
        self.hint = hint;
        self.again = world.now + 1 + world.rng.below(40);
    }

    fn ask(&mut self, world: &mut World) {
        let up = world.up();
        let anybody = world.rng.pick(&up);
        let Some(host) = self.hint.take().filter(|host| up.contains(host)).or(anybody) else {
            return;
        };
        let (reply, answer) = oneshot::channel();
        world.host(host).ask(Item::Propose(self.request, self.command.clone(), reply));
        self.tries += 1;
        self.asked = Some((host, answer, world.now + 40 + world.rng.below(300)));
    }

    fn succeed(&self, world: &mut World, host: u64, index: u64, outcome: &Outcome) {
        note!(world, "host {host} acknowledges {index}: {outcome:?}");
        assert!(
            self.tries > 1 || index > self.floor,
            "a write was answered at {index}, and {} was acknowledged before it was asked for",
            self.floor
        );
        let is_first = world.truth.acknowledged(index, self.request.id, outcome);
        let row = if is_first { "answer: acknowledged" } else { "answer: acknowledged again" };
        world.reach.hit(row);
        if let Err(refusal) = outcome {
            world.reach.hit_refusal(refusal);
        }
    }
}
