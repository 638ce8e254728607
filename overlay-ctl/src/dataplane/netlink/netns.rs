//! Network namespaces of endpoints: finding one, checking it, and working inside it.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use futures::StreamExt as _;
use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidMessage},
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, fstatfs, statfs},
};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use super::{DeviceError, Netlink, NetlinkError, connect};
use crate::dataplane::kernel::NetnsId;

/// The folders in which a bare namespace name is looked up. `ip netns` uses the first, which is only reachable by the
/// second name on old systems.
const NETNS_FOLDERS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// An open network namespace that is not the node's own.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    path: PathBuf,
    is_by_process: bool,
}

impl Netns {
    /// Opens a namespace. `name` is a path, or the bare name of a namespace below /run/netns. Nothing but a namespace
    /// is ever opened, because opening another file can have an effect: it can start a watchdog, or wake the writer of
    /// a FIFO.
    ///
    /// # Errors
    /// [`DeviceError::ByProcess`] for a path that may lead to another namespace tomorrow, and the other errors about
    /// namespaces.
    pub(crate) fn open(name: &Path) -> Result<Self, DeviceError> {
        let netns = Self::open_now(name)?;
        if netns.is_by_process { Err(DeviceError::ByProcess(netns.path)) } else { Ok(netns) }
    }

    /// The same for work that is done at once: a path by way of a process is followed, too.
    pub(crate) fn open_now(name: &Path) -> Result<Self, DeviceError> {
        let Found { place, path, is_by_process } = find(name)?;
        let enter = |source| DeviceError::Enter { path: path.clone(), source };
        let fs = fstatfs(&place).map_err(|errno| enter(errno.into()))?;
        if fs.filesystem_type() != NSFS_MAGIC {
            return Err(DeviceError::NotNamespace(path));
        }
        // Not by the path, which may lead elsewhere by now.
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(enter)?;
        let own = File::open("/proc/thread-self/ns/net").and_then(|own| identity(&own));
        match (own, identity(&file)) {
            (Ok(own), Ok(theirs)) if own == theirs => Err(DeviceError::OwnNamespace(path)),
            (Ok(_), Ok(_)) => Ok(Self { file, path, is_by_process }),
            (Err(source), _) | (_, Err(source)) => Err(DeviceError::Enter { path, source }),
        }
    }

    /// Returns true if the path leads by way of a process.
    pub(super) fn is_by_process(&self) -> bool {
        self.is_by_process
    }

    /// Device and inode, as `stat` shows them for any path to this namespace.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        identity(&self.file)
    }

    /// The path; it is relative only where a relative path was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor for IFLA_NET_NS_FD, valid as long as `self` lives.
    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` on a thread of its own inside the namespace. The thread ends with the work, so no thread that does
    /// anything else is ever in a foreign namespace.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, DeviceError> {
        let inside = || setns(&self.file, CloneFlags::CLONE_NEWNET).map(|()| work());
        let outcome = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, inside)
                .map(std::thread::ScopedJoinHandle::join)
        });
        match outcome {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(Errno::EPERM))) => Err(DeviceError::Denied(self.path.clone())),
            // A namespace of another kind (/proc/PID/ns/mnt).
            Ok(Ok(Err(Errno::EINVAL))) => Err(DeviceError::NotNamespace(self.path.clone())),
            Ok(Ok(Err(errno))) => {
                Err(DeviceError::Enter { path: self.path.clone(), source: errno.into() })
            }
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(source) => Err(DeviceError::Enter { path: self.path.clone(), source }),
        }
    }

    /// A connection whose socket lives in the namespace, served by the current runtime.
    pub(super) fn connect(&self) -> Result<rtnetlink::Handle, DeviceError> {
        let runtime = tokio::runtime::Handle::current();
        let inside = move || {
            let _entered = runtime.enter();
            connect()
        };
        Ok(self.run(inside)??)
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|meta| (meta.dev(), meta.ino()))
}

/// A file that was found and not opened.
struct Found {
    place: OwnedFd,
    path: PathBuf,
    is_by_process: bool,
}

fn find(name: &Path) -> Result<Found, DeviceError> {
    let is_bare = name.components().count() == 1 && !name.has_root();
    let candidates: Vec<PathBuf> = if is_bare {
        NETNS_FOLDERS.iter().map(|folder| Path::new(folder).join(name)).collect()
    } else {
        vec![name.to_owned()]
    };
    for path in candidates {
        // What is no namespace is not even opened by O_PATH. What is opened is asked once more: a path can change.
        let found = statfs(&path).and_then(|fs| {
            if fs.filesystem_type() == NSFS_MAGIC { place(&path).map(Some) } else { Ok(None) }
        });
        match found {
            Ok(Some((place, is_by_process))) => return Ok(Found { place, path, is_by_process }),
            Ok(None) => return Err(DeviceError::NotNamespace(path)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESRCH) => {}
            Err(Errno::EACCES | Errno::EPERM) => return Err(DeviceError::Denied(path)),
            Err(errno) => return Err(DeviceError::Enter { path, source: errno.into() }),
        }
    }
    Err(DeviceError::NoNamespace(name.to_owned()))
}

/// The file that a path leads to, and whether it leads there by way of a process: by one of the links in /proc to what
/// a process has, wherever in the path that link is, behind any symbolic link, and wherever that file system is
/// mounted.
fn place(path: &Path) -> nix::Result<(OwnedFd, bool)> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    match openat2(AT_FDCWD, path, how.resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS)) {
        // Of such links, and of symbolic links in a circle: then this fails alike.
        Err(Errno::ELOOP) => Ok((openat2(AT_FDCWD, path, how)?, true)),
        place => Ok((place?, false)),
    }
}

impl Netlink {
    /// The number by which [`ObservedPeer::netns`](crate::dataplane::kernel::ObservedPeer::netns) names this namespace.
    ///
    /// # Errors
    /// [`DeviceError::NoNamespace`] and its like where there is no such namespace.
    pub async fn netns_id(&self, path: &Path) -> Result<NetnsId, DeviceError> {
        let netns = Netns::open(path)?;
        match self.known_netns_id(&netns).await {
            Ok(Some(id)) => return Ok(id),
            Ok(None) => {}
            // A namespace of another kind.
            Err(error) if error.errno() == Some(Errno::EINVAL) => {
                return Err(DeviceError::NotNamespace(path.to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
        // The kernel numbers a namespace when a message first has to speak of it.
        let mut message = NsidMessage::default();
        message.attributes = vec![fd_attribute(&netns), NsidAttribute::Id(-1)];
        match self.nsid_request(RouteNetlinkMessage::NewNsId(message)).await {
            Err(error) if error.errno() != Some(Errno::EEXIST) => return Err(error.into()),
            _ => {}
        }
        self.known_netns_id(&netns).await?.ok_or_else(|| DeviceError::NoNamespace(path.to_owned()))
    }

    /// The number, where the namespace has one. It has one if a device of the overlay leads into it.
    pub(super) async fn known_netns_id(
        &self,
        netns: &Netns,
    ) -> Result<Option<NetnsId>, NetlinkError> {
        let mut message = NsidMessage::default();
        message.attributes = vec![fd_attribute(netns)];
        self.nsid_request(RouteNetlinkMessage::GetNsId(message)).await
    }

    async fn nsid_request(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Option<NetnsId>, NetlinkError> {
        let action = "number a network namespace";
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        let mut handle = self.handle.clone();
        let mut answers =
            handle.request(request).map_err(|error| NetlinkError::new(action, error))?;
        let mut id = None;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(NetlinkError::new(action, rtnetlink::Error::NetlinkError(error)));
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) => {
                    id = message.attributes.iter().find_map(|attribute| match attribute {
                        NsidAttribute::Id(raw) => NetnsId::new(*raw),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Ok(id)
    }
}

fn fd_attribute(netns: &Netns) -> NsidAttribute {
    NsidAttribute::Fd(netns.fd().unsigned_abs())
}
