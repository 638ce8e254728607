//! What the kernel tells about the programs that run.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use aya::programs::ProgramInfo;

use super::{DatapathError, attach, layout::Folders};

/// The switch by which the kernel counts the runs of programs and their time.
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One of our programs, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramStatus {
    /// Its name, which is also the name of its direction.
    pub name: &'static str,
    /// The kernel's number for it.
    pub id: u32,
    /// The kernel's digest of its instructions, which is the same on every node that runs this version.
    pub tag: u64,
    /// When this process loaded it.
    pub loaded_at: Option<SystemTime>,
    /// Instructions that the verifier walked through (kernel 5.16).
    pub verified_instructions: Option<u32>,
    /// Bytes of machine code; 0 if the kernel interprets the program.
    pub jited_bytes: u32,
    /// Where it is attached, by name: see [`find_devices`].
    pub devices: Vec<String>,
    /// Devices, by name, on which the program of another process runs for the time being.
    pub other_devices: Vec<String>,
    /// For how long it ran while the kernel counted.
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

/// Fills in where each program of the node with this folder is attached. It looks at each device, and takes no
/// lock meanwhile.
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
        // If the device is gone, the program is attached nowhere.
        let Ok(device) = place.device() else { continue };
        match attach::running(&place.entry(&links)) {
            Some(id) if id != program.id => program.other_devices.push(device),
            _ => program.devices.push(device),
        }
    }
    Ok(())
}

/// Whether the kernel counts the run time of programs, which costs each run some nanoseconds.
///
/// # Errors
/// The switch can't be read.
pub fn run_time_is_counted() -> io::Result<bool> {
    Ok(fs::read_to_string(STATS)?.trim() == "1")
}
