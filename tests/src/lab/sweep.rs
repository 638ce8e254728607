//! Removing what a lab made, known by its prefix alone: it works as well for a lab whose process was
//! killed long ago.

use std::{fs, io::ErrorKind, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{BPFFS, FOLDERS, netns, wait::poll};

/// Every lab's prefix starts with it; then comes the process id of its maker.
pub(super) const PREFIX: &str = "ovlab";

/// Removes the labs whose makers are no more.
pub(super) fn orphans() -> Result<()> {
    let mut names = netns::names_with_prefix(PREFIX)?;
    for folder in [FOLDERS, BPFFS] {
        names.extend(names_in(folder, PREFIX)?);
    }
    let mut prefixes: Vec<&str> = names.iter().filter_map(|name| orphan_prefix(name)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    for prefix in prefixes {
        remove(prefix)?;
    }
    Ok(())
}

/// The prefix in a name like `ovlab123x0-h1`, if process 123 is no more.
fn orphan_prefix(name: &str) -> Option<&str> {
    let (prefix, _) = name.split_once('-')?;
    let (pid, _) = prefix.strip_prefix(PREFIX)?.split_once('x')?;
    let pid: u32 = pid.parse().ok()?;
    let alive = Path::new("/proc").join(pid.to_string()).exists();
    (!alive).then(|| &name[..=prefix.len()])
}

/// Removes everything under a prefix. Goes on past a failure, and reports the first.
pub(super) fn remove(prefix: &str) -> Result<()> {
    if prefix.len() < 4 {
        bail!("{prefix:?} is too short to be a lab's own");
    }
    let mut results = Vec::new();
    for name in netns::names_with_prefix(prefix)? {
        results.push(remove_netns(&name));
    }
    for name in names_in(BPFFS, prefix)? {
        results.push(remove_pins(&Path::new(BPFFS).join(name)));
    }
    results.push(remove_folder(&Path::new(FOLDERS).join(prefix)));
    results.into_iter().collect()
}

fn remove_netns(name: &str) -> Result<()> {
    netns::kill_inside(name)?;
    poll(&format!("the programs in {name} are gone"), Duration::from_secs(5), || {
        let pids = netns::ip(&["netns", "pids", name])?;
        if pids.trim().is_empty() { Ok(()) } else { bail!("alive: {pids}") }
    })?;
    netns::ip(&["netns", "del", name])?;
    Ok(())
}

/// Removes a folder of pins. What they held goes with the last reference.
pub(super) fn remove_pins(folder: &Path) -> Result<()> {
    remove_folder(folder)
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn names_in(folder: &str, prefix: &str) -> Result<Vec<String>> {
    let dir = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        dir => dir.with_context(|| format!("cannot read {folder}"))?,
    };
    let mut names = Vec::new();
    for entry in dir {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_makers_lab_is_an_orphan() {
        // Above the kernel's greatest process id.
        assert_eq!(orphan_prefix("ovlab99999999x3-web1"), Some("ovlab99999999x3-"));
        let own = format!("{PREFIX}{}x0-h1", std::process::id());
        assert_eq!(orphan_prefix(&own), None);
        assert_eq!(orphan_prefix("ovlab"), None);
        assert_eq!(orphan_prefix("somebody-else"), None);
    }
}
