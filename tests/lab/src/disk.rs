//! A small disk in the place of a state folder, which can be filled.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use nix::{
    mount::{MntFlags, umount2},
    sys::statvfs::statvfs,
};

use super::command::{self, PATIENCE};

/// What a disk is filled with at a time: a page.
const PIECE: [u8; 4096] = [0; 4096];

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

    /// Fills the disk, but for so many bytes. At no time is there less: what runs on the disk may write meanwhile.
    pub fn fill(&self, left: u64) -> Result<()> {
        let mut file = File::create(self.filling())?;
        let free = || -> Result<u64> {
            let disk = statvfs(&self.0)?;
            Ok(disk.blocks_available() * disk.fragment_size())
        };
        ensure!(free()? >= left, "the disk was too full already");
        while free()? >= left + PIECE.len() as u64 {
            file.write_all(&PIECE)?;
        }
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
