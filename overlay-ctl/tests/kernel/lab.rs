//! Throw-away network namespaces, and code run inside one.

use std::{
    fs::File,
    future::Future,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sched::{CloneFlags, setns};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// True, with the reason printed, where these tests cannot run.
pub(crate) fn skip() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root (network namespaces, BPF)");
        note_skip();
    }
    !root
}

/// Where `cargo xtask test` counts skips: libtest itself counts a skipped test as passed.
fn note_skip() {
    let Some(path) = std::env::var_os("OVERLAY_SKIPS") else { return };
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .expect("the file that counts skips can be written");
    std::io::Write::write_all(&mut file, b"kernel: needs root\n")
        .expect("the file that counts skips can be written");
}

/// A network namespace with a name of its own; removed when dropped.
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

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs a shell command inside, which must succeed; returns what it printed.
    pub(crate) fn sh(&self, command: &str) -> String {
        sh(&format!("nsenter --net=/run/netns/{} sh -ec '{command}'", self.name))
    }

    /// Whether a shell command inside succeeds.
    pub(crate) fn succeeds(&self, command: &str) -> bool {
        run(&format!("nsenter --net=/run/netns/{} sh -ec '{command}'", self.name)).status.success()
    }

    /// Runs async code on a thread of its own inside, as a node's controller would run there.
    pub(crate) fn block_on<T: Send, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> T {
        let inside = || {
            setns(File::open(self.path()).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
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

    /// Joins `self` and `other` with a veth pair of the given names; both ends are up.
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
