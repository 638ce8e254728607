//! `cargo xtask bench`: measures the data path and the controller, in comparison with other solutions.

mod create;
mod dataplane;
mod dns;
mod endpoint;
mod flood;
mod icount;
mod idle;
mod publish;
mod scale;
mod stats;
mod turns;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Compare traffic between containers: the underlay, kernel VXLAN + bridge, Docker's overlay, and ours
    Dataplane(dataplane::Options),
    /// Measure the time from the return of `endpoint create` to the first reply from another host
    Create(create::Options),
    /// Compare published ports from an outside host: ours, and Docker's rules
    Publish(publish::Options),
    /// Count the instructions of a message in a virtual machine; fails if ours needs more than before
    Icount(icount::Options),
    /// Measure the CPU time of a node while nothing happens, and while others are busy
    Idle(idle::Options),
    /// Measure a million endpoints: loading them, changing one, memory of the kernel
    Scale(scale::Options),
    /// Measure the resolver of an endpoint's namespace, by kinds of questions
    Dns(dns::Options),
    /// Measure a flood of forged VXLAN: how fast it is dropped, and how much throughput a flow keeps
    Flood(flood::Options),
}

/// The option for a file that also gets the figures.
#[derive(clap::Args)]
struct Report {
    /// Also write every sample into this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Dataplane(options) => dataplane::run(options),
        What::Create(options) => create::run(options),
        What::Publish(options) => publish::run(options),
        What::Icount(options) => icount::run(options),
        What::Idle(options) => idle::run(options),
        What::Scale(options) => scale::run(options),
        What::Dns(options) => dns::run(options),
        What::Flood(options) => flood::run(options),
    }
}

impl Report {
    fn write(&self, figures: &impl Serialize) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(figures)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("samples: {}", path.display());
        Ok(())
    }
}

/// The machine's load average over a minute, which shows if other programs ran.
fn load() -> Result<String> {
    let text = std::fs::read_to_string(Path::new("/proc/loadavg"))?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}
