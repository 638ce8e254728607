//! Opens and creates the log, and refuses a state folder that must not be used.

use super::{
    FORMAT, GENERATION, HARD_STATE, IDENTITY, LOG, LogStore, META, SNAPSHOT_META, StoreError,
    TRUNCATED, log::Tail, put, put_snapshot, put_truncated,
};
use crate::{
    control::consensus::{
        codec, error,
        identity::{self, HighWater, IDENTITY as IDENTITY_FILE, Identity, MARK, Mark, UNFIT},
        recovery::{self, Refused},
    },
    durable::{DiskFolder, Folder},
};
use raft::eraftpb::{ConfState, Entry, HardState, SnapshotMetadata};
use redb::{Database, ReadableDatabase, ReadableTable};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};
use uuid::Uuid;

const DATABASE: &str = "consensus.redb";
/// The format of the database. It is raised when an older format can no longer be read.
const FORMAT_VERSION: &[u8] = b"1";
/// The first index of a new cluster's log. It is behind a snapshot that every new member has to fetch, because
/// entries before it never existed.
const FIRST: (u64, u64) = (1, 1);
/// The generation of every cluster that was neither restored nor recovered.
const FIRST_GENERATION: u64 = 1;

/// The reason why a state folder was refused. Nothing in the folder was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// According to its identity this node had a log, or a longer one. It may have forgotten a vote, or entries
    /// that it acknowledged: it must not go on under its old id. That life is over.
    #[error(
        "{path}: the log of member {raft_id} is gone or older than it was ({detail}): it must not vote any more"
    )]
    Amnesia {
        /// The database.
        path: PathBuf,
        /// The id that must not vote again.
        raft_id: u64,
        /// What the log lacks.
        detail: String,
    },
    /// The folder belongs to another cluster or node.
    #[error("{path}: belongs to {found}, not to {expected}")]
    ForeignState {
        /// The identity file or the database.
        path: PathBuf,
        /// The cluster or node that was expected.
        expected: String,
        /// The cluster or node that was found.
        found: String,
    },
    /// The file is not what this program wrote.
    #[error("{path}: damaged ({detail}); it was left as it is")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Another process has the database open.
    #[error("{path}: in use by another process")]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The folder already holds a node.
    #[error("{path}: already exists")]
    Exists {
        /// The database or the identity file.
        path: PathBuf,
    },
    /// The folder can't be read or written.
    #[error("{path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The new database can't be written.
    #[error("{path}")]
    Store {
        /// The database.
        path: PathBuf,
        /// The operation that failed.
        source: StoreError,
    },
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

fn refused(path: &Path) -> impl Fn(Refused) -> OpenError + '_ {
    move |refused| {
        let path = path.to_owned();
        match refused {
            Refused::InUse => OpenError::InUse { path },
            Refused::Damaged(detail) => OpenError::Damaged { path, detail },
            Refused::Io(source) => OpenError::Io { path, source },
        }
    }
}

fn unreadable(path: &Path) -> impl Fn(StoreError) -> OpenError + '_ {
    move |error| {
        let (path, detail) = (path.to_owned(), error::chain(&error));
        match error {
            StoreError::Database(error) => match *error {
                redb::Error::Io(source) => refused(&path)(source.into()),
                _ => OpenError::Damaged { path, detail },
            },
            _ => OpenError::Damaged { path, detail },
        }
    }
}

impl LogStore {
    /// Opens the log in the folder `dir`; `None` if no node ever used the folder. `cluster`, if given, is the
    /// cluster to which the log must belong.
    ///
    /// # Errors
    /// See [`OpenError`]. The database is unchanged after any error.
    pub fn open(dir: &Path, cluster: Option<Uuid>) -> Result<Option<Self>, OpenError> {
        Self::open_in(&DiskFolder::new(dir), cluster)
    }

    /// As [`Self::open`], for any kind of folder.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in(folder: &impl Folder, cluster: Option<Uuid>) -> Result<Option<Self>, OpenError> {
        let dir = folder.path();
        let identity_path = dir.join(IDENTITY_FILE);
        let outside = identity::load(folder).map_err(|error| match error.kind() {
            ErrorKind::InvalidData => {
                OpenError::Damaged { path: identity_path.clone(), detail: error.to_string() }
            }
            _ => io_error(&identity_path)(error),
        })?;
        let foreign = |path: &Path, expected: String, found: &Identity| OpenError::ForeignState {
            path: path.to_owned(),
            expected,
            found: format!("node {} of cluster {}", found.raft_id, found.cluster),
        };
        let belongs = |path: &Path, found: &Identity| match cluster {
            Some(cluster) if cluster != found.cluster => {
                Err(foreign(path, format!("cluster {cluster}"), found))
            }
            _ => Ok(()),
        };
        if let Some(outside) = &outside {
            belongs(&identity_path, outside)?;
        }

        let path = dir.join(DATABASE);
        let amnesia = |raft_id, detail: String| {
            Err(OpenError::Amnesia { path: path.clone(), raft_id, detail })
        };
        match (folder.len(DATABASE), &outside) {
            (Ok(0), Some(outside)) => {
                return amnesia(outside.raft_id, "the database is empty".into());
            }
            (Ok(_), _) => {}
            (Err(e), None) if e.kind() == ErrorKind::NotFound => return Ok(None),
            (Err(e), Some(outside)) if e.kind() == ErrorKind::NotFound => {
                return amnesia(outside.raft_id, "the database does not exist".into());
            }
            (Err(e), _) => return Err(io_error(&path)(e)),
        }

        // All checks are made on the probe, before the file is written to.
        let probe = recovery::probe(folder, DATABASE).map_err(refused(&path))?;
        let contents = Contents::read(&probe).map_err(unreadable(&path))?;
        let inside = contents.identity;
        belongs(&path, &inside)?;
        if let Some(outside) = &outside
            && (outside.cluster, outside.raft_id) != (inside.cluster, inside.raft_id)
        {
            if outside.cluster == inside.cluster {
                return amnesia(
                    outside.raft_id,
                    format!("the database is that of member {}", inside.raft_id),
                );
            }
            let expected = format!("node {} of cluster {}", outside.raft_id, outside.cluster);
            return Err(foreign(&path, expected, &inside));
        }
        if let Some(why) = identity::unfit(folder).map_err(io_error(dir))? {
            return amnesia(inside.raft_id, why);
        }
        let mark = Mark::open(folder).map_err(io_error(dir))?;
        let held = HighWater { term: contents.hard_state.term, last: contents.last };
        if let Some(detail) = shortfall(held, mark.value())
            && !planted!(VoteAfterAmnesia)
        {
            return amnesia(inside.raft_id, detail);
        }
        drop(probe);

        if outside.is_none() {
            // The process died between the two steps of creating the node, or only this file was removed. The log
            // is complete, and has the identity.
            identity::store(folder, &inside).map_err(io_error(&identity_path))?;
        }
        let db = recovery::open(folder, DATABASE).map_err(refused(&path))?;
        let contents = Contents::read(&db).map_err(unreadable(&path))?;
        Ok(Some(contents.into_store(db, folder, mark)?))
    }

    /// Keeps a second mark in `dir`, which is outside the state folder and lives as long as the machine runs. Fails
    /// if the mark that is there shows that the log had more: then the state folder was put back from an older
    /// copy.
    ///
    /// # Errors
    /// [`OpenError::Amnesia`], now and at every later start; or the mark can't be used.
    pub fn mark_beside(&mut self, dir: &Path) -> Result<(), OpenError> {
        let Identity { cluster, raft_id, name: _ } = &self.identity;
        let mark = Mark::open_beside(&DiskFolder::new(dir), *cluster, *raft_id);
        let mark = mark.map_err(io_error(dir))?;
        if let Some(detail) = shortfall(self.held(), mark.value()) {
            return Err(self.declare_unfit(detail));
        }
        self.beside = Some(mark);
        self.record_mark().map_err(|source| OpenError::Store { path: dir.to_owned(), source })
    }

    /// The file of the log itself.
    pub const DATABASE: &str = DATABASE;

    /// The files of a log in its state folder. While one of them is written anew, a second one has an extension more.
    pub const FILES: [&str; 4] = [DATABASE, IDENTITY_FILE, MARK, UNFIT];

    /// Removes the second mark that [`Self::mark_beside`] keeps in `dir`, because the node was removed from the
    /// cluster.
    ///
    /// # Errors
    /// The mark cannot be removed.
    pub fn remove_mark_beside(dir: &Path, cluster: Uuid, raft_id: u64) -> io::Result<()> {
        match DiskFolder::new(dir).remove(&identity::name_beside(cluster, raft_id)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Notes beside the log that its node must not vote with it any more, and returns the error that every later
    /// start returns.
    pub fn declare_unfit(&self, detail: String) -> OpenError {
        if let Err(error) = (self.set_unfit)(&detail) {
            // The node stops anyway; without the note the next start may have to find out again.
            tracing::error!(%error, "can't note that the log is unfit");
        }
        OpenError::Amnesia { path: self.path.clone(), raft_id: self.identity.raft_id, detail }
    }

    /// Creates the log of a new cluster whose only member is this node. `state` is the snapshot of
    /// the empty state machine.
    ///
    /// # Errors
    /// [`OpenError::Exists`], or the folder can't be written.
    pub fn bootstrap(dir: &Path, identity: Identity, state: &[u8]) -> Result<Self, OpenError> {
        Self::bootstrap_in(&DiskFolder::new(dir), identity, state)
    }

    /// As [`Self::bootstrap`], for any kind of folder.
    ///
    /// # Errors
    /// As [`Self::bootstrap`].
    pub fn bootstrap_in(
        folder: &impl Folder,
        identity: Identity,
        state: &[u8],
    ) -> Result<Self, OpenError> {
        let members = ConfState { voters: vec![identity.raft_id], ..ConfState::default() };
        let meta = SnapshotMetadata { conf_state: Some(members), index: FIRST.0, term: FIRST.1 };
        let hard = HardState { term: FIRST.1, vote: 0, commit: FIRST.0 };
        Self::create(folder, &NewLog::first(identity, hard, meta, state))
    }

    /// Creates the empty log of a node that will receive everything from a leader.
    ///
    /// # Errors
    /// As [`Self::bootstrap`].
    pub fn join(dir: &Path, identity: Identity) -> Result<Self, OpenError> {
        Self::join_in(&DiskFolder::new(dir), identity)
    }

    /// As [`Self::join`], for any kind of folder.
    ///
    /// # Errors
    /// As [`Self::bootstrap`].
    pub fn join_in(folder: &impl Folder, identity: Identity) -> Result<Self, OpenError> {
        let (hard, meta) = (HardState::default(), SnapshotMetadata::default());
        Self::create(folder, &NewLog::first(identity, hard, meta, &[]))
    }

    pub(super) fn create(folder: &impl Folder, new: &NewLog<'_>) -> Result<Self, OpenError> {
        let NewLog { identity, generation, hard, meta, state, replaces } = new;
        let dir = folder.path();
        let path = dir.join(DATABASE);
        for name in [DATABASE, IDENTITY_FILE] {
            let path = dir.join(name);
            match folder.len(name) {
                Ok(_) if *replaces => {}
                Ok(_) => return Err(OpenError::Exists { path }),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(io_error(&path)(e)),
            }
        }
        folder.make().map_err(io_error(dir))?;
        // The file has another name until it is complete, so that a crash cannot leave half a database.
        let unfinished = format!("{DATABASE}.new");
        let temporary = dir.join(&unfinished);
        match folder.remove(&unfinished) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(io_error(&temporary)(e)),
            _ => {}
        }
        // A mark of an earlier, abandoned attempt would look like a loss.
        identity::clear_unfit(folder).map_err(io_error(dir))?;
        // That of the log which is replaced stays: the new log has more.
        let mark = if *replaces { Mark::open(folder) } else { Mark::create(folder) };
        let mark = mark.map_err(io_error(dir))?;
        let db = recovery::create(folder, &unfinished).map_err(refused(&temporary))?;
        let write = || -> Result<(), StoreError> {
            let txn = db.begin_write()?;
            txn.open_table(LOG)?;
            put(&txn, FORMAT, FORMAT_VERSION)?;
            put(&txn, IDENTITY, &serde_json::to_vec(identity).unwrap_or_default())?;
            if *generation != FIRST_GENERATION {
                put(&txn, GENERATION, &generation.to_be_bytes())?;
            }
            put(&txn, HARD_STATE, &codec::encode(hard))?;
            put_truncated(&txn, meta.index, meta.term)?;
            put_snapshot(&txn, meta, state)?;
            txn.commit()?;
            Ok(())
        };
        write().map_err(|source| OpenError::Store { path: temporary.clone(), source })?;
        folder.rename(&unfinished, DATABASE).map_err(io_error(&path))?;
        folder.sync().map_err(io_error(dir))?;
        identity::store(folder, identity).map_err(io_error(&dir.join(IDENTITY_FILE)))?;
        let contents = Contents::read(&db)
            .map_err(|source| OpenError::Store { path: path.clone(), source })?;
        contents.into_store(db, folder, mark)
    }
}

/// A log that is to be made.
pub(super) struct NewLog<'a> {
    pub(super) identity: Identity,
    pub(super) generation: u64,
    pub(super) hard: HardState,
    pub(super) meta: SnapshotMetadata,
    /// The data of the snapshot.
    pub(super) state: &'a [u8],
    /// It takes the place of the log in the folder, in one step.
    pub(super) replaces: bool,
}

impl<'a> NewLog<'a> {
    /// That of a cluster's first generation, in a folder without a log.
    fn first(identity: Identity, hard: HardState, meta: SnapshotMetadata, state: &'a [u8]) -> Self {
        Self { identity, generation: FIRST_GENERATION, hard, meta, state, replaces: false }
    }
}

/// Returns what a log lacks of what it is known to have had; `None` if it lacks nothing.
fn shortfall(held: HighWater, known: HighWater) -> Option<String> {
    let lacks = held.term < known.term || held.last < known.last;
    lacks.then(|| {
        format!(
            "it held revision {} in term {}, now it ends at revision {} in term {}",
            known.last, known.term, held.last, held.term
        )
    })
}

/// The checked content of a database.
struct Contents {
    identity: Identity,
    generation: u64,
    hard_state: HardState,
    snapshot: SnapshotMetadata,
    truncated: (u64, u64),
    last: u64,
    entries: Vec<Entry>,
}

impl Contents {
    fn read(db: &Database) -> Result<Self, StoreError> {
        fn message<M: raft_prost::Message + Default>(
            meta: &impl ReadableTable<&'static str, &'static [u8]>,
            what: &'static str,
        ) -> Result<M, StoreError> {
            let bytes = meta.get(what)?.ok_or(StoreError::Missing(what))?;
            codec::decode(bytes.value()).map_err(|source| StoreError::Malformed { what, source })
        }
        let txn = db.begin_read()?;
        let meta = txn.open_table(META)?;
        if meta.get(FORMAT)?.is_none_or(|format| format.value() != FORMAT_VERSION) {
            return Err(StoreError::Missing("a format that this version reads"));
        }
        let identity = meta
            .get(IDENTITY)?
            .and_then(|bytes| serde_json::from_slice(bytes.value()).ok())
            .ok_or(StoreError::Missing(IDENTITY))?;
        let generation = match meta.get(GENERATION)? {
            None => FIRST_GENERATION,
            Some(bytes) => <[u8; 8]>::try_from(bytes.value())
                .map(u64::from_be_bytes)
                .map_err(|_| StoreError::Missing(GENERATION))?,
        };
        let hard_state: HardState = message(&meta, HARD_STATE)?;
        let snapshot: SnapshotMetadata = message(&meta, SNAPSHOT_META)?;
        let truncated: Entry = message(&meta, TRUNCATED)?;

        let mut last = truncated.index;
        let mut entries = Vec::new();
        for item in txn.open_table(LOG)?.iter()? {
            let (index, bytes) = item?;
            let entry: Entry = codec::decode(bytes.value())
                .map_err(|source| StoreError::Malformed { what: "a log entry", source })?;
            if index.value() != last + 1 || entry.index != index.value() {
                return Err(StoreError::Missing("a log entry"));
            }
            last = entry.index;
            entries.push(entry);
        }
        // The engine panics on a commit outside the log; here it becomes an error with words.
        let range = snapshot.index..=last;
        if !range.contains(&hard_state.commit) || snapshot.index < truncated.index {
            return Err(StoreError::Missing("a committed log entry"));
        }
        let truncated = (truncated.index, truncated.term);
        Ok(Self { identity, generation, hard_state, snapshot, truncated, last, entries })
    }

    fn into_store(
        self,
        db: Database,
        folder: &impl Folder,
        mark: Mark,
    ) -> Result<LogStore, OpenError> {
        let path = folder.path().join(DATABASE);
        let (folder, measured) = (folder.clone(), folder.clone());
        let Self { identity, generation, hard_state, snapshot, truncated, last: _, entries } = self;
        let mut tail = Tail::default();
        tail.reset(truncated.0);
        tail.append(&entries);
        let mut store = LogStore {
            db,
            path,
            identity,
            generation,
            mark,
            beside: None,
            set_unfit: Box::new(move |why| identity::set_unfit(&folder, why)),
            space: Box::new(move || measured.space()),
            durable_commit: hard_state.commit,
            hard_state,
            snapshot,
            truncated,
            tail,
            wanted: RefCell::new(BTreeSet::new()),
            withheld: BTreeSet::new(),
            transactions: 0,
        };
        match store.record_mark() {
            Ok(()) => Ok(store),
            Err(source) => Err(OpenError::Store { path: store.path, source }),
        }
    }
}
