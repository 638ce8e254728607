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

/// Where Debian keeps it: it is no program for a person, so not on PATH.
pub(crate) const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";

/// In a mount namespace of its own: `$1` is the folder to share, the rest up to `--` what lies on other
/// file systems than the root and must be seen too.
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

/// A running virtiofsd; it ends with its guest, or when dropped.
pub(super) struct Share {
    child: Child,
    /// Where qemu finds it.
    pub(super) socket: PathBuf,
}

impl Share {
    /// Starts one, its files below `folder`.
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
            // What a test binary reads does not change under it: the guest may keep what it has read.
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
        // It ends by itself when its guest does; there is nobody to tell.
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
