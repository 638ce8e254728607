//! Namespaces that are named by a process, whose number another process may get later.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use overlay_ctl::dataplane::{
    kernel::DeviceSpec,
    netlink::{DeviceError, HeldNamespaces, Netlink},
};

use super::{ready, spec};
use crate::lab::{Netns, skip};

/// A little longer than a namespace is kept that no endpoint names.
const LATER: Duration = Duration::from_secs(61);

/// A process in a namespace of its own, which has no name.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let stranger = Self(child);
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        // The process is in its own namespace when `unshare` has become `sleep`.
        while fs::read_link(stranger.path()).is_ok_and(|now| now == own) {
            std::thread::yield_now();
        }
        stranger
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.id()))
    }

    fn interfaces(&self) -> String {
        let path = format!("--net={}", self.path().display());
        let output = Command::new("nsenter").args([&path, "ip", "-o", "link"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn end(mut self) {
        self.kill();
    }

    fn kill(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A test's folder, with the folder of held namespaces in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ovk{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn held(&self) -> HeldNamespaces {
        HeldNamespaces::new(self.0.join("held"))
    }

    fn count(&self) -> usize {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.matches(&format!(" {}/", self.0.display())).count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.held().remove_all().ok();
        fs::remove_dir_all(&self.0).ok();
    }
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}

#[test]
fn no_device_is_made_in_whatever_namespace_a_process_has_by_then() {
    if skip() {
        return;
    }
    let (host, stranger) = (Netns::new("host"), Stranger::new());
    let folder = Folder::new("ways");
    let link = folder.0.join("link");
    symlink(stranger.path(), &link).unwrap();
    let pid = stranger.0.id();
    let ways = [
        stranger.path(),
        format!("/proc/{pid}/task/{pid}/ns/net").into(),
        format!("/proc/{pid}/root/proc/{pid}/ns/net").into(),
        link,
    ];
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        for netns in ways {
            // The namespace may be used for this one check, but not for a device.
            netlink.check_netns(&netns, true, None).await.unwrap();
            let spec = DeviceSpec { netns: netns.clone(), ..spec(9, &host) };
            let error = netlink.create_device(&spec, ready).await.unwrap_err();
            assert!(matches!(error, DeviceError::ByProcess(_)), "{}: {error:?}", netns.display());
            let error = Netlink::raise_loopback(&netns).await.unwrap_err();
            assert!(matches!(error, DeviceError::ByProcess(_)), "{}: {error:?}", netns.display());
        }
        let own = Path::new("/proc/thread-self/ns/net");
        let error = netlink.check_netns(own, false, None).await.unwrap_err();
        assert!(matches!(error, DeviceError::OwnNamespace(_)), "{error:?}");
    });
    assert_eq!(stranger.interfaces().lines().count(), 1, "lo alone");
}

#[test]
fn a_held_namespace_is_the_same_one_for_ever() {
    if skip() {
        return;
    }
    let (host, folder) = (Netns::new("host"), Folder::new("same"));
    let (first, second) = (Stranger::new(), Stranger::new());
    let given = folder.0.join("given");
    symlink(first.path(), &given).unwrap();
    let mut held = folder.held();
    let path = held.steady_path(&given).unwrap();
    assert!(held.has(&path) && inode(&path) == inode(&first.path()));
    let by_pid = held.steady_path(&first.path()).unwrap();
    assert_eq!((&by_pid, folder.count()), (&path, 1), "one way for one namespace");
    assert_ne!(held.steady_path(&second.path()).unwrap(), path);
    let named = Netns::new("named");
    assert_eq!(held.steady_path(&named.path()).unwrap(), named.path(), "a name needs no other");

    // The node was restarted, and the number now belongs to another process.
    let held = folder.held();
    fs::remove_file(&given).unwrap();
    symlink(second.path(), &given).unwrap();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let spec = DeviceSpec { netns: path.clone(), ..spec(9, &host) };
        netlink.create_device(&spec, ready).await.unwrap();
    });
    assert_eq!(
        (first.interfaces().contains("eth0"), second.interfaces().contains("eth0")),
        (true, false)
    );
    held.remove_all().unwrap();
    held.remove_all().unwrap();
    assert_eq!((folder.count(), held.has(&path), path.exists()), (0, true, false));
}

#[test]
fn a_namespace_has_one_path_whatever_it_is_called_by() {
    if skip() {
        return;
    }
    let folder = Folder::new("paths");
    let (named, other) = (Netns::new("named"), Netns::new("other"));
    let link = folder.0.join("link");
    symlink(named.path(), &link).unwrap();
    let mounted = folder.0.join("mounted");
    fs::write(&mounted, "").unwrap();
    let run = |program: &str, args: &[&Path]| {
        assert!(Command::new(program).args(args).status().unwrap().success(), "{program}");
    };
    run("mount", &[Path::new("--bind"), &named.path(), &mounted]);
    let inside = Command::new("nsenter")
        .arg(format!("--net={}", named.path().display()))
        .args(["sleep", "600"])
        .spawn()
        .unwrap();
    let inside = Stranger(inside);
    // The process is in the namespace when `nsenter` has become `sleep`.
    while inode(&inside.path()) != inode(&named.path()) {
        std::thread::yield_now();
    }

    let mut held = folder.held();
    for path in [&link, &named.path(), &mounted, &inside.path()] {
        assert_eq!(held.steady_path(path).unwrap(), named.path(), "{}", path.display());
    }
    assert_eq!(held.steady_path(&other.path()).unwrap(), other.path());
    // The other way round, after a restart: the endpoint that exists has the path of the mount.
    let mut held = folder.held();
    held.sweep(&BTreeSet::from([mounted.clone()]), Instant::now());
    for path in [&link, &named.path(), &inside.path()] {
        assert_eq!(held.steady_path(path).unwrap(), mounted, "{}", path.display());
    }
    // The name leads elsewhere now, so the path that was stored is not its path any more.
    run("umount", &[&mounted]);
    run("mount", &[Path::new("--bind"), &other.path(), &mounted]);
    assert_eq!(held.steady_path(&named.path()).unwrap(), named.path());
    run("umount", &[&mounted]);
    assert_eq!(folder.count(), 0, "nothing had to be held");
}

#[test]
fn a_namespace_is_let_go_when_its_process_has_ended_or_nobody_wants_it() {
    if skip() {
        return;
    }
    let folder = Folder::new("sweep");
    let (ends, stays) = (Stranger::new(), Stranger::new());
    let mut held = folder.held();
    let now = Instant::now();
    held.sweep(&BTreeSet::new(), now);
    let [ended, stayed] = [&ends, &stays].map(|one| held.steady_path(&one.path()).unwrap());
    let named = BTreeSet::from([ended.clone(), stayed.clone()]);
    held.sweep(&named, now + LATER);
    assert_eq!(folder.count(), 2, "both have a process and an endpoint");
    ends.end();
    held.sweep(&named, now);
    assert_eq!((ended.exists(), stayed.exists()), (false, true));
    held.sweep(&BTreeSet::new(), now);
    assert!(stayed.exists(), "its endpoint may be on its way");
    held.sweep(&named, now + LATER);
    held.sweep(&BTreeSet::new(), now + LATER);
    assert!(stayed.exists(), "it was wanted in between");
    // A file that a killed process left instead of a mount.
    fs::write(folder.0.join("held/0000abcd"), "").unwrap();
    held.sweep(&BTreeSet::new(), now + 2 * LATER);
    assert_eq!(fs::read_dir(folder.0.join("held")).unwrap().count(), 0);
}

#[test]
fn what_is_no_namespace_is_not_opened() {
    if skip() {
        return;
    }
    let (host, folder) = (Netns::new("host"), Folder::new("open"));
    // A socket's file cannot be opened, so the check must not open it.
    let socket = folder.0.join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        for path in [&socket, &folder.0] {
            let error = netlink.check_netns(path, false, None).await.unwrap_err();
            assert!(matches!(error, DeviceError::NotNamespace(_)), "{error:?}");
        }
    });
}
