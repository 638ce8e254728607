//! When the reconciler looks at the kernel.
//!
//! A view is followed at once, because somebody waits for it. The first event of a quiet time is acted on at once, too;
//! those that follow wait, so that a host on which something changes all the time costs no more than a share of a CPU. A look
//! that no event asks for is made every five seconds, less often on a node where it takes long. It is the floor: what no
//! event told of is found by it.

use super::Trigger;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The kernel is looked at this often, whatever events came: all devices, the small tables, and the next part of the
/// large ones.
pub(super) const RESYNC: Duration = Duration::from_secs(5);
/// Where a look takes long, the time between two is so many times as long as it took, and so many times what it took beyond
/// the second value, up to the last value. Of two looks the quicker one counts, since the other may have had something to
/// do, or had to wait for other programs.
const RESYNC_SHARE: u32 = 50;
const RESYNC_LONG: Duration = Duration::from_millis(100);
const RESYNC_LONG_SHARE: u32 = 200;
const RESYNC_MAX: Duration = Duration::from_secs(120);
/// A pass that failed, or that left something undone, is tried again after this long; after some attempts more seldom,
/// up to [`RESYNC`].
pub(super) const RETRY: Duration = Duration::from_millis(500);
const QUICK_RETRIES: u32 = 4;
/// The pause after a pass for an event, before the next such pass: this, and so many times as long as the pass took, up to
/// the last value. A pass that had much to do, as one that gives a thousand devices another MTU, holds up the next one no
/// longer than that.
const CALM: Duration = Duration::from_millis(200);
const CALM_SHARE: u32 = 4;
const CALM_MAX: Duration = Duration::from_secs(2);
/// After a look at what the way to the outside needs of the host's devices, the next one for an event waits so many times as
/// long as it took. Each address that anybody gives to a device is such an event.
const OUTSIDE_SHARE: u32 = 20;

/// The times at which the next passes are due.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// No pass for an event before this.
    calm_until: Instant,
    /// No look at the way to the outside for an event before this.
    outside_calm_until: Instant,
    /// The next look, unless something is to be tried again before.
    look_at: Instant,
    retry_at: Option<Instant>,
    /// How long the last look took.
    last_look: Duration,
    /// Passes in a row that failed or left something undone.
    failures: u32,
}

/// The clock by which passes are measured.
pub(super) fn now() -> Instant {
    Instant::now()
}

impl Rhythm {
    /// The first look is due at once.
    pub(super) fn begin() -> Self {
        Self {
            calm_until: now(),
            outside_calm_until: now(),
            look_at: now(),
            retry_at: None,
            last_look: Duration::ZERO,
            failures: 0,
        }
    }

    /// A pass ended.
    pub(super) fn ended(&mut self, trigger: &Trigger, begun: Instant, is_complete: bool) {
        self.ended_at(trigger, begun, now(), is_complete);
    }

    fn ended_at(&mut self, trigger: &Trigger, begun: Instant, ended: Instant, is_complete: bool) {
        let took = ended.duration_since(begun);
        match trigger {
            Trigger::Start | Trigger::NewView => {}
            Trigger::Changed(_) => {
                self.calm_until = ended + (CALM + took * CALM_SHARE).min(CALM_MAX);
            }
            Trigger::Periodic => {
                let usual = took.min(std::mem::replace(&mut self.last_look, took));
                self.look_at = ended + pause_after(usual);
            }
        }
        self.failures = if is_complete { 0 } else { self.failures.saturating_add(1) };
        self.retry_at = (!is_complete).then(|| ended + retry_pause(self.failures));
        if !is_complete {
            // A failed pass causes events of its own.
            self.calm_until = self.calm_until.max(ended + RETRY);
        }
    }

    /// Waits for an event, and until a pass for it is due.
    pub(super) async fn calm<T>(&self, event: impl Future<Output = T>) -> T {
        sleep_until(self.calm_until).await;
        event.await
    }

    /// A look at the way to the outside ended, which an event asked for.
    pub(super) fn outside_ended(&mut self, begun: Instant) {
        let ended = now();
        self.outside_calm_until = ended + ended.duration_since(begun) * OUTSIDE_SHARE;
    }

    /// Waits for an event about the way to the outside, and until a look for it is due.
    pub(super) async fn calm_outside<T>(&self, event: impl Future<Output = T>) -> T {
        sleep_until(self.outside_calm_until).await;
        event.await
    }

    /// Waits until a look is due that no event asked for.
    pub(super) async fn look(&self) {
        sleep_until(self.retry_at.map_or(self.look_at, |retry| retry.min(self.look_at))).await;
    }
}

/// The pause between two looks that take so long.
fn pause_after(look: Duration) -> Duration {
    let beyond = look.saturating_sub(RESYNC_LONG);
    let pause = look.saturating_mul(RESYNC_SHARE) + beyond.saturating_mul(RESYNC_LONG_SHARE);
    pause.clamp(RESYNC, RESYNC_MAX)
}

/// The pause before the next attempt, after so many that failed in a row.
fn retry_pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(QUICK_RETRIES).min(8);
    (RETRY * (1 << doublings)).min(RESYNC)
}

#[cfg(test)]
mod tests {
    use super::{super::Scope, *};

    const MS: Duration = Duration::from_millis(1);

    /// The rhythm after one pass that took so long, and the moment of its end.
    fn after(trigger: &Trigger, took: Duration, is_complete: bool) -> (Rhythm, Instant) {
        let mut rhythm = Rhythm::begin();
        let begun = rhythm.look_at;
        rhythm.ended_at(trigger, begun, begun + took, is_complete);
        (rhythm, begun + took)
    }

    #[test]
    fn events_get_a_share_of_the_time_and_views_are_not_held_up_by_them() {
        for (trigger, took, pause) in [
            (Trigger::Changed(Scope::whole()), Duration::ZERO, 200 * MS),
            (Trigger::Changed(Scope::ways()), 300 * MS, 1400 * MS),
            (Trigger::Changed(Scope::device(1)), 10_000 * MS, 2000 * MS),
        ] {
            let (rhythm, ended) = after(&trigger, took, true);
            assert_eq!(rhythm.calm_until - ended, pause, "{trigger:?}");
            assert_eq!(rhythm.retry_at, None);
        }
        for trigger in [Trigger::Start, Trigger::NewView, Trigger::Periodic] {
            let (rhythm, ended) = after(&trigger, 300 * MS, true);
            assert!(rhythm.calm_until <= ended, "after {trigger:?} an event is acted on at once");
        }
    }

    #[test]
    fn looks_are_rarer_where_they_take_long() {
        for (took, pause) in
            [(1, 5000), (100, 5000), (150, 17_500), (200, 30_000), (60_000, 120_000)]
        {
            let (mut rhythm, ended) = after(&Trigger::Periodic, took * MS, true);
            assert_eq!(rhythm.look_at - ended, RESYNC, "{took} ms, once");
            rhythm.ended_at(&Trigger::Periodic, ended, ended + took * MS, true);
            assert_eq!(rhythm.look_at - (ended + took * MS), pause * MS, "{took} ms, twice");
        }
        let (rhythm, _) = after(&Trigger::Changed(Scope::whole()), Duration::ZERO, true);
        assert!(rhythm.look_at <= now(), "a pass for an event is no look");
    }

    #[test]
    fn what_fails_on_and_on_is_tried_more_seldom() {
        let pauses: Vec<Duration> = [1, 4, 5, 6, 7, 8, u32::MAX].map(retry_pause).into();
        let wanted = [500, 500, 1000, 2000, 4000, 5000, 5000].map(|ms| ms * MS);
        assert_eq!(pauses, wanted);
        let (mut rhythm, ended) = after(&Trigger::Periodic, Duration::ZERO, false);
        assert_eq!(rhythm.retry_at, Some(ended + RETRY));
        assert_eq!(rhythm.calm_until, ended + RETRY, "its own events wait as long");
        rhythm.ended_at(&Trigger::Periodic, ended, ended, true);
        assert_eq!((rhythm.retry_at, rhythm.failures), (None, 0));
    }
}
