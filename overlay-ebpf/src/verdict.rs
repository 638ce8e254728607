//! The place where a decision becomes an action and a count.

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
    CONFIG_FLOWS, CONFIG_MONITOR, Config, Counter, Direction, DropReason, FORWARDED, Traffic,
    metric_index,
};

/// What a handler decided.
pub enum Decision {
    /// The packet is none of ours: the next program and the stack see it as it came. It is not counted.
    Pass,
    /// The packet is ours, and may go on: the next program and the stack see it as it came.
    Allow,
    /// The packet was redirected; this is the return value of the helper.
    Redirect(i32),
    /// Copies of the packet were sent; the original ends here, and does not count as a drop.
    Replicated,
    /// The packet was too big. It was turned into the answer that tells its sender so, and redirected; this
    /// is the return value of the helper.
    AnsweredTooBig(i32),
}

/// What a handler found out about the packet, for the count and the monitor.
#[derive(Default)]
pub struct Trace {
    pub vni: u32,
    /// The endpoint's index in TRAFFIC.
    pub slot: u32,
    /// The configuration, if it was looked up already.
    pub config: Option<&'static Config>,
}

/// Counts the packet and returns its action. `len` is the frame's length as it came.
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
        // The kernel's tracepoint of drops shows the original. TC_ACT_STOLEN would be silent, but TCX takes it for
        // "the next program decides" (tcx_action_code, kernel 6.6), and the host's stack would get the frame.
        Ok(Decision::Replicated) => {
            forwarded(ctx, direction, len, trace);
            TC_ACT_SHOT
        }
        Ok(Decision::AnsweredTooBig(action)) => {
            not_sent(direction, len, trace.slot);
            answered_too_big(ctx, direction, len, trace.vni);
            action
        }
        Err(reason) => {
            not_sent(direction, len, trace.slot);
            dropped(ctx, direction, len, trace.vni, reason)
        }
    }
}

/// A decision's number in METRICS; `None` if it is not counted.
#[cfg(feature = "log")]
#[inline(always)]
fn reason_of(decided: &Result<Decision, DropReason>) -> Option<u32> {
    match decided {
        Ok(Decision::Pass) => None,
        Ok(Decision::Redirect(TC_ACT_SHOT)) => Some(DropReason::RedirectFailed as u32),
        Ok(Decision::Allow | Decision::Redirect(_) | Decision::Replicated) => Some(FORWARDED),
        Ok(Decision::AnsweredTooBig(_)) => Some(DropReason::TooBig as u32),
        Err(reason) => Some(*reason as u32),
    }
}

/// Counts a packet under the number of a reason.
#[inline(always)]
pub fn count(reason: u32, direction: Direction, len: u32) {
    count_times(1, reason, direction, len);
}

#[inline(always)]
fn count_times(times: u32, reason: u32, direction: Direction, len: u32) {
    if let Some(counter) = METRICS.get_ptr_mut(metric_index(reason, direction)) {
        // SAFETY: the element is this CPU's own, and programs on one CPU do not interrupt each other.
        unsafe {
            (*counter).packets += u64::from(times);
            (*counter).bytes += u64::from(times) * u64::from(len);
        }
    }
}

/// Counts a packet that was forwarded: on a network, in the endpoint's slot. Tells the monitor of it, which
/// costs one test of a flag while nobody listens.
#[inline(always)]
fn forwarded(ctx: &TcContext, direction: Direction, len: u32, trace: Trace) {
    match direction {
        Direction::FromEndpoint => traffic(trace.slot, len, |traffic| &mut traffic.sent),
        Direction::FromUnderlay => traffic(trace.slot, len, |traffic| &mut traffic.received),
        Direction::FromGateway | Direction::GuardUnderlay => count(FORWARDED, direction, len),
    }
    if let Some(config) = trace.config.or_else(|| CONFIG.get(0))
        && config.flags & CONFIG_FLOWS != 0
    {
        event::forwarded(ctx, direction, len, trace.vni, config.sample);
    }
}

/// Counts a packet that an endpoint of this node receives from another one.
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

/// Counts a drop that is not the verdict of a program at TC: of a copy whose packet goes on, or at XDP.
#[inline(always)]
pub fn count_drop(reason: DropReason, direction: Direction, len: u32) {
    count(reason as u32, direction, len);
}

/// Counts drops of so many copies of one packet.
#[inline(always)]
pub fn count_drops(copies: u32, reason: DropReason, direction: Direction, len: u32) {
    count_times(copies, reason as u32, direction, len);
}

/// Counts a packet that was too big, and in whose place its sender got an answer.
#[cold]
#[inline(never)]
fn answered_too_big(ctx: &TcContext, direction: Direction, len: u32, vni: u32) {
    count(DropReason::TooBig as u32, direction, len);
    if is_monitored() {
        event::too_big(ctx, direction, len, vni);
    }
}

#[cold]
#[inline(never)]
fn dropped(ctx: &TcContext, direction: Direction, len: u32, vni: u32, reason: DropReason) -> i32 {
    let reason = opaque_to_verifier(ctx, reason as u32);
    count(reason, direction, len);
    if is_monitored() {
        event::dropped(ctx, direction, len, vni, reason);
    }
    TC_ACT_SHOT
}

/// Counts a drop in the slot of the endpoint that the packet came from, if it came from one.
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

/// Returns `number` in such a way that the verifier no longer knows its value.
///
/// If the verifier knows a number where a function is called, and the number is compared after the call,
/// kernels before 6.4 treat every number on every path to it as significant (mark_all_scalars_precise). Then no
/// two paths are equal, and the verifier walks each.
#[inline(always)]
pub fn opaque_to_verifier(ctx: &TcContext, number: u32) -> u32 {
    // The verifier knows nothing of a packet's length.
    let unknown = ctx.len();
    black_box(number ^ unknown) ^ unknown
}
