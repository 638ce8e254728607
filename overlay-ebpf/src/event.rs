//! Records for a monitor: one of each drop, and one of a sample of the forwarded packets. Nothing here runs
//! while nobody listens.

use crate::{
    frame,
    headers::{
        Arp, BehindTpid, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, FRAGMENT_OFFSET, IPPROTO_SCTP,
        IPPROTO_TCP, IPPROTO_UDP, Ipv4, Ipv6, L3, Tag, TooBig, is_vlan,
    },
    maps::EVENTS,
    outer::ipv4 as outer,
};
use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_skb_load_bytes},
    programs::TcContext,
};
use core::mem::offset_of;
use overlay_common::{Direction, DropReason, Event, FORWARDED, IP16_NONE, Ip16, ip16_from_v4};

/// Where the ethertype lies in a frame.
const ETHERTYPE: usize = L3 - size_of::<u16>();

/// Writes a record of a drop.
#[inline(always)]
pub fn dropped(ctx: &TcContext, direction: Direction, len: u32, vni: u32, reason: u32) {
    // Behind IPv4 options the inner frame lies elsewhere, and is not searched for.
    let has_options = reason == DropReason::OuterOptions as u32;
    let frame = if has_options { None } else { Some(inner_frame(ctx, direction, len)) };
    emit(ctx, direction, len, vni, (reason, 1), frame, false);
}

/// Writes a record of a packet that was too big, from the answer that stands in its place and quotes it.
#[inline(always)]
pub fn too_big(ctx: &TcContext, direction: Direction, len: u32, vni: u32) {
    emit(ctx, direction, len, vni, (DropReason::TooBig as u32, 1), Some(0), true);
}

/// Writes a record of one in `sample` forwarded packets.
#[cold]
#[inline(never)]
pub fn forwarded(ctx: &TcContext, direction: Direction, len: u32, vni: u32, sample: u32) {
    // SAFETY: no preconditions.
    if sample == 0 || unsafe { bpf_get_prandom_u32() } % sample != 0 {
        return;
    }
    let frame = inner_frame(ctx, direction, len);
    if is_arp(ctx, frame) {
        // The program's own answer, which goes back to the asker.
        return;
    }
    emit(ctx, direction, len, vni, (FORWARDED, sample), Some(frame), false);
}

/// Where the endpoints' frame begins now: behind the outer headers, if there are any at the moment. The change
/// of length tells: everything else that is added or removed (padding, a tag, an option) is less than half of
/// the outer headers.
#[inline(always)]
fn inner_frame(ctx: &TcContext, direction: Direction, len_before: u32) -> usize {
    let len = ctx.len();
    let has_outer = if matches!(direction, Direction::FromUnderlay) {
        len + outer::LEN as u32 / 2 > len_before
    } else {
        len > len_before + outer::LEN as u32 / 2
    };
    if has_outer { outer::LEN } else { 0 }
}

#[inline(always)]
fn is_arp(ctx: &TcContext, frame: usize) -> bool {
    word(ctx, frame + ETHERTYPE) == Some(ETH_P_ARP) && !frame::has_stripped_tag(ctx)
}

/// A record that says what became of a packet, and nothing yet of its contents.
#[inline(always)]
pub fn blank(
    direction: Direction,
    ifindex: u32,
    len: u32,
    vni: u32,
    (reason, sample): (u32, u32),
) -> Event {
    Event {
        // SAFETY: no preconditions.
        time_ns: unsafe { bpf_ktime_get_ns() },
        reason,
        direction: direction as u32,
        vni,
        ifindex,
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
    }
}

/// Writes a record. If the ring is full, the record is lost, but never the count.
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
    slot.write(blank(direction, frame::ifindex(ctx), len, vni, (reason, sample)));
    // Filled in place, by whole integers: fields of a packet are not aligned, and the stack takes aligned
    // words only.
    // SAFETY: written whole above.
    let event = unsafe { slot.assume_init_mut() };
    if frame != Some(0) {
        // The VTEP on the other side: the sender, or the destination.
        let at = match direction {
            Direction::FromUnderlay => outer::SOURCE_AT,
            _ => outer::DESTINATION_AT,
        };
        event.vtep = address(ctx, at);
    }
    if let Some(frame) = frame {
        describe(ctx, frame, is_answer, event);
    }
    slot.submit(0);
}

/// Fills in what can be read of the frame: it may be cut, or have its end in other pages.
#[inline(always)]
fn describe(ctx: &TcContext, frame: usize, is_answer: bool, event: &mut Event) {
    let Some(ethertype) = word(ctx, frame + ETHERTYPE) else { return };
    event.ethertype = ethertype;
    let (dst, src) = (frame, frame + size_of_val(&event.dst_mac));
    let mut l3 = frame + L3;
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
            && let Some((control, behind)) = words(ctx, l3)
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
            let fragment = word(ctx, l3 + offset_of!(Ipv4, frag_off));
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
        && let Some((src, dst)) = words(ctx, l4)
    {
        (event.src_port, event.dst_port) = (src, dst);
    }
}

/// Sixteen bits of the packet, in the host's byte order.
#[inline(always)]
fn word(ctx: &TcContext, at: usize) -> Option<u16> {
    ctx.load::<u16>(at).ok().map(u16::from_be)
}

/// Two words of sixteen bits, likewise. They are read at once: of two reads that may fail each by itself, the
/// compiler made one that the verifier refuses.
#[inline(always)]
fn words(ctx: &TcContext, at: usize) -> Option<(u16, u16)> {
    let both = ctx.load::<u32>(at).ok()?;
    Some((u16::from_be(both as u16), u16::from_be((both >> 16) as u16)))
}

/// An IPv4 address of the packet; [`IP16_NONE`] if the packet ends before it.
#[inline(always)]
fn address(ctx: &TcContext, at: usize) -> Ip16 {
    ctx.load::<u32>(at).map_or(IP16_NONE, |word| ip16_from_v4(word.to_ne_bytes()))
}

/// Copies bytes of the packet into a field of the record; zeroes if the packet ends before them.
#[inline(always)]
fn copy<T>(ctx: &TcContext, at: usize, field: &mut T) {
    // SAFETY: the context is valid while the program runs; the field is as long as is said, of a type that
    // any bytes are a value of, and the helper writes all of it whatever comes.
    unsafe {
        let field = (&raw mut *field).cast();
        bpf_skb_load_bytes(ctx.skb.skb.cast(), at as u32, field, size_of::<T>() as u32);
    }
}
