//! The figures as text: a table for each row, and the goals.

use std::collections::BTreeMap;

use super::{
    Figures,
    rows::{Goal, Row},
    scene::{self, KERNEL},
    traffic::{CONGESTION_CONTROL, Series},
};

/// Prints the names of rows, and the goals of each.
pub(super) fn list(rows: &[Row]) {
    for row in rows {
        println!("{:20} {}", row.to_string(), row.title());
        for Goal { judged, base, bound } in row.goals() {
            println!("{:20}   {judged} {bound} x {base}", "");
        }
    }
}

/// The ratio of one contestant's figure to that of `base`.
pub(super) fn ratio(
    contestants: &BTreeMap<&'static str, Series>,
    (name, base): (&str, &str),
) -> Option<f64> {
    let (series, base) = (contestants.get(name)?, contestants.get(base)?);
    Some(series.figure.ratios_to(&base.figure).median())
}

impl Figures {
    /// The conditions of the measurement, in a line.
    pub(super) fn caption(&self) -> String {
        format!(
            "medians of {} interleaved rounds of {} s; ends pinned to a CPU each, CPUs kept awake; streams by {}; kernel {}",
            self.rounds, self.seconds, CONGESTION_CONTROL, self.kernel
        )
    }

    pub(super) fn print(&self) {
        println!(
            "\n{}; load average {} before, {} after",
            self.caption(),
            self.load_before,
            self.load_after
        );
        println!(
            "median [least .. greatest]; a ratio is the median of the rounds' own; CPU time is that of \
             both hosts\n"
        );
        for (row, contestants) in &self.samples {
            print!("{}", table(*row, contestants));
        }
        self.print_goals();
    }

    fn print_goals(&self) {
        println!("\ngoals");
        let (mut reached, mut count) = (0, 0);
        for (row, contestants) in &self.samples {
            for Goal { judged, base, bound } in row.goals() {
                let Some(ratio) = ratio(contestants, (judged, base)) else { continue };
                let is_reached = bound.is_reached_by(ratio);
                count += 1;
                reached += usize::from(is_reached);
                println!(
                    "  {:11} {ratio:5.2}  {judged:20} {bound} x {base:21} {row}",
                    if is_reached { "reached" } else { "NOT reached" },
                );
            }
        }
        println!("  {reached} of {count} reached");
    }
}

fn table(row: Row, contestants: &BTreeMap<&'static str, Series>) -> String {
    let base = row.place.base();
    let second = (base != KERNEL && contestants.contains_key(KERNEL)).then_some(KERNEL);
    let mut text = format!("{}\n", row.title());
    text += &format!("  {:22} {:>38}   {:>12}", "", "", format!("x {base}"));
    if second.is_some() {
        text += &format!("   {:>8}", "x kernel");
    }
    text += &format!("   {:>14}\n", format!("CPU {}", row.traffic.cpu_unit()));
    for name in scene::ALL {
        let Some(Series { figure, cpu }) = contestants.get(name) else { continue };
        let spread = format!("[{:.2} .. {:.2}]", figure.min(), figure.max());
        let times = |base| ratio(contestants, (name, base)).unwrap_or(f64::NAN);
        text +=
            &format!("  {name:22} {:12.2} {spread:>25}   {:12.2}", figure.median(), times(base));
        if let Some(second) = second {
            text += &format!("   {:8.2}", times(second));
        }
        text += &format!("   {:14.3}\n", cpu.median());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        dataplane::scene::{OURS, UNDERLAY},
        stats::Samples,
    };

    fn series(figures: &[f64]) -> Series {
        let figure: Samples = figures.iter().copied().collect();
        Series { cpu: figure.clone(), figure }
    }

    #[test]
    fn a_table_has_every_contestant_with_its_ratios() {
        let row = Row::matching(&["tcp-1-tso-1500".to_owned()])[0];
        let contestants = BTreeMap::from([
            (UNDERLAY, series(&[20.0, 40.0, 20.0])),
            (KERNEL, series(&[10.0, 20.0, 10.0])),
            (OURS, series(&[19.0, 38.0, 19.0])),
        ]);
        let text = table(row, &contestants);
        let ours = text.lines().find(|line| line.trim_start().starts_with(OURS)).unwrap();
        let words: Vec<&str> = ours.split_whitespace().collect();
        assert_eq!(words, ["ours", "19.00", "[19.00", "..", "38.00]", "0.95", "1.90", "19.000"]);
        assert_eq!(text.lines().count(), 5);
        assert_eq!(ratio(&contestants, (OURS, KERNEL)), Some(1.9));
    }
}
