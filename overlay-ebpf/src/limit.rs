//! Rate limits of one endpoint: of the broadcast and multicast frames that it sends, and of the answers that it gets.
//!
//! A token bucket with one number (the generic cell rate algorithm, ITU-T I.371): the time at which all events so far
//! are paid for. Two CPUs that count at once may let one event too many through. Endpoints without a slot of their own
//! share the limits of slot 0, and so do the answers to probes.

use crate::maps::LIMITS;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use overlay_common::{Limit, Limits};

/// Takes an event of the endpoint with this slot, and returns whether the limit allows it. `which` is the endpoint's
/// own number.
#[inline(always)]
pub fn allows(limit: Limit, slot: u32, which: impl FnOnce(&mut Limits) -> &mut u64) -> bool {
    if limit.gap_ns == 0 {
        return true;
    }
    let Some(limits) = LIMITS.get_ptr_mut(slot) else { return true };
    // SAFETY: the element is valid while the program runs; every value of the number is a time.
    let paid = which(unsafe { &mut *limits });
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let gap = u64::from(limit.gap_ns);
    let ahead = paid.saturating_sub(now);
    if ahead + gap > gap * u64::from(limit.burst) {
        return false;
    }
    *paid = now + ahead + gap;
    true
}
