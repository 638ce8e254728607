//! Where the node's services listen.

use super::start::StartError;
use nix::unistd::Uid;
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// The sockets, bound before anything is made.
pub(super) struct Listeners {
    pub(super) tcp: TcpListener,
    pub(super) unix: UnixListener,
    pub(super) socket: PathBuf,
}

/// Binds both.
///
/// # Errors
/// Somebody has the port, or another node has the socket.
pub(super) async fn bind(listen: SocketAddr, socket: &Path) -> Result<Listeners, StartError> {
    let tcp = TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken(listen),
        _ => StartError::Listen { listen, source },
    })?;
    let failed = |source| StartError::Socket { path: socket.to_owned(), source };
    if let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    remove_dead(socket).await?;
    // Nobody may connect between bind and chmod: the file is made under a mask that lets only root.
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(socket);
    nix::sys::stat::umask(mask);
    let unix = bound.map_err(failed)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Listeners { tcp, unix, socket: socket.to_owned() })
}

/// Removes the socket of a node that was killed. A living one's answers.
async fn remove_dead(socket: &Path) -> Result<(), StartError> {
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
