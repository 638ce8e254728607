//! Drops VXLAN to this node from an address that is no node's, and fragments of VXLAN, before they become an
//! skb: a flood of forged packets ends here.
//!
//! It decides nothing that [`crate::from_underlay`] does not decide as well. Where it does not run, or can't
//! tell (IPv4 options, a tag, headers that do not lie in the first buffer, another program on the same port), the
//! packet goes on to there.

use crate::{
    event,
    frame::{self, in_first_buffer},
    headers::{ETH_P_IP, Ethernet, IPPROTO_UDP, Ipv4, L3, Udp},
    maps::{self, EVENTS},
    verdict,
};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use overlay_common::{
    CONFIG_MONITOR, CONFIG_SHARED, Config, Direction, DropReason, Event, NodeKey, ip16_from_v4,
};

const L4: usize = L3 + size_of::<Ipv4>();

/// Handles a packet; `len` returns its bytes.
#[inline(always)]
pub fn handle(ctx: &XdpContext, len: impl FnOnce(&XdpContext) -> u32) -> u32 {
    let Some(config) = maps::config() else { return XDP_PASS };
    match judge(ctx, config) {
        None => XDP_PASS,
        Some(_) if config.flags & CONFIG_SHARED != 0 => XDP_PASS,
        Some(reason) => dropped(ctx, config, reason, len(ctx)),
    }
}

/// The reason why the packet ends here, if it does.
#[inline(always)]
fn judge(ctx: &XdpContext, config: &Config) -> Option<DropReason> {
    if in_first_buffer::<Ethernet>(ctx, 0)?.ethertype() != ETH_P_IP {
        return None;
    }
    let ip = in_first_buffer::<Ipv4>(ctx, L3)?;
    if ip.protocol != IPPROTO_UDP
        || ip.has_options()
        || ip.is_later_fragment()
        || !frame::is_v4(&config.vtep, ip.dst)
        || in_first_buffer::<Udp>(ctx, L4)?.destination() != config.vxlan_port
    {
        return None;
    }
    if ip.is_first_fragment() {
        return Some(DropReason::OuterFragment);
    }
    let vtep = ip16_from_v4(ip.src);
    if frame::same_ip(&config.vtep, &vtep) {
        return Some(DropReason::OwnVtep);
    }
    match maps::node(&NodeKey { vtep }) {
        Some(_) => None,
        None => Some(DropReason::UnknownVtep),
    }
}

#[cold]
#[inline(always)]
fn dropped(ctx: &XdpContext, config: &Config, reason: DropReason, len: u32) -> u32 {
    verdict::count_drop(reason, Direction::GuardUnderlay, len);
    if config.flags & CONFIG_MONITOR != 0 {
        emit(ctx, reason, len);
    }
    XDP_DROP
}

/// Writes a record with the VTEP that the packet claims to come from. What is inside is not described: a
/// stranger wrote it. If the ring is full, the record is lost, but never the count.
#[inline(always)]
fn emit(ctx: &XdpContext, reason: DropReason, len: u32) {
    let Some(ip) = in_first_buffer::<Ipv4>(ctx, L3) else { return };
    let Some(mut slot) = EVENTS.reserve(0) else { return };
    let ifindex = ctx.ingress_ifindex() as u32;
    let fate = (reason as u32, 1);
    slot.write(Event {
        vtep: ip16_from_v4(ip.src),
        ..event::blank(Direction::GuardUnderlay, ifindex, len, 0, fate)
    });
    slot.submit(0);
}
