//! `cargo xtask test`: the whole ladder, and one summary at its end.

mod kernels;
mod totals;

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use self::totals::Totals;
use crate::{
    build,
    exec::{cargo, command_line, target_dir},
    setup::{self, Purpose},
    vm::SERIES,
};

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only tests whose name contains this
    pub(crate) filter: Option<String>,
    /// A skipped test is a failure, as in CI
    #[arg(long)]
    pub(crate) refuse_skips: bool,
    /// Leave out the lab of namespaces and real nodes
    #[arg(long)]
    pub(crate) fast: bool,
    /// Also under other kernels, in virtual machines: the programs, some minutes more, or with them what of the
    /// lab meets the kernel
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "all",
          group = "other_kernels")]
    pub(crate) kernels: Option<Kernels>,
    /// Nothing but these
    #[arg(long, group = "other_kernels")]
    pub(crate) only_kernels: bool,
    /// Of other kernels only the one of this series
    #[arg(long, value_parser = SERIES, requires = "other_kernels")]
    pub(crate) series: Option<String>,
}

/// What runs under other kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernels {
    Programs,
    All,
}

/// One rung of the ladder.
struct Rung {
    name: &'static str,
    cargo_args: &'static [&'static str],
    /// They share the kernel's namespaces, pins and the machine's two ends of a measurement.
    one_by_one: bool,
    /// Its test target in overlay-tests, where other kernels meet it too.
    target: Option<&'static str>,
}

const FAST: &[Rung] = &[
    Rung {
        name: "unit and property tests",
        cargo_args: &["--workspace", "--exclude", "overlay-ebpf", "--exclude", "overlay-tests"],
        one_by_one: false,
        target: None,
    },
    Rung {
        name: "the programs: bytes in, bytes and maps out",
        cargo_args: &["--package", "overlay-tests", "--test", "prog_run"],
        one_by_one: true,
        target: Some("prog_run"),
    },
];

const LAB: Rung = Rung {
    name: "the lab: hosts, routers, containers, real nodes",
    cargo_args: &["--package", "overlay-tests", "--test", "lab"],
    one_by_one: true,
    target: Some("lab"),
};

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let other_kernels = options.kernels.is_some() || options.only_kernels;
    setup::ensure(if other_kernels { Purpose::TestMachines } else { Purpose::Test })?;
    let binary = build::binary()?;
    let filter = options.filter.as_deref();
    let mut totals = Totals::default();
    let mut broken = Vec::new();
    let mut lines = Vec::new();
    let rungs: Vec<&Rung> = FAST.iter().chain((!options.fast).then_some(&LAB)).collect();
    for rung in rungs.iter().filter(|_| !options.only_kernels) {
        println!("\n=== {}", rung.name);
        let begun = Instant::now();
        let (ok, counted) = climb(rung, &binary, filter)?;
        if !ok {
            broken.push(rung.name.to_owned());
        }
        lines.push(counted.line(rung.name, begun.elapsed().as_secs_f64()));
        totals += counted;
    }
    let refuse = options.refuse_skips || env::var("CI").is_ok_and(|ci| ci == "true");
    let skips_refused = totals.skipped > 0 && refuse;
    if other_kernels {
        println!("\n=== other kernels, in virtual machines");
        let mut targets: Vec<&str> = rungs.iter().filter_map(|rung| rung.target).collect();
        if options.kernels == Some(Kernels::Programs) {
            targets.retain(|&target| Some(target) != LAB.target);
        }
        let series: Vec<&str> = SERIES
            .into_iter()
            .filter(|series| options.series.as_ref().is_none_or(|wanted| wanted == series))
            .collect();
        for outcome in kernels::climb(&series, &targets, &binary, filter)? {
            lines.push(outcome.totals.line(&outcome.name, outcome.seconds));
            totals += outcome.totals;
            if !outcome.ok {
                broken.push(outcome.name);
            }
        }
    }
    println!(
        "\n=== summary ({:.0} s in all, set-up and builds included)",
        started.elapsed().as_secs_f64()
    );
    for line in lines {
        println!("{line}");
    }
    if !broken.is_empty() {
        println!("not passed: {}", broken.join("; "));
    }
    if skips_refused {
        println!("CI skips none under this kernel: what a skipped test lacks is printed above");
    }
    println!("{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    if !broken.is_empty() || totals.failed > 0 || skips_refused {
        bail!("the tests did not pass");
    }
    Ok(())
}

/// Runs one rung, its output shown as it comes, and counts.
fn climb(rung: &Rung, binary: &Path, filter: Option<&str>) -> Result<(bool, Totals)> {
    // A test that finds something missing writes a line there; libtest itself counts it as passed.
    let skips = target_dir().join("skipped-tests");
    remove(&skips)?;
    let mut command = cargo(["test", "--no-fail-fast"]);
    command.args(rung.cargo_args).arg("--").args(filter);
    if rung.one_by_one {
        command.arg("--test-threads=1");
    }
    command.env("OVERLAY_BIN", binary).env("OVERLAY_SKIPS", &skips);
    let mut totals = Totals::default();
    let ok = stream(&mut command, |line| totals.count(line))?;
    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    for line in skipped.lines() {
        println!("skipped: {line}");
    }
    remove(&skips)?;
    totals.skip(u64::try_from(skipped.lines().count())?);
    Ok((ok, totals))
}

fn remove(path: &PathBuf) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn stream(command: &mut Command, mut each: impl FnMut(&str)) -> Result<bool> {
    let line = command_line(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            each(&line);
        }
    }
    Ok(child.wait()?.success())
}
