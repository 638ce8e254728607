//! What became of each change, in target/mutants/results.txt: written down at once, so that a run that is ended can be
//! gone on with.

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

/// By a mutant's index.
pub(super) type Outcomes = BTreeMap<usize, Outcome>;

/// The file of results, from its beginning.
pub(super) struct Results(File);

impl Results {
    /// Begins with what is known.
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

/// What an earlier run wrote down, as far as it still holds: a test may be new that notices what survived.
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

/// Tells one build from another.
fn stamp(build: &Build) -> Result<String> {
    let built = fs::metadata(&build.tests)?.modified()?;
    Ok(format!("{:?}", built.duration_since(UNIX_EPOCH)?))
}
