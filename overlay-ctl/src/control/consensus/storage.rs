//! The durable log: entries, votes and the last snapshot, in one redb database.
//!
//! Everything a Ready asks for goes into one transaction, so a crash leaves either all of it or
//! nothing. The state machine itself is not here: it is rebuilt from the snapshot and the entries
//! after it, so the membership to start with is the snapshot's too.

mod begin;
mod discard;
mod log;
mod open;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

use self::log::Tail;
pub use self::{
    begin::{Beginning, Rest, Voting},
    open::OpenError,
};
use super::{
    codec,
    identity::{HighWater, Identity, Mark},
};
use crate::durable::Space;

/// Log index -> encoded entry.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Single values; their names follow.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// The data of the snapshot, in its own table so that it is not copied with other values.
const SNAPSHOT: TableDefinition<'_, (), &[u8]> = TableDefinition::new("snapshot");

const FORMAT: &str = "format";
const IDENTITY: &str = "identity";
/// The generation of the cluster to which the log belongs; missing: 1.
const GENERATION: &str = "generation";
const HARD_STATE: &str = "hard_state";
/// The snapshot's index, term and members.
const SNAPSHOT_META: &str = "snapshot";
/// Index and term of the entry before the first one kept, as an empty entry.
const TRUNCATED: &str = "truncated";

/// The database could not be read or written. What it holds is unknown until it is opened again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// redb failed: the disk failed, or damage was found late.
    #[error("database")]
    Database(#[source] Box<redb::Error>),
    /// The high-water mark beside the database failed.
    #[error("high-water mark")]
    Mark(#[source] io::Error),
    /// A value cannot be decoded.
    #[error("the value of {what} is malformed")]
    Malformed {
        /// The name of the value.
        what: &'static str,
        /// The codec's error.
        source: raft_prost::DecodeError,
    },
    /// A value is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl StoreError {
    /// Whether the disk was full.
    pub fn is_no_room(&self) -> bool {
        let kind = match self {
            Self::Mark(error) => error.kind(),
            Self::Database(error) => match &**error {
                redb::Error::Io(error) => error.kind(),
                _ => return false,
            },
            Self::Malformed { .. } | Self::Missing(_) => return false,
        };
        matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// The changes that one Ready asks to make durable.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Replaces the whole log.
    pub snapshot: Option<&'a Snapshot>,
    /// Entries to append. Stored entries from the first of these on are replaced.
    pub entries: &'a [Entry],
    /// The new term, vote and commit.
    pub hard_state: Option<&'a HardState>,
}

/// A function that writes a note into a state folder.
type SetUnfit = Box<dyn Fn(&str) -> io::Result<()> + Send>;

/// A function that says how many more bytes a state folder takes.
type SpaceOf = Box<dyn Fn() -> io::Result<Space> + Send>;

/// The durable log of one node. Implements [`raft::Storage`].
pub struct LogStore {
    db: Database,
    path: PathBuf,
    identity: Identity,
    generation: u64,
    mark: Mark,
    /// The second mark, outside the state folder, if the node has a place for one.
    beside: Option<Mark>,
    /// Notes in the state folder that the log must not be used any more, with the reason.
    set_unfit: SetUnfit,
    space: SpaceOf,
    /// The newest state that is known; its commit index may be ahead of `durable_commit`.
    hard_state: HardState,
    durable_commit: u64,
    snapshot: SnapshotMetadata,
    /// Index and term of the entry before the first one kept.
    truncated: (u64, u64),
    tail: Tail,
    /// Peers that need a newer snapshot than the stored one.
    wanted: RefCell<BTreeSet<u64>>,
    /// Peers that get no snapshot for now.
    withheld: BTreeSet<u64>,
    transactions: u64,
}

impl LogStore {
    /// The identity of the node to which this log belongs.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The generation of the cluster to which this log belongs.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Index, term and members of the stored snapshot; index 0 if there is none.
    pub fn snapshot_metadata(&self) -> &SnapshotMetadata {
        &self.snapshot
    }

    /// The data of the stored snapshot.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn snapshot_data(&self) -> Result<Vec<u8>, StoreError> {
        let table = self.db.begin_read()?.open_table(SNAPSHOT)?;
        Ok(table.get(())?.map(|data| data.value().to_vec()).unwrap_or_default())
    }

    /// The folder of the log.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// How many more bytes the folder's disk takes. A disk that does not say counts as one with room.
    pub fn space(&self) -> Space {
        (self.space)().unwrap_or_else(|error| {
            tracing::debug!(%error, "the space in the state folder is not known");
            Space::UNKNOWN
        })
    }

    /// The number of write transactions since the log was opened. Tests use it as the cost of a proposal.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Makes the changes of a Ready durable, in one transaction.
    ///
    /// # Errors
    /// The node must stop, because the engine already relies on data that may not be on disk.
    pub fn write(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        let Batch { snapshot, entries, hard_state } = *batch;
        let mut hard = hard_state.unwrap_or(&self.hard_state).clone();
        hard.commit = hard.commit.max(self.hard_state.commit);
        let meta = snapshot.map(|snapshot| snapshot.metadata.clone().unwrap_or_default());
        if let Some(meta) = &meta {
            hard.commit = hard.commit.max(meta.index);
        }
        let base = meta.as_ref().map_or(self.tail.last(), |meta| meta.index);
        let last = entries.last().map_or(base, |entry| entry.index);
        for mark in std::iter::once(&mut self.mark).chain(&mut self.beside) {
            mark.lower(last).map_err(StoreError::Mark)?;
        }

        let txn = self.db.begin_write()?;
        {
            let mut log = txn.open_table(LOG)?;
            if let (Some(snapshot), Some(meta)) = (snapshot, &meta) {
                log.retain(|_, _| false)?;
                put_snapshot(&txn, meta, &snapshot.data)?;
                put_truncated(&txn, meta.index, meta.term)?;
            }
            if let Some(first) = entries.first() {
                log.retain_in(first.index.., |_, _| planted!(SuffixKept))?;
            }
            for entry in entries {
                log.insert(entry.index, codec::encode(entry).as_slice())?;
            }
        }
        #[cfg(test)]
        let txn = self.apart(txn)?;
        put(&txn, HARD_STATE, &codec::encode(&hard))?;
        self.commit(txn)?;

        if let Some(meta) = meta {
            self.truncated = (meta.index, meta.term);
            self.tail.reset(meta.index);
            self.snapshot = meta;
        }
        self.tail.append(entries);
        self.durable_commit = hard.commit;
        self.hard_state = hard;
        self.record_mark()
    }

    /// Stores a snapshot of the state at `index` and drops the entries more than `keep` behind it.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn save_snapshot(
        &mut self,
        index: u64,
        members: ConfState,
        data: &[u8],
        keep: u64,
    ) -> Result<(), StoreError> {
        let term = self.entry_term(index)?.ok_or(StoreError::Missing("the snapshot's entry"))?;
        let cut = index.saturating_sub(keep);
        let truncated = if cut > self.truncated.0 {
            (cut, self.entry_term(cut)?.ok_or(StoreError::Missing("the first entry"))?)
        } else {
            self.truncated
        };
        let meta = SnapshotMetadata { conf_state: Some(members), index, term };
        // Everything up to the snapshot counts as applied after a restart, so it must also count as committed.
        let mut hard = self.hard_state.clone();
        hard.commit = hard.commit.max(index);

        let txn = self.db.begin_write()?;
        {
            txn.open_table(LOG)?.retain_in(..=truncated.0, |_, _| false)?;
            put_snapshot(&txn, &meta, data)?;
            put_truncated(&txn, truncated.0, truncated.1)?;
            put(&txn, HARD_STATE, &codec::encode(&hard))?;
        }
        self.commit(txn)?;

        self.truncated = truncated;
        self.tail.compact(truncated.0);
        self.snapshot = meta;
        self.durable_commit = hard.commit;
        self.hard_state = hard;
        Ok(())
    }

    /// Notes a newer commit index, which the next transaction writes. Losing it is harmless: the leader sends it
    /// again.
    pub fn note_commit(&mut self, commit: u64) {
        self.hard_state.commit = self.hard_state.commit.max(commit);
    }

    /// Returns true if a commit index was noted that no transaction has written yet.
    #[must_use]
    pub fn commit_waits(&self) -> bool {
        self.durable_commit < self.hard_state.commit
    }

    /// Makes sure that a restart knows `commit` to be committed.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn persist_commit(&mut self, commit: u64) -> Result<(), StoreError> {
        self.note_commit(commit);
        if self.durable_commit < commit { self.write(&Batch::default()) } else { Ok(()) }
    }

    /// Sets which peers get no snapshot for now.
    pub fn withhold_snapshots(&mut self, peers: BTreeSet<u64>) {
        self.withheld = peers;
    }

    /// Takes the list of peers that need a snapshot newer than the stored one.
    pub fn take_wanted(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.wanted.borrow_mut())
    }

    fn commit(&mut self, txn: WriteTransaction) -> Result<(), StoreError> {
        // The default is Durability::Immediate: the data is on disk when this returns.
        txn.commit()?;
        self.transactions += 1;
        Ok(())
    }

    /// Where that bug is planted: the transaction so far, and another one for the rest.
    #[cfg(test)]
    fn apart(&mut self, txn: WriteTransaction) -> Result<WriteTransaction, StoreError> {
        if !planted!(HardStateApart) {
            return Ok(txn);
        }
        self.commit(txn)?;
        Ok(self.db.begin_write()?)
    }

    /// The last index of the log.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.tail.last()
    }

    /// The term of the entry at [`Self::last`]. It is in memory, but for a moment after the log was opened.
    pub(super) fn last_term(&self) -> Result<u64, StoreError> {
        let term = self.entry_term(self.tail.last())?;
        term.ok_or(StoreError::Missing("a log entry"))
    }

    fn held(&self) -> HighWater {
        HighWater { term: self.hard_state.term, last: self.tail.last() }
    }

    fn record_mark(&mut self) -> Result<(), StoreError> {
        let held = self.held();
        for mark in std::iter::once(&mut self.mark).chain(&mut self.beside) {
            mark.record(held).map_err(StoreError::Mark)?;
        }
        Ok(())
    }
}

fn put(txn: &WriteTransaction, name: &str, value: &[u8]) -> Result<(), StoreError> {
    txn.open_table(META)?.insert(name, value)?;
    Ok(())
}

fn put_truncated(txn: &WriteTransaction, index: u64, term: u64) -> Result<(), StoreError> {
    put(txn, TRUNCATED, &codec::encode(&Entry { index, term, ..Entry::default() }))
}

fn put_snapshot(
    txn: &WriteTransaction,
    meta: &SnapshotMetadata,
    data: &[u8],
) -> Result<(), StoreError> {
    put(txn, SNAPSHOT_META, &codec::encode(meta))?;
    txn.open_table(SNAPSHOT)?.insert((), data)?;
    Ok(())
}
