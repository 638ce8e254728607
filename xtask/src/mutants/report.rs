//! Reports the results of a run, and compares them with xtask/survivors.txt.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::{
    KNOWN,
    known::{self, Known},
    results::Outcomes,
    tree::Mutant,
    trial::Outcome,
};

/// Prints the report. Returns an error if a change survives that is not a known survivor, or if a known one
/// does not survive. `chosen` are indices.
pub(super) fn report(
    mutants: &[Mutant],
    chosen: &[usize],
    outcomes: &Outcomes,
    known: &BTreeMap<String, Known>,
) -> Result<()> {
    let count = |wanted: fn(&Outcome) -> bool| {
        chosen.iter().filter(|index| outcomes.get(index).is_some_and(wanted)).count()
    };
    let survivors = survivors(mutants, chosen, outcomes);
    let unreached = count(|outcome| *outcome == Outcome::Unreached);
    println!(
        "mutants: {} changes: {} noticed, {} more by a test that did not end, {} survive ({unreached} of them are \
         reached by no test), {} do not compile",
        chosen.len(),
        count(|outcome| matches!(outcome, Outcome::Noticed(_))),
        count(|outcome| matches!(outcome, Outcome::TimedOut(_))),
        count(|outcome| *outcome == Outcome::Survived) + unreached,
        chosen.iter().filter(|index| !mutants[**index].compiles).count()
    );
    let (mut new, mut gone) = (0, 0);
    for (name, &(count, is_reached)) in &survivors {
        if count > known.get(*name).map_or(0, |known| known.count) {
            new += 1;
            let note = if is_reached { "" } else { "  # no test reaches it" };
            println!("survives: {}{note}", known::line(name, count));
        }
    }
    let tried = tried_wholly(mutants, chosen);
    for (name, known) in known.iter().filter(|(name, _)| tried.contains(&***name)) {
        let count = survivors.get(&**name).map_or(0, |(count, _)| *count);
        if count < known.count {
            gone += 1;
            println!("{count} and not {} survive, correct {KNOWN}: {name}", known.count);
        }
    }
    if new > 0 {
        bail!("{new} changes were not noticed by any test: write one, or say in {KNOWN} why not");
    }
    if gone > 0 {
        bail!("{gone} changes of {KNOWN} are noticed");
    }
    Ok(())
}

/// The number of survivors by name, and whether a test reaches all of them.
fn survivors<'a>(
    mutants: &'a [Mutant],
    chosen: &[usize],
    outcomes: &Outcomes,
) -> BTreeMap<&'a str, (usize, bool)> {
    let mut survivors = BTreeMap::new();
    for index in chosen {
        let is_reached = match outcomes.get(index) {
            Some(Outcome::Survived) => true,
            Some(Outcome::Unreached) => false,
            _ => continue,
        };
        let (count, all_reached) = survivors.entry(&*mutants[*index].name).or_insert((0, true));
        *count += 1;
        *all_reached &= is_reached;
    }
    survivors
}

/// The names of which every change was chosen. Other names may have survivors among the changes that were not
/// chosen.
fn tried_wholly<'a>(mutants: &'a [Mutant], chosen: &[usize]) -> BTreeSet<&'a str> {
    let chosen: BTreeSet<usize> = chosen.iter().copied().collect();
    let is_left_out =
        |(index, mutant): &(usize, &Mutant)| mutant.compiles && !chosen.contains(index);
    let left_out = mutants.iter().enumerate().filter(is_left_out);
    let left_out: BTreeSet<&str> = left_out.map(|(_, mutant)| &*mutant.name).collect();
    let names = chosen.iter().map(|index| &*mutants[*index].name);
    names.filter(|name| !left_out.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(outcomes: &[Outcome], chosen: &[usize], known: &str) -> Result<()> {
        let mutant = |index: usize| Mutant {
            file: "a.rs".into(),
            name: "a.rs: x".into(),
            key: format!("a.rs: x ({index})"),
            compiles: true,
        };
        let mutants: Vec<_> = (0..outcomes.len()).map(mutant).collect();
        let outcomes = outcomes.iter().cloned().enumerate().collect();
        report(&mutants, chosen, &outcomes, &known::read(known))
    }

    #[test]
    fn survivors_are_as_many_as_are_known() {
        use Outcome::{Survived, TimedOut, Unreached};
        let outcomes = [Survived, TimedOut("t".into()), Unreached];
        assert!(judged(&outcomes, &[0, 1, 2], "a.rs: x (x2)\n  why").is_ok());
        assert!(judged(&outcomes, &[0, 1, 2], "a.rs: x\n  why").is_err());
        assert!(judged(&outcomes, &[0, 1, 2], "a.rs: x (x3)\n  why").is_err());
        assert!(judged(&outcomes, &[0, 1], "a.rs: x (x2)\n  why").is_ok(), "one was not tried");
    }
}
