//! A user of the cluster: writes, asks again where no answer comes, and reads.

use super::{
    commands,
    host::{Item, Pending},
    request::Request,
    world::{Actor, World, note},
};
use tokio::sync::oneshot::{self, error::TryRecvError};

enum Job {
    Write(Request),
    /// A read of a host, and the greatest index that was acknowledged when it was asked for.
    Read {
        host: u64,
        floor: u64,
        answer: Pending<u64>,
        until: u64,
    },
}

/// One user, with one request at a time.
#[derive(Default)]
pub(super) struct Client {
    job: Option<Job>,
    next: u64,
    is_finishing: bool,
}

/// So often a user asks for the same at most.
const TRIES: u64 = 20;

impl Client {
    fn begin(&mut self, world: &mut World) {
        if world.rng.percent(70) {
            let hosts = u64::try_from(world.voters).unwrap();
            let command = commands::any(&mut world.rng, hosts, world.agents);
            self.job = Some(Job::Write(Request::new(world, command)));
            return;
        }
        let up = world.up();
        let Some(host) = world.rng.pick(&up) else { return };
        let (reply, answer) = oneshot::channel();
        world.host(host).ask(Item::Read(reply));
        let (floor, until) = (world.truth.floor(), world.now + 600);
        self.job = Some(Job::Read { host, floor, answer, until });
    }

    fn is_done(job: &mut Job, world: &mut World) -> bool {
        match job {
            // Nobody knows then what came of it.
            Job::Write(request) => request.poll(world).is_some() || request.tries() > TRIES,
            Job::Read { host, floor, answer, until } => {
                match answer.try_recv() {
                    Ok(Ok(index)) => {
                        note!(world, "host {host} answers a read at {index}");
                        assert!(
                            index >= *floor,
                            "a read was answered at {index}, and {floor} was acknowledged before"
                        );
                        world.reach.hit("answer: read");
                    }
                    Ok(Err(error)) => world.hit_error(&error),
                    Err(TryRecvError::Closed) => world.reach.hit("answer: stopped"),
                    Err(TryRecvError::Empty) => return world.now >= *until,
                }
                true
            }
        }
    }
}

impl Actor for Client {
    fn step(&mut self, world: &mut World) {
        match &mut self.job {
            Some(job) => {
                let is_done = Self::is_done(job, world);
                if is_done {
                    self.job = None;
                    self.next = world.now + 1 + world.rng.below(40);
                }
            }
            None if !self.is_finishing && world.now >= self.next => self.begin(world),
            None => {}
        }
    }

    fn finish(&mut self) {
        self.is_finishing = true;
    }

    fn is_at_rest(&self, _: &World) -> bool {
        self.job.is_none()
    }
}
