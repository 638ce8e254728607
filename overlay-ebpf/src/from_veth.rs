//! What comes in by a veth, the network card of a host that is a namespace. No driver has merged it: where its sender's
//! super-packets were cut on the way, each segment arrives alone, and would go through the receiver's stack alone. So
//! TCP segments of such a VTEP are sent through the node's merge pair, whose receiving end merges them as a network
//! card's driver does, and has `from_underlay`. All else is handled here, as by `from_underlay`.
//!
//! Nothing is decided here but the way: what goes through the pair is checked behind it, merged or not.
//!
//! All segments of a flow go the same way, in order, because a VTEP's go one way or the other: see [`Arrivals`]. What
//! has no payload goes on here. It may overtake segments: an acknowledgement says the same then, and a connection's
//! first segment has none before it. Its last ones (FIN, RST) do not overtake.

use crate::{
    frame::{self, header, pulled},
    headers::{ETH_P_IP, ETH_P_IPV6, Ethernet, IPPROTO_TCP, IPPROTO_UDP, Ipv4, Ipv6, L3, TcpStart},
    maps::{self, PATHS},
    outer::ipv4::{self as outer, Outer, OuterUdp},
};
use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_redirect},
    programs::TcContext,
};
use overlay_common::{
    Arrivals, CONFIG_SHARED, Config, LONG, MERGE_MAC, NodeKey, PathMtu, ip16_from_v4,
};

/// Where the inner packet begins.
const INNER: usize = outer::LEN + L3;

/// Sends the packet through the merge pair, if it is a segment that may be merged there. Returns the action; `None`: the
/// packet is as it came.
#[inline(always)]
pub fn merge(ctx: &TcContext) -> Option<i32> {
    let config = maps::config()?;
    // VXLAN of another program is nobody's behind the pair.
    if config.merge_ifindex == 0 || config.flags & CONFIG_SHARED != 0 {
        return None;
    }
    let (vtep, ethertype) = vxlan_to_us(ctx, config)?;
    let is_merged = frame::gso_size(ctx) != 0;
    // Before the look-up, which costs more than all the rest: small messages are mostly datagrams.
    if !is_merged && !is_segment(ctx, ethertype) {
        return None;
    }
    // SAFETY: no preconditions.
    let tick = Arrivals::tick_at(unsafe { bpf_ktime_get_coarse_ns() });
    let len = ctx.len();
    let of_all = PATHS.get_ptr_mut(Arrivals::OF_ALL)?;
    // A message of its own shows nothing, and goes the way of the segments before it, if any came.
    if !is_merged && len < LONG && !arrivals(of_all).some_come_alone(tick) {
        return None;
    }
    let node = maps::node(&NodeKey { vtep: ip16_from_v4(vtep) })?;
    let path = PATHS.get_ptr_mut(node.hop)?;
    if is_merged {
        note(path, |arrivals| arrivals.after_merged(tick));
        return None;
    }
    if !note(path, |arrivals| arrivals.after_alone(tick, len)).come_alone() {
        return None;
    }
    note(of_all, |arrivals| Arrivals { tick, ..arrivals });
    header::<Ethernet>(ctx, 0).ok()?.dst = MERGE_MAC;
    stay_on_this_cpu(ctx);
    // SAFETY: no preconditions.
    Some(unsafe { bpf_redirect(config.merge_ifindex, 0) } as i32)
}

/// The VTEP that sent the packet, and the inner frame's type, if the packet is VXLAN to this node without anything
/// unusual: that is left to `from_underlay`.
#[inline(always)]
fn vxlan_to_us(ctx: &TcContext, config: &Config) -> Option<([u8; 4], u16)> {
    // Of other traffic no more is pulled than by `from_underlay`.
    let OuterUdp { eth, ip, udp } = pulled::<OuterUdp>(ctx, 0).ok()?;
    let is_plain = eth.ethertype() == ETH_P_IP
        && ip.protocol == IPPROTO_UDP
        && udp.destination() == config.vxlan_port
        && frame::is_v4(&config.vtep, ip.dst)
        && !ip.has_options()
        && !ip.is_fragment()
        && frame::packet_type(ctx) == frame::PACKET_HOST
        && !frame::has_stripped_tag(ctx);
    if !is_plain {
        return None;
    }
    let outer: &Outer = pulled(ctx, 0).ok()?;
    let has_length = frame::gso_size(ctx) != 0 || outer.udp.has_length(ctx.len());
    if has_length && outer.vxlan.vni().is_some() {
        Some((outer.udp.ip.src, outer.inner.ethertype()))
    } else {
        None
    }
}

/// Returns true for a TCP segment that carries something, or is its connection's last one.
#[inline(always)]
fn is_segment(ctx: &TcContext, ethertype: u16) -> bool {
    match ethertype {
        ETH_P_IP => {
            let Ok(ip) = pulled::<Ipv4>(ctx, INNER) else { return false };
            let len = ip.total_len();
            ip.protocol == IPPROTO_TCP
                && !ip.has_options()
                && !ip.is_fragment()
                && carries(ctx, size_of::<Ipv4>(), len)
        }
        ETH_P_IPV6 => {
            let Ok(ip) = pulled::<Ipv6>(ctx, INNER) else { return false };
            let len = size_of::<Ipv6>() + ip.payload_len();
            ip.next_header == IPPROTO_TCP && carries(ctx, size_of::<Ipv6>(), len)
        }
        _ => false,
    }
}

/// `before` is the length of the IP header, `len` that of the packet with it.
#[inline(always)]
fn carries(ctx: &TcContext, before: usize, len: usize) -> bool {
    let Ok(tcp) = pulled::<TcpStart>(ctx, INNER + before) else { return false };
    len > before + tcp.header_len() || tcp.is_last()
}

/// Changes what is noted of the VTEP's arrivals, and returns it. Two CPUs that do so at once leave one of two changes,
/// which the next packets make good.
#[inline(always)]
fn note(path: *mut PathMtu, after: impl FnOnce(Arrivals) -> Arrivals) -> Arrivals {
    let before = arrivals(path);
    let after = after(before);
    if after != before {
        // SAFETY: the element is valid while the program runs.
        unsafe { (&raw mut (*path).arrivals).write_volatile(after) };
    }
    after
}

#[inline(always)]
fn arrivals(path: *mut PathMtu) -> Arrivals {
    // SAFETY: the element is valid while the program runs.
    unsafe { (&raw const (*path).arrivals).read_volatile() }
}

/// Has the pair handle the packet on the CPU that has it now: each CPU has a queue of its own there. So the segments of a
/// flow stay in order, and CPUs do not wait for each other.
#[inline(always)]
fn stay_on_this_cpu(ctx: &TcContext) {
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: the context is valid while the program runs. The number is one more than the queue's, as the kernel notes
    // by which queue a packet came (skb_record_rx_queue), which then chooses the queue to send by (skb_tx_hash).
    unsafe { (&raw mut (*ctx.skb.skb).queue_mapping).write_volatile(cpu + 1) };
}
