//! A folder in memory that keeps apart what was written and what was synced.
//!
//! A power cut leaves what was synced and, of the rest, a random part: files are cut at sectors, each of
//! which has any of the contents that it had since the last sync, and a change of names is there or not.
//! A killed process leaves all that was written, still unsynced.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redb::{DatabaseError, StorageBackend, StorageError};

use super::{DurableFile, Folder, Space, Which};
use crate::seeded::Rng;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

type Sector = Arc<[u8; SECTOR]>;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing was done.
    Before,
    /// It was done all the same.
    After,
}

impl Fault {
    pub(crate) fn any(rng: &mut Rng) -> Self {
        if rng.percent(50) { Self::Before } else { Self::After }
    }
}

/// The folder. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedFolder(Arc<Mutex<Disk>>);

#[derive(Clone, Debug, Default)]
struct Disk {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    /// Since the names were synced.
    renames: Vec<NameChange>,
    made: u64,
    /// Operations that changed or synced something.
    operations: u64,
    fault: Option<(u64, Fault)>,
    failed: bool,
    /// The operation that failed first was a sync of a file.
    sync_failed: bool,
    /// It is what a power cut left, and of the writes to a file some came through, and others did not.
    is_torn: bool,
    /// The file of which a read fails, and how many reads of it succeed before.
    good_reads: Option<(u64, u64)>,
    /// The bytes that all sectors may take that were ever written; `None` = any number.
    capacity: Option<u64>,
    /// What of the room is kept for root, as whom a node runs.
    reserved: u64,
    /// How long each sync of a file takes, and how long all of them took. Nobody waits for that: a clock that shows it is
    /// the time of a test.
    sync_time: Duration,
    busy: Duration,
}

#[derive(Clone, Debug)]
enum NameChange {
    Made(String, u64),
    Renamed(String, String),
    Removed(String),
}

impl NameChange {
    fn names(&self) -> Vec<&String> {
        match self {
            Self::Made(name, _) | Self::Removed(name) => vec![name],
            Self::Renamed(from, to) => vec![from, to],
        }
    }

    fn carry_out(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Made(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Renamed(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Removed(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Content {
    len: u64,
    /// Those that are not here are zeroes.
    sectors: BTreeMap<u64, Sector>,
    /// What the length was since the last sync, the synced one first; empty = it did not change.
    old_lens: Vec<u64>,
    /// The same of each sector that changed.
    old_sectors: BTreeMap<u64, Vec<Sector>>,
}

impl Content {
    fn sector(&self, number: u64) -> Sector {
        self.sectors.get(&number).cloned().unwrap_or_else(|| Arc::new([0; SECTOR]))
    }

    fn put(&mut self, number: u64, sector: Sector) {
        let before = self.sector(number);
        self.old_sectors.entry(number).or_default().push(before);
        self.sectors.insert(number, sector);
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, at, part) in pieces(offset, bytes.len()) {
            let length = part.len();
            bytes[part].copy_from_slice(&self.sector(number)[at..at + length]);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        for (number, at, part) in pieces(offset, bytes.len()) {
            let sector = match <&[u8; SECTOR]>::try_from(&bytes[part.clone()]) {
                Ok(whole) => *whole,
                Err(_) => {
                    let mut sector = *self.sector(number);
                    sector[at..at + part.len()].copy_from_slice(&bytes[part]);
                    sector
                }
            };
            self.put(number, Arc::new(sector));
        }
        self.set_len(self.len.max(offset + bytes.len() as u64));
    }

    fn set_len(&mut self, len: u64) {
        if len == self.len {
            return;
        }
        if len < self.len {
            let (number, at) = (len / SECTOR as u64, (len % SECTOR as u64) as usize);
            let mut edge = *self.sector(number);
            edge[at..].fill(0);
            self.put(number, Arc::new(edge));
            let beyond: Vec<u64> = self.sectors.range(number + 1..).map(|(n, _)| *n).collect();
            for number in beyond {
                self.put(number, Arc::new([0; SECTOR]));
            }
        }
        self.old_lens.push(self.len);
        self.len = len;
    }

    /// How many of the sectors of so many bytes were never written: they take room, and all others have theirs.
    fn new_sectors(&self, offset: u64, len: usize) -> u64 {
        pieces(offset, len).filter(|(number, ..)| !self.sectors.contains_key(number)).count() as u64
    }

    fn sync(&mut self) {
        self.old_lens.clear();
        self.old_sectors.clear();
    }

    /// Of what was not synced, the newest comes through in `luck` of a hundred cases. Returns true if some of the sectors did,
    /// and others did not.
    fn cut(&mut self, rng: &mut Rng, luck: u64) -> bool {
        let changed = self.old_sectors.len();
        let mut lost = 0;
        let newest = |rng: &mut Rng, old: usize| {
            if rng.percent(luck) { None } else { Some(rng.below(old as u64) as usize) }
        };
        for (number, old) in std::mem::take(&mut self.old_sectors) {
            if let Some(which) = newest(rng, old.len()) {
                lost += 1;
                self.sectors.insert(number, Arc::clone(&old[which]));
            }
        }
        let old = std::mem::take(&mut self.old_lens);
        if !old.is_empty()
            && let Some(which) = newest(rng, old.len())
        {
            self.len = old[which];
        }
        // Whatever lies behind the end is gone: a file that gets longer again has zeroes there.
        let (last, at) = (self.len / SECTOR as u64, (self.len % SECTOR as u64) as usize);
        self.sectors.split_off(&(last + 1));
        if let Some(sector) = self.sectors.get_mut(&last) {
            Arc::make_mut(sector)[at..].fill(0);
        }
        0 < lost && lost < changed
    }
}

/// The sectors of so many bytes from `offset` on: each one's number, where in it they begin, and which
/// of the bytes they are.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let position = offset + done as u64;
        let (number, at) = (position / SECTOR as u64, (position % SECTOR as u64) as usize);
        let part = done..len.min(done + SECTOR - at);
        done = part.end;
        Some((number, at, part))
    })
}

impl Disk {
    /// Carries out an operation that changes or syncs something, or fails it.
    fn operate(&mut self, what: impl FnOnce(&mut Self)) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("this disk has failed"));
        }
        let fault = self.fault.filter(|(at, _)| *at == self.operations).map(|(_, fault)| fault);
        self.operations += 1;
        if fault != Some(Fault::Before) {
            what(self);
        }
        if fault.is_some() {
            self.failed = true;
            return Err(io::Error::other("this disk fails"));
        }
        Ok(())
    }

    fn read(&mut self, file: u64, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match &mut self.good_reads {
            Some((unreadable, left)) if *unreadable == file && *left > 0 => *left -= 1,
            Some((unreadable, _)) if *unreadable == file => {
                self.good_reads = None;
                return Err(io::Error::other("this disk can't be read"));
            }
            _ => {}
        }
        self.content(file).read(bytes, offset)
    }

    fn room(&self) -> u64 {
        let Some(capacity) = self.capacity else { return u64::MAX };
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let taken = named.iter().filter_map(|file| self.files.get(file));
        let taken: usize = taken.map(|content| content.sectors.len()).sum();
        capacity.saturating_sub((taken * SECTOR) as u64)
    }

    fn write(&mut self, file: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let new = self.content(file).new_sectors(offset, bytes.len());
        if new * SECTOR as u64 > self.room() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.operate(|disk| disk.content(file).write(bytes, offset))
    }

    fn file(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.files.entry(file).or_default()
    }

    fn rename(&mut self, change: NameChange) {
        change.carry_out(&mut self.names);
        self.renames.push(change);
    }

    fn make(&mut self, name: &str) -> io::Result<u64> {
        self.made += 1;
        let file = self.made;
        self.operate(|disk| disk.rename(NameChange::Made(name.to_owned(), file)))?;
        Ok(file)
    }
}

impl SimulatedFolder {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, file: u64) -> SimulatedFile {
        SimulatedFile { folder: self.clone(), file }
    }

    /// After so many more operations the next one fails, and every one after it.
    pub(crate) fn fail_at(&self, operations: u64, fault: Fault) {
        let mut disk = self.disk();
        disk.fault = Some((disk.operations + operations, fault));
    }

    /// After so many more reads of a file's content one fails. The reads after it succeed again.
    pub(crate) fn fail_a_read(&self, name: &str, after: u64) {
        let mut disk = self.disk();
        let file = disk.file(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        disk.good_reads = Some((file, after));
    }

    /// Whether the read of [`SimulatedFolder::fail_a_read`] is still to come.
    pub(crate) fn read_will_fail(&self) -> bool {
        self.disk().good_reads.is_some()
    }

    /// Takes back [`SimulatedFolder::fail_at`] and [`SimulatedFolder::fail_a_read`].
    pub(crate) fn mend(&self) {
        let mut disk = self.disk();
        (disk.fault, disk.failed, disk.good_reads) = (None, false, None);
        (disk.sync_failed, disk.is_torn) = (false, false);
    }

    /// Leaves room for so many more bytes; `None` = for any number.
    pub(crate) fn set_room(&self, room: Option<u64>) {
        let mut disk = self.disk();
        disk.capacity = Some(u64::MAX);
        let taken = u64::MAX - disk.room();
        disk.capacity = room.map(|room| taken + room);
    }

    /// Keeps so much of the room for root.
    pub(crate) fn reserve(&self, bytes: u64) {
        self.disk().reserved = bytes;
    }

    /// From now on each sync of a file takes so long.
    pub(crate) fn set_sync_time(&self, time: Duration) {
        self.disk().sync_time = time;
    }

    /// How long all syncs of files took so far.
    pub(crate) fn busy(&self) -> Duration {
        self.disk().busy
    }

    /// Whether an operation failed.
    pub(crate) fn failed(&self) -> bool {
        self.disk().failed
    }

    /// Whether the operation that failed first was a sync of a file.
    pub(crate) fn sync_failed(&self) -> bool {
        self.disk().sync_failed
    }

    /// Whether this is what a power cut left, and of the writes to a file some came through, and others did not.
    pub(crate) fn is_torn(&self) -> bool {
        self.disk().is_torn
    }

    /// What a process that was killed leaves: all that it wrote. The old folder's open files, like the
    /// process, do nothing to it.
    pub(crate) fn after_kill(&self) -> Self {
        let left = Self(Arc::new(Mutex::new(self.disk().clone())));
        left.mend();
        left
    }

    /// Gives a file the content that it had in an earlier copy of this folder, as something that is on the disk. Returns
    /// false if one of the two has no such file.
    pub(crate) fn roll_back(&self, name: &str, earlier: &Self) -> bool {
        let of = |folder: &Self| {
            let mut disk = folder.disk();
            let file = disk.file(name).ok()?;
            Some((file, disk.content(file).clone()))
        };
        let (Some((file, _)), Some((_, mut content))) = (of(self), of(earlier)) else {
            return false;
        };
        content.sync();
        self.disk().files.insert(file, content);
        true
    }

    /// What a machine that lost its power finds: all that was synced, and anything of the rest.
    pub(crate) fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let left = self.after_kill();
        let mut disk = left.disk();
        let luck = rng.pick(&[0, 10, 50, 90, 100]).unwrap_or_default();
        let mut names = disk.synced_names.clone();
        // A change is lost with those before it that it needs.
        let mut lost = BTreeSet::new();
        for change in std::mem::take(&mut disk.renames) {
            let needs = change.names().into_iter().any(|name| lost.contains(name));
            if needs || !rng.percent(luck) {
                lost.extend(change.names().into_iter().cloned());
            } else {
                change.carry_out(&mut names);
            }
        }
        let held: BTreeSet<u64> = names.values().copied().collect();
        disk.files.retain(|file, _| held.contains(file));
        let mut is_torn = false;
        for content in disk.files.values_mut() {
            is_torn |= content.cut(rng, luck);
        }
        disk.is_torn = is_torn;
        disk.synced_names = names.clone();
        disk.names = names;
        drop(disk);
        left
    }
}

impl Folder for SimulatedFolder {
    type Database = SimulatedFile;

    fn path(&self) -> &Path {
        Path::new("/simulated")
    }

    fn make(&self) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.opened(self.disk().file(name)?);
        let mut bytes = vec![0; self.len(name)? as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        let mut disk = self.disk();
        let file = disk.file(name)?;
        Ok(disk.content(file).len)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DurableFile>> {
        let known = self.disk().file(name);
        let file = match known {
            Ok(file) => file,
            Err(_) => self.disk().make(name)?,
        };
        Ok(Box::new(self.opened(file)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DurableFile>> {
        let known = self.disk().file(name);
        let file = match known {
            Ok(file) => {
                self.disk().operate(|disk| disk.content(file).set_len(0))?;
                file
            }
            Err(_) => self.disk().make(name)?,
        };
        Ok(Box::new(self.opened(file)))
    }

    fn database(&self, name: &str, which: Which) -> Result<SimulatedFile, DatabaseError> {
        let known = self.disk().file(name);
        let file = match (which, known) {
            (Which::New, Err(_)) => self.disk().make(name),
            (Which::New, Ok(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            (Which::Existing, known) => known,
        };
        Ok(self.opened(file.map_err(StorageError::Io)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk().file(from)?;
        let change = NameChange::Renamed(from.to_owned(), to.to_owned());
        self.disk().operate(|disk| disk.rename(change))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk().file(name)?;
        self.disk().operate(|disk| disk.rename(NameChange::Removed(name.to_owned())))
    }

    fn sync(&self) -> io::Result<()> {
        self.disk().operate(|disk| {
            disk.synced_names = disk.names.clone();
            disk.renames.clear();
        })
    }

    fn space(&self) -> io::Result<Space> {
        let disk = self.disk();
        let all = disk.room();
        Ok(Space { all, common: all.saturating_sub(disk.reserved) })
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct SimulatedFile {
    folder: SimulatedFolder,
    file: u64,
}

impl DurableFile for SimulatedFile {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.folder.disk().read(self.file, bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.folder.disk().write(self.file, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.folder.disk();
        let had_failed = disk.failed;
        let synced = disk.operate(|disk| {
            disk.busy += disk.sync_time;
            disk.content(self.file).sync();
        });
        disk.sync_failed |= !had_failed && synced.is_err();
        synced
    }
}

impl StorageBackend for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.folder.disk().content(self.file).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.folder.disk().operate(|disk| disk.content(self.file).set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }
}

mod tests {
    use super::*;

    /// Without this nothing that is built on it proves anything.
    #[test]
    fn what_was_not_synced_may_be_lost_torn_or_kept() {
        let mut rng = Rng::fresh();
        let mut seen = BTreeSet::new();
        // So many that the rarest of them, one in sixty, is never missing.
        for _ in 0..2_000 {
            let folder = SimulatedFolder::default();
            let file = folder.create("f").unwrap();
            file.write_all_at(&[1; 2 * SECTOR], 0).unwrap();
            file.sync().unwrap();
            folder.sync().unwrap();
            file.write_all_at(&[2; 2 * SECTOR], 0).unwrap();
            file.write_all_at(&[3; SECTOR], 2 * SECTOR as u64).unwrap();
            assert_eq!(folder.after_kill().read("f").unwrap().len(), 3 * SECTOR);
            let left = folder.after_power_cut(&mut rng);
            let bytes = left.read("f").unwrap();
            let firsts: Vec<u8> = bytes.chunks(SECTOR).map(|sector| sector[0]).collect();
            assert!(bytes.chunks(SECTOR).all(|s| s.iter().all(|byte| *byte == s[0])), "by sectors");
            seen.insert(firsts);
            // What is there after a power cut is on the disk.
            assert_eq!(left.after_power_cut(&mut rng).read("f").unwrap(), bytes);
        }
        for expected in [&[1, 1][..], &[2, 2, 3], &[1, 2], &[2, 1, 0], &[1, 1, 3]] {
            assert!(seen.contains(expected), "{expected:?} of {seen:?}");
        }
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_lost_but_never_made_up() {
        let mut rng = Rng::fresh();
        let mut seen = BTreeSet::new();
        for _ in 0..300 {
            let folder = SimulatedFolder::default();
            folder.create("old").unwrap().write_all_at(b"old", 0).unwrap();
            folder.open("old").unwrap().sync().unwrap();
            folder.sync().unwrap();
            folder.create("new").unwrap().write_all_at(b"new", 0).unwrap();
            folder.rename("new", "old").unwrap();
            folder.create("other").unwrap();
            let left = folder.after_power_cut(&mut rng);
            seen.insert((
                left.read("old").unwrap(),
                left.len("new").is_ok(),
                left.len("other").is_ok(),
            ));
        }
        let outcomes: BTreeSet<_> =
            seen.iter().map(|(old, new, _)| (old.as_slice(), *new)).collect();
        // The content of the file that was renamed was never synced: it may be empty, or zeroes.
        let old = (b"old".as_slice(), false);
        for expected in [old, (b"old", true), (b"new", false), (b"", false), (b"\0\0\0", false)] {
            assert!(outcomes.contains(&expected), "{expected:?} of {outcomes:?}");
        }
        assert_eq!(outcomes.len(), 5, "{outcomes:?}");
        assert!(seen.iter().any(|(old, _, other)| old == b"old" && *other), "in any order");
    }

    #[test]
    fn a_full_disk_takes_what_replaces_something_and_nothing_else() {
        let folder = SimulatedFolder::default();
        let file = folder.create("f").unwrap();
        file.write_all_at(&[1; 2 * SECTOR], 0).unwrap();
        folder.set_room(Some(SECTOR as u64));
        let room = SECTOR as u64;
        assert_eq!(folder.space().unwrap(), Space { all: room, common: room });
        let full = file.write_all_at(&[2; 2 * SECTOR], 2 * SECTOR as u64).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        file.write_all_at(&[2; 2 * SECTOR], SECTOR as u64).unwrap();
        assert_eq!(folder.space().unwrap().all, 0);
        file.write_all_at(&[3; 3 * SECTOR], 0).unwrap();
        assert_eq!(folder.after_kill().read("f").unwrap(), [3; 3 * SECTOR]);
        folder.set_room(None);
        file.write_all_at(&[4; SECTOR], 9 * SECTOR as u64).unwrap();
    }

    #[test]
    fn a_fault_strikes_once_before_or_after_and_then_nothing_works() {
        for (fault, expected) in [(Fault::Before, 1), (Fault::After, 2)] {
            let folder = SimulatedFolder::default();
            let file = folder.create("f").unwrap();
            file.write_all_at(&[1], 0).unwrap();
            folder.fail_at(0, fault);
            assert!(!folder.failed());
            assert!(file.write_all_at(&[2], 0).is_err());
            assert!(folder.failed() && file.sync().is_err());
            assert_eq!(folder.after_kill().read("f").unwrap(), [expected]);
            folder.mend();
            file.sync().unwrap();
        }
    }
}
