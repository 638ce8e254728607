//! Removes everything that a lab made. The lab's folder lists it, so that this also works for a lab whose
//! process was killed long ago, and nothing is removed only because of its name.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};

use super::{BPFFS, netns, wait::poll};

/// Folder of the labs' folders, with states, sockets and logs. Only root may write there.
const FOLDERS: &str = "/var/lib/overlay-lab";
/// Folder of the namespaces' own resolv.conf files, by name. A node that is killed leaves its files there.
pub(super) const NETNS_FILES: &str = "/etc/netns";
/// In a host's folder, beside its node's socket: where the node holds namespaces that were named by a process.
const HELD: &str = "overlay.netns";
/// The folder of control groups. The hierarchies of version 1 are below it.
const CGROUPS: &str = "/sys/fs/cgroup";
/// The beginning of every test's prefix; the process id of the test follows.
pub(super) const PREFIX: &str = "ovlab";

/// The folder of the lab with this prefix.
pub(super) fn folder(prefix: &str) -> PathBuf {
    Path::new(FOLDERS).join(prefix.trim_end_matches('-'))
}

/// The folder of pins of a host of the lab with this prefix.
pub(super) fn bpffs(prefix: &str, host: &str) -> PathBuf {
    Path::new(BPFFS).join(format!("{prefix}{host}"))
}

/// Removes the labs whose processes have ended.
pub(super) fn orphans() -> Result<()> {
    for name in names_in(Path::new(FOLDERS))? {
        if is_orphan(&name) {
            remove(&format!("{name}-"))?;
        }
    }
    Ok(())
}

/// Returns true for a folder's name like `ovlab123x0` if there is no process 123.
fn is_orphan(name: &str) -> bool {
    let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('x')).map(|(pid, _)| pid);
    let maker = maker.and_then(|pid| pid.parse::<u32>().ok());
    maker.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Removes the lab with this prefix. It goes on after a failure, and returns the first one.
pub(super) fn remove(prefix: &str) -> Result<()> {
    let folder = folder(prefix);
    let mut results = Vec::new();
    for name in netns::recorded(&folder) {
        results.push(remove_netns(&name));
    }
    // Only folders belong to hosts; the files are logs. A log's name has a dot, which bpffs refuses to look up.
    for host in names_in(&folder)?.into_iter().filter(|name| folder.join(name).is_dir()) {
        results.push(remove_folder(&bpffs(prefix, &host)));
        results.push(release_namespaces(&folder.join(&host)));
        // Where a scenario was killed that had mounted a disk there; elsewhere it is an error that is ignored.
        umount2(&folder.join(&host).join("state"), MntFlags::MNT_DETACH).ok();
        results.push(remove_cgroups(&format!("{prefix}{host}")));
    }
    results.push(remove_folder(&folder));
    results.into_iter().collect()
}

fn remove_netns(name: &str) -> Result<()> {
    remove_folder(&Path::new(NETNS_FILES).join(name))?;
    if !netns::exists(name) {
        return Ok(());
    }
    unless_gone(name, netns::kill_inside(name))?;
    poll(&format!("the programs in {name} are gone"), Duration::from_secs(5), || {
        if !netns::exists(name) {
            return Ok(());
        }
        let pids = netns::ip(&["netns", "pids", name])?;
        if pids.trim().is_empty() { Ok(()) } else { bail!("alive: {pids}") }
    })?;
    unless_gone(name, netns::ip(&["netns", "del", name]))
}

/// The failure to do something to a namespace, unless the namespace is gone: two labs that begin at one moment remove what a
/// third one left.
fn unless_gone<T>(name: &str, done: Result<T>) -> Result<()> {
    match done {
        Err(error) if netns::exists(name) => Err(error),
        _ => Ok(()),
    }
}

/// Removes a folder, which may be one of pins: the kernel frees a pinned object with its last reference.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Unmounts the namespaces that a node of the host with this folder held.
pub(super) fn release_namespaces(folder: &Path) -> Result<()> {
    let held = folder.join(HELD);
    for name in names_in(&held)? {
        // An error is ignored, because other files in the folder are not mounts.
        umount2(&held.join(name), MntFlags::MNT_DETACH).ok();
    }
    remove_folder(&held)
}

/// Removes the control groups of this name from every hierarchy. A container engine on a host of the lab makes
/// them, and leaves them when it is killed.
fn remove_cgroups(name: &str) -> Result<()> {
    let root = Path::new(CGROUPS);
    let hierarchies = names_in(root)?.into_iter().map(|hierarchy| root.join(hierarchy));
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let group = hierarchy.join(name);
        // The group's processes were killed, but the kernel may not have removed all of them yet.
        poll(&format!("{} is empty", group.display()), Duration::from_secs(5), || {
            remove_folders_only(&group)
        })?;
    }
    Ok(())
}

/// Removes folders with `rmdir`, the innermost first. The files of a control group cannot be removed, and do
/// not prevent the removal of its folder.
fn remove_folders_only(folder: &Path) -> Result<()> {
    for name in names_in(folder)? {
        let inner = folder.join(name);
        if inner.is_dir() {
            remove_folders_only(&inner)?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let dir = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        dir => dir.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    dir.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_makers_lab_is_an_orphan() {
        // 99999999 is above the kernel's greatest process id.
        assert!(is_orphan("ovlab99999999x3"));
        assert!(!is_orphan(&format!("{PREFIX}{}x0", std::process::id())));
        assert!(!is_orphan("ovlab"));
        assert!(!is_orphan("demo"));
    }
}
