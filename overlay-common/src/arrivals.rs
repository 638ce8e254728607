//! How the TCP segments of a VTEP arrive: merged into super-packets, or one by one.
//!
//! The programs note it for each VTEP, and `from_veth` has the segments merged that arrive one by one. A super-packet is
//! not sent that way, and would overtake the segments before it; so one of them ends the merging, and it begins only
//! after a second without any.

/// How the TCP segments of a VTEP arrive: a part of an element of PATHS. All zero: nothing arrived yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// The tick in which something was noted last: see [`Arrivals::tick_at`].
    pub tick: u16,
    /// What arrived in that tick: the number of long segments that came alone, [`ENOUGH`] at most, or [`MERGED`].
    pub now: u8,
    /// The same of the tick before.
    pub before: u8,
}

/// So many long segments show that a VTEP's segments come alone.
pub const ENOUGH: u8 = 64;
/// A super-packet arrived.
pub const MERGED: u8 = u8::MAX;
/// Bytes of the shortest frame with outer headers that is a long segment. What is shorter is a message of its own, or the
/// end of one: it shows nothing, and little is gained by merging it.
pub const LONG: u32 = 1000;
/// Bits of nanoseconds in a tick, which makes it 1.07 seconds.
const TICK_BITS: u32 = 30;

impl Arrivals {
    /// The element of PATHS that is of no VTEP: its tick is the last one in which some VTEP's segments came alone.
    pub const OF_ALL: u32 = 0;

    /// Returns false if the segments of no VTEP can [come alone](Self::come_alone) in this tick, so that none need be
    /// looked up for what shows nothing. `self` is the element [`Arrivals::OF_ALL`].
    #[inline(always)]
    #[must_use]
    pub const fn some_come_alone(self, tick: u16) -> bool {
        // They go on coming alone for a tick after the last of them.
        tick.wrapping_sub(self.tick) <= 2
    }

    /// The tick at this time by `bpf_ktime_get_coarse_ns`. Ticks repeat after 19 hours; whatever was noted then takes
    /// effect for two ticks once more, at most.
    #[inline(always)]
    #[must_use]
    pub const fn tick_at(time_ns: u64) -> u16 {
        (time_ns >> TICK_BITS) as u16
    }

    /// After a super-packet arrived.
    #[inline(always)]
    #[must_use]
    pub const fn after_merged(self, tick: u16) -> Self {
        Self { now: MERGED, ..self.at(tick) }
    }

    /// After a segment arrived alone.
    #[inline(always)]
    #[must_use]
    pub const fn after_alone(self, tick: u16, len: u32) -> Self {
        let at = self.at(tick);
        // Neither more than enough nor a super-packet is counted further.
        if len < LONG || at.now >= ENOUGH {
            return at;
        }
        Self { now: at.now + 1, ..at }
    }

    /// Returns true if the VTEP's segments come alone: enough did in one tick, at least one in each tick since, and no
    /// super-packet arrived in this tick or in the one before.
    #[inline(always)]
    #[must_use]
    pub const fn come_alone(self) -> bool {
        self.now != MERGED && self.before != MERGED && (self.now == ENOUGH || self.before == ENOUGH)
    }

    #[inline(always)]
    const fn at(self, tick: u16) -> Self {
        match tick.wrapping_sub(self.tick) {
            0 => self,
            1 if self.come_alone() && self.now != 0 => Self { tick, now: 0, before: ENOUGH },
            1 => Self { tick, now: 0, before: self.now },
            _ => Self { tick, now: 0, before: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many segments of this length, each alone, in one tick.
    fn after(times: u32, len: u32, tick: u16, arrivals: Arrivals) -> Arrivals {
        (0..times).fold(arrivals, |arrivals, _| arrivals.after_alone(tick, len))
    }

    const FEW: u32 = ENOUGH as u32 - 1;

    #[test]
    fn enough_long_segments_come_alone_and_short_ones_show_nothing() {
        let none = Arrivals::default();
        assert!(!after(FEW, LONG, 7, none).come_alone());
        assert!(after(FEW + 1, LONG, 7, none).come_alone());
        assert!(after(1_000_000, LONG, 7, none).come_alone());
        assert!(!after(1_000_000, LONG - 1, 7, none).come_alone());
        let half = after(FEW, LONG, 7, none);
        assert!(!after(FEW, LONG, 8, half).come_alone(), "each tick for itself");
    }

    #[test]
    fn one_long_segment_a_tick_keeps_it_so() {
        let mut arrivals = after(FEW + 1, LONG, 0xfffe, Arrivals::default());
        for tick in [0xffff, 0, 1] {
            arrivals = after(5, 100, tick, arrivals);
            assert!(arrivals.come_alone(), "{tick}");
            arrivals = after(1, LONG, tick, arrivals);
        }
        let short = after(5, 100, 2, arrivals);
        assert!(short.come_alone() && !after(5, 100, 3, short).come_alone(), "none in tick 2");
        assert!(!after(1, LONG, 3, arrivals).come_alone(), "nothing at all in tick 2");
    }

    #[test]
    fn a_vtep_s_segments_come_alone_no_longer_than_some_do() {
        for last in [0, 7, u16::MAX] {
            let of_all = Arrivals { tick: last, ..Arrivals::default() };
            let alone = after(FEW + 1, LONG, last, Arrivals::default());
            for ticks in 0..5 {
                let tick = last.wrapping_add(ticks);
                let comes = after(1, 100, tick, alone).come_alone();
                assert!(of_all.some_come_alone(tick) || !comes, "{ticks} after {last}");
            }
            assert!(!of_all.some_come_alone(last.wrapping_add(3)));
        }
    }

    #[test]
    fn a_super_packet_counts_in_its_tick_and_in_the_next() {
        for before in [Arrivals::default(), after(FEW + 1, LONG, 7, Arrivals::default())] {
            let merged = before.after_merged(7);
            assert!(!merged.come_alone() && !after(1_000, LONG, 7, merged).come_alone());
            assert!(!after(1_000, LONG, 8, merged).come_alone());
            let later = after(1_000, LONG, 8, merged);
            assert!(after(1, 100, 9, later).come_alone(), "they came alone for a whole tick");
            assert!(after(1_000, LONG, 9, merged).come_alone());
        }
    }

    #[test]
    fn a_tick_is_a_second() {
        let second = 1_000_000_000;
        assert_eq!(Arrivals::tick_at(0), 0);
        assert_eq!(Arrivals::tick_at(second), 0);
        assert_eq!(Arrivals::tick_at(2 * second), 1);
        assert_eq!(
            Arrivals::tick_at(72_000 * second),
            Arrivals::tick_at(72_000 * second - (1 << 46))
        );
    }
}
