//! The rungs of tests that use the kernel, under other kernels. The test binaries of this kernel's run are
//! used unchanged, in a virtual machine for each kernel.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Outcome,
    rungs::{BUILT, Elsewhere},
    skips::{self, Reader},
    totals::Totals,
};
use crate::{
    exec::{capture, cargo, root},
    vm::{self, Clock, Flavour, Kernel, Machine},
};

/// The factor by which waits are longer in a guest, because qemu translates each instruction into about ten.
const PATIENCE: &str = "10";
/// The number of cases of a property test. It is small, because the programs are the same as under this
/// kernel, and only the kernel's behaviour is tested here.
const PROPERTY_CASES: &str = "16";
/// The number of packets for the comparison with the model, which is small for the same reason.
const PACKETS: &str = "20000";
/// Scenarios that are left out under other kernels, unless a filter asks for them. Their errors can only be
/// in user space, which was tested under this kernel. A name is as libtest has it, or a part of it.
const USER_SPACE: [&str; 20] = [
    // Refusals of the API, and the files that are written.
    "bad_input::",
    "ethernet::every_node_answers_for_the_cluster",
    "refusals::damaged_database",
    "refusals::port_taken",
    "refusals::state_folder_of_another_cluster",
    // Elections and quorums. `restart::` covers the packets meanwhile.
    "agents::",
    "cuts::",
    "foreign::",
    "health::",
    "histories::",
    "leader::",
    "no_room::",
    "paused::",
    "renumbered::",
    "rolled_back::",
    // It has to kill a voter within a tenth of a second after a command, and a command takes longer in a guest.
    "restart::a_voter_that_restarts_without_a_quorum_sweeps_nothing",
    // The time until a restarted node may answer. The other tests of `names::` cover the answers.
    "names::names_are_back",
    // Many endpoints, each made by a command.
    "scale::",
    // The lab itself.
    "topology::",
    // It needs a second program, which `cargo xtask upgrade` builds.
    "upgrade::",
];
/// The scenarios that run under other kernels if there is no time for all: one scenario for the kernel's part
/// of each feature.
const CHOSEN: [&str; 10] = [
    "ethernet::a_full_packet_and_a_large_one_cross",
    "gateway::every_endpoint_has_a_leg_that_leads_outside",
    "icc::no_frame_reaches_a_neighbour_whatever_nftables_holds",
    "mtu::a_change_of_the_underlay_s_mtu_is_followed_and_loses_no_packet",
    "names::endpoints_have_names",
    "published_traffic::the_controllers_death_costs_no_connection",
    "removal::endpoints_and_networks_leave_nothing_behind",
    "removal::foreign_devices_programs_and_pins_are_left_alone",
    "restart::sigkill_costs_not_one_packet_and_a_restart_neither",
    "vlans::super_packets_come_out_with_their_tags",
];
/// Longest time of a rung under any kernel.
const LIMIT: Duration = Duration::from_secs(120 * 60);

/// The tests of a rung that run under other kernels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Selection<'a> {
    /// All tests that use the kernel.
    All,
    /// The scenarios of the lab in [`CHOSEN`], and all other tests that use the kernel.
    Chosen,
    /// The tests whose name contains this text.
    Filter(&'a str),
}

/// Runs rungs under each series, as many kernels at a time as there are CPUs, and returns the outcomes.
pub(super) fn climb(
    series: &[&str],
    rungs: &[&Elsewhere],
    overlay: &Path,
    selection: Selection<'_>,
) -> Result<Vec<Outcome>> {
    let kernels = series
        .iter()
        .map(|series| vm::newest(series, Flavour::Cloud))
        .collect::<Result<Vec<_>>>()?;
    let job = Job { binaries: &build(rungs)?, overlay, selection };
    if matches!(selection, Selection::All) {
        for name in USER_SPACE {
            println!("left out, since it does not meet the kernel: {name}");
        }
    }
    let queue = Mutex::new(series.iter().zip(&kernels).collect::<VecDeque<_>>());
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
    let worker = || -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        while let Some((series, kernel)) = next() {
            outcomes.extend(job.under(series, kernel)?);
        }
        Ok(outcomes)
    };
    thread::scope(|scope| {
        // Each guest has one CPU.
        let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let running: Vec<_> = (0..cpus.min(kernels.len())).map(|_| scope.spawn(worker)).collect();
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

/// The binaries of the rungs, which are the same as under this kernel.
fn build<'a>(rungs: &[&'a Elsewhere]) -> Result<Vec<(&'a Elsewhere, PathBuf)>> {
    let mut command = cargo(["nextest", "list", "--list-type", "binaries-only"]);
    command.args(["--message-format", "json"]).args(BUILT);
    let list: Value = serde_json::from_str(&capture(&mut command)?)?;
    rungs.iter().map(|&rung| Ok((rung, binary(&list, rung.binary)?))).collect()
}

/// The path of a test binary, from nextest's list.
fn binary(list: &Value, id: &str) -> Result<PathBuf> {
    let path = list["rust-binaries"][id]["binary-path"].as_str();
    path.map(PathBuf::from).with_context(|| format!("cargo built no test binary {id}"))
}

/// The binaries and tests that run under each kernel.
#[derive(Clone, Copy)]
struct Job<'a> {
    binaries: &'a [(&'a Elsewhere, PathBuf)],
    overlay: &'a Path,
    selection: Selection<'a>,
}

impl Job<'_> {
    fn under(self, series: &str, kernel: &Kernel) -> Result<Vec<Outcome>> {
        let one = |(rung, binary): &(&Elsewhere, PathBuf)| self.one(series, kernel, rung, binary);
        self.binaries.iter().map(one).collect()
    }

    fn one(
        self,
        series: &str,
        kernel: &Kernel,
        rung: &Elsewhere,
        binary: &Path,
    ) -> Result<Outcome> {
        let begun = Instant::now();
        // A guest has one CPU, because several guests run at the same time, and because a second CPU slows
        // down qemu's translator more than it helps the guest.
        let machine = Machine { kernel, cpus: 1, memory_mib: 3072, clock: Clock::Wall, link: None };
        let chosen = if rung.floor_of_chosen < rung.floor { &CHOSEN[..] } else { &[] };
        let (filters, left_out, floor): (&[&str], &[&str], _) = match &self.selection {
            Selection::All => (&[], &USER_SPACE, Some(rung.floor)),
            Selection::Chosen => (chosen, &USER_SPACE, Some(rung.floor_of_chosen)),
            Selection::Filter(filter) => (std::slice::from_ref(filter), &[], None),
        };
        let mut command = Command::new(binary);
        command
            .args(filters)
            .args(left_out.iter().flat_map(|name| ["--skip", name]))
            // The message of a test that skips itself is in the output of tests that passed.
            .args(["--test-threads=1", "--show-output"])
            // cargo runs a package's tests in this folder.
            .current_dir(root().join("tests"))
            .env("OVERLAY_BIN", self.overlay)
            .env("OVERLAY_PATIENCE", PATIENCE)
            .env("OVERLAY_EVERY_KIND", "1")
            .env("PROPTEST_CASES", PROPERTY_CASES)
            .env("OVERLAY_PACKETS", PACKETS);
        let mut totals = Totals::default();
        let mut reader = Reader::default();
        let code = machine
            .run(&command, LIMIT, |line| {
                totals.count_libtest(line);
                if reader.read(line) {
                    let seconds = begun.elapsed().as_secs_f64();
                    println!("{:32} {seconds:5.0} s | {line}", kernel.release);
                }
            })
            .with_context(|| format!("{} under {}", rung.short, kernel.release))?;
        let Reader { ran, skips, .. } = reader;
        totals.skip(skips.len() as u64);
        let mut wrong = skips::wrong(series, &skips, &ran);
        if code != 0 {
            wrong.push(format!("exit code {code}"));
        }
        let allowed = skips::allowed(series, &skips);
        wrong.extend(floor.and_then(|floor| totals.below(floor.saturating_sub(allowed))));
        Ok(Outcome {
            name: format!("{} under {}", rung.short, kernel.release),
            wrong,
            totals,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_is_found_in_nextests_list() {
        let list = serde_json::json!({
            "rust-binaries": { "overlay-tests::lab": { "binary-path": "/t/lab-1" } }
        });
        assert_eq!(binary(&list, "overlay-tests::lab").expect("listed"), Path::new("/t/lab-1"));
        assert!(binary(&list, "overlay-tests::prog_run").is_err());
    }
}
