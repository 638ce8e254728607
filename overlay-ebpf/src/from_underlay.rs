//! What comes in from the underlay. VXLAN to this node is accepted only from a VTEP that the maps know, for a
//! network that this node holds, and from a source that really is behind that VTEP: an endpoint, or a station that is
//! none and may be behind a bridging endpoint there. All other VXLAN to this node is dropped; everything that is not
//! VXLAN to this node passes untouched.
//!
//! Where another program of the host receives VXLAN on the same port (CONFIG_SHARED), VXLAN that is not of this overlay
//! passes too. Nothing of this overlay can be reached that way: its only receiver in the stack is the GRO device, whose
//! VNI no packet with is let through here, and which is in a bridge that is down.
//!
//! The checksum of the outer IPv4 header is not verified. Its fields that are used are compared with a map (both
//! addresses, protocol and port) or with the packet (the lengths), so that a header with another value in one of them
//! is refused; what is left is ECN.

use crate::{
    arp::{self, Heard},
    decap, fence, flood,
    frame::{self, header, pulled},
    headers::{
        ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Eth, Ethernet, IPPROTO_ICMP, IPPROTO_UDP, Ipv4, L3, Udp,
    },
    maps,
    outer::ipv4::{self as outer, Outer, OuterUdp},
    path, probe,
    sender::{self, Sender},
    verdict::{Decision, Trace, opaque_to_verifier},
    vlan,
};
use aya_ebpf::{
    helpers::{bpf_redirect, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_vlan_pop},
    programs::TcContext,
};
use core::hint::black_box;
use overlay_common::{
    BridgeKey, CONFIG_SHARED, Config, Direction, DropReason, FLAG_ICC_OFF, FLAG_MULTICAST,
    FdbEntry, FloodKey, Ip16, NodeKey, VNI_RESERVED, ip16_from_v4,
};

/// `len` is the frame's length as it came.
#[inline(always)]
pub fn handle(ctx: &TcContext, trace: &mut Trace, len: u32) -> Result<Decision, DropReason> {
    let Some(config) = maps::config() else { return Ok(Decision::Pass) };
    trace.config = Some(config);
    match decide(ctx, trace, config, len) {
        Err(reason) if is_for_others(config, trace.vni, reason) => Ok(Decision::Pass),
        decided => decided,
    }
}

/// Whether the packet may be for another program on the same port: it is not of this overlay, by its outer headers or
/// its network.
#[cold]
#[inline(always)]
fn is_for_others(config: &Config, vni: u32, reason: DropReason) -> bool {
    let is_not_ours = matches!(
        reason,
        DropReason::OuterFragment
            | DropReason::OuterOptions
            | DropReason::OuterGroupFrame
            | DropReason::VxlanFlags
            | DropReason::UnknownVtep
            | DropReason::UnknownVni
    );
    is_not_ours && config.flags & CONFIG_SHARED != 0 && vni != VNI_RESERVED
}

#[inline(always)]
fn decide(
    ctx: &TcContext,
    trace: &mut Trace,
    config: &'static Config,
    len: u32,
) -> Result<Decision, DropReason> {
    if !is_vxlan_to_us(ctx, config)? {
        return Ok(Decision::Pass);
    }
    let outer: &Outer = pulled(ctx, 0)?;
    let has_length = outer.udp.has_length(ctx.len());
    let Some(vni) = outer.vxlan.vni() else { return Err(DropReason::VxlanFlags) };
    trace.vni = vni;
    let ip = &outer.udp.ip;
    let (from, outer_tos, eth) = (ip16_from_v4(ip.src), ip.tos, outer.inner);

    let source = maps::fdb(eth.source_key(vni).key());
    let source = match source.filter(|source| frame::same_ip(&source.vtep, &from)) {
        Some(source) => source,
        None => {
            if vni == VNI_RESERVED
                && let Some(action) = probe::answer(ctx, config, &from)?
            {
                // It is no endpoint's, and counted as what all share.
                return Ok(Decision::Redirect(action));
            }
            station(config, &from, vni, eth)?
        }
    };
    if !has_length {
        cut_to_length(ctx)?;
    }
    let inside = vlan::inside_at(ctx, eth, outer::LEN)?;
    let sender =
        Sender { vni, flags: source.flags, own: sender::number(&source.ip), eth, slot: None };
    let mut is_question = false;
    match inside.ethertype {
        ETH_P_IP => _ = fence::ipv4(ctx, inside.l3, sender)?,
        ETH_P_IPV6 => _ = fence::ipv6(ctx, inside.l3, sender)?,
        ETH_P_ARP => is_question = hear_arp(ctx, inside.l3, sender)?,
        _ => {}
    }
    if source.flags & FLAG_ICC_OFF != 0 {
        return Err(DropReason::IccOff);
    }
    let mut only = Only::NONE;
    let pages = if is_question {
        only = Only::of(vni);
        bridging(vni)?
    } else if eth.is_to_group() {
        let first = FloodKey::first(vni);
        if source.flags & FLAG_MULTICAST == 0 || maps::flood(&first).is_none() {
            return Err(DropReason::BroadcastOff);
        }
        // Checked on the sender's node as well, but the sending VTEP may not run our programs.
        if eth.is_to_reserved_group() {
            return Err(DropReason::ReservedGroup);
        }
        first
    } else if let Some(endpoint) = maps::fdb(eth.destination_key(vni).key()) {
        return deliver(ctx, trace, endpoint, eth, outer_tos);
    } else {
        only = Only::of(vni);
        bridging(vni)?
    };
    decap::combine_ecn(ctx, eth, outer_tos)?;
    decap::strip(ctx, eth)?;
    if only.ifindex != 0 {
        trace.slot = only.slot;
        // By its device, which says of the frame that it is for another station: see `from_endpoint`.
        // SAFETY: no preconditions.
        let action = unsafe { bpf_redirect(only.ifindex, 0) };
        return Ok(Decision::Redirect(action as i32));
    }
    // Were the verifier to know the page, it would walk the loop once for each kind of pages.
    let pages = FloodKey { vni, page: opaque_to_verifier(ctx, pages.page) };
    flood::to_local_ports(ctx, pages, 0, Direction::FromUnderlay, len);
    Ok(Decision::Replicated)
}

/// Delivers the frame to an endpoint, if that is on this node.
#[inline(always)]
fn deliver(
    ctx: &TcContext,
    trace: &mut Trace,
    destination: &FdbEntry,
    eth: Eth,
    outer_tos: u8,
) -> Result<Decision, DropReason> {
    if !destination.is_here() {
        return Err(DropReason::NotLocalDestination);
    }
    trace.slot = destination.slot();
    decap::combine_ecn(ctx, eth, outer_tos)?;
    let ethertype = decap::strip(ctx, eth)?;
    Ok(Decision::Redirect(decap::deliver(ctx, ethertype, destination)))
}

/// Whether a packet from an uplink without Ethernet headers may be VXLAN to this node, or a router's report to it.
#[inline(always)]
pub fn may_be_ours(ctx: &TcContext) -> bool {
    let Some(config) = maps::config() else { return false };
    let Ok(ip) = pulled::<Ipv4>(ctx, 0) else { return false };
    frame::protocol(ctx) == ETH_P_IP
        && frame::is_v4(&config.vtep, ip.dst)
        && matches!(ip.protocol, IPPROTO_UDP | IPPROTO_ICMP)
}

/// What comes in from an uplink without Ethernet headers, if it [may be ours](may_be_ours). It gets the header that it
/// lacks, and is then as from any other uplink. The stack does not notice the header, because it has the packet from its
/// IP header on.
#[inline(always)]
pub fn handle_bare(ctx: &TcContext, trace: &mut Trace, len: u32) -> Result<Decision, DropReason> {
    // SAFETY: the context is valid while the program runs.
    if unsafe { bpf_skb_change_head(ctx.skb.skb, size_of::<Ethernet>() as u32, 0) } != 0 {
        return Err(DropReason::DecapFailed);
    }
    // The helper zeroed the addresses.
    header::<Ethernet>(ctx, 0)?.set_ethertype(ETH_P_IP);
    handle(ctx, trace, len)
}

/// Whether the packet is VXLAN to this node.
///
/// A packet on a VLAN of the underlay device belongs to another device, or to none; no VTEP sends there. A
/// fragment after the first has no ports to recognise VXLAN by: it is left to the stack, which can never
/// complete it, since the first fragment ends here.
#[inline(always)]
fn is_vxlan_to_us(ctx: &TcContext, config: &Config) -> Result<bool, DropReason> {
    let Ok(outer) = pulled::<OuterUdp>(ctx, 0) else { return Ok(false) };
    let tag = frame::stripped_tag(ctx);
    if tag.is_some_and(|tag| tag.vlan() != 0) {
        return Ok(false);
    }
    if outer.eth.ethertype() != ETH_P_IP || frame::packet_type(ctx) == frame::PACKET_OTHERHOST {
        return Ok(false);
    }
    let ip = &outer.ip;
    if ip.is_later_fragment() || !frame::is_v4(&config.vtep, ip.dst) {
        return Ok(false);
    }
    if ip.protocol != IPPROTO_UDP {
        if ip.protocol == IPPROTO_ICMP && !ip.has_options() {
            path::learn(ctx, config);
        }
        return Ok(false);
    }
    if ip.has_options() {
        let at = L3 + ip.header_len();
        if frame::keep(ctx, at + size_of::<Udp>()).is_err() {
            return Ok(false);
        }
        let udp: Result<Udp, _> = ctx.load(at);
        return match udp {
            Ok(udp) if udp.destination() == config.vxlan_port => Err(DropReason::OuterOptions),
            _ => Ok(false),
        };
    }
    if outer.udp.destination() != config.vxlan_port {
        return Ok(false);
    }
    if ip.is_first_fragment() {
        return Err(DropReason::OuterFragment);
    }
    if frame::packet_type(ctx) != frame::PACKET_HOST {
        // A packet to one host in a frame for many. The stack would accept it (ip_rcv does, unless
        // drop_unicast_in_l2_multicast is set), so it must end here.
        return Err(DropReason::OuterGroupFrame);
    }
    // A tag of VLAN 0 means no VLAN, and must not become the inner frame's.
    // SAFETY: the context is valid while the program runs.
    if tag.is_some() && unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
        return Err(DropReason::DecapFailed);
    }
    Ok(true)
}

/// Handles a packet that is not as long as its headers say: bytes behind it are cut off, as the stack does. A
/// super-packet has no such lengths: they are too short for it, or those of one segment.
#[cold]
#[inline(always)]
fn cut_to_length(ctx: &TcContext) -> Result<(), DropReason> {
    if frame::gso_size(ctx) != 0 {
        return Ok(());
    }
    let outer: &OuterUdp = header(ctx, 0)?;
    let (total, datagram) = (outer.ip.total_len(), outer.udp.len());
    const IP: usize = size_of::<Ipv4>();
    if L3 + total > ctx.len() as usize || IP + datagram > total {
        return Err(DropReason::Malformed);
    }
    let len = L3 + IP + datagram;
    if len < size_of::<Outer>() {
        return Err(DropReason::Malformed);
    }
    // SAFETY: the context is valid while the program runs.
    let cut = unsafe { bpf_skb_change_tail(ctx.skb.skb, len as u32, 0) };
    if cut == 0 { Ok(()) } else { Err(DropReason::DecapFailed) }
}

/// What a station behind the bridging endpoints of this VTEP may send. The source MAC is of no endpoint behind it, and
/// must be of none at all.
#[cold]
#[inline(always)]
fn station(
    config: &Config,
    from: &Ip16,
    vni: u32,
    eth: Eth,
) -> Result<&'static FdbEntry, DropReason> {
    match maps::bridge(&BridgeKey::behind(vni, *from)) {
        Some(bridges) if sender::is_station(vni, eth) => Ok(bridges),
        _ => Err(why_not_from(config, from, vni, eth)),
    }
}

/// Checks ARP, which crosses the underlay only between stations behind bridging endpoints and others. Returns true for
/// what bridging endpoints alone get, and false for what goes where its destination MAC says.
#[cold]
#[inline(always)]
fn hear_arp(ctx: &TcContext, l3: usize, sender: Sender) -> Result<bool, DropReason> {
    let Some(page) = maps::flood(&FloodKey::bridging(sender.vni)) else {
        return Err(DropReason::ArpFromUnderlay);
    };
    match arp::hear(ctx, l3, sender, None)? {
        Heard::Question if page.port_count != 0 => Ok(true),
        Heard::Answer => Ok(false),
        Heard::Known(_) | Heard::Question => Err(DropReason::ArpFromUnderlay),
    }
}

/// Where the network's only bridging endpoint is on this node; index 0: there are others, or it is on another.
#[derive(Clone, Copy)]
struct Only {
    ifindex: u32,
    slot: u32,
}

impl Only {
    const NONE: Self = Self { ifindex: 0, slot: 0 };

    #[cold]
    #[inline(always)]
    fn of(vni: u32) -> Self {
        match maps::bridge(&BridgeKey::only(vni)) {
            Some(only) => Self { ifindex: black_box(only.ifindex), slot: black_box(only.slot()) },
            None => Self::NONE,
        }
    }
}

/// The page of the bridging endpoints, of which some are on this node.
#[cold]
#[inline(always)]
fn bridging(vni: u32) -> Result<FloodKey, DropReason> {
    let key = FloodKey::bridging(vni);
    match maps::flood(&key) {
        Some(page) if page.port_count != 0 => Ok(key),
        _ => Err(DropReason::UnknownDestination),
    }
}

/// The reason why a source was not found behind the VTEP that sent it.
#[cold]
#[inline(always)]
fn why_not_from(config: &Config, from: &Ip16, vni: u32, eth: Eth) -> DropReason {
    if frame::same_ip(&config.vtep, from) {
        DropReason::OwnVtep
    } else if maps::node(&NodeKey { vtep: *from }).is_none() {
        DropReason::UnknownVtep
    } else if maps::flood(&FloodKey::first(vni)).is_none() {
        DropReason::UnknownVni
    } else if eth.ethertype() == ETH_P_ARP {
        DropReason::ArpFromUnderlay
    } else {
        DropReason::SourceNotBehindVtep
    }
}
