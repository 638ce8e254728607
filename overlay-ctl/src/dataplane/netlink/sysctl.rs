//! IPv4 settings of single devices.
//!
//! `all` and `default` are never written, because they concern devices of others. Each family of addresses has files of
//! its own; these are IPv4's. The files below /proc/sys/net are
//! those of the network namespace of the calling thread.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{Netlink, NetlinkError, names::GATEWAY_BRIDGE};

const FOLDER: &str = "/proc/sys/net/ipv4/conf";
const FORWARDING: &str = "forwarding";

/// Folders that belong to no device. (A device can have such a name all the same; then it has no settings.)
const NO_DEVICES: [&str; 2] = ["all", "default"];

fn path(device: &str, name: &str) -> PathBuf {
    Path::new(FOLDER).join(device).join(name)
}

/// Which packets the host takes from a device, by the way that their answer would leave (RFC 3704).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReversePathFilter {
    /// Any.
    Off,
    /// Those whose answer would leave by the same device.
    Strict,
    /// Those that can be answered at all.
    Loose,
}

/// The device's `rp_filter`: the larger of its own value and that for all devices counts.
pub(super) fn reverse_path_filter(device: &str) -> Result<ReversePathFilter, NetlinkError> {
    const RP_FILTER: &str = "rp_filter";
    let values = [read(&path("all", RP_FILTER))?, read(&path(device, RP_FILTER))?];
    Ok(match values.iter().flatten().max().map(String::as_str) {
        Some("1") => ReversePathFilter::Strict,
        Some("2") => ReversePathFilter::Loose,
        _ => ReversePathFilter::Off,
    })
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

/// Whether packets that come in by a device may be forwarded, and who wants it so.
///
/// The kernel takes each number but 0 for "on" (`IN_DEV_FORWARD`) and keeps the one that was written
/// (`devinet_sysctl_forward`; Linux 6.12). So the node writes a number of its own: it tells the node's change from an
/// administrator's, moves with a device that is renamed, needs no ruleset and no file, and ends with the device and with
/// the boot, as the change itself does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// It may not; also where there is no such device.
    Off,
    /// This node, or an earlier one, switched it on.
    ByNode,
    /// Another program, or an administrator, switched it on.
    ByOthers,
}

impl Forwarding {
    fn of(value: Option<&str>) -> Self {
        match value {
            None | Some("0") => Self::Off,
            Some("2") => Self::ByNode,
            Some(_) => Self::ByOthers,
        }
    }

    fn value(self) -> &'static str {
        match self {
            Self::Off => "0",
            Self::ByNode => "2",
            Self::ByOthers => "1",
        }
    }
}

impl Netlink {
    /// Says whether packets that come in by this device may be forwarded.
    ///
    /// In the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Sysctl`].
    pub fn forwarding(device: &str) -> Result<Forwarding, NetlinkError> {
        if NO_DEVICES.contains(&device) {
            return Ok(Forwarding::Off);
        }
        Ok(Forwarding::of(read(&path(device, FORWARDING))?.as_deref()))
    }

    /// Switches on or off that packets which come in by this device are forwarded. No effect where there is no such
    /// device, or where the name is "all" or "default".
    ///
    /// The kernel switches off LRO of the device with it. In the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Sysctl`].
    pub fn set_forwarding(device: &str, wanted: Forwarding) -> Result<(), NetlinkError> {
        ensure(device, FORWARDING, wanted.value()).map(drop)
    }

    /// Returns true if the whole host is meant to be a router (`net.ipv4.ip_forward`).
    ///
    /// In the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Sysctl`].
    pub fn is_router() -> Result<bool, NetlinkError> {
        Ok(read(&path("all", FORWARDING))?.is_some_and(|value| value != "0"))
    }

    /// Makes the host route what comes in by the gateway bridge. Returns true if that was switched off.
    ///
    /// In the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Sysctl`].
    pub fn ensure_bridge_forwards() -> Result<bool, NetlinkError> {
        ensure(GATEWAY_BRIDGE, FORWARDING, Forwarding::ByOthers.value())
    }
}
