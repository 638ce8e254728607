//! Notes that a log must not be used any more, and removes it.

use super::{LogStore, OpenError};
use crate::{
    control::consensus::identity,
    durable::{DiskFolder, Folder},
};
use std::{
    io::{self, ErrorKind},
    path::Path,
};

impl LogStore {
    /// Notes beside the log in the folder `dir` that it must not be used any more, for every later start.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn note_unfit(dir: &Path, why: &str) -> io::Result<()> {
        identity::set_unfit(&DiskFolder::new(dir), why)
    }

    /// Removes the log in the folder `dir`, because its life is over and the node is to begin another one. It must not be
    /// open.
    ///
    /// # Errors
    /// The folder can't be written. What is left is refused at every later start.
    pub fn discard(dir: &Path) -> Result<(), OpenError> {
        Self::discard_in(&DiskFolder::new(dir))
    }

    /// As [`Self::discard`], for any kind of folder.
    ///
    /// # Errors
    /// As [`Self::discard`].
    pub fn discard_in(folder: &impl Folder) -> Result<(), OpenError> {
        let failed = |source| OpenError::Io { path: folder.path().to_owned(), source };
        // The database first, durably: without the files beside it, it would look like one that is whole.
        for name in Self::FILES {
            match folder.remove(name) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
                _ => folder.sync().map_err(failed)?,
            }
        }
        Ok(())
    }
}
