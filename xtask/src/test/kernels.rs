//! The rungs that meet the kernel, under other kernels: the test binaries that were built for this one,
//! run as they are in a virtual machine each.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::totals::{SKIPPED, Totals};
use crate::{
    exec::{capture, cargo, root},
    vm::{self, Clock, Kernel, Machine},
};

/// A translated instruction takes about ten: whatever waits, waits that much longer before it gives up.
const PATIENCE: &str = "10";
/// Cases of a property: they are the same programs, so what is looked for here is what the kernel does.
const PROPERTY_CASES: &str = "16";
/// Scenarios that another kernel can teach nothing about: what may go wrong in them is decided in user space,
/// and was under this kernel. Left out unless they are asked for by a filter. A name is as libtest has it, or
/// a part of it.
const USER_SPACE: [&str; 14] = [
    // What the API refuses, and what is written where.
    "bad_input::",
    "ethernet::every_node_answers_for_the_cluster",
    "refusals::damaged_database",
    "refusals::port_taken",
    "refusals::state_folder_of_another_cluster",
    // Elections and quorums. What packets do meanwhile is seen by `restart::` too.
    "agents::",
    "cuts::",
    "foreign::",
    "leader::",
    "paused::",
    "rolled_back::",
    // How soon a restarted node knows that it may answer. That it answers is `names::`' other half.
    "names::names_are_back",
    // A number of endpoints, each by a command line of its own.
    "scale::",
    // The lab's own.
    "topology::",
];
/// No rung takes longer under any kernel.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// Prints what was skipped when the tests are done: libtest would swallow it.
const SCRIPT: &str = r#"
OVERLAY_SKIPS=/run/skipped-tests; export OVERLAY_SKIPS; : > $OVERLAY_SKIPS
"$@"; code=$?
while read -r line; do echo "$SKIPPED$line"; done < $OVERLAY_SKIPS
exit $code
"#;

/// What one rung came to under one kernel.
pub(super) struct Outcome {
    /// The rung, and the kernel's release.
    pub(super) name: String,
    pub(super) ok: bool,
    pub(super) totals: Totals,
    pub(super) seconds: f64,
}

/// Runs test targets of overlay-tests under each series, the kernels beside each other, and returns what
/// came of each.
pub(super) fn climb(
    series: &[&str],
    targets: &[&str],
    overlay: &Path,
    filter: Option<&str>,
) -> Result<Vec<Outcome>> {
    let kernels = series.iter().map(|series| vm::newest(series)).collect::<Result<Vec<_>>>()?;
    let job = Job { binaries: &build(targets)?, overlay, filter };
    for name in job.left_out() {
        println!("left out, since it does not meet the kernel: {name}");
    }
    thread::scope(|scope| {
        let running: Vec<_> =
            kernels.iter().map(|kernel| scope.spawn(move || job.under(kernel))).collect();
        let mut outcomes = Vec::new();
        for thread in running {
            match thread.join() {
                Ok(outcome) => outcomes.extend(outcome?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(outcomes)
    })
}

/// The targets' binaries, by name, in the order of `targets`.
fn build<'a>(targets: &[&'a str]) -> Result<Vec<(&'a str, PathBuf)>> {
    let mut command = cargo(["test", "--no-run", "--message-format=json"]);
    command.args(["--package", "overlay-tests"]);
    for target in targets {
        command.args(["--test", target]);
    }
    let messages = capture(&mut command)?;
    let mut built: BTreeMap<String, PathBuf> = messages.lines().filter_map(executable).collect();
    let find = |&target| {
        let path = built.remove(target).with_context(|| format!("cargo built no test {target}"))?;
        Ok((target, path))
    };
    targets.iter().map(find).collect()
}

/// The name of a target and its binary, of a line of cargo's that has one.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    Some((name.to_owned(), message["executable"].as_str()?.into()))
}

/// What runs under each kernel.
#[derive(Clone, Copy)]
struct Job<'a> {
    /// Targets and their binaries.
    binaries: &'a [(&'a str, PathBuf)],
    overlay: &'a Path,
    filter: Option<&'a str>,
}

impl Job<'_> {
    fn left_out(self) -> impl Iterator<Item = &'static str> {
        USER_SPACE.into_iter().filter(move |_| self.filter.is_none())
    }

    fn under(self, kernel: &Kernel) -> Result<Vec<Outcome>> {
        self.binaries.iter().map(|(name, binary)| self.one(kernel, name, binary)).collect()
    }

    fn one(self, kernel: &Kernel, name: &str, binary: &Path) -> Result<Outcome> {
        let begun = Instant::now();
        // One CPU: as many guests as kernels run beside each other, and a second one makes the translator
        // slower than it makes the guest faster.
        let machine = Machine { kernel, cpus: 1, memory_mib: 3072, clock: Clock::Wall };
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(binary)
            .args(self.filter)
            .args(self.left_out().flat_map(|name| ["--skip", name]))
            .arg("--test-threads=1")
            // Where cargo runs a package's tests.
            .current_dir(root().join("tests"))
            .env("OVERLAY_BIN", self.overlay)
            .env("OVERLAY_PATIENCE", PATIENCE)
            .env("PROPTEST_CASES", PROPERTY_CASES)
            .env("SKIPPED", SKIPPED);
        let mut totals = Totals::default();
        let mut skipped = 0;
        let code = machine
            .run(&command, LIMIT, |line| {
                println!("{:32} {:5.0} s | {line}", kernel.release, begun.elapsed().as_secs_f64());
                totals.count(line);
                skipped += u64::from(line.starts_with(SKIPPED));
            })
            .with_context(|| format!("{name} under {}", kernel.release))?;
        totals.skip(skipped);
        Ok(Outcome {
            name: format!("{name} under {}", kernel.release),
            ok: code == 0,
            totals,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_is_found_among_cargos_messages() {
        let built =
            r#"{"reason":"compiler-artifact","target":{"name":"lab"},"executable":"/t/lab-1"}"#;
        assert_eq!(executable(built), Some(("lab".to_owned(), "/t/lab-1".into())));
        let library = r#"{"reason":"compiler-artifact","target":{"name":"aya"},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable("warning: unused"), None);
    }
}
