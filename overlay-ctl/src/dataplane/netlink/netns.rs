//! Network namespaces of endpoints: finding one, checking it, working inside it.

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

use super::{
    Netlink, NetlinkError, PortError, connect, link,
    pair::{FIRST_INTERFACE, GATEWAY_INTERFACE},
};

/// Folders that a bare namespace name is looked up in; `ip netns` uses the first, which on old
/// systems is only reachable by the second name.
const NETNS_FOLDERS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// The kernel's number for another namespace, as this namespace counts. Equal ids are one namespace;
/// a number may be given anew once its namespace is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetnsId(i32);

impl NetnsId {
    /// Negative numbers mean "none".
    pub(super) fn new(raw: i32) -> Option<Self> {
        (raw >= 0).then_some(Self(raw))
    }

    pub(super) fn as_raw(self) -> i32 {
        self.0
    }
}

/// An open network namespace that is not the node's own.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    path: PathBuf,
    is_by_process: bool,
}

impl Netns {
    /// `name` is a path, or the bare name of a namespace below /run/netns. Nothing but a namespace is opened by it: an
    /// open can start a watchdog, or let the writer of a FIFO go on.
    ///
    /// # Errors
    /// [`PortError::ByProcess`] for a path that may lead to another namespace tomorrow, and the others that speak of
    /// namespaces.
    pub(crate) fn open(name: &Path) -> Result<Self, PortError> {
        let netns = Self::open_now(name)?;
        if netns.is_by_process { Err(PortError::ByProcess(netns.path)) } else { Ok(netns) }
    }

    /// The same for what is done now and not later: a path by way of a process is followed too.
    pub(crate) fn open_now(name: &Path) -> Result<Self, PortError> {
        let Found { place, path, is_by_process } = find(name)?;
        let enter = |source| PortError::Enter { path: path.clone(), source };
        let fs = fstatfs(&place).map_err(|errno| enter(errno.into()))?;
        if fs.filesystem_type() != NSFS_MAGIC {
            return Err(PortError::NotNamespace(path));
        }
        // Not by the path, which may lead elsewhere by now.
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(enter)?;
        let own = File::open("/proc/thread-self/ns/net").and_then(|own| identity(&own));
        match (own, identity(&file)) {
            (Ok(own), Ok(theirs)) if own == theirs => Err(PortError::OwnNamespace(path)),
            (Ok(_), Ok(_)) => Ok(Self { file, path, is_by_process }),
            (Err(source), _) | (_, Err(source)) => Err(PortError::Enter { path, source }),
        }
    }

    /// The path leads to what a process has, and not to a file.
    pub(super) fn is_by_process(&self) -> bool {
        self.is_by_process
    }

    /// Device and inode: what a stat of a path says that leads to this namespace.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        identity(&self.file)
    }

    /// Absolute, unless an absolute one was not given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For IFLA_NET_NS_FD, as long as `self` lives.
    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` on a thread of its own inside the namespace. The thread ends with it, so no
    /// thread that does anything else is ever in a foreign namespace.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, PortError> {
        let inside = || setns(&self.file, CloneFlags::CLONE_NEWNET).map(|()| work());
        let outcome = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, inside)
                .map(std::thread::ScopedJoinHandle::join)
        });
        match outcome {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(Errno::EPERM))) => Err(PortError::Denied(self.path.clone())),
            // A namespace of another kind (/proc/PID/ns/mnt).
            Ok(Ok(Err(Errno::EINVAL))) => Err(PortError::NotNamespace(self.path.clone())),
            Ok(Ok(Err(errno))) => {
                Err(PortError::Enter { path: self.path.clone(), source: errno.into() })
            }
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(source) => Err(PortError::Enter { path: self.path.clone(), source }),
        }
    }

    /// A connection whose socket lives in the namespace, served by the current runtime.
    pub(super) fn connect(&self) -> Result<rtnetlink::Handle, PortError> {
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

fn find(name: &Path) -> Result<Found, PortError> {
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
            Ok(None) => return Err(PortError::NotNamespace(path)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESRCH) => {}
            Err(Errno::EACCES | Errno::EPERM) => return Err(PortError::Denied(path)),
            Err(errno) => return Err(PortError::Enter { path, source: errno.into() }),
        }
    }
    Err(PortError::NoNamespace(name.to_owned()))
}

/// What a path leads to, and whether by way of a process: by one of the links in /proc that lead to what a process
/// has, wherever in the path they are, behind whichever symbolic link, and wherever that file system is mounted.
fn place(path: &Path) -> nix::Result<(OwnedFd, bool)> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    match openat2(AT_FDCWD, path, how.resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS)) {
        // Of such links, and of symbolic links in a circle: then this fails alike.
        Err(Errno::ELOOP) => Ok((openat2(AT_FDCWD, path, how)?, true)),
        place => Ok((place?, false)),
    }
}

impl Netlink {
    /// Whether an endpoint may be made in `path` (or in the namespace of that bare name): it exists,
    /// is a network namespace, is not the node's own, and has no eth0 but one that we made, nor an eth1
    /// but one that we made where it needs a gateway leg.
    ///
    /// Enters the namespace on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub async fn check_netns(&self, path: &Path, needs_leg: bool) -> Result<(), PortError> {
        self.check_inside(&Netns::open_now(path)?, needs_leg).await
    }

    pub(crate) async fn check_inside(
        &self,
        netns: &Netns,
        needs_leg: bool,
    ) -> Result<(), PortError> {
        let inside = link::links(&netns.connect()?, None).await?;
        self.check_free(netns, &inside, FIRST_INTERFACE).await?;
        if needs_leg {
            self.check_free(netns, &inside, GATEWAY_INTERFACE).await?;
        }
        Ok(())
    }

    /// The number by which [`ObservedPeer::netns`](super::ObservedPeer::netns) names this namespace.
    ///
    /// # Errors
    /// [`PortError::NoNamespace`] and its like where there is no such namespace.
    pub async fn netns_id(&self, path: &Path) -> Result<NetnsId, PortError> {
        let netns = Netns::open(path)?;
        if let Some(id) = self.known_netns_id(&netns).await? {
            return Ok(id);
        }
        // The kernel numbers a namespace when a message first has to speak of it.
        let mut message = NsidMessage::default();
        message.attributes = vec![fd_attribute(&netns), NsidAttribute::Id(-1)];
        match self.nsid_request(RouteNetlinkMessage::NewNsId(message)).await {
            Err(error) if error.errno() != Some(Errno::EEXIST) => return Err(error.into()),
            _ => {}
        }
        self.known_netns_id(&netns).await?.ok_or_else(|| PortError::NoNamespace(path.to_owned()))
    }

    /// The number, where the namespace has one: it has where a device of ours leads into it.
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
