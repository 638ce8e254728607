//! The one place where a decision becomes an action and a count.

use crate::{
    frame,
    headers::{ETH_P_ARP, ETH_P_IP, Ethernet},
    maps::{EVENTS, METRICS, TRAFFIC, config},
};
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_ktime_get_ns,
    programs::TcContext,
};
use overlay_common::{
    CONFIG_MONITOR, Counter, Direction, DropEvent, DropReason, IP16_NONE, Traffic, VXLAN_OVERHEAD,
    ip16_from_v4, metric_index,
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
    match decided {
        Ok(Decision::Pass) => TC_ACT_UNSPEC,
        Ok(Decision::Allow) => {
            count(0, direction, len);
            TC_ACT_UNSPEC
        }
        Ok(Decision::Redirect(TC_ACT_SHOT)) => {
            dropped(ctx, direction, len, trace, DropReason::RedirectFailed)
        }
        Ok(Decision::Redirect(action)) => {
            forwarded(direction, len, &trace);
            action
        }
        Ok(Decision::Replicated) => {
            forwarded(direction, len, &trace);
            TC_ACT_SHOT
        }
        Ok(Decision::Told(action)) => {
            dropped(ctx, direction, len, trace, DropReason::TooBig);
            action
        }
        Err(reason) => dropped(ctx, direction, len, trace, reason),
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

/// Counts what went on: on a network, with the endpoint whose it is.
#[inline(always)]
fn forwarded(direction: Direction, len: u32, trace: &Trace) {
    match direction {
        Direction::FromEndpoint => traffic(trace.slot, len, |traffic| &mut traffic.sent),
        Direction::FromUnderlay => traffic(trace.slot, len, |traffic| &mut traffic.received),
        Direction::FromGateway | Direction::GuardUnderlay => count(0, direction, len),
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

#[cold]
#[inline(never)]
fn dropped(
    ctx: &TcContext,
    direction: Direction,
    len: u32,
    trace: Trace,
    reason: DropReason,
) -> i32 {
    count(reason as u32, direction, len);
    if config().is_some_and(|config| config.flags & CONFIG_MONITOR != 0) {
        emit(ctx, direction, len, trace.vni, reason);
    }
    TC_ACT_SHOT
}

/// Tells whoever monitors. A full ring loses the event, never the count.
#[inline(always)]
fn emit(ctx: &TcContext, direction: Direction, len: u32, vni: u32, reason: DropReason) {
    let Some(mut slot) = EVENTS.reserve(0) else { return };
    // Filled in place: fields lie as they come in a packet, and the stack takes aligned words only.
    slot.write(DropEvent {
        // SAFETY: no preconditions.
        time_ns: unsafe { bpf_ktime_get_ns() },
        reason: reason as u32,
        direction: direction as u32,
        vni,
        ifindex: frame::ifindex(ctx),
        len,
        ethertype: 0,
        pad: 0,
        src_ip: IP16_NONE,
        dst_ip: IP16_NONE,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        pad2: [0; 4],
    });
    // SAFETY: written whole above.
    let event = unsafe { slot.assume_init_mut() };
    describe(ctx, direction, event);
    slot.submit(0);
}

/// What can be read of the frame: it may have lost its outer headers already, or be too short. From
/// an endpoint, the packet's addresses; from the underlay, the VTEPs', and the inner MACs.
#[inline(always)]
fn describe(ctx: &TcContext, direction: Direction, event: &mut DropEvent) {
    let inner = match direction {
        Direction::FromEndpoint | Direction::FromGateway => 0,
        Direction::FromUnderlay | Direction::GuardUnderlay => usize::from(VXLAN_OVERHEAD),
    };
    if let Ok(eth) = frame::header::<Ethernet>(ctx, inner) {
        event.dst_mac = eth.dst;
        event.src_mac = eth.src;
        event.ethertype = eth.ethertype();
    }
    let (src, dst) = match (direction, event.ethertype) {
        (Direction::FromUnderlay, _) | (_, ETH_P_IP) => (26, 30),
        (_, ETH_P_ARP) => (28, 38),
        _ => return,
    };
    if let Ok(address) = frame::header::<[u8; 4]>(ctx, src) {
        event.src_ip = ip16_from_v4(*address);
    }
    if let Ok(address) = frame::header::<[u8; 4]>(ctx, dst) {
        event.dst_ip = ip16_from_v4(*address);
    }
}
