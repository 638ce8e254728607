//! `cargo xtask coverage`: the lines of overlay-ctl's library that its own tests execute, room by room. It
//! needs neither root nor the kernel. Lines that only the tests of the kernel or the lab reach do not count.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    exec::{cargo, exec, root, target_dir},
    setup::{self, LLVM_PREFIX, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also write each file, line by line, to target/llvm-cov/html
    #[arg(long)]
    html: bool,
    /// Print files instead of rooms
    #[arg(long)]
    files: bool,
}

/// The number of lines that can be executed, and of those that were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Lines {
    count: u64,
    covered: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Cover)?;
    let report = target_dir().join("coverage.json");
    let tests =
        ["llvm-cov", "nextest", "--locked", "--package", "overlay-ctl", "--lib", "--no-report"];
    exec(&mut with_llvm(cargo(tests)))?;
    // cargo-llvm-cov leaves out folders of tests by itself.
    let of =
        ["llvm-cov", "report", "--package", "overlay-ctl", "--ignore-filename-regex", "tests.rs$"];
    let json = ["--json", "--summary-only", "--output-path"];
    exec(with_llvm(cargo(of)).args(json).arg(&report))?;
    if options.html {
        exec(with_llvm(cargo(of)).arg("--html"))?;
    }
    let report: Value = serde_json::from_str(&fs::read_to_string(&report)?)?;
    let by_file = lines(&report, &root().join("overlay-ctl/src"))?;
    let rows = if options.files { by_file } else { by_room(&by_file) };
    let mut all = Lines::default();
    for (name, lines) in &rows {
        println!(
            "{name:40} {:6} of {:6} lines {:5.1} %",
            lines.covered,
            lines.count,
            lines.percent()
        );
        all.count += lines.count;
        all.covered += lines.covered;
    }
    println!("{:40} {:6} of {:6} lines {:5.1} %", "", all.covered, all.count, all.percent());
    Ok(())
}

/// Sets the tools of Debian's LLVM if they are installed, because rustup cannot install its own everywhere.
fn with_llvm(mut command: Command) -> Command {
    let bin = Path::new(LLVM_PREFIX).join("bin");
    if bin.join("llvm-cov").exists() {
        command.env("LLVM_COV", bin.join("llvm-cov"));
        command.env("LLVM_PROFDATA", bin.join("llvm-profdata"));
    }
    command
}

/// The lines of each file below `folder`, by the file's name there.
fn lines(report: &Value, folder: &Path) -> Result<BTreeMap<String, Lines>> {
    let files = report["data"][0]["files"].as_array().context("a report has files")?;
    let of = |file: &Value| {
        let name = Path::new(file["filename"].as_str()?).strip_prefix(folder).ok()?;
        let lines = &file["summary"]["lines"];
        let lines = Lines { count: lines["count"].as_u64()?, covered: lines["covered"].as_u64()? };
        Some((name.display().to_string(), lines))
    };
    Ok(files.iter().filter_map(of).collect())
}

/// Sums by folder, two levels deep: `control/state/`. Files outside a folder are one row.
fn by_room(files: &BTreeMap<String, Lines>) -> BTreeMap<String, Lines> {
    let mut rooms: BTreeMap<String, Lines> = BTreeMap::new();
    for (file, lines) in files {
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let room: Vec<&str> = folder.split('/').take(2).collect();
        let sum = rooms.entry(format!("{}/", room.join("/"))).or_default();
        sum.count += lines.count;
        sum.covered += lines.covered;
    }
    rooms
}

impl Lines {
    fn percent(self) -> f64 {
        if self.count == 0 { 0.0 } else { 100.0 * self.covered as f64 / self.count as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_added_up_by_room() {
        let file = |name: &str, count: u64, covered: u64| {
            serde_json::json!({
                "filename": name, "summary": { "lines": { "count": count, "covered": covered } }
            })
        };
        let report = serde_json::json!({ "data": [{ "files": [
            file("/r/src/control/state/apply.rs", 10, 9),
            file("/r/src/control/state/index.rs", 5, 5),
            file("/r/src/model/vni.rs", 4, 1),
            file("/r/src/config.rs", 2, 0),
            file("/elsewhere/x.rs", 7, 7),
        ] }] });
        let files = lines(&report, Path::new("/r/src")).expect("a report");
        assert_eq!(files.len(), 4);
        let rooms = by_room(&files);
        let rooms: Vec<_> =
            rooms.iter().map(|(name, sum)| (&**name, sum.covered, sum.count)).collect();
        assert_eq!(rooms, [("/", 0, 2), ("control/state/", 14, 15), ("model/", 1, 4)]);
    }
}
