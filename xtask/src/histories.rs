//! `cargo xtask histories`: clients and faults against real nodes, with each name's history checked. `cargo xtask test`
//! makes a short run of two faults.

use crate::{
    build,
    exec::{cargo, exec, overlay_binary},
    setup::{self, Purpose},
};
use anyhow::Result;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Runs of each fault, of about 40 seconds
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Only this fault: leader-killed, stopped, cut, cut-one-way, cut-pair, restarted, majority-lost, disk-full,
    /// voter-wiped, node-removed, seats-moved
    #[arg(long)]
    fault: Option<String>,
    /// The seed of the first run; those after it follow. [default: any]
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { runs, fault, seed } = options;
    setup::ensure(Purpose::Test)?;
    build::release()?;
    let mut command = cargo(["nextest", "run", "--profile", "soak", "--package", "overlay-tests"]);
    // nextest fails if a filter matches no test.
    command.args(["--test", "lab", "--no-capture", "histories::every_name"]);
    // Short enough to be typed.
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 40);
    println!("seeds {seed} to {}", seed.saturating_add(runs.saturating_sub(1)));
    command.env("HISTORIES_RUNS", runs.to_string()).env("HISTORIES_SEED", seed.to_string());
    if let Some(fault) = fault {
        command.env("HISTORIES_FAULT", fault);
    }
    exec(command.env("OVERLAY_BIN", overlay_binary()))
}
