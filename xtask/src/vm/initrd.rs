//! The initial file system of a guest: busybox, the modules for reading the host's files, init.sh, and the
//! job that init.sh starts at its end.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::fetch::Kernel;
use crate::exec::{capture, find_program};

/// The guest's first process.
const INIT: &str = include_str!("init.sh");
/// The programs that the script calls, all of which are in busybox.
const APPLETS: [&str; 10] =
    ["sh", "cp", "echo", "insmod", "ln", "mkdir", "mount", "poweroff", "switch_root", "umount"];
/// The folders that the script needs, most of them for mounts.
const FOLDERS: [&str; 8] = ["bin", "dev", "host", "memory", "modules", "new", "proc", "sys"];
/// The modules that the kernel needs before the host's files can be read: the bus, the console that the job
/// writes to, and the two file systems.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_console", "virtio_rng", "virtiofs", "overlay"];

/// Packs the file system below `folder`. `job` is a shell script that runs in the host's root as process 1.
pub(super) fn pack(kernel: &Kernel, job: &str, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("initrd");
    for name in FOLDERS {
        fs::create_dir_all(root.join(name))?;
    }
    let busybox = find_program("busybox").context("busybox is missing (package busybox-static)")?;
    fs::copy(&busybox, root.join("bin/busybox"))?;
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    let mut order = String::new();
    for file in kernel.modules_to_insert(&MODULES)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (module, xz) = name.strip_suffix(".xz").map_or((&*name, false), |name| (name, true));
        let to = root.join("modules").join(module);
        if xz {
            let content = Command::new(&busybox).arg("xzcat").arg(&file).output()?;
            if !content.status.success() {
                bail!("cannot unpack {}", file.display());
            }
            fs::write(&to, content.stdout)?;
        } else {
            fs::copy(&file, &to)?;
        }
        order += &format!("{module}\n");
    }
    fs::write(root.join("modules/order"), order)?;
    fs::write(root.join("job"), job)?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let packed = folder.join("initrd.cpio");
    archive(&busybox, &root, &packed)?;
    Ok(packed)
}

/// Writes everything below `root` into an archive that the kernel can unpack.
fn archive(busybox: &Path, root: &Path, to: &Path) -> Result<()> {
    let names = capture(Command::new(busybox).args(["find", "."]).current_dir(root))?;
    let mut cpio = Command::new(busybox)
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(File::create(to)?)
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start busybox cpio")?;
    cpio.stdin.take().context("a pipe")?.write_all(names.as_bytes())?;
    let status = cpio.wait()?;
    if !status.success() {
        bail!("busybox cpio failed: {status}");
    }
    Ok(())
}
