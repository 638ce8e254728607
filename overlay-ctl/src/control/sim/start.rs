//! How a host starts: with a log that it makes or finds, on a disk that may fail meanwhile.

use super::{disaster::CLUSTER, ledger::read_as_old, world::is_newer};
use super::{
    host::{Seen, TICK},
    world::{Ending, World, note},
};
use crate::control::consensus::{Core, FatalError, Identity, LogStore, OpenError};
use crate::{
    control::{peers::Generations, state::State},
    durable::simulated::Fault as DiskFault,
    model::Generation,
};

/// What came of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// It runs.
    Up,
    /// Its disk failed. It may be tried again.
    Failed,
    /// Its log has forgotten something, and must not be used.
    Forgot,
}

pub(super) fn identity(host: u64, raft_id: u64) -> Identity {
    Identity { cluster: CLUSTER, name: format!("h{host}"), raft_id }
}

/// The first index of a log.
const FIRST: u64 = 1;

/// Why an attempt to open or to make a log failed.
enum Failure {
    Open(OpenError),
    Fatal(FatalError),
    Turn(FatalError),
}

impl World {
    /// The first host makes a cluster of its own, which begins with this state.
    pub(super) fn bootstrap(&mut self, number: u64, state: &State) {
        self.truth.begins(FIRST, state);
        let state = state.snapshot();
        let host = self.host(number);
        (host.life, host.last_life) = (Some(1), Some(1));
        drop(LogStore::bootstrap_in(&host.disk, identity(number, 1), &state).unwrap());
        self.lives.insert(1, number);
        assert_eq!(self.start(number), Started::Up);
    }

    /// Starts a host that has a life: with the log on its disk, or with an empty one if it has none yet.
    pub(super) fn start(&mut self, number: u64) -> Started {
        let life = self.host(number).life.expect("a host that has an id");
        read_as_old(self.old.contains(&number));
        let opened = self.open(number, life);
        let disk_failed = self.host(number).disk.failed();
        match opened {
            Ok(()) => {
                note!(self, "host {number} starts as {life}");
                self.power_on(number);
                Started::Up
            }
            Err(Failure::Fatal(error) | Failure::Turn(error)) if is_newer(&error) => {
                assert!(
                    self.old.contains(&number),
                    "host {number}: {}",
                    crate::error_chain(&error)
                );
                note!(self, "host {number} does not start, as its program is too old: {error}");
                self.reach.hit("version: an old program does not start with what it can't read");
                self.end(number, Ending::Kill);
                Started::Failed
            }
            Err(Failure::Open(OpenError::Amnesia { detail, .. })) => {
                let host = self.host(number);
                assert!(host.faults.is_rolled_back, "host {number} forgot by itself: {detail}");
                host.end();
                note!(self, "host {number} is refused, since it forgot: {detail}");
                self.reach.hit("members: forgot, and was refused");
                Started::Forgot
            }
            Err(failure) => {
                let why = match failure {
                    Failure::Open(error) => crate::error_chain(&error),
                    Failure::Fatal(error) | Failure::Turn(error) => crate::error_chain(&error),
                };
                let is_full = self.host(number).faults.is_full;
                assert!(disk_failed || is_full, "host {number} can't start: {why}");
                if disk_failed {
                    self.reach.hit("fault: disk failed at the start");
                }
                let ending = if self.rng.percent(50) { Ending::Kill } else { Ending::PowerCut };
                note!(self, "host {number} does not start, since its disk failed: {ending:?}");
                self.end(number, ending);
                Started::Failed
            }
        }
    }

    fn open(&mut self, number: u64, life: u64) -> Result<(), Failure> {
        let disk = self.host(number).disk.clone();
        let store = match LogStore::open_in(&disk, None).map_err(Failure::Open)? {
            Some(store) => store,
            None => {
                let generation = self.host(number).generations.ours().number();
                if !self.is_healed && self.rng.percent(8) {
                    let fault = DiskFault::any(&mut self.rng);
                    disk.fail_at(self.rng.below(20), fault);
                }
                let made = LogStore::join_generation_in(&disk, identity(number, life), generation);
                if made.is_err() && disk.failed() {
                    self.reach.hit("fault: disk failed while its log was made");
                }
                made.map_err(Failure::Open)?
            }
        };
        assert_eq!(store.identity().raft_id, life, "host {number} has another log");
        if store.snapshot_metadata().index > 1 {
            self.reach.hit("raft: restarted from a snapshot");
        }
        self.host(number).generations = Generations::new(Generation::from_wire(store.generation()));
        let settings = self.settings(number);
        let core = Core::new(settings, store, self.ledger(number)).map_err(Failure::Fatal)?;
        let now = self.now;
        // No two clocks are in step.
        let first = now + 1 + self.rng.below(TICK);
        let host = self.host(number);
        host.end();
        host.next_tick = first;
        let restored = core.machine().restored;
        host.seen = Seen { restored, ..Seen::default() };
        host.core = Some(core);
        self.first_turn(number).map_err(Failure::Turn)
    }
}
