//! `guard_underlay` on the underlay device, by XDP.
//!
//! Its link is pinned as those of the other programs. A device has one XDP program: if that is somebody else's,
//! ours is not attached.
#![expect(unsafe_code, reason = "aya can't take an XDP link over from its pin: bpf(2) itself")]

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::programs::{
    ProgramError, Xdp,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};
use nix::{errno::Errno, libc};

use super::{
    Datapath, DatapathError,
    attach::{self, errno},
    load::load_patiently,
    place::{GuardMode, Place, Role},
};

/// The state of the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// `None`: it is not attached, and `from_underlay` does its work.
    pub mode: Option<GuardMode>,
    /// Why it is not native; empty if it is.
    pub why: String,
    /// True if it is not what was asked for.
    pub is_fallback: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self { mode: None, why: "not attached yet".to_owned(), is_fallback: false }
    }
}

impl Datapath {
    /// Attaches `guard_underlay` to the underlay device `ifname`, or replaces the one of an earlier process with
    /// no packet in between. If that runs in another mode, it is detached first: a device has one XDP program.
    /// A program that is not ours is never replaced.
    ///
    /// # Errors
    /// [`DatapathError::Guard`] says why it could not be attached; [`DatapathError::NoDevice`] and the others as
    /// for [`Datapath::open`]. Afterwards there is no guard in another mode.
    pub fn attach_guard(&mut self, ifname: &str, mode: GuardMode) -> Result<(), DatapathError> {
        let place = Place { role: Role::Guard(mode), ifindex: self.config.underlay_ifindex };
        self.detach_guards(|other| other != place)?;
        let links = self.folders.links.clone();
        let program = self.guard_program(mode)?;
        load(program, mode)?;
        let entry = place.entry(&links);
        if replace(program, place, &entry)? {
            return Ok(());
        }
        attach::check_device(ifname, place.ifindex)?;
        let refused = |error: ProgramError| DatapathError::Guard {
            ifname: ifname.to_owned(),
            mode: mode.name(),
            why: why(mode, errno(&error)),
            source: Box::new(error),
        };
        let id = program.attach_to_if_index(place.ifindex, mode.xdp()).map_err(refused)?;
        let link = program.take_link(id).map_err(refused)?;
        // Kernels without XDP links, on which the programs do not run, would give no descriptor.
        let link = FdLink::try_from(link).map_err(|error| place.failed("attached to", error))?;
        link.pin(entry).map_err(|error| place.failed("attached to", error))?;
        Ok(())
    }

    /// Detaches `guard_underlay`, wherever it is. No error if it is nowhere.
    ///
    /// # Errors
    /// [`DatapathError::Folder`].
    pub fn detach_guard(&mut self) -> Result<(), DatapathError> {
        self.detach_guards(|_| true)
    }

    fn detach_guards(&self, which: impl Fn(Place) -> bool) -> Result<(), DatapathError> {
        for place in attach::places(&self.folders.links)? {
            if matches!(place.role, Role::Guard(_)) && which(place) {
                take_off(&place.entry(&self.folders.links));
                attach::detach(&self.folders.links, place)?;
            }
        }
        Ok(())
    }

    /// The kernel's id of this process' program for the mode; `None` before it is loaded.
    #[must_use]
    pub fn guard_id(&mut self, mode: GuardMode) -> Option<u32> {
        Some(self.guard_program(mode).ok()?.info().ok()?.id())
    }

    /// The state of the guard, as it was last noted.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Notes the state of the guard.
    pub fn note_guard(&mut self, guard: Guard) {
        self.guard = guard;
    }

    /// Replaces a guard of another layout by this process' own. If that can't be loaded, the guard goes:
    /// `from_underlay` does its work, and the other layout's maps must not decide any more.
    pub(super) fn swap_guard(
        &mut self,
        place: Place,
        mode: GuardMode,
    ) -> Result<(), DatapathError> {
        let entry = place.entry(&self.folders.links);
        let program = self.guard_program(mode)?;
        let swapped = load(program, mode).and_then(|()| replace(program, place, &entry));
        if let Err(error) = swapped {
            let error = crate::error_chain(&error);
            tracing::warn!(error, "the XDP guard of another version is detached");
            return self.detach_guards(|other| other == place);
        }
        Ok(())
    }

    fn guard_program(&mut self, mode: GuardMode) -> Result<&mut Xdp, DatapathError> {
        let name = Role::Guard(mode).program();
        let program = self.programs.program_mut(name).ok_or(DatapathError::Incomplete(name))?;
        program.try_into().map_err(|_| DatapathError::Incomplete(name))
    }
}

/// Loads the program, unless it is loaded. This happens only when a guard is wanted, so that a kernel which refuses
/// it still forwards.
fn load(program: &mut Xdp, mode: GuardMode) -> Result<(), DatapathError> {
    if program.fd().is_ok() {
        return Ok(());
    }
    load_patiently(|| program.load()).map_err(|source| DatapathError::Verify {
        program: Role::Guard(mode).program(),
        since: if mode == GuardMode::Native { "5.18" } else { "5.13" },
        source: Box::new(source),
    })
}

/// Replaces an earlier program of ours. Returns false if there is none, or if somebody else detached it; its entry,
/// if any, is removed.
fn replace(program: &mut Xdp, place: Place, entry: &Path) -> Result<bool, DatapathError> {
    match fs::symlink_metadata(entry) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(DatapathError::folder(entry, "read")(error)),
        Ok(_) => {}
    }
    let failed = |error| place.failed("replaced on", error);
    let link = PinnedLink::from_pin(entry).map_err(|error| place.failed("replaced on", error))?;
    let link = XdpLink::try_from(FdLink::from(link))
        .map_err(|error| place.failed("replaced on", error))?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // Closes our descriptor; the pin keeps the link.
            drop(program.take_link(id).map_err(failed)?);
            Ok(true)
        }
        Err(error) if errno(&error) == Some(Errno::ENOLINK) => {
            attach::remove_entry(entry)?;
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Detaches the program of a pinned link at once. Removing the pin would detach it as well, but only after a grace
/// period of the kernel, and the device takes no other program until then. If it fails here, the removal of the
/// pin, which is next, suffices in the end.
fn take_off(entry: &Path) {
    // linux/bpf.h; links of XDP are of Linux 5.9, as the second is.
    const BPF_OBJ_GET: libc::c_int = 7;
    const BPF_LINK_DETACH: libc::c_int = 34;
    let Ok(path) = CString::new(entry.as_os_str().as_bytes()) else { return };
    // The members of `union bpf_attr` for BPF_OBJ_GET: a pathname, then a descriptor and flags. For
    // BPF_LINK_DETACH, below: the link's descriptor.
    let get = [path.as_ptr() as u64, 0];
    // SAFETY: the kernel reads as many bytes as it is told, and a path that outlives the call.
    let link =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const get, size_of_val(&get)) };
    let Ok(link) = Errno::result(link).map(|link| link as RawFd) else { return };
    // SAFETY: the call above has just opened it.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let detach = [link.as_raw_fd() as u32, 0];
    // SAFETY: the kernel reads as many bytes as it is told; the descriptor is open.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw const detach, size_of_val(&detach))
    };
    if let Err(error) = Errno::result(done) {
        tracing::debug!(entry = %entry.display(), %error, "the XDP guard is not detached at once");
    }
}

/// What the kernel's answer means, in words.
fn why(mode: GuardMode, errno: Option<Errno>) -> String {
    match (errno, mode) {
        (Some(Errno::EBUSY | Errno::EEXIST), _) => {
            "another XDP program is on the device, and is left there".to_owned()
        }
        (Some(Errno::EOPNOTSUPP), GuardMode::Native) => {
            "its driver runs no XDP program as the device is set up".to_owned()
        }
        (Some(Errno::EINVAL | Errno::ERANGE), GuardMode::Native) => {
            "its driver takes no XDP program with this MTU, these queues or these offloads"
                .to_owned()
        }
        _ => "the kernel refused it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_words() {
        let taken = why(GuardMode::Native, Some(Errno::EBUSY));
        assert!(taken.contains("left there"), "{taken}");
        assert_eq!(why(GuardMode::Generic, Some(Errno::EEXIST)), taken);
        assert!(why(GuardMode::Native, Some(Errno::EOPNOTSUPP)).contains("driver"));
        assert_eq!(why(GuardMode::Generic, Some(Errno::EOPNOTSUPP)), "the kernel refused it");
    }
}
