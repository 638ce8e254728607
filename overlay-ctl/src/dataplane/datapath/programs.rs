//! What the kernel says of the programs that run.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use aya::programs::{
    ProgramInfo,
    links::{FdLink, PinnedLink},
};

use super::{DatapathError, attach, host::Folders};

/// Whether the kernel counts what programs run, and for how long.
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One of our programs, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramStatus {
    /// Its name, which is also its direction's.
    pub name: &'static str,
    /// The kernel's number for it.
    pub id: u32,
    /// The kernel's digest of its instructions: it is the same in every node that runs this version.
    pub tag: u64,
    /// When this process loaded it.
    pub loaded_at: Option<SystemTime>,
    /// Instructions that the verifier walked through (kernel 5.16).
    pub verified_instructions: Option<u32>,
    /// Bytes of machine code; 0 where the kernel interprets it.
    pub jited_bytes: u32,
    /// Where it is attached, by name: see [`find_devices`].
    pub devices: Vec<String>,
    /// Where one of another process is, for the time being: by name.
    pub other_devices: Vec<String>,
    /// Time that it ran while the kernel counted.
    pub run_time: Duration,
    /// How often it ran while the kernel counted.
    pub run_count: u64,
}

impl ProgramStatus {
    pub(super) fn new(name: &'static str, info: &ProgramInfo) -> Self {
        Self {
            name,
            id: info.id(),
            tag: info.tag(),
            loaded_at: info.loaded_at(),
            verified_instructions: info.verified_instruction_count(),
            jited_bytes: info.size_jitted(),
            devices: Vec::new(),
            other_devices: Vec::new(),
            run_time: info.run_time(),
            run_count: info.run_count(),
        }
    }
}

/// Says of each program of the node with this folder where it is attached. Looks at each device, and holds
/// nobody up meanwhile.
///
/// # Errors
/// [`DatapathError::Folder`].
pub fn find_devices(bpffs: &Path, programs: &mut [ProgramStatus]) -> Result<(), DatapathError> {
    let links = Folders::new(bpffs).links;
    for place in attach::places(&links)? {
        let name = place.role.program();
        let Some(program) = programs.iter_mut().find(|program| program.name == name) else {
            continue;
        };
        // Whose device has gone is attached nowhere.
        let Ok(device) = place.device() else { continue };
        match running(&place.entry(&links)) {
            Some(id) if id != program.id => program.other_devices.push(device),
            _ => program.devices.push(device),
        }
    }
    Ok(())
}

/// The program in a pinned link. A filter of clsact has no link to ask.
fn running(entry: &Path) -> Option<u32> {
    if fs::symlink_metadata(entry).is_ok_and(|metadata| metadata.is_dir()) {
        return None;
    }
    let link = FdLink::from(PinnedLink::from_pin(entry).ok()?);
    link.info().ok().map(|info| info.program_id())
}

/// Whether the kernel counts programs' run time, which costs each run some nanoseconds.
///
/// # Errors
/// The kernel does not say.
pub fn run_time_is_counted() -> io::Result<bool> {
    Ok(fs::read_to_string(STATS)?.trim() == "1")
}
