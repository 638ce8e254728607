//! `guard_underlay` on the underlay device, by XDP.
//!
//! Its link is pinned as the other programs' are. A device has one XDP program: where somebody else's
//! is, ours stays away.
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
    ProgramError, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};
use nix::{errno::Errno, libc};

use super::{
    Datapath, DatapathError,
    attach::{self, Place, Role, errno},
};

/// Where in the receiving of a packet XDP runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardMode {
    /// In the device's driver, before there is an skb.
    Native,
    /// In the stack, on any device. It makes every packet one piece of memory first.
    Generic,
}

impl GuardMode {
    /// As `--xdp` and `overlay status` have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    fn xdp(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

/// How the guard stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// None: it is not attached, and `from_underlay` does its work.
    pub mode: Option<GuardMode>,
    /// Why it is not native; empty where it is.
    pub why: String,
    /// It is not what was asked for.
    pub is_fallback: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self { mode: None, why: "not attached yet".to_owned(), is_fallback: false }
    }
}

impl Datapath {
    /// Attaches `guard_underlay` to the underlay device `ifname`, or replaces an earlier process' with
    /// no packet in between. In another mode it is taken off first: a device has one. A program that is
    /// not ours is never replaced.
    ///
    /// # Errors
    /// [`DatapathError::Guard`] says why it could not be; [`DatapathError::NoDevice`] and the others as
    /// of [`Datapath::open`]. Afterwards there is none of ours in another mode.
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
        // What is no descriptor is taken off again by being dropped: no kernel that we run on.
        let link = FdLink::try_from(link).map_err(|error| place.failed("attached to", error))?;
        link.pin(entry).map_err(|error| place.failed("attached to", error))?;
        Ok(())
    }

    /// Takes `guard_underlay` off, wherever it is. No error where it is nowhere.
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

    /// The kernel's id of this process' program for the mode; None before it is loaded.
    #[must_use]
    pub fn guard_id(&mut self, mode: GuardMode) -> Option<u32> {
        Some(self.guard_program(mode).ok()?.info().ok()?.id())
    }

    /// How the guard stands, as it was last noted.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Notes how it stands.
    pub fn note_guard(&mut self, guard: Guard) {
        self.guard = guard;
    }

    fn guard_program(&mut self, mode: GuardMode) -> Result<&mut Xdp, DatapathError> {
        let name = Role::Guard(mode).program();
        let program = self.programs.program_mut(name).ok_or(DatapathError::Incomplete(name))?;
        program.try_into().map_err(|_| DatapathError::Incomplete(name))
    }
}

/// Only where it is wanted: a kernel that refuses it forwards all the same.
fn load(program: &mut Xdp, mode: GuardMode) -> Result<(), DatapathError> {
    if program.fd().is_ok() {
        return Ok(());
    }
    super::load_patiently(|| program.load()).map_err(|source| DatapathError::Verify {
        program: Role::Guard(mode).program(),
        since: if mode == GuardMode::Native { "5.18" } else { "5.13" },
        source: Box::new(source),
    })
}

/// Puts the program where an earlier one of ours is. False where there is none, or it was taken off
/// behind our back: its entry, if any, is removed.
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

/// Takes the program of a pinned link off its device now. Without its pin it would go as well, but when
/// the kernel finds the time (it puts a link off a bpffs after a grace period), and the device takes no
/// other until then. Whatever fails here, the pin is removed next, and that suffices in the end.
fn take_off(entry: &Path) {
    // linux/bpf.h; links of XDP are of Linux 5.9, as the second is.
    const BPF_OBJ_GET: libc::c_int = 7;
    const BPF_LINK_DETACH: libc::c_int = 34;
    let Ok(path) = CString::new(entry.as_os_str().as_bytes()) else { return };
    // The pathname, a descriptor and flags; of the other command the link's descriptor comes first.
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
        tracing::debug!(entry = %entry.display(), %error, "the XDP guard is not taken off at once");
    }
}

/// In words, what the kernel means.
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
