//! Opens a database without ever writing to a damaged one.
//!
//! redb repairs a database while it opens it, and falls back to the previous transaction if it cannot: both write
//! to the file. Therefore the file is first opened through [`Overlay`], which keeps every write in memory. Only a
//! file whose content proves good is then opened directly. A damaged file stays as it is, byte for byte, so that
//! somebody can examine it.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend, StorageError};

use crate::durable::{Folder, Which};

const PAGE: u64 = 4096;
/// The bytes of pages that redb caches. The end of the log is cached by the log store itself.
const CACHE: usize = 32 << 20;

/// The reason why the database could not be opened.
#[derive(Debug)]
pub(super) enum Refused {
    InUse,
    Damaged(String),
    Io(io::Error),
}

impl From<DatabaseError> for Refused {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            DatabaseError::Storage(StorageError::Io(error)) => error.into(),
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<io::Error> for Refused {
    /// Some errors are about what the file holds, and all others about the disk.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Io(error),
        }
    }
}

/// Creates a database in a file that must not exist yet.
pub(super) fn create(folder: &impl Folder, name: &str) -> Result<Database, Refused> {
    let backend = folder.database(name, Which::New)?;
    Ok(Builder::new().set_cache_size(CACHE).create_with_backend(backend)?)
}

/// Opens the database in an existing file, verifies all checksums, and repairs in memory what a crash left. The
/// file is never written to.
pub(super) fn probe(folder: &impl Folder, name: &str) -> Result<Database, Refused> {
    let overlay = Overlay::new(folder.database(name, Which::Existing)?)?;
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(overlay)?)
}

/// Opens the database in a file for use. Its [`probe`] must have been found good, and dropped, before.
pub(super) fn open(folder: &impl Folder, name: &str) -> Result<Database, Refused> {
    let backend = folder.database(name, Which::Existing)?;
    Ok(Builder::new().set_cache_size(CACHE).create_with_backend(backend)?)
}

/// A file that is read and locked but never written: writes are kept in memory.
#[derive(Debug)]
struct Overlay<B> {
    file: B,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// The end of the file's own bytes: beyond it everything is zero unless it was written here.
    file_len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl<B: StorageBackend> Overlay<B> {
    fn new(file: B) -> Result<Self, DatabaseError> {
        let len = file.len().map_err(StorageError::Io)?;
        Ok(Self {
            file,
            written: Mutex::new(Written { len, file_len: len, pages: BTreeMap::new() }),
        })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present content of one page; zeroes beyond the end.
    fn page(&self, written: &Written, number: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = written.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE as usize];
        let start = number * PAGE;
        let held = written.file_len.saturating_sub(start).min(PAGE) as usize;
        if held > 0 {
            self.file.read(start, &mut page[..held])?;
        }
        Ok(page)
    }
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset + out.len() as u64 > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let page = self.page(&written, at / PAGE)?;
            let from = (at % PAGE) as usize;
            let count = (page.len() - from).min(out.len() - done);
            out[done..done + count].copy_from_slice(&page[from..from + count]);
            done += count;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        if len < written.len {
            let number = len / PAGE;
            let mut edge = self.page(&written, number)?;
            edge[(len % PAGE) as usize..].fill(0);
            written.pages.split_off(&number);
            written.pages.insert(number, edge);
            written.file_len = written.file_len.min(number * PAGE);
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let mut page = self.page(&written, at / PAGE)?;
            let from = (at % PAGE) as usize;
            let count = (page.len() - from).min(data.len() - done);
            page[from..from + count].copy_from_slice(&data[done..done + count]);
            written.pages.insert(at / PAGE, page);
            done += count;
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // The locks are those of the file itself, so that a database in use is never probed.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{durable::simulated::SimulatedFolder, seeded::Rng};

    fn file(content: &[u8]) -> SimulatedFolder {
        let folder = SimulatedFolder::default();
        folder.create("f").unwrap().write_all_at(content, 0).unwrap();
        folder
    }

    /// redb repairs a file through the overlay. It must find there what it would find in a file of its own, or a
    /// good log would be refused, or a bad one taken for good.
    #[test]
    fn an_overlay_is_like_a_file_and_the_file_below_stays() {
        let mut rng = Rng::fresh();
        let page = PAGE as usize;
        for _ in 0..200 {
            let any_len = |rng: &mut Rng| match rng.percent(30) {
                true => rng.below(5) as usize * page,
                false => rng.below(5 * PAGE) as usize,
            };
            let below: Vec<u8> = (0..any_len(&mut rng)).map(|_| 1 + rng.below(9) as u8).collect();
            let folder = file(&below);
            let overlay = Overlay::new(folder.database("f", Which::Existing).unwrap()).unwrap();
            let mut expected = below.clone();
            for _ in 0..20 {
                let (len, offset) = (any_len(&mut rng), any_len(&mut rng));
                match rng.below(3) {
                    0 => {
                        overlay.set_len(len as u64).unwrap();
                        expected.resize(len, 0);
                    }
                    1 => {
                        let data = vec![10 + rng.below(200) as u8; len];
                        overlay.write(offset as u64, &data).unwrap();
                        expected.resize(expected.len().max(offset + len), 0);
                        expected[offset..offset + len].copy_from_slice(&data);
                    }
                    _ => {
                        let mut found = vec![0; len];
                        let read = overlay.read(offset as u64, &mut found);
                        let end = offset + len;
                        assert_eq!(read.is_ok(), end <= expected.len(), "{offset}, {len}");
                        if read.is_ok() {
                            assert!(found == expected[offset..end], "{offset}, {len}");
                        }
                    }
                }
                let mut found = vec![0; expected.len()];
                assert_eq!(overlay.len().unwrap(), expected.len() as u64);
                overlay.read(0, &mut found).unwrap();
                assert!(found == expected, "a file has other content than the overlay");
            }
            assert!(folder.read("f").unwrap() == below, "the file was written to");
        }
    }
}
