//! The host's files for a guest, read-only: virtiofsd over a bind mount of the root.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use overlay_lab::eventually;

use crate::exec::{root, target_dir};

/// Path of virtiofsd on Debian, where it is not on PATH because users do not run it.
pub(crate) const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";

/// The script that runs in a mount namespace of its own. `$1` is the folder to share. The words up to `--` are
/// folders that are on other file systems than the root and are shared too.
const SCRIPT: &str = r#"
set -e
shared=$1; shift
mount --bind / "$shared"
for folder in "$@"; do
  [ "$folder" = -- ] && break
  mount --bind "$folder" "$shared$folder"
  mount -o remount,bind,ro "$shared$folder"
done
mount -o remount,bind,ro "$shared"
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"#;

/// A running virtiofsd, which ends with its guest or when this is dropped.
pub(super) struct Share {
    child: Child,
    /// The socket that qemu connects to.
    pub(super) socket: PathBuf,
}

impl Share {
    /// Starts virtiofsd, with its files below `folder`.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let (shared, socket) = (folder.join("shared"), folder.join("virtiofs.sock"));
        fs::create_dir(&shared)?;
        let log = folder.join("virtiofsd.log");
        let file = File::create(&log)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"])
            .args(["sh", "-c", SCRIPT, "sh"])
            .arg(&shared)
            .args(elsewhere()?)
            .args(["--", VIRTIOFSD])
            .arg(format!("--socket-path={}", socket.display()))
            .arg("-o")
            .arg(format!("source={}", shared.display()))
            // The host's files do not change during a test, so that the guest may cache them.
            .args(["-o", "sandbox=chroot,cache=always,no_writeback,xattr"])
            .arg("--thread-pool-size=1")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command.spawn().context("cannot start virtiofsd")?;
        let mut share = Self { child, socket };
        eventually("virtiofsd listens", Duration::from_secs(10), || {
            if share.socket.exists() || share.child.try_wait()?.is_some() {
                return Ok(());
            }
            bail!("no socket yet")
        })?;
        if !share.socket.exists() {
            bail!("virtiofsd ended: {}", fs::read_to_string(&log)?.trim_end());
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // An error means that virtiofsd has ended already, as it does with its guest.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The folders that a job reads and that are not on the root's file system.
fn elsewhere() -> Result<Vec<PathBuf>> {
    let device = fs::metadata("/")?.dev();
    let mut folders = Vec::new();
    for folder in [root().to_owned(), target_dir()] {
        let folder = folder.canonicalize()?;
        if fs::metadata(&folder)?.dev() != device {
            folders.push(folder);
        }
    }
    Ok(folders)
}
