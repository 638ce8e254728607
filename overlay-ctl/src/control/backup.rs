//! The file of a backup: the whole state of a cluster at one revision, and what that file says of itself.
//!
//! ```text
//! overlay backup 1                 what it is, and the version of this layout
//! {"cluster":"…", …}               the head, as JSON on one line
//! …                                the state, as a snapshot of it is encoded
//! 32 bytes                         SHA-256 of all that is before
//! ```
//! The first two lines are text, so that `head -2 FILE` says whose backup it is and of when.

#[cfg(test)]
mod tests;

use crate::{
    control::state::{SnapshotError, State},
    model::{Generation, Revision, SPEAKS, Version},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};
use uuid::Uuid;

/// What a backup begins with; the version of the layout follows.
const MAGIC: &[u8] = b"overlay backup ";
/// The version of the layout that is written. Greater ones are refused.
const FORMAT: u32 = 1;
/// Bytes of the checksum at the end.
const SUM: usize = 32;
/// Bytes of the two lines at the beginning, at most.
const LINES_MAX: usize = 4096;
/// Bytes of the longest backup that is read: what a snapshot may have, which travels between nodes as one message.
const LENGTH_MAX: u64 = 1 << 30;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The cluster's id.
    pub cluster: Uuid,
    /// The cluster's generation.
    pub generation: Generation,
    /// The revision of the state: it has all that was acknowledged before the backup began.
    pub revision: Revision,
    /// The cluster's version.
    pub version: Version,
    /// The version of the program that wrote it.
    pub program: String,
}

/// A backup that was read.
#[derive(Debug)]
pub struct Backup {
    /// What it says of itself.
    pub head: Head,
    /// The state.
    pub state: State,
}

/// Why a file is no backup that this program can use.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It can't be read.
    #[error("it can't be read ({0})")]
    Io(#[from] io::Error),
    /// It begins with something else.
    #[error("it is no backup of a cluster: `overlay cluster backup FILE` makes one")]
    NoBackup,
    /// The layout is newer.
    #[error(
        "it has layout {0}, and this program reads layout {FORMAT}: use the newer version of the program that made it"
    )]
    Newer(u32),
    /// The checksum is wrong.
    #[error("it is damaged, or was cut off: its checksum is wrong; take another copy of it")]
    Damaged,
    /// The state is of a version that this program does not know.
    #[error(
        "the state in it can't be read by this program ({0}): use the newer version of the program that made it ({1})"
    )]
    State(#[source] SnapshotError, String),
    /// The checksum is right, and the content contradicts itself.
    #[error("its head and its state contradict each other: take another backup")]
    Contradicts,
    /// It is longer than any backup.
    #[error("it is longer than {} MiB, which no backup is", LENGTH_MAX >> 20)]
    TooLong,
}

/// Writes through, and sums up what it writes.
struct Summed<W> {
    out: W,
    sum: Sha256,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a backup of a cluster's state, piece by piece.
///
/// # Errors
/// As `out`.
pub fn write(cluster: Uuid, state: &State, out: impl Write) -> io::Result<()> {
    let head = Head {
        cluster,
        generation: state.generation(),
        revision: state.revision(),
        version: state.version(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut out = Summed { out, sum: Sha256::new() };
    out.write_all(MAGIC)?;
    writeln!(out, "{FORMAT}")?;
    serde_json::to_writer(&mut out, &head)?;
    out.write_all(b"\n")?;
    state.write_snapshot(&mut out)?;
    let Summed { mut out, sum } = out;
    out.write_all(&sum.finalize())?;
    out.flush()
}

/// Checks a backup that comes in pieces, of which it keeps the first lines alone.
pub struct Check {
    sum: Sha256,
    /// The last bytes, which may be the checksum.
    last: Vec<u8>,
    lines: Vec<u8>,
}

impl Default for Check {
    fn default() -> Self {
        Self { sum: Sha256::new(), last: Vec::new(), lines: Vec::new() }
    }
}

impl Check {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        let room = LINES_MAX - self.lines.len();
        self.lines.extend_from_slice(&piece[..piece.len().min(room)]);
        self.last.extend_from_slice(piece);
        let settled = self.last.len().saturating_sub(SUM);
        self.sum.update(&self.last[..settled]);
        self.last.drain(..settled);
    }

    /// What the backup says of itself, now that all of it was there; and the bytes of its first two lines.
    ///
    /// # Errors
    /// It is not whole, or no backup of this layout.
    pub fn finish(self) -> Result<(Head, usize), BackupError> {
        let Self { sum, last, lines } = self;
        let format = format(&lines)?;
        if last != sum.finalize().as_slice() {
            return Err(BackupError::Damaged);
        }
        if format != FORMAT {
            return Err(BackupError::Newer(format));
        }
        let mut ends = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let ends = (ends.next(), ends.next());
        let (Some((first, _)), Some((second, _))) = ends else {
            return Err(BackupError::Contradicts);
        };
        let head = serde_json::from_slice(&lines[first + 1..second]);
        Ok((head.map_err(|_| BackupError::Contradicts)?, second + 1))
    }
}

/// The layout that the first line names.
fn format(lines: &[u8]) -> Result<u32, BackupError> {
    let rest = lines.strip_prefix(MAGIC).ok_or(BackupError::NoBackup)?;
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(BackupError::Damaged)?;
    let number = std::str::from_utf8(&rest[..end]).ok().and_then(|number| number.parse().ok());
    number.ok_or(BackupError::NoBackup)
}

/// Reads a backup whole, and checks all that it says.
///
/// # Errors
/// See [`BackupError`].
pub fn read(file: impl Read) -> Result<Backup, BackupError> {
    let mut file = file.take(LENGTH_MAX + 1);
    let mut bytes = vec![0; MAGIC.len()];
    // What is no backup is not read whole.
    match file.read_exact(&mut bytes) {
        Ok(()) if bytes == MAGIC => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
        _ => return Err(BackupError::NoBackup),
    }
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LENGTH_MAX {
        return Err(BackupError::TooLong);
    }
    let mut check = Check::default();
    check.push(&bytes);
    let (head, begins) = check.finish()?;
    let state = match State::from_snapshot(&bytes[begins..bytes.len() - SUM]) {
        Ok(state) => state,
        Err(SnapshotError::Decode(_)) if SPEAKS.covers(head.version) => {
            return Err(BackupError::Contradicts);
        }
        Err(error) => return Err(BackupError::State(error, head.program)),
    };
    let found = (state.generation(), state.revision(), state.version());
    if found != (head.generation, head.revision, head.version) {
        return Err(BackupError::Contradicts);
    }
    Ok(Backup { head, state })
}
