//! `cargo xtask test`: runs the whole ladder, and prints one summary at its end.

mod kernels;
mod rungs;
mod skips;
mod totals;

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use self::{
    kernels::Selection,
    rungs::{BUILT, Elsewhere, FAST, LAB, Rung, UPGRADE},
    skips::Skip,
    totals::Totals,
};
use crate::{
    build,
    exec::{cargo, command_line, target_dir},
    nics,
    setup::{self, Purpose},
    vm::SERIES,
};

#[derive(clap::Args, Default)]
#[command(group(clap::ArgGroup::new("other_kernels").multiple(true)))]
pub(crate) struct Options {
    /// Only tests whose name contains this text
    pub(crate) filter: Option<String>,
    /// Count a skipped test as a failure, as CI does
    #[arg(long)]
    pub(crate) refuse_skips: bool,
    /// Leave out the lab of namespaces and real nodes
    #[arg(long)]
    pub(crate) fast: bool,
    /// Also test under other kernels, in virtual machines: the programs and some scenarios of the lab (CI:
    /// the programs)
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "some", group = "other_kernels", conflicts_with = "all")]
    pub(crate) kernels: Option<Kernels>,
    /// Run everything: `--kernels=all`
    #[arg(long, group = "other_kernels")]
    pub(crate) all: bool,
    /// Test only under other kernels: all tests that use the kernel, unless --kernels chooses fewer
    #[arg(long, group = "other_kernels")]
    pub(crate) only_kernels: bool,
    /// Test only the overlay between two virtual machines, on emulated network cards; a filter chooses cards
    #[arg(long, conflicts_with = "other_kernels")]
    pub(crate) nics: bool,
    /// Of the other kernels only the one of this series
    #[arg(long, value_parser = SERIES, requires = "other_kernels")]
    pub(crate) series: Option<String>,
}

/// The tests that run under other kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernels {
    /// The programs
    Programs,
    /// The programs, and some scenarios of the lab
    Some,
    /// The programs, and all scenarios that use the kernel
    All,
}

/// The result of a rung.
struct Outcome {
    name: String,
    /// The reasons why the rung has failed; empty if it passed.
    wrong: Vec<String>,
    totals: Totals,
    seconds: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.nics {
        return nics::run(options.filter.as_deref());
    }
    let started = Instant::now();
    let elsewhere = options.elsewhere();
    setup::ensure(if elsewhere.is_some() { Purpose::TestMachines } else { Purpose::Test })?;
    let rungs: Vec<&Rung> = FAST.iter().chain((!options.fast).then_some(&LAB)).collect();
    // Only the lab and the runs under other kernels need the binary.
    let binary = match options.fast && elsewhere.is_none() {
        true => None,
        false => Some(build::binary()?),
    };
    let mut outcomes = Vec::new();
    for rung in rungs.iter().filter(|_| !options.only_kernels) {
        println!("\n=== {}", rung.name);
        let programs: Vec<_> = binary.iter().map(|binary| ("OVERLAY_BIN", &**binary)).collect();
        outcomes.push(climb(rung, &programs, options)?);
    }
    if let (Some(what), Some(binary)) = (elsewhere, &binary) {
        println!("\n=== other kernels, in virtual machines");
        let rungs: Vec<&Elsewhere> = rungs
            .iter()
            .filter(|rung| what != Kernels::Programs || rung.name != LAB.name)
            .filter_map(|rung| rung.elsewhere.as_ref())
            .collect();
        let series: Vec<&str> = SERIES
            .into_iter()
            .filter(|series| options.series.as_ref().is_none_or(|wanted| wanted == series))
            .collect();
        let selection = match (&options.filter, what) {
            (Some(filter), _) => Selection::Filter(filter),
            (None, Kernels::Some) => Selection::Chosen,
            (None, Kernels::Programs | Kernels::All) => Selection::All,
        };
        outcomes.extend(kernels::climb(&series, &rungs, binary, selection)?);
    }
    summarize(&outcomes, started.elapsed().as_secs_f64())
}

/// Runs the scenarios in which nodes are upgraded from `previous` to `binary`, and put back.
pub(crate) fn upgrade(binary: &Path, previous: &Path, filter: Option<&str>) -> Result<()> {
    let started = Instant::now();
    let options = Options { filter: filter.map(str::to_owned), ..Options::default() };
    let programs = [("OVERLAY_BIN", binary), ("OVERLAY_PREVIOUS", previous)];
    let outcome = climb(&UPGRADE, &programs, &options)?;
    summarize(&[outcome], started.elapsed().as_secs_f64())
}

impl Options {
    /// The tests that run under other kernels, or `None`.
    fn elsewhere(&self) -> Option<Kernels> {
        let all = (self.all || self.only_kernels).then_some(Kernels::All);
        self.kernels.or(all)
    }

    fn skips_are_refused(&self) -> bool {
        self.refuse_skips || env::var("CI").is_ok_and(|ci| ci == "true")
    }
}

fn summarize(outcomes: &[Outcome], seconds: f64) -> Result<()> {
    println!("\n=== summary ({seconds:.0} s in all, set-up and builds included)");
    let mut totals = Totals::default();
    for outcome in outcomes {
        println!("{}", outcome.totals.line(&outcome.name, outcome.seconds));
        totals += outcome.totals;
    }
    for outcome in outcomes {
        for wrong in &outcome.wrong {
            println!("not passed: {}: {wrong}", outcome.name);
        }
    }
    let matched = totals.passed + totals.failed + totals.skipped > 0;
    if !matched {
        println!("not passed: no test was run: the filter matches none");
    }
    println!("{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    let failed = totals.failed > 0 || outcomes.iter().any(|outcome| !outcome.wrong.is_empty());
    if failed || !matched {
        bail!("the tests did not pass");
    }
    Ok(())
}

/// Runs one rung under this kernel, with the programs that these variables name, and shows its output as it comes.
fn climb(rung: &Rung, programs: &[(&str, &Path)], options: &Options) -> Result<Outcome> {
    let begun = Instant::now();
    // A test that lacks a requirement writes a line into this file, because nextest counts the test as
    // passed.
    let file = target_dir().join("skipped-tests");
    remove(&file)?;
    let mut command = cargo(["nextest", "run", "--no-tests=pass"]);
    command.args(BUILT).args(["--filterset", rung.filterset]).args(&options.filter);
    command.envs(programs.iter().copied()).env("OVERLAY_SKIPS", &file);
    let mut totals = Totals::default();
    let ok = stream(&mut command, |line| totals.count_nextest(line))?;
    let said = fs::read_to_string(&file).unwrap_or_default();
    remove(&file)?;
    let skips: Vec<Skip> = said.lines().map(Skip::from_file).collect();
    totals.skip(skips.len() as u64);
    for skip in &skips {
        println!("skipped: {skip}");
    }
    let mut wrong = Vec::new();
    if !ok {
        wrong.push("see above".to_owned());
    }
    if options.skips_are_refused() {
        let refuse = |skip| format!("CI skips none under this kernel: {skip}");
        wrong.extend(skips.iter().map(refuse));
    }
    if options.filter.is_none() {
        // Outside CI a machine may lack a requirement of some tests.
        let skipped = if options.skips_are_refused() { 0 } else { totals.skipped };
        wrong.extend(totals.below(rung.floor.saturating_sub(skipped)));
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Outcome { name: rung.name.to_owned(), wrong, totals, seconds })
}

fn remove(path: &PathBuf) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Runs a command, and shows its stderr line by line, which is where nextest and cargo write.
fn stream(command: &mut Command, mut each: impl FnMut(&str)) -> Result<bool> {
    let line = command_line(command);
    let mut child =
        command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            each(&line);
        }
    }
    Ok(child.wait()?.success())
}
