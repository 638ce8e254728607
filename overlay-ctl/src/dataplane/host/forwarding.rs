//! The devices of others whose forwarding the node switches on, so that their neighbours and endpoints reach each other.
//!
//! Forwarding is a property of the device by which a packet comes in: without it, the kernel drops the answers to
//! endpoints, and what is for published ports. Each device by which the host has neighbours is opened, and the table `ip
//! overlay` keeps what comes in by it from going anywhere but to the gateway bridge.
//!
//! Three places remember an opened device. The value of its sysctl tells the node's change from that of others
//! ([`Forwarding::ByNode`]), and decides. The set `opened` of the table guards it, by its index. The file in the state
//! folder names it, and is written before the sysctl is.

use crate::{
    dataplane::netlink::{Forwarding, Netlink, NetlinkError, OuterDevice},
    durable::{FileError, boot_id, read_json, write_json},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// The file in the state folder.
pub(super) const FILE: &str = "forwarding.json";

/// What the node changed. The sysctl of each device was 0 before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The boot of the host in which it was changed: at the next one nothing of it is left.
    boot: String,
    /// Indices of the opened devices, with their names.
    opened: BTreeMap<u32, String>,
}

/// The reason why forwarding that the node switched on could not be given back.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// The state folder failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// rtnetlink or a sysctl failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What is to be done with one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// To be guarded, then opened.
    Open,
    /// It is open, and stays guarded.
    Keep,
    /// To be closed, then no longer guarded.
    Close,
    /// The host became a router: the device stays open as part of it, and is no longer guarded.
    HandOver,
    /// Not the node's.
    Leave,
}

fn step(is_used: bool, now: Forwarding, is_router: bool) -> Step {
    match (now, is_router, is_used) {
        (Forwarding::ByNode, true, _) => Step::HandOver,
        (Forwarding::ByNode, false, true) => Step::Keep,
        (Forwarding::ByNode, false, false) => Step::Close,
        (Forwarding::Off, false, true) => Step::Open,
        (Forwarding::Off | Forwarding::ByOthers, ..) => Step::Leave,
    }
}

/// Keeps forwarding switched on where the way to and from the outside needs it.
pub struct ForwardingKeeper {
    netlink: Netlink,
    path: PathBuf,
    /// As in the file.
    record: Record,
    /// The devices that are to be guarded and open, as seen last.
    opened: BTreeMap<u32, OuterDevice>,
    /// Devices whose reset by another program was logged.
    told: BTreeSet<u32>,
    /// What failed since the last look, in words.
    trouble: BTreeSet<String>,
    /// What failed before, and was logged.
    said: BTreeSet<String>,
}

impl ForwardingKeeper {
    /// Reads what an earlier run of the node switched on. `former` are the devices in the table's set. Earlier versions
    /// remembered them there alone, and set their sysctl to 1.
    ///
    /// # Errors
    /// The state folder, or a sysctl.
    pub fn open(
        netlink: Netlink,
        state_dir: &Path,
        former: &BTreeSet<String>,
    ) -> Result<Self, ForwardingError> {
        let path = state_dir.join(FILE);
        let boot = boot_id()?;
        let record = match read_json::<Record>(&path) {
            Ok(record) => record.filter(|record| record.boot == boot),
            Err(error) => {
                // The sysctls tell the same.
                tracing::warn!(error = %crate::error_chain(&error), "a file is written anew");
                Some(Record { boot: boot.clone(), ..Record::default() })
            }
        };
        if record.is_none() && !Netlink::is_router()? {
            for device in former {
                if Netlink::forwarding(device)? == Forwarding::ByOthers {
                    Netlink::set_forwarding(device, Forwarding::ByNode)?;
                }
            }
        }
        let record = record.unwrap_or(Record { boot, ..Record::default() });
        Ok(Self {
            netlink,
            path,
            record,
            opened: BTreeMap::new(),
            told: BTreeSet::new(),
            trouble: BTreeSet::new(),
            said: BTreeSet::new(),
        })
    }

    /// The devices that are to be guarded: those that are open, and those that [`Self::open_guarded`] will open.
    pub fn opened(&self) -> impl Iterator<Item = &OuterDevice> {
        self.opened.values()
    }

    /// What failed, in words.
    pub fn trouble(&self) -> impl Iterator<Item = &String> {
        self.trouble.iter()
    }

    /// Looks at all devices, closes those that are no longer needed, and hands over those that another program wants open.
    /// Returns true if other devices are to be guarded than before, or the same under other names.
    ///
    /// # Errors
    /// rtnetlink, or the sysctl of the whole host. One device's failure is [`Self::trouble`].
    pub async fn look(&mut self) -> Result<bool, NetlinkError> {
        self.said = std::mem::take(&mut self.trouble);
        match Netlink::ensure_bridge_forwards() {
            Ok(true) => tracing::warn!(
                "another program switched off forwarding of the gateway bridge; it is on again"
            ),
            Ok(false) => {}
            Err(error) => self.note(&error),
        }
        let is_router = Netlink::is_router()?;
        let mut opened = BTreeMap::new();
        for device in self.netlink.outer_devices().await? {
            match self.settle(&device, is_router).await {
                Ok(true) => {
                    opened.insert(device.ifindex, device);
                }
                Ok(false) => {}
                Err(error) => {
                    self.note(&error);
                    // Guarded as before, in case it is open.
                    if self.opened.contains_key(&device.ifindex) {
                        opened.insert(device.ifindex, device);
                    }
                }
            }
        }
        let changed = opened != self.opened;
        self.opened = opened;
        Ok(changed)
    }

    /// Returns true if the device is to be guarded, and then opened where it is not.
    async fn settle(&self, device: &OuterDevice, is_router: bool) -> Result<bool, NetlinkError> {
        let name = &device.name;
        let now = Netlink::forwarding(name)?;
        // Asked only where it decides: of a host with a million routes that costs a look at each.
        let is_used = !is_router
            && now != Forwarding::ByOthers
            && (device.has_address || self.netlink.is_used(device).await?);
        match step(is_used, now, is_router) {
            Step::Open | Step::Keep => return Ok(true),
            Step::Close => {
                Netlink::set_forwarding(name, Forwarding::Off)?;
                tracing::info!(device = name, "forwarding switched off again");
            }
            Step::HandOver => {
                Netlink::set_forwarding(name, Forwarding::ByOthers)?;
                tracing::info!(device = name, "forwarding is the host's own: it is a router now");
            }
            Step::Leave if self.opened.contains_key(&device.ifindex) => {
                tracing::info!(
                    device = name,
                    "forwarding is the host's own: another program switched it on"
                );
            }
            Step::Leave => {}
        }
        Ok(false)
    }

    /// Opens the devices of the last look that are not open. To be called when the table guards them.
    pub fn open_guarded(&mut self) {
        let names = self.opened.iter().map(|(index, device)| (*index, device.name.clone()));
        let record = Record { opened: names.collect(), ..self.record.clone() };
        // The file first, so that what was changed is known also where the node is killed in between.
        if record != self.record
            && let Err(error) = write_json(&self.path, &record)
        {
            self.note(&error);
            return;
        }
        let before = std::mem::replace(&mut self.record, record);
        for (ifindex, device) in self.opened.clone() {
            match open(&device.name) {
                Ok(false) => {}
                Ok(true) if before.opened.contains_key(&ifindex) => self.say_reset(&device),
                Ok(true) => tracing::info!(
                    device = device.name,
                    "forwarding switched on: to and from endpoints only"
                ),
                Err(error) => self.note(&error),
            }
        }
    }

    fn say_reset(&mut self, device: &OuterDevice) {
        let sysctl = format!("net.ipv4.conf.{}.forwarding", device.name);
        let what = "another program switched forwarding off; it is on again, for endpoints";
        if self.told.insert(device.ifindex) {
            tracing::warn!(sysctl, "{what}");
        } else {
            tracing::debug!(sysctl, "{what}");
        }
    }

    fn note(&mut self, error: &(dyn std::error::Error + 'static)) {
        let what = format!(
            "endpoints do not reach all neighbours of the host, nor are they reached: {}",
            crate::error_chain(error)
        );
        if self.trouble.insert(what.clone()) && !self.said.contains(&what) {
            tracing::warn!("{what}");
        }
    }

    /// Closes everything that a node opened, and removes the file. Returns the devices that it closed.
    async fn give_back(&mut self) -> Result<Vec<String>, ForwardingError> {
        let mut closed = Vec::new();
        for OuterDevice { name, .. } in self.netlink.outer_devices().await? {
            if Netlink::forwarding(&name)? == Forwarding::ByNode {
                Netlink::set_forwarding(&name, Forwarding::Off)?;
                tracing::info!(device = name, "forwarding switched off again");
                closed.push(name);
            }
        }
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FileError::Io { path: self.path.clone(), source }.into())
            }
            _ => Ok(closed),
        }
    }
}

/// Returns true if the device was closed.
fn open(device: &str) -> Result<bool, NetlinkError> {
    let is_closed = Netlink::forwarding(device)? == Forwarding::Off;
    if is_closed {
        Netlink::set_forwarding(device, Forwarding::ByNode)?;
    }
    Ok(is_closed)
}

/// Switches off the forwarding that a node switched on. `former` are the devices in the table's set, which is to be
/// removed only afterwards. Returns the devices whose forwarding is off now.
///
/// # Errors
/// The state folder, rtnetlink, or a sysctl.
pub async fn restore(
    netlink: &Netlink,
    state_dir: &Path,
    former: &BTreeSet<String>,
) -> Result<Vec<String>, ForwardingError> {
    ForwardingKeeper::open(netlink.clone(), state_dir, former)?.give_back().await
}

#[cfg(test)]
pub(crate) mod golden {
    use super::*;

    fn value() -> Record {
        let opened = [(2, "eth0".to_owned()), (7, "wg0".to_owned())].into();
        Record { boot: "6f766572-6c61-7900-0000-000000000005".to_owned(), opened }
    }

    pub(crate) fn forwarding() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        write_json(&dir.path().join(FILE), &value()).unwrap();
        fs::read(dir.path().join(FILE)).unwrap()
    }

    pub(crate) fn check_forwarding(bytes: &[u8]) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), bytes).unwrap();
        assert_eq!(read_json(&dir.path().join(FILE)).unwrap(), Some(value()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_opened_stays_theirs_and_what_the_node_opened_is_guarded_or_closed() {
        use Forwarding::{ByNode, ByOthers, Off};
        for (is_used, now, is_router, wanted) in [
            (true, Off, false, Step::Open),
            (true, ByNode, false, Step::Keep),
            (true, ByOthers, false, Step::Leave),
            (false, Off, false, Step::Leave),
            (false, ByNode, false, Step::Close),
            (false, ByOthers, false, Step::Leave),
            (true, Off, true, Step::Leave),
            (true, ByNode, true, Step::HandOver),
            (false, ByNode, true, Step::HandOver),
            (true, ByOthers, true, Step::Leave),
        ] {
            assert_eq!(step(is_used, now, is_router), wanted, "{is_used} {now:?} {is_router}");
        }
    }
}
