//! What became of the questions that endpoints asked, as counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was about a name of the overlay, and answered from the names that the node knows.
    Answered,
    /// It was answered by one of the host's resolvers.
    Relayed,
    /// It was refused, because the namespace has no way out.
    Refused,
    /// It was malformed, or of a kind that the resolver does not serve.
    Unsupported,
    /// It was not relayed, because too many questions were pending.
    OverLimit,
    /// It was not relayed, because a resolver of the host sends questions back to this node.
    Loop,
    /// No resolver of the host answered in time.
    Unanswered,
}

impl Fate {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Answered,
        Self::Relayed,
        Self::Refused,
        Self::Unsupported,
        Self::OverLimit,
        Self::Loop,
        Self::Unanswered,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Relayed => "relayed",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::OverLimit => "over_limit",
            Self::Loop => "loop",
            Self::Unanswered => "unanswered",
        }
    }
}

/// The counts of all namespaces of a node, since the node started. Each question is counted once.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; Fate::ALL.len()]);

impl Counts {
    /// Counts a question.
    pub(super) fn add(&self, fate: Fate) {
        self.0[fate as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The number of questions with this fate.
    #[must_use]
    pub fn get(&self, fate: Fate) -> u64 {
        self.0[fate as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fate_has_its_own_count_and_name() {
        let counts = Counts::default();
        for (times, fate) in Fate::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counts.add(fate));
        }
        let read = Fate::ALL.map(|fate| counts.get(fate));
        assert_eq!(read, [0, 1, 2, 3, 4, 5, 6]);
        let names: std::collections::BTreeSet<_> = Fate::ALL.map(Fate::name).into();
        assert_eq!(names.len(), Fate::ALL.len());
    }
}
