//! What a voter measures of itself while it runs: how long its disk takes, what waits for its driver, and how old its
//! snapshot is. Whoever shows it reads it at any time, without a word to the driver.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A clock of which only differences mean something.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Upper bounds of the histogram's buckets. A good disk syncs within 1 ms; from 250 ms on it counts as slow.
const BOUNDS: [Duration; 12] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// How long a node's disk takes to write to the log, fsync included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskTimes {
    /// The number of writes since the node started.
    pub writes: u64,
    /// The average of their durations. A write counts for a quarter, and all before it for the rest, so that a few writes
    /// show that the disk has become slow, or fast again. Each counts as one second at most, so that a single one does not
    /// make a disk slow. Zero before the first write.
    pub average: Duration,
}

impl DiskTimes {
    /// Notes a write.
    pub(super) fn note(&mut self, took: Duration) {
        let took = took.min(Duration::from_secs(1));
        self.average = match self.writes {
            0 => took,
            _ => (self.average * 3 + took) / 4,
        };
        self.writes += 1;
    }
}

/// What a voter measures of itself. Clones share it.
#[derive(Clone)]
pub struct Measures {
    clock: Clock,
    inner: Arc<Inner>,
}

struct Inner {
    /// The number of writes by their duration; the last one is of those above all bounds.
    writes: [AtomicU64; BOUNDS.len() + 1],
    /// The sum of their durations in microseconds.
    write_us: AtomicU64,
    waiting: AtomicU64,
    refused: AtomicU64,
    /// When the last snapshot was stored, in microseconds of the clock; [`NEVER`] = not since the node started.
    snapshot_us: AtomicU64,
}

/// No time.
const NEVER: u64 = u64::MAX;

impl fmt::Debug for Measures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measures").field("writes", &self.writes()).finish_non_exhaustive()
    }
}

/// The writes to the log as a histogram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writes {
    /// Upper bounds in ascending order, and how many writes were above the bound before and not above this one.
    pub buckets: Vec<(Duration, u64)>,
    /// How many writes were above all bounds.
    pub above: u64,
    /// The sum of all durations.
    pub sum: Duration,
}

impl Writes {
    /// The number of all writes.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.above + self.buckets.iter().map(|(_, count)| count).sum::<u64>()
    }
}

impl Measures {
    pub(super) fn new(clock: Clock) -> Self {
        let inner = Inner {
            writes: std::array::from_fn(|_| AtomicU64::new(0)),
            write_us: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            snapshot_us: AtomicU64::new(NEVER),
        };
        Self { clock, inner: Arc::new(inner) }
    }

    /// The durations of the writes to the log since the node started.
    #[must_use]
    pub fn writes(&self) -> Writes {
        let counts = self.inner.writes.each_ref().map(|count| count.load(Ordering::Relaxed));
        Writes {
            buckets: BOUNDS.into_iter().zip(counts).collect(),
            above: counts[BOUNDS.len()],
            sum: Duration::from_micros(self.inner.write_us.load(Ordering::Relaxed)),
        }
    }

    /// The number of requests and messages that wait for the driver.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.inner.waiting.load(Ordering::Relaxed)
    }

    /// The number of requests and messages that were refused because too many waited, since the node started.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// How long ago the last snapshot was stored, of this node's state or the leader's; `None` = not since the node
    /// started.
    #[must_use]
    pub fn snapshot_age(&self) -> Option<Duration> {
        let at = self.inner.snapshot_us.load(Ordering::Relaxed);
        (at != NEVER).then(|| (self.clock)().saturating_sub(Duration::from_micros(at)))
    }

    pub(super) fn note_write(&self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        self.inner.writes[bucket].fetch_add(1, Ordering::Relaxed);
        self.inner.write_us.fetch_add(micros(took), Ordering::Relaxed);
    }

    pub(super) fn note_snapshot(&self) {
        self.inner.snapshot_us.store(micros((self.clock)()), Ordering::Relaxed);
    }

    /// Notes one more request that waits. It is noted before it does, so that it never goes before it came.
    pub(super) fn note_waits(&self) {
        self.inner.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a request waits no more.
    pub(super) fn note_taken(&self) {
        self.inner.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn note_refused(&self) {
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_few_writes_show_that_a_disk_has_changed() {
        let mut disk = DiskTimes::default();
        disk.note(8 * MS);
        assert_eq!(disk, DiskTimes { writes: 1, average: 8 * MS });
        disk.note(4 * MS);
        assert_eq!(disk, DiskTimes { writes: 2, average: 7 * MS });
        for _ in 0..5 {
            disk.note(1_500 * MS);
        }
        assert!(disk.average > 700 * MS, "{disk:?}");
        for _ in 0..7 {
            disk.note(5 * MS);
        }
        assert!(disk.average < 250 * MS, "{disk:?}");
        assert_eq!(disk.writes, 14);
        // One that took a minute.
        disk.note(60_000 * MS);
        for _ in 0..4 {
            disk.note(5 * MS);
        }
        assert!(disk.average < 250 * MS, "{disk:?}");
    }

    #[test]
    fn each_write_is_in_one_bucket() {
        let measures = Measures::new(Arc::new(Duration::default));
        for took in [Duration::ZERO, MS, MS, 3 * MS, 5_000 * MS] {
            measures.note_write(took);
        }
        let writes = measures.writes();
        let filled: Vec<_> = writes.buckets.iter().filter(|(_, count)| *count > 0).collect();
        let quarter = Duration::from_micros(250);
        assert_eq!(filled, [&(quarter, 1), &(MS, 2), &(5 * MS, 1)]);
        assert_eq!((writes.above, writes.count(), writes.sum), (1, 5, 5_005 * MS));
    }

    #[test]
    fn the_age_of_a_snapshot_is_known_once_there_was_one() {
        let now = Arc::new(AtomicU64::new(7));
        let seen = Arc::clone(&now);
        let clock = move || Duration::from_secs(seen.load(Ordering::Relaxed));
        let measures = Measures::new(Arc::new(clock));
        assert_eq!(measures.snapshot_age(), None);
        measures.note_snapshot();
        now.store(9, Ordering::Relaxed);
        assert_eq!(measures.snapshot_age(), Some(Duration::from_secs(2)));
    }
}
