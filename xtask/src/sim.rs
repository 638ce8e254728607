//! `cargo xtask sim`: the simulator of the cluster, for any number of seeds. `cargo xtask test` runs 500.

use crate::{
    exec::{cargo, exec},
    setup::{self, Purpose},
};
use anyhow::{Result, bail};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of seeds; from 500 on, each fault, refusal and transition must be reached, but for rare ones, and from 20000 on those, too
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed; those after it follow. [default: any]
    #[arg(long)]
    from: Option<u64>,
    /// Print each event
    #[arg(long)]
    trace: bool,
    /// Number of voters: 3 or 5 [default: each seed has its own]
    #[arg(long)]
    voters: Option<u64>,
    /// Number of seeds at a time [default: one for each CPU]
    #[arg(long)]
    jobs: Option<u64>,
    /// Plant a bug, which must be found: hard-state-apart, suffix-kept, conf-without-snapshot, vote-after-amnesia,
    /// waiter-kept, sent-before-written, read-unconfirmed, deltas-across-compaction, swept-early, reused-early
    #[arg(long)]
    plant: Option<String>,
    /// Run one of so many seeds twice, and compare the two; 0 = none
    #[arg(long, default_value_t = 1)]
    twice: u64,
    /// Run the build of the tests, which has no optimisations: for one seed it is ready sooner
    #[arg(long)]
    dev: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { seeds, from, trace, voters, jobs, plant, twice, dev } = options;
    if voters.is_some_and(|voters| ![3, 5].contains(&voters)) {
        bail!("a cluster of the simulator has 3 or 5 voters");
    }
    setup::ensure(Purpose::Test)?;
    let mut command = cargo(["nextest", "run", "--profile", "soak", "--package", "overlay-ctl"]);
    // nextest fails if a filter matches no test.
    command.args(["--lib", "--no-capture", "sim::tests::every_seed_holds"]);
    if !dev {
        // Of the tests' build all but this crate is used as it is.
        command.args(["--config", "profile.dev.package.overlay-ctl.opt-level=2"]);
    }
    // Short enough to be typed.
    let from = from.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
    println!("seeds {from} to {}", from.saturating_add(seeds.saturating_sub(1)));
    command.env("SIM_FROM", from.to_string()).env("SIM_SEEDS", seeds.to_string());
    for (name, value) in [("SIM_VOTERS", voters), ("SIM_JOBS", jobs)] {
        if let Some(value) = value {
            command.env(name, value.to_string());
        }
    }
    command.env("SIM_TWICE", twice.to_string());
    if *trace {
        command.env("SIM_TRACE", "1");
    }
    if let Some(plant) = plant {
        command.env("SIM_PLANT", plant);
    }
    exec(&mut command)
}
