//! Programs on devices, and the entries below `links/` that remember them.
//!
//! Each attachment has one entry, named by its role and the device's index. With TCX it is the pinned
//! link, which holds the program; with clsact, whose filters live as long as their device, it is an
//! empty folder. So whatever process comes next knows what is attached and replaces it atomically.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nametoindex},
};

use super::{DatapathError, guard::GuardMode};
use crate::dataplane::kernel::Program;

/// Priority and handle of our clsact filters. Fixed, so that a later process finds them; unlikely, so
/// that nobody else has them.
const PRIORITY: u16 = u16::from_be_bytes(*b"ov");
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
    /// Asks the kernel what is on a device by TCX: one that does not know TCX answers EINVAL.
    pub(super) fn probe(ifname: &str) -> Self {
        match SchedClassifier::query_tcx(ifname, TcAttachType::Ingress) {
            Ok(_) => Self::Tcx,
            Err(_) => Self::Clsact,
        }
    }
}

/// What a program is attached for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Underlay,
    Endpoint,
    Gateway,
    Guard(GuardMode),
}

impl Role {
    /// The role of a program that runs on the host's side of devices.
    pub(super) fn of(program: Program) -> Self {
        match program {
            Program::FromEndpoint => Self::Endpoint,
            Program::FromGateway => Self::Gateway,
        }
    }

    /// Those at TC.
    pub(super) const TC: [Self; 3] = [Self::Underlay, Self::Endpoint, Self::Gateway];
    pub(super) const ALL: [Self; 5] = [
        Self::Underlay,
        Self::Endpoint,
        Self::Gateway,
        Self::Guard(GuardMode::Native),
        Self::Guard(GuardMode::Generic),
    ];

    /// The program's name in the object.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Underlay => "from_underlay",
            Self::Endpoint => "from_endpoint",
            Self::Gateway => "from_gateway",
            Self::Guard(GuardMode::Native) => "guard_underlay",
            Self::Guard(GuardMode::Generic) => "guard_generic",
        }
    }

    // bpffs allows no dot in a name.
    fn prefix(self) -> &'static str {
        match self {
            Self::Underlay => "underlay-",
            Self::Endpoint => "endpoint-",
            Self::Gateway => "gateway-",
            // The kernel does not say of a link which mode it is of.
            Self::Guard(GuardMode::Native) => "guard-native-",
            Self::Guard(GuardMode::Generic) => "guard-generic-",
        }
    }
}

/// A program's place: a role on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) role: Role,
    pub(super) ifindex: u32,
}

impl Place {
    pub(super) fn entry(self, links: &Path) -> PathBuf {
        links.join(format!("{}{}", self.role.prefix(), self.ifindex))
    }

    fn parse(name: &str) -> Option<Self> {
        Role::ALL.into_iter().find_map(|role| {
            let ifindex = name.strip_prefix(role.prefix())?.parse().ok()?;
            Some(Self { role, ifindex })
        })
    }

    /// The device's name now, or its index where it is gone.
    pub(super) fn device(self) -> Result<String, String> {
        let gone = || format!("with index {}", self.ifindex);
        let name = if_indextoname(self.ifindex).map_err(|_| gone())?;
        // nix 0.31 takes a failure (a null pointer) for an empty name.
        let name = name.into_string().map_err(|_| gone())?;
        if name.is_empty() { Err(gone()) } else { Ok(name) }
    }

    pub(super) fn failed(
        self,
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> DatapathError {
        let ifname = self.device().unwrap_or_else(|index| index);
        DatapathError::Attach {
            program: self.role.program(),
            action,
            ifname,
            source: source.into(),
        }
    }
}

/// Every place that an entry remembers.
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

/// Puts `program` where an earlier one is, with no packet in between. False where there is none: the
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
    let Ok(link) = filter(&ifname) else { return Ok(false) };
    match program.attach_to_link(link) {
        Ok(id) => {
            keep(program.take_link(id).map_err(|error| place.failed("replaced on", error))?);
            Ok(true)
        }
        // ENOENT: no such filter. EINVAL: no clsact qdisc. The index belongs to another device now.
        Err(error)
            if matches!(errno(&error), Some(Errno::ENOENT | Errno::EINVAL | Errno::ENODEV)) =>
        {
            Ok(false)
        }
        Err(error) => Err(place.failed("replaced on", error)),
    }
}

/// The name and the index are of one device.
pub(super) fn check_device(ifname: &str, ifindex: u32) -> Result<(), DatapathError> {
    if if_nametoindex(ifname).ok() == Some(ifindex) {
        Ok(())
    } else {
        Err(DatapathError::NoDevice { ifname: ifname.to_owned(), ifindex })
    }
}

/// Attaches to a device that has no program of ours, and remembers it.
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
            // The entry first: a filter that nobody remembers would outlive everything.
            match fs::create_dir(&entry) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(DatapathError::folder(entry, "created")(error));
                }
                _ => {}
            }
            let attached = attach_filter(program, place, ifname);
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
    // First, so that no program of others that ends the chain hides our packets from ours; ours hands
    // on what is not ours.
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(ifname, TcAttachType::Ingress, options).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    let link = FdLink::try_from(link).map_err(|error| place.failed("attached to", error))?;
    link.pin(entry).map_err(|error| place.failed("attached to", error))?;
    Ok(())
}

fn attach_filter(
    program: &mut SchedClassifier,
    place: Place,
    ifname: &str,
) -> Result<(), DatapathError> {
    let failed = |error: ProgramError| place.failed("attached to", error);
    match qdisc_add_clsact(ifname) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
        }
        Err(error) => return Err(place.failed("attached to", error)),
        Ok(()) => {}
    }
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    let options = TcAttachOptions::Netlink(options);
    let id = match program.attach_with_options(ifname, TcAttachType::Ingress, options) {
        Err(error) if errno(&error) == Some(Errno::EEXIST) => {
            let link = filter(ifname).map_err(|error| place.failed("attached to", error))?;
            program.attach_to_link(link).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    keep(program.take_link(id).map_err(failed)?);
    Ok(())
}

/// Takes a program off, and forgets it. No error where there is none.
pub(super) fn detach(links: &Path, place: Place) -> Result<(), DatapathError> {
    let entry = place.entry(links);
    let is_filter = match fs::symlink_metadata(&entry) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(DatapathError::folder(entry, "read")(error)),
        Ok(metadata) => metadata.is_dir(),
    };
    if is_filter && let Ok(ifname) = place.device() {
        let link = filter(&ifname).map_err(|error| place.failed("detached from", error))?;
        match link.detach() {
            Err(error)
                if !matches!(
                    errno(&error),
                    Some(Errno::ENOENT | Errno::EINVAL | Errno::ENODEV)
                ) =>
            {
                return Err(place.failed("detached from", error));
            }
            _ => {}
        }
    }
    remove_entry(&entry)
}

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

/// Our filter on a device, whether it is there or not.
fn filter(ifname: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(ifname, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

/// Keeps aya from detaching the filter when the link is dropped.
fn keep(link: SchedClassifierLink) {
    std::mem::forget(link);
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_leads_back_to_its_place() {
        for role in Role::ALL {
            let place = Place { role, ifindex: 4711 };
            let entry = place.entry(Path::new("/x"));
            assert_eq!(Place::parse(entry.file_name().unwrap().to_str().unwrap()), Some(place));
        }
        for foreign in ["endpoint-", "endpoint-x", "other-3", "endpoint-3-4", ""] {
            assert_eq!(Place::parse(foreign), None, "{foreign}");
        }
    }
}
