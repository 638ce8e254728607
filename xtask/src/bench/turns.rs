//! Contestants in turns: within each round, row by row, so that what else the machine does hits them
//! alike.

use std::{collections::BTreeMap, fmt::Display};

use anyhow::{Context as _, Result};
use overlay_lab::check_interrupted;

/// By row and contestant.
pub(super) type Measured<R, S> = BTreeMap<R, BTreeMap<&'static str, S>>;

/// A row of a benchmark: what is compared, and by whom.
pub(super) trait Contest<C>: Copy + Ord {
    /// What one measurement gives.
    type Sample: Display;
    /// Many of them, one a round.
    type Samples: Default + Extend<Self::Sample>;

    /// What is measured, and its unit.
    fn name(self) -> String;
    /// Who is measured.
    fn contestant(of: &C) -> &'static str;
    /// Whether this contestant is measured in this row.
    fn includes(self, contestant: &C) -> bool;
    /// One sample, over so many seconds.
    fn measure(self, contestant: &C, seconds: u32) -> Result<Self::Sample>;
}

/// Adds a sample a round of each row and contestant, and prints it. Every other round goes backwards
/// through the contestants: none always follows the same one.
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
