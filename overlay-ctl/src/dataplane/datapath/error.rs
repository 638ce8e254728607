//! What can go wrong, in words for the person who reads it.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use overlay_common::{BtfError, KERNEL_BTF};

/// The data plane could not be loaded, attached, written or read.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// Too few capabilities.
    #[error(
        "loading BPF programs is not allowed: this needs CAP_NET_ADMIN, and CAP_BPF with CAP_PERFMON or CAP_SYS_ADMIN; run the node as root"
    )]
    NotRoot,
    /// The folder is on no BPF file system.
    #[error(
        "{} is not on a BPF file system, where the data plane outlives the controller: `mount -t bpf bpf /sys/fs/bpf`, or name a folder on one with `--bpffs` (`ip netns exec` hides it: use `nsenter --net=/run/netns/NAME`)",
        .0.display()
    )]
    NoBpffs(PathBuf),
    /// A folder or a pin could not be made, read or removed.
    #[error("{} could not be {action}", .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// "created", "read", "removed".
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not describe its types.
    #[error(
        "{KERNEL_BTF} can't be read; the programs need it to find the fields of a packet: run a kernel with CONFIG_DEBUG_INFO_BTF"
    )]
    NoTypes(#[source] io::Error),
    /// This version does not know the kernel's types.
    #[error(
        "{KERNEL_BTF} does not say where the fields of a packet are, which the programs need: run a kernel that this version was tested with"
    )]
    Types(#[source] BtfError),
    /// The kernel refused the object.
    #[error(
        "the kernel did not accept the BPF programs; Linux 5.13 or newer with BTF is needed (`uname -r`)"
    )]
    Load(#[source] Box<EbpfError>),
    /// The kernel's verifier refused a program.
    #[error(
        "the kernel did not accept the program {program}; Linux {since} or newer is needed (`uname -r`)"
    )]
    Verify {
        /// Which.
        program: &'static str,
        /// The first kernel that should.
        since: &'static str,
        /// The verifier's words.
        #[source]
        source: Box<ProgramError>,
    },
    /// No program knows the headers of packets on a device.
    #[error(
        "the device {0} has a link layer for which the overlay has no program (`ip link` shows it): reach the VTEPs by another device"
    )]
    ForeignLinkLayer(String),
    /// The embedded object lacks something: a build went wrong.
    #[error(
        "the embedded BPF object has no {0}: this binary was built wrongly; build it again (`cargo xtask build`)"
    )]
    Incomplete(&'static str),
    /// The kernel gives no information about a program that it runs.
    #[error("the kernel gives no information about the program {program}")]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The device is gone, or its name or index belongs to another one now.
    #[error("there is no network device {ifname} with index {ifindex} (any more)")]
    NoDevice {
        /// Name that it had.
        ifname: String,
        /// Index that it had.
        ifindex: u32,
    },
    /// A program could not be attached to a device, replaced, or detached.
    #[error("the program {program} could not be {action} the device {ifname}")]
    Attach {
        /// Which.
        program: &'static str,
        /// "attached to", "replaced on", "detached from".
        action: &'static str,
        /// Its name, or its index where it has none any more.
        ifname: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// `guard_underlay` could not be attached to the underlay device.
    #[error("no {mode} XDP on {ifname}: {why}")]
    Guard {
        /// The device.
        ifname: String,
        /// native, generic
        mode: &'static str,
        /// What the kernel's answer means.
        why: String,
        /// Its answer.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map has no room for another entry.
    #[error(
        "the map {name} is full: it holds {capacity} entries, which is what this version can carry on one node"
    )]
    TableFull {
        /// The map.
        name: &'static str,
        /// Its capacity.
        capacity: u32,
    },
    /// A map could not be read or written.
    #[error("the map {name} could not be {action}")]
    Table {
        /// The map.
        name: &'static str,
        /// "read", "written".
        action: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The records of packets have a reader already.
    #[error("the records of packets have a reader already, and can have only one: close it first")]
    EventsTaken,
    /// Waiting for EVENTS failed.
    #[error("waiting for the records of packets failed")]
    Events(#[source] io::Error),
}

impl DatapathError {
    pub(super) fn folder(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Folder { path, action, source }
    }

    pub(super) fn table(
        name: &'static str,
        action: &'static str,
    ) -> impl Fn(MapError) -> Self + Copy {
        move |source| Self::Table { name, action, source }
    }
}
