//! A packet that is too big for the way to its destination's node, and what its sender is told (RFC 1191,
//! RFC 8201), in the destination's name: that it is on the same Ethernet segment, where nothing is ever
//! too big between two stations, is our invention.

use crate::{
    frame::{self, header},
    headers::{
        ETH_P_IP, ETH_P_IPV6, Eth, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Ipv4,
        Ipv6, L3, Tag, TcpStart, TooBig, Udp,
    },
    maps,
    outer::ipv4 as outer,
    verdict::Decision,
};
use aya_ebpf::{
    bindings::{BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{
        bpf_csum_diff, bpf_ktime_get_ns, bpf_redirect_peer, bpf_skb_adjust_room,
        bpf_skb_change_tail, bpf_skb_change_type,
    },
    programs::TcContext,
};
use overlay_common::{DropReason, HopEntry, IPV6_MTU_MIN};

/// Bytes of the longest outer packet that is not checked: the kernel believes in no smaller path
/// (net.ipv4.route.min_pmtu), and most packets are smaller.
const SMALL: u32 = 552;
/// Bytes of the longest frame that is never too big by a router's report: a sender of IPv6 makes none that
/// are shorter.
const LEAST: u32 = L3 as u32 + IPV6_MTU_MIN;
/// Bytes of the packet that the answer quotes. Nearly as many as an answer may hold (RFC 1812, section 4.3.2.3),
/// because the kernel cuts no packet before what it takes for the transport header (`bpf_skb_change_tail`),
/// and IPv6's extension headers lie before that. A multiple of four; together with what else is summed no more
/// than `bpf_csum_diff` takes (512 bytes).
const QUOTE: usize = 456;

/// Bytes of the longest outer packet that gets to `hop`, of which `around` are around the frame. A router's
/// report counts for a while.
#[inline(always)]
fn path_mtu(hop: &HopEntry, index: u32, around: u32) -> u32 {
    let mtu = u32::from(hop.mtu);
    let Some(path) = maps::path(index) else { return mtu };
    if path.mtu == 0 || path.mtu >= mtu {
        return mtu;
    }
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if now < path.until_ns { mtu.min(path.mtu.max(LEAST + around)) } else { mtu }
}

/// Bytes of the longest frame that fits on the way; `None` if this frame, of `len` bytes, fits.
#[inline(always)]
pub fn limit(ctx: &TcContext, eth: Eth, len: u32, hop: &HopEntry, index: u32) -> Option<u32> {
    let tag = if frame::has_stripped_tag(ctx) { size_of::<Tag>() as u32 } else { 0 };
    let around = outer::PACKET + tag;
    if len + around <= SMALL {
        return None;
    }
    let fits = path_mtu(hop, index, around).saturating_sub(around);
    let gso = frame::gso_size(ctx);
    let longest = if gso == 0 { len } else { segment(ctx, eth, gso)? };
    (longest > fits).then_some(fits)
}

/// Bytes of a segment that GSO will cut; `None` if its headers are not understood.
#[inline(always)]
fn segment(ctx: &TcContext, eth: Eth, gso: u32) -> Option<u32> {
    let (protocol, l4) = match eth.ethertype() {
        ETH_P_IP => {
            let ip: &Ipv4 = header(ctx, L3).ok()?;
            if ip.has_options() {
                return None;
            }
            (ip.protocol, L3 + size_of::<Ipv4>())
        }
        ETH_P_IPV6 => (header::<Ipv6>(ctx, L3).ok()?.next_header, L3 + size_of::<Ipv6>()),
        _ => return None,
    };
    let header_len = match protocol {
        IPPROTO_TCP => header::<TcpStart>(ctx, l4).ok()?.header_len(),
        IPPROTO_UDP => size_of::<Udp>(),
        _ => return None,
    };
    Some((l4 + header_len) as u32 + gso)
}

/// Drops the packet, and sends its sender the answer if its protocol has one.
#[cold]
#[inline(always)]
pub fn answer(ctx: &TcContext, eth: Eth, fits: u32) -> Result<Decision, DropReason> {
    let mtu = fits.saturating_sub(L3 as u32);
    match eth.ethertype() {
        ETH_P_IP => answer_ipv4(ctx, eth, mtu),
        ETH_P_IPV6 => answer_ipv6(ctx, eth, mtu),
        _ => Err(DropReason::TooBig),
    }
}

#[inline(always)]
fn answer_ipv4(ctx: &TcContext, eth: Eth, mtu: u32) -> Result<Decision, DropReason> {
    const ROOM: usize = size_of::<Ipv4>() + size_of::<TooBig>();
    let ip = *header::<Ipv4>(ctx, L3)?;
    // There is no answer to an error, or to a fragment that is not the first (RFC 1122, section 3.2.2).
    if ip.is_later_fragment() || ip.protocol == IPPROTO_ICMP && is_icmp_error(ctx, &ip) {
        return Err(DropReason::TooBig);
    }
    make_answer(ctx, ROOM)?;
    *header::<Eth>(ctx, 0)? = eth.turned();
    let total = (ROOM + QUOTE) as u16;
    *header::<Ipv4>(ctx, L3)? = Ipv4::new(IPPROTO_ICMP, total, ip.dst, ip.src);
    const ICMP: usize = L3 + size_of::<Ipv4>();
    *header::<TooBig>(ctx, ICMP)? = TooBig::ipv4(mtu);
    let sum = sum(header::<[u8; size_of::<TooBig>() + QUOTE]>(ctx, ICMP)?, 0);
    header::<TooBig>(ctx, ICMP)?.set_check(sum);
    Ok(send_back(ctx))
}

#[inline(always)]
fn is_icmp_error(ctx: &TcContext, ip: &Ipv4) -> bool {
    // Echo requests and replies are no errors; everything else counts as one.
    let kind: Result<u8, _> = ctx.load(L3 + ip.header_len());
    !kind.is_ok_and(|kind| matches!(kind, 0 | 8))
}

#[inline(always)]
fn answer_ipv6(ctx: &TcContext, eth: Eth, mtu: u32) -> Result<Decision, DropReason> {
    const ROOM: usize = size_of::<Ipv6>() + size_of::<TooBig>();
    let ip = *header::<Ipv6>(ctx, L3)?;
    let is_error = |kind: &mut u8| *kind < 128;
    if ip.next_header == IPPROTO_ICMPV6
        && header::<u8>(ctx, L3 + size_of::<Ipv6>()).map_or(true, is_error)
    {
        return Err(DropReason::TooBig);
    }
    make_answer(ctx, ROOM)?;
    *header::<Eth>(ctx, 0)? = eth.turned();
    const MESSAGE: usize = size_of::<TooBig>() + QUOTE;
    let back = Ipv6::new(IPPROTO_ICMPV6, MESSAGE as u16, ip.dst, ip.src);
    *header::<Ipv6>(ctx, L3)? = back;
    const ICMP: usize = L3 + size_of::<Ipv6>();
    *header::<TooBig>(ctx, ICMP)? = TooBig::ipv6(mtu);
    // The pseudo-header (RFC 8200, section 8.1): the addresses lie before the message, the rest is added.
    const FROM: usize = ICMP - 2 * size_of::<[u8; 16]>();
    let pseudo = (MESSAGE as u32 + u32::from(IPPROTO_ICMPV6)).to_be();
    let sum = sum(header::<[u8; 2 * 16 + MESSAGE]>(ctx, FROM)?, pseudo);
    header::<TooBig>(ctx, ICMP)?.set_check(sum);
    Ok(send_back(ctx))
}

/// Cuts the packet to what is quoted, and makes room between its Ethernet and its IP header.
#[inline(always)]
fn make_answer(ctx: &TcContext, room: usize) -> Result<(), DropReason> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs. Cutting also ends what GSO had to do.
    let made = unsafe {
        bpf_skb_change_tail(skb, (L3 + QUOTE) as u32, 0) == 0
            && bpf_skb_adjust_room(
                skb,
                room as i32,
                BPF_ADJ_ROOM_MAC,
                u64::from(BPF_F_ADJ_ROOM_FIXED_GSO),
            ) == 0
    };
    frame::linear(ctx, L3 + room + QUOTE)?;
    if made { Ok(()) } else { Err(DropReason::TooBig) }
}

/// The folded sum of `bytes` and `seed` (RFC 1071).
#[inline(always)]
fn sum<const N: usize>(bytes: &mut [u8; N], seed: u32) -> u16 {
    // SAFETY: the bytes are the packet's, and as many as said; nothing is taken away.
    let sum = unsafe {
        bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_mut_ptr().cast(), N as u32, seed)
    };
    let sum = sum as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Sends the answer to the endpoint that the packet came from, past the device's transmit side: with offloads
/// off, that would write a checksum where the quoted packet asked for one.
#[inline(always)]
fn send_back(ctx: &TcContext) -> Decision {
    // SAFETY: the context is valid while the program runs; the type is a valid one.
    unsafe { bpf_skb_change_type(ctx.skb.skb, frame::PACKET_HOST) };
    // SAFETY: no preconditions.
    Decision::AnsweredTooBig(unsafe { bpf_redirect_peer(frame::ifindex(ctx), 0) } as i32)
}
