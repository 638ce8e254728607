//! Programs on devices, and the entries below `links/` that remember them.
//!
//! Each attachment has one entry, named by its role and the device's index. With TCX the entry is the pinned
//! link, which holds the program. With clsact, whose filters live as long as their device, it is an empty
//! folder. So the next process knows what is attached, and can replace it atomically.

use std::{fs, io, path::Path};

use aya::programs::{
    Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use nix::{errno::Errno, net::if_::if_nametoindex};

use super::{DatapathError, place::Place};

/// Priority of our clsact filters: the first, since a filter of other software that comes earlier may end the chain
/// before ours has seen the packet. Other filters with the same priority run beside ours; the kernel puts the newest
/// in front.
const PRIORITY: u16 = 1;
/// The priority where the first one is taken by a filter of another kind or protocol, with which ours cannot share it.
/// Earlier versions used no other.
const LATER_PRIORITY: u16 = u16::from_be_bytes(*b"ov");
const PRIORITIES: [u16; 2] = [PRIORITY, LATER_PRIORITY];
/// Handle of our clsact filters. It is fixed, so that a later process finds the filters, and unlikely, so that no other
/// software uses it.
const HANDLE: TcHandle = TcHandle::new(u16::from_be_bytes(*b"ov"), u16::from_be_bytes(*b"ly"));

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// TCX links (kernel 6.6).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

impl Hook {
    /// The hook that this kernel has. One without TCX refuses to list the programs of a device.
    pub(super) fn probe(ifname: &str) -> Self {
        match SchedClassifier::query_tcx(ifname, TcAttachType::Ingress) {
            Ok(_) => Self::Tcx,
            Err(_) => Self::Clsact,
        }
    }
}

/// All places that have an entry.
pub(super) fn places(links: &Path) -> Result<Vec<Place>, DatapathError> {
    let failed = || DatapathError::folder(links, "read");
    let entries = match fs::read_dir(links) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut places = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed())?.file_name();
        places.extend(name.to_str().and_then(Place::parse));
    }
    Ok(places)
}

/// Replaces the program at the place by `program`, with no packet in between. Returns false if there is none: the
/// device is gone or was never ours; its entry, if any, is removed.
pub(super) fn replace(
    links: &Path,
    program: &mut SchedClassifier,
    place: Place,
) -> Result<bool, DatapathError> {
    let entry = place.entry(links);
    let replaced = match fs::symlink_metadata(&entry) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(DatapathError::folder(entry, "read")(error)),
        Ok(metadata) if metadata.is_dir() => replace_filter(program, place),
        Ok(_) => replace_in_link(program, place, &entry),
    }?;
    if !replaced {
        remove_entry(&entry)?;
    }
    Ok(replaced)
}

fn replace_in_link(
    program: &mut SchedClassifier,
    place: Place,
    entry: &Path,
) -> Result<bool, DatapathError> {
    let failed = |error: LinkError| place.failed("replaced on", error);
    let link = PinnedLink::from_pin(entry).map_err(failed)?;
    let link = SchedClassifierLink::try_from(FdLink::from(link)).map_err(failed)?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // Closes our descriptor; the pin keeps the link.
            drop(program.take_link(id).map_err(|error| place.failed("replaced on", error))?);
            Ok(true)
        }
        // The link outlived its device.
        Err(error) if errno(&error) == Some(Errno::ENOLINK) => Ok(false),
        Err(error) => Err(place.failed("replaced on", error)),
    }
}

fn replace_filter(program: &mut SchedClassifier, place: Place) -> Result<bool, DatapathError> {
    let Ok(ifname) = place.device() else { return Ok(false) };
    for priority in PRIORITIES {
        let Ok(link) = filter(&ifname, priority) else { return Ok(false) };
        match program.attach_to_link(link) {
            Ok(id) => {
                let link = program.take_link(id);
                keep(link.map_err(|error| place.failed("replaced on", error))?);
                if priority == LATER_PRIORITY {
                    move_first(program, place, &ifname)?;
                }
                return Ok(true);
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(place.failed("replaced on", error)),
        }
    }
    Ok(false)
}

/// ENOENT: no such filter. EINVAL: no clsact qdisc, or another filter with the priority. The index may belong to another
/// device now.
fn is_absent(error: &ProgramError) -> bool {
    matches!(errno(error), Some(Errno::ENOENT | Errno::EINVAL | Errno::ENODEV))
}

/// Moves our filter from the later priority to the first one, where that is free; meanwhile both are there.
fn move_first(
    program: &mut SchedClassifier,
    place: Place,
    ifname: &str,
) -> Result<(), DatapathError> {
    match attach_at(program, ifname, PRIORITY) {
        Ok(link) => keep(link),
        Err(error) if errno(&error) == Some(Errno::EEXIST) => {}
        Err(error) => {
            let error = crate::error_chain(&error);
            tracing::debug!(ifname, error, "the program stays behind the filters of others");
            return Ok(());
        }
    }
    detach_filter(place, ifname, LATER_PRIORITY)
}

/// Checks that the name and the index belong to one device.
pub(super) fn check_device(ifname: &str, ifindex: u32) -> Result<(), DatapathError> {
    if if_nametoindex(ifname).ok() == Some(ifindex) {
        Ok(())
    } else {
        Err(DatapathError::NoDevice { ifname: ifname.to_owned(), ifindex })
    }
}

/// Makes sure that some program of ours is at the place: the one that is there stays, of whichever layout it is;
/// if there is none, `program` is attached.
pub(super) fn hold(
    links: &Path,
    program: &mut SchedClassifier,
    place: Place,
    ifname: &str,
    hook: Hook,
) -> Result<(), DatapathError> {
    let entry = place.entry(links);
    match fs::symlink_metadata(&entry) {
        // A filter can't be looked for, but a second one is refused.
        Ok(metadata) if metadata.is_dir() => {
            check_device(ifname, place.ifindex)?;
            attach_filter(program, place, ifname, Present::Stays)
        }
        Ok(_) if is_linked(place, &entry) => Ok(()),
        Ok(_) => {
            remove_entry(&entry)?;
            attach(links, program, place, ifname, hook)
        }
        Err(_) => attach(links, program, place, ifname, hook),
    }
}

/// Whether a program of ours is at the place, as far as can be known: of a filter, that its device exists.
pub(super) fn is_attached(links: &Path, place: Place) -> bool {
    let entry = place.entry(links);
    match fs::symlink_metadata(&entry) {
        Ok(metadata) if metadata.is_dir() => place.device().is_ok(),
        Ok(_) => is_linked(place, &entry),
        Err(_) => false,
    }
}

/// Whether the device runs the program of the pinned link. A link outlives its device, whose index may be
/// another device's by now.
fn is_linked(place: Place, entry: &Path) -> bool {
    let Ok(ifname) = place.device() else { return false };
    let Some(id) = running(entry) else { return false };
    let listed = SchedClassifier::query_tcx(&ifname, TcAttachType::Ingress);
    listed.is_ok_and(|(_, programs)| programs.iter().any(|program| program.id() == id))
}

/// The id of the program in a pinned link; `None` for a filter of clsact, which has no link.
pub(super) fn running(entry: &Path) -> Option<u32> {
    if fs::symlink_metadata(entry).is_ok_and(|metadata| metadata.is_dir()) {
        return None;
    }
    let link = FdLink::from(PinnedLink::from_pin(entry).ok()?);
    link.info().ok().map(|info| info.program_id())
}

/// Attaches to a device that has no program of ours, and remembers the place.
pub(super) fn attach(
    links: &Path,
    program: &mut SchedClassifier,
    place: Place,
    ifname: &str,
    hook: Hook,
) -> Result<(), DatapathError> {
    check_device(ifname, place.ifindex)?;
    let entry = place.entry(links);
    match hook {
        Hook::Tcx => attach_link(program, place, ifname, &entry),
        Hook::Clsact => {
            // The entry first: a filter without an entry would never be found again.
            match fs::create_dir(&entry) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(DatapathError::folder(entry, "created")(error));
                }
                _ => {}
            }
            let attached = attach_filter(program, place, ifname, Present::IsReplaced);
            if attached.is_err() {
                remove_entry(&entry)?;
            }
            attached
        }
    }
}

fn attach_link(
    program: &mut SchedClassifier,
    place: Place,
    ifname: &str,
    entry: &Path,
) -> Result<(), DatapathError> {
    let failed = |error: ProgramError| place.failed("attached to", error);
    // First in the chain, so that no other program ends it before ours has seen the packet. Ours hands on what
    // is not ours.
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(ifname, TcAttachType::Ingress, options).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    let link = FdLink::try_from(link).map_err(|error| place.failed("attached to", error))?;
    link.pin(entry).map_err(|error| place.failed("attached to", error))?;
    Ok(())
}

/// What happens to a filter of ours that is on the device already.
#[derive(Clone, Copy)]
enum Present {
    Stays,
    IsReplaced,
}

fn attach_filter(
    program: &mut SchedClassifier,
    place: Place,
    ifname: &str,
    present: Present,
) -> Result<(), DatapathError> {
    let failed = |error: ProgramError| place.failed("attached to", error);
    match qdisc_add_clsact(ifname) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
        }
        Err(error) => return Err(place.failed("attached to", error)),
        Ok(()) => {}
    }
    if matches!(present, Present::Stays)
        && is_at(program, ifname, LATER_PRIORITY).map_err(failed)?
    {
        return Ok(());
    }
    let mut refused = None;
    for priority in PRIORITIES {
        match attach_at(program, ifname, priority) {
            Ok(link) => {
                keep(link);
                return Ok(());
            }
            Err(error) if errno(&error) == Some(Errno::EEXIST) => {
                if matches!(present, Present::IsReplaced) {
                    let link = filter(ifname, priority);
                    let link = link.map_err(|error| place.failed("attached to", error))?;
                    let id = program.attach_to_link(link).map_err(failed)?;
                    keep(program.take_link(id).map_err(failed)?);
                }
                return Ok(());
            }
            // A filter of another kind or protocol has the priority.
            Err(error) if errno(&error) == Some(Errno::EINVAL) => refused = Some(error),
            Err(error) => return Err(failed(error)),
        }
    }
    refused.map_or(Ok(()), |error| Err(failed(error)))
}

fn attach_at(
    program: &mut SchedClassifier,
    ifname: &str,
    priority: u16,
) -> Result<SchedClassifierLink, ProgramError> {
    let options = NlOptions { priority, handle: HANDLE, classid: None };
    let options = TcAttachOptions::Netlink(options);
    let id = program.attach_with_options(ifname, TcAttachType::Ingress, options)?;
    program.take_link(id)
}

/// Returns true if a filter of ours is there. A filter cannot be looked for, but a second one is refused.
fn is_at(program: &mut SchedClassifier, ifname: &str, priority: u16) -> Result<bool, ProgramError> {
    match attach_at(program, ifname, priority) {
        Ok(link) => link.detach().map(|()| false),
        Err(error) if errno(&error) == Some(Errno::EEXIST) => Ok(true),
        Err(error) if errno(&error) == Some(Errno::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Detaches the program at the place, and removes the entry. No error if there is none.
pub(super) fn detach(links: &Path, place: Place) -> Result<(), DatapathError> {
    let entry = place.entry(links);
    let is_filter = match fs::symlink_metadata(&entry) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(DatapathError::folder(entry, "read")(error)),
        Ok(metadata) => metadata.is_dir(),
    };
    if is_filter && let Ok(ifname) = place.device() {
        for priority in PRIORITIES {
            detach_filter(place, &ifname, priority)?;
        }
    }
    remove_entry(&entry)
}

/// Detaches our filter with this priority. No error if there is none.
fn detach_filter(place: Place, ifname: &str, priority: u16) -> Result<(), DatapathError> {
    let link = filter(ifname, priority).map_err(|error| place.failed("detached from", error))?;
    match link.detach() {
        Err(error) if !is_absent(&error) => Err(place.failed("detached from", error)),
        _ => Ok(()),
    }
}

/// Removes an entry. No error if there is none.
pub(super) fn remove_entry(entry: &Path) -> Result<(), DatapathError> {
    let is_dir = fs::symlink_metadata(entry).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_dir { fs::remove_dir(entry) } else { fs::remove_file(entry) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::folder(entry, "removed")(error))
        }
        _ => Ok(()),
    }
}

/// A handle of our filter on a device, which need not exist.
fn filter(ifname: &str, priority: u16) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(ifname, TcAttachType::Ingress, priority, HANDLE, None)
}

/// Keeps aya from detaching the filter when the link is dropped.
fn keep(link: SchedClassifierLink) {
    std::mem::forget(link);
}

/// The kernel's error number in `error`.
pub(super) fn errno(error: &ProgramError) -> Option<Errno> {
    let raw = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::NetlinkError(error) | ProgramError::TcError(TcError::NetlinkError(error)) => {
            error.raw_os_error()
        }
        _ => None,
    };
    raw.map(Errno::from_raw)
}
