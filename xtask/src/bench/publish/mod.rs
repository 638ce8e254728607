//! `cargo xtask bench publish`: compares published ports of this project with Docker's rules, from an outside
//! host.
//!
//! Bulk TCP is measured by iperf3; HTTP by wrk (Debian's package) with 16 connections, against the demo's
//! small web server. As in `bench dataplane` the contestants take turns within each round, and each of the
//! two ends is pinned to a CPU. NAT has most work if each request has a new connection, because its first
//! packet is looked up among all published ports.

mod adding;
mod contestants;
mod docker;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use overlay_lab::{Lab, pinned};
use serde::Serialize;

use self::{
    adding::Adding,
    contestants::{Contestant, DOCKER, OURS, ROUTED, iptables_version},
};
use super::{
    Report, load,
    stats::Samples,
    turns::{Contest, Measured, take_turns},
};
use crate::{
    build, interrupt,
    setup::{self, Purpose},
};

const CLIENT_CPU: Option<&str> = Some("0");
const SERVER_CPU: Option<&str> = Some("1");
/// Port of the host at which the web server is published.
const HTTP: u16 = 8080;
/// Number of published ports before and after the table is filled.
const FEW: u16 = 10;
const MANY: u16 = 1000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Take three short rounds instead of seven, and add ten ports instead of fifty
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    report: Report,
}

/// A figure that is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Metric {
    TcpIn,
    TcpInTsoOff,
    TcpOut,
    HttpKeptAlive,
    HttpConnecting,
    HttpConnectingManyPorts,
}

/// All samples of a run.
#[derive(Serialize)]
struct Figures {
    rounds: usize,
    load_before: String,
    load_after: String,
    kernel: String,
    iptables: String,
    samples: Measured<Metric, Samples>,
    /// Times to add a port, by the number of ports that are published already.
    adding_ms: BTreeMap<u16, Adding>,
}

impl Metric {
    const WITH_FEW: &[Self] =
        &[Self::TcpIn, Self::TcpInTsoOff, Self::TcpOut, Self::HttpKeptAlive, Self::HttpConnecting];
    const WITH_MANY: &[Self] = &[Self::HttpConnectingManyPorts];
}

impl Contest<Contestant> for Metric {
    type Sample = f64;
    type Samples = Samples;

    fn name(self) -> String {
        let name = match self {
            Self::TcpIn => "TCP to the endpoint, TSO on (Gbit/s)",
            Self::TcpInTsoOff => "TCP to the endpoint, TSO off (Gbit/s)",
            Self::TcpOut => "TCP from the endpoint, TSO on (Gbit/s)",
            Self::HttpKeptAlive => "HTTP, kept alive (requests/s)",
            Self::HttpConnecting => "HTTP, a connection each (requests/s)",
            Self::HttpConnectingManyPorts => "the same, 1,000 ports published",
        };
        name.to_owned()
    }

    fn contestant(of: &Contestant) -> &'static str {
        of.name
    }

    fn includes(self, _: &Contestant) -> bool {
        true
    }

    fn measure(self, contestant: &Contestant, seconds: u32) -> Result<f64> {
        contestant.set_tso(self != Self::TcpInTsoOff)?;
        match self {
            Self::TcpIn | Self::TcpInTsoOff => tcp(contestant, seconds, &[]),
            // With -R the endpoint, which is iperf3's server, sends.
            Self::TcpOut => tcp(contestant, seconds, &["-R"]),
            Self::HttpKeptAlive => http(contestant, seconds, &[]),
            Self::HttpConnecting | Self::HttpConnectingManyPorts => {
                http(contestant, seconds, &["-H", "Connection: close"])
            }
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Drive)?;
    build::release()?;
    interrupt::take_down_first()?;
    let (rounds, seconds, count) = if options.quick { (3, 1, 10) } else { (7, 3, 50) };
    let (load_before, iptables) = (load()?, iptables_version()?);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let mut lab = Lab::new()?;
    let mut contestants =
        [Contestant::routed(&mut lab)?, Contestant::docker(&mut lab)?, Contestant::ours(&mut lab)?];
    let (mut samples, mut adding_ms) = (Measured::new(), BTreeMap::new());
    for (present, metrics) in [(FEW, Metric::WITH_FEW), (MANY, Metric::WITH_MANY)] {
        for contestant in &mut contestants {
            contestant.fill(&lab, present).with_context(|| contestant.name)?;
        }
        take_turns(&contestants, metrics, (rounds, seconds), &mut samples)?;
        println!("adding a port {count} times, {present} present");
        let [_, docker, ours] = &contestants;
        adding_ms.insert(present, adding::measure(&lab, docker, ours, present, count)?);
    }
    let load_after = load()?;
    let figures = Figures { rounds, load_before, load_after, kernel, iptables, samples, adding_ms };
    figures.print();
    options.report.write(&figures)
}

fn tcp(contestant: &Contestant, seconds: u32, args: &[&str]) -> Result<f64> {
    let mut server = contestant.server().iperf_server(SERVER_CPU)?;
    let client = contestant.client();
    let measured = client.iperf_pinned(contestant.address(), seconds, args, CLIENT_CPU)?;
    server.wait(Duration::from_secs(10))?;
    Ok(measured.bits_per_second / 1e9)
}

fn http(contestant: &Contestant, seconds: u32, args: &[&str]) -> Result<f64> {
    let (time, url) = (format!("-d{seconds}s"), contestant.url());
    let words: Vec<&str> = pinned(CLIENT_CPU)
        .into_iter()
        .chain(["wrk", "-t1", "-c16", &time])
        .chain(args.iter().copied())
        .chain([url.as_str()])
        .collect();
    let patience = Duration::from_secs(u64::from(seconds) + 30);
    let printed = contestant.client().run_within(&words, patience)?;
    parse_wrk(&printed).with_context(|| format!("wrk printed: {printed}"))
}

/// Requests a second; an error if a request failed.
fn parse_wrk(printed: &str) -> Result<f64> {
    if let Some(line) = printed.lines().find(|line| line.contains("errors")) {
        bail!("{}", line.trim());
    }
    let line = printed.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(line.context("no rate")?.trim().parse()?)
}

impl Figures {
    fn print(&self) {
        println!(
            "\n{} rounds, contestants in turns, ends pinned to a CPU each; kernel {}, {}; load \
             average {} before, {} after",
            self.rounds, self.kernel, self.iptables, self.load_before, self.load_after
        );
        println!("median [least .. greatest]; ratios are of medians\n");
        for (metric, contestants) in &self.samples {
            println!("{}", metric.name());
            let docker = contestants.get(DOCKER).map(Samples::median);
            for name in [ROUTED, DOCKER, OURS] {
                let Some(samples) = contestants.get(name) else { continue };
                let median = samples.median();
                println!(
                    "  {name:16} {median:10.2} [{:10.2} .. {:10.2}]   {:5.2} x Docker's",
                    samples.min(),
                    samples.max(),
                    docker.map_or(f64::NAN, |docker| median / docker),
                );
            }
        }
        adding::print(&self.adding_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let printed = "Running 1s test @ http://10.9.0.2:8080/\n  9 requests in 1.00s\nRequests/sec:  9012.50\n";
        assert_eq!(parse_wrk(printed).unwrap(), 9012.5);
        let failed = "  Socket errors: connect 3, read 0, write 0, timeout 0\nRequests/sec: 1.0\n";
        assert!(parse_wrk(failed).unwrap_err().to_string().contains("connect 3"));
        assert!(parse_wrk("").is_err());
    }
}
