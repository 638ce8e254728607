//! `cargo xtask bench icount`: instructions for one message, from one container to another.
//!
//! In the virtual machine an instruction takes a nanosecond, so that a latency measured inside is a number
//! of instructions, including the user space of both ends. The machine has no cache misses, no contention of
//! locks and only one CPU, and the result is the same within a thousandth even on a busy host. It is a gate
//! that a change of the hot path must pass, not a measure of speed.

mod figures;
mod host;
mod inside;

use std::{env, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::{Serialize, de::DeserializeOwned};

use self::{figures::Figures, host::HostFigures};
use super::Report;
use crate::{
    build,
    exec::{root, target_dir},
    setup::{self, Purpose},
    vm::{self, Clock, Flavour, Machine},
};

/// The series whose figures are kept.
const SERIES: &str = "6.12";
/// Longest time for the guest. It takes two or three minutes on an idle machine.
const LIMIT: Duration = Duration::from_secs(1800);
/// Beginning of the line in which the guest prints its figures.
const FIGURES: &str = "figures: ";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Accept the figures: write them to the repository
    #[arg(long)]
    accept: bool,
    /// Count, instead, what rules of several kinds cost the hosts' own messages; compared with nothing
    #[arg(long, conflicts_with = "accept")]
    host: bool,
    /// Measure in the guest
    #[arg(long, hide = true)]
    inside: bool,
    #[command(flatten)]
    report: Report,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match (options.inside, options.host) {
        (true, true) => return hand_over(&HostFigures::measure()?),
        (true, false) => return hand_over(&inside::measure()?),
        (false, _) => setup::ensure(Purpose::Boot)?,
    }
    let mut command = Command::new(env::current_exe()?);
    command.args(["bench", "icount", "--inside"]);
    if options.host {
        let figures: HostFigures = measure(command.arg("--host"))?;
        figures.print();
        return options.report.write(&figures);
    }
    let figures: Figures = measure(command.env("OVERLAY_BIN", build::binary()?))?;
    figures.print();
    options.report.write(&figures)?;
    if options.accept {
        return figures.accept();
    }
    figures.gate()
}

/// Prints the figures for the host to read.
fn hand_over(figures: &impl Serialize) -> Result<()> {
    println!("{FIGURES}{}", serde_json::to_string(figures)?);
    Ok(())
}

/// Boots a guest and runs the command in it, which hands over its figures.
fn measure<F: DeserializeOwned>(command: &mut Command) -> Result<F> {
    let kernel = vm::newest(SERIES, Flavour::Cloud)?;
    println!("icount: under {}, one instruction a nanosecond", kernel.release);
    let machine = Machine {
        kernel: &kernel,
        cpus: 1,
        memory_mib: 2048,
        clock: Clock::Instructions,
        link: None,
    };
    command
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target_dir())
        // The clock of an idle guest runs ahead while the host reads a file for it, so that waits need more time.
        .env("OVERLAY_PATIENCE", "10");
    let mut figures = None;
    let code = machine.run(command, LIMIT, |line| match line.strip_prefix(FIGURES) {
        Some(json) => figures = Some(serde_json::from_str(json)),
        None => println!("  {line}"),
    })?;
    if code != 0 {
        bail!("measuring in the guest failed (exit code {code})");
    }
    figures.context("the guest handed over no figures")?.context("the guest's figures")
}
