//! Namespaces that were named by way of a process, and are held by a mount of the node; and the one path under which
//! the cluster knows a namespace.
//!
//! A namespace can have several paths: by a symbolic link, by a second mount, by a process in it. What belongs to a
//! namespace and not to an endpoint, its gateway leg and its resolver, is found by the path that is stored. So all
//! endpoints of a namespace are stored with one path: the one that an endpoint of this node has already, or else the
//! given one without symbolic links.
//!
//! A path such as /proc/PID/ns/net leads to the namespace of whatever process has that number. When the process has
//! ended, another process gets the number, and after a reboot some process has it in any case. So such a path is
//! followed once, when an endpoint is created: a bind mount below the node's runtime folder then names the namespace
//! itself, and the endpoint is stored with the path of the mount.
//!
//! The mount is removed when the given path no longer leads to the namespace, because the process has ended: the
//! namespace then lives for as long as another process is in it, as if nobody had held it. The mount is also removed
//! when no endpoint names it. After a reboot there is no mount, and no other namespace ever gets its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{NSFS_MAGIC, statfs},
};
use uuid::Uuid;

use super::{DeviceError, netns::Netns};

/// Beside each mount is a symbolic link with the same name and this extension, which holds the given path.
const GIVEN: &str = "given";
/// A mount that no endpoint names is kept for this long: the creation of its endpoint may be on its way through the
/// cluster.
const GRACE: Duration = Duration::from_secs(60);

/// The namespaces that are held by mounts in one folder.
#[derive(Debug)]
pub struct HeldNamespaces {
    folder: PathBuf,
    /// Mounts that no endpoint named at the last sweep, or that were asked for since then, each with the time.
    unnamed: BTreeMap<PathBuf, Instant>,
    /// The paths of endpoints at the last sweep.
    named: BTreeSet<PathBuf>,
    /// Paths that were given out since, each with the time: the creation of its endpoint may be on its way through the
    /// cluster.
    given_out: BTreeMap<PathBuf, Instant>,
}

impl HeldNamespaces {
    /// The namespaces whose mounts are in `folder`, which need not exist.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            unnamed: BTreeMap::new(),
            named: BTreeSet::new(),
            given_out: BTreeMap::new(),
        }
    }

    /// Returns true if the path is that of a namespace which is, or was, held here.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        path.starts_with(&self.folder)
    }

    /// The path by which the namespace of `path` is stored. It always leads to that namespace and never to another one,
    /// and all paths to one namespace give the same result.
    ///
    /// # Errors
    /// [`DeviceError::NotHeld`], and those of a path that leads to no namespace.
    pub fn steady_path(&mut self, path: &Path) -> Result<PathBuf, DeviceError> {
        self.steady_path_of(&Netns::open_now(path)?)
    }

    /// The same of an open namespace.
    pub(crate) fn steady_path_of(&mut self, netns: &Netns) -> Result<PathBuf, DeviceError> {
        let not_held = |source| DeviceError::NotHeld { path: netns.path().to_owned(), source };
        let identity = netns.identity().map_err(not_held)?;
        let path = match self.known(identity) {
            Some(known) => known,
            None if netns.is_by_process() => self.hold(netns).map_err(not_held)?,
            None => canonical(netns.path(), identity),
        };
        if self.has(&path) {
            self.unnamed.insert(path.clone(), Instant::now());
        }
        self.given_out.insert(path.clone(), Instant::now());
        Ok(path)
    }

    /// The path by which an endpoint of this node has this namespace.
    fn known(&self, identity: (u64, u64)) -> Option<PathBuf> {
        let paths = self.named.iter().chain(self.given_out.keys());
        paths.into_iter().find(|path| leads_to(path).ok().flatten() == Some(identity)).cloned()
    }

    fn hold(&self, netns: &Netns) -> io::Result<PathBuf> {
        let identity = netns.identity()?;
        for path in self.list()? {
            if held(&path) == Some(identity) {
                return Ok(path);
            }
        }
        fs::create_dir_all(&self.folder)?;
        let (number, ..) = Uuid::new_v4().as_fields();
        let path = self.folder.join(format!("{number:08x}"));
        File::create_new(&path)?;
        let source = format!("/proc/self/fd/{}", netns.fd());
        let made = symlink(netns.path(), path.with_extension(GIVEN)).and_then(|()| {
            let none = None::<&Path>;
            Ok(mount(Some(Path::new(&source)), &path, none, MsFlags::MS_BIND, none)?)
        });
        match made {
            Ok(()) => Ok(path),
            Err(error) => {
                remove(&path)?;
                Err(error)
            }
        }
    }

    /// Releases the namespaces that are not needed any more. `named` are the namespaces of all endpoints of this node.
    pub fn sweep(&mut self, named: &BTreeSet<PathBuf>, now: Instant) {
        let listed = self.list().unwrap_or_else(|error| {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot read which namespaces are held");
            Vec::new()
        });
        self.unnamed.retain(|path, _| listed.contains(path) && !named.contains(path));
        self.given_out.retain(|_, at| now.saturating_duration_since(*at) < GRACE);
        if self.named != *named {
            self.named.clone_from(named);
        }
        for path in listed {
            let given = path.with_extension(GIVEN);
            let reason = match (held(&path), leads_to(&given)) {
                (None, _) => "nothing is mounted there",
                (Some(identity), Ok(found)) if found != Some(identity) => {
                    "the process that it was named by has ended"
                }
                _ if named.contains(&path) => continue,
                _ if now.duration_since(*self.unnamed.entry(path.clone()).or_insert(now))
                    < GRACE =>
                {
                    continue;
                }
                _ => "no endpoint is in it",
            };
            let given = fs::read_link(&given).unwrap_or_default();
            match remove(&path) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), given = %given.display(), reason, "namespace let go");
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), reason, %error, "cannot let a namespace go");
                }
            }
            self.unnamed.remove(&path);
        }
    }

    /// Releases all namespaces, and removes the folder.
    ///
    /// # Errors
    /// The first failure; the other mounts are removed all the same.
    pub fn remove_all(&self) -> io::Result<()> {
        let removed: Vec<io::Result<()>> = self.list()?.iter().map(|path| remove(path)).collect();
        removed.into_iter().collect::<io::Result<()>>()?;
        absent_is_fine(fs::remove_dir(&self.folder))
    }

    /// The paths of all mounts, and of files that a killed process left.
    fn list(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = BTreeSet::new();
        for entry in entries {
            paths.insert(entry?.path().with_extension(""));
        }
        Ok(paths.into_iter().collect())
    }
}

/// The path without symbolic links, if that leads to the same namespace.
fn canonical(path: &Path, identity: (u64, u64)) -> PathBuf {
    let canonical = fs::canonicalize(path).ok();
    let same = canonical.filter(|path| leads_to(path).ok().flatten() == Some(identity));
    same.unwrap_or_else(|| path.to_owned())
}

/// The namespace that is mounted at a path.
fn held(path: &Path) -> Option<(u64, u64)> {
    (statfs(path).ok()?.filesystem_type() == NSFS_MAGIC).then(|| leads_to(path).ok().flatten())?
}

/// The file that a path leads to now; `None`: there is none.
fn leads_to(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            // ESRCH: the process ended while it was looked at.
            Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ESRCH) => Ok(None),
            _ => Err(error),
        },
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: nothing is mounted there.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Where another mount namespace has a copy of the mount, this takes it away there too (kernel 3.18).
    absent_is_fine(fs::remove_file(path))?;
    absent_is_fine(fs::remove_file(path.with_extension(GIVEN)))
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
