//! `cargo xtask upgrade`: the scenarios of the lab in which nodes are upgraded from an earlier program and put back. That program is
//! built from its commit, once, and kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    exec::{capture, cargo, command_line, exec, root, target_dir},
    setup::{self, Purpose},
    test,
};

/// The last commit whose program speaks nothing newer than version 1 of the cluster, and stops at what it can't read. When version 3
/// comes, the last one that speaks nothing newer than version 2 takes its place.
const LAST_OF_FORMER_VERSION: &str = "630a605d0b48";
/// The previous commit, which in general speaks the same versions.
const PREVIOUS: &str = "HEAD~1";
/// Digits of a commit's name that are shown, and name its folder.
const DIGITS: usize = 12;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only scenarios whose name contains this text
    filter: Option<String>,
    /// Upgrade from the program of this commit; may be given several times [default: the last one of the former version of the
    /// cluster, and HEAD~1]
    #[arg(long, value_name = "COMMIT")]
    from: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    let from: Vec<&str> = match &options.from[..] {
        [] => vec![LAST_OF_FORMER_VERSION, PREVIOUS],
        given => given.iter().map(String::as_str).collect(),
    };
    // All are known before the first is built.
    let commits = from.into_iter().map(resolve).collect::<Result<Vec<_>>>()?;
    let binary = build::binary()?;
    for commit in &commits {
        let previous = build(commit)?;
        println!("\n=== from {commit}: {}", subject(commit)?);
        test::upgrade(&binary, &previous, options.filter.as_deref())?;
    }
    Ok(())
}

fn git(args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(args).current_dir(root());
    command
}

/// The full name of a commit.
fn resolve(commit: &str) -> Result<String> {
    let wanted = format!("{commit}^{{commit}}");
    let name = capture(&mut git(&["rev-parse", "--verify", "--quiet", &wanted])).with_context(|| {
        format!("the repository has no commit {commit}; a shallow clone gets it by `git fetch --unshallow`")
    })?;
    Ok(name.trim().chars().take(DIGITS).collect())
}

fn subject(commit: &str) -> Result<String> {
    Ok(capture(&mut git(&["show", "--no-patch", "--format=%s", commit]))?.trim().to_owned())
}

/// The release binary of a commit, which is built if it is not there yet.
fn build(commit: &str) -> Result<PathBuf> {
    let all = target_dir().join("previous");
    let folder = all.join(commit);
    let binary = folder.join("overlay");
    if binary.is_file() {
        return Ok(binary);
    }
    println!("\n=== building the program of {commit}, which takes some minutes");
    let tree = folder.join("tree");
    if tree.exists() {
        // What is left of a build that was interrupted.
        fs::remove_dir_all(&tree)?;
    }
    fs::create_dir_all(&tree)?;
    unpack(commit, &tree)?;
    // The dependencies of several commits are mostly the same: they are built once.
    let target = all.join("target");
    for words in [
        // Of another commit, which has packages of the same names at the same places of its tree.
        &["clean", "--release", "--package", "overlay-ctl", "--package", "overlay-common"][..],
        &["build", "--release", "--locked", "--package", "overlay-ctl"],
    ] {
        exec(cargo(words).current_dir(&tree).env("CARGO_TARGET_DIR", &target))?;
    }
    let unfinished = folder.join("overlay.new");
    fs::copy(target.join("release/overlay"), &unfinished)?;
    fs::rename(&unfinished, &binary)?;
    fs::remove_dir_all(&tree)?;
    Ok(binary)
}

/// Writes the files of a commit into a folder. It is no worktree, which git would have to be told of.
fn unpack(commit: &str, tree: &Path) -> Result<()> {
    let mut archive = git(&["archive", "--format=tar", commit]);
    let line = command_line(&archive);
    let mut packing =
        archive.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    let packed = packing.stdout.take().context("the archive's output")?;
    // With the time of now, and not of the commit: cargo would take what it built of another commit for newer.
    exec(Command::new("tar").args(["-x", "-m"]).current_dir(tree).stdin(packed))?;
    let status = packing.wait()?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}
