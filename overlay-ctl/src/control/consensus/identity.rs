//! The node's identity, and a mark of how far its log has been. Both are files beside the database, so that a node
//! notices when its database is missing or older than it was.
//!
//! A node that forgot its vote or the entries it acknowledged must not vote under its old id: it
//! could elect a second leader, or help to lose a committed write. It has to rejoin under a new id.

use crate::durable::{DurableFile, Folder};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use uuid::Uuid;

/// The name of the file that has the [`Identity`].
pub(super) const IDENTITY: &str = "identity.json";
pub(super) const MARK: &str = "mark";
pub(super) const UNFIT: &str = "unfit";

/// The identity of a node, which does not change while its state folder exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The random id of the cluster, made when the cluster was created.
    pub cluster: Uuid,
    /// The node's name in the cluster.
    pub name: String,
    /// The node's Raft id. It is never zero, and no other node ever gets it.
    pub raft_id: u64,
}

/// Reads the identity from a state folder; `None` if there is none.
///
/// # Errors
/// The file can't be read or is malformed ([`ErrorKind::InvalidData`]).
pub fn load(folder: &impl Folder) -> io::Result<Option<Identity>> {
    let bytes = match folder.read(IDENTITY) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(serde_json::from_slice(&bytes).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?))
}

/// Writes the identity, completely or not at all. It is durable when this returns.
///
/// # Errors
/// The file can't be written.
pub fn store(folder: &impl Folder, identity: &Identity) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(identity).map_err(io::Error::other)?;
    bytes.push(b'\n');
    folder.replace(IDENTITY, &bytes)
}

/// Returns the reason why the log in a state folder must not be used any more, if that was found before.
///
/// # Errors
/// The file can't be read.
pub(super) fn unfit(folder: &impl Folder) -> io::Result<Option<String>> {
    match folder.read(UNFIT) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Notes for every later start that the log in a state folder must not be used any more. Without the note the node
/// could vote as if it had never seen what it forgot, once no other node is left that knows better. The note is
/// durable when this returns.
///
/// # Errors
/// The file can't be written.
pub(super) fn set_unfit(folder: &impl Folder, why: &str) -> io::Result<()> {
    folder.replace(UNFIT, format!("{why}\n").as_bytes())
}

/// Removes the note, because a new log is made under another id. The removal is durable when this returns: if a
/// power cut left the note beside the new log, the new log would be refused.
///
/// # Errors
/// The file can't be removed.
pub(super) fn clear_unfit(folder: &impl Folder) -> io::Result<()> {
    match folder.remove(UNFIT) {
        // Where the note is gone already, an earlier attempt may have removed it and died before the sync.
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => folder.sync(),
    }
}

/// The most that the log is known to have had. A database that has less has lost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HighWater {
    /// The highest term; the vote belongs to it.
    pub term: u64,
    /// The last index of the log.
    pub last: u64,
}

/// The name of the file that has the [`HighWater`] mark.
///
/// The mark is written after each transaction and without an fsync: it never runs ahead of the database, and costs
/// one system call. Only when the log gets shorter (a follower drops a conflicting suffix) the mark is first
/// lowered, durably, because a crash in between would look like a loss.
#[derive(Debug)]
pub(super) struct Mark {
    file: Box<dyn DurableFile>,
    value: HighWater,
}

impl Mark {
    /// Opens the mark in a state folder. A mark that was never written, or was torn by a power cut, is zero.
    pub(super) fn open(folder: &impl Folder) -> io::Result<Self> {
        Self::open_file(folder, MARK)
    }

    /// Opens the second mark, which is outside the state folder: a copy of the state folder that is put back does
    /// not contain it.
    pub(super) fn open_beside(
        folder: &impl Folder,
        cluster: Uuid,
        raft_id: u64,
    ) -> io::Result<Self> {
        Self::open_file(folder, &name_beside(cluster, raft_id))
    }

    fn open_file(folder: &impl Folder, name: &str) -> io::Result<Self> {
        let file = folder.open(name)?;
        let mut bytes = [0; 24];
        let value = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(&bytes).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => HighWater::default(),
            Err(e) => return Err(e),
        };
        Ok(Self { file, value })
    }

    /// Creates a mark of zero in place of any mark that exists.
    pub(super) fn create(folder: &impl Folder) -> io::Result<Self> {
        let mut mark = Self::open(folder)?;
        mark.record(HighWater::default())?;
        mark.file.sync()?;
        Ok(mark)
    }

    pub(super) fn value(&self) -> HighWater {
        self.value
    }

    /// Records what the database has now.
    pub(super) fn record(&mut self, value: HighWater) -> io::Result<()> {
        if value != self.value {
            self.file.write_all_at(&encode(value), 0)?;
            self.value = value;
        }
        Ok(())
    }

    /// Lowers the mark's last index before the log gets shorter.
    pub(super) fn lower(&mut self, last: u64) -> io::Result<()> {
        if last < self.value.last {
            self.record(HighWater { last, ..self.value })?;
            self.file.sync()?;
        }
        Ok(())
    }
}

/// The path of a node's second mark, in a folder outside its state folder, which several nodes may share.
pub(super) fn name_beside(cluster: Uuid, raft_id: u64) -> String {
    format!("overlay-{cluster}-{raft_id}.{MARK}")
}

/// The checksum that distinguishes a torn mark from a complete one.
fn check(value: HighWater) -> u64 {
    value.term.rotate_left(32) ^ value.last ^ 0x6f76_6572_6c61_7921
}

fn encode(value: HighWater) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&value.term.to_be_bytes());
    bytes[8..16].copy_from_slice(&value.last.to_be_bytes());
    bytes[16..].copy_from_slice(&check(value).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; 24]) -> Option<HighWater> {
    let word =
        |at: usize| bytes[at..at + 8].iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let value = HighWater { term: word(0), last: word(8) };
    (word(16) == check(value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::DiskFolder;
    use crate::{durable::simulated::SimulatedFolder, seeded::Rng};

    #[test]
    fn identity_round_trips_and_damage_is_invalid_data() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DiskFolder::new(dir.path());
        assert_eq!(load(&folder).unwrap(), None);
        let identity = Identity { cluster: Uuid::from_u128(7), name: "a".into(), raft_id: 3 };
        store(&folder, &identity).unwrap();
        assert_eq!(load(&folder).unwrap(), Some(identity));
        folder.replace(IDENTITY, b"{").unwrap();
        assert_eq!(load(&folder).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn mark_survives_reopening_and_a_torn_one_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DiskFolder::new(dir.path());
        let high = HighWater { term: 3, last: 70_000 };
        let mut mark = Mark::open(&folder).unwrap();
        mark.record(high).unwrap();
        assert_eq!(Mark::open(&folder).unwrap().value(), high);
        mark.lower(9).unwrap();
        assert_eq!(Mark::open(&folder).unwrap().value(), HighWater { term: 3, last: 9 });
        mark.file.write_all_at(&[0xff], 3).unwrap();
        assert_eq!(Mark::open(&folder).unwrap().value(), HighWater::default());
    }

    /// The first attempt removed it and died before the removal was durable.
    #[test]
    fn a_note_that_a_second_attempt_finds_gone_does_not_come_back() {
        let mut rng = Rng::fresh();
        for _ in 0..100 {
            let folder = SimulatedFolder::default();
            set_unfit(&folder, "it forgot something").unwrap();
            folder.remove(UNFIT).unwrap();
            clear_unfit(&folder).unwrap();
            assert_eq!(unfit(&folder.after_power_cut(&mut rng)).unwrap(), None);
        }
    }
}
