//! Pushing the outer headers.

use crate::{
    frame::{self, header},
    headers::{ETH_P_IP, ETH_P_IPV6, Ethernet, Ipv4, Ipv6Start, Outer, Udp, Vxlan},
    verdict::Decision,
};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{
        bpf_get_hash_recalc, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room,
        bpf_skb_change_head,
    },
    programs::TcContext,
};
use overlay_common::{Config, DropReason, MacBytes, SOURCE_PORT_MIN, VXLAN_OVERHEAD};

/// Length of the inner link header, in the flags' upper bits: of the Ethernet header alone. With the
/// VXLAN header counted in, GSO would cut segments in the wrong place.
const ENCAP_L2_LEN: u64 = (size_of::<Ethernet>() as u64) << 56;
const ENCAP_FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | ENCAP_L2_LEN;

/// The type of service to show outside: the inner packet's, ECN included (RFC 6040, section 4.1).
#[inline(always)]
pub fn outer_tos(ctx: &TcContext, eth: &Ethernet) -> u8 {
    let after = size_of::<Ethernet>();
    match eth.ethertype() {
        ETH_P_IP => header::<Ipv4>(ctx, after).map_or(0, |ip| ip.tos),
        ETH_P_IPV6 => header::<Ipv6Start>(ctx, after).map_or(0, |ip| ip.traffic_class()),
        _ => 0,
    }
}

/// The kernel remembers an IP packet for what it is now, but any other frame for the protocol that it
/// came with, and redirect_neigh would drop it where nobody counts. It goes out only by a next hop
/// that is resolved.
#[inline(always)]
pub fn needs_next_hop(eth: &Ethernet) -> bool {
    !is_ip(eth)
}

#[inline(always)]
fn is_ip(eth: &Ethernet) -> bool {
    matches!(eth.ethertype(), ETH_P_IP | ETH_P_IPV6)
}

/// Pushes the outer headers for a packet to `vtep`. `inner` is the frame's own Ethernet header;
/// `forwards` says that the sender is a router for others.
#[expect(
    clippy::too_many_arguments,
    reason = "inlined; a struct for one call would only rename them"
)]
#[inline(always)]
pub fn push(
    ctx: &TcContext,
    config: &Config,
    inner: Ethernet,
    tos: u8,
    vni: u32,
    vtep: [u8; 4],
    macs: (MacBytes, MacBytes),
    forwards: bool,
) -> Result<(), DropReason> {
    let skb = ctx.skb.skb;
    let len = ctx.len();
    // SAFETY: the context is valid while the program runs. The hash is of the inner flow: nothing has
    // been pushed yet.
    let hash = unsafe { bpf_get_hash_recalc(skb) };
    let made = match inner.ethertype() {
        // A packet that was decapsulated here and that an endpoint forwards is marked as encapsulated
        // still, and with the mark come the offsets of its inner headers, which lie where they lay:
        // the kernel refuses to mark it again (EALREADY), and plain room is what it needs. A large
        // packet of an endpoint's own tunnel is marked as well, but its inner headers lie deeper than
        // GSO would look for them: it is refused.
        ETH_P_IP => {
            grow(ctx, ENCAP_FLAGS)
                || (forwards || !frame::is_gso(ctx))
                    && grow(ctx, u64::from(BPF_F_ADJ_ROOM_FIXED_GSO))
        }
        ETH_P_IPV6 => grow(ctx, ENCAP_FLAGS),
        // adjust_room takes IP only. Other frames are never GSO, so plain room does.
        // SAFETY: the context is valid while the program runs.
        _ => unsafe { bpf_skb_change_head(skb, u32::from(VXLAN_OVERHEAD), 0) == 0 },
    };
    if !made {
        return Err(DropReason::EncapFailed);
    }
    const L3: u32 = (size_of::<Ipv4>() + size_of::<Udp>() + size_of::<Vxlan>()) as u32;
    const L4: u32 = (size_of::<Udp>() + size_of::<Vxlan>()) as u32;
    let outer: &mut OuterAndInner = header(ctx, 0)?;
    let (dst, src) = macs;
    *outer = OuterAndInner {
        outer: Outer {
            eth: Ethernet::new(dst, src, ETH_P_IP),
            ip: Ipv4::udp(tos, length(len + L3), config.ttl, frame::v4(&config.vtep), vtep),
            udp: Udp::new(
                SOURCE_PORT_MIN | (hash as u16 & !SOURCE_PORT_MIN),
                config.vxlan_port,
                length(len + L4),
            ),
            vxlan: Vxlan::new(vni),
        },
        inner,
    };
    Ok(())
}

#[inline(always)]
fn grow(ctx: &TcContext, flags: u64) -> bool {
    // SAFETY: the context is valid while the program runs.
    let result = unsafe {
        bpf_skb_adjust_room(ctx.skb.skb, i32::from(VXLAN_OVERHEAD as i16), BPF_ADJ_ROOM_MAC, flags)
    };
    result == 0
}

#[repr(C, packed)]
struct OuterAndInner {
    outer: Outer,
    inner: Ethernet,
}

/// A length field's value; 0 for a super-packet that is too long for one, which GSO cuts.
#[inline(always)]
fn length(len: u32) -> u16 {
    if len > 0xffff { 0 } else { len as u16 }
}

/// Sends the encapsulated packet straight out of the device that its next hop is behind.
#[inline(always)]
pub fn send_to_hop(ifindex: u32) -> Decision {
    // SAFETY: no preconditions.
    Decision::Redirect(unsafe { bpf_redirect(ifindex, 0) } as i32)
}

/// Sends the encapsulated packet by way of the kernel's own routes and neighbours, which is slower and
/// always right. These take only what the kernel knows for IP: see [`needs_next_hop`].
#[inline(always)]
pub fn send_by_routes(config: &Config) -> Decision {
    // SAFETY: no parameters: the kernel looks the packet's own destination up.
    let action =
        unsafe { bpf_redirect_neigh(config.underlay_ifindex, core::ptr::null_mut(), 0, 0) };
    Decision::Redirect(action as i32)
}
