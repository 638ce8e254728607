//! A network namespace, and the commands that run inside it.

use std::{
    fs::{self, File},
    io::Write as _,
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
    raw::{self, Raw},
};

/// Folder in which `ip netns` keeps its names.
const NETNS_DIR: &str = "/run/netns";
/// The file in a lab's folder that lists its namespaces.
const NAMESPACES: &str = "namespaces";

/// A handle of a named network namespace. Dropping the handle removes nothing; the lab removes the namespace.
#[derive(Debug, Clone)]
pub struct Netns {
    name: String,
    /// Programs in the namespace outlive this process.
    detached: bool,
    /// Folder for the logs of background programs.
    logs: PathBuf,
}

impl Netns {
    pub(super) fn create(name: &str, logs: &Path, detached: bool) -> Result<Self> {
        ip(&["netns", "add", name])?;
        record(logs, name)?;
        let netns = Self { name: name.to_owned(), detached, logs: logs.to_owned() };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    pub(super) fn adopt(name: &str, file: &Path, logs: &Path, detached: bool) -> Result<Self> {
        let netns = Self { name: name.to_owned(), detached, logs: logs.to_owned() };
        let point = netns.path();
        fs::create_dir_all(NETNS_DIR)?;
        record(logs, name)?;
        File::create_new(&point).with_context(|| format!("cannot make {}", point.display()))?;
        // The system call and not the program `mount`, which would follow /proc/PID/root to this process's
        // root.
        mount(Some(file), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot give {} the name {name}", file.display()))?;
        Ok(netns)
    }

    /// A handle of a namespace that does not exist.
    #[cfg(test)]
    pub(super) fn unmade(name: &str, logs: &Path) -> Self {
        Self { name: name.to_owned(), detached: false, logs: logs.to_owned() }
    }

    /// The namespace's name below /run/netns.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Removes the namespace before the lab does, as when a container dies.
    pub fn remove(&self) -> Result<()> {
        kill_inside(&self.name)?;
        ip(&["netns", "del", &self.name])?;
        Ok(())
    }

    /// A command that will run inside. It uses `nsenter` and not `ip netns exec`, which mounts a new /sys and
    /// so hides bpffs.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = if self.detached {
            Command::new("nsenter")
        } else {
            // The kernel kills the command when this process is killed, because no other process would.
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

    /// Runs a command inside that may take longer than [`PATIENCE`].
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

    /// Runs `ip` inside.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        let words: Vec<&str> = ["-n", &self.name].into_iter().chain(args.iter().copied()).collect();
        ip(&words)
    }

    /// Runs `ip -j` inside, and parses its output.
    pub fn ip_json(&self, args: &[&str]) -> Result<Value> {
        let words: Vec<&str> = ["-j", "-d"].into_iter().chain(args.iter().copied()).collect();
        let text = self.ip(&words)?;
        if text.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).with_context(|| format!("ip -j {args:?} printed: {text}"))
    }

    /// The MAC of a device inside.
    pub fn mac(&self, device: &str) -> Result<String> {
        let links = self.ip_json(&["link", "show", "dev", device])?;
        let mac = links[0]["address"].as_str();
        mac.map(str::to_owned).with_context(|| format!("{device} has no MAC"))
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
            fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))
        })
    }

    /// Sends one Ethernet frame unchanged out of a device.
    pub fn send_frame(&self, device: &str, frame: &[u8]) -> Result<()> {
        self.send_frames(device, std::iter::once(frame))
    }

    /// Sends Ethernet frames unchanged out of a device, one after another.
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

    /// Sends frames out of a device, each as its sender describes it. Returns how many of them the sender's own
    /// kernel did not refuse.
    pub fn send_raw(&self, device: &str, frames: &[Raw]) -> Result<u64> {
        self.enter(|| {
            let socket = raw::Socket::open(device)?;
            let mut accepted = 0;
            for frame in frames {
                accepted += u64::from(socket.send_raw(frame)?);
            }
            Ok(accepted)
        })
    }

    /// Sends a TCP super-packet out of a device: a frame with complete headers and more payload than a
    /// segment has. It is later cut into segments with `segment` bytes of payload.
    pub fn send_super_packet(&self, device: &str, frame: &[u8], segment: u16) -> Result<()> {
        self.enter(|| raw::Socket::open(device)?.send_super_packet(frame, segment))
    }

    /// Sends a frame out of a device without its checksum, which a later device must compute: over the bytes
    /// from `start` on, to be written `offset` bytes behind `start`.
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

/// Notes in a lab's folder that a namespace is the lab's.
fn record(folder: &Path, namespace: &str) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(folder.join(NAMESPACES))?;
    writeln!(file, "{namespace}")?;
    Ok(())
}

/// The namespaces of the lab with this folder.
pub(super) fn recorded(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join(NAMESPACES)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Runs `ip` in the namespace of this process.
pub(super) fn ip(args: &[&str]) -> Result<String> {
    command::run(Command::new("ip").args(args), PATIENCE)
}

/// Returns true if a namespace of this name exists.
pub(super) fn exists(name: &str) -> bool {
    Path::new(NETNS_DIR).join(name).exists()
}

/// Kills all processes inside a namespace of the lab, by their ids.
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
