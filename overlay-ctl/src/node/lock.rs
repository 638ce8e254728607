//! Locks that a node holds for as long as it runs. A reset removes their files.

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// How often a lock is taken of a file that is then found to be removed. Each time somebody else must have removed it.
const ATTEMPTS: usize = 8;

/// Locks a file, which is made if it is missing; `None`: another process holds the lock.
///
/// The process that holds the lock may remove the file before it ends, as a reset does. A lock of a removed file keeps
/// nobody out, so it counts only if the path still leads to the file.
///
/// # Errors
/// What the system says.
pub(super) fn lock_file(path: &Path) -> io::Result<Option<Flock<File>>> {
    for _ in 0..ATTEMPTS {
        let mut options = File::options();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = match Flock::lock(options.open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        if leads_to(path, &lock)? {
            return Ok(Some(lock));
        }
    }
    Err(io::Error::other("the file is removed again and again"))
}

fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_is_that_of_the_file_at_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = lock_file(&path).unwrap().expect("nobody else has it");
        assert!(lock_file(&path).unwrap().is_none());
        assert!(leads_to(&path, &first).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!leads_to(&path, &first).unwrap(), "it is gone");
        let second = lock_file(&path).unwrap().expect("the first one keeps nobody out any more");
        assert!(!leads_to(&path, &first).unwrap(), "another has its name");
        drop(first);
        assert!(lock_file(&path).unwrap().is_none());
        drop(second);
        assert!(lock_file(&path).unwrap().is_some());
    }
}
