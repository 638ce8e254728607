//! `cargo xtask mutants`: changes the code of those rooms that make decisions, one change at a time, and runs
//! the library's tests. A change that no test notices survives. The known survivors are in
//! xtask/survivors.txt, each with its reason.
//!
//! cargo-mutants does the same, but builds the library once for each of some 2,000 changes. Here all changes
//! are compiled at once into a copy of the tree, each behind a number that the environment chooses when a
//! test starts. A first run of the tests finds out which of them reach which change. Each change is then
//! tried with these tests alone, the nearest and quickest first, until one fails.

mod find;
mod known;
mod render;
mod report;
mod results;
mod syntax;
mod tree;
mod trial;
mod values;

use std::{
    collections::BTreeMap,
    fs,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use self::{
    results::{Outcomes, Results},
    tree::{Build, Mutant},
};
use crate::{
    exec::root,
    lint,
    setup::{self, Purpose},
};

/// The beginnings of the paths below overlay-ctl/src whose files are changed.
const ROOMS: [&str; 8] = [
    "control/ipam/",
    "control/state/",
    "control/voter/",
    "control/consensus",
    "control/watch/",
    "dataplane/reconcile/",
    "node/gate.rs",
    "durable.rs",
];
/// The file with the known survivors.
const KNOWN: &str = "xtask/survivors.txt";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print the known survivors, each with its reason
    #[arg(long)]
    list: bool,
    /// Try only changes in files whose path contains this text; may be given several times
    #[arg(long, value_name = "PATH")]
    file: Vec<String>,
    /// Try only one of several parts: `1/8`; the first part is 0
    #[arg(long)]
    shard: Option<String>,
    /// Try only changes whose name contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Continue earlier runs: a change that was noticed is not tried again, and if code and tests are the
    /// same, no tried change is
    #[arg(long)]
    resume: bool,
    /// Number of changes to try at a time; by default the number of processors
    #[arg(long)]
    jobs: Option<usize>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let known = known::read(&fs::read_to_string(root().join(KNOWN))?);
    if options.list {
        for (name, known) in &known {
            println!("{}\n    {}", known::line(name, known.count), known.why);
        }
        return Ok(());
    }
    let shard = options.shard.as_deref().map(shard).transpose()?;
    setup::ensure(Purpose::Run)?;
    let started = Instant::now();
    let jobs =
        options.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let build = tree::build(&files()?)?;
    let chosen = build.mutants.iter().enumerate().filter(|(_, mutant)| options.chooses(mutant));
    let chosen = chosen.map(|(index, _)| index).enumerate().filter(|(nth, _)| match shard {
        Some((part, of)) => nth % of == part,
        None => true,
    });
    let chosen: Vec<usize> = chosen.map(|(_, index)| index).collect();
    if chosen.is_empty() {
        bail!("no change is chosen");
    }
    let earlier = if options.resume { results::read(&build)? } else { BTreeMap::new() };
    let outcomes = try_all(&build, &chosen, earlier, jobs)?;
    let result = report::report(&build.mutants, &chosen, &outcomes, &known);
    println!("mutants: {} s in all", started.elapsed().as_secs());
    result
}

impl Options {
    fn chooses(&self, mutant: &Mutant) -> bool {
        (self.file.is_empty() || self.file.iter().any(|file| mutant.file.contains(file)))
            && self.only.as_ref().is_none_or(|only| mutant.name.contains(only))
    }
}

/// Parses a part and the number of parts, such as `1/8`.
fn shard(text: &str) -> Result<(usize, usize)> {
    let parts =
        text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    parts
        .filter(|(part, of)| part < of)
        .with_context(|| format!("no part is called {text}; `0/8` is the first of 8"))
}

/// The files of these rooms, without those of tests.
fn files() -> Result<Vec<String>> {
    let folder = root().join("overlay-ctl/src");
    let mut files = Vec::new();
    for file in lint::files_of_code("overlay-ctl", &folder)? {
        let names = [format!("{file}.rs"), format!("{file}/mod.rs")];
        let name = names.into_iter().find(|name| folder.join(name).exists());
        let name = name.with_context(|| format!("{file} has no file"))?;
        if ROOMS.iter().any(|room| name.starts_with(room)) {
            files.push(format!("overlay-ctl/src/{name}"));
        }
    }
    files.sort();
    Ok(files)
}

/// Tries the changes whose outcome is not known yet. Each outcome is written down at once.
fn try_all(
    build: &Build,
    chosen: &[usize],
    mut outcomes: Outcomes,
    jobs: usize,
) -> Result<Outcomes> {
    let to_try: Vec<usize> = chosen
        .iter()
        .copied()
        .filter(|index| build.mutants[*index].compiles && !outcomes.contains_key(index))
        .collect();
    let results = Results::begin(build, &outcomes)?;
    if to_try.is_empty() {
        return Ok(outcomes);
    }
    let started = Instant::now();
    let tests = trial::tests(build, jobs)?;
    println!(
        "mutants: {} tests in {} s; {} changes to try",
        tests.len(),
        started.elapsed().as_secs(),
        to_try.len()
    );
    let done = Mutex::new((&mut outcomes, results, 0));
    trial::each(jobs, to_try.len(), |nth| {
        let index = to_try[nth];
        let outcome = trial::outcome(build, &tests, u32::try_from(index)? + 1)?;
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcomes, results, count) = &mut *done;
        results.add(&build.mutants[index], &outcome)?;
        outcomes.insert(index, outcome);
        *count += 1;
        if *count % 100 == 0 {
            println!("mutants: {count} of {}, {} s", to_try.len(), started.elapsed().as_secs());
        }
        Ok(())
    })?;
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_from_0() {
        assert_eq!(shard("1/8").expect("a part"), (1, 8));
        assert!(shard("8/8").is_err());
        assert!(shard("8").is_err());
    }

    #[test]
    fn files_of_tests_are_left_out() {
        let files = files().expect("our own files");
        assert!(files.contains(&"overlay-ctl/src/node/gate.rs".to_owned()));
        assert!(files.contains(&"overlay-ctl/src/control/ipam/mod.rs".to_owned()));
        assert!(files.iter().all(|file| !file.contains("tests")), "{files:?}");
    }
}
