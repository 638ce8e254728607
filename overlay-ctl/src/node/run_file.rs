//! `run.json`: what a node was started with that must be known to take away what it made.
//!
//! Most of what a node makes is found by its name and its mark in the kernel, or is written down in the state folder by
//! whoever changed it. The rest is at places that the node's arguments choose. They are written down before the node
//! makes anything there, so that a later process without these arguments finds them.

use super::folders::{NETNS_FOLDER, folder_of, held_beside};
use crate::{
    config::NodeRunArgs,
    dataplane::netlink::HeldNamespaces,
    durable::{FileError, read_json, write_json},
    model::NodeName,
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf, absolute},
};

/// The file in the state folder.
pub(super) const FILE: &str = "run.json";
/// How many different places are remembered: those of the last runs.
const PLACES_MAX: usize = 8;

/// Where a run of a node makes what the state folder does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Places {
    /// Folder of the pins.
    pub(super) bpffs: PathBuf,
    /// Socket of the local API; beside it are the held namespaces and the second mark of the log.
    pub(super) socket: PathBuf,
    /// UDP port of VXLAN, which the GRO device is named after.
    pub(super) vxlan_port: u16,
}

impl Places {
    /// The places, by absolute paths: a later process may run in another folder.
    ///
    /// # Errors
    /// The folder in which the process runs is not known, or a path is empty.
    pub(super) fn new(bpffs: &Path, socket: &Path, vxlan_port: u16) -> io::Result<Self> {
        Ok(Self { bpffs: absolute(bpffs)?, socket: absolute(socket)?, vxlan_port })
    }

    /// The folder of what a node needs as long as the machine runs.
    pub(super) fn run_folder(&self) -> &Path {
        folder_of(&self.socket)
    }

    /// The namespaces that the node holds by mounts.
    pub(super) fn held_namespaces(&self) -> HeldNamespaces {
        held_beside(&self.socket)
    }
}

/// The network namespace of a process, in a form that a later process can compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Namespace {
    /// The kernel's id of this boot: after another one, namespaces have other numbers.
    boot: String,
    /// Inode of the namespace, on the device of all namespaces.
    inode: u64,
}

impl Namespace {
    /// That of this process.
    fn own() -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let inode = fs::metadata("/proc/self/ns/net")?.ino();
        Ok(Self { boot: boot.trim().to_owned(), inode })
    }

    /// Whether `other` is surely another one.
    fn differs_from(&self, other: &Self) -> bool {
        self.boot == other.boot && self.inode != other.inode
    }
}

/// The content of `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunFile {
    /// The node's name, which the files that it writes for namespaces carry.
    pub(super) name: NodeName,
    /// The places of the last run, then those of earlier ones that differ.
    pub(super) places: Vec<Places>,
    /// There was no `/etc/netns` before the first run.
    #[serde(default)]
    pub(super) made_netns_folder: bool,
    /// Where the last run made its devices; `None` if that is not known.
    #[serde(default)]
    pub(super) namespace: Option<Namespace>,
}

impl RunFile {
    /// What is known of one run alone.
    pub(super) fn new(name: NodeName, places: Places) -> Self {
        let made_netns_folder = !Path::new(NETNS_FOLDER).exists();
        Self { name, places: vec![places], made_netns_folder, namespace: Namespace::own().ok() }
    }

    /// Whether the last run was surely in another network namespace than this process.
    pub(super) fn is_elsewhere(&self) -> bool {
        let own = Namespace::own().ok();
        self.namespace.as_ref().zip(own).is_some_and(|(last, own)| last.differs_from(&own))
    }

    /// The file of a state folder; `None` if there is none, as in one of an older version.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn read(state_dir: &Path) -> Result<Option<Self>, FileError> {
        read_json(&state_dir.join(FILE))
    }

    /// Writes down what this run is started with, if that is not known yet. To be called before the node makes anything.
    /// A node whose disk is full starts all the same.
    pub(super) fn note(state_dir: &Path, args: &NodeRunArgs, name: &NodeName) {
        let said = "a reset of the node may not find all that it makes";
        let known = Self::read(state_dir).unwrap_or_else(|error| {
            tracing::warn!(error = crate::error_chain(&error), "{said}: a file is written anew");
            None
        });
        let run = match Places::new(&args.bpffs, &args.socket, args.vxlan_port) {
            Ok(places) => Self::after(known.as_ref(), name.clone(), places),
            Err(error) => return tracing::warn!(%error, "{said}"),
        };
        if known.as_ref() == Some(&run) {
            return;
        }
        if let Err(error) = write_json(&state_dir.join(FILE), &run) {
            tracing::warn!(error = crate::error_chain(&error), "{said}");
        }
    }

    /// What is known of the node that runs with these arguments, and of its earlier runs.
    pub(super) fn of(args: &NodeRunArgs, name: &NodeName) -> io::Result<Self> {
        let known = Self::read(&args.state_dir).unwrap_or_default();
        let places = Places::new(&args.bpffs, &args.socket, args.vxlan_port)?;
        Ok(Self::after(known.as_ref(), name.clone(), places))
    }

    /// What is known once a run at `places` has begun. The oldest places are forgotten beyond [`PLACES_MAX`].
    fn after(known: Option<&Self>, name: NodeName, places: Places) -> Self {
        let Some(known) = known else { return Self::new(name, places) };
        let earlier = known.places.iter().filter(|earlier| **earlier != places).cloned();
        let places = [places.clone()].into_iter().chain(earlier).take(PLACES_MAX).collect();
        let made_netns_folder = known.made_netns_folder;
        Self { name, places, made_netns_folder, namespace: Namespace::own().ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::fs;

    /// A command line of nothing but a node's arguments.
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        run: NodeRunArgs,
    }

    fn args(bpffs: &str, port: &str) -> NodeRunArgs {
        let line = Line::parse_from(["node", "--bpffs", bpffs, "--vxlan-port", port]);
        NodeRunArgs { socket: "/run/h1/sock".into(), ..line.run }
    }

    fn name() -> NodeName {
        "h1".parse().unwrap()
    }

    #[test]
    fn a_namespace_of_another_boot_is_not_compared() {
        let at = |boot: &str, inode| Namespace { boot: boot.to_owned(), inode };
        for (other, differs) in [(at("a", 1), false), (at("a", 2), true), (at("b", 2), false)] {
            assert_eq!(at("a", 1).differs_from(&other), differs, "{other:?}");
        }
        let places = Places::new(Path::new("/b"), Path::new("/s"), 4789).unwrap();
        let mut run = RunFile::new(name(), places);
        assert!(!run.is_elsewhere(), "it is this process' own");
        run.namespace.as_mut().unwrap().inode += 1;
        assert!(run.is_elsewhere());
        run.namespace = None;
        assert!(!run.is_elsewhere(), "nothing is known");
    }

    #[test]
    fn places_are_remembered_newest_first_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let known = || RunFile::read(dir.path()).unwrap();
        assert_eq!(known(), None, "a folder of an older version");
        let ports = |known: Option<RunFile>| -> Vec<u16> {
            known.unwrap().places.iter().map(|places| places.vxlan_port).collect()
        };
        for (port, expected) in
            [("4789", vec![4789]), ("8472", vec![8472, 4789]), ("4789", vec![4789, 8472])]
        {
            RunFile::note(dir.path(), &args("/sys/fs/bpf/h1", port), &name());
            assert_eq!(ports(known()), expected);
        }
        for port in 5000..5020_u16 {
            RunFile::note(dir.path(), &args("/sys/fs/bpf/h1", &port.to_string()), &name());
        }
        assert_eq!(ports(known()), (5012..5020).rev().collect::<Vec<_>>());
    }

    #[test]
    fn paths_are_absolute_and_an_unchanged_file_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let here = std::env::current_dir().unwrap();
        RunFile::note(dir.path(), &args("pins", "4789"), &name());
        let known = RunFile::read(dir.path()).unwrap().unwrap();
        assert_eq!(known.places[0].bpffs, here.join("pins"));
        assert_eq!(known.places[0].run_folder(), Path::new("/run/h1"));
        let file = dir.path().join(FILE);
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).unwrap());
        let before = inode();
        RunFile::note(dir.path(), &args("pins", "4789"), &name());
        assert_eq!(inode(), before);
    }

    #[test]
    fn a_damaged_file_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"{").unwrap();
        assert!(RunFile::read(dir.path()).is_err());
        RunFile::note(dir.path(), &args("/sys/fs/bpf/h1", "4789"), &name());
        assert_eq!(RunFile::read(dir.path()).unwrap().unwrap().places.len(), 1);
    }
}
