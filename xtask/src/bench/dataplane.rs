//! `cargo xtask bench dataplane`: container to container over two hosts.
//!
//! The contestants take turns within each round, so that what else the machine does hits them alike;
//! the two ends are pinned to a CPU each.

use std::time::Duration;

use anyhow::{Context as _, Result};
use overlay_lab::{Lab, pinned};
use serde::Serialize;

use super::{
    Report,
    contestants::{Contestant, KERNEL, OURS, UNDERLAY},
    load,
    stats::Samples,
    turns::{Contest, Measured, take_turns},
};
use crate::{
    build, interrupt,
    setup::{self, Purpose},
};

const CLIENT_CPU: Option<&str> = Some("0");
const SERVER_CPU: Option<&str> = Some("1");
const QPERF_PORT: u16 = 19765;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Three short rounds instead of seven
    #[arg(long)]
    quick: bool,
    /// Leave ours out: measure the machine
    #[arg(long)]
    without_ours: bool,
    #[command(flatten)]
    report: Report,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Metric {
    TcpTsoOn,
    TcpTsoOff,
    Udp64,
    TcpLatency,
}

/// All samples of a run.
#[derive(Serialize)]
struct Figures {
    rounds: usize,
    load_before: String,
    load_after: String,
    kernel: String,
    samples: Measured<Metric>,
}

impl Metric {
    const ALL: [Self; 4] = [Self::TcpTsoOn, Self::TcpTsoOff, Self::Udp64, Self::TcpLatency];

    /// What ours must reach, as a multiple of the kernel's.
    fn target(self) -> Option<f64> {
        match self {
            Self::TcpTsoOn => Some(1.15),
            Self::TcpTsoOff => Some(1.1),
            Self::Udp64 => Some(1.5),
            Self::TcpLatency => None,
        }
    }
}

impl Contest<Contestant> for Metric {
    fn name(self) -> &'static str {
        match self {
            Self::TcpTsoOn => "TCP, 1 stream, TSO on (Gbit/s)",
            Self::TcpTsoOff => "TCP, 1 stream, TSO off (Gbit/s)",
            Self::Udp64 => "UDP, 64 B, received (kpackets/s)",
            Self::TcpLatency => "TCP, 64 B, latency (us, less is better)",
        }
    }

    fn contestant(of: &Contestant) -> &'static str {
        of.name
    }

    fn measure(self, contestant: &Contestant, seconds: u32) -> Result<f64> {
        contestant.set_tso(self != Self::TcpTsoOff)?;
        match self {
            Self::TcpTsoOn | Self::TcpTsoOff => tcp(contestant, seconds),
            Self::Udp64 => {
                let bytes = qperf(contestant, seconds, "udp_bw", "recv_bw")?;
                Ok(bytes / 64.0 / 1e3)
            }
            Self::TcpLatency => Ok(qperf(contestant, seconds, "tcp_lat", "latency")? / 1e3),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Everything)?;
    if !options.without_ours {
        build::release()?;
    }
    interrupt::take_down_first()?;
    let (rounds, seconds) = if options.quick { (3, 1) } else { (7, 3) };
    let load_before = load()?;
    let mut lab = Lab::new()?;
    let mut contestants = vec![Contestant::underlay(&mut lab)?, Contestant::kernel(&mut lab)?];
    if !options.without_ours {
        contestants.push(Contestant::ours(&mut lab)?);
    }
    let mut samples = Measured::new();
    take_turns(&contestants, &Metric::ALL, (rounds, seconds), &mut samples)?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let figures = Figures { rounds, load_before, load_after: load()?, kernel, samples };
    figures.print();
    options.report.write(&figures)
}

fn tcp(contestant: &Contestant, seconds: u32) -> Result<f64> {
    let mut server = contestant.server.iperf_server(SERVER_CPU)?;
    let measured =
        contestant.client.iperf_pinned(contestant.server_address, seconds, &[], CLIENT_CPU)?;
    server.wait(Duration::from_secs(10))?;
    Ok(measured.bits_per_second / 1e9)
}

/// One test of qperf: a field of what it prints, in bytes a second or nanoseconds.
fn qperf(contestant: &Contestant, seconds: u32, test: &str, field: &str) -> Result<f64> {
    let words: Vec<&str> = pinned(SERVER_CPU).into_iter().chain(["qperf"]).collect();
    let server = contestant.server.start(&words)?;
    contestant.server.wait_for_listener(QPERF_PORT)?;
    let (time, to) = (seconds.to_string(), contestant.server_address.to_string());
    let client = ["qperf", "-t", &time, "-m", "64", "--unify_units", &to, test];
    let words: Vec<&str> = pinned(CLIENT_CPU).into_iter().chain(client).collect();
    let printed =
        contestant.client.run_within(&words, Duration::from_secs(u64::from(seconds) + 30))?;
    server.kill9()?;
    parse_qperf(&printed, field).with_context(|| format!("qperf {test} printed: {printed}"))
}

fn parse_qperf(printed: &str, field: &str) -> Option<f64> {
    let line = printed.lines().find(|line| line.trim_start().starts_with(field))?;
    let (_, value) = line.split_once('=')?;
    value.split_whitespace().next()?.replace(',', "").parse().ok()
}

impl Figures {
    fn print(&self) {
        println!(
            "\n{} rounds, contestants in turns, ends pinned to a CPU each; kernel {}; load average \
             {} before, {} after",
            self.rounds, self.kernel, self.load_before, self.load_after
        );
        println!("median [least .. greatest]; ratios are of medians\n");
        for (metric, contestants) in &self.samples {
            println!("{}", metric.name());
            let kernel = contestants.get(KERNEL).map(Samples::median);
            let underlay = contestants.get(UNDERLAY).map(Samples::median);
            for name in [UNDERLAY, KERNEL, OURS] {
                let Some(samples) = contestants.get(name) else { continue };
                let median = samples.median();
                let ratio = |base: Option<f64>| base.map_or(f64::NAN, |base| median / base);
                println!(
                    "  {name:24} {median:8.2} [{:8.2} .. {:8.2}]   {:5.2} x kernel   {:5.2} x underlay",
                    samples.min(),
                    samples.max(),
                    ratio(kernel),
                    ratio(underlay),
                );
                if let (Some(target), OURS) = (metric.target(), name) {
                    let reached = if ratio(kernel) >= target { "reached" } else { "NOT reached" };
                    println!("  {:24} at least {target:.2} x kernel: {reached}", "");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qperf_is_read() {
        let printed =
            "udp_bw:\n    send_bw  =  10746944 bytes/sec\n    recv_bw  =  6,224,384 bytes/sec\n";
        assert_eq!(parse_qperf(printed, "recv_bw"), Some(6_224_384.0));
        assert_eq!(parse_qperf(printed, "latency"), None);
    }
}
