//! What an operator must see to, though the node goes on.

use std::{fmt, path::PathBuf};

/// What is said of a majority that answers and takes no entries.
pub const STALLED: &str = "a majority of the voters answers and takes no entries of the log, so that nothing is written: see the alarms in `overlay status` of each voter";

/// What an operator must see to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// The state folder has no room for something.
    NoRoom(Lack),
    /// This node leads, a majority of the voters answers it, and takes no entries.
    Stalled,
    /// The voters' states differ, and no majority has the same.
    Differs {
        /// The revision before whose entry they were found to differ.
        revision: u64,
    },
}

impl Alarm {
    /// The kinds of alarms.
    pub const KINDS: [&str; 5] = ["entries", "snapshot", "received_snapshot", "stalled", "differs"];

    /// Its kind, one of [`Self::KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let [entries, snapshot, received, stalled, differs] = Self::KINDS;
        match self {
            Self::NoRoom(Lack { what: Room::Entries, .. }) => entries,
            Self::NoRoom(Lack { what: Room::Snapshot, .. }) => snapshot,
            Self::NoRoom(Lack { what: Room::Received, .. }) => received,
            Self::Stalled => stalled,
            Self::Differs { .. } => differs,
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom(lack) => lack.fmt(f),
            Self::Stalled => f.write_str(STALLED),
            Self::Differs { revision } => write!(
                f,
                "the voters hold different states since revision {revision} or before, and no majority holds the same: this is a defect. Compare `overlay endpoint ls --stale` on each voter; then stop the voters and run `overlay cluster recover` on the one that is right"
            ),
        }
    }
}

/// What a state folder has no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// The folder.
    pub path: PathBuf,
    /// What does not fit.
    pub what: Room,
    /// Bytes that were free when that was found.
    pub free: u64,
    /// Bytes that must be free.
    pub needed: u64,
}

/// What needs room in a state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Entries of the log.
    Entries,
    /// A snapshot of this node's state.
    Snapshot,
    /// A snapshot that the leader sent.
    Received,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        let Self { path, what, free, needed } = self;
        let what = match what {
            Room::Entries => "entries of the log",
            Room::Snapshot => "a snapshot",
            Room::Received => "the leader's snapshot",
        };
        let (path, free, needed) = (path.display(), free / MIB, needed.div_ceil(MIB));
        write!(
            f,
            "the disk of the state folder {path} is full ({free} MiB free, {needed} needed for {what})"
        )
    }
}
