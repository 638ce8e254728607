//! The one place where a decision becomes an action and a count.

use crate::{
    event,
    maps::{CONFIG, METRICS, TRAFFIC},
};
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use core::hint::black_box;
use overlay_common::{
    CONFIG_FLOWS, CONFIG_MONITOR, Config, Counter, Direction, DropReason, Traffic, metric_index,
};

/// What a handler decided.
pub enum Decision {
    /// It is none of ours: the next program and the stack see it as it came.
    Pass,
    /// It is ours, and may go on: the next program and the stack see it as it came.
    Allow,
    /// A redirect helper's return value.
    Redirect(i32),
    /// Copies of it have gone out; the original ends here, and is no drop.
    Replicated,
    /// It was too big and is no more: in its place its sender gets word of it, by this return value of
    /// a redirect helper.
    Told(i32),
}

/// What a handler found out on its way, for who counts and tells.
#[derive(Default)]
pub struct Trace {
    pub vni: u32,
    /// The endpoint's place in TRAFFIC.
    pub slot: u32,
    /// The configuration, where it was looked up already.
    pub config: Option<&'static Config>,
}

/// Counts and acts. `len` is the frame's length as it came.
#[inline(always)]
pub fn finish(
    ctx: &TcContext,
    direction: Direction,
    len: u32,
    trace: Trace,
    decided: Result<Decision, DropReason>,
) -> i32 {
    #[cfg(feature = "log")]
    if let Some(reason) = reason_of(&decided) {
        crate::log::decided(ctx, direction, len, trace.vni, reason);
    }
    match decided {
        Ok(Decision::Pass) => TC_ACT_UNSPEC,
        Ok(Decision::Allow) => {
            forwarded(ctx, direction, len, trace);
            TC_ACT_UNSPEC
        }
        Ok(Decision::Redirect(TC_ACT_SHOT)) => {
            not_sent(direction, len, trace.slot);
            dropped(ctx, direction, len, trace.vni, DropReason::RedirectFailed)
        }
        Ok(Decision::Redirect(action)) => {
            forwarded(ctx, direction, len, trace);
            action
        }
        Ok(Decision::Replicated) => {
            forwarded(ctx, direction, len, trace);
            TC_ACT_SHOT
        }
        Ok(Decision::Told(action)) => {
            not_sent(direction, len, trace.slot);
            told(ctx, direction, len, trace.vni);
            action
        }
        Err(reason) => {
            not_sent(direction, len, trace.slot);
            dropped(ctx, direction, len, trace.vni, reason)
        }
    }
}

/// A decision's number in METRICS; `None` where it is not counted.
#[cfg(feature = "log")]
#[inline(always)]
fn reason_of(decided: &Result<Decision, DropReason>) -> Option<u32> {
    match decided {
        Ok(Decision::Pass) => None,
        Ok(Decision::Redirect(TC_ACT_SHOT)) => Some(DropReason::RedirectFailed as u32),
        Ok(Decision::Allow | Decision::Redirect(_) | Decision::Replicated) => Some(0),
        Ok(Decision::Told(_)) => Some(DropReason::TooBig as u32),
        Err(reason) => Some(*reason as u32),
    }
}

#[inline(always)]
fn count(reason: u32, direction: Direction, len: u32) {
    if let Some(counter) = METRICS.get_ptr_mut(metric_index(reason, direction)) {
        // SAFETY: the element is this CPU's own, and programs on one CPU do not interrupt each other.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(len);
        }
    }
}

/// Counts what went on, on a network with the endpoint whose it is, and tells of it where somebody
/// listens: while nobody does, that is one test of a flag.
#[inline(always)]
fn forwarded(ctx: &TcContext, direction: Direction, len: u32, trace: Trace) {
    match direction {
        Direction::FromEndpoint => traffic(trace.slot, len, |traffic| &mut traffic.sent),
        Direction::FromUnderlay => traffic(trace.slot, len, |traffic| &mut traffic.received),
        Direction::FromGateway | Direction::GuardUnderlay => count(0, direction, len),
    }
    if let Some(config) = trace.config.or_else(|| CONFIG.get(0))
        && config.flags & CONFIG_FLOWS != 0
    {
        event::forwarded(ctx, direction, len, trace.vni, config.sample);
    }
}

/// Counts what an endpoint of this node gets from another one.
#[inline(always)]
pub fn count_from_neighbour(slot: u32, len: u32) {
    traffic(slot, len, |traffic| &mut traffic.from_neighbours);
}

#[inline(always)]
fn traffic(slot: u32, len: u32, counter: impl FnOnce(&mut Traffic) -> &mut Counter) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(slot) {
        // SAFETY: the element is this CPU's own, and programs on one CPU do not interrupt each other.
        let counter = counter(unsafe { &mut *traffic });
        counter.packets += 1;
        counter.bytes += u64::from(len);
    }
}

/// Counts a copy or an attempt that failed while its packet goes on.
#[inline(always)]
pub fn count_drop(reason: DropReason, direction: Direction, len: u32) {
    count(reason as u32, direction, len);
}

/// Counts a packet in whose place its sender gets word of what became of it.
#[cold]
#[inline(never)]
fn told(ctx: &TcContext, direction: Direction, len: u32, vni: u32) {
    count(DropReason::TooBig as u32, direction, len);
    if is_monitored() {
        event::too_big(ctx, direction, len, vni);
    }
}

#[cold]
#[inline(never)]
fn dropped(ctx: &TcContext, direction: Direction, len: u32, vni: u32, reason: DropReason) -> i32 {
    let reason = forgotten(ctx, reason as u32);
    count(reason, direction, len);
    if is_monitored() {
        event::dropped(ctx, direction, len, vni, reason);
    }
    TC_ACT_SHOT
}

/// Counts what is dropped with its endpoint, where it comes from one.
#[inline(always)]
fn not_sent(direction: Direction, len: u32, slot: u32) {
    if matches!(direction, Direction::FromEndpoint) {
        count_not_sent(len, slot);
    }
}

#[cold]
#[inline(never)]
fn count_not_sent(len: u32, slot: u32) {
    traffic(slot, len, |traffic| &mut traffic.dropped);
}

#[inline(always)]
fn is_monitored() -> bool {
    CONFIG.get(0).is_some_and(|config| config.flags & CONFIG_MONITOR != 0)
}

/// The same number, of which the verifier knows nothing any more.
///
/// A number that it knows where a function is called, and that is compared behind the call, makes kernels
/// before 6.4 take every number of every way there for one that counts (mark_all_scalars_precise): no two
/// ways are the same then, and it walks each.
#[inline(always)]
pub fn forgotten(ctx: &TcContext, number: u32) -> u32 {
    let unknown = ctx.len();
    black_box(number ^ unknown) ^ unknown
}
