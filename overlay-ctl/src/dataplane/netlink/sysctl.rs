//! IPv4 settings of single devices.
//!
//! `all` and `default` are never written: what is not ours to decide stays as it is. The files below
//! /proc/sys/net are those of the network namespace that the calling thread is in.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{Netlink, NetlinkError};

const FOLDER: &str = "/proc/sys/net/ipv4/conf";
const FORWARDING: &str = "forwarding";

/// Folders of no device. (A device may have such a name all the same; then it has no settings.)
const NO_DEVICES: [&str; 2] = ["all", "default"];

fn path(device: &str, name: &str) -> PathBuf {
    Path::new(FOLDER).join(device).join(name)
}

/// None where there is no such device (any more).
fn read(path: &Path) -> Result<Option<String>, NetlinkError> {
    match fs::read_to_string(path) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound && Path::new(FOLDER).exists() => Ok(None),
        Err(source) => Err(NetlinkError::Sysctl { path: path.to_owned(), source }),
    }
}

/// Sets one to `value` unless it is. Whether it was something else; false where there is no such device.
pub(super) fn ensure(device: &str, name: &str, value: &str) -> Result<bool, NetlinkError> {
    if NO_DEVICES.contains(&device) {
        return Ok(false);
    }
    let path = path(device, name);
    // Where it is right, /proc/sys may well be read-only.
    match read(&path)? {
        Some(found) if found != value => {}
        Some(_) | None => return Ok(false),
    }
    match fs::write(&path, value) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(NetlinkError::Sysctl { path, source }),
    }
}

impl Netlink {
    /// Whether what comes in by this device may be forwarded. No device: no. "all": whether somebody
    /// made the whole host a router.
    ///
    /// Of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Sysctl`].
    pub fn forwarding(device: &str) -> Result<bool, NetlinkError> {
        Ok(read(&path(device, FORWARDING))?.is_some_and(|value| value != "0"))
    }

    /// Lets what comes in by this device be forwarded, or not any more. No effect where it is so,
    /// where there is no such device, or where the name is "all" or "default".
    ///
    /// The kernel turns LRO of the device off with it. Of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Sysctl`].
    pub fn set_forwarding(device: &str, on: bool) -> Result<(), NetlinkError> {
        ensure(device, FORWARDING, if on { "1" } else { "0" }).map(drop)
    }
}
