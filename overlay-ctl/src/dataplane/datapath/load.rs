//! Loading of the programs into the kernel.

use std::{fs, io};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, SchedClassifier},
};
use overlay_common::{KERNEL_BTF, Prepared, SKB_LAYOUT, map};

#[cfg(debug_assertions)]
use super::log;
use super::{DatapathError, layout::Folders, place::Role};

/// The programs, as the build left them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("OVERLAY_EBPF_OBJECT"));
/// How often the verifier may be interrupted.
const LOAD_ATTEMPTS: usize = 50;

/// Loads the programs over the pinned maps, which are made where they are missing. Of the ways in which programs can
/// read the kernel's own struct of a packet, the first that the kernel takes counts.
pub(super) fn load(folders: &Folders) -> Result<Ebpf, DatapathError> {
    let btf = fs::read(KERNEL_BTF).map_err(DatapathError::NoTypes)?;
    let ways = overlay_common::prepare(OBJECT, &btf).map_err(DatapathError::Types)?;
    let mut first_refusal = None;
    for way in &ways {
        match load_prepared(folders, way) {
            Ok(programs) => return Ok(programs),
            Err(error) => {
                tracing::debug!(%error, "the kernel refuses one way of reading its sk_buff");
                first_refusal.get_or_insert(error);
            }
        }
    }
    Err(first_refusal.unwrap_or(DatapathError::Incomplete(SKB_LAYOUT)))
}

fn load_prepared(folders: &Folders, way: &Prepared) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    for shape in map::ALL {
        loader.map_pin_path(shape.name, folders.maps.join(shape.name));
    }
    loader.override_global(SKB_LAYOUT, &way.layout, true);
    #[cfg(debug_assertions)]
    log::set_level(&mut loader);
    let loaded = loader.load(&way.object);
    let mut programs = loaded.map_err(|error| DatapathError::Load(Box::new(error)))?;
    for role in Role::NEEDED {
        program(&mut programs, role)?;
    }
    #[cfg(debug_assertions)]
    log::forward(&mut programs);
    Ok(programs)
}

/// Calls `load` again while the verifier is interrupted.
///
/// It gives up with EAGAIN when a signal comes in, and asks to be called again. aya does so a few times, but a busy
/// machine was seen to interrupt it more often.
pub(super) fn load_patiently(
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), ProgramError> {
    let mut loaded = load();
    for _ in 0..LOAD_ATTEMPTS {
        match &loaded {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == io::ErrorKind::WouldBlock =>
            {
                loaded = load();
            }
            _ => break,
        }
    }
    loaded
}

/// The program of a role at TC, which is loaded the first time.
pub(super) fn program(
    programs: &mut Ebpf,
    role: Role,
) -> Result<&mut SchedClassifier, DatapathError> {
    let name = role.program();
    let program = programs.program_mut(name).ok_or(DatapathError::Incomplete(name))?;
    let program: &mut SchedClassifier =
        program.try_into().map_err(|_| DatapathError::Incomplete(name))?;
    if program.fd().is_err() {
        load_patiently(|| program.load()).map_err(|source| DatapathError::Verify {
            program: name,
            since: "5.13",
            source: Box::new(source),
        })?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways round: a release whose programs log would pay for it packet by packet, and a debug build
    /// whose programs do not would keep silent.
    #[test]
    fn the_programs_log_in_debug_builds_alone() {
        let logs = OBJECT.windows(8).any(|name| name == b"AYA_LOGS");
        assert_eq!(logs, cfg!(debug_assertions));
    }
}
