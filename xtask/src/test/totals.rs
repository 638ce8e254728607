//! Adding up what libtest says, and what the tests themselves say that could not run.

use std::ops::AddAssign;

/// How a guest hands a skipped test over, among its output; a line each.
pub(super) const SKIPPED: &str = "skipped-test: ";

/// Tests by how they ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Totals {
    /// Adds libtest's closing line, `test result: ok. 5 passed; 0 failed; 1 ignored; …`; no other line
    /// counts.
    pub(super) fn count(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let counted = result.split_once(". ").map_or("", |(_, counted)| counted);
        for part in counted.split("; ") {
            let Some((number, word)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Tests that said that they could not run; libtest has counted them as passed.
    pub(super) fn skip(&mut self, tests: u64) {
        self.passed = self.passed.saturating_sub(tests);
        self.skipped += tests;
    }

    /// As a line of the summary.
    pub(super) fn line(&self, name: &str, seconds: f64) -> String {
        let Self { passed, failed, skipped } = self;
        format!("{name:50} {passed:4} passed {failed:3} failed {skipped:3} skipped {seconds:7.1} s")
    }
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
        totals.count(
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
        );
        totals.count(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        totals.count("test model::tests::x ... ok");
        assert_eq!(totals, Totals { passed: 6, failed: 2, skipped: 1 });
    }

    #[test]
    fn a_test_that_skipped_itself_has_not_passed() {
        let mut totals = Totals { passed: 5, failed: 0, skipped: 1 };
        totals.skip(2);
        assert_eq!(totals, Totals { passed: 3, failed: 0, skipped: 3 });
    }
}
