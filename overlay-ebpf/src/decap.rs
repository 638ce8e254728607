//! Decapsulation: congestion marks are carried to the inner packet, the outer headers are removed, and the
//! frame is delivered.

use crate::{
    ecn,
    frame::{self, header, pulled},
    headers::{BehindTpid, ETH_P_IP, ETH_P_IPV6, Eth, Ipv4, Ipv6, L3, Tag, is_vlan},
    jumbo,
    kernel::{field, layout},
    outer::ipv4 as outer,
};
use aya_ebpf::{
    bindings::{
        BPF_CSUM_LEVEL_DEC, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_ADJ_ROOM_NO_CSUM_RESET, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{
        bpf_csum_level, bpf_csum_update, bpf_redirect, bpf_redirect_peer, bpf_skb_adjust_room,
        bpf_skb_change_proto, bpf_skb_change_tail, bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use overlay_common::{DropReason, FLAG_QUEUED, FdbEntry};

/// Where the inner packet begins, seen from the outer Ethernet header.
const INNER_L3: usize = outer::LEN + L3;

/// Carries congestion marks from the outer to the inner header.
#[inline(always)]
pub fn combine_ecn(ctx: &TcContext, inner: Eth, outer_tos: u8) -> Result<(), DropReason> {
    match inner.ethertype() {
        ETH_P_IP => {
            let ip: &mut Ipv4 = pulled(ctx, INNER_L3)?;
            let tos = ecn::combine(ip.tos, outer_tos)?;
            if tos != ip.tos {
                ip.set_tos(tos);
            }
        }
        ETH_P_IPV6 => {
            let ip: &mut Ipv6 = pulled(ctx, INNER_L3)?;
            let class = ip.traffic_class();
            let combined = ecn::combine(class, outer_tos)?;
            if combined != class {
                let before = ip.class_word();
                ip.set_traffic_class(combined);
                let change = u32::from(!before) + u32::from(ip.class_word());
                // IPv6 has no checksum of its own that would make up for the change in the sum of the
                // whole packet, where the device gave one. Where it did not, the helper says so, and
                // nothing is to do.
                // SAFETY: the context is valid while the program runs.
                unsafe { bpf_csum_update(ctx.skb.skb, change) };
            }
        }
        _ => {}
    }
    Ok(())
}

/// The least that the kernel shrinks: an IPv4 header's length must be left (adjust_room takes the
/// packet for the outer one's protocol).
const SHRINKS_FROM: u32 = (INNER_L3 + size_of::<Ipv4>()) as u32;

/// Removes the outer headers and puts the inner Ethernet header back in front. Returns the type that the
/// frame has then, without tags that lie beside it.
#[inline(always)]
pub fn strip(ctx: &TcContext, inner: Eth) -> Result<u16, DropReason> {
    if ctx.len() < SHRINKS_FROM {
        // A short frame of a protocol that is not IP. Ethernet itself pads such frames, so their protocols
        // tell their length (IEEE 802.3, section 3.2.8).
        // SAFETY: the context is valid while the program runs.
        let padded = unsafe { bpf_skb_change_tail(ctx.skb.skb, SHRINKS_FROM, 0) };
        if padded != 0 {
            return Err(DropReason::DecapFailed);
        }
    }
    if is_vlan(inner.ethertype()) && frame::gso_size(ctx) != 0 {
        return strip_with_tags(ctx, inner);
    }
    remove_outer(ctx, inner, 0)?;
    Ok(inner.ethertype())
}

/// Removes the outer headers of a super-packet on a VLAN. GSO cuts it by the protocol that the kernel has for
/// it, so that must be the protocol behind the tags, and the outermost tag must lie where the kernel looks
/// for it: beside the frame.
#[cold]
#[inline(always)]
fn strip_with_tags(ctx: &TcContext, inner: Eth) -> Result<u16, DropReason> {
    let failed = |_| DropReason::DecapFailed;
    let first: BehindTpid = *pulled(ctx, INNER_L3).map_err(failed)?;
    let outermost = first.tag(inner.ethertype());
    if !is_vlan(first.ethertype()) {
        remove_outer(ctx, inner.of_type(first.ethertype()), TAG)?;
        push_tag(ctx, outermost)?;
        return Ok(first.ethertype());
    }
    let second: BehindTpid = *pulled(ctx, INNER_L3 + TAG as usize).map_err(failed)?;
    remove_outer(ctx, inner.of_type(second.ethertype()), 2 * TAG)?;
    push_tag(ctx, second.tag(first.ethertype()))?;
    push_tag(ctx, outermost)?;
    Ok(first.ethertype())
}

/// Length of a VLAN tag.
const TAG: i32 = size_of::<Tag>() as i32;

/// Puts a tag beside the frame; one that lies there already goes into it.
#[inline(always)]
fn push_tag(ctx: &TcContext, tag: Tag) -> Result<(), DropReason> {
    // SAFETY: the context is valid while the program runs.
    let pushed = unsafe { bpf_skb_vlan_push(ctx.skb.skb, tag.tpid().to_be(), tag.control()) };
    if pushed == 0 { Ok(()) } else { Err(DropReason::DecapFailed) }
}

/// Removes the outer headers and `more` bytes after them, then writes `eth` as the new Ethernet header.
#[inline(always)]
fn remove_outer(ctx: &TcContext, eth: Eth, more: i32) -> Result<(), DropReason> {
    let shrunk = match eth.ethertype() {
        // Tells the kernel that IPv6 comes out, where the kernel can be told (6.3).
        ETH_P_IPV6 if shrink(ctx, more, u64::from(BPF_F_ADJ_ROOM_DECAP_L3_IPV6)) => true,
        ETH_P_IPV6 => remove_outer_as_ipv6(ctx, more),
        _ => shrink(ctx, more, 0),
    };
    if !shrunk {
        return Err(DropReason::DecapFailed);
    }
    forget_outer_checksum(ctx);
    *header::<Eth>(ctx, 0)? = eth;
    if eth.ethertype() == ETH_P_IPV6 { jumbo::put_in(ctx) } else { Ok(()) }
}

/// The kernel would forget all that the device has verified: see [`forget_outer_checksum`].
const FIXED_GSO: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64 | BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64;

/// Removes the outer headers and `more` bytes after them, and with them the marks of a tunnel, where the kernel can be
/// told so (7.3).
#[inline(always)]
fn shrink(ctx: &TcContext, more: i32, flags: u64) -> bool {
    let by = -(outer::LEN as i32) - more;
    let flags = flags | FIXED_GSO;
    // SAFETY: the context is valid while the program runs.
    unsafe { bpf_skb_adjust_room(ctx.skb.skb, by, BPF_ADJ_ROOM_MAC, flags) == 0 }
}

/// Notes that the outermost of the checksums that the device has verified goes: UDP's, which counts as one also where
/// it is 0 (CHECKSUM_UNNECESSARY in linux/skbuff.h). If it was the only one, nothing is verified any more, and the
/// endpoint's stack verifies the inner checksum; if the device has verified the inner one too, it need not. The
/// kernel's own VXLAN device does the same (kernel 5.8).
#[inline(always)]
fn forget_outer_checksum(ctx: &TcContext) {
    // SAFETY: the context is valid while the program runs. The helper fails for no packet at this level.
    unsafe { bpf_csum_level(ctx.skb.skb, u64::from(BPF_CSUM_LEVEL_DEC)) };
}

/// The same on a kernel that can't be told: the outer packet is made one of IPv6 first, for which the kernel
/// makes room, and then it all goes. A super-packet that the kernel took for IPv4 could not be cut, and where
/// its device wants it looked at (SKB_GSO_DODGY, which is what comes of shrinking), it would be dropped.
#[cold]
#[inline(always)]
fn remove_outer_as_ipv6(ctx: &TcContext, more: i32) -> bool {
    const GROWN: i32 = (size_of::<Ipv6>() - size_of::<Ipv4>()) as i32;
    // SAFETY: the context is valid while the program runs.
    let changed = unsafe { bpf_skb_change_proto(ctx.skb.skb, ETH_P_IPV6.to_be(), 0) == 0 };
    changed && shrink(ctx, GROWN + more, 0)
}

/// Hands a stripped frame of that type to an endpoint of this node.
///
/// redirect_peer passes by the queue of the device on the host, so packets to an endpoint that has one go through the
/// device. redirect_peer keeps the packet's protocol as the kernel knows it: the inner one's for IP, but the
/// outer one's, IPv4, for any other frame. Those take the way through the device, which reads it anew. So does a packet
/// with an entry in the host's table of connections, as one that came by a bridge may have: the entry is the outer
/// packet's, and only the device takes it off on every kernel. redirect_peer also keeps a mark and a priority, by which
/// the host chooses routes and queues for the outer packet. They are none of the endpoint's business.
#[inline(always)]
pub fn deliver(ctx: &TcContext, ethertype: u16, to: &FdbEntry) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs, and these fields are for programs to write.
    unsafe {
        (&raw mut (*skb).mark).write_volatile(0);
        (&raw mut (*skb).priority).write_volatile(0);
    }
    let is_queued = to.flags & FLAG_QUEUED != 0;
    if frame::protocol(ctx) == ethertype && !is_queued && !has_connection(ctx) {
        // SAFETY: no preconditions.
        unsafe { bpf_redirect_peer(to.ifindex, 0) as i32 }
    } else {
        // SAFETY: no preconditions.
        unsafe { bpf_redirect(to.ifindex, 0) as i32 }
    }
}

/// Whether the packet has an entry in the host's table of connections.
#[inline(always)]
fn has_connection(ctx: &TcContext) -> bool {
    let at = layout!(nfct);
    at != 0 && field::<u64>(ctx, at) != Some(0)
}
