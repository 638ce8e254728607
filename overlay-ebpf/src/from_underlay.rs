//! What comes in from the underlay. VXLAN to this node is taken only from a VTEP that the maps know,
//! for a network that this node holds, from a source that really is behind that VTEP. All else that
//! is VXLAN to us is dropped; what is not VXLAN to us is nobody's business here.

use crate::{
    decap, flood,
    frame::{self, header, linear},
    headers::{ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Ethernet, IPPROTO_UDP, Ipv4, Outer, Udp},
    maps,
    verdict::{Decision, Trace},
};
use aya_ebpf::programs::TcContext;
use overlay_common::{
    Config, Direction, DropReason, FLAG_FORWARDS, FLAG_ICC_OFF, FLAG_MULTICAST, FdbEntry, FdbKey,
    Ip16, NodeKey, VXLAN_OVERHEAD, ip16_from_v4,
};

const INNER: usize = VXLAN_OVERHEAD as usize;
const L3: usize = size_of::<Ethernet>();

#[inline(always)]
pub fn handle(ctx: &TcContext, trace: &mut Trace) -> Result<Decision, DropReason> {
    let Some(config) = maps::config() else { return Ok(Decision::Pass) };
    if !is_vxlan_to_us(ctx, config)? {
        return Ok(Decision::Pass);
    }
    // As much of the inner frame as there is, up to its IPv4 header.
    const WHOLE: usize = INNER + L3 + size_of::<Ipv4>();
    if linear(ctx, WHOLE).is_err() {
        linear(ctx, INNER + L3)?;
    }
    let outer = *header::<Outer>(ctx, 0)?;
    let Some(vni) = outer.vxlan.vni() else { return Err(DropReason::VxlanFlags) };
    trace.vni = vni;
    let eth = *header::<Ethernet>(ctx, INNER)?;
    let from = ip16_from_v4(outer.ip.src);

    let source = maps::fdb(&FdbKey { vni, mac: eth.src, pad: [0; 2] });
    let Some(source) = source.filter(|source| frame::same_ip(&source.vtep, &from)) else {
        return Err(why_not_from(config, &from, vni, &eth));
    };
    match eth.ethertype() {
        ETH_P_ARP => return Err(DropReason::ArpFromUnderlay),
        ETH_P_IP => check_source(ctx, source)?,
        // See `from_endpoint`.
        ETH_P_IPV6 if source.flags & FLAG_FORWARDS == 0 => return Err(DropReason::SpoofedIp),
        _ => {}
    }
    if eth.is_tagged() {
        return Err(DropReason::VlanUnsupported);
    }
    if source.flags & FLAG_ICC_OFF != 0 {
        return Err(DropReason::IccOff);
    }
    if eth.is_to_group() {
        return deliver_to_all(ctx, vni, source, eth, outer.ip.tos);
    }
    let Some(destination) = maps::fdb(&FdbKey { vni, mac: eth.dst, pad: [0; 2] }) else {
        return Err(DropReason::UnknownDestination);
    };
    if destination.ifindex == 0 {
        return Err(DropReason::NotLocalDestination);
    }
    decap::combine_ecn(ctx, &eth, outer.ip.tos)?;
    decap::strip(ctx, eth)?;
    Ok(Decision::Redirect(decap::deliver(ctx, &eth, destination.ifindex)))
}

/// Whether the packet is VXLAN to this node. A fragment after the first has no ports to tell by; it
/// is left to the stack, where it can never be completed, since the first one ends here.
#[inline(always)]
fn is_vxlan_to_us(ctx: &TcContext, config: &Config) -> Result<bool, DropReason> {
    if linear(ctx, L3 + size_of::<Ipv4>() + size_of::<Udp>()).is_err() {
        return Ok(false);
    }
    let eth = header::<Ethernet>(ctx, 0)?;
    if eth.ethertype() != ETH_P_IP || frame::packet_type(ctx) == frame::PACKET_OTHERHOST {
        return Ok(false);
    }
    let ip = *header::<Ipv4>(ctx, L3)?;
    if ip.protocol != IPPROTO_UDP || ip.is_later_fragment() || !frame::is_v4(&config.vtep, ip.dst) {
        return Ok(false);
    }
    if ip.has_options() {
        let udp: Result<Udp, _> = ctx.load(L3 + ip.header_len());
        return match udp {
            Ok(udp) if udp.destination() == config.vxlan_port => Err(DropReason::OuterOptions),
            _ => Ok(false),
        };
    }
    if header::<Udp>(ctx, L3 + size_of::<Ipv4>())?.destination() != config.vxlan_port {
        return Ok(false);
    }
    if ip.is_first_fragment() {
        return Err(DropReason::OuterFragment);
    }
    if frame::packet_type(ctx) != frame::PACKET_HOST {
        // To one host in a frame for many: the stack would take it (ip_rcv does, unless
        // drop_unicast_in_l2_multicast is set), so it must end here.
        return Err(DropReason::Malformed);
    }
    Ok(true)
}

/// The true reason why a source was not found behind the VTEP that sent it.
#[cold]
#[inline(always)]
fn why_not_from(config: &Config, from: &Ip16, vni: u32, eth: &Ethernet) -> DropReason {
    if frame::same_ip(&config.vtep, from) {
        DropReason::OwnVtep
    } else if maps::node(&NodeKey { vtep: *from }).is_none() {
        DropReason::UnknownVtep
    } else if maps::flood(&vni).is_none() {
        DropReason::UnknownVni
    } else if eth.ethertype() == ETH_P_ARP {
        DropReason::ArpFromUnderlay
    } else {
        DropReason::SourceNotBehindVtep
    }
}

#[inline(always)]
fn check_source(ctx: &TcContext, source: &FdbEntry) -> Result<(), DropReason> {
    let ip: &mut Ipv4 = header(ctx, INNER + L3)?;
    if source.flags & FLAG_FORWARDS == 0 && !frame::is_v4(&source.ip, ip.src) {
        return Err(DropReason::SpoofedIp);
    }
    Ok(())
}

#[inline(always)]
fn deliver_to_all(
    ctx: &TcContext,
    vni: u32,
    source: &FdbEntry,
    eth: Ethernet,
    outer_tos: u8,
) -> Result<Decision, DropReason> {
    let flood = maps::flood(&vni);
    let Some(flood) = flood.filter(|_| source.flags & FLAG_MULTICAST != 0) else {
        return Err(DropReason::BroadcastOff);
    };
    let len = ctx.len();
    decap::combine_ecn(ctx, &eth, outer_tos)?;
    decap::strip(ctx, eth)?;
    flood::to_local_ports(ctx, flood, 0, Direction::FromUnderlay, len);
    Ok(Decision::Replicated)
}
