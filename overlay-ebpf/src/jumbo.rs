//! The jumbo option (RFC 2675) of IPv6 super-packets above 65,535 bytes.
//!
//! Kernels from 5.19 to 6.19 put the option behind the IPv6 header of their own TCP super-packets (commit
//! 09f3d1a3a52c) and take it out where these are cut, so it is on no wire. They look for it behind the outer header
//! alone, and cut a tunnel's packet that has one inside in the wrong places. So [`take_out`] removes it before the
//! outer headers are added, and [`put_in`] adds it after they are removed, since such a kernel takes a large packet
//! without the option for an empty one.
//!
//! Kernels from 7.0 on neither put the option in nor take it out: a large packet's length is 0, as in IPv4. An option
//! that [`put_in`] added would go out in every segment, so there it adds none.

use crate::{
    frame::{self, header},
    headers::{IPPROTO_TCP, Ipv6, JumboOption, L3},
    kernel::layout,
};
use aya_ebpf::{
    bindings::{BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_NET},
    helpers::bpf_skb_adjust_room,
    programs::TcContext,
};
use overlay_common::DropReason;

const L4: usize = L3 + size_of::<Ipv6>();
const OPTION: i32 = size_of::<JumboOption>() as i32;

/// Whether the packet is longer than IPv6's own length field can say.
#[inline(always)]
fn is_jumbo(ctx: &TcContext) -> bool {
    frame::gso_size(ctx) != 0 && ctx.len() as usize > L4 + 0xffff
}

/// Takes the option out, where there is one.
#[inline(always)]
pub fn take_out(ctx: &TcContext) -> Result<(), DropReason> {
    if !is_jumbo(ctx) || !has_option(ctx)? {
        return Ok(());
    }
    if !resize(ctx, -OPTION) {
        return Err(DropReason::EncapFailed);
    }
    header::<Ipv6>(ctx, L3)?.next_header = IPPROTO_TCP;
    Ok(())
}

/// Puts the option in, where the kernel takes it out again.
#[inline(always)]
pub fn put_in(ctx: &TcContext) -> Result<(), DropReason> {
    if !is_jumbo(ctx) || layout!(knows_jumbo) == 0 {
        return Ok(());
    }
    let ip: &Ipv6 = header(ctx, L3)?;
    if ip.next_header != IPPROTO_TCP || !ip.is_without_length() {
        return Ok(());
    }
    if !resize(ctx, OPTION) {
        return Err(DropReason::DecapFailed);
    }
    header::<Ipv6>(ctx, L3)?.next_header = 0;
    *header::<JumboOption>(ctx, L4)? = JumboOption::new(IPPROTO_TCP, ctx.len() - L4 as u32);
    Ok(())
}

/// Whether this option, and nothing else, is between the IPv6 and the TCP header.
#[inline(always)]
fn has_option(ctx: &TcContext) -> Result<bool, DropReason> {
    if header::<Ipv6>(ctx, L3)?.next_header != 0 {
        return Ok(false);
    }
    Ok(header::<JumboOption>(ctx, L4)?.is_before(IPPROTO_TCP))
}

#[inline(always)]
fn resize(ctx: &TcContext, by: i32) -> bool {
    // SAFETY: the context is valid while the program runs.
    unsafe {
        bpf_skb_adjust_room(ctx.skb.skb, by, BPF_ADJ_ROOM_NET, u64::from(BPF_F_ADJ_ROOM_FIXED_GSO))
            == 0
    }
}
