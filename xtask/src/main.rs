//! The commands for everything that a person or CI runs, with one file for each.
//!
//! xtask itself builds with a plain Rust toolchain. It depends on nothing that needs protoc or the eBPF
//! compiler, because it installs these.

mod bench;
#[allow(dead_code, unreachable_pub, reason = "shared with build scripts, which use more of it")]
mod bpf_toolchain;
mod build;
mod ci;
mod coverage;
mod demo;
mod exec;
mod guest;
mod histories;
mod interrupt;
mod lint;
mod mutants;
mod nics;
mod outside;
mod packets;
mod ping_pong;
mod run;
mod serve_page;
mod setup;
mod sim;
mod soak;
mod test;
mod upgrade;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install everything that building and running need (Debian, as root), or print what is missing
    Setup(setup::Options),
    /// Build the release binary, target/release/overlay
    Build,
    /// Build and start a node in this terminal: `cargo xtask run -- --join 10.10.10.101:7400`
    Run(run::Options),
    /// Build four hosts in two subnets on this machine, and show them command by command
    Demo(demo::Options),
    /// Run the unit and property tests, the tests of the eBPF programs, and the lab of namespaces
    Test(test::Options),
    /// Measure the data path, published ports, names and the creation of endpoints
    Bench(bench::Options),
    /// Compare the eBPF programs with their model in plain Rust, packet by packet
    Packets(packets::Options),
    /// Run a command in a virtual machine, under another kernel and with this machine's files
    Guest(guest::Options),
    /// Simulate clusters of voters, with every fault: a run is its seed
    Sim(sim::Options),
    /// Run clients and faults against real nodes, and check what each client was answered
    Histories(histories::Options),
    /// Run many more cases of the tests, and the lab again and again
    Soak(soak::Options),
    /// Upgrade nodes from earlier programs, and put them back, while packets flow and the cluster is written to
    Upgrade(upgrade::Options),
    /// Check the format, the arrows between rooms, the dependencies, clippy and rustdoc; warnings are errors
    Lint(lint::Options),
    /// Show which lines of overlay-ctl's library its own tests execute, room by room
    Coverage(coverage::Options),
    /// Change the code in many places, one at a time, and show which changes no test notices
    Mutants(mutants::Options),
    /// Run what CI runs: lint, all tests with none skipped, and some of them under other kernels
    Ci,
    #[command(hide = true)]
    NicsInside(nics::Inside),
    #[command(hide = true)]
    PingPong(ping_pong::Options),
    #[command(hide = true)]
    ServePage(serve_page::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        // The error is printed without a backtrace, which is useless to a person who lacks a package.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Setup(options) => setup::run(&options),
        Verb::Build => build::run(),
        Verb::Run(options) => run::run(&options),
        Verb::Demo(options) => demo::run(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Packets(options) => packets::run(&options),
        Verb::Guest(options) => guest::run(&options),
        Verb::Sim(options) => sim::run(&options),
        Verb::Histories(options) => histories::run(&options),
        Verb::Soak(options) => soak::run(&options),
        Verb::Upgrade(options) => upgrade::run(&options),
        Verb::Lint(options) => lint::run(&options),
        Verb::Coverage(options) => coverage::run(&options),
        Verb::Mutants(options) => mutants::run(&options),
        Verb::Ci => ci::run(),
        Verb::NicsInside(inside) => inside.run(),
        Verb::PingPong(options) => ping_pong::run(&options),
        Verb::ServePage(options) => serve_page::run(&options),
    }
}
