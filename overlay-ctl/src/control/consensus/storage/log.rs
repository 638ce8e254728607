//! Reads of the log, as the Raft engine asks for them.

use std::collections::VecDeque;

use raft::{
    GetEntriesContext, RaftState, Storage,
    eraftpb::{Entry, Snapshot},
};
use raft_prost::Message as _;
use redb::ReadableDatabase;

use super::{LOG, LogStore, StoreError};
use crate::control::consensus::codec;

/// The bytes of entries that are kept in memory. Followers that are further behind are served from disk.
const TAIL_BYTES: usize = 32 << 20;

/// The end of the log, kept in memory.
#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    last: u64,
}

impl Tail {
    /// The last index of the log.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Sets the end of the log to `last`, with nothing in memory.
    pub(super) fn reset(&mut self, last: u64) {
        *self = Self { last, ..Self::default() };
    }

    /// Appends entries, and drops those that `entries` replace.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.entries.back().is_some_and(|entry| entry.index >= first.index) {
            self.bytes -= self.entries.pop_back().map_or(0, |entry| size(&entry));
        }
        for entry in entries {
            self.bytes += size(entry);
            self.last = entry.index;
            self.entries.push_back(entry.clone());
        }
        while self.bytes > TAIL_BYTES {
            self.bytes -= self.entries.pop_front().map_or(0, |entry| size(&entry));
        }
    }

    /// Drops the entries up to `index`.
    pub(super) fn compact(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            self.bytes -= self.entries.pop_front().map_or(0, |entry| size(&entry));
        }
    }

    fn first(&self) -> u64 {
        self.entries.front().map_or(self.last + 1, |entry| entry.index)
    }

    fn from(&self, index: u64) -> impl Iterator<Item = &Entry> {
        let skip = usize::try_from(index.saturating_sub(self.first())).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip)
    }
}

fn size(entry: &Entry) -> usize {
    // The encoded length plus roughly what an `Entry` takes in memory.
    entry.data.len() + entry.context.len() + 96
}

impl LogStore {
    /// The first index kept.
    fn first(&self) -> u64 {
        self.truncated.0 + 1
    }

    /// The term of the entry at `index`; `None` if the entry is not stored.
    pub(super) fn entry_term(&self, index: u64) -> Result<Option<u64>, StoreError> {
        if index == self.truncated.0 {
            return Ok(Some(self.truncated.1));
        }
        if index < self.first() || index > self.tail.last() {
            return Ok(None);
        }
        if index >= self.tail.first() {
            return Ok(self.tail.from(index).next().map(|entry| entry.term));
        }
        let table = self.db.begin_read()?.open_table(LOG)?;
        let Some(bytes) = table.get(index)? else { return Err(StoreError::Missing("a log entry")) };
        Ok(Some(decode(bytes.value())?.term))
    }

    /// The entries from `low` up to but not including `high`: at most `max` encoded bytes, but at least one entry.
    fn read(&self, low: u64, high: u64, max: u64) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut take = |entry: Entry| {
            bytes += entry.encoded_len() as u64;
            let fits = entries.is_empty() || bytes <= max;
            if fits {
                entries.push(entry);
            }
            fits
        };
        let split = self.tail.first().clamp(low, high);
        if low < split {
            let table = self.db.begin_read()?.open_table(LOG)?;
            for item in table.range(low..split)? {
                if !take(decode(item?.1.value())?) {
                    return Ok(entries);
                }
            }
        }
        for entry in self.tail.from(split).take_while(|entry| entry.index < high) {
            if !take(entry.clone()) {
                break;
            }
        }
        Ok(entries)
    }
}

fn decode(bytes: &[u8]) -> Result<Entry, StoreError> {
    codec::decode(bytes).map_err(|source| StoreError::Malformed { what: "a log entry", source })
}

impl From<StoreError> for raft::Error {
    fn from(error: StoreError) -> Self {
        Self::Store(raft::StorageError::Other(Box::new(error)))
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let members = self.snapshot.conf_state.clone().unwrap_or_default();
        Ok(RaftState::new(self.hard_state.clone(), members))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(raft::Error::Store(raft::StorageError::Compacted));
        }
        if high > self.tail.last() + 1 {
            return Err(raft::Error::Store(raft::StorageError::Unavailable));
        }
        Ok(self.read(low, high, max_size.into().unwrap_or(u64::MAX))?)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.truncated.0 {
            return Err(raft::Error::Store(raft::StorageError::Compacted));
        }
        self.entry_term(index)?.ok_or(raft::Error::Store(raft::StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.tail.last())
    }

    /// The stored snapshot, if `to` can use it: a follower refuses a snapshot that does not name it as a member.
    /// Otherwise the request is noted, and the core makes a new snapshot after this Ready.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        if self.withheld.contains(&to) {
            return Err(raft::Error::Store(raft::StorageError::SnapshotTemporarilyUnavailable));
        }
        let members = self.snapshot.conf_state.clone().unwrap_or_default();
        let named = members.voters.contains(&to)
            || members.learners.contains(&to)
            || members.voters_outgoing.contains(&to)
            || planted!(ConfWithoutSnapshot);
        if !named || self.snapshot.index < request_index {
            self.wanted.borrow_mut().insert(to);
            return Err(raft::Error::Store(raft::StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(Snapshot { data: self.snapshot_data()?, metadata: Some(self.snapshot.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::consensus::{Identity, storage::Batch},
        durable::simulated::SimulatedFolder,
    };

    /// A few of these are more than the tail keeps.
    const LARGE: usize = TAIL_BYTES / 4;

    fn entry(index: u64) -> Entry {
        Entry { index, data: vec![7; LARGE], ..Entry::default() }
    }

    /// The indices of the entries in memory.
    fn kept(tail: &Tail) -> Vec<u64> {
        tail.from(0).map(|entry| entry.index).collect()
    }

    #[test]
    fn the_newest_entries_are_kept_within_a_limit() {
        let with_context = Entry { index: 5, context: vec![7; LARGE], ..Entry::default() };
        let mut tail = Tail::default();
        for entry in [entry(1), entry(2), entry(3), entry(4), with_context] {
            tail.append(&[entry]);
        }
        assert_eq!((kept(&tail), tail.first(), tail.last()), (vec![3, 4, 5], 3, 5));
        assert_eq!(tail.from(4).map(|entry| entry.index).collect::<Vec<_>>(), [4, 5]);
    }

    /// Otherwise the memory would seem full after some time, and every read would go to the disk.
    #[test]
    fn what_was_replaced_or_dropped_takes_no_room() {
        let mut tail = Tail::default();
        tail.append(&[entry(1), entry(2)]);
        for _ in 0..10 {
            tail.append(&[entry(2)]);
        }
        assert_eq!((kept(&tail), tail.last()), (vec![1, 2], 2));
        for index in 3..10 {
            tail.append(&[entry(index)]);
            tail.compact(index - 2);
            assert_eq!((kept(&tail), tail.first()), (vec![index - 1, index], index - 1));
        }
        tail.compact(9);
        assert_eq!((kept(&tail), tail.first(), tail.last()), (vec![], 10, 9));
        tail.reset(20);
        assert_eq!((tail.first(), tail.last()), (21, 20));
    }

    #[test]
    fn what_a_snapshot_replaces_takes_no_memory() {
        let identity = Identity { cluster: uuid::Uuid::nil(), name: "a".into(), raft_id: 1 };
        let folder = SimulatedFolder::default();
        let mut store = LogStore::bootstrap_in(&folder, identity, b"empty").unwrap();
        let entries = [2, 3, 4, 5].map(|index| Entry { index, term: 1, ..Entry::default() });
        store.write(&Batch { entries: &entries, ..Batch::default() }).unwrap();
        assert_eq!(kept(&store.tail), [2, 3, 4, 5]);
        store.save_snapshot(4, Default::default(), b"at 4", 1).unwrap();
        assert_eq!(kept(&store.tail), [4, 5]);
    }
}
