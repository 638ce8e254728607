//! What a node does when the disk of its state folder is full: it leaves out what does not fit, says so, and goes on.
//!
//! A write that fails ends the node, for lack of room as for any other reason: what the disk holds is unknown then. So
//! room is looked for before the write. A follower takes no entries that do not fit, as if their message was lost; it
//! still votes. A leader hands over, or refuses proposals. A snapshot is put off. Nothing of this is remembered: when
//! there is room again, the node goes on by itself.

use super::{Core, apply::is_members};
use crate::{
    control::consensus::{Alarm, Lack, ProposeError, Room, StateMachine},
    durable::Space,
};
use raft::{
    RaftLog, Storage,
    eraftpb::{Entry, Message, MessageType, Snapshot},
};

/// Bytes that must stay free for what a node can't leave out: votes, terms, commits and changes of members.
const RESERVE: u64 = 1 << 20;
/// What the database takes for each byte that is stored, at most: a large value gets a power of two of pages.
const FACTOR: u64 = 2;
/// What it takes for an entry besides its data.
const ENTRY: u64 = 64;
/// Of so many bytes of entries that a snapshot replaces, the database takes one to note which pages they leave.
const FREED: u64 = 64;

/// What is free for something. Entries may use what the file system keeps for root, so that a voter goes on when others
/// have filled the disk; snapshots leave it alone.
fn free_for(what: Room, space: Space) -> u64 {
    match what {
        Room::Entries => space.all,
        Room::Snapshot | Room::Received => space.common,
    }
}

/// What is known of the room in the state folder.
#[derive(Debug, Default)]
pub(super) struct Free {
    /// What is free beyond what is taken already. `None`: it was not looked at since the last write.
    left: Option<Space>,
    /// Why entries are not taken.
    entries: Option<Lack>,
    /// Why there is no newer snapshot.
    snapshot: Option<Lack>,
    /// Why the leader's snapshot is not taken, and that snapshot's index.
    received: Option<(u64, Lack)>,
    /// The tick at which a snapshot that was put off is tried again.
    retry: u64,
    /// The tick at which this node last handed its leadership over for lack of room.
    handed_over: Option<u64>,
}

/// Whether an entry can be left out. The first entry of a leader, and changes of members, have the room that is kept: a
/// voter whose log ends where theirs begins takes them, so that somebody leads. One that lags leaves them out with the
/// commands before them.
fn is_command(entry: &Entry) -> bool {
    !entry.data.is_empty() && !is_members(entry)
}

/// What entries take on the disk.
fn cost<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> u64 {
    let bytes = |entry: &Entry| (entry.data.len() + entry.context.len()) as u64;
    entries.into_iter().map(|entry| FACTOR * bytes(entry) + ENTRY).sum()
}

/// The entries of a message that the engine would write. It writes none if the entry before them is not here, and answers
/// the leader so, which then knows where to begin.
fn new_entries<'a, T: Storage>(log: &RaftLog<T>, message: &'a Message) -> Vec<&'a Entry> {
    if message.index < log.committed || !log.match_term(message.index, message.log_term) {
        return Vec::new();
    }
    message.entries.iter().filter(|entry| !log.match_term(entry.index, entry.term)).collect()
}

impl<S: StateMachine> Core<S> {
    /// Whether what the message brings fits on the disk. A message that brings nothing always does.
    pub(super) fn has_room_for(&mut self, message: &Message) -> bool {
        // The engine takes nothing from an older term.
        if message.term < self.node.raft.term {
            return true;
        }
        match (message.get_msg_type(), &message.snapshot) {
            (MessageType::MsgAppend, _) => {
                let new = new_entries(&self.node.raft.raft_log, message);
                let has_commands = new.iter().any(|entry| is_command(entry));
                !has_commands || self.log_may_grow().is_ok() && self.take(cost(new)).is_ok()
            }
            (MessageType::MsgSnapshot, Some(snapshot)) => self.has_room_for_received(snapshot),
            _ => true,
        }
    }

    /// Whether a snapshot of the leader fits on the disk.
    fn has_room_for_received(&mut self, snapshot: &Snapshot) -> bool {
        let meta = snapshot.metadata.clone().unwrap_or_default();
        let log = &self.node.raft.raft_log;
        if meta.index < log.committed || log.match_term(meta.index, meta.term) {
            // The engine ignores it, or takes no more than its index.
            return true;
        }
        match self.find_room(Room::Received, FACTOR * snapshot.data.len() as u64) {
            Ok(()) => true,
            Err(lack) => {
                if self.free.received.is_none() {
                    tracing::warn!("{lack}: it is not taken, and this node falls behind");
                }
                self.free.received = Some((meta.index, lack));
                false
            }
        }
    }

    /// Whether this leader can propose the entries. Otherwise the error for their callers: another voter is asked to
    /// lead, but only once in a while, since its disk may be no better.
    pub(super) fn room_to_propose(&mut self, entries: &[Entry]) -> Result<(), ProposeError> {
        let Err(lack) = self.log_may_grow().and_then(|()| self.take(cost(entries))) else {
            return Ok(());
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
        let bytes = FACTOR * bytes as u64 + self.unsnapshotted / FREED;
        let Err(lack) = self.find_room(Room::Snapshot, bytes) else { return true };
        self.free.retry = self.ticks + self.config.room_ticks;
        if self.free.snapshot.is_none() {
            tracing::warn!("{lack}: it is put off, and the log grows meanwhile");
        }
        put(&mut self.free.snapshot, lack);
        false
    }

    /// Notes that what was taken is written.
    pub(super) fn room_is_stale(&mut self) {
        self.free.left = None;
    }

    /// Notes that a snapshot is stored, of this node's state or the leader's: none is missing.
    pub(super) fn snapshot_is_stored(&mut self) {
        self.room_is_stale();
        self.measures.note_snapshot();
        self.unsnapshotted = 0;
        self.snapshot_version = self.machine.snapshot_version();
        if self.free.snapshot.take().is_some() | self.free.received.take().is_some() {
            tracing::info!("there was room for a snapshot");
        }
    }

    /// Looks, while something does not fit, whether it would now.
    pub(super) fn look_for_room(&mut self) {
        if self.room_alarms().next().is_none() {
            return;
        }
        let space = self.store().space();
        let fits = |lack: &Lack| free_for(lack.what, space) >= lack.needed;
        let Free { entries, snapshot, received, .. } = &mut self.free;
        for lack in [entries, snapshot] {
            if let Some(gone) = lack.take_if(|lack| fits(lack)) {
                tracing::info!(what = ?gone.what, "there is room again");
            }
        }
        // A follower may get the entries that it lacked from another leader.
        let applied = self.applied;
        received.take_if(|(index, lack)| fits(lack) || applied >= *index);
    }

    /// What does not fit.
    pub(super) fn room_alarms(&self) -> impl Iterator<Item = Alarm> {
        let Free { entries, snapshot, received, .. } = &self.free;
        let received = received.as_ref().map(|(_, lack)| lack);
        entries.iter().chain(snapshot).chain(received).cloned().map(Alarm::NoRoom)
    }

    /// Whether the log has room to grow until there is a snapshot again; otherwise why there is none.
    fn log_may_grow(&self) -> Result<(), Lack> {
        match &self.free.snapshot {
            Some(lack) if self.unsnapshotted > self.config.log_bytes_max => Err(lack.clone()),
            _ => Ok(()),
        }
    }

    /// Takes the room for entries, if there is some.
    fn take(&mut self, bytes: u64) -> Result<(), Lack> {
        self.find_room(Room::Entries, bytes).inspect_err(|lack| {
            if self.free.entries.is_none() {
                tracing::warn!("{lack}: none are taken until there is room");
            }
            put(&mut self.free.entries, lack.clone());
        })
    }

    /// Takes so many bytes, if they are free.
    fn find_room(&mut self, what: Room, bytes: u64) -> Result<(), Lack> {
        let left = self.space_left();
        let (free, needed) = (free_for(what, left), RESERVE + bytes);
        if free < needed {
            let path = self.store().folder().to_owned();
            return Err(Lack { path, what, free, needed });
        }
        let Space { all, common } = left;
        let left = Space { all: all - bytes, common: common.saturating_sub(bytes) };
        self.free.left = Some(left);
        Ok(())
    }

    fn space_left(&mut self) -> Space {
        match self.free.left {
            Some(left) => left,
            None => *self.free.left.insert(self.store().space()),
        }
    }
}

/// Notes a lack. Of two, the one that needs more is kept, so that an alarm does not come and go with the size of what comes
/// next.
fn put(known: &mut Option<Lack>, lack: Lack) {
    if known.as_ref().is_none_or(|known| known.needed <= lack.needed) {
        *known = Some(lack);
    }
}
