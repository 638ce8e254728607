//! Measures the contestants in turns, row by row within each round, so that other load of the machine hits
//! them equally.

use std::{collections::BTreeMap, fmt::Display};

use anyhow::{Context as _, Result};
use overlay_lab::check_interrupted;

/// Samples by row and contestant.
pub(super) type Measured<R, S> = BTreeMap<R, BTreeMap<&'static str, S>>;

/// A row of a benchmark: a figure that is compared, and the contestants that it is measured for.
pub(super) trait Contest<C>: Copy + Ord {
    /// The result of one measurement.
    type Sample: Display;
    /// The samples of all rounds.
    type Samples: Default + Extend<Self::Sample>;

    /// The name of the figure, and its unit.
    fn name(self) -> String;
    /// The contestant's name.
    fn contestant(of: &C) -> &'static str;
    /// Returns true if this contestant is measured in this row.
    fn includes(self, contestant: &C) -> bool;
    /// Takes one sample, for `seconds`.
    fn measure(self, contestant: &C, seconds: u32) -> Result<Self::Sample>;
}

/// Adds a sample of each row and contestant in each round, and prints it. Every second round goes backwards
/// through the contestants, so that none always follows the same one.
pub(super) fn take_turns<R: Contest<C>, C>(
    contestants: &[C],
    rows: &[R],
    (rounds, seconds): (usize, u32),
    samples: &mut Measured<R, R::Samples>,
) -> Result<()> {
    for round in 1..=rounds {
        for &row in rows {
            let mut order: Vec<&C> = contestants.iter().filter(|one| row.includes(one)).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for contestant in order {
                check_interrupted()?;
                let (row_name, name) = (row.name(), R::contestant(contestant));
                let sample = row
                    .measure(contestant, seconds)
                    .with_context(|| format!("{name}: {row_name}"))?;
                println!("round {round}/{rounds}  {row_name:50} {name:22} {sample:10.2}");
                samples.entry(row).or_default().entry(name).or_default().extend([sample]);
            }
        }
    }
    Ok(())
}
