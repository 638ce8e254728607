//! The requirements of a scenario to the machine. A scenario whose requirements are not met is skipped with a
//! reason instead of failing.

use std::{
    env,
    fs::File,
    io::{self, Write as _},
    panic::Location,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use super::{
    BPFFS,
    command::{self, PATIENCE},
};

/// A requirement of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// The rights of root, for namespaces and devices.
    Root,
    /// A bpffs mounted on /sys/fs/bpf.
    Bpffs,
    /// The release binary.
    Binary,
    /// The binary of an earlier commit, which `cargo xtask upgrade` builds.
    Previous,
    /// A program on PATH.
    Tool(&'static str),
}

/// The requirements that are not met, in one sentence; `None` if all are met.
#[must_use]
pub fn missing(requirements: &[Requirement]) -> Option<String> {
    let reasons: Vec<String> =
        requirements.iter().copied().filter_map(Requirement::lacking).collect();
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

/// Records that the test at `at` is skipped, and why. Without this record nobody would notice, because the
/// test's runner counts the test as passed. One line with the test, a tab and the reason goes to stderr and
/// to the file that OVERLAY_SKIPS names.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn skip(reason: &str, at: &Location<'_>) -> io::Result<()> {
    // nextest tells the test's name. Under libtest the place in the source is used instead.
    let test = env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| at.to_string());
    let line = format!("{test}\t{reason}\n");
    eprint!("skipped: {line}");
    if let Some(path) = env::var_os("OVERLAY_SKIPS") {
        File::options().create(true).append(true).open(path)?.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// Fails if too few kinds of devices or protocols were tried: all of them where the kernel has a module of each
/// (OVERLAY_EVERY_KIND, which `cargo xtask test` sets in its virtual machines), and `usual` elsewhere. Without it a test of
/// many kinds would pass where it tried none.
///
/// # Errors
/// Names the kinds that were not tried.
pub fn tried_enough(tried: &[&str], all: &[&str], usual: &[&str]) -> Result<()> {
    let wanted = if env::var_os("OVERLAY_EVERY_KIND").is_some() { all } else { usual };
    let left: Vec<_> = wanted.iter().filter(|kind| !tried.contains(kind)).collect();
    ensure!(left.is_empty(), "not tried: {left:?}");
    Ok(())
}

/// Fails if the kernel has to have this kind of device or protocol: see [`tried_enough`]. A test that can do nothing without
/// it ends with this.
///
/// # Errors
/// Names the kind.
pub fn may_lack(kind: &str) -> Result<()> {
    tried_enough(&[], &[kind], &[])
}

/// Loads a module that the kernel does not load by itself. Where there is none of this name, the feature is built in, or the
/// kernel does not have it.
///
/// # Errors
/// Returns an error if `modprobe` can't be run.
pub fn load_module(name: &str) -> Result<()> {
    command::output(Command::new("modprobe").args(["-q", name]), PATIENCE)?;
    Ok(())
}

/// The binary under test: the one that OVERLAY_BIN names, or else the workspace's release build.
#[must_use]
pub fn overlay_binary() -> PathBuf {
    env::var_os("OVERLAY_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/overlay"),
        PathBuf::from,
    )
}

/// The binary of an earlier commit, from which nodes are upgraded: the one that OVERLAY_PREVIOUS names.
#[must_use]
pub fn previous_binary() -> Option<PathBuf> {
    env::var_os("OVERLAY_PREVIOUS").map(PathBuf::from)
}

impl Requirement {
    fn lacking(self) -> Option<String> {
        match self {
            Self::Root => (!nix::unistd::geteuid().is_root()).then(|| "it needs root".into()),
            Self::Bpffs => (!is_bpffs()).then(|| format!("no bpffs on {BPFFS}")),
            Self::Binary => {
                let binary = overlay_binary();
                (!binary.is_file()).then(|| format!("{} is not built", binary.display()))
            }
            Self::Previous => {
                let is_there = previous_binary().is_some_and(|binary| binary.is_file());
                (!is_there).then(|| {
                    "OVERLAY_PREVIOUS names no earlier program, which `cargo xtask upgrade` builds"
                        .to_owned()
                })
            }
            Self::Tool(tool) => (!on_path(tool)).then(|| format!("no {tool} on PATH")),
        }
    }
}

fn is_bpffs() -> bool {
    nix::sys::statfs::statfs(BPFFS)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC)
}

fn on_path(tool: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(tool).is_file())
        || ["/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(tool).is_file())
}
