//! Small files in JSON, each replaced as a whole.

use super::{DiskFolder, Folder as _};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why a file of the state folder can't be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file can't be understood.
    #[error("{} is damaged: restore it from a copy, or remove the folder and join again as a new node", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The file can't be read or written.
    #[error("can't use the state folder's {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A text that changes with every start of the host, at which all that the kernel held is gone.
///
/// # Errors
/// See [`FileError`].
pub fn boot_id() -> Result<String, FileError> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(PATH);
    let id = id.map_err(|source| FileError::Io { path: PATH.into(), source })?;
    Ok(id.trim().to_owned())
}

/// What the file says; `None` if there is no such file.
///
/// # Errors
/// See [`FileError`].
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| FileError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::Io { path: path.to_owned(), source }),
    }
}

/// Replaces the whole file, so that a crash leaves the old or the new one.
///
/// # Errors
/// [`FileError::Io`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let write = || {
        let bytes = serde_json::to_vec_pretty(value)?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        else {
            unreachable!("the file is in a folder, and its name is one of ours")
        };
        DiskFolder::new(folder).replace(name, &bytes)
    };
    write().map_err(|source| FileError::Io { path: path.to_owned(), source })
}
