//! IPv4 settings of single devices.
//!
//! `all` and `default` are never written, because they concern devices of others. The files below /proc/sys/net are
//! those of the network namespace of the calling thread.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{Netlink, NetlinkError};

const FOLDER: &str = "/proc/sys/net/ipv4/conf";
const FORWARDING: &str = "forwarding";

/// Folders that belong to no device. (A device can have such a name all the same; then it has no settings.)
const NO_DEVICES: [&str; 2] = ["all", "default"];

fn path(device: &str, name: &str) -> PathBuf {
    Path::new(FOLDER).join(device).join(name)
}

/// `None` where there is no such device (any more).
fn read(path: &Path) -> Result<Option<String>, NetlinkError> {
    match fs::read_to_string(path) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound && Path::new(FOLDER).exists() => Ok(None),
        Err(source) => Err(NetlinkError::Sysctl { path: path.to_owned(), source }),
    }
}

/// Sets a setting to `value`. Returns true if it had another value; false also where there is no such device.
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
    /// Returns true if packets that come in by this device may be forwarded; false where there is no such device.
    /// "all" tells whether the whole host is a router.
    ///
    /// In the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Sysctl`].
    pub fn forwarding(device: &str) -> Result<bool, NetlinkError> {
        Ok(read(&path(device, FORWARDING))?.is_some_and(|value| value != "0"))
    }

    /// Switches on or off that packets which come in by this device are forwarded. No effect where there is no such
    /// device, or where the name is "all" or "default".
    ///
    /// The kernel switches off LRO of the device with it. In the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Sysctl`].
    pub fn set_forwarding(device: &str, on: bool) -> Result<(), NetlinkError> {
        ensure(device, FORWARDING, if on { "1" } else { "0" }).map(drop)
    }
}
