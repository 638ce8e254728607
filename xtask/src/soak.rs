//! `cargo xtask soak`: tests that take too long for `cargo xtask test`. It runs the same tests with many more
//! cases, and the lab again and again, until the time is over or a test fails.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    build,
    exec::{cargo, exec, overlay_binary},
    packets,
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Minutes after which no further round is started
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Seeds of the consensus simulation in each round, for each kind (with and without members that come and
    /// go); they differ between rounds
    #[arg(long, default_value_t = 25)]
    seeds: u32,
    /// Cases of each property test in each round
    #[arg(long, default_value_t = 20_000)]
    cases: u32,
    /// Packets for the programs and their model in each round
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

/// Runs one round. Each round uses new random seeds and prints them, so that a failure can be repeated.
fn run_round(options: &Options) -> Result<()> {
    let base = RandomState::new().build_hasher().finish();
    println!("SEED_BASE={base}");
    let simulation =
        ["--package", "overlay-ctl", "--lib", "--no-capture", "consensus::tests::random"];
    exec(
        nextest(&simulation)
            .env("SEEDS", options.seeds.to_string())
            .env("SEED_BASE", base.to_string()),
    )?;
    let cases = options.cases.to_string();
    // All tests of the library run, because those that are no properties take little time.
    let properties =
        ["--package", "overlay-ctl", "--lib", "-E", "not test(/consensus::tests::random/)"];
    exec(nextest(&properties).env("PROPTEST_CASES", &cases))?;
    let gateway =
        ["--package", "overlay-tests", "--test", "prog_run", "whatever_an_endpoint_sends"];
    exec(nextest(&gateway).env("PROPTEST_CASES", &cases))?;
    packets::compare(options.packets, None, None)?;
    let lab = ["--package", "overlay-tests", "--test", "lab"];
    exec(nextest(&lab).env("OVERLAY_BIN", overlay_binary()))
}

/// A command for tests that may take long. It fails if a filter matches no test.
fn nextest(args: &[&str]) -> Command {
    let mut command = cargo(["nextest", "run", "--profile", "soak", "--fail-fast"]);
    command.args(args);
    command
}
