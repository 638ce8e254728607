//! Runs of many seeds, with what the environment says of them; `cargo xtask sim` sets it.
//!
//! `SIM_SEEDS=n` runs so many seeds from `SIM_FROM` on, and `SIM_TRACE=1` prints their events.
//! `SIM_VOTERS=3|5` fixes the number of voters, `SIM_JOBS=n` the number of threads, `SIM_PLANT=NAME` plants a bug, which must
//! then be found. One of so many seeds, `SIM_TWICE=n`, is run twice, and must do the same; 0 = none.

use super::{
    reach::{ENOUGH, Reach},
    run::{BOUND, Report, Setting, run},
};
use crate::control::plant::Plant;
use std::{
    cell::{Cell, RefCell},
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Of so many seeds one is run twice.
const SOME: u64 = 8;

thread_local! {
    static IS_RUN: Cell<bool> = const { Cell::new(false) };
    static FOUND: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic of a run is what was found, and is kept instead of printed.
fn keep_what_is_found() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_RUN.get() {
                let text = info.to_string();
                FOUND.with_borrow_mut(|found| *found = text.chars().take(4_000).collect());
            } else {
                usual(info);
            }
        }));
    });
}

/// Runs a seed; what is found is an error. A seed that is run twice must do the same.
fn try_run(seed: u64, setting: Setting, twice: bool) -> Result<Report, String> {
    keep_what_is_found();
    let one = || {
        IS_RUN.set(true);
        let report = catch_unwind(AssertUnwindSafe(|| run(seed, setting)));
        IS_RUN.set(false);
        report.map_err(|_| FOUND.take())
    };
    let first = one()?;
    if twice {
        let again = one()?;
        if (first.hash, first.events) != (again.hash, again.events) {
            return Err(format!(
                "two runs of seed {seed} differ: {} events, hash {:x}, and {} events, hash {:x}",
                first.events, first.hash, again.events, again.hash
            ));
        }
    }
    Ok(first)
}

fn given(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

fn planted() -> Option<Plant> {
    let name = env::var("SIM_PLANT").ok()?;
    let found = Plant::ALL.into_iter().find(|(known, _)| *known == name);
    Some(found.unwrap_or_else(|| panic!("no bug has the name {name}")).1)
}

/// What all runs together did.
#[derive(Default)]
struct Sum {
    runs: u64,
    events: u64,
    terms: usize,
    entries: usize,
    slowest: u64,
    /// Of the traces of all runs.
    hash: u64,
    reach: Reach,
    /// The seed that found something, the how many-eth it was, and what.
    found: Option<(u64, u64, String)>,
}

/// Runs the seeds on so many threads, until all are done or one has found something.
fn run_all(seeds: &[u64], jobs: u64, setting: Setting, twice: u64) -> Sum {
    let is_twice = |number: u64| twice > 0 && number.is_multiple_of(twice);
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let mut sum = Sum::default();
    let began = Instant::now();
    let mut told = began;
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, is_over) = (sender.clone(), &next, &is_over);
            let is_twice = &is_twice;
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(&seed) = seeds.get(usize::try_from(number).unwrap()) else { return };
                    let result = try_run(seed, setting, is_twice(number));
                    if sender.send((number + 1, seed, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (number, seed, result) in receiver {
            match result {
                Ok(report) => {
                    sum.runs += 1;
                    sum.events += report.events;
                    sum.terms += report.terms;
                    sum.entries += report.entries;
                    sum.hash ^= report.hash;
                    sum.slowest = sum.slowest.max(report.healed_after);
                    sum.reach.add(&report.reach);
                }
                Err(what) => {
                    is_over.store(true, Ordering::SeqCst);
                    if sum.found.as_ref().is_none_or(|(first, ..)| number < *first) {
                        sum.found = Some((number, seed, what));
                    }
                }
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                let rate = sum.runs as f64 / began.elapsed().as_secs_f64();
                println!("{} of {} seeds, {rate:.1} a second", sum.runs, seeds.len());
            }
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} of them twice, in {seconds:.1} s, {:.1} a second: {} events, {} entries committed, {} terms led, whole again \
         after {} ticks at most, {BOUND} are allowed; hash {:x}",
        sum.runs,
        (0..sum.runs).filter(|number| is_twice(*number)).count(),
        sum.runs as f64 / seconds,
        sum.events,
        sum.entries,
        sum.terms,
        sum.slowest,
        sum.hash,
    );
    sum
}

/// The 500 seeds of every test run, or what the environment asks for.
#[test]
fn every_seed_holds() {
    let setting = Setting {
        voters: given("SIM_VOTERS").map(|voters| usize::try_from(voters).unwrap()),
        plant: planted(),
        is_traced: given("SIM_TRACE").is_some(),
    };
    let (from, count) = (given("SIM_FROM").unwrap_or(1), given("SIM_SEEDS").unwrap_or(ENOUGH));
    let seeds: Vec<u64> = (0..count).map(|number| from.wrapping_add(number)).collect();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let jobs = given("SIM_JOBS").unwrap_or(u64::try_from(threads).unwrap());
    let is_plain = !setting.is_traced && setting.plant.is_none();
    let twice = if is_plain { given("SIM_TWICE").unwrap_or(SOME) } else { 0 };
    let sum = run_all(&seeds, jobs, setting, twice);
    if let (Some(plant), Some((number, seed, what))) = (setting.plant, &sum.found) {
        println!("{plant:?} is found by seed {seed}, the {number}th: {what}");
        return;
    }
    if let Some((_, seed, what)) = sum.found {
        panic!("seed {seed}: {what}\nreplay it: cargo xtask sim --from {seed} --seeds 1 --trace");
    }
    if let Some(plant) = setting.plant {
        panic!("{plant:?} is planted, and none of {} seeds finds it", seeds.len());
    }
    println!("{}", sum.reach);
    let missing = sum.reach.missing(sum.runs);
    assert!(setting.voters.is_some() || missing.is_empty(), "never reached: {missing:#?}");
}

#[test]
fn a_run_is_its_seed() {
    let run = |seed| try_run(seed, Setting::default(), true).unwrap();
    let (one, other) = (run(1), run(2));
    assert_ne!(one.hash, other.hash);
    assert!(one.events > 100 && one.entries > 10, "{one:?}");
}

/// What another process prints at the end of these seeds' runs: how much they did, and the hash of all that happened.
fn told_by_another_process(from: u64, seeds: u64) -> String {
    let program = env::current_exe().unwrap();
    let test = "control::sim::tests::every_seed_holds";
    let mut command = std::process::Command::new(program);
    command.args([test, "--exact", "--nocapture"]);
    for (name, value) in
        [("SIM_FROM", from), ("SIM_SEEDS", seeds), ("SIM_JOBS", 1), ("SIM_TWICE", 0)]
    {
        command.env(name, value.to_string());
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().find_map(|line| line.split_once(" a second: ").map(|(_, told)| told));
    last.unwrap_or_else(|| panic!("it failed: {text}")).to_owned()
}

/// No address, no number of a thread or process, and no map in the order of its hashes has a part in a run.
#[test]
fn a_run_is_its_seed_in_each_process() {
    let one = told_by_another_process(7, 6);
    let other = told_by_another_process(7, 6);
    assert_eq!(one, other);
    assert_ne!(one, told_by_another_process(8, 6));
}
