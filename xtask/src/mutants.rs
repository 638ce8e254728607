//! `cargo xtask mutants`: changes the code of the rooms that decide, one change at a time, and runs the
//! library's tests. A change that no test notices survives; those that are known to, each with its reason, are
//! in xtask/survivors.txt.
//!
//! All of it takes many hours: a change is a build. `--file` and `--shard` bound a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Result, bail};

use crate::{
    exec::{cargo, command_line, root, target_dir},
    setup::{self, Purpose},
};

/// What is changed, unless a run is told otherwise.
const FILES: [&str; 7] = [
    "overlay-ctl/src/control/state/*.rs",
    "overlay-ctl/src/control/ipam/*.rs",
    "overlay-ctl/src/control/watch/*.rs",
    "overlay-ctl/src/control/consensus/*.rs",
    "overlay-ctl/src/control/consensus/*/*.rs",
    "overlay-ctl/src/dataplane/reconcile/*.rs",
    "overlay-ctl/src/node/gate.rs",
];
/// The survivors that are known.
const KNOWN: &str = "xtask/survivors.txt";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print the survivors that are known, and why each may survive
    #[arg(long)]
    list: bool,
    /// Change only these files; a glob, as often as needed
    #[arg(long, value_name = "GLOB")]
    file: Vec<String>,
    /// Only one part of so many: `1/8`; parts begin with 0
    #[arg(long)]
    shard: Option<String>,
    /// Only changes whose name has this in it (a regular expression)
    #[arg(long, value_name = "REGEX")]
    only: Option<String>,
    /// Go on where an earlier run of the same files ended: what it found noticed is not tried again
    #[arg(long)]
    resume: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let known = known(&fs::read_to_string(root().join(KNOWN))?);
    if options.list {
        for (mutation, why) in &known {
            println!("{mutation}\n    {why}");
        }
        return Ok(());
    }
    setup::ensure(Purpose::Mutate)?;
    let out = target_dir();
    let mut command = cargo(["mutants", "--package", "overlay-ctl", "--test-tool", "nextest"]);
    command.args(["--profile", "mutants", "--cap-lints", "true", "--output"]).arg(&out);
    // Tests wait for levels with a bound of their own; a change that makes one wait for ever ends at this one.
    command.args(["--minimum-test-timeout", "180", "--colors", "never"]);
    let files = if options.file.is_empty() {
        FILES.map(str::to_owned).to_vec()
    } else {
        options.file.clone()
    };
    command.args(files.iter().flat_map(|file| ["--file", file]));
    command.args(options.shard.iter().flat_map(|shard| ["--shard", shard]));
    command.args(options.only.iter().flat_map(|only| ["--re", only]));
    command.args(options.resume.then_some("--iterate"));
    // A tree beside this one is changed, and it has no tools of its own.
    command.args(["--", "--lib"]).env_remove("CARGO_TARGET_DIR");
    let status = command.status()?;
    // 2 says that some survived, 3 that some took too long: that is ours to judge.
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        bail!("`{}` failed: {status}", command_line(&command));
    }
    report(&known, &out.join("mutants.out"))
}

fn report(known: &BTreeMap<String, String>, out: &Path) -> Result<()> {
    let read = |name: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(out.join(name)).unwrap_or_default();
        text.lines().map(without_place).collect()
    };
    let (missed, caught) = (read("missed.txt"), &read("caught.txt") | &read("timeout.txt"));
    println!(
        "{} noticed, {} not, {} do not compile",
        caught.len(),
        missed.len(),
        read("unviable.txt").len()
    );
    let new: Vec<&String> =
        missed.iter().filter(|mutation| !known.contains_key(*mutation)).collect();
    // A function may have two of one name.
    let gone: Vec<&String> =
        known.keys().filter(|known| caught.contains(*known) && !missed.contains(*known)).collect();
    for mutation in &new {
        println!("survives: {mutation}");
    }
    for mutation in &gone {
        println!("no longer survives, strike it from {KNOWN}: {mutation}");
    }
    if new.len() + gone.len() > 0 {
        bail!(
            "{} changes were not noticed by any test: write one, or say in {KNOWN} why not",
            new.len()
        );
    }
    Ok(())
}

/// A mutation without its line and column, which move: `src/a.rs:12:5: replace f` is `src/a.rs: replace f`.
fn without_place(line: &str) -> String {
    let mut parts = line.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        // Names hold colons of their own: a place is two numbers.
        (Some(file), Some(row), Some(column), Some(what))
            if is_number(row) && is_number(column) =>
        {
            format!("{file}:{what}")
        }
        _ => line.to_owned(),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Mutations by name, each with its reason: a line, and below it indented lines.
fn known(text: &str) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if line.starts_with(char::is_whitespace) {
            let why: &mut String = known.entry(last.clone()).or_default();
            why.push_str(if why.is_empty() { "" } else { " " });
            why.push_str(line.trim());
        } else {
            line.clone_into(&mut last);
            known.insert(last.clone(), String::new());
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_survivor_has_a_reason() {
        let known = known(include_str!("../survivors.txt"));
        for (mutation, why) in known {
            assert!(!why.is_empty(), "{mutation}");
        }
    }

    #[test]
    fn survivors_are_read_with_their_reasons() {
        let known = known(
            "# head\n\na.rs: replace || with && in f\n    the other half is\n    never false\nb.rs: x\n  y\n",
        );
        let expected =
            [("a.rs: replace || with && in f", "the other half is never false"), ("b.rs: x", "y")];
        assert_eq!(known, expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    }

    #[test]
    fn a_mutation_is_named_without_its_place() {
        let line = "overlay-ctl/src/node/gate.rs:12:5: replace Gate::open -> Option<u64> with None";
        let name = "overlay-ctl/src/node/gate.rs: replace Gate::open -> Option<u64> with None";
        assert_eq!(without_place(line), name);
        assert_eq!(without_place(name), name);
    }
}
