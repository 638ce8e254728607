//! `cargo xtask soak`: what is too long for `cargo xtask test`. The same tests with many more cases, and
//! the lab again and again, until the time is over or something fails.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{
    build,
    exec::{cargo, exec, overlay_binary},
    packets,
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// A round that has begun is finished
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Seeds of the consensus simulation, a round, of each kind (with and without members that come
    /// and go)
    #[arg(long, default_value_t = 25)]
    seeds: u32,
    /// Cases of each property test, a round
    #[arg(long, default_value_t = 20_000)]
    cases: u32,
    /// Packets through the programs and their model, a round
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    build::release()?;
    let end = Instant::now() + Duration::from_secs(options.minutes * 60);
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        println!("\n=== round {round}");
        run_round(options).with_context(|| {
            format!("round {round}: the seed or the case to replay is printed above")
        })?;
    }
    println!("\n{round} rounds, nothing failed");
    Ok(())
}

fn run_round(options: &Options) -> Result<()> {
    let (seeds, cases) = (options.seeds.to_string(), options.cases.to_string());
    let simulation = ["test", "--package", "overlay-ctl", "--lib", "random", "--", "--nocapture"];
    exec(cargo(simulation).env("SEEDS", &seeds))?;
    let properties = ["test", "--package", "overlay-ctl", "--lib", "--"];
    let which = ["whatever_the_commands", "what_is_given_is_free"];
    exec(cargo(properties).args(which).env("PROPTEST_CASES", &cases))?;
    let programs = ["test", "--package", "overlay-tests", "--test", "prog_run", "--"];
    let gateway = "whatever_an_endpoint_sends";
    exec(cargo(programs).args(["--test-threads=1", gateway]).env("PROPTEST_CASES", &cases))?;
    packets::compare(options.packets, None, None)?;
    let lab = ["test", "--package", "overlay-tests", "--test", "lab", "--", "--test-threads=1"];
    exec(cargo(lab).env("OVERLAY_BIN", overlay_binary()))
}
