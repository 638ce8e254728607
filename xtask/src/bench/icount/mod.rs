//! `cargo xtask bench icount`: instructions for one message, from one container to another.
//!
//! In the virtual machine an instruction takes a nanosecond, so that a latency measured inside is a number
//! of instructions, including the user space of both ends. The machine has no cache misses, no contention of
//! locks and only one CPU, and the result is the same within a thousandth even on a busy host. It is a gate
//! that a change of the hot path must pass, not a measure of speed.

mod figures;
mod inside;

use std::{env, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

use self::figures::Figures;
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
    /// Measure in the guest
    #[arg(long, hide = true)]
    inside: bool,
    #[command(flatten)]
    report: Report,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.inside {
        let line = serde_json::to_string(&inside::measure()?)?;
        println!("{FIGURES}{line}");
        return Ok(());
    }
    setup::ensure(Purpose::Boot)?;
    let binary = build::binary()?;
    let figures = measure(binary)?;
    figures.print();
    options.report.write(&figures)?;
    if options.accept {
        return figures.accept();
    }
    figures.gate()
}

/// Boots a guest and measures in it.
fn measure(binary: PathBuf) -> Result<Figures> {
    let kernel = vm::newest(SERIES, Flavour::Cloud)?;
    println!("icount: under {}, one instruction a nanosecond", kernel.release);
    let machine = Machine {
        kernel: &kernel,
        cpus: 1,
        memory_mib: 2048,
        clock: Clock::Instructions,
        link: None,
    };
    let mut command = Command::new(env::current_exe()?);
    command
        .args(["bench", "icount", "--inside"])
        .current_dir(root())
        .env("OVERLAY_BIN", binary)
        .env("CARGO_TARGET_DIR", target_dir())
        // The clock of an idle guest runs ahead while the host reads a file for it, so that waits need more time.
        .env("OVERLAY_PATIENCE", "10");
    let mut figures = None;
    let code = machine.run(&command, LIMIT, |line| match line.strip_prefix(FIGURES) {
        Some(json) => figures = Some(serde_json::from_str(json)),
        None => println!("  {line}"),
    })?;
    if code != 0 {
        bail!("measuring in the guest failed (exit code {code})");
    }
    figures.context("the guest handed over no figures")?.context("the guest's figures")
}
