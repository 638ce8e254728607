//! What a node does when the disk of its state folder is full: it leaves out what does not fit, says so, and goes on.
//!
//! A write that fails ends the node, for lack of room as for any other reason: what the disk holds is unknown then. So
//! room is looked for before the write. A follower takes no entries that do not fit, as if their message was lost; it
//! still votes. A leader hands over, or refuses proposals. A snapshot is put off. Nothing of this is remembered: when
//! there is room again, the node goes on by itself.

use super::{Core, apply::is_members};
use crate::control::consensus::{Alarm, Lack, ProposeError, Room, StateMachine};
use raft::eraftpb::{Entry, Message, MessageType};

/// Bytes that must stay free for what a node can't leave out: votes, terms, commits and changes of members.
const RESERVE: u64 = 1 << 20;
/// What the database takes for each byte that is stored, at most: a large value gets a power of two of pages.
const FACTOR: u64 = 2;
/// What it takes for an entry besides its data.
const ENTRY: u64 = 64;

/// What is known of the room in the state folder.
#[derive(Debug, Default)]
pub(super) struct Free {
    /// Bytes that are free beyond what is taken already. `None`: it was not looked at since the last write.
    left: Option<u64>,
    /// Why entries are not taken.
    pub(super) entries: Option<Lack>,
    /// Why there is no newer snapshot.
    pub(super) snapshot: Option<Lack>,
    /// The tick at which a snapshot that was put off is tried again.
    retry: u64,
    /// The tick at which this node last handed its leadership over for lack of room.
    handed_over: Option<u64>,
}

/// Whether an entry can be left out. The first entry of a leader, and changes of members, have the room that is kept:
/// without them nobody leads.
fn is_command(entry: &Entry) -> bool {
    !entry.data.is_empty() && !is_members(entry)
}

/// What entries take on the disk.
fn cost(entries: &[Entry]) -> u64 {
    entries
        .iter()
        .map(|entry| FACTOR * (entry.data.len() + entry.context.len()) as u64 + ENTRY)
        .sum()
}

impl<S: StateMachine> Core<S> {
    /// Whether what the message brings fits on the disk. A message that brings nothing always does.
    pub(super) fn has_room_for(&mut self, message: &Message) -> bool {
        match (message.get_msg_type(), &message.snapshot) {
            (MessageType::MsgAppend, _) if message.entries.iter().any(is_command) => {
                self.take(cost(&message.entries)).is_ok()
            }
            (MessageType::MsgSnapshot, Some(snapshot)) => {
                self.take(FACTOR * snapshot.data.len() as u64).is_ok()
            }
            _ => true,
        }
    }

    /// Whether this leader can propose the entries. Otherwise the error for their callers: another voter is asked to
    /// lead, but only once in a while, since its disk may be no better.
    pub(super) fn room_to_propose(&mut self, entries: &[Entry]) -> Result<(), ProposeError> {
        let has_grown = self.unsnapshotted > self.config.log_bytes_max;
        let lack = match self.free.snapshot.clone().filter(|_| has_grown) {
            Some(lack) => lack,
            None => match self.take(cost(entries)) {
                Ok(()) => return Ok(()),
                Err(lack) => lack,
            },
        };
        if let Some(next) = self.node.raft.lead_transferee {
            return Err(ProposeError::NotLeader { leader: Some(next) });
        }
        let again =
            self.free.handed_over.is_none_or(|at| self.ticks >= at + self.config.room_ticks);
        if again && let Some(next) = self.hand_over() {
            tracing::warn!(to = next, "handing over, for lack of room");
            self.free.handed_over = Some(self.ticks);
            return Err(ProposeError::NotLeader { leader: Some(next) });
        }
        Err(ProposeError::NoRoom(lack))
    }

    /// Whether a snapshot that was put off is still to wait.
    pub(super) fn snapshot_waits(&self) -> bool {
        self.free.snapshot.is_some() && self.ticks < self.free.retry
    }

    /// Whether a snapshot of so many bytes fits on the disk; otherwise it is put off.
    pub(super) fn has_room_for_snapshot(&mut self, bytes: usize) -> bool {
        let needed = RESERVE + FACTOR * bytes as u64;
        let free = self.room_left();
        if free >= needed {
            if self.free.snapshot.take().is_some() {
                tracing::info!("there is room for a snapshot again");
            }
            return true;
        }
        self.free.retry = self.ticks + self.config.room_ticks;
        if self.free.snapshot.is_none() {
            let lack = self.lack(Room::Snapshot, free, needed);
            tracing::warn!("{lack}: it is put off, and the log grows meanwhile");
            self.free.snapshot = Some(lack);
        }
        false
    }

    /// Notes that what was taken is written.
    pub(super) fn room_is_stale(&mut self) {
        self.free.left = None;
    }

    /// Looks, while entries are not taken, whether they would be now.
    pub(super) fn look_for_room(&mut self) {
        let Some(lack) = &self.free.entries else { return };
        if self.store().room() >= lack.needed {
            tracing::info!("there is room for entries of the log again");
            self.free.entries = None;
        }
    }

    /// What the operator must see to, if anything.
    pub(super) fn room_alarms(&self) -> impl Iterator<Item = Alarm> {
        self.free.entries.iter().chain(&self.free.snapshot).cloned().map(Alarm::NoRoom)
    }

    /// Takes what costs so much, if there is room for it.
    fn take(&mut self, cost: u64) -> Result<(), Lack> {
        let (free, needed) = (self.room_left(), RESERVE + cost);
        if free >= needed {
            self.free.left = Some(free - cost);
            if self.free.entries.take().is_some() {
                tracing::info!("there is room for entries of the log again");
            }
            return Ok(());
        }
        let lack = self.lack(Room::Entries, free, needed);
        if self.free.entries.is_none() {
            tracing::warn!("{lack}: none are taken until there is room");
            self.free.entries = Some(lack.clone());
        }
        Err(lack)
    }

    fn room_left(&mut self) -> u64 {
        match self.free.left {
            Some(left) => left,
            None => *self.free.left.insert(self.store().room()),
        }
    }

    fn lack(&self, what: Room, free: u64, needed: u64) -> Lack {
        Lack { path: self.store().folder().to_owned(), what, free, needed }
    }
}
