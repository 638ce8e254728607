//! Tests that were skipped, and the skips that are allowed.

use std::{collections::BTreeSet, fmt};

/// A test that reported that it could not run. Its runner has counted it as passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skip {
    pub(super) test: String,
    pub(super) reason: String,
}

/// A skip that is no failure: of this test, under this series of kernels, for this reason.
struct Allowed {
    series: &'static str,
    test: &'static str,
    reason: &'static str,
}

/// The skips that are allowed because a kernel lacks a feature. A tool that the machine lacks is no reason,
/// because it can be installed.
const ALLOWED: &[Allowed] = &[];

/// The errors in the skips under a kernel of this series: skips that are not allowed, and allowed skips of
/// tests that ran.
pub(super) fn wrong(series: &str, skips: &[Skip], ran: &BTreeSet<String>) -> Vec<String> {
    judge(ALLOWED, series, skips, ran)
}

/// The number of these skips that are allowed.
pub(super) fn allowed(series: &str, skips: &[Skip]) -> u64 {
    skips.iter().filter(|skip| ALLOWED.iter().any(|allowed| allowed.is(series, skip))).count()
        as u64
}

fn judge(list: &[Allowed], series: &str, skips: &[Skip], ran: &BTreeSet<String>) -> Vec<String> {
    let surprising = skips
        .iter()
        .filter(|skip| !list.iter().any(|allowed| allowed.is(series, skip)))
        .map(|skip| format!("skipped, and not allowed to be under {series}: {skip}"));
    let stale = list
        .iter()
        .filter(|allowed| allowed.series == series && ran.contains(allowed.test))
        .filter(|allowed| !skips.iter().any(|skip| allowed.is(series, skip)))
        .map(|Allowed { test, reason, .. }| {
            format!("no longer skipped under {series}: strike {test} ({reason}) from the list")
        });
    surprising.chain(stale).collect()
}

impl Allowed {
    fn is(&self, series: &str, skip: &Skip) -> bool {
        self.series == series && self.test == skip.test && self.reason == skip.reason
    }
}

impl Skip {
    /// Parses a line of the file that OVERLAY_SKIPS names: the test, a tab, the reason.
    pub(super) fn from_file(line: &str) -> Self {
        let (test, reason) = line.split_once('\t').unwrap_or((line, ""));
        Self { test: test.to_owned(), reason: reason.to_owned() }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.test, self.reason)
    }
}

/// Finds the skips in libtest's output of tests that passed (`--show-output`).
#[derive(Default)]
pub(super) struct Reader {
    /// True while the outputs of passed tests are read.
    inside: bool,
    test: String,
    /// The tests that passed, including those that skipped themselves.
    pub(super) ran: BTreeSet<String>,
    pub(super) skips: Vec<Skip>,
}

impl Reader {
    /// Reads a line. Returns true if the line is worth showing.
    pub(super) fn read(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.inside = true,
            "failures:" => self.inside = false,
            _ if line.starts_with("test result: ") => self.inside = false,
            _ if self.inside => return self.read_output(line),
            _ => {
                let passed =
                    line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... ok"));
                self.ran.extend(passed.map(str::to_owned));
            }
        }
        !self.inside
    }

    fn read_output(&mut self, line: &str) -> bool {
        let title = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(test) = title {
            test.clone_into(&mut self.test);
            return false;
        }
        let Some(said) = line.strip_prefix("skipped: ") else { return false };
        let said = Skip::from_file(said);
        self.skips.push(Skip { test: self.test.clone(), reason: said.reason });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Allowed] =
        &[Allowed { series: "6.1", test: "live::tcx", reason: "no TCX before 6.6" }];

    fn skip(test: &str, reason: &str) -> Skip {
        Skip { test: test.to_owned(), reason: reason.to_owned() }
    }

    #[test]
    fn a_skip_is_allowed_for_its_kernel_its_test_and_its_reason() {
        let listed = skip("live::tcx", "no TCX before 6.6");
        let ran = BTreeSet::from(["live::tcx".to_owned()]);
        assert_eq!(judge(LIST, "6.1", std::slice::from_ref(&listed), &ran), [""; 0]);
        for (series, skip) in [
            ("6.12", listed),
            ("6.1", skip("live::other", "no TCX before 6.6")),
            ("6.1", skip("live::tcx", "no bpffs on /sys/fs/bpf")),
        ] {
            let wrong = judge(LIST, series, std::slice::from_ref(&skip), &BTreeSet::new());
            assert_eq!(wrong.len(), 1, "{series} {skip}");
        }
    }

    #[test]
    fn an_excuse_that_nobody_needs_is_struck() {
        let ran = BTreeSet::from(["live::tcx".to_owned()]);
        assert_eq!(judge(LIST, "6.1", &[], &ran).len(), 1);
        assert_eq!(judge(LIST, "6.1", &[], &BTreeSet::new()), [""; 0], "it was not asked to run");
        assert_eq!(judge(LIST, "6.12", &[], &ran), [""; 0]);
    }

    #[test]
    fn skips_are_found_among_outputs_and_only_there() {
        let mut reader = Reader::default();
        let shown: Vec<&str> =
            "test icc::a ... ok\nskipped: a\tb\n\nsuccesses:\n\n---- icc::a stdout ----\n\
            chatter\nskipped: tests/lab/support.rs:40\tno bpffs\n\nsuccesses:\n    icc::a\n\n\
            test result: ok. 1 passed; 0 failed"
                .lines()
                .filter(|line| reader.read(line))
                .collect();
        assert_eq!(reader.skips, [skip("icc::a", "no bpffs")]);
        assert_eq!(reader.ran, BTreeSet::from(["icc::a".to_owned()]));
        assert!(!shown.contains(&"chatter"), "{shown:?}");
        assert!(shown.contains(&"test icc::a ... ok"), "{shown:?}");
        assert!(shown.last().is_some_and(|line| line.starts_with("test result")), "{shown:?}");
    }
}
