//! `cargo xtask bench create`: the time until a new endpoint is reached from another host.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use overlay_lab::{Lab, probe::Prober};
use serde::Serialize;

use super::{
    Report,
    endpoint::{attach, create_endpoint},
    load,
    stats::Samples,
};
use crate::{
    build, interrupt,
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of endpoints to create
    #[arg(long, default_value_t = 100)]
    count: usize,
    #[command(flatten)]
    report: Report,
}

#[derive(Serialize)]
struct Figures {
    load_before: String,
    /// Milliseconds of the whole command.
    create_ms: Samples,
    /// Milliseconds from the command's return to the first reply.
    first_reply_ms: Samples,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Drive)?;
    build::release()?;
    interrupt::take_down_first()?;
    let load_before = load()?;
    let mut lab = Lab::new()?;
    let hosts = lab.four_hosts()?;
    lab.start_cluster(&hosts)?;
    hosts[0].overlay(&["network", "create", "bench", "--subnet", "10.0.0.0/20"])?;
    let (asking, _) = attach(&lab, &hosts[0], "asking")?;
    let mut figures =
        Figures { load_before, create_ms: Samples::default(), first_reply_ms: Samples::default() };
    // This host is in the other subnet, so that the packets cross the router.
    let host = &hosts[2];
    for number in 0..options.count {
        let name = format!("new{number}");
        let container = lab.container(&name)?;
        let begun = Instant::now();
        let address = create_endpoint(host, &name, &container, &[])?;
        figures.create_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        let reply = Prober::new(&asking, address)?
            .first_reply(Duration::from_secs(10))
            .with_context(|| format!("{name} at {address}"))?;
        figures.first_reply_ms.push(reply.as_secs_f64() * 1e3);
    }
    println!(
        "{} endpoints in a cluster of {} nodes; load average {} before, {} after",
        options.count,
        hosts.len(),
        figures.load_before,
        load()?
    );
    for (what, samples) in [
        ("endpoint create, the whole command", &figures.create_ms),
        ("from its return to the first reply", &figures.first_reply_ms),
    ] {
        println!(
            "  {what:38} p50 {:8.2} ms   p99 {:8.2} ms   greatest {:8.2} ms",
            samples.median(),
            samples.percentile(99),
            samples.max()
        );
    }
    options.report.write(&figures)
}
