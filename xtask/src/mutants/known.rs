//! The known survivors, from xtask/survivors.txt.

use std::collections::BTreeMap;

/// The number of changes with one name that may survive, and the reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) count: usize,
    pub(super) why: String,
}

/// The known survivors by name. A line is `NAME` or `NAME (x2)`, and indented lines below it give the reason.
pub(super) fn read(text: &str) -> BTreeMap<String, Known> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if line.starts_with(char::is_whitespace) {
            let why = &mut known.entry(last.clone()).or_default().why;
            why.push_str(if why.is_empty() { "" } else { " " });
            why.push_str(line.trim());
        } else {
            let (name, count) = counted(line);
            name.clone_into(&mut last);
            known.insert(last.clone(), Known { count, why: String::new() });
        }
    }
    known
}

fn counted(line: &str) -> (&str, usize) {
    let count = || {
        let (name, count) = line.strip_suffix(')')?.rsplit_once(" (x")?;
        Some((name, count.parse().ok()?))
    };
    count().unwrap_or((line, 1))
}

/// The line of the file for a name and a number.
pub(super) fn line(name: &str, count: usize) -> String {
    if count == 1 { name.to_owned() } else { format!("{name} (x{count})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_survivor_has_a_reason() {
        for (mutation, known) in read(include_str!("../../survivors.txt")) {
            assert!(!known.why.is_empty(), "{mutation}");
        }
    }

    #[test]
    fn survivors_are_read_with_their_reasons() {
        let known = read(
            "# head\n\na.rs: replace || with && in f (x2)\n    the other half is\n    never false\nb.rs: x\n  y\n",
        );
        let expected = [
            ("a.rs: replace || with && in f", 2, "the other half is never false"),
            ("b.rs: x", 1, "y"),
        ];
        let expected = expected
            .map(|(name, count, why)| (name.to_owned(), Known { count, why: why.to_owned() }));
        assert_eq!(known, expected.into());
        assert_eq!(line("b.rs: x", 1), "b.rs: x");
        assert_eq!(counted(&line("b.rs: x", 2)), ("b.rs: x", 2));
    }
}
