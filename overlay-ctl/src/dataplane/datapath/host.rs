//! What must be true before anything is loaded: the process has the capabilities, and the folder is on a BPF file
//! system.

use std::{fs, path::Path};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::DatapathError;

// linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
/// Lets programs read the kernel's own structs.
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks that the folder, or the nearest one above it that exists, is on a BPF file system.
pub(super) fn check_bpffs(root: &Path) -> Result<(), DatapathError> {
    let is_bpffs = root
        .ancestors()
        .find_map(|folder| statfs(folder).ok())
        .is_some_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    if is_bpffs { Ok(()) } else { Err(DatapathError::NoBpffs(root.to_owned())) }
}

/// Checks that the effective capabilities suffice.
pub(super) fn check_capabilities() -> Result<(), DatapathError> {
    let status = fs::read_to_string("/proc/thread-self/status")
        .map_err(DatapathError::folder("/proc/thread-self/status", "read"))?;
    if suffices(effective(&status)) { Ok(()) } else { Err(DatapathError::NotRoot) }
}

fn effective(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn suffices(capabilities: u64) -> bool {
    let has = |bit: u32| capabilities & (1 << bit) != 0;
    has(CAP_NET_ADMIN) && (has(CAP_BPF) && has(CAP_PERFMON) || has(CAP_SYS_ADMIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_and_judged() {
        let status = |mask: &str| format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{mask}\nCapBnd:\t0\n");
        for (mask, enough) in [
            ("000001ffffffffff", true),
            ("000000c000001000", true),
            ("0000008000001000", false),
            ("0000004000001000", false),
            ("0000000000201000", true),
            ("0000008000000000", false),
            ("0000000000001000", false),
            ("0000000000000000", false),
        ] {
            assert_eq!(suffices(effective(&status(mask))), enough, "{mask}");
        }
        assert_eq!(effective("nothing of the kind"), 0);
    }
}
