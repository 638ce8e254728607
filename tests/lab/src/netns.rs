//! One network namespace, and commands inside it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    command::{self, Output, PATIENCE},
    process::Process,
    raw, sweep,
};

/// Where `ip netns` keeps its names.
const NETNS_DIR: &str = "/run/netns";

/// A named network namespace. A handle: dropping it removes nothing, the lab does.
#[derive(Debug, Clone)]
pub struct Netns {
    name: String,
    /// Programs in it outlive us.
    detached: bool,
    /// Where logs of background programs go.
    logs: PathBuf,
}

impl Netns {
    pub(super) fn create(name: &str, logs: &Path, detached: bool) -> Result<Self> {
        ip(&["netns", "add", name])?;
        sweep::record(logs, name)?;
        let netns = Self { name: name.to_owned(), detached, logs: logs.to_owned() };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    pub(super) fn adopt(name: &str, file: &Path, logs: &Path, detached: bool) -> Result<Self> {
        let netns = Self { name: name.to_owned(), detached, logs: logs.to_owned() };
        let point = netns.path();
        std::fs::create_dir_all(NETNS_DIR)?;
        sweep::record(logs, name)?;
        File::create_new(&point).with_context(|| format!("cannot make {}", point.display()))?;
        // The system call and not the program: that would follow /proc/PID/root to our own root.
        mount(Some(file), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot give {} the name {name}", file.display()))?;
        Ok(netns)
    }

    /// Its name below /run/netns.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Removes it before the lab does: a container that has died.
    pub fn remove(&self) -> Result<()> {
        kill_inside(&self.name)?;
        ip(&["netns", "del", &self.name])?;
        Ok(())
    }

    /// A command that will run inside. `nsenter` and not `ip netns exec`, which mounts a fresh /sys
    /// and so hides bpffs.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = if self.detached {
            Command::new("nsenter")
        } else {
            // If we are killed, so is it: nobody would be left to do it.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "nsenter"]);
            command
        };
        command.arg(format!("--net={}", self.path().display())).arg("--").args(words);
        command
    }

    /// Runs a command inside that must succeed; returns its stdout.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        command::run(&mut self.command(words), PATIENCE)
    }

    /// Runs a command inside, whatever its exit code.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        command::output(&mut self.command(words), PATIENCE)
    }

    /// Runs a command inside that may take longer than most.
    pub fn run_within(&self, words: &[&str], patience: Duration) -> Result<String> {
        command::run(&mut self.command(words), patience)
    }

    /// Starts a command inside, in the background.
    pub fn start(&self, words: &[&str]) -> Result<Process> {
        let program = words.first().and_then(|word| word.rsplit('/').next()).unwrap_or("program");
        Process::start(&mut self.command(words), &self.log_file(&format!("{program}.log")))
    }

    /// A file of the lab's folder that belongs to this namespace.
    #[must_use]
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{}-{name}", self.name))
    }

    /// `ip` inside.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        let words: Vec<&str> = ["-n", &self.name].into_iter().chain(args.iter().copied()).collect();
        ip(&words)
    }

    /// `ip -j` inside, read.
    pub fn ip_json(&self, args: &[&str]) -> Result<Value> {
        let words: Vec<&str> = ["-j", "-d"].into_iter().chain(args.iter().copied()).collect();
        let text = self.ip(&words)?;
        if text.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).with_context(|| format!("ip -j {args:?} printed: {text}"))
    }

    /// Names of the devices inside, sorted.
    pub fn links(&self) -> Result<Vec<String>> {
        let links = self.ip_json(&["link", "show"])?;
        let mut names: Vec<String> = links
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|link| Some(link["ifname"].as_str()?.to_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Sets a kernel parameter below /proc/sys/net that belongs to the namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.enter(move || {
            std::fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))
        })
    }

    /// Sends one Ethernet frame, as it is, out of a device.
    pub fn send_frame(&self, device: &str, frame: &[u8]) -> Result<()> {
        self.send_frames(device, std::iter::once(frame))
    }

    /// Sends Ethernet frames, as they are, out of a device, one after another.
    pub fn send_frames<F: AsRef<[u8]>>(
        &self,
        device: &str,
        frames: impl Iterator<Item = F> + Send,
    ) -> Result<()> {
        self.enter(|| {
            let socket = raw::Socket::open(device)?;
            for frame in frames {
                socket.send(frame.as_ref())?;
            }
            Ok(())
        })
    }

    /// Sends a TCP super-packet, a frame with a full header and more payload than a segment's, out of a device;
    /// who cuts it makes segments of `segment` bytes of payload.
    pub fn send_super_packet(&self, device: &str, frame: &[u8], segment: u16) -> Result<()> {
        self.enter(|| raw::Socket::open(device)?.send_super_packet(frame, segment))
    }

    /// Sends a frame out of a device whose checksum is left to whoever sends it on: it is summed from `start` on, and
    /// goes `offset` behind that.
    pub fn send_unfinished(
        &self,
        device: &str,
        frame: &[u8],
        start: u16,
        offset: u16,
    ) -> Result<()> {
        self.enter(|| raw::Socket::open(device)?.send_unfinished(frame, start, offset))
    }

    /// Calls a function on a thread that has entered the namespace. Sockets that it opens stay there.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter {}", path.display()))?;
                inside()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// `ip`, wherever it works on.
pub(super) fn ip(args: &[&str]) -> Result<String> {
    command::run(Command::new("ip").args(args), PATIENCE)
}

/// Whether a namespace of this name exists.
pub(super) fn exists(name: &str) -> bool {
    Path::new(NETNS_DIR).join(name).exists()
}

/// Kills whatever runs inside a namespace of ours, by process id.
pub(super) fn kill_inside(name: &str) -> Result<()> {
    for pid in ip(&["netns", "pids", name])?.split_whitespace() {
        let pid = Pid::from_raw(pid.parse()?);
        match kill(pid, Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot kill {pid}")),
        }
    }
    Ok(())
}
