//! `cargo xtask sim`: the simulator of the cluster, for any number of seeds. `cargo xtask test` runs 500.

use crate::{
    exec::{cargo, exec},
    setup::{self, Purpose},
};
use anyhow::{Result, bail};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of seeds; from 500 on, each fault, refusal and transition must be reached
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// What the seeds are derived from, instead of a random number: with the one that a run prints, they are the same again
    #[arg(long)]
    base: Option<u64>,
    /// Replay this seed alone
    #[arg(long, conflicts_with_all = ["seeds", "base"])]
    seed: Option<u64>,
    /// Print each event of the seed
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Number of voters: 3 or 5 [default: each seed has its own]
    #[arg(long)]
    voters: Option<u64>,
    /// Number of seeds at a time [default: one for each CPU]
    #[arg(long)]
    jobs: Option<u64>,
    /// Plant a bug, which must be found: hard-state-apart, suffix-kept, conf-without-snapshot, vote-after-amnesia,
    /// waiter-kept, sent-before-written, read-unconfirmed
    #[arg(long)]
    plant: Option<String>,
    /// Run each seed once: two runs of a seed are not compared
    #[arg(long)]
    once: bool,
    /// Build with optimisations, for many seeds
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { seeds, base, seed, trace, voters, jobs, plant, once, release } = options;
    if voters.is_some_and(|voters| ![3, 5].contains(&voters)) {
        bail!("a cluster of the simulator has 3 or 5 voters");
    }
    setup::ensure(Purpose::Test)?;
    let mut command = cargo(["nextest", "run", "--profile", "soak", "--package", "overlay-ctl"]);
    // nextest fails if a filter matches no test.
    command.args(["--lib", "--no-capture", "sim::tests::every_seed_holds"]);
    if *release {
        command.arg("--release");
    }
    match seed {
        Some(seed) => command.env("SIM_SEED", seed.to_string()),
        None => {
            let base = base.unwrap_or_else(|| RandomState::new().build_hasher().finish());
            println!("--base {base}");
            command.env("SIM_BASE", base.to_string()).env("SIM_SEEDS", seeds.to_string())
        }
    };
    for (name, value) in [("SIM_VOTERS", voters), ("SIM_JOBS", jobs)] {
        if let Some(value) = value {
            command.env(name, value.to_string());
        }
    }
    for (name, is_set) in [("SIM_TRACE", trace), ("SIM_ONCE", once)] {
        if *is_set {
            command.env(name, "1");
        }
    }
    if let Some(plant) = plant {
        command.env("SIM_PLANT", plant);
    }
    exec(&mut command)
}
