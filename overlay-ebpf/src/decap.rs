//! Stripping the outer headers.

use crate::{
    ecn,
    frame::{self, header, pulled},
    headers::{ETH_P_IP, ETH_P_IPV6, Eth, Ipv4, Ipv6},
    jumbo,
};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{
        bpf_csum_update, bpf_redirect, bpf_redirect_peer, bpf_skb_adjust_room,
        bpf_skb_change_proto, bpf_skb_change_tail,
    },
    programs::TcContext,
};
use overlay_common::{DropReason, VXLAN_OVERHEAD};

/// Where the inner packet begins, seen from the outer Ethernet header.
const INNER_L3: usize = VXLAN_OVERHEAD as usize + size_of::<Eth>();

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

/// Strips the outer headers and puts the inner Ethernet header back in front.
#[inline(always)]
pub fn strip(ctx: &TcContext, inner: Eth) -> Result<(), DropReason> {
    if ctx.len() < SHRINKS_FROM {
        // A short frame of a protocol that is not IP. Padding is Ethernet's own way with these: their
        // protocols tell their length (IEEE 802.3, section 3.2.8).
        // SAFETY: the context is valid while the program runs.
        let padded = unsafe { bpf_skb_change_tail(ctx.skb.skb, SHRINKS_FROM, 0) };
        if padded != 0 {
            return Err(DropReason::DecapFailed);
        }
    }
    let stripped = match inner.ethertype() {
        // Tells the kernel what comes out, where it can be told (6.3).
        ETH_P_IPV6 if shrink(ctx, 0, FIXED_GSO | u64::from(BPF_F_ADJ_ROOM_DECAP_L3_IPV6)) => true,
        ETH_P_IPV6 => shrink_to_ipv6(ctx),
        _ => shrink(ctx, 0, FIXED_GSO),
    };
    if !stripped {
        return Err(DropReason::DecapFailed);
    }
    *header::<Eth>(ctx, 0)? = inner;
    if inner.ethertype() == ETH_P_IPV6 { jumbo::put_in(ctx) } else { Ok(()) }
}

const FIXED_GSO: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;

/// Takes the outer headers off, and `more` bytes.
#[inline(always)]
fn shrink(ctx: &TcContext, more: i32, flags: u64) -> bool {
    let by = -i32::from(VXLAN_OVERHEAD as i16) - more;
    // SAFETY: the context is valid while the program runs.
    unsafe { bpf_skb_adjust_room(ctx.skb.skb, by, BPF_ADJ_ROOM_MAC, flags) == 0 }
}

/// The same on a kernel that can't be told: the outer packet is made one of IPv6 first, for which the kernel
/// makes room, and then it all goes. A super-packet that the kernel took for IPv4 could not be cut, and where
/// its device wants it looked at (SKB_GSO_DODGY, which is what comes of shrinking), it would be dropped.
#[cold]
#[inline(always)]
fn shrink_to_ipv6(ctx: &TcContext) -> bool {
    const GROWN: i32 = (size_of::<Ipv6>() - size_of::<Ipv4>()) as i32;
    // SAFETY: the context is valid while the program runs.
    let changed = unsafe { bpf_skb_change_proto(ctx.skb.skb, ETH_P_IPV6.to_be(), 0) == 0 };
    changed && shrink(ctx, GROWN, FIXED_GSO)
}

/// Hands a stripped frame to the endpoint behind the host-side device `ifindex`.
///
/// redirect_peer keeps the packet's protocol as the kernel knows it: the inner one's for IP, but the
/// outer one's, IPv4, for any other frame. Those take the way through the device, which reads it anew.
#[inline(always)]
pub fn deliver(ctx: &TcContext, inner: Eth, ifindex: u32) -> i32 {
    if frame::protocol(ctx) == inner.ethertype() {
        // SAFETY: no preconditions.
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    } else {
        // SAFETY: no preconditions.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }
}
