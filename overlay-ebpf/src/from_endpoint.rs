//! What an endpoint sends. Its source must be the endpoint itself; then it goes to where the destination MAC
//! is, on this node or behind a VTEP.

use crate::{
    arp, checksum,
    claim::Speaker,
    encap::{self, Exit},
    fence, flood,
    frame::{self, pulled},
    headers::{ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Eth},
    limit, maps,
    outer::ipv4::Fields,
    too_big,
    verdict::{Decision, Trace, count_from_neighbour},
    vlan,
};
use aya_ebpf::{
    helpers::{bpf_redirect_peer, bpf_skb_change_type},
    programs::TcContext,
};
use overlay_common::{
    DropReason, FLAG_FORWARDS, FLAG_ICC_OFF, FLAG_MULTICAST, FdbEntry, PortEntry,
};

#[inline(always)]
pub fn handle(ctx: &TcContext, trace: &mut Trace) -> Result<Decision, DropReason> {
    let ifindex = frame::ifindex(ctx);
    let Some(port) = maps::port(&ifindex) else { return Err(DropReason::UnknownPort) };
    trace.vni = port.vni;
    trace.slot = port.slot;
    let eth = *pulled::<Eth>(ctx, 0)?;
    if !eth.is_from(&port.mac) && port.flags & FLAG_FORWARDS == 0 {
        return Err(DropReason::SpoofedMac);
    }
    let inside = vlan::inside(ctx, eth)?;
    if inside.ethertype == ETH_P_ARP {
        checksum::check_none(ctx)?;
        return arp::answer(ctx, port);
    }
    let is_fenced = port.flags & FLAG_FORWARDS == 0;
    match inside.ethertype {
        ETH_P_IP if is_fenced => checksum::check(ctx, fence::ipv4(ctx, inside.l3, &port.ip)?)?,
        ETH_P_IPV6 if is_fenced => {
            let speaker = Speaker { vni: port.vni, eth, slot: Some(port.slot) };
            checksum::check(ctx, fence::ipv6(ctx, inside.l3, speaker)?)?;
        }
        // Of other protocols only the MAC is checked, and nothing was pulled yet.
        _ => {
            frame::pull_start(ctx);
            checksum::check_behind(ctx, inside.l3)?;
        }
    }
    if eth.is_to_group() {
        return to_all(ctx, trace, port, eth);
    }
    let Some(destination) = maps::fdb(eth.destination_key(port.vni).key()) else {
        return Err(DropReason::UnknownDestination);
    };
    if port.flags & FLAG_ICC_OFF != 0 {
        return Err(DropReason::IccOff);
    }
    if destination.is_here() {
        return deliver_here(ctx, ifindex, destination);
    }
    send_away(ctx, trace, port, eth, destination.hop())
}

/// Sends the frame to the VTEP at `index` of HOPS.
#[inline(always)]
fn send_away(
    ctx: &TcContext,
    trace: &mut Trace,
    port: &PortEntry,
    eth: Eth,
    index: u32,
) -> Result<Decision, DropReason> {
    let Some(hop) = maps::hop(index) else { return Err(DropReason::UnknownNode) };
    let len = ctx.len();
    // All zeros before user space has written it: then no bit of the type of service is copied.
    let Some(config) = maps::config_or_zeros() else { return Err(DropReason::NotConfigured) };
    trace.config = Some(config);
    if let Some(fits) = too_big::limit(ctx, eth, len, hop, index) {
        // Too many answers would be a burden for the sender's own host (RFC 4443, section 2.4 f).
        if !limit::allows(config.answers, port.slot, |limits| &mut limits.answers_ns) {
            return Err(DropReason::TooBig);
        }
        return too_big::answer(ctx, eth, fits);
    }
    let exit = Exit::of(ctx, eth, hop)?;
    let tos = encap::outer_tos(ctx, eth) & config.tos_mask;
    let hash = encap::flow_hash(ctx, eth);
    let fields = Fields { vni: port.vni, tos, hash, len };
    encap::push(ctx, hop, eth, fields)?;
    Ok(encap::send(exit))
}

#[inline(always)]
fn to_all(
    ctx: &TcContext,
    trace: &mut Trace,
    port: &PortEntry,
    eth: Eth,
) -> Result<Decision, DropReason> {
    if port.flags & FLAG_MULTICAST == 0 {
        return Err(DropReason::BroadcastOff);
    }
    if eth.is_to_reserved_group() {
        return Err(DropReason::ReservedGroup);
    }
    if port.flags & FLAG_ICC_OFF != 0 {
        return Err(DropReason::IccOff);
    }
    let Some(config) = maps::config_or_zeros() else { return Err(DropReason::NotConfigured) };
    trace.config = Some(config);
    if !limit::allows(config.storm, port.slot, |limits| &mut limits.storm_ns) {
        return Err(DropReason::Storm);
    }
    flood::replicate(ctx, port, config.tos_mask)
}

#[inline(always)]
fn deliver_here(
    ctx: &TcContext,
    from: u32,
    destination: &FdbEntry,
) -> Result<Decision, DropReason> {
    let to = destination.ifindex;
    if from == to {
        return Err(DropReason::HairpinDestination);
    }
    count_from_neighbour(destination.slot(), ctx.len());
    // The frame is not for the host-side device's own MAC, so the kernel marks it as another host's.
    // Kernels before 6.6 keep the mark through redirect_peer, and ip_rcv would drop the packet.
    // SAFETY: the context is valid while the program runs; the type is a valid one.
    unsafe { bpf_skb_change_type(ctx.skb.skb, frame::PACKET_HOST) };
    // SAFETY: no preconditions.
    let action = unsafe { bpf_redirect_peer(to, 0) };
    Ok(Decision::Redirect(action as i32))
}
