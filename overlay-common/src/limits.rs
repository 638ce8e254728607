//! Rate limits: how they are configured, and the element of LIMITS. The invariants are those of the other entries.

/// Element of LIMITS: when an endpoint of this node may do again what is limited (see [`Limit`]). Each field is the
/// time, by `bpf_ktime_get_ns`, at which all that the endpoint has done so far is paid for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Broadcast and multicast frames that it sends.
    pub storm_ns: u64,
    /// Answers that it gets to packets that are too big; in slot 0 also the answers to other nodes' probes.
    pub answers_ns: u64,
    /// IPv6 addresses that it claims.
    pub claims_ns: u64,
}

/// A rate limit, as a token bucket. An event costs a time of `gap_ns`; a sender may be in debt for as many events as
/// `burst`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Mean time between two events, in nanoseconds; 0: there is no limit.
    pub gap_ns: u32,
    /// Events that may come at once.
    pub burst: u32,
}

impl Limit {
    /// No limit.
    pub const NONE: Self = Self { gap_ns: 0, burst: 0 };

    /// So many events a second, and as many at once as a tenth of a second allows; 0: there is no limit.
    #[must_use]
    pub const fn per_second(rate: u32) -> Self {
        match rate {
            0 => Self::NONE,
            rate => Self { gap_ns: 1_000_000_000 / rate, burst: rate / 10 + 1 },
        }
    }
}
