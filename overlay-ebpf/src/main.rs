//! The eBPF programs of the overlay. They encapsulate and decapsulate VXLAN (RFC 7348) at TC, answer ARP from
//! a map, and drop everything that may not pass under a named reason.
//!
//! Each program decides once and acts once. A handler returns what to do or why not, and [`verdict`] turns
//! this into the packet's action and its count, so that no packet ends uncounted. A handler itself counts
//! only what happens beside the packet's own fate, by functions of [`verdict`]: copies of a broadcast that
//! are lost, and what an endpoint of this node receives from another one. The XDP program, which has no
//! fate to choose but two, counts its drops likewise.
//!
//! A program is one function: the compiler would leave the body of a large one outside of the entry that the kernel
//! calls, and a call from there to another section is not resolved by the loader.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "packets, maps and helpers are the kernel's: all is behind pointers"
)]
#![allow(unreachable_pub, reason = "a binary: pub says that other modules use it")]

mod arp;
mod checksum;
mod claim;
mod decap;
mod ecn;
mod encap;
mod event;
mod fence;
mod flood;
mod frame;
mod from_endpoint;
mod from_gateway;
mod from_underlay;
mod from_veth;
mod guard_underlay;
mod headers;
mod icmp;
mod jumbo;
mod kernel;
mod limit;
#[cfg(feature = "log")]
mod log;
mod maps;
mod outer;
mod path;
mod probe;
mod sender;
mod too_big;
mod verdict;
mod vlan;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    helpers::bpf_xdp_get_buff_len,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use overlay_common::Direction;

/// TC ingress, host side of an endpoint's veth: what an endpoint sends.
#[classifier]
#[inline(always)]
pub fn from_endpoint(ctx: TcContext) -> i32 {
    let len = ctx.len();
    let mut trace = verdict::Trace::default();
    let decided = from_endpoint::handle(&ctx, &mut trace);
    verdict::finish(&ctx, Direction::FromEndpoint, len, trace, decided)
}

/// TC ingress, underlay device: what other VTEPs send, among everything else.
#[classifier]
#[inline(always)]
pub fn from_underlay(ctx: TcContext) -> i32 {
    let len = ctx.len();
    let mut trace = verdict::Trace::default();
    let decided = from_underlay::handle(&ctx, &mut trace, len);
    verdict::finish(&ctx, Direction::FromUnderlay, len, trace, decided)
}

/// TC ingress, an uplink without Ethernet headers, as WireGuard's and other tunnels: what other VTEPs send by it.
#[classifier]
#[inline(always)]
pub fn from_bare_link(ctx: TcContext) -> i32 {
    // Decided here and not with the rest: in the variant that logs, the compiler would carry the missing number of a
    // decision to pass to where all decisions meet, and the verifier refuses a register that was never written.
    if !from_underlay::may_be_ours(&ctx) {
        return TC_ACT_UNSPEC;
    }
    let len = ctx.len();
    let mut trace = verdict::Trace::default();
    let decided = from_underlay::handle_bare(&ctx, &mut trace, len);
    verdict::finish(&ctx, Direction::FromUnderlay, len, trace, decided)
}

/// TC ingress, an uplink that is a veth: the same as `from_underlay`, but that segments which come in one by one are merged
/// first.
#[classifier]
#[inline(always)]
pub fn from_veth(ctx: TcContext) -> i32 {
    // They are counted where they come in again.
    if let Some(action) = from_veth::merge(&ctx) {
        return action;
    }
    let len = ctx.len();
    let mut trace = verdict::Trace::default();
    let decided = from_underlay::handle(&ctx, &mut trace, len);
    verdict::finish(&ctx, Direction::FromUnderlay, len, trace, decided)
}

/// TC ingress, host side of an endpoint's gateway leg: what it sends to the world, and would send to its
/// neighbours.
#[classifier]
#[inline(always)]
pub fn from_gateway(ctx: TcContext) -> i32 {
    let len = ctx.len();
    let decided = from_gateway::handle(&ctx);
    // The leg is of no network.
    let trace = verdict::Trace::default();
    verdict::finish(&ctx, Direction::FromGateway, len, trace, decided)
}

/// XDP in the underlay device's driver: drops strangers' VXLAN before it costs more. `frags`: the program
/// looks at the first buffer only, so that packets of several buffers (jumbo frames) may come to it (kernel
/// 5.18).
#[xdp(frags)]
pub fn guard_underlay(ctx: XdpContext) -> u32 {
    // SAFETY: the context is valid while the program runs.
    let len = |ctx: &XdpContext| unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
    guard_underlay::handle(&ctx, len)
}

/// The same program for XDP in the stack. Not `frags`: the kernel hands such a program a copy of the packet in
/// which the Ethernet header's length is zero (`skb_pp_cow_data`, seen on 6.18), and the programs at TC, which
/// run later, would find no Ethernet header at all.
#[xdp]
pub fn guard_generic(ctx: XdpContext) -> u32 {
    guard_underlay::handle(&ctx, |ctx| (ctx.data_end() - ctx.data()) as u32)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no code path panics; the verifier would refuse the loop that this would be.
    unsafe { core::hint::unreachable_unchecked() }
}

/// The kernel gives GPL-only helpers to programs that say a compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
