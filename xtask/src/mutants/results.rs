//! The outcome of each change, in target/mutants/results.txt. It is written down at once, so that a run that
//! was stopped can be continued.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    time::UNIX_EPOCH,
};

use anyhow::Result;

use super::{
    tree::{self, Build, Mutant},
    trial::Outcome,
};

/// Outcomes by the mutant's index.
pub(super) type Outcomes = BTreeMap<usize, Outcome>;

/// The file of results, which is written from its beginning.
pub(super) struct Results(File);

impl Results {
    /// Begins the file with the known outcomes.
    pub(super) fn begin(build: &Build, known: &Outcomes) -> Result<Self> {
        let mut results = Self(File::create(path())?);
        writeln!(results.0, "{}", stamp(build)?)?;
        for (index, outcome) in known {
            results.add(&build.mutants[*index], outcome)?;
        }
        Ok(results)
    }

    pub(super) fn add(&mut self, mutant: &Mutant, outcome: &Outcome) -> Result<()> {
        let (word, test) = match outcome {
            Outcome::Noticed(test) => ("noticed", &**test),
            Outcome::TimedOut(test) => ("timed out", &**test),
            Outcome::Survived => ("survived", ""),
            Outcome::Unreached => ("unreached", ""),
        };
        Ok(writeln!(self.0, "{word}\t{}\t{test}", mutant.key)?)
    }
}

/// The outcomes of an earlier run that are still valid. After a change of code or tests, a survivor may be
/// noticed by a new test.
pub(super) fn read(build: &Build) -> Result<Outcomes> {
    let text = fs::read_to_string(path()).unwrap_or_default();
    let indices: BTreeMap<&str, usize> =
        build.mutants.iter().enumerate().map(|(index, mutant)| (&*mutant.key, index)).collect();
    let is_same = text.lines().next() == Some(&*stamp(build)?);
    let outcome = |line: &str| {
        let mut parts = line.split('\t');
        let (word, key, test) = (parts.next()?, parts.next()?, parts.next()?.to_owned());
        let outcome = match word {
            "noticed" => Outcome::Noticed(test),
            "timed out" => Outcome::TimedOut(test),
            "survived" if is_same => Outcome::Survived,
            "unreached" if is_same => Outcome::Unreached,
            _ => return None,
        };
        let index = *indices.get(key)?;
        build.mutants[index].compiles.then_some((index, outcome))
    };
    Ok(text.lines().skip(1).filter_map(outcome).collect())
}

fn path() -> PathBuf {
    tree::folder().join("results.txt")
}

/// A text that is different for each build.
fn stamp(build: &Build) -> Result<String> {
    let built = fs::metadata(&build.tests)?.modified()?;
    Ok(format!("{:?}", built.duration_since(UNIX_EPOCH)?))
}
