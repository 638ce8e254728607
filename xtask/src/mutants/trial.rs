//! Runs tests: each once as the code is, to see which changes it reaches; then, for each change, those that reach it.

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

/// How long a test may take beyond ten times its usual time: others may be busy with the machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// A test that has so many folders in common with the code is one of its room.
const NEAR: usize = 2;
/// How long the tests of other rooms may take for one change. A room is to be tested by its own tests: a change that
/// only long tests of other rooms notice counts as a survivor.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// Between two looks whether a test has ended.
const PAUSE: Duration = Duration::from_millis(3);

pub(super) struct Test {
    name: String,
    /// How long it takes as the code is.
    usual: Duration,
    reaches: BTreeSet<u32>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This test failed.
    Noticed(String),
    /// This test did not end.
    TimedOut(String),
    Survived,
    /// No test executes the place.
    Unreached,
}

/// Runs each test as the code is.
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

/// Runs the tests that reach a change until one notices: all of its room, and the quickest of the others.
pub(super) fn outcome(build: &Build, tests: &[Test], number: u32) -> Result<Outcome> {
    let file = &build.mutants[number as usize - 1].file;
    let mut reaching: Vec<&Test> =
        tests.iter().filter(|test| test.reaches.contains(&number)).collect();
    if reaching.is_empty() {
        return Ok(Outcome::Unreached);
    }
    // Those beside the code first, then the quick ones.
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

/// How many folders and files the name of a test begins with that lead to this file too.
fn in_common(file: &str, test: &str) -> usize {
    let path = file.split_once("src/").map_or(file, |(_, path)| path).trim_end_matches(".rs");
    path.split('/').zip(test.split("::")).take_while(|(a, b)| a == b).count()
}

/// Does it for each number below `count`, so many at a time; ends early where one fails.
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
