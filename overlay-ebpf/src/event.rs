//! What a monitor is told: a record of each drop, and of a sample of what was forwarded. Nothing here runs
//! while nobody listens.

use crate::{
    frame,
    headers::{
        BehindTpid, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Ethernet, IPPROTO_TCP, IPPROTO_UDP, Ipv4,
        Ipv6, TooBig, is_vlan,
    },
    maps::EVENTS,
};
use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    programs::TcContext,
};
use overlay_common::{Direction, DropReason, Event, IP16_NONE, VXLAN_OVERHEAD, ip16_from_v4};

const OUTER: u32 = VXLAN_OVERHEAD as u32;
const L2: usize = size_of::<Ethernet>();
const IPPROTO_SCTP: u8 = 132;

/// Tells of a drop.
#[inline(always)]
pub fn dropped(ctx: &TcContext, direction: Direction, len: u32, vni: u32, reason: DropReason) {
    // Behind options the frame inside is somewhere else, and nobody looks for it.
    let frame = match reason {
        DropReason::OuterOptions => None,
        _ => Some(inner_frame(ctx, direction, len)),
    };
    emit(ctx, direction, len, vni, (reason as u32, 1), frame, false);
}

/// Tells of a packet that was too big: the answer to its sender, which is there in its place, quotes it.
#[inline(always)]
pub fn too_big(ctx: &TcContext, direction: Direction, len: u32, vni: u32) {
    emit(ctx, direction, len, vni, (DropReason::TooBig as u32, 1), Some(0), true);
}

/// Tells of one in `sample` packets.
#[cold]
#[inline(never)]
pub fn forwarded(ctx: &TcContext, direction: Direction, len: u32, vni: u32, sample: u32) {
    // SAFETY: no preconditions.
    if sample == 0 || unsafe { bpf_get_prandom_u32() } % sample != 0 {
        return;
    }
    let frame = inner_frame(ctx, direction, len);
    if is_arp(ctx, frame) {
        // The program's own answer: it goes no further than to who asked.
        return;
    }
    emit(ctx, direction, len, vni, (0, sample), Some(frame), false);
}

/// Where the endpoints' frame begins now: from an endpoint, behind the outer headers once there are any;
/// from the underlay, likewise, until they are stripped. A tag more or less does not change the answer.
#[inline(always)]
fn inner_frame(ctx: &TcContext, direction: Direction, len_before: u32) -> usize {
    let len = ctx.len();
    let has_outer = if matches!(direction, Direction::FromUnderlay) {
        len + OUTER > len_before
    } else {
        len >= len_before + OUTER
    };
    if has_outer { OUTER as usize } else { 0 }
}

#[inline(always)]
fn is_arp(ctx: &TcContext, frame: usize) -> bool {
    let ethernet: Result<Ethernet, _> = ctx.load(frame);
    ethernet.is_ok_and(|ethernet| ethernet.ethertype() == ETH_P_ARP)
        && !frame::has_stripped_tag(ctx)
}

/// A full ring loses the event, never the count.
#[inline(always)]
fn emit(
    ctx: &TcContext,
    direction: Direction,
    len: u32,
    vni: u32,
    (reason, sample): (u32, u32),
    frame: Option<usize>,
    is_answer: bool,
) {
    let Some(mut slot) = EVENTS.reserve(0) else { return };
    // Filled in place: fields lie as they come in a packet, and the stack takes aligned words only.
    slot.write(Event {
        // SAFETY: no preconditions.
        time_ns: unsafe { bpf_ktime_get_ns() },
        reason,
        direction: direction as u32,
        vni,
        ifindex: frame::ifindex(ctx),
        len,
        sample,
        src_ip: IP16_NONE,
        dst_ip: IP16_NONE,
        vtep: IP16_NONE,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        ethertype: 0,
        vlan: 0,
        src_port: 0,
        dst_port: 0,
        protocol: 0,
        pad: [0; 3],
    });
    // SAFETY: written whole above.
    let event = unsafe { slot.assume_init_mut() };
    if frame != Some(0) {
        // The other side: who sent it to us, or whom we send it to.
        let at = if matches!(direction, Direction::FromUnderlay) { 26 } else { 30 };
        if let Ok(vtep) = ctx.load(at) {
            event.vtep = ip16_from_v4(vtep);
        }
    }
    if let Some(frame) = frame {
        describe(ctx, frame, is_answer, event);
    }
    slot.submit(0);
}

/// What can be read of the frame: it may be cut, or have its end in other pages.
#[inline(always)]
fn describe(ctx: &TcContext, frame: usize, is_answer: bool, event: &mut Event) {
    let Ok(ethernet) = ctx.load::<Ethernet>(frame) else { return };
    (event.src_mac, event.dst_mac) = (ethernet.src, ethernet.dst);
    event.ethertype = ethernet.ethertype();
    let mut l3 = frame + L2;
    if is_answer {
        (event.src_mac, event.dst_mac) = (ethernet.dst, ethernet.src);
        let ip = if event.ethertype == ETH_P_IP { size_of::<Ipv4>() } else { size_of::<Ipv6>() };
        l3 += ip + size_of::<TooBig>();
    } else if let Some(tag) = frame::stripped_tag(ctx) {
        event.vlan = tag.vlan();
    } else if is_vlan(event.ethertype)
        && let Ok(behind) = ctx.load::<BehindTpid>(l3)
    {
        (event.vlan, event.ethertype) = (behind.vlan(), behind.ethertype());
        l3 += size_of::<BehindTpid>();
    }
    describe_packet(ctx, l3, event);
}

#[inline(always)]
fn describe_packet(ctx: &TcContext, l3: usize, event: &mut Event) {
    let l4 = match event.ethertype {
        ETH_P_IP => {
            let Ok(ip) = ctx.load::<Ipv4>(l3) else { return };
            (event.src_ip, event.dst_ip) = (ip16_from_v4(ip.src), ip16_from_v4(ip.dst));
            event.protocol = ip.protocol;
            if ip.is_later_fragment() {
                return;
            }
            l3 + ip.header_len()
        }
        ETH_P_IPV6 => {
            let Ok(ip) = ctx.load::<Ipv6>(l3) else { return };
            (event.src_ip, event.dst_ip) = (ip.src, ip.dst);
            event.protocol = ip.next_header;
            l3 + size_of::<Ipv6>()
        }
        ETH_P_ARP => {
            // Sender and target (RFC 826).
            if let (Ok(sender), Ok(target)) = (ctx.load(l3 + 14), ctx.load(l3 + 24)) {
                (event.src_ip, event.dst_ip) = (ip16_from_v4(sender), ip16_from_v4(target));
            }
            return;
        }
        _ => return,
    };
    if let IPPROTO_TCP | IPPROTO_UDP | IPPROTO_SCTP = event.protocol
        && let Ok(ports) = ctx.load::<[u16; 2]>(l4)
    {
        (event.src_port, event.dst_port) = (u16::from_be(ports[0]), u16::from_be(ports[1]));
    }
}
