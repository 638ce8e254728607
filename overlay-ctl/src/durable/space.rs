//! How much more a disk takes.

use nix::{
    sys::statvfs::{Statvfs, statvfs},
    unistd::geteuid,
};
use std::{io, path::Path};

/// Bytes that a disk still takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All that this process may write. A file system may keep some for root.
    pub all: u64,
    /// What is not kept for root.
    pub common: u64,
}

impl Space {
    /// That of a disk that does not say: it counts as one with room.
    pub const UNKNOWN: Self = Self { all: u64::MAX, common: u64::MAX };

    /// That of the disk of a folder.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let disk = statvfs(folder)?;
        Ok(Blocks::from(&disk).space(disk.fragment_size(), geteuid().is_root()))
    }
}

/// What a file system says of its blocks.
#[derive(Clone, Copy)]
struct Blocks {
    total: u64,
    free: u64,
    /// Those of the free ones that are not kept for root.
    available: u64,
}

impl From<&Statvfs> for Blocks {
    fn from(disk: &Statvfs) -> Self {
        Self { total: disk.blocks(), free: disk.blocks_free(), available: disk.blocks_available() }
    }
}

impl Blocks {
    /// `size` is that of a block.
    fn space(self, size: u64, is_root: bool) -> Space {
        // Some have no fixed size, and report zero of each.
        if self.total == 0 {
            return Space::UNKNOWN;
        }
        let common = self.available.saturating_mul(size);
        let all = if is_root { self.free.saturating_mul(size) } else { common };
        Space { all, common }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_root_is_roots() {
        let blocks = Blocks { total: 100, free: 7, available: 2 };
        assert_eq!(blocks.space(4096, true), Space { all: 7 * 4096, common: 2 * 4096 });
        assert_eq!(blocks.space(4096, false), Space { all: 2 * 4096, common: 2 * 4096 });
        let full = Blocks { free: 0, available: 0, ..blocks };
        assert_eq!(full.space(4096, true), Space { all: 0, common: 0 });
    }

    #[test]
    fn a_file_system_without_a_size_has_room() {
        assert_eq!(Space::of(Path::new("/proc")).unwrap(), Space::UNKNOWN);
    }
}
