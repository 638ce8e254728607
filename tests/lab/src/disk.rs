//! A small disk in the place of a state folder, which can be filled.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};

use super::command::{self, PATIENCE};

/// A disk in memory, which is unmounted when this is dropped. What is open on it stays until it is closed.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a disk of so many MiB at a folder, which is made.
    pub fn mount(folder: &Path, mib: u64) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "overlay-lab"]).arg(folder);
        command::run(&mut mount, PATIENCE)?;
        Ok(Self(folder.to_owned()))
    }

    fn filling(&self) -> PathBuf {
        self.0.join("filling")
    }

    /// Fills the disk, but for so many bytes.
    pub fn fill(&self, left: u64) -> Result<()> {
        let mut file = File::create(self.filling())?;
        let mut bytes = 0;
        loop {
            match file.write(&[0; 4096]) {
                Ok(written) => bytes += written as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        file.set_len(bytes.checked_sub(left).context("the disk was too full already")?)?;
        Ok(())
    }

    /// Takes back what [`Self::fill`] did.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filling())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(errno) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("{} is left: {errno}", self.0.display());
        }
    }
}
