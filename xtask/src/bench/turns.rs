//! Contestants in turns: within each round, metric by metric, so that what else the machine does hits
//! them alike.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use overlay_lab::check_interrupted;

use super::stats::Samples;

/// By metric and contestant.
pub(super) type Measured<M> = BTreeMap<M, BTreeMap<&'static str, Samples>>;

/// What a benchmark compares.
pub(super) trait Contest<C>: Copy + Ord {
    /// What is measured, and its unit.
    fn name(self) -> &'static str;
    /// Who is measured.
    fn contestant(of: &C) -> &'static str;
    /// One sample, over so many seconds.
    fn measure(self, contestant: &C, seconds: u32) -> Result<f64>;
}

/// Adds a sample a round of each metric and contestant, and prints it.
pub(super) fn take_turns<M: Contest<C>, C>(
    contestants: &[C],
    metrics: &[M],
    (rounds, seconds): (usize, u32),
    samples: &mut Measured<M>,
) -> Result<()> {
    for round in 1..=rounds {
        for &metric in metrics {
            for contestant in contestants {
                check_interrupted()?;
                let name = M::contestant(contestant);
                let sample = metric
                    .measure(contestant, seconds)
                    .with_context(|| format!("{name}: {}", metric.name()))?;
                println!("round {round}/{rounds}  {:40} {name:24} {sample:10.2}", metric.name());
                samples.entry(metric).or_default().entry(name).or_default().push(sample);
            }
        }
    }
    Ok(())
}
