//! The jumbo option (RFC 2675) of IPv6 super-packets above 65,535 bytes. Kernels from 5.19 on put it behind
//! the IPv6 header of their own TCP super-packets (commit 09f3d1a3a52c), and remove it where these are cut, so
//! that it is on no wire.
//!
//! But kernels look for the option behind the outer header only, and cut a tunnel's packet that has one inside
//! in the wrong places. So the option is removed before the outer headers are added. It is added again after
//! they were removed, because a receiving kernel would treat the packet without it as empty.

use crate::{
    frame::{self, header},
    headers::{IPPROTO_TCP, Ipv6, JumboOption, L3},
};
use aya_ebpf::{
    bindings::{BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_NET},
    helpers::bpf_skb_adjust_room,
    programs::TcContext,
};
use overlay_common::DropReason;

const L4: usize = L3 + size_of::<Ipv6>();
const OPTION: i32 = size_of::<JumboOption>() as i32;

/// Returns true if the packet is longer than IPv6's own length field can say.
#[inline(always)]
fn is_jumbo(ctx: &TcContext) -> bool {
    frame::gso_size(ctx) != 0 && ctx.len() as usize > L4 + 0xffff
}

/// Removes the option, if it is there.
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

/// Adds the option, if the receiver will look for it.
#[inline(always)]
pub fn put_in(ctx: &TcContext) -> Result<(), DropReason> {
    if !is_jumbo(ctx) {
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

/// Whether exactly this option is between the IPv6 and the TCP header.
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
