//! What may not even become an skb: VXLAN to this node from an address that is no node's, or in pieces.
//!
//! It decides nothing that [`crate::from_underlay`] does not decide as well: where it does not run, or
//! can't tell (IPv4 options, a tag, headers that do not lie in the first buffer), the packet goes on to
//! there. It is what a flood of forged packets meets first.

use crate::{
    headers::{ETH_P_IP, Ethernet, IPPROTO_UDP, Ipv4, Udp},
    maps::{self, EVENTS},
    verdict,
};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::bpf_ktime_get_ns,
    programs::XdpContext,
};
use overlay_common::{
    CONFIG_MONITOR, Config, Direction, DropReason, Event, IP16_NONE, NodeKey, ip16_from_v4,
};

const L3: usize = size_of::<Ethernet>();
const L4: usize = L3 + size_of::<Ipv4>();

/// `len` gives the bytes of the packet.
#[inline(always)]
pub fn handle(ctx: &XdpContext, len: impl FnOnce(&XdpContext) -> u32) -> u32 {
    let Some(config) = maps::config() else { return XDP_PASS };
    match judge(ctx, config) {
        None => XDP_PASS,
        Some(reason) => dropped(ctx, config, reason, len(ctx)),
    }
}

/// Why the packet ends here, if it does.
#[inline(always)]
fn judge(ctx: &XdpContext, config: &Config) -> Option<DropReason> {
    if header::<Ethernet>(ctx, 0)?.ethertype() != ETH_P_IP {
        return None;
    }
    let ip = header::<Ipv4>(ctx, L3)?;
    if ip.protocol != IPPROTO_UDP
        || ip.has_options()
        || ip.is_later_fragment()
        || !crate::frame::is_v4(&config.vtep, ip.dst)
        || header::<Udp>(ctx, L4)?.destination() != config.vxlan_port
    {
        return None;
    }
    if ip.is_first_fragment() {
        return Some(DropReason::OuterFragment);
    }
    let vtep = ip16_from_v4(ip.src);
    if crate::frame::same_ip(&config.vtep, &vtep) {
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

/// Tells whoever monitors who it claims to come from; what is inside is a stranger's word. A full ring
/// loses the event, never the count.
#[inline(always)]
fn emit(ctx: &XdpContext, reason: DropReason, len: u32) {
    let Some(ip) = header::<Ipv4>(ctx, L3) else { return };
    let Some(mut slot) = EVENTS.reserve(0) else { return };
    slot.write(Event {
        // SAFETY: no preconditions.
        time_ns: unsafe { bpf_ktime_get_ns() },
        reason: reason as u32,
        direction: Direction::GuardUnderlay as u32,
        vni: 0,
        ifindex: ctx.ingress_ifindex() as u32,
        len,
        sample: 1,
        src_ip: IP16_NONE,
        dst_ip: IP16_NONE,
        vtep: ip16_from_v4(ip.src),
        src_mac: [0; 6],
        dst_mac: [0; 6],
        ethertype: 0,
        vlan: 0,
        src_port: 0,
        dst_port: 0,
        protocol: 0,
        pad: [0; 3],
    });
    slot.submit(0);
}

/// A header at an offset, where it lies within the packet's first buffer.
#[inline(always)]
fn header<T>(ctx: &XdpContext, offset: usize) -> Option<&T> {
    const { assert!(align_of::<T>() == 1, "nothing in a packet is aligned") };
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: in bounds (above), of alignment one, and of a type that any bytes are a value of;
    // nothing here writes to the packet.
    Some(unsafe { &*(start as *const T) })
}
