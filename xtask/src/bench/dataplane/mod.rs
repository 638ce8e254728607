//! `cargo xtask bench dataplane`: container to container, over two hosts and on one.
//!
//! All contestants exist at the same time and take turns within each round, so that other load of the machine
//! hits them equally. Each of the two ends is pinned to a CPU; the hosts use no other CPUs, and both are kept
//! awake. A ratio is the median of the rounds' own ratios.

mod connections;
pub(super) mod contestants;
mod cpu;
mod plot;
mod report;
mod rows;
pub(super) mod scene;
mod traffic;

use std::path::PathBuf;

use anyhow::{Result, bail};
use overlay_lab::Lab;
use serde::Serialize;

use self::{
    contestants::{Contestant, Entrants, Sizes},
    cpu::Awake,
    rows::Row,
    scene::Place,
    traffic::{Sample, Series},
};
use super::{
    Report, load,
    turns::{Contest, Measured, take_turns},
};
use crate::{
    build, interrupt,
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Take three rounds with one second for each measurement, instead of seven with two
    #[arg(long)]
    quick: bool,
    /// Number of rounds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only rows whose name contains one of these words: `--rows tcp-1,udp`; --list prints all names
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    rows: Vec<String>,
    /// Print the names of the rows, and the goals of each
    #[arg(long)]
    list: bool,
    /// Leave this project out, to measure the machine alone
    #[arg(long)]
    without_ours: bool,
    /// Let all contestants have super-packets of 256 KiB (BIG TCP), instead of what each chooses by default
    #[arg(long)]
    big_tcp: bool,
    /// Leave Docker's overlay out, even if a Docker engine is installed
    #[arg(long)]
    without_docker: bool,
    /// Also draw dataplane.svg and dataplane.png in this folder
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    report: Report,
}

/// All samples of a run.
#[derive(Serialize)]
struct Figures {
    rounds: usize,
    seconds: u32,
    load_before: String,
    load_after: String,
    kernel: String,
    docker: bool,
    big_tcp: bool,
    samples: Measured<Row, Series>,
}

impl Contest<Contestant> for Row {
    type Sample = Sample;
    type Samples = Series;

    fn name(self) -> String {
        self.title()
    }

    fn contestant(of: &Contestant) -> &'static str {
        of.name
    }

    fn includes(self, contestant: &Contestant) -> bool {
        contestant.place == self.place
    }

    fn measure(self, contestant: &Contestant, seconds: u32) -> Result<Sample> {
        contestant.set_wire(self.wire)?;
        self.traffic.measure(contestant, seconds)
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let rows = Row::matching(&options.rows);
    if rows.is_empty() {
        bail!("no row has any of {:?} in its name; --list names them all", options.rows);
    }
    if options.list {
        report::list(&rows);
        return Ok(());
    }
    if let Some(folder) = &options.plot {
        plot::prepare(folder)?;
    }
    setup::ensure(Purpose::Drive)?;
    if !options.without_ours && std::env::var_os("OVERLAY_BIN").is_none() {
        build::release()?;
    }
    interrupt::take_down_first()?;
    let (default_rounds, seconds) = if options.quick { (3, 1) } else { (7, 2) };
    let rounds = options.rounds.map_or(default_rounds, usize::from);
    let installed = contestants::docker_is_installed();
    if !installed {
        println!("no Docker engine is installed here: its overlay is left out");
    }
    let docker = installed && !options.without_docker;
    let load_before = load()?;
    let mut lab = Lab::new()?;
    let mut places: Vec<Place> = rows.iter().map(|row| row.place).collect();
    places.dedup();
    let sizes = if options.big_tcp { Sizes::Large } else { Sizes::Default };
    let entrants = Entrants { ours: !options.without_ours, docker, sizes };
    let contestants = contestants::build(&mut lab, &places, entrants)?;
    let count =
        rows.iter().flat_map(|row| contestants.iter().filter(|one| row.includes(one))).count();
    println!("{count} measurements a round, {rounds} rounds of {seconds} s each");
    let mut samples = Measured::new();
    let awake = Awake::keep()?;
    take_turns(&contestants, &rows, (rounds, seconds), &mut samples)?;
    drop(awake);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let load_after = load()?;
    let big_tcp = options.big_tcp;
    let figures =
        Figures { rounds, seconds, load_before, load_after, kernel, docker, big_tcp, samples };
    figures.print();
    options.report.write(&figures)?;
    if let Some(folder) = &options.plot {
        plot::draw(&figures.samples, &figures.caption(), folder)?;
    }
    Ok(())
}
