//! `cargo xtask bench idle`: the CPU time of a node to which nothing happens, and of one beside which others are busy.
//!
//! One node has many endpoints, each in a namespace of its own, and many VTEPs of others on its link, whose neighbours the
//! router answers for. Its CPU time is read from /proc, of the node's process with all its threads.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;
use overlay_lab::{Host, Lab, Netns, check_interrupted, eventually};
use serde::Serialize;

use super::{Report, endpoint::create_endpoint, load};
use crate::{
    build, interrupt,
    setup::{self, Purpose},
};

/// The goals, in percent of one CPU.
const IDLE_GOAL: f64 = 1.0;
const STORM_GOAL: f64 = 5.0;
/// The pause after the last change before anything is measured.
const REST: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of endpoints of the node, each in a namespace of its own (a bridge takes 1,023)
    #[arg(long, default_value_t = 1000)]
    endpoints: u16,
    /// Number of VTEPs that the node sends to
    #[arg(long, default_value_t = 1000)]
    vteps: u16,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[command(flatten)]
    report: Report,
}

#[derive(Serialize)]
struct Figures {
    load_before: String,
    endpoints: u16,
    vteps: u16,
    phases: Vec<Phase>,
}

#[derive(Serialize)]
struct Phase {
    name: &'static str,
    /// Of one CPU.
    percent: f64,
    goal: f64,
}

/// Changes that are none of the node's business, each as a command in the shell that the host runs on and on.
const STORMS: [(&str, &str); 4] = [
    (
        "MACs of a foreign bridge",
        "bridge fdb replace 02:00:00:00:00:01 dev storm1 master; bridge fdb del 02:00:00:00:00:01 dev storm1 master",
    ),
    (
        "foreign neighbours",
        "ip neigh replace 10.99.0.7 lladdr 02:00:00:00:00:02 dev storm0; ip neigh del 10.99.0.7 dev storm0",
    ),
    (
        "foreign routes",
        "ip route add 198.51.100.0/24 dev storm0; ip route del 198.51.100.0/24 dev storm0",
    ),
    ("foreign devices", "ip link add storm4 type veth peer name storm5; ip link del storm4"),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Drive)?;
    build::release()?;
    interrupt::take_down_first()?;
    let load_before = load()?;
    let mut lab = Lab::new()?;
    let lan = lab.subnet("10.10.0.1/16")?;
    let host = lab.host(&lan, "h1", "10.10.0.101")?;
    lab.start_cluster(&[Arc::clone(&host)])?;
    host.overlay(&["network", "create", "bench", "--subnet", "10.128.0.0/16"])?;
    let router = lab.router()?;
    let containers = populate(&lab, &host, &router, options)?;
    foreign_bridge(&host)?;
    pause(REST)?;

    let pid = host.node_pid().context("the node runs")?;
    let time = Duration::from_secs(options.seconds);
    let mut phases = vec![Phase { name: "idle", percent: share(pid, time)?, goal: IDLE_GOAL }];
    for (name, command) in STORMS {
        let storm = Storm::begin(&host, command)?;
        phases.push(Phase { name, percent: share(pid, time)?, goal: STORM_GOAL });
        drop(storm);
    }
    let Options { endpoints, vteps, .. } = *options;
    println!(
        "{endpoints} endpoints, {vteps} VTEPs, {} s each; load average {load_before} before, {} after",
        options.seconds,
        load()?
    );
    for Phase { name, percent, goal } in &phases {
        let verdict = if percent < goal { "" } else { "  MISSED" };
        println!("  {name:26} {percent:6.2} % of a CPU (goal: below {goal} %){verdict}");
    }
    drop(containers);
    options.report.write(&Figures { load_before, endpoints, vteps, phases })
}

/// Makes the endpoints and the VTEPs, and waits until the node holds them.
fn populate(lab: &Lab, host: &Host, router: &Netns, options: &Options) -> Result<Vec<Netns>> {
    let mut batch = String::new();
    for number in 0..options.vteps {
        batch += &format!("addr add {}/16 dev lan0\n", vtep(number));
    }
    let file = lab.folder().join("vteps");
    fs::write(&file, batch)?;
    router.ip(&["-batch", &file.display().to_string()])?;
    let mut containers = Vec::new();
    for number in 0..options.endpoints {
        let name = format!("web{number}");
        let container = lab.container(&name)?;
        create_endpoint(host, &name, &container, &[])?;
        containers.push(container);
        check_interrupted()?;
    }
    for number in 0..options.vteps {
        let (name, mac) = (
            format!("far{number}"),
            format!("02:fe:00:00:{:02x}:{:02x}", number >> 8, number & 0xff),
        );
        let (vtep, ip) =
            (vtep(number), format!("10.128.{}.{}", 128 + (number >> 8), number & 0xff));
        let words =
            ["endpoint", "create", &name, "--network", "bench", "--vtep", &vtep, "--mac", &mac];
        host.overlay(&[&words[..], &["--ip", &ip]].concat())?;
        check_interrupted()?;
    }
    eventually("the node is programmed", Duration::from_secs(60), || {
        if host.is_programmed()? { Ok(()) } else { bail!("it is not") }
    })?;
    Ok(containers)
}

fn vtep(number: u16) -> String {
    format!("10.10.{}.{}", 10 + (number / 250), 1 + number % 250)
}

/// A bridge of the host's own, with a port.
fn foreign_bridge(host: &Host) -> Result<()> {
    for words in [
        "link add storm0 type bridge",
        "link add storm1 type veth peer name storm2",
        "link set storm1 master storm0 up",
        "link set storm2 up",
        "link set storm0 up",
        "addr add 10.99.0.1/24 dev storm0",
    ] {
        host.netns.ip(&words.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

/// A command that a host runs on and on.
struct Storm(Child);

impl Storm {
    fn begin(host: &Host, command: &str) -> Result<Self> {
        let script = format!("while :; do {command}; done");
        let mut shell = host.netns.command(&["sh", "-c", &script]);
        Ok(Self(shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // The shell ends after the command that it runs.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("a storm was not ended: {error}");
        }
    }
}

/// Lets time pass.
fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check_interrupted()?;
        #[expect(clippy::disallowed_methods, reason = "a figure is that of a time")]
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The share of one CPU that a process takes in this time, in percent.
fn share(pid: Pid, time: Duration) -> Result<f64> {
    let (begun, before) = (Instant::now(), cpu_time(pid)?);
    pause(time)?;
    let used = cpu_time(pid)?.saturating_sub(before);
    Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
}

/// The CPU time of a process with all its threads (proc_pid_stat(5): utime and stime).
fn cpu_time(pid: Pid) -> Result<Duration> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // The name of the program, in brackets, may have spaces in it.
    let (_, fields) = text.rsplit_once(')').context("the name of the program")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks =
        |place: usize| -> Result<u64> { Ok(fields.get(place).context("a field")?.parse()?) };
    let (user, system) = (ticks(11)?, ticks(12)?);
    Ok(Duration::from_secs(user + system) / ticks_per_second()?)
}

fn ticks_per_second() -> Result<u32> {
    let output = Command::new("getconf").arg("CLK_TCK").output().context("cannot run getconf")?;
    String::from_utf8(output.stdout)?.trim().parse().context("the number of ticks in a second")
}
