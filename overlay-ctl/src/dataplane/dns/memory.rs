//! The memory for questions that wait for an answer of the host's resolvers: how much there is, and who may take how
//! much of it.
//!
//! A namespace may take as much as is left free. So one namespace alone gets half of the memory, two busy ones a third
//! each, and there is always room for a namespace that has asked nothing yet. A fixed number for each namespace would
//! be too small for one busy namespace, or too large for many.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use nix::sys::resource::{Resource, getrlimit};

/// Bytes that a pending question costs besides its message: its task, its socket in this process and in the kernel, and
/// the buffer of its answer.
const QUESTION: usize = 8 << 10;
/// Bytes of an answer that are counted in [`QUESTION`].
const ANSWER: usize = 4 << 10;
/// A pending question needs a descriptor, and some need two or three. The others of this many are left to the rest of
/// the node.
const DESCRIPTORS_SHARE: usize = 4;

/// The memory of all namespaces of a node.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: usize,
    used: AtomicUsize,
}

/// What one namespace has taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Share(Arc<AtomicUsize>);

/// The memory of one pending question, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    memory: Arc<Memory>,
    share: Share,
    bytes: usize,
}

impl Memory {
    /// `bytes`, or as much as the limit of open files is good for, if that is less.
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let questions = usize::try_from(open_files).unwrap_or(usize::MAX) / DESCRIPTORS_SHARE;
        let bytes = bytes.min(questions.saturating_mul(QUESTION));
        Arc::new(Self { bytes, used: AtomicUsize::new(0) })
    }

    /// Takes the memory for a question of `len` bytes whose answer may have `limit` bytes; `None` if the namespace has
    /// taken as much as is free.
    pub(super) fn take(self: &Arc<Self>, share: &Share, len: usize, limit: usize) -> Option<Place> {
        // The message is kept twice: as it came, and with the id that it is relayed under.
        let bytes = QUESTION + 2 * len + limit.saturating_sub(ANSWER);
        let own = share.0.load(Ordering::Relaxed);
        let fits = |used: usize| {
            let free = self.bytes.checked_sub(used)?;
            (own + bytes <= free).then_some(used + bytes)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        share.0.fetch_add(bytes, Ordering::Relaxed);
        Some(Place { memory: Arc::clone(self), share: share.clone(), bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.share.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(memory: &Arc<Memory>, share: &Share, len: usize) -> Vec<Place> {
        std::iter::from_fn(|| memory.take(share, len, 0)).collect()
    }

    fn memory(questions: usize) -> Arc<Memory> {
        Arc::new(Memory { bytes: questions * QUESTION, used: AtomicUsize::new(0) })
    }

    #[test]
    fn there_is_room_for_whoever_has_nothing_yet() {
        let memory = memory(120);
        let shares: [Share; 5] = std::array::from_fn(|_| Share::default());
        let mut taken: Vec<_> = shares[..4].iter().map(|share| fill(&memory, share, 0)).collect();
        let counts: Vec<_> = taken.iter().map(Vec::len).collect();
        assert_eq!(counts, [60, 30, 15, 8], "each takes as much as is left free");
        // The first one gives back what it had too much: the others follow, and all have the same.
        for _ in 0..8 {
            for (place, share) in shares[..4].iter().enumerate() {
                taken[place].clear();
                taken[place] = fill(&memory, share, 0);
            }
        }
        let counts: Vec<_> = taken.iter().map(Vec::len).collect();
        assert!(counts.iter().all(|count| (20..=28).contains(count)), "{counts:?}");
        assert!(memory.take(&shares[4], 0, ANSWER).is_some());
        taken.clear();
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
        assert_eq!(fill(&memory, &shares[4], 0).len(), 60, "all is given back");
    }

    #[test]
    fn a_long_question_takes_what_it_needs() {
        let memory = memory(1000);
        let long = fill(&memory, &Share::default(), usize::from(u16::MAX)).len();
        assert!(long * (QUESTION + 2 * usize::from(u16::MAX)) <= 500 * QUESTION, "{long}");
        assert!(long > 0);
    }
}
