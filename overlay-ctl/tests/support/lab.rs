//! Temporary network namespaces, and code that runs inside one.

use std::{
    fs::File,
    future::Future,
    panic::Location,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sched::{CloneFlags, setns};
use overlay_lab::Requirement;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns true if the tests cannot run here. The reason is printed and recorded.
#[track_caller]
pub(crate) fn skip() -> bool {
    lacks(&[Requirement::Root])
}

/// Returns true if a requirement of a test is missing, which is printed and recorded.
#[track_caller]
pub(crate) fn lacks(needs: &[Requirement]) -> bool {
    let missing = overlay_lab::missing(needs);
    if let Some(reason) = &missing {
        overlay_lab::skip(reason, Location::caller()).unwrap();
    }
    missing.is_some()
}

/// A network namespace with its own name, which is removed when this is dropped.
pub(crate) struct Netns {
    pub(crate) name: String,
}

impl Netns {
    pub(crate) fn new(purpose: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ovk{}-{number}-{purpose}", std::process::id());
        sh(&format!("ip netns add {name}"));
        let netns = Self { name };
        netns.sh("ip link set lo up");
        netns
    }

    /// Gives the name to a new namespace. The old one is removed when nothing refers to it any more.
    pub(crate) fn remake(&self) {
        sh(&format!("ip netns del {0}; ip netns add {0}", self.name));
        self.sh("ip link set lo up");
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs a shell command inside, which must succeed. Returns its output.
    pub(crate) fn sh(&self, command: &str) -> String {
        sh(&format!("nsenter --net=/run/netns/{} sh -ec '{command}'", self.name))
    }

    /// Returns true if a shell command succeeds inside.
    pub(crate) fn succeeds(&self, command: &str) -> bool {
        run(&format!("nsenter --net=/run/netns/{} sh -ec '{command}'", self.name)).status.success()
    }

    /// Runs async code on a thread inside the namespace, as a node's controller would run there.
    pub(crate) fn block_on<T: Send, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> T {
        let inside = || {
            enter(&self.path());
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(work())
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Connects `self` and `other` by a veth pair with these names. Both ends are up.
    pub(crate) fn join(&self, here: &str, other: &Self, there: &str) {
        sh(&format!(
            "ip link add {here} netns {} type veth peer name {there} netns {}",
            self.name, other.name
        ));
        self.sh(&format!("ip link set {here} up"));
        other.sh(&format!("ip link set {there} up"));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.name));
    }
}

/// Moves the calling thread into the network namespace at `path`.
pub(crate) fn enter(path: &Path) {
    setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

pub(crate) fn sh(command: &str) -> String {
    let output = run(command);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "`{command}` failed: {}{stdout}",
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

fn run(command: &str) -> Output {
    Command::new("sh").args(["-c", command]).output().unwrap()
}
