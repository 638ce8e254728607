//! Measures the CPU time that a measurement costs in all its parts: the two programs, the system calls, and
//! the softirqs of every device between them. It is the sum of both hosts, because both are this machine.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

/// The CPUs that the two ends are pinned to. All packets between them are handled on these two, because
/// nothing spreads packets over CPUs.
pub(super) const CPUS: [usize; 2] = [0, 1];
/// The unit of /proc/stat, which does not depend on the kernel's own tick.
const TICKS_A_SECOND: f64 = 100.0;

/// Keeps [`CPUS`] from sleeping while it exists: on each runs a task that every other task displaces at once.
///
/// An idle virtual CPU is woken by the hypervisor, which takes longer than handling a small packet. A
/// contestant that needs less CPU time sleeps more often, and would seem slower because of it.
pub(super) struct Awake(Vec<Child>);

impl Awake {
    pub(super) fn keep() -> Result<Self> {
        let mut awake = Self(Vec::new());
        for cpu in CPUS {
            let mut command = Command::new("setpriv");
            command
                .args(["--pdeathsig", "KILL", "chrt", "--idle", "0"])
                .args(["taskset", "--cpu-list", &cpu.to_string()])
                // Its time is counted as nice, and so is not counted as busy.
                .args(["nice", "-n", "19", "sh", "-c", "while :; do :; done"])
                .stdin(Stdio::null());
            awake.0.push(command.spawn().context("cannot start setpriv (util-linux)")?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // An error means that the child has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Runs `run`, and returns its result and the seconds of CPU time for which [`CPUS`] were busy meanwhile.
pub(super) fn spent<T>(run: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let before = busy_ticks()?;
    let result = run()?;
    let ticks = busy_ticks()? - before;
    Ok((result, ticks as f64 / TICKS_A_SECOND))
}

fn busy_ticks() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    CPUS.iter()
        .map(|&cpu| {
            parse(&text, cpu).with_context(|| format!("/proc/stat tells nothing of CPU {cpu}"))
        })
        .sum()
}

/// The sum of user, system, irq and softirq. A guest's time is part of user. Stolen time is not the
/// contestants', and nice time is that of [`Awake`].
fn parse(text: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu}");
    let mut words = text
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next()? == name).then_some(words))?;
    let mut next = || words.next()?.parse::<u64>().ok();
    let (user, _nice, system, _idle, _iowait) = (next()?, next()?, next()?, next()?, next()?);
    let (irq, softirq) = (next()?, next()?);
    Some(user + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_nice_waiting_and_stolen_time_are_not_busy() {
        let text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 4 1000 2000 8 16 4000 1 0\ncpu1 5 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(parse(text, 0), Some(29));
        assert_eq!(parse(text, 1), Some(5));
        assert_eq!(parse(text, 2), None);
    }
}
