//! The guest that builds the cluster and tests it.

use std::{env, net::UdpSocket, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Lab, Netns, eventually, text};
use serde_json::Value;

use super::{
    ENDPOINTS, HOSTS,
    agent::{end_there, run_here, run_there, set_up_card},
    echo,
};

const SOCKET: &str = "/run/nics.sock";
/// Port of the echo in the other guest's endpoint.
const ECHO: u16 = 7;
const VXLAN_PORT: u16 = 4789;
/// Longest time until a node serves, or a packet is counted.
const PATIENCE: Duration = Duration::from_secs(20);
/// Features that are no question of the overlay: the card would hear itself, or take damaged frames.
const LEFT_ALONE: [&str; 3] = ["loopback", "rx-all", "rx-fcs"];
/// What is counted besides drops that prove a fault: packets that were forwarded, and the neighbour discovery of
/// the endpoints' own kernels.
const EXPECTED: [&str; 2] = ["forwarded", "broadcast_off"];
/// Starts a node in the background. `$1` is the binary, the rest its arguments.
const START: &str = "\"$@\" >>/run/nics.log 2>&1 & echo $! >/run/nics.pid";
/// Ends the node and waits for that.
const STOP: &str =
    "pid=$(cat /run/nics.pid); kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.1; done";

/// One of the two guests.
#[derive(Clone, Copy)]
enum Guest {
    There,
    Here,
}

impl Guest {
    const BOTH: [Self; 2] = [Self::There, Self::Here];

    fn run(self, words: &[&str]) -> Result<String> {
        match self {
            Self::There => run_there(words),
            Self::Here => run_here(words),
        }
    }

    fn overlay(self, words: &[&str]) -> Result<String> {
        let binary = binary()?;
        self.run(&[&[&binary, "--socket", SOCKET][..], words].concat())
    }

    /// Starts a node and waits until it serves.
    fn start(self, args: &[&str]) -> Result<()> {
        let (name, binary) =
            (if matches!(self, Self::There) { "there" } else { "here" }, binary()?);
        let node = ["--socket", SOCKET, "node", "run", "--name", name, "--underlay", "eth0"];
        let folders =
            ["--state-dir", "/run/nics", "--bpffs", "/sys/fs/bpf/nics", "--metrics", "off"];
        let join = format!("{}:7400", HOSTS[0]);
        let join: &[&str] = if matches!(self, Self::There) { &[] } else { &["--join", &join] };
        let shell = ["sh", "-c", START, "sh", &binary];
        self.run(&[&shell[..], &node, &folders, join, args].concat())?;
        eventually("the node serves", PATIENCE, || self.overlay(&["status"]))
            .map(drop)
            .with_context(|| self.run(&["tail", "-n", "5", "/run/nics.log"]).unwrap_or_default())
    }

    /// Counts packets by reason and direction.
    fn counters(self) -> Result<Vec<(String, String, u64)>> {
        let status = self.status()?;
        let counters = status["datapath"]["counters"].as_array().context("counters")?;
        let one = |counter: &Value| -> Result<(String, String, u64)> {
            let packets = counter["packets"].as_u64().context("packets")?;
            Ok((text(counter, "reason").to_owned(), text(counter, "direction").to_owned(), packets))
        };
        counters.iter().map(one).collect()
    }

    fn status(self) -> Result<Value> {
        Ok(serde_json::from_str(&self.overlay(&["status", "-o", "json"])?)?)
    }
}

fn binary() -> Result<String> {
    env::var("OVERLAY_BIN").context("OVERLAY_BIN names no binary")
}

/// Tests everything, and ends the other guest.
pub(super) fn drive(driver: &str, runs_xdp: bool) -> Result<()> {
    set_up_card(driver, HOSTS[1])?;
    let tested = test(runs_xdp);
    end_there().and(tested)
}

fn test(runs_xdp: bool) -> Result<()> {
    let lab = Lab::new()?;
    let end = set_up(&lab)?;
    let address = format!("{}:{ECHO}", ENDPOINTS[0]).parse()?;
    let mut wrong = Vec::new();
    let mut note = |what: &str, result: Result<()>| match &result {
        Ok(()) => println!("{what}: ok"),
        Err(error) => {
            println!("{what}: FAILED: {error:#}");
            wrong.push(what.to_owned());
        }
    };
    note("as the card comes", echo::check(&end, address));
    for (feature, state) in switchable()? {
        let other = if state == "on" { "off" } else { "on" };
        let what = format!("{feature} {other}");
        if let Err(error) = switch(&feature, other) {
            println!("{what}: not tested, the driver refuses it: {error:#}");
        } else {
            note(&what, echo::check(&end, address));
        }
        switch(&feature, &state)?;
    }
    note("nothing was dropped", nothing_was_dropped());
    if runs_xdp {
        note("the guard in the driver", guard(&end, address));
    }
    if wrong.is_empty() { Ok(()) } else { bail!("wrong with {}", wrong.join(", ")) }
}

/// Builds the cluster, and an endpoint in each guest. Returns that of this guest.
fn set_up(lab: &Lab) -> Result<Netns> {
    for guest in Guest::BOTH {
        guest.start(&[])?;
    }
    Guest::There.overlay(&["network", "create", "nics", "--subnet", "10.8.0.0/24"])?;
    run_there(&["ip", "netns", "add", "end"])?;
    run_there(&["ip", "-n", "end", "link", "set", "lo", "up"])?;
    let end = lab.container("end")?;
    for (guest, netns, address) in
        [(Guest::There, "end", ENDPOINTS[0]), (Guest::Here, end.name(), ENDPOINTS[1])]
    {
        let (name, at) = (format!("end-{address}"), ["--netns", netns, "--ip", address]);
        let create = ["endpoint", "create", &name, "--network", "nics"];
        guest.overlay(&[&create[..], &at].concat())?;
    }
    let xtask = env::current_exe()?;
    let xtask = xtask.to_str().context("the path of xtask is not UTF-8")?;
    let address = format!("{}:{ECHO}", ENDPOINTS[0]);
    let echo = ["nsenter", "--net=/run/netns/end", xtask, "nics-inside", "echo", &address];
    let background = ["sh", "-c", "\"$@\" >/run/echo.log 2>&1 &", "sh"];
    run_there(&[&background[..], &echo].concat())?;
    eventually("the echo listens", PATIENCE, || {
        let listeners = run_there(&["ip", "netns", "exec", "end", "ss", "-Hltn"])?;
        ensure!(listeners.contains(&address), "{listeners}");
        Ok(())
    })?;
    Ok(end)
}

/// The features of the card that its driver lets be switched, and their states.
fn switchable() -> Result<Vec<(String, String)>> {
    let printed = run_here(&["ethtool", "-k", "eth0"])?;
    let lines = printed.lines().filter(|line| !line.contains("[fixed]"));
    let features = lines.filter_map(|line| line.trim().split_once(": "));
    let known = features.filter(|(name, state)| {
        matches!(state.split(' ').next(), Some("on" | "off")) && !LEFT_ALONE.contains(name)
    });
    let owned = known.map(|(name, state)| {
        (name.to_owned(), state.split(' ').next().unwrap_or_default().to_owned())
    });
    Ok(owned.collect())
}

/// Switches a feature of both cards, since each of them sends and receives.
fn switch(feature: &str, state: &str) -> Result<()> {
    Guest::BOTH
        .into_iter()
        .try_for_each(|guest| guest.run(&["ethtool", "-K", "eth0", feature, state]).map(drop))
}

fn nothing_was_dropped() -> Result<()> {
    for guest in Guest::BOTH {
        let counters = guest.counters()?;
        let dropped: Vec<_> = counters
            .iter()
            .filter(|(reason, _, packets)| *packets > 0 && !EXPECTED.contains(&reason.as_str()))
            .collect();
        ensure!(dropped.is_empty(), "{dropped:?}");
    }
    Ok(())
}

/// The guard in the driver drops VXLAN from a stranger, and nothing else.
fn guard(end: &Netns, address: std::net::SocketAddr) -> Result<()> {
    for guest in Guest::BOTH {
        guest.run(&["sh", "-c", STOP])?;
        guest.start(&["--xdp", "native"])?;
        let status = guest.status()?;
        ensure!(status["datapath"]["xdp"] == "native", "{}", status["datapath"]["xdp_reason"]);
    }
    echo::check(end, address)?;
    run_here(&["ip", "addr", "add", "10.7.0.99/24", "dev", "eth0"])?;
    let stranger = UdpSocket::bind("10.7.0.99:50000")?;
    eventually("the guard counts", PATIENCE, || {
        let mut vxlan = [0; 80];
        vxlan[0] = 8;
        stranger.send_to(&vxlan, (HOSTS[0], VXLAN_PORT))?;
        let counters = Guest::There.counters()?;
        let counted = counters.iter().any(|(reason, direction, packets)| {
            reason == "unknown_vtep" && direction == "guard_underlay" && *packets > 0
        });
        ensure!(counted, "{counters:?}");
        Ok(())
    })
}
