//! What a voter measures of itself while it runs: how long its disk takes, what waits for its driver, how old and large its
//! snapshot is, and when it heard the other members. Whoever shows it reads it at any time, without a word to the driver.

use super::ProposeError;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
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
    /// The duration of the last write in microseconds.
    last_write_us: AtomicU64,
    /// When the last write ended, in microseconds of the clock; [`NEVER`] = none since the node started.
    written_us: AtomicU64,
    /// When the last snapshot was stored, in microseconds of the clock; [`NEVER`] = not since the node started.
    snapshot_us: AtomicU64,
    /// The length of the stored snapshot in bytes.
    snapshot_bytes: AtomicU64,
    /// How long this node took to make its last snapshot, in microseconds; [`NEVER`] = it made none since it started.
    snapshot_took_us: AtomicU64,
    leader_changes: AtomicU64,
    /// The proposals that failed, by [`ProposeError::REASONS`].
    failed: [AtomicU64; ProposeError::REASONS.len()],
    /// By the member's Raft id.
    contacts: Mutex<BTreeMap<u64, Contact>>,
}

/// When this node heard another member, and how that one keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contact {
    /// How long ago the member was heard; `None` = not since this node started.
    pub heard: Option<Duration>,
    /// If this node leads: for how long the member has taken none of the committed entries that it lacks. Zero = it lacks none,
    /// or has just taken some.
    pub stuck: Duration,
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
            last_write_us: AtomicU64::new(0),
            written_us: AtomicU64::new(NEVER),
            snapshot_us: AtomicU64::new(NEVER),
            snapshot_bytes: AtomicU64::new(0),
            snapshot_took_us: AtomicU64::new(NEVER),
            leader_changes: AtomicU64::new(0),
            failed: std::array::from_fn(|_| AtomicU64::new(0)),
            contacts: Mutex::default(),
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

    /// How long the last write to the log took; zero before the first one.
    #[must_use]
    pub fn last_write(&self) -> Duration {
        Duration::from_micros(self.inner.last_write_us.load(Ordering::Relaxed))
    }

    /// How long ago the last write to the log ended; `None` = there was none since the node started.
    #[must_use]
    pub fn last_write_age(&self) -> Option<Duration> {
        self.since(&self.inner.written_us)
    }

    /// The length of the stored snapshot in bytes; 0 = there is none.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        self.inner.snapshot_bytes.load(Ordering::Relaxed)
    }

    /// How long this node took to make and store its last snapshot, during which it did nothing else; `None` = it made none
    /// since it started.
    #[must_use]
    pub fn snapshot_took(&self) -> Option<Duration> {
        let took = self.inner.snapshot_took_us.load(Ordering::Relaxed);
        (took != NEVER).then(|| Duration::from_micros(took))
    }

    /// How often this node saw a leader begin to lead, since it started.
    #[must_use]
    pub fn leader_changes(&self) -> u64 {
        self.inner.leader_changes.load(Ordering::Relaxed)
    }

    /// How many proposals of this node failed since it started, by the reason.
    #[must_use]
    pub fn failed_proposals(&self) -> Vec<(&'static str, u64)> {
        let counts = self.inner.failed.iter().map(|count| count.load(Ordering::Relaxed));
        ProposeError::REASONS.into_iter().zip(counts).collect()
    }

    /// The other members, by their Raft ids: when each was heard, and how it keeps up. To a tenth of a second or so.
    #[must_use]
    pub fn contacts(&self) -> BTreeMap<u64, Contact> {
        self.inner.contacts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long ago the last snapshot was stored, of this node's state or the leader's; `None` = not since the node
    /// started.
    #[must_use]
    pub fn snapshot_age(&self) -> Option<Duration> {
        self.since(&self.inner.snapshot_us)
    }

    /// How long ago that was, if ever.
    fn since(&self, at_us: &AtomicU64) -> Option<Duration> {
        let at = at_us.load(Ordering::Relaxed);
        (at != NEVER).then(|| (self.clock)().saturating_sub(Duration::from_micros(at)))
    }

    pub(super) fn note_write(&self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        self.inner.writes[bucket].fetch_add(1, Ordering::Relaxed);
        self.inner.write_us.fetch_add(micros(took), Ordering::Relaxed);
        self.inner.last_write_us.store(micros(took), Ordering::Relaxed);
        self.inner.written_us.store(micros((self.clock)()), Ordering::Relaxed);
    }

    pub(super) fn note_leader(&self) {
        self.inner.leader_changes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_failed(&self, error: &ProposeError) {
        if let Some(position) = ProposeError::REASONS.iter().position(|it| *it == error.reason()) {
            self.inner.failed[position].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn note_contacts(&self, contacts: BTreeMap<u64, Contact>) {
        *self.inner.contacts.lock().unwrap_or_else(PoisonError::into_inner) = contacts;
    }

    pub(super) fn note_snapshot_bytes(&self, bytes: usize) {
        self.inner.snapshot_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn note_snapshot_took(&self, took: Duration) {
        self.inner.snapshot_took_us.store(micros(took), Ordering::Relaxed);
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
        assert_eq!(measures.last_write(), 5_000 * MS);
    }

    #[test]
    fn each_failure_is_counted_under_its_reason() {
        let measures = Measures::new(Arc::new(Duration::default));
        let stalled = ProposeError::Stalled { is_logged: true };
        let failures = [ProposeError::NotLeader { leader: None }, stalled.clone(), stalled];
        failures.iter().for_each(|error| measures.note_failed(error));
        let counted = measures.failed_proposals().into_iter().filter(|(_, count)| *count > 0);
        assert_eq!(counted.collect::<Vec<_>>(), [("not_leader", 1), ("stalled", 2)]);
    }

    #[test]
    fn the_age_of_a_snapshot_and_of_a_write_is_known_once_there_was_one() {
        let now = Arc::new(AtomicU64::new(7));
        let seen = Arc::clone(&now);
        let clock = move || Duration::from_secs(seen.load(Ordering::Relaxed));
        let measures = Measures::new(Arc::new(clock));
        assert_eq!((measures.snapshot_age(), measures.last_write_age()), (None, None));
        measures.note_snapshot();
        measures.note_write(MS);
        now.store(9, Ordering::Relaxed);
        let ago = Some(Duration::from_secs(2));
        assert_eq!((measures.snapshot_age(), measures.last_write_age()), (ago, ago));
    }
}
