//! The machine to which a state folder is bound: facts by which a folder is known that was copied to another machine, or put
//! back from a copy.
//!
//! A log votes for one process. A copy of it may be older, and the original may run, so that a copy does not vote: its node
//! comes back by another life (`lives`). No fact is sure by itself, and not every host has each, so that there are several. A
//! copy that none of them tells from the original is found while both run, by its peers and by the leader.

use crate::{
    control::consensus::LogStore,
    durable::{boot_id, read_json, write_json},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

/// The file of the folder that has the facts.
pub(super) const FILE: &str = "machine.json";
/// Which installation of an operating system this is. A container, or a live image, may have none, or another at each start.
const MACHINE_ID: &str = "/etc/machine-id";
/// Which hardware this is, or which virtual machine: a clone gets another one. Only root reads it.
const PRODUCT: &str = "/sys/class/dmi/id/product_uuid";
/// Bytes of a digest that are kept.
const DIGEST: usize = 16;

/// What is known of a machine, and of the file of the log on it. Of each id there is only a digest: the machine's own is not
/// to be told to anybody (machine-id(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Binding {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    product: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// The number of the log's file. It stays while the file system is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    /// When that file was made, in nanoseconds since 1970. No copy has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<u64>,
}

/// How a folder is not where it was bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Moved {
    /// The file of the log is another one.
    #[error("the log is a copy of the one that this node used, or was put back from a copy")]
    Copied,
    /// The machine is another one.
    #[error("the state folder was used on another machine last")]
    Machine,
}

/// How the folder has moved since a node ran with it; `None` also if that was one of a program that kept no facts.
pub(super) fn moved(dir: &Path) -> Option<Moved> {
    let before: Option<Binding> = read_json(&dir.join(FILE)).unwrap_or_else(|error| {
        let error = crate::error_chain(&error);
        tracing::warn!(error, "it is not known on which machine the state folder was used last");
        None
    });
    Binding::now(&dir.join(LogStore::DATABASE)).moved_since(&before?)
}

/// Keeps that the folder belongs here. One that can't be written belongs where it was.
pub(super) fn bind(dir: &Path) {
    let path = dir.join(FILE);
    let now = Binding::now(&dir.join(LogStore::DATABASE));
    // A damaged file is written anew.
    if matches!(read_json::<Binding>(&path), Ok(Some(before)) if before == now) {
        return;
    }
    if let Err(error) = write_json(&path, &now) {
        tracing::warn!(error = %crate::error_chain(&error), "the state folder can't be written");
    }
}

impl Binding {
    /// What is true now, of this machine and of the log's file `log`.
    pub(super) fn now(log: &Path) -> Self {
        let file = fs::metadata(log).ok();
        let made =
            file.as_ref().and_then(|file| file.created().ok()?.duration_since(UNIX_EPOCH).ok());
        // A file system that does not know it may say 0.
        let made = made.filter(|made| *made > Duration::ZERO);
        Self {
            machine: read(MACHINE_ID),
            product: read(PRODUCT),
            boot: boot_id().ok().map(|id| digest(&id)),
            inode: file.as_ref().map(|file| file.ino()),
            made: made.and_then(|made| u64::try_from(made.as_nanos()).ok()),
        }
    }

    /// How the folder has moved since `before`; `None` = it has not, or no fact tells.
    ///
    /// The hardware counts more than the installation: a new installation on the same hardware is the same machine, and a
    /// clone of a virtual machine has the installation of the original.
    pub(super) fn moved_since(&self, before: &Self) -> Option<Moved> {
        let is_same_boot = same(&self.boot, &before.boot) == Some(true);
        let is_same_file = match same(&self.made, &before.made) {
            None if is_same_boot => same(&self.inode, &before.inode),
            known => known,
        };
        if is_same_file == Some(false) {
            return Some(Moved::Copied);
        }
        if is_same_boot {
            return None;
        }
        let product = same(&self.product, &before.product);
        let is_same = product.or_else(|| same(&self.machine, &before.machine));
        (is_same == Some(false)).then_some(Moved::Machine)
    }
}

/// Whether a fact is the same; `None` = it was not known, or is not.
fn same<T: PartialEq>(now: &Option<T>, before: &Option<T>) -> Option<bool> {
    Some(now.as_ref()? == before.as_ref()?)
}

fn read(path: &str) -> Option<String> {
    identifying(&fs::read_to_string(path).ok()?).map(|id| digest(&id))
}

/// An id as it is compared; `None` if it identifies nothing: an image that was never started says `uninitialized`, and
/// firmware without an id says one digit again and again.
fn identifying(id: &str) -> Option<String> {
    let digits: String = id.trim().chars().filter(|char| *char != '-').collect();
    let digits = digits.to_ascii_lowercase();
    let is_id = digits.len() == 32 && digits.chars().all(|char| char.is_ascii_hexdigit());
    let is_varied = digits.chars().any(|char| !digits.starts_with(char));
    (is_id && is_varied).then_some(digits)
}

fn digest(id: &str) -> String {
    let digest = Sha256::new().chain_update(b"overlay machine").chain_update(id).finalize();
    digest.iter().take(DIGEST).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests;
