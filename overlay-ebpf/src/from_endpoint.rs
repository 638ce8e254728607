//! What an endpoint sends: who it says it is must be true, and then it goes where its destination
//! MAC is, on this node or behind a VTEP.

use crate::{
    arp, encap, flood,
    frame::{self, header, linear, same_mac},
    headers::{ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Ethernet, Ipv4},
    maps,
    verdict::{Decision, Trace},
};
use aya_ebpf::{
    helpers::{bpf_redirect_peer, bpf_skb_change_type},
    programs::TcContext,
};
use overlay_common::{
    DropReason, FLAG_FORWARDS, FLAG_ICC_OFF, FLAG_MULTICAST, FdbKey, NodeKey, PortEntry,
};

#[inline(always)]
pub fn handle(ctx: &TcContext, trace: &mut Trace) -> Result<Decision, DropReason> {
    let ifindex = frame::ifindex(ctx);
    let Some(port) = maps::port(&ifindex) else { return Err(DropReason::UnknownPort) };
    trace.vni = port.vni;
    linear(ctx, size_of::<Ethernet>())?;
    let eth = *header::<Ethernet>(ctx, 0)?;
    if frame::has_stripped_tag(ctx) || eth.is_tagged() {
        return Err(DropReason::VlanUnsupported);
    }
    if !same_mac(&eth.src, &port.mac) && port.flags & FLAG_FORWARDS == 0 {
        return Err(DropReason::SpoofedMac);
    }
    match eth.ethertype() {
        ETH_P_ARP => return arp::answer(ctx, port),
        ETH_P_IP => check_source(ctx, port)?,
        // An endpoint has no IPv6 address of its own yet, so any source is another's: a router
        // advertisement to one neighbour would be enough to have its packets.
        ETH_P_IPV6 if port.flags & FLAG_FORWARDS == 0 => return Err(DropReason::SpoofedIp),
        // Other protocols are fenced by their MAC alone.
        _ => {}
    }
    let Some(config) = maps::config() else { return Err(DropReason::NotConfigured) };
    if eth.is_to_group() {
        if port.flags & FLAG_MULTICAST == 0 {
            return Err(DropReason::BroadcastOff);
        }
        if port.flags & FLAG_ICC_OFF != 0 {
            return Err(DropReason::IccOff);
        }
        let tos = encap::outer_tos(ctx, &eth);
        return flood::replicate(ctx, config, port, eth, tos);
    }
    let key = FdbKey { vni: port.vni, mac: eth.dst, pad: [0; 2] };
    let Some(destination) = maps::fdb(&key) else { return Err(DropReason::UnknownDestination) };
    if port.flags & FLAG_ICC_OFF != 0 {
        return Err(DropReason::IccOff);
    }
    if destination.ifindex != 0 {
        return deliver_here(ctx, ifindex, destination.ifindex);
    }
    let tos = encap::outer_tos(ctx, &eth);
    let vtep = frame::v4(&destination.vtep);
    if destination.hop_ifindex != 0 {
        let macs = (destination.hop_mac, destination.hop_source);
        let forwards = port.flags & FLAG_FORWARDS != 0;
        encap::push(ctx, config, eth, tos, port.vni, vtep, macs, forwards)?;
        return Ok(encap::send_to_hop(destination.hop_ifindex));
    }
    let known = maps::node(&NodeKey { vtep: destination.vtep }).is_some();
    if !known || encap::needs_next_hop(&eth) {
        return Err(DropReason::UnknownNode);
    }
    let forwards = port.flags & FLAG_FORWARDS != 0;
    encap::push(ctx, config, eth, tos, port.vni, vtep, ([0; 6], [0; 6]), forwards)?;
    Ok(encap::send_by_routes(config))
}

#[inline(always)]
fn check_source(ctx: &TcContext, port: &PortEntry) -> Result<(), DropReason> {
    linear(ctx, size_of::<Ethernet>() + size_of::<Ipv4>())?;
    let ip: &mut Ipv4 = header(ctx, size_of::<Ethernet>())?;
    if port.flags & FLAG_FORWARDS == 0 && !frame::is_v4(&port.ip, ip.src) {
        return Err(DropReason::SpoofedIp);
    }
    Ok(())
}

#[inline(always)]
fn deliver_here(ctx: &TcContext, from: u32, to: u32) -> Result<Decision, DropReason> {
    if from == to {
        return Err(DropReason::HairpinDestination);
    }
    // The frame is not for the host-side device's own MAC, so the kernel has it as another host's,
    // and kernels before 6.6 keep that through redirect_peer: ip_rcv would drop it.
    // SAFETY: the context is valid while the program runs; the type is a valid one.
    unsafe { bpf_skb_change_type(ctx.skb.skb, frame::PACKET_HOST) };
    // SAFETY: no preconditions.
    let action = unsafe { bpf_redirect_peer(to, 0) };
    Ok(Decision::Redirect(action as i32))
}
