//! What a monitor is told: a record of each drop, and of a sample of what was forwarded. Nothing here runs
//! while nobody listens.

use crate::{
    frame,
    headers::{
        Arp, BehindTpid, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Ethernet, IPPROTO_TCP, IPPROTO_UDP, Ipv4,
        Ipv6, Tag, TooBig, is_vlan,
    },
    maps::EVENTS,
};
use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_skb_load_bytes},
    programs::TcContext,
};
use core::mem::offset_of;
use overlay_common::{Direction, DropReason, Event, IP16_NONE, Ip16, VXLAN_OVERHEAD, ip16_from_v4};

const OUTER: u32 = VXLAN_OVERHEAD as u32;
const L2: usize = size_of::<Ethernet>();
/// Where the ethertype lies in a frame.
const ETHERTYPE: usize = L2 - size_of::<u16>();
/// Where IPv4 says that it is a later fragment: in the low bits of a word.
const FRAGMENT: usize = 6;
const FRAGMENT_OFFSET: u16 = 0x1fff;
const IPPROTO_SCTP: u8 = 132;

/// Tells of a drop.
#[inline(always)]
pub fn dropped(ctx: &TcContext, direction: Direction, len: u32, vni: u32, reason: u32) {
    // Behind options the frame inside is somewhere else, and nobody looks for it.
    let has_options = reason == DropReason::OuterOptions as u32;
    let frame = if has_options { None } else { Some(inner_frame(ctx, direction, len)) };
    emit(ctx, direction, len, vni, (reason, 1), frame, false);
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
/// from the underlay, likewise, until they are stripped. The length tells: what else is put in or taken out,
/// padding, a tag or an option, is less than half of them.
#[inline(always)]
fn inner_frame(ctx: &TcContext, direction: Direction, len_before: u32) -> usize {
    let len = ctx.len();
    let has_outer = if matches!(direction, Direction::FromUnderlay) {
        len + OUTER / 2 > len_before
    } else {
        len > len_before + OUTER / 2
    };
    if has_outer { OUTER as usize } else { 0 }
}

#[inline(always)]
fn is_arp(ctx: &TcContext, frame: usize) -> bool {
    word(ctx, frame + ETHERTYPE) == Some(ETH_P_ARP) && !frame::has_stripped_tag(ctx)
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
    // Filled in place, and read by whole integers: bytes lie as they come in a packet, and the stack
    // takes aligned words only.
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
        let at = match direction {
            Direction::FromUnderlay => offset_of!(Ipv4, src),
            _ => offset_of!(Ipv4, dst),
        };
        event.vtep = address(ctx, L2 + at);
    }
    if let Some(frame) = frame {
        describe(ctx, frame, is_answer, event);
    }
    slot.submit(0);
}

/// What can be read of the frame: it may be cut, or have its end in other pages.
#[inline(always)]
fn describe(ctx: &TcContext, frame: usize, is_answer: bool, event: &mut Event) {
    let Some(ethertype) = word(ctx, frame + ETHERTYPE) else { return };
    event.ethertype = ethertype;
    let (dst, src) = (frame, frame + size_of_val(&event.dst_mac));
    let mut l3 = frame + L2;
    if is_answer {
        copy(ctx, dst, &mut event.src_mac);
        copy(ctx, src, &mut event.dst_mac);
        let ip = if ethertype == ETH_P_IP { size_of::<Ipv4>() } else { size_of::<Ipv6>() };
        l3 += ip + size_of::<TooBig>();
    } else {
        copy(ctx, dst, &mut event.dst_mac);
        copy(ctx, src, &mut event.src_mac);
        if let Some(tag) = frame::stripped_tag(ctx) {
            event.vlan = tag.vlan();
        } else if is_vlan(ethertype)
            && let (Some(control), Some(behind)) = (word(ctx, l3), word(ctx, l3 + 2))
        {
            (event.vlan, event.ethertype) = (Tag::new(ethertype, control).vlan(), behind);
            l3 += size_of::<BehindTpid>();
        }
    }
    describe_packet(ctx, l3, event);
}

#[inline(always)]
fn describe_packet(ctx: &TcContext, l3: usize, event: &mut Event) {
    let l4 = match event.ethertype {
        ETH_P_IP => {
            let fragment = word(ctx, l3 + FRAGMENT);
            let (Some(fragment), Ok(version_ihl)) = (fragment, ctx.load::<u8>(l3)) else { return };
            event.src_ip = address(ctx, l3 + offset_of!(Ipv4, src));
            event.dst_ip = address(ctx, l3 + offset_of!(Ipv4, dst));
            copy(ctx, l3 + offset_of!(Ipv4, protocol), &mut event.protocol);
            if fragment & FRAGMENT_OFFSET != 0 {
                return;
            }
            l3 + usize::from(version_ihl & 0xf) * 4
        }
        ETH_P_IPV6 => {
            copy(ctx, l3 + offset_of!(Ipv6, src), &mut event.src_ip);
            copy(ctx, l3 + offset_of!(Ipv6, dst), &mut event.dst_ip);
            copy(ctx, l3 + offset_of!(Ipv6, next_header), &mut event.protocol);
            l3 + size_of::<Ipv6>()
        }
        ETH_P_ARP => {
            event.src_ip = address(ctx, l3 + offset_of!(Arp, sender_ip));
            event.dst_ip = address(ctx, l3 + offset_of!(Arp, target_ip));
            return;
        }
        _ => return,
    };
    if let IPPROTO_TCP | IPPROTO_UDP | IPPROTO_SCTP = event.protocol
        && let (Some(src), Some(dst)) = (word(ctx, l4), word(ctx, l4 + 2))
    {
        (event.src_port, event.dst_port) = (src, dst);
    }
}

/// Sixteen bits of the packet, in the host's order.
#[inline(always)]
fn word(ctx: &TcContext, at: usize) -> Option<u16> {
    ctx.load::<u16>(at).ok().map(u16::from_be)
}

/// An IPv4 address of the packet; none where the packet ends before.
#[inline(always)]
fn address(ctx: &TcContext, at: usize) -> Ip16 {
    ctx.load::<u32>(at).map_or(IP16_NONE, |word| ip16_from_v4(word.to_ne_bytes()))
}

/// Bytes of the packet into a field of the record; zeroes where the packet ends before.
#[inline(always)]
fn copy<T>(ctx: &TcContext, at: usize, field: &mut T) {
    // SAFETY: the context is valid while the program runs; the field is as long as is said, of a type that
    // any bytes are a value of, and the helper writes all of it whatever comes.
    unsafe {
        let field = (&raw mut *field).cast();
        bpf_skb_load_bytes(ctx.skb.skb.cast(), at as u32, field, size_of::<T>() as u32);
    }
}
