//! What an endpoint sends. Its source must be the endpoint itself, or a station behind it if it is a bridging one; then it
//! goes to where the destination MAC is, on this node or behind a VTEP. Of a MAC that no endpoint has, bridging endpoints
//! may know.

use crate::{
    arp::{self, Heard},
    checksum,
    encap::{self, Exit},
    fence, flood,
    frame::{self, header, pulled},
    headers::{Arp, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Eth, L3},
    limit, maps,
    outer::ipv4::Fields,
    sender::{self, Sender},
    too_big,
    verdict::{Decision, Trace, count_from_neighbour, opaque_to_verifier},
    vlan,
};
use aya_ebpf::{
    helpers::{bpf_redirect, bpf_redirect_peer, bpf_skb_change_type},
    programs::TcContext,
};
use core::hint::black_box;
use overlay_common::{
    BridgeKey, DropReason, FLAG_BRIDGING, FLAG_ICC_OFF, FLAG_MULTICAST, FLAG_QUEUED, FLAG_STATIONS,
    FdbEntry, FloodKey, PortEntry,
};

#[inline(always)]
pub fn handle(ctx: &TcContext, trace: &mut Trace) -> Result<Decision, DropReason> {
    let ifindex = frame::ifindex(ctx);
    let Some(port) = maps::port(&ifindex) else { return Err(DropReason::UnknownPort) };
    trace.vni = port.vni;
    trace.slot = port.slot;
    let eth = *pulled::<Eth>(ctx, 0)?;
    let (mut own, mut flags) = (sender::number(&port.ip), port.flags);
    if !eth.is_from(&port.mac) {
        check_station(port, eth)?;
        // Neither is known to the verifier, as calls follow: see `opaque_to_verifier`.
        (own, flags) = (opaque_to_verifier(ctx, 0), opaque_to_verifier(ctx, flags | FLAG_STATIONS));
    }
    let inside = vlan::inside(ctx, eth)?;
    let sender = Sender { vni: port.vni, flags, own, eth, slot: Some(port.slot) };
    let mut is_question = false;
    match inside.ethertype {
        ETH_P_IP => checksum::check(ctx, fence::ipv4(ctx, inside.l3, sender)?)?,
        ETH_P_IPV6 => checksum::check(ctx, fence::ipv6(ctx, inside.l3, sender)?)?,
        ETH_P_ARP => {
            checksum::check_none(ctx)?;
            match arp::hear(ctx, L3, sender, Some(&port.ip))? {
                Heard::Known(mac) => return arp::send_answer(ctx, header::<Arp>(ctx, L3)?, mac),
                Heard::Question => is_question = true,
                Heard::Answer => {}
            }
        }
        // Of other protocols only the MAC is checked, and nothing was pulled yet.
        _ => {
            frame::pull_start(ctx);
            checksum::check_behind(ctx, inside.l3)?;
        }
    }
    let receivers = if is_question {
        bridging(port, ifindex, DropReason::ArpUnknownTarget)?
    } else if eth.is_to_group() {
        if port.flags & FLAG_MULTICAST == 0 {
            return Err(DropReason::BroadcastOff);
        }
        if eth.is_to_reserved_group() {
            return Err(DropReason::ReservedGroup);
        }
        Receivers::All(FloodKey::first(port.vni))
    } else {
        match maps::fdb(eth.destination_key(port.vni).key()) {
            Some(endpoint) => Receivers::Endpoint(endpoint),
            None => bridging(port, ifindex, DropReason::UnknownDestination)?,
        }
    };
    if port.flags & FLAG_ICC_OFF != 0 {
        return Err(DropReason::IccOff);
    }
    let index = match receivers {
        Receivers::Endpoint(endpoint) if endpoint.is_here() => {
            return deliver_here(ctx, ifindex, endpoint);
        }
        Receivers::Bridge(endpoint) if endpoint.is_here() => {
            return deliver_to_bridge(ctx, endpoint);
        }
        Receivers::All(pages) => return to_all(ctx, trace, port, pages),
        Receivers::Endpoint(endpoint) => endpoint.hop(),
        // Read here: the verifier would walk all that follows once for each map that an entry is in.
        Receivers::Bridge(endpoint) => black_box(endpoint.hop()),
    };
    send_away(ctx, trace, port, eth, index)
}

/// Who gets a frame.
enum Receivers {
    /// The endpoint that has the destination MAC.
    Endpoint(&'static FdbEntry),
    /// The network's only bridging endpoint.
    Bridge(&'static FdbEntry),
    /// All on the pages of FLOOD that begin here.
    All(FloodKey),
}

/// Checks a frame from another MAC than the endpoint's own: a station behind it may have sent it.
#[cold]
#[inline(always)]
fn check_station(port: &PortEntry, eth: Eth) -> Result<(), DropReason> {
    if port.flags & FLAG_BRIDGING != 0 && sender::is_station(port.vni, eth) {
        Ok(())
    } else {
        Err(DropReason::SpoofedMac)
    }
}

/// The bridging endpoints of the network, which may know a station that no map has. If there is none but the sender, the
/// result is `nobody`. A single one gets the frame as any endpoint does; frames to several are copied, and limited as
/// broadcast is.
#[cold]
#[inline(always)]
fn bridging(port: &PortEntry, from: u32, nobody: DropReason) -> Result<Receivers, DropReason> {
    match maps::bridge(&BridgeKey::only(port.vni)) {
        Some(only) if only.ifindex == from => return Err(nobody),
        Some(only) => return Ok(Receivers::Bridge(only)),
        None => {}
    }
    let several = FloodKey::bridging(port.vni);
    if maps::flood(&several).is_none() {
        return Err(nobody);
    }
    Ok(Receivers::All(several))
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
    pages: FloodKey,
) -> Result<Decision, DropReason> {
    let Some(config) = maps::config_or_zeros() else { return Err(DropReason::NotConfigured) };
    trace.config = Some(config);
    if !limit::allows(config.storm, port.slot, |limits| &mut limits.storm_ns) {
        return Err(DropReason::Storm);
    }
    // Were the verifier to know the page, it would walk the loops once for each kind of pages.
    let pages = FloodKey { vni: pages.vni, page: opaque_to_verifier(ctx, pages.page) };
    flood::replicate(ctx, pages, config.tos_mask)
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
    if destination.flags & FLAG_QUEUED != 0 {
        // SAFETY: no preconditions.
        let action = unsafe { bpf_redirect(to, 0) };
        return Ok(Decision::Redirect(action as i32));
    }
    // The frame is not for the host-side device's own MAC, so the kernel marks it as another host's.
    // Kernels before 6.6 keep the mark through redirect_peer, and ip_rcv would drop the packet.
    // SAFETY: the context is valid while the program runs; the type is a valid one.
    unsafe { bpf_skb_change_type(ctx.skb.skb, frame::PACKET_HOST) };
    // SAFETY: no preconditions.
    let action = unsafe { bpf_redirect_peer(to, 0) };
    Ok(Decision::Redirect(action as i32))
}

/// Hands the frame to a bridging endpoint of this node through its device, which says of it that it is for another
/// station. Without that, an endpoint which is no bridge would take it for its own.
#[cold]
#[inline(always)]
fn deliver_to_bridge(ctx: &TcContext, endpoint: &FdbEntry) -> Result<Decision, DropReason> {
    count_from_neighbour(endpoint.slot(), ctx.len());
    // SAFETY: no preconditions.
    let action = unsafe { bpf_redirect(endpoint.ifindex, 0) };
    Ok(Decision::Redirect(action as i32))
}
