//! The book of a run: what each client asked and was answered, and when.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use overlay_lab::linear::Call;

use super::{dice::Dice, name::Operation};

/// Names at one time. There are few, so that clients meet.
const NETWORKS: usize = 4;
const ENDPOINTS: usize = 8;
/// A name is used no more after so many calls, or so many without an answer: each of these doubles what is to be searched.
const CALLS_MAX: u32 = 300;
const UNKNOWN_MAX: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Network,
    Endpoint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// On this host, if it is an endpoint.
    Create {
        host: Option<usize>,
    },
    Remove,
    Show,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) id: u64,
    pub(super) revision: u64,
    pub(super) host: Option<usize>,
    /// What nobody else may have at the same time, each with what it is.
    pub(super) owns: Vec<(&'static str, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Made(Made),
    Removed {
        revision: u64,
    },
    Shown {
        id: u64,
        host: Option<usize>,
    },
    /// The name is somebody's.
    Exists,
    /// The name is nobody's.
    Absent,
    /// Nothing came of it, or nothing is left of it.
    Refused(String),
    /// It may have been carried out, or may still be.
    Unknown(String),
}

/// One call, with all its repetitions under one request id.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) ask: Ask,
    pub(super) client: usize,
    /// The host that was asked last.
    pub(super) asked: usize,
    pub(super) attempts: u32,
    /// Microseconds since the begin of the run.
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) answer: Answer,
    /// An earlier attempt may have been carried out, or may still be.
    pub(super) is_doubted: bool,
}

/// The removal of a node, by a fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removal {
    pub(super) host: usize,
    pub(super) sent: u64,
    pub(super) answered: u64,
}

struct Slot {
    kind: Kind,
    generation: u32,
    calls: u32,
    unknown: u32,
}

pub(super) struct Book {
    begun: Instant,
    slots: Mutex<Vec<Slot>>,
    records: Mutex<Vec<Record>>,
    removals: Mutex<Vec<Removal>>,
}

/// A name that a client may use now.
pub(super) struct Drawn {
    slot: usize,
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Book {
    pub(super) fn new() -> Self {
        let slot = |kind| Slot { kind, generation: 0, calls: 0, unknown: 0 };
        let slots = (0..NETWORKS).map(|_| slot(Kind::Network));
        let slots = slots.chain((0..ENDPOINTS).map(|_| slot(Kind::Endpoint)));
        Self {
            begun: Instant::now(),
            slots: Mutex::new(slots.collect()),
            records: Mutex::default(),
            removals: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A name for the next call. Those that only read do not wear it out.
    pub(super) fn draw(&self, dice: &mut Dice, only_reads: bool) -> Drawn {
        let mut slots = lock(&self.slots);
        let slot = dice.below(slots.len());
        let it = &mut slots[slot];
        if !only_reads && (it.calls >= CALLS_MAX || it.unknown >= UNKNOWN_MAX) {
            (it.generation, it.calls, it.unknown) = (it.generation + 1, 0, 0);
        }
        it.calls += u32::from(!only_reads);
        let letter = if it.kind == Kind::Network { 'n' } else { 'e' };
        Drawn { slot, kind: it.kind, name: format!("{letter}{slot}-{}", it.generation) }
    }

    pub(super) fn note(&self, drawn: &Drawn, record: Record) {
        if record.ask != Ask::Show && record.is_pending() {
            lock(&self.slots)[drawn.slot].unknown += 1;
        }
        lock(&self.records).push(record);
    }

    pub(super) fn note_removal(&self, removal: Removal) {
        lock(&self.removals).push(removal);
    }

    pub(super) fn close(self) -> (Vec<Record>, Vec<Removal>) {
        let Self { begun: _, slots: _, records, removals } = self;
        let records = records.into_inner().unwrap_or_else(PoisonError::into_inner);
        (records, removals.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// Returns true if the call may still be carried out after its answer.
    pub(super) fn is_pending(&self) -> bool {
        let is_told = matches!(self.answer, Answer::Made(_) | Answer::Removed { .. });
        matches!(self.answer, Answer::Unknown(_)) || (self.is_doubted && !is_told)
    }

    /// The revision of what the call wrote.
    pub(super) fn revision(&self) -> Option<u64> {
        match &self.answer {
            Answer::Made(made) => Some(made.revision),
            Answer::Removed { revision } => Some(*revision),
            Answer::Shown { .. }
            | Answer::Exists
            | Answer::Absent
            | Answer::Refused(_)
            | Answer::Unknown(_) => None,
        }
    }

    /// What the call says of its name's history, where `number` is that of the call.
    pub(super) fn calls(&self, number: usize) -> Vec<Call<Operation>> {
        let call = |until, is_sure, operation| Call { sent: self.sent, until, is_sure, operation };
        let sure = |operation| call(self.answered, true, operation);
        let maybe = |until, operation| call(until, false, operation);
        // Made, and taken back by whoever leads.
        let tried = |until, host| {
            let made = Operation::Made { call: number, id: None, host };
            vec![maybe(until, made), maybe(until, Operation::TakenBack { call: number })]
        };
        let mut calls = match (self.ask, &self.answer) {
            (Ask::Create { .. }, Answer::Made(made)) => {
                let Made { id, host, .. } = *made;
                vec![sure(Operation::Made { call: number, id: Some(id), host })]
            }
            (Ask::Create { .. }, Answer::Exists) => vec![sure(Operation::Exists)],
            // It may have stood until its node said that it can't make it, or until somebody removed it: before the answer.
            (Ask::Create { host }, Answer::Refused(_)) if !self.is_pending() => {
                let mut calls = tried(self.answered.saturating_sub(1), host);
                let (sent, operation) = (self.answered, Operation::Gone { call: number });
                calls.push(Call { sent, ..sure(operation) });
                calls
            }
            (Ask::Remove, Answer::Removed { .. }) => vec![sure(Operation::Removed)],
            (Ask::Show, &Answer::Shown { id, host }) => vec![sure(Operation::Shown { id, host })],
            (Ask::Remove | Ask::Show, Answer::Absent) => vec![sure(Operation::Absent)],
            _ => Vec::new(),
        };
        if self.is_pending() {
            match self.ask {
                Ask::Create { host } => calls.extend(tried(u64::MAX, host)),
                Ask::Remove => calls.push(maybe(u64::MAX, Operation::Removed)),
                Ask::Show => {}
            }
        }
        calls
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, ask, client, asked, attempts, sent, answered, answer, is_doubted } =
            self;
        let doubt = if *is_doubted { ", earlier attempts unknown" } else { "" };
        write!(
            f,
            "{sent:>9} {answered:>9} {kind:?} {name} {ask:?}: {answer:?} (client {client}, at h{}, \
             {attempts} attempts{doubt})",
            asked + 1
        )
    }
}

impl Removal {
    pub(super) fn call(self) -> Call<Operation> {
        let Self { host, sent, answered } = self;
        Call { sent, until: answered, is_sure: true, operation: Operation::NodeRemoved { host } }
    }
}
