//! Runs tests. First each test runs with the unchanged code, to find out which changes it reaches. Then each
//! change is tried with the tests that reach it.

use std::{
    collections::BTreeSet,
    fs,
    process::Stdio,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::tree::{Build, folder, test_command};
use crate::exec::capture;

/// Time that a test may take in addition to ten times its usual time, because other programs may use the
/// machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// The number of folders that a test's name has in common with the code if the test belongs to the code's
/// room.
const NEAR: usize = 2;
/// The time that tests of other rooms may take for one change. Each room must be tested by its own tests, so
/// a change that is noticed only by long tests of other rooms counts as a survivor.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// Time between two checks whether a test has ended.
const PAUSE: Duration = Duration::from_millis(3);

pub(super) struct Test {
    name: String,
    /// The duration of the test with unchanged code.
    usual: Duration,
    reaches: BTreeSet<u32>,
}

/// The outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This test failed.
    Noticed(String),
    /// This test did not end in time.
    TimedOut(String),
    Survived,
    /// No test executes the changed place.
    Unreached,
}

/// Runs each test with the unchanged code.
pub(super) fn tests(build: &Build, jobs: usize) -> Result<Vec<Test>> {
    let mut list = test_command(build);
    let listed = capture(list.args(["--list", "--format", "terse"]).stdout(Stdio::piped()))?;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let reached = folder().join("reached");
    if reached.exists() {
        fs::remove_dir_all(&reached)?;
    }
    fs::create_dir_all(&reached)?;
    let tests = Mutex::new(Vec::new());
    each(jobs, names.len(), |index| {
        let name = names[index];
        let file = reached.join(index.to_string());
        let mut command = test_command(build);
        command.args(["--exact", name]).env("OVERLAY_MUTANTS_REACHED", &file);
        let started = Instant::now();
        let status = command.status()?;
        if !status.success() {
            bail!("{name} fails with the code as it is");
        }
        let usual = started.elapsed();
        let text = fs::read_to_string(&file).unwrap_or_default();
        let reaches = text.lines().map(str::parse).collect::<Result<_, _>>()?;
        let test = Test { name: name.to_owned(), usual, reaches };
        tests.lock().unwrap_or_else(PoisonError::into_inner).push(test);
        Ok(())
    })?;
    Ok(tests.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Runs the tests that reach a change until one of them notices it: all tests of the change's room, and the
/// quickest of the others.
pub(super) fn outcome(build: &Build, tests: &[Test], number: u32) -> Result<Outcome> {
    let file = &build.mutants[number as usize - 1].file;
    let mut reaching: Vec<&Test> =
        tests.iter().filter(|test| test.reaches.contains(&number)).collect();
    if reaching.is_empty() {
        return Ok(Outcome::Unreached);
    }
    // Tests near the code come first, and among these the quick ones.
    reaching.sort_by_key(|test| (usize::MAX - in_common(file, &test.name), test.usual));
    let mut elsewhere = Duration::ZERO;
    reaching.retain(|test| {
        let is_near = in_common(file, &test.name) >= NEAR;
        elsewhere += if is_near { Duration::ZERO } else { test.usual };
        is_near || elsewhere <= ELSEWHERE
    });
    for test in reaching {
        let mut command = test_command(build);
        command.args(["--exact", &test.name]).env("OVERLAY_MUTANT", number.to_string());
        let mut child = command.spawn()?;
        let deadline = Instant::now() + test.usual * 10 + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                return Ok(Outcome::TimedOut(test.name.clone()));
            }
            pause();
        };
        if !status.success() {
            return Ok(Outcome::Noticed(test.name.clone()));
        }
    }
    Ok(Outcome::Survived)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a process tells nobody that it ended; the wait is bounded"
)]
fn pause() {
    thread::sleep(PAUSE);
}

/// The number of folders and files that a test's name and a file's path have in common from the beginning on.
fn in_common(file: &str, test: &str) -> usize {
    let path = file.split_once("src/").map_or(file, |(_, path)| path).trim_end_matches(".rs");
    path.split('/').zip(test.split("::")).take_while(|(a, b)| a == b).count()
}

/// Calls `work` for each number below `count`, on `jobs` threads. Stops early if one call fails.
pub(super) fn each(
    jobs: usize,
    count: usize,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return Ok(());
        }
        if let Err(error) = work(index) {
            next.store(count, Ordering::Relaxed);
            return Err(error);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        let ended = workers.into_iter().map(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_beside_the_code_have_most_in_common_with_it() {
        let file = "overlay-ctl/src/control/state/apply.rs";
        assert_eq!(in_common(file, "control::state::apply::tests::a"), 3);
        assert_eq!(in_common(file, "control::watch::tests::a"), 1);
        assert_eq!(in_common(file, "model::vni::tests::a"), 0);
    }

    #[test]
    fn each_is_done_once() {
        let done = Mutex::new(Vec::new());
        each(3, 50, |index| {
            done.lock().unwrap().push(index);
            Ok(())
        })
        .unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..50).collect::<Vec<_>>());
        assert!(each(2, 5, |index| if index == 1 { bail!("no") } else { Ok(()) }).is_err());
    }
}
