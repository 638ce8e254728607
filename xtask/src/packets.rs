//! `cargo xtask packets`: compares the programs with the reference model, for any number of packets. `cargo
//! xtask test` does the same with 200,000.

use anyhow::Result;

use crate::{
    exec::{cargo, exec},
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of packets for all programs together
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// The first seed instead of a random one: with the seed that a run prints, the same packets are used
    /// again
    #[arg(long)]
    seed: Option<u64>,
    /// Only this program, for example `from_underlay`
    program: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    compare(options.count, options.seed, options.program.as_deref())
}

/// Runs `count` packets through programs and model. If they differ about one, the packet and its seed are
/// printed.
pub(crate) fn compare(count: u64, seed: Option<u64>, program: Option<&str>) -> Result<()> {
    // The run is limited by its packets and not by time, so it must not have a usual test's time limit.
    let test = ["nextest", "run", "--profile", "soak", "--package", "overlay-tests"];
    let mut command = cargo(test);
    let filter = format!("against_model::{}", program.unwrap_or_default());
    // nextest fails if a filter matches no test.
    command.args(["--test", "prog_run", "--no-capture", &filter]);
    command.env("OVERLAY_PACKETS", count.to_string());
    if let Some(seed) = seed {
        command.env("OVERLAY_SEED", seed.to_string());
    }
    exec(&mut command)
}
