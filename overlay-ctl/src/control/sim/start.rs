//! How a host starts: with a log that it makes or finds, on a disk that may fail meanwhile.

use super::{
    host::{Seen, TICK},
    world::{Ending, World, note},
};
use crate::control::consensus::{
    Core, FatalError, Identity, LogStore, OpenError, StateMachine as _,
};
use uuid::Uuid;

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

fn identity(host: u64, raft_id: u64) -> Identity {
    Identity { cluster: Uuid::from_u128(1), name: format!("h{host}"), raft_id }
}

/// Why an attempt to open or to make a log failed.
enum Failure {
    Open(OpenError),
    Fatal(FatalError),
    Turn(String),
}

impl World {
    /// The first host makes a cluster of its own.
    pub(super) fn bootstrap(&mut self, number: u64) {
        let state = self.ledger().snapshot();
        let host = self.host(number);
        host.life = Some(1);
        drop(LogStore::bootstrap_in(&host.disk, identity(number, 1), &state).unwrap());
        self.lives.insert(1, number);
        assert_eq!(self.start(number), Started::Up);
    }

    /// Starts a host that has a life: with the log on its disk, or with an empty one if it has none yet.
    pub(super) fn start(&mut self, number: u64) -> Started {
        let life = self.host(number).life.expect("a host that has an id");
        let opened = self.open(number, life);
        let disk_failed = self.host(number).disk.failed();
        match opened {
            Ok(()) => {
                note!(self, "host {number} starts as {life}");
                Started::Up
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
                    Failure::Fatal(error) => crate::error_chain(&error),
                    Failure::Turn(why) => why,
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
                let made = LogStore::join_in(&disk, identity(number, life));
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
        let settings = self.settings(number);
        let core = Core::new(settings, store, self.ledger()).map_err(Failure::Fatal)?;
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
