//! `cargo xtask bench flood`: the cost of a flood of forged VXLAN for a node, and the throughput that is left
//! to a legitimate flow.
//!
//! The wire is a veth pair, which hands a packet to its receiver on the sender's CPU. Therefore the flood is
//! made and dropped on one CPU, which is also the server's: the flow loses the time that the flood takes.

mod contestants;
mod forged;

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Lab, flood::Flood};
use serde::Serialize;

use self::contestants::{ALL, Contestant};
use super::{
    Report, load,
    stats::Samples,
    turns::{Contest, Measured, take_turns},
};
use crate::{
    build, interrupt,
    setup::{self, Purpose},
};

/// The CPU on which the flood is made and dropped, and on which the server runs.
const FLOODED_CPU: (usize, Option<&str>) = (0, Some("0"));
const CLIENT_CPU: Option<&str> = Some("1");
/// Packets a second of the flood during which a flow is measured.
const FLOOD: u32 = 200_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Take three short rounds instead of seven
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    report: Report,
}

/// A figure that is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Metric {
    Dropped,
    Quiet,
    Flooded,
}

impl Metric {
    const ALL: [Self; 3] = [Self::Dropped, Self::Quiet, Self::Flooded];
}

impl Contest<Contestant> for Metric {
    type Sample = f64;
    type Samples = Samples;

    fn name(self) -> String {
        match self {
            Self::Dropped => "forged VXLAN dropped (kpackets/s)".to_owned(),
            Self::Quiet => "TCP, no flood (Gbit/s)".to_owned(),
            Self::Flooded => format!("TCP under {} kpackets/s of it (Gbit/s)", FLOOD / 1000),
        }
    }

    fn includes(self, _: &Contestant) -> bool {
        true
    }

    fn contestant(of: &Contestant) -> &'static str {
        of.name
    }

    fn measure(self, contestant: &Contestant, seconds: u32) -> Result<f64> {
        contestant.arrange()?;
        match self {
            Self::Dropped => dropped(contestant, seconds),
            Self::Quiet => tcp(contestant, seconds),
            Self::Flooded => under_flood(contestant, seconds),
        }
    }
}

/// All samples of a run.
#[derive(Serialize)]
struct Figures {
    rounds: usize,
    kernel: String,
    load_before: String,
    load_after: String,
    /// Packets a second of the flood in the row that has a flow too.
    flood: u32,
    samples: Measured<Metric, Samples>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Drive)?;
    if std::env::var_os("OVERLAY_BIN").is_none() {
        build::release()?;
    }
    interrupt::take_down_first()?;
    let (rounds, seconds) = if options.quick { (3, 1) } else { (7, 2) };
    let load_before = load()?;
    let mut lab = Lab::new()?;
    let contestants = contestants::build(&mut lab)?;
    let mut samples = Measured::new();
    take_turns(&contestants, &Metric::ALL, (rounds, seconds), &mut samples)?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let (load_after, flood) = (load()?, FLOOD);
    let figures = Figures { rounds, kernel, load_before, load_after, flood, samples };
    figures.print();
    options.report.write(&figures)
}

fn start(contestant: &Contestant, rate: Option<u32>) -> Result<Flood> {
    let (from, to) = (contestant.sender(), contestant.receiver());
    let frames = forged::frames(&to.netns, to.address)?;
    Flood::start(&from.netns, "eth0", frames, FLOODED_CPU.0, rate)
}

/// Thousands of dropped packets a second, when the CPU makes as many as it can and drops them too.
fn dropped(contestant: &Contestant, seconds: u32) -> Result<f64> {
    let before = contestant.dropped()?;
    let flood = start(contestant, None)?;
    // The sleep is the duration of the measurement; it does not wait for an event.
    #[expect(clippy::disallowed_methods, reason = "so long is measured")]
    thread::sleep(Duration::from_secs(u64::from(seconds)));
    let sent = flood.stop()?;
    let dropped = contestant.dropped()? - before;
    ensure!(dropped <= sent.frames, "{dropped} of {} dropped", sent.frames);
    ensure!(dropped > 0, "{}: nothing was dropped", contestant.name);
    Ok(dropped as f64 / sent.time.as_secs_f64() / 1e3)
}

fn tcp(contestant: &Contestant, seconds: u32) -> Result<f64> {
    let mut server = contestant.server().iperf_server(FLOODED_CPU.1)?;
    let to = contestant.server_address();
    let measured = contestant.client().iperf_pinned(to, seconds, &[], CLIENT_CPU)?;
    server.wait(Duration::from_secs(10))?;
    Ok(measured.bits_per_second / 1e9)
}

fn under_flood(contestant: &Contestant, seconds: u32) -> Result<f64> {
    let before = contestant.dropped()?;
    let flood = start(contestant, Some(FLOOD))?;
    let flow = tcp(contestant, seconds).context("under the flood");
    let sent = flood.stop()?;
    let rate = sent.frames as f64 / sent.time.as_secs_f64();
    let dropped = contestant.dropped()? - before;
    ensure!(dropped > sent.frames / 2, "{dropped} of {} dropped", sent.frames);
    // A contestant that leaves the generator no time would get a smaller flood, and so a better figure.
    if rate < 0.9 * f64::from(FLOOD) {
        println!("  {}: only {:.0} kpackets/s of flood", contestant.name, rate / 1e3);
    }
    flow
}

impl Figures {
    fn print(&self) {
        println!(
            "\n{} rounds, contestants in turns; kernel {}; load average {} before, {} after",
            self.rounds, self.kernel, self.load_before, self.load_after
        );
        println!("median [least .. greatest]\n");
        for (metric, contestants) in &self.samples {
            println!("{}", metric.name());
            for name in ALL {
                let Some(samples) = contestants.get(name) else { continue };
                let Summary { median, least, greatest } = Summary::of(samples);
                println!("  {name:24} {median:9.2} [{least:9.2} .. {greatest:9.2}]");
            }
        }
    }
}

struct Summary {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Summary {
    fn of(samples: &Samples) -> Self {
        Self { median: samples.median(), least: samples.min(), greatest: samples.max() }
    }
}
