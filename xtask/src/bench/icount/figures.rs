//! The counted instructions, and their comparison with those that were accepted last.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    bench::dataplane::scene::{BESIDE, KERNEL, OURS, UNDERLAY},
    exec::root,
};

/// Path of the accepted figures in the repository.
const ACCEPTED: &str = "xtask/src/bench/icount/accepted.json";
/// Tolerance in per cent. The compared figure is the number of instructions that ours adds to the underlay's,
/// divided by the number that the kernel's VXLAN adds. Runs under the same kernel differ by less than a fifth
/// of the tolerance.
const WORSE_PERCENT: f64 = 1.0;
/// The tolerance if the accepted figures are from a different kernel, whose own path has changed too.
const WORSE_PERCENT_OTHER_KERNEL: f64 = 5.0;

/// The protocol by which a message of 64 bytes is exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(super) const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Goal for the instructions that ours adds to the underlay's, as a share of those that kernel VXLAN +
    /// bridge adds.
    fn goal(self) -> f64 {
        match self {
            Self::Tcp => 0.40,
            Self::Udp => 0.35,
        }
    }
}

/// Instructions of a message in one direction, by contestant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Figures {
    /// The guest's kernel.
    pub(super) kernel: String,
    pub(super) instructions: BTreeMap<Protocol, BTreeMap<String, f64>>,
}

impl Figures {
    fn of(&self, protocol: Protocol, contestant: &str) -> Result<f64> {
        let counted = self.instructions.get(&protocol).and_then(|counted| counted.get(contestant));
        counted.copied().with_context(|| format!("no figure of {contestant}, {}", protocol.name()))
    }

    /// The instructions that ours adds to the underlay's, as a share of those that the kernel adds.
    fn share(&self, protocol: Protocol) -> Result<f64> {
        let underlay = self.of(protocol, UNDERLAY)?;
        Ok((self.of(protocol, OURS)? - underlay) / (self.of(protocol, KERNEL)? - underlay))
    }

    /// Prints the figures as a table.
    pub(super) fn print(&self) {
        println!(
            "\ninstructions of a 64-byte message one way, both ends' user space included; kernel {}",
            self.kernel
        );
        for (&protocol, counted) in &self.instructions {
            println!("{}", protocol.name());
            let underlay = counted.get(UNDERLAY).copied().unwrap_or(f64::NAN);
            for name in [UNDERLAY, BESIDE, KERNEL, OURS] {
                let Some(instructions) = counted.get(name) else { continue };
                println!("  {name:24} {instructions:8.0}   {:+8.0}", instructions - underlay);
            }
            if let Ok(share) = self.share(protocol) {
                let reached = if share <= protocol.goal() { "reached" } else { "NOT reached" };
                println!(
                    "  ours adds {share:.3} of what the kernel adds; goal {:.2}: {reached}",
                    protocol.goal()
                );
            }
        }
    }

    /// Makes these figures the accepted ones, with which later figures are compared.
    pub(super) fn accept(&self) -> Result<()> {
        let path = accepted_path();
        let mut rounded = self.clone();
        for counted in rounded.instructions.values_mut() {
            counted.values_mut().for_each(|instructions| *instructions = instructions.round());
        }
        fs::write(&path, serde_json::to_string_pretty(&rounded)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("accepted: {ACCEPTED}");
        Ok(())
    }

    /// Fails if these figures are worse than the accepted ones.
    pub(super) fn gate(&self) -> Result<()> {
        let text = fs::read_to_string(accepted_path())
            .with_context(|| format!("cannot read {ACCEPTED}; --accept writes it"))?;
        let accepted: Self = serde_json::from_str(&text).with_context(|| ACCEPTED.to_owned())?;
        let worse = self.worse_than(&accepted)?;
        if !worse.is_empty() {
            bail!(
                "{}; if it must be, run again with --accept and say why in the commit",
                worse.join(", and ")
            );
        }
        println!("not worse than accepted (kernel {})", accepted.kernel);
        Ok(())
    }

    fn worse_than(&self, accepted: &Self) -> Result<Vec<String>> {
        let percent =
            if self.kernel == accepted.kernel { WORSE_PERCENT } else { WORSE_PERCENT_OTHER_KERNEL };
        let mut worse = Vec::new();
        for protocol in Protocol::ALL {
            let (now, then) = (self.share(protocol)?, accepted.share(protocol)?);
            if now > then * (1.0 + percent / 100.0) {
                worse.push(format!(
                    "{}: ours adds {now:.3} of what the kernel adds, more than the accepted \
                     {then:.3} by over {percent} %",
                    protocol.name()
                ));
            }
        }
        Ok(worse)
    }
}

fn accepted_path() -> PathBuf {
    root().join(ACCEPTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(kernel: &str, ours: f64) -> Figures {
        let counted: BTreeMap<String, f64> =
            [(UNDERLAY, 10_000.0), (KERNEL, 20_000.0), (OURS, ours)]
                .map(|(name, instructions)| (name.to_owned(), instructions))
                .into();
        let instructions = Protocol::ALL.map(|protocol| (protocol, counted.clone())).into();
        Figures { kernel: kernel.to_owned(), instructions }
    }

    #[test]
    fn one_per_cent_of_the_overhead_is_worse() {
        let accepted = figures("a", 14_000.0);
        let worse = |ours| figures("a", ours).worse_than(&accepted).expect("all are there").len();
        assert_eq!((worse(13_000.0), worse(14_030.0), worse(14_050.0)), (0, 0, 2));
    }

    #[test]
    fn another_kernel_has_more_room() {
        let accepted = figures("a", 14_000.0);
        let worse = |ours| figures("b", ours).worse_than(&accepted).expect("all are there").len();
        assert_eq!((worse(14_150.0), worse(14_250.0)), (0, 2));
    }
}
