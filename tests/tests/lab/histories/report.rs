//! What a run did, and the table of all runs.

use std::{fmt, time::Duration};

use overlay_lab::tagged::Tally;

use super::{
    book::{Answer, Record},
    faults::Fault,
    verdict::Wrong,
};

/// One run.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) voters: usize,
    /// What each strike of the fault did.
    pub(super) strikes: Vec<String>,
    pub(super) counts: Counts,
    pub(super) names: usize,
    pub(super) traffic: Tally,
    pub(super) longest_gap: Duration,
    pub(super) wrong: Vec<Wrong>,
}

/// Calls by what they were answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) ok: usize,
    pub(super) failed: usize,
    pub(super) unknown: usize,
    /// Of those that succeeded, and of those that failed: what else a run must have seen to show anything.
    pub(super) made: usize,
    pub(super) removed: usize,
    pub(super) exists: usize,
}

/// So many of each a run has at least, a short one, too: names are given, taken away, and asked for twice.
const LEAST: usize = 5;

impl Counts {
    pub(super) fn of(records: &[Record]) -> Self {
        let mut counts = Self::default();
        for record in records {
            match record.answer {
                Answer::Made(_) | Answer::Removed { .. } | Answer::Shown { .. } => counts.ok += 1,
                Answer::Exists | Answer::Absent | Answer::Refused(_) => counts.failed += 1,
                Answer::Unknown(_) => counts.unknown += 1,
            }
            match record.answer {
                Answer::Made(_) => counts.made += 1,
                Answer::Removed { .. } => counts.removed += 1,
                Answer::Exists => counts.exists += 1,
                Answer::Shown { .. } | Answer::Absent | Answer::Refused(_) | Answer::Unknown(_) => {
                }
            }
        }
        counts
    }

    /// Returns false for a run that would show next to nothing, whatever the cluster did.
    pub(super) fn are_enough(&self) -> bool {
        self.made.min(self.removed).min(self.exists) >= LEAST
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { voters, strikes, counts, names, traffic, longest_gap, wrong } = self;
        let Counts { ok, failed, unknown, made, removed, exists } = counts;
        let Tally { sent, lost, misdelivered, .. } = traffic;
        write!(
            f,
            "{voters} voters, struck {} times ({}); {ok} calls succeeded ({made} made, {removed} removed), \
             {failed} were refused ({exists} as taken), {unknown} unknown, of {names} names; {sent} packets, {lost} lost, {misdelivered} \
             misdelivered; {:.1} s without a write; {} wrong",
            strikes.len(),
            strikes.join("; "),
            longest_gap.as_secs_f64(),
            wrong.len()
        )
    }
}

/// All runs of one fault.
#[derive(Debug, Default)]
struct Row {
    runs: usize,
    failed: usize,
    strikes: usize,
    counts: Counts,
    names: usize,
    traffic: Tally,
    longest_gap: Duration,
}

/// The runs of each fault.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<(&'static str, Row)>);

impl Table {
    /// Adds a run; one that could not be finished has no report.
    pub(super) fn add(&mut self, fault: Fault, report: Option<&Report>) {
        let name = fault.name();
        if self.0.iter().all(|(known, _)| *known != name) {
            self.0.push((name, Row::default()));
        }
        let Some((_, row)) = self.0.iter_mut().find(|(known, _)| *known == name) else { return };
        row.runs += 1;
        row.failed += usize::from(report.is_none_or(|report| !report.wrong.is_empty()));
        let Some(report) = report else { return };
        row.strikes += report.strikes.len();
        row.counts.ok += report.counts.ok;
        row.counts.failed += report.counts.failed;
        row.counts.unknown += report.counts.unknown;
        row.names += report.names;
        row.traffic.sent += report.traffic.sent;
        row.traffic.lost += report.traffic.lost;
        row.traffic.misdelivered += report.traffic.misdelivered;
        row.longest_gap = row.longest_gap.max(report.longest_gap);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14} {:>4} {:>6} {:>7} {:>7} {:>7} {:>7} {:>6} {:>9} {:>5} {:>6} {:>9}",
            "fault",
            "runs",
            "failed",
            "strikes",
            "ok",
            "refused",
            "unknown",
            "names",
            "packets",
            "lost",
            "wrong",
            "no write"
        )?;
        for (name, row) in &self.0 {
            let Row { runs, failed, strikes, counts, names, traffic, longest_gap } = row;
            let Counts { ok, failed: refused, unknown, .. } = counts;
            let Tally { sent, lost, misdelivered, .. } = traffic;
            writeln!(
                f,
                "{name:<14} {runs:>4} {failed:>6} {strikes:>7} {ok:>7} {refused:>7} {unknown:>7} {names:>6} \
                 {sent:>9} {lost:>5} {misdelivered:>6} {:>7.1} s",
                longest_gap.as_secs_f64()
            )?;
        }
        Ok(())
    }
}
