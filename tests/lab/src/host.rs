//! A host, its node, and the command line that talks to the node.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    command::{self, Output, PATIENCE},
    netns::Netns,
    process::Process,
    requirements::{Requirement, missing, overlay_binary},
    wait::eventually,
};

/// Longest time until a started node serves.
const START: Duration = Duration::from_secs(20);
/// Port of the API.
const LISTEN_PORT: u16 = 7400;

/// One host: a namespace with an address, a folder for the node's state, and a folder for its pins.
#[derive(Debug)]
pub struct Host {
    /// Short name of the host and of its node: `h1`.
    pub name: String,
    /// The host's namespace.
    pub netns: Netns,
    /// The host's address on the underlay.
    pub address: Ipv4Addr,
    /// The folder of bpffs in which the node pins its maps, programs and links.
    pub bpffs: PathBuf,
    folder: PathBuf,
    node: Mutex<Node>,
}

#[derive(Debug, Default)]
struct Node {
    process: Option<Process>,
    args: Vec<String>,
    /// `None` = the program under test.
    program: Option<PathBuf>,
}

/// The result of a command that was refused.
#[derive(Debug)]
pub struct Failure {
    /// The command's exit code.
    pub code: Option<i32>,
    /// All of stderr.
    pub stderr: String,
    /// The time for which the command ran.
    pub elapsed: Duration,
}

impl Host {
    pub(super) fn new(
        name: &str,
        netns: Netns,
        address: Ipv4Addr,
        folder: PathBuf,
        bpffs: PathBuf,
    ) -> Self {
        let node = Mutex::default();
        Self { name: name.to_owned(), netns, address, bpffs, folder, node }
    }

    /// `IP:PORT` of the node's API.
    #[must_use]
    pub fn listen(&self) -> String {
        format!("{}:{LISTEN_PORT}", self.address)
    }

    /// The node's local socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("overlay.sock")
    }

    /// The folder in which the node holds namespaces that were named by a process.
    #[must_use]
    pub fn held_namespaces(&self) -> PathBuf {
        self.socket().with_extension("netns")
    }

    /// The node's state folder.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Installs another program on the host: its node is of it from the next start on, and every command at once.
    pub fn install(&self, program: &Path) {
        self.node().program = Some(program.to_owned());
    }

    /// The program that is installed on the host.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.node().program.clone().unwrap_or_else(overlay_binary)
    }

    /// Starts the node with the host's own folders and these further arguments, and waits until it answers.
    pub fn start_node(&self, args: &[&str]) -> Result<()> {
        self.spawn_node(args)?;
        self.wait_until_serving()
    }

    /// Starts the node and does not wait for an answer.
    pub fn spawn_node(&self, args: &[&str]) -> Result<()> {
        self.spawn_node_under(&[], args)
    }

    /// Does the same as [`Self::spawn_node`], with these words before the node's command line.
    fn spawn_node_under(&self, words: &[&str], args: &[&str]) -> Result<()> {
        let command = self.node_command(args);
        let mut node = self.node();
        if let Some(process) = &mut node.process
            && process.is_running()?
        {
            bail!("{}'s node runs already", self.name);
        }
        node.args = args.iter().map(|&arg| arg.to_owned()).collect();
        let words = words.iter().copied().chain(command.iter().map(String::as_str));
        node.process = Some(self.netns.start(&words.collect::<Vec<_>>())?);
        Ok(())
    }

    /// All words of the node's command line, `overlay node run …`.
    #[must_use]
    pub fn node_command(&self, args: &[&str]) -> Vec<String> {
        let own = [
            ("--name", self.name.clone()),
            ("--underlay", self.address.to_string()),
            ("--listen", self.listen()),
            ("--state-dir", self.state_dir().display().to_string()),
            ("--socket", self.socket().display().to_string()),
            ("--bpffs", self.bpffs.display().to_string()),
        ];
        let mut words = vec![self.program().display().to_string(), "node".into(), "run".into()];
        for (option, value) in own {
            // A value in `args` replaces the host's own; an empty one leaves the option out.
            if !args.contains(&option) {
                words.extend([option.to_owned(), value]);
            }
        }
        words.extend(args.iter().map(|&arg| arg.to_owned()));
        while let Some(empty) = words.iter().position(String::is_empty) {
            words.drain(empty.saturating_sub(1)..=empty);
        }
        words
    }

    /// Waits until the node answers on its socket, and has its data plane, which a node that was started again has later.
    /// Fails at once if the node has ended.
    pub fn wait_until_serving(&self) -> Result<()> {
        let mut ended = None;
        eventually(&format!("{}'s node serves", self.name), START, || {
            if !self.is_running()? {
                ended = Some(());
                return Ok(());
            }
            let status = self.overlay_json(&["status"])?;
            if status["datapath"].is_null() {
                bail!("it has no data plane: {}", status["troubles"]);
            }
            Ok(())
        })?;
        if ended.is_some() {
            bail!("{}'s node ended:\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// Returns true if the node's process runs.
    pub fn is_running(&self) -> Result<bool> {
        self.node().process.as_mut().map_or(Ok(false), Process::is_running)
    }

    /// Process id of the node.
    #[must_use]
    pub fn node_pid(&self) -> Option<nix::unistd::Pid> {
        self.node().process.as_ref()?.pid()
    }

    /// The node's output so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.node().process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Kills the node, as in a crash.
    pub fn kill9(&self) -> Result<()> {
        self.node().process.take().context("no node runs")?.kill9()
    }

    /// Sends the node's process a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        self.node().process.as_ref().context("no node runs")?.signal(signal)
    }

    /// Pauses the node's process: its sockets stay open, and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a paused process go on.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Asks the node to end, and waits for its end.
    pub fn stop(&self) -> Result<()> {
        let mut process = self.node().process.take().context("no node runs")?;
        process.signal(Signal::SIGTERM)?;
        let status = process.wait(START)?;
        if !status.success() {
            bail!("{}'s node ended with {status}:\n{}", self.name, process.log());
        }
        Ok(())
    }

    /// Starts the node with the arguments of its last start, and waits until it answers.
    pub fn restart(&self) -> Result<()> {
        let args = self.node().args.clone();
        self.start_node(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts the node with the arguments of its last start, and does not wait.
    pub fn spawn_again(&self) -> Result<()> {
        self.spawn_again_under(&[])
    }

    /// Does the same as [`Self::spawn_again`], with these words before the node's command line.
    pub fn spawn_again_under(&self, words: &[&str]) -> Result<()> {
        let args = self.node().args.clone();
        self.spawn_node_under(words, &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts the node with these further arguments. Fails unless the node refuses to run.
    pub fn node_fails(&self, args: &[&str]) -> Result<Failure> {
        self.node_fails_under(&[], args)
    }

    /// Does the same as [`Self::node_fails`], with these words before the node's command line.
    pub fn node_fails_under(&self, words: &[&str], args: &[&str]) -> Result<Failure> {
        let node = self.node_command(args);
        let words: Vec<&str> =
            words.iter().copied().chain(node.iter().map(String::as_str)).collect();
        let Output { status, stdout, stderr, elapsed } =
            command::output(&mut self.netns.command(&words), START)
                .context("the node was not refused")?;
        if status.success() {
            bail!("the node was not refused; it printed: {stdout}{stderr}");
        }
        Ok(Failure { code: status.code(), stderr, elapsed })
    }

    /// Does what a reboot does: the node, its pins, its mounts, every device that it made and all rules of
    /// the packet filter are gone, and its state folder stays. The underlay device stays too, because it
    /// would come back.
    pub fn reboot(&self) -> Result<()> {
        if self.is_running()? {
            self.kill9()?;
        }
        super::sweep::remove_folder(&self.bpffs)?;
        super::sweep::release_namespaces(&self.folder)?;
        for link in self.netns.links()? {
            if link != "lo" && link != "eth0" && self.netns.links()?.contains(&link) {
                self.netns.ip(&["link", "del", &link])?;
            }
        }
        if missing(&[Requirement::Tool("nft")]).is_none() {
            self.netns.run(&["nft", "flush", "ruleset"])?;
        }
        self.netns.sysctl("net.ipv4.conf.eth0.forwarding", "0")?;
        Ok(())
    }

    /// Does what a new installation of the machine does: the same as [`Self::reboot`], and the state folder
    /// is gone too. Only the name and the address stay.
    pub fn reinstall(&self) -> Result<()> {
        self.reboot()?;
        fs::remove_dir_all(self.state_dir())?;
        Ok(())
    }

    pub(super) fn detach(&self) {
        if let Some(process) = self.node().process.take() {
            process.detach();
        }
    }

    /// Runs `overlay …` on this host's node. The command must succeed. Returns its stdout. Of a node that is not ready,
    /// `status` is an answer too, though the command exits with 1.
    pub fn overlay(&self, args: &[&str]) -> Result<String> {
        let mut command = self.overlay_command(args);
        if !args.contains(&"status") {
            return command::run(&mut command, PATIENCE);
        }
        let Output { stdout, stderr, .. } = command::output(&mut command, PATIENCE)?;
        if stdout.is_empty() {
            bail!("`{}` printed nothing: {stderr}", command::line(&command));
        }
        Ok(stdout)
    }

    /// Runs `overlay -o json …`, and parses its output.
    pub fn overlay_json(&self, args: &[&str]) -> Result<Value> {
        let args: Vec<&str> = ["-o", "json"].into_iter().chain(args.iter().copied()).collect();
        let text = self.overlay(&args)?;
        serde_json::from_str(&text).with_context(|| format!("overlay {args:?} printed: {text}"))
    }

    /// Runs `overlay …`, and fails unless the command is refused.
    pub fn overlay_fails(&self, args: &[&str]) -> Result<Failure> {
        let Output { status, stdout, stderr, elapsed } =
            command::output(&mut self.overlay_command(args), PATIENCE)?;
        if status.success() {
            bail!("`overlay {}` was not refused; it printed: {stdout}", args.join(" "));
        }
        Ok(Failure { code: status.code(), stderr, elapsed })
    }

    /// The command `overlay …` for this host's node, which the caller runs.
    #[must_use]
    pub fn overlay_command(&self, args: &[&str]) -> Command {
        let (binary, socket) = (self.program(), self.socket());
        let mut words = vec![binary.to_string_lossy(), "--socket".into(), socket.to_string_lossy()];
        words.extend(args.iter().map(|&arg| arg.into()));
        self.netns.command(&words.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    }

    /// Names of the nodes that this host's node lists as ready.
    pub fn ready_nodes(&self) -> Result<Vec<String>> {
        let nodes = self.overlay_json(&["node", "ls"])?;
        Ok(rows(&nodes)
            .iter()
            .filter(|node| text(node, "state").to_lowercase().ends_with("ready"))
            .map(|node| text(node, "name").to_owned())
            .collect())
    }

    /// Names of the nodes that have a vote, as this host's node lists them.
    pub fn voters(&self) -> Result<Vec<String>> {
        let nodes = self.overlay_json(&["node", "ls"])?;
        let votes = |node: &&Value| ["leader", "voter"].contains(&text(node, "role"));
        Ok(rows(&nodes).iter().filter(votes).map(|node| text(node, "name").to_owned()).collect())
    }

    /// Returns true if the node has programmed its kernel at least once since it started.
    pub fn is_programmed(&self) -> Result<bool> {
        Ok(number(&self.overlay_json(&["status"])?, "programmed_revision") > 0)
    }

    /// Name of the leader, as this host's node knows it.
    pub fn leader(&self) -> Result<String> {
        let status = self.overlay_json(&["status"])?;
        let leader = text(&status, "leader");
        if leader.is_empty() {
            bail!("{} knows no leader", self.name);
        }
        Ok(leader.to_owned())
    }

    /// Packets that were counted under a drop reason (or `forwarded`) in both directions.
    pub fn counter(&self, reason: &str) -> Result<u64> {
        let status = self.overlay_json(&["status"])?;
        let counters = &status["datapath"]["counters"];
        Ok(rows(counters)
            .iter()
            .filter(|counter| text(counter, "reason") == reason)
            .map(|counter| number(counter, "packets"))
            .sum())
    }

    /// Packets that were counted in one direction, by drop reason (or `forwarded`).
    pub fn counters(&self, direction: &str) -> Result<BTreeMap<String, u64>> {
        let status = self.overlay_json(&["status"])?;
        let counters = rows(&status["datapath"]["counters"]).iter();
        let of_direction = counters.filter(|counter| text(counter, "direction") == direction);
        Ok(of_direction
            .map(|counter| (text(counter, "reason").to_owned(), number(counter, "packets")))
            .collect())
    }

    /// All pins below the node's folder, sorted.
    pub fn pins(&self) -> Result<Vec<PathBuf>> {
        let mut pins = Vec::new();
        walk(&self.bpffs, &mut pins)?;
        pins.sort();
        Ok(pins)
    }

    /// `bpftool map dump` of one of the node's pinned maps.
    pub fn map_dump(&self, map: &str) -> Result<String> {
        let pin = self.map_pin(map)?;
        command::run(Command::new("bpftool").args(["map", "dump", "pinned"]).arg(pin), PATIENCE)
    }

    /// The path at which one of the node's maps is pinned.
    pub fn map_pin(&self, map: &str) -> Result<PathBuf> {
        let pins = self.pins()?;
        pins.iter()
            .find(|pin| pin.file_name().is_some_and(|name| name == map))
            .cloned()
            .with_context(|| format!("{map} is not among the pins {pins:?}"))
    }

    fn node(&self) -> MutexGuard<'_, Node> {
        // A poisoned lock is used, because a test's thread that panicked has left nothing half-done in it.
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of a listing, which is an array or an object with one array.
#[must_use]
pub fn rows(value: &Value) -> &[Value] {
    let array = match value {
        Value::Object(fields) => fields.values().find_map(Value::as_array),
        other => other.as_array(),
    };
    array.map_or(&[], Vec::as_slice)
}

/// A text field; empty if it is missing.
#[must_use]
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// A number, which JSON has as a number or, by protobuf's mapping of 64-bit numbers, as a text.
#[must_use]
pub fn number(value: &Value, field: &str) -> u64 {
    let value = &value[field];
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let dir = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        dir => dir.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    for entry in dir {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}
