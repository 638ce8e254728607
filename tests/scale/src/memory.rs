//! Reads the memory that the maps take in the kernel, and that of this process.

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use overlay_ctl::dataplane::datapath::maps_folder;
use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

/// `memlock` of a pinned map's descriptor, in bytes: the memory of the map according to the kernel. It is exact
/// from Linux 6.4 on; older kernels count a map that is not preallocated as empty.
pub(crate) fn of_map(bpffs: &Path, name: &str) -> Result<u64> {
    let map = MapData::from_pin(maps_folder(bpffs).join(name))?;
    let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    field(&std::fs::read_to_string(info)?, "memlock:")
}

/// Bytes of the slab memory that cannot be reclaimed, on the whole machine; entries are part of it.
pub(crate) fn slab() -> Result<u64> {
    Ok(field(&std::fs::read_to_string("/proc/meminfo")?, "SUnreclaim:")? * 1024)
}

/// Bytes of this process's resident memory.
pub(crate) fn resident() -> Result<u64> {
    Ok(field(&std::fs::read_to_string("/proc/self/status")?, "VmRSS:")? * 1024)
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_whitespace().next());
    value.with_context(|| format!("no {name}"))?.parse().context("not a number")
}
