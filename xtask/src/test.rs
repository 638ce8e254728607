//! `cargo xtask test`: the whole ladder, and one summary at its end.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    exec::{cargo, command_line, overlay_binary, target_dir},
    setup::{self, Purpose},
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
}

/// One rung of the ladder.
struct Rung {
    name: &'static str,
    cargo_args: &'static [&'static str],
    /// They share the kernel's namespaces, pins and the machine's two ends of a measurement.
    one_by_one: bool,
}

const FAST: &[Rung] = &[
    Rung {
        name: "unit and property tests",
        cargo_args: &["--workspace", "--exclude", "overlay-ebpf", "--exclude", "overlay-tests"],
        one_by_one: false,
    },
    Rung {
        name: "the programs: bytes in, bytes and maps out",
        cargo_args: &["--package", "overlay-tests", "--test", "prog_run"],
        one_by_one: true,
    },
];

const LAB: Rung = Rung {
    name: "the lab: hosts, routers, containers, real nodes",
    cargo_args: &["--package", "overlay-tests", "--test", "lab"],
    one_by_one: true,
};

#[derive(Default, Clone, Copy)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    setup::ensure(Purpose::Everything)?;
    build::release()?;
    let mut totals = Totals::default();
    let mut broken = Vec::new();
    let mut lines = Vec::new();
    let rungs = FAST.iter().chain((!options.fast).then_some(&LAB));
    for rung in rungs {
        println!("\n=== {}", rung.name);
        let begun = Instant::now();
        let (ok, counted) = climb(rung, options.filter.as_deref())?;
        if !ok {
            broken.push(rung.name);
        }
        lines.push(format!(
            "{:50} {:4} passed {:3} failed {:3} skipped {:6.1} s",
            rung.name,
            counted.passed,
            counted.failed,
            counted.skipped,
            begun.elapsed().as_secs_f64()
        ));
        totals.passed += counted.passed;
        totals.failed += counted.failed;
        totals.skipped += counted.skipped;
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
    let refuse = options.refuse_skips || env::var("CI").is_ok_and(|ci| ci == "true");
    let skips_refused = totals.skipped > 0 && refuse;
    if skips_refused {
        println!("CI skips none: what a skipped test lacks is printed above");
    }
    println!("{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    if !broken.is_empty() || totals.failed > 0 || skips_refused {
        bail!("the tests did not pass");
    }
    Ok(())
}

/// Runs one rung, its output shown as it comes, and counts.
fn climb(rung: &Rung, filter: Option<&str>) -> Result<(bool, Totals)> {
    // A test that finds something missing writes a line there; libtest itself counts it as passed.
    let skips = target_dir().join("skipped-tests");
    remove(&skips)?;
    let mut command = cargo(["test", "--no-fail-fast"]);
    command.args(rung.cargo_args).arg("--").args(filter);
    if rung.one_by_one {
        command.arg("--test-threads=1");
    }
    command.env("OVERLAY_BIN", overlay_binary()).env("OVERLAY_SKIPS", &skips);
    let mut totals = Totals::default();
    let ok = stream(&mut command, |line| count(line, &mut totals))?;
    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    for line in skipped.lines() {
        println!("skipped: {line}");
    }
    remove(&skips)?;
    let late = u64::try_from(skipped.lines().count())?;
    totals.passed = totals.passed.saturating_sub(late);
    totals.skipped += late;
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

/// Adds up libtest's closing line: `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
fn count(line: &str, totals: &mut Totals) {
    let Some(result) = line.strip_prefix("test result: ") else { return };
    let counted = result.split_once(". ").map_or("", |(_, counted)| counted);
    for part in counted.split("; ") {
        let Some((number, word)) = part.split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match word {
            "passed" => totals.passed += number,
            "failed" => totals.failed += number,
            "ignored" => totals.skipped += number,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_added_up() {
        let mut totals = Totals::default();
        count(
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
            &mut totals,
        );
        count(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            &mut totals,
        );
        count("test model::tests::x ... ok", &mut totals);
        assert_eq!((totals.passed, totals.failed, totals.skipped), (6, 2, 1));
    }
}
