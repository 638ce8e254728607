//! The copy of the tree with all changes, and its build.
//!
//! The copy is built into the target folder of the workspace's own tests, so that only the workspace's crates
//! are compiled anew.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    fs,
    hash::{Hash as _, Hasher as _},
    io::{BufRead as _, BufReader},
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    find::{self, Site},
    render::{self, Rendered},
};
use crate::exec::{cargo, command_line, root, target_dir};

/// The most builds that are tried. After each one the changes that do not compile are left out; if that many
/// are not enough, something else is wrong.
const ROUNDS_MAX: usize = 12;

/// A change of the code, and whether it compiles.
#[derive(Debug)]
pub(super) struct Mutant {
    /// Path of the changed file below the root.
    pub(super) file: String,
    /// The change as a person reads it, with the file and without the place.
    pub(super) name: String,
    /// The name, with a number if several changes have this name: `(2)`.
    pub(super) key: String,
    pub(super) compiles: bool,
}

/// The build with every change that compiles.
pub(super) struct Build {
    /// The changes. A change's number is its index plus one, so that none has the number 0.
    pub(super) mutants: Vec<Mutant>,
    /// The binary with the library's tests.
    pub(super) tests: PathBuf,
    /// The folder in which the tests run: the copy's own package.
    pub(super) package: PathBuf,
}

struct File {
    name: String,
    text: String,
    sites: Vec<Site>,
    numbers: Vec<Vec<usize>>,
}

/// The folder with copy, build and results.
pub(super) fn folder() -> PathBuf {
    target_dir().join("mutants")
}

/// Changes these files and builds them. `files` are paths below the root.
pub(super) fn build(files: &[String]) -> Result<Build> {
    let folder = folder();
    let tree = folder.join("tree");
    fs::create_dir_all(&tree)?;
    // The build script looks for its tools in this folder, see `compile`.
    let tools = folder.join("tools");
    if !tools.exists() {
        std::os::unix::fs::symlink(target_dir().join("tools"), &tools)?;
    }
    let (files, mut mutants) = read(files)?;
    let known_failures = folder.join("failures.txt");
    let failures: BTreeSet<String> = fs::read_to_string(&known_failures)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    let stamps: BTreeMap<&str, u64> =
        files.iter().map(|file| (&*file.name, stamp(&file.text))).collect();
    let line = |mutant: &Mutant| format!("{:016x} {}", stamps[&*mutant.file], mutant.key);
    for mutant in &mut mutants {
        mutant.compiles = !failures.contains(&line(mutant));
    }
    let replaced = files.iter().map(|file| file.name.clone()).collect();
    copy(root(), &tree, Path::new(""), &replaced)?;
    for round in 1..=ROUNDS_MAX {
        let rendered = write(&tree, &files, &mutants)?;
        let started = std::time::Instant::now();
        let compiled = compile(&folder, &tree)?;
        let seconds = started.elapsed().as_secs();
        let complaints = match compiled {
            Ok(tests) => {
                println!("mutants: built in {seconds} s");
                return Ok(Build { mutants, tests, package: tree.join("overlay-ctl") });
            }
            Err(complaints) => complaints,
        };
        let mut blamed = BTreeSet::new();
        for complaint in &complaints {
            for (name, rendered) in &rendered {
                let places = complaint.places.iter().filter(|(file, _)| file == name);
                let places: Vec<_> = places.map(|(_, range)| range.clone()).collect();
                if !places.is_empty() {
                    blamed.extend(rendered.blamed(&places));
                }
            }
        }
        if blamed.is_empty() {
            let texts: Vec<_> = complaints.iter().map(|complaint| &*complaint.text).collect();
            bail!("the tests do not compile, and not by a change:\n{}", texts.join("\n"));
        }
        println!("mutants: round {round}, {seconds} s: {} do not compile", blamed.len());
        for number in blamed {
            mutants[number as usize - 1].compiles = false;
        }
        let failed = mutants.iter().filter(|mutant| !mutant.compiles);
        let lines: Vec<String> = failed.map(line).collect();
        fs::write(&known_failures, lines.join("\n"))?;
    }
    bail!("after {ROUNDS_MAX} rounds the changed code still does not compile");
}

/// Reads the files with their places, and numbers all changes.
fn read(names: &[String]) -> Result<(Vec<File>, Vec<Mutant>)> {
    let (mut files, mut mutants) = (Vec::new(), Vec::<Mutant>::new());
    for name in names {
        let text = fs::read_to_string(root().join(name)).with_context(|| name.clone())?;
        let sites = find::sites(&text).with_context(|| name.clone())?;
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        let mut numbers = Vec::new();
        for site in &sites {
            let mut of_site = Vec::new();
            for change in &site.changes {
                let nth = times.entry(&change.name).and_modify(|times| *times += 1).or_insert(1);
                let full = format!("{name}: {}", change.name);
                let key = format!("{full} ({nth})");
                mutants.push(Mutant { file: name.clone(), name: full, key, compiles: true });
                of_site.push(mutants.len());
            }
            numbers.push(of_site);
        }
        files.push(File { name: name.clone(), text, sites, numbers });
    }
    Ok((files, mutants))
}

fn write(tree: &Path, files: &[File], mutants: &[Mutant]) -> Result<Vec<(String, Rendered)>> {
    let number = |&number: &usize| mutants[number - 1].compiles.then_some(number as u32);
    let mut all = Vec::new();
    for file in files {
        let numbers: Vec<Vec<_>> =
            file.numbers.iter().map(|of_site| of_site.iter().map(number).collect()).collect();
        let rendered = render::render(&file.text, &file.sites, &numbers);
        update(&tree.join(&file.name), rendered.text.as_bytes())?;
        all.push((file.name.clone(), rendered));
    }
    let runtime = include_str!("runtime.rs").replace("NUMBERS", &(mutants.len() + 1).to_string());
    update(&tree.join("overlay-ctl/src/mutation.rs"), runtime.as_bytes())?;
    let library = "overlay-ctl/src/lib.rs";
    let text = fs::read_to_string(root().join(library))? + "\nmod mutation;\n";
    update(&tree.join(library), text.as_bytes())?;
    Ok(all)
}

/// A compiler's error, and its places.
struct Complaint {
    places: Vec<(String, Range<usize>)>,
    text: String,
}

/// Builds the library's tests. Returns the binary, or the compiler's errors.
fn compile(folder: &Path, tree: &Path) -> Result<Result<PathBuf, Vec<Complaint>>> {
    let arguments = ["test", "--locked", "--package", "overlay-ctl", "--lib", "--no-run"];
    let mut command = cargo(arguments);
    command.args(["--message-format", "json-diagnostic-short", "--target-dir"]).arg(target_dir());
    // The profile differs from that of `cargo test`, which would otherwise take this build for its own. It
    // also builds faster.
    command.args(["--config", "profile.dev.package.overlay-ctl.debug=false"]);
    command.current_dir(tree).stdout(Stdio::piped());
    // The build script compiles the eBPF programs below this folder, so that those of the workspace itself
    // stay unchanged.
    command.env("CARGO_TARGET_DIR", folder);
    let mut child = command.spawn()?;
    let output = BufReader::new(child.stdout.take().context("cargo's output")?);
    let (mut complaints, mut tests) = (Vec::new(), None);
    for line in output.lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
        if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
            complaints.push(complaint(&message["message"]));
        }
        if let Some(executable) = message["executable"].as_str() {
            tests = Some(PathBuf::from(executable));
        }
    }
    let status = child.wait()?;
    match tests {
        Some(tests) if status.success() => Ok(Ok(tests)),
        _ if complaints.is_empty() => bail!("`{}` failed: {status}", command_line(&command)),
        _ => Ok(Err(complaints)),
    }
}

fn complaint(message: &Value) -> Complaint {
    let spans = message["spans"].as_array().map_or(&[][..], |spans| spans);
    // The primary span is the place of the error; others may show where a name is defined.
    let (first, others): (Vec<&Value>, Vec<&Value>) =
        spans.iter().partition(|span| span["is_primary"] == true);
    let places = first.into_iter().chain(others).filter_map(|span| {
        let mut span = span;
        // An error in a macro's expansion is reported where the macro is called.
        while !span["expansion"].is_null() {
            span = &span["expansion"]["span"];
        }
        let at = |name: &str| usize::try_from(span[name].as_u64()?).ok();
        Some((span["file_name"].as_str()?.to_owned(), at("byte_start")?..at("byte_end")?))
    });
    let text = message["rendered"].as_str().unwrap_or_default().to_owned();
    Complaint { places: places.collect(), text }
}

/// Makes a folder of the copy equal to the workspace's, except for files that are `replaced`. Equal files are
/// not written, because cargo compares their times.
fn copy(from: &Path, to: &Path, below: &Path, replaced: &BTreeSet<String>) -> Result<()> {
    let folder = to.join(below);
    fs::create_dir_all(&folder)?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from.join(below))? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if below == Path::new("") && (name == "target" || name == ".git") || kind.is_symlink() {
            continue;
        }
        let path = below.join(&name);
        names.insert(name);
        if kind.is_dir() {
            copy(from, to, &path, replaced)?;
        } else if !is_ours(&path) && !replaced.contains(&*path.to_string_lossy()) {
            update(&to.join(&path), &fs::read(entry.path())?)?;
        }
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !names.contains(&entry.file_name()) && !is_ours(&below.join(entry.file_name())) {
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Returns true for the files in the copy that `write` makes.
fn is_ours(path: &Path) -> bool {
    ["overlay-ctl/src/lib.rs", "overlay-ctl/src/mutation.rs"]
        .iter()
        .any(|ours| path == Path::new(ours))
}

fn update(file: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

fn stamp(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The command that runs the tests of a build. Its memory is limited, because a change may make a test use
/// all of it.
pub(super) fn test_command(build: &Build) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 8000000 && exec \"$@\"", "sh"]).arg(&build.tests);
    command.current_dir(&build.package).env("CARGO_MANIFEST_DIR", &build.package);
    // A failed property is enough, because nobody reads the smallest case.
    command.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
