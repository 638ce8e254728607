//! Adds up the results of nextest and libtest, and the skips that tests themselves report.

use std::ops::AddAssign;

/// Numbers of tests, by result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Totals {
    /// Adds libtest's last line, `test result: ok. 5 passed; 0 failed; 1 ignored; …`. Other lines are
    /// ignored.
    pub(super) fn count_libtest(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        self.add(result.split_once(". ").map_or("", |(_, counted)| counted), "; ");
    }

    /// Adds nextest's last line, `Summary [ 2.0s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 7
    /// skipped`. Its skipped tests are those that the filter excluded.
    pub(super) fn count_nextest(&mut self, line: &str) {
        let line = line.trim_start();
        let counted = line.strip_prefix("Summary [").and_then(|rest| rest.split_once(" run: "));
        self.add(counted.map_or("", |(_, counted)| counted), ", ");
    }

    fn add(&mut self, counted: &str, separator: &str) {
        for part in without_remarks(counted).split(separator) {
            let Some((number, word)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" | "exec failed" | "timed out" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Counts tests as skipped that reported that they could not run, and that libtest has counted as passed.
    pub(super) fn skip(&mut self, tests: u64) {
        self.passed = self.passed.saturating_sub(tests);
        self.skipped += tests;
    }

    /// The error if fewer than `floor` tests passed.
    pub(super) fn below(&self, floor: u64) -> Option<String> {
        let passed = self.passed;
        (passed < floor).then(|| {
            format!(
                "{passed} passed, and {floor} have to: some were not run, or have gone (their floor is in \
                 xtask/src/test/rungs.rs)"
            )
        })
    }

    /// The line of the summary.
    pub(super) fn line(&self, name: &str, seconds: f64) -> String {
        let Self { passed, failed, skipped } = self;
        format!("{name:50} {passed:4} passed {failed:3} failed {skipped:3} skipped {seconds:7.1} s")
    }
}

/// The line without the texts in brackets, which contain commas.
fn without_remarks(line: &str) -> String {
    let mut depth = 0;
    line.chars()
        .filter(|&c| {
            depth += i32::from(c == '(');
            let outside = depth == 0;
            depth -= i32::from(c == ')');
            outside
        })
        .collect()
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_added_up() {
        let mut totals = Totals::default();
        totals.count_libtest(
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
        );
        totals.count_libtest(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        totals.count_libtest("test model::tests::x ... ok");
        assert_eq!(totals, Totals { passed: 6, failed: 2, skipped: 1 });
    }

    #[test]
    fn nextest_lines_are_added_up() {
        let mut totals = Totals::default();
        totals.count_nextest("     Summary [   2.000s] 5 tests run: 5 passed, 3 skipped");
        totals.count_nextest(
            "     Summary [  15.750s] 8/10 tests run: 5 passed (1 slow, 1 leaky), 2 failed, \
             1 exec failed, 1 timed out, 2 skipped",
        );
        totals.count_nextest("        PASS [   0.003s] overlay-ctl ipam::tests::x");
        assert_eq!(totals, Totals { passed: 10, failed: 4, skipped: 0 });
    }

    #[test]
    fn a_test_that_skipped_itself_has_not_passed() {
        let mut totals = Totals { passed: 5, failed: 0, skipped: 1 };
        totals.skip(2);
        assert_eq!(totals, Totals { passed: 3, failed: 0, skipped: 3 });
    }
}
