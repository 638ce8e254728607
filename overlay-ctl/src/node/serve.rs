//! Where the node's services listen.

use super::{error::StartError, lock::lock_file};
use crate::config::Metrics;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{setsockopt, sockopt::IpFreebind},
    },
    unistd::Uid,
};
use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

/// The sockets, which are bound before anything is made.
pub(super) struct Listeners {
    pub(super) tcp: TcpListener,
    pub(super) unix: UnixListener,
    pub(super) metrics: Option<TcpListener>,
    pub(super) socket: SocketFile,
}

/// The socket's file, which is removed when the node ends.
pub(super) struct SocketFile(PathBuf);

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already; one that is left is replaced at the next start.
        drop(fs::remove_file(&self.0));
    }
}

/// Raises the limit of open files as far as the machine grants: resolvers and reserved ports need hundreds.
pub(super) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "the limit of open files stays as it was");
    }
}

/// The folder of the locks, which only root can write, and which is empty after a reboot.
const LOCKS: &str = "/run/overlay";

/// Takes the lock that the one node of a network namespace holds.
///
/// # Errors
/// [`StartError::NodeRuns`], or the lock's file can't be made.
pub(super) fn lock_netns() -> Result<Flock<File>, StartError> {
    let path = netns_lock()?;
    let failed = |source| StartError::Pins { path: path.clone(), source };
    fs::create_dir_all(LOCKS).map_err(failed)?;
    lock_file(&path).map_err(failed)?.ok_or(StartError::NodeRuns)
}

/// The file of that lock.
fn netns_lock() -> Result<PathBuf, StartError> {
    let own = Path::new("/proc/thread-self/ns/net");
    let namespace = fs::metadata(own);
    let namespace = namespace.map_err(|source| StartError::Pins { path: own.into(), source })?;
    Ok(Path::new(LOCKS).join(format!("netns-{}.lock", namespace.ino())))
}

/// Removes the lock's file, which the caller holds, and the folder if no other node's lock is in it.
///
/// # Errors
/// The file can't be removed.
pub(super) fn remove_netns_lock(lock: Flock<File>) -> Result<(), StartError> {
    let path = netns_lock()?;
    let removed = fs::remove_file(&path);
    drop(lock);
    removed.map_err(|source| StartError::Pins { path, source })?;
    // It is not empty where another node's socket or lock is in it.
    drop(fs::remove_dir(LOCKS));
    Ok(())
}

/// The folder of the pins, locked by the one node that uses it.
pub(super) struct PinFolder {
    path: PathBuf,
    made: bool,
    _lock: Flock<File>,
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        if self.made {
            // A start that was refused leaves it empty. A folder that is not empty stays: it has the node's pins.
            drop(fs::remove_dir(&self.path));
        }
    }
}

/// Makes the folder if it is missing, and locks it.
///
/// # Errors
/// [`StartError::PinsTaken`], or it can't be made.
pub(super) fn lock_folder(path: &Path) -> Result<PinFolder, StartError> {
    let failed = |source| StartError::Pins { path: path.to_owned(), source };
    let made = !path.exists();
    fs::create_dir_all(path).map_err(failed)?;
    let folder = File::open(path).map_err(failed)?;
    let lock = Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            StartError::PinsTaken(path.to_owned())
        } else {
            failed(errno.into())
        }
    })?;
    Ok(PinFolder { path: path.to_owned(), made, _lock: lock })
}

/// Where metrics are served if the operator does not say: other hosts do not reach the loopback, nor do endpoints.
const DEFAULT_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7401);

/// Binds all sockets. If one can't be bound, no file is left. Where `is_awaited`, the host need not have the address of
/// `listen` yet: connections are accepted as soon as it has.
///
/// # Errors
/// A port is taken, or another node has the socket.
pub(super) async fn bind(
    listen: SocketAddr,
    is_awaited: bool,
    metrics: Option<Metrics>,
    socket: &Path,
) -> Result<Listeners, StartError> {
    let tcp = match bind_tcp(listen, "--listen").await {
        Err(StartError::Listen { source, .. })
            if is_awaited && source.kind() == io::ErrorKind::AddrNotAvailable =>
        {
            tracing::warn!(address = %listen, "no device of this host has the address of the API yet: other nodes reach it when one has");
            bind_awaited(listen).map_err(|source| StartError::Listen {
                address: listen,
                flag: "--listen",
                source,
            })
        }
        bound => bound,
    }?;
    let metrics = match metrics {
        Some(Metrics::At(address)) => Some(bind_tcp(address, "--metrics").await?),
        Some(Metrics::Off) => None,
        // Nobody asked for them: a node without metrics is better than none.
        None => match TcpListener::bind(DEFAULT_METRICS).await {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::warn!(address = %DEFAULT_METRICS, %error, "metrics are not served: give another address with --metrics");
                None
            }
        },
    };
    let failed = |source| StartError::Socket { path: socket.to_owned(), source };
    if let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    remove_dead(socket).await?;
    // Nobody may connect between bind and chmod: the file is made under a mask that lets only root connect.
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(socket);
    nix::sys::stat::umask(mask);
    let unix = bound.map_err(failed)?;
    let file = SocketFile(socket.to_owned());
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Listeners { tcp, unix, metrics, socket: file })
}

async fn bind_tcp(address: SocketAddr, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken { address, flag },
        _ => StartError::Listen { address, flag, source },
    })
}

/// Listens at an address that no device of the host has yet (IP_FREEBIND, Linux 2.4).
fn bind_awaited(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: u32 = 1024;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    setsockopt(&socket, IpFreebind, &true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Removes the socket of a node that was killed. The socket of a living node accepts connections, and stays.
pub(super) async fn remove_dead(socket: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::Socket { path: socket.to_owned(), source };
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => Err(StartError::NotASocket(socket.to_owned())),
        Ok(_) if UnixStream::connect(socket).await.is_ok() => {
            Err(StartError::SocketTaken(socket.to_owned()))
        }
        Ok(_) => fs::remove_file(socket).map_err(failed),
    }
}

/// Only root can do what a node does to the kernel.
///
/// # Errors
/// [`StartError::NotRoot`].
pub(super) fn check_root() -> Result<(), StartError> {
    if Uid::effective().is_root() { Ok(()) } else { Err(StartError::NotRoot) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a network for documents (RFC 5737), which no host has.
    const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)), 0);

    #[tokio::test]
    async fn only_a_node_that_awaits_its_address_listens_where_the_host_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/overlay.sock");
        let bound = async |is_awaited| bind(NOWHERE, is_awaited, Some(Metrics::Off), &socket).await;
        let refused = bound(false).await.map(drop);
        assert!(matches!(refused, Err(StartError::Listen { .. })), "{refused:?}");
        assert!(!socket.exists(), "no file is left");
        let listeners = bound(true).await.unwrap();
        assert_eq!(listeners.tcp.local_addr().unwrap().ip(), NOWHERE.ip());
    }
}
