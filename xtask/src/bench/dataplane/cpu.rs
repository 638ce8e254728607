//! The CPU time that a measurement costs, whoever spends it: the two programs, the system calls, and the
//! softirqs of every device between them. Both hosts are this machine, so it is theirs together.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

/// What the two ends are pinned to. Packets between them are handled on these two: nothing spreads them.
pub(super) const CPUS: [usize; 2] = [0, 1];
/// /proc/stat counts in these, whatever the kernel's own tick is.
const TICKS_A_SECOND: f64 = 100.0;

/// Keeps [`CPUS`] from sleeping while it lives: on each runs what any other task displaces at once.
///
/// A virtual CPU that goes idle is woken by way of the hypervisor, which takes longer than a small packet
/// does. Whoever needs less CPU time sleeps more often, and would come out slower for it.
pub(super) struct Awake(Vec<Child>);

impl Awake {
    pub(super) fn keep() -> Result<Self> {
        let mut awake = Self(Vec::new());
        for cpu in CPUS {
            let mut command = Command::new("setpriv");
            command
                .args(["--pdeathsig", "KILL", "chrt", "--idle", "0"])
                .args(["taskset", "--cpu-list", &cpu.to_string()])
                // Its time is told from others' by that, too.
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
            // There is nobody to tell.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Runs it; seconds of CPU time that [`CPUS`] were busy meanwhile.
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

/// user, system, irq and softirq; a guest's time is in user, stolen time is nobody's here, and what is nice
/// is [`Awake`]'s.
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
