//! Offloads by which the kernel merges received packets in a way that does not survive the removal of outer headers. They
//! are switched off on the devices of the underlay while the node is there, and given back when it is removed.

use crate::{
    dataplane::netlink::{LinkList, Netlink, NetlinkError, Offloads, OffloadsError},
    durable::{FileError, boot_id, read_json, write_json},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Merges packets into a list, in which each keeps its own outer headers: only those of the first can be removed.
const LISTS: &str = "rx-gro-list";
/// Merges datagrams, also those inside VXLAN. The receiver's kernel cannot cut what was merged so, because the marks of
/// the tunnel are still on it, and drops all of it (see `Kind::cuts_inside`).
const DATAGRAMS: &str = "rx-udp-gro-forwarding";
const HARMFUL: [&str; 2] = [LISTS, DATAGRAMS];
/// The file in the state folder.
pub(super) const FILE: &str = "offloads.json";

/// What the node has switched off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The start of the host since which it is off.
    boot: String,
    devices: Vec<SwitchedOff>,
}

/// What the node has switched off on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SwitchedOff {
    ifindex: u32,
    device: String,
    offloads: BTreeSet<String>,
}

/// The reason why an offload could not be switched off or given back.
#[derive(Debug, thiserror::Error)]
pub enum MergingError {
    /// The state folder failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// ethtool's messages failed.
    #[error(transparent)]
    Offloads(#[from] OffloadsError),
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The device does not let itself be told.
    #[error("it stays on")]
    StaysOn,
}

/// Keeps the offloads off.
pub struct MergeKeeper {
    path: PathBuf,
    /// The devices by which packets of the underlay come in, by their index.
    devices: BTreeMap<u32, String>,
    /// The connection, while it works.
    offloads: Option<Offloads>,
    /// What could not be switched off, in words.
    trouble: Vec<String>,
}

impl MergeKeeper {
    /// Of a node with this state folder.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        let (devices, trouble) = (BTreeMap::new(), Vec::new());
        Self { path: state_dir.join(FILE), devices, offloads: None, trouble }
    }

    /// Finds out by which devices the packets of the underlay device come in, gives back what was switched off on others,
    /// and switches off what is on.
    pub(super) async fn look(&mut self, netlink: &Netlink, links: &LinkList, underlay: u32) {
        self.devices = links.receiving_devices(underlay);
        if let Err(error) = self.give_back_others(netlink).await {
            tracing::warn!(
                error = crate::error_chain(&error),
                "offloads of a former underlay device were not given back"
            );
        }
        self.keep().await;
    }

    /// Switches off what is on. Who switched it on again meanwhile finds it off again.
    pub(super) async fn keep(&mut self) {
        let mut trouble = Vec::new();
        for (ifindex, device) in self.devices.clone() {
            let kept = self.keep_off(ifindex, &device).await;
            // One that has gone merges nothing.
            let kept = kept.or_else(|error| match error {
                MergingError::Offloads(OffloadsError::NoDevice(_)) => Ok(()),
                error => Err(error),
            });
            if let Err(error) = kept {
                self.offloads = None;
                let (names, error) = (HARMFUL.join(" and "), crate::error_chain(&error));
                trouble.push(format!(
                    "{device} may merge received packets so that endpoints lose them, because {names} \
                     could not be switched off ({error}): try `ethtool -K`"
                ));
            }
        }
        if trouble != self.trouble && !trouble.is_empty() {
            tracing::warn!(?trouble, "received packets are merged");
        }
        self.trouble = trouble;
    }

    /// What could not be switched off, in words.
    pub(super) fn trouble(&self) -> impl Iterator<Item = String> {
        self.trouble.iter().cloned()
    }

    async fn keep_off(&mut self, ifindex: u32, device: &str) -> Result<(), MergingError> {
        let on = self.on(device).await?;
        if on.is_empty() {
            return Ok(());
        }
        // The file first, so that they can be given back also where the node is killed in between.
        let before = read(&self.path)?;
        let after = before.clone().with(ifindex, device, &on);
        if after != before {
            write_json(&self.path, &after)?;
        }
        let names: Vec<&str> = on.iter().map(String::as_str).collect();
        self.connection()?.switch(ifindex, &names, false).await?;
        if !self.on(device).await?.is_empty() {
            return Err(MergingError::StaysOn);
        }
        tracing::info!(device, offloads = names.join(", "), "switched off while the node is here");
        Ok(())
    }

    /// Those of the harmful offloads that are in force on a device.
    async fn on(&mut self, device: &str) -> Result<BTreeSet<String>, OffloadsError> {
        let mut on = self.connection()?.in_force(device).await?;
        on.retain(|name| HARMFUL.contains(&name.as_str()));
        Ok(on)
    }

    fn connection(&mut self) -> Result<&mut Offloads, OffloadsError> {
        Ok(match &mut self.offloads {
            Some(open) => open,
            none => none.insert(Offloads::open()?),
        })
    }

    async fn give_back_others(&self, netlink: &Netlink) -> Result<(), MergingError> {
        let mut record = read(&self.path)?;
        let is_here = |entry: &SwitchedOff| self.devices.contains_key(&entry.ifindex);
        let (here, others): (Vec<_>, Vec<_>) = record.devices.into_iter().partition(is_here);
        if others.is_empty() {
            return Ok(());
        }
        give_back(netlink, &others).await?;
        record.devices = here;
        Ok(write_json(&self.path, &record)?)
    }
}

impl Record {
    /// The record after these offloads of a device were switched off, too.
    fn with(mut self, ifindex: u32, device: &str, offloads: &BTreeSet<String>) -> Self {
        match self.devices.iter_mut().find(|entry| entry.ifindex == ifindex) {
            Some(entry) => {
                device.clone_into(&mut entry.device);
                entry.offloads.extend(offloads.iter().cloned());
            }
            None => self.devices.push(SwitchedOff {
                ifindex,
                device: device.to_owned(),
                offloads: offloads.clone(),
            }),
        }
        self
    }
}

/// What is off since this start of the host, at which each device got its offloads anew.
fn read(path: &Path) -> Result<Record, FileError> {
    let boot = boot_id()?;
    let record: Option<Record> = read_json(path)?;
    let is_of_now = |record: &Record| record.boot == boot;
    Ok(record.filter(is_of_now).unwrap_or(Record { boot, devices: Vec::new() }))
}

/// Returns the devices whose offloads were switched on again.
async fn give_back(netlink: &Netlink, record: &[SwitchedOff]) -> Result<Vec<String>, MergingError> {
    let mut devices = Vec::new();
    for SwitchedOff { ifindex, device, offloads } in record {
        // Another device may have the number by now.
        let present = netlink.xdp_device(*ifindex).await?;
        if present.is_some_and(|present| present.name == *device) {
            let names: Vec<&str> = offloads.iter().map(String::as_str).collect();
            Offloads::open()?.switch(*ifindex, &names, true).await?;
            tracing::info!(device, offloads = names.join(", "), "switched on again");
            devices.push(device.clone());
        }
    }
    Ok(devices)
}

/// Gives back all that was switched off. Returns the devices that got something back.
///
/// # Errors
/// The state folder, or the kernel.
pub(crate) async fn restore(
    netlink: &Netlink,
    state_dir: &Path,
) -> Result<Vec<String>, MergingError> {
    let path = state_dir.join(FILE);
    let devices = give_back(netlink, &read(&path)?.devices).await?;
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError::Io { path, source }.into())
        }
        _ => Ok(devices),
    }
}

#[cfg(test)]
pub(crate) mod golden {
    use super::*;

    fn value() -> Record {
        let boot = "6f766572-6c61-7900-0000-000000000001".to_owned();
        let offloads = BTreeSet::from([DATAGRAMS.to_owned(), LISTS.to_owned()]);
        let eth0 = SwitchedOff { ifindex: 7, device: "eth0".to_owned(), offloads };
        Record { boot, devices: vec![eth0] }
    }

    pub(crate) fn offloads() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        write_json(&dir.path().join(FILE), &value()).unwrap();
        fs::read(dir.path().join(FILE)).unwrap()
    }

    pub(crate) fn check_offloads(bytes: &[u8]) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), bytes).unwrap();
        assert_eq!(read_json(&dir.path().join(FILE)).unwrap(), Some(value()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_was_off_before_is_never_switched_on() {
        let record = Record::default()
            .with(7, "eth0", &names(&[LISTS]))
            .with(8, "eth1", &names(&[LISTS]))
            .with(7, "lan0", &names(&[DATAGRAMS]));
        let [first, second] = &record.devices[..] else { panic!("{record:?}") };
        assert_eq!((first.ifindex, &*first.device), (7, "lan0"), "as it is called now");
        assert_eq!(first.offloads, names(&[DATAGRAMS, LISTS]));
        assert_eq!(second.offloads, names(&[LISTS]));
    }

    #[test]
    fn a_record_of_before_the_host_was_started_anew_counts_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let now = read(&path).unwrap();
        assert_eq!(now.devices, []);
        let record = now.with(7, "eth0", &names(&[LISTS]));
        write_json(&path, &record).unwrap();
        assert_eq!(read(&path).unwrap(), record);
        write_json(&path, &Record { boot: "another".to_owned(), ..record }).unwrap();
        assert_eq!(read(&path).unwrap().devices, []);
    }
}
