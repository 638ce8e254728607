//! Broadcast and multicast, by head-end replication: the sender's node makes a copy for every local
//! port and every VTEP of the network; a receiving node makes one for every local port.
//!
//! Frames to stations that no map has go to bridging endpoints in the same way.
//!
//! The receivers are on pages of FLOOD. While user space rewrites several pages, a receiver may move from one to the
//! next: a frame that is copied at that moment may miss it, or reach it twice.

use crate::{
    encap::{self, Exit},
    frame::{self, header},
    headers::Eth,
    maps,
    outer::ipv4::{self as outer, Fields, Packed},
    verdict::{Decision, count, count_drop, count_drops, opaque_to_verifier},
};
use aya_ebpf::programs::TcContext;
use core::hint::black_box;
use overlay_common::{Direction, DropReason, FLOOD_BRIDGING, FLOOD_MAX, FLOOD_PAGES, FloodKey};

// The numbers of pages that follow each other differ in their lower bits alone.
const _: () = assert!(FLOOD_PAGES.is_power_of_two() && FLOOD_BRIDGING.is_multiple_of(FLOOD_PAGES));

/// Sends a copy to every local port on the pages that begin with `first`, but not to `except`.
#[inline(always)]
pub fn to_local_ports(
    ctx: &TcContext,
    first: FloodKey,
    except: u32,
    direction: Direction,
    len: u32,
) {
    let FloodKey { vni, page: first } = first;
    // Counted once behind the loop, also if it is none: the verifier would walk the loop once for each lost copy, and for
    // each number of them that is compared.
    let mut lost = 0;
    'pages: for page in 0..FLOOD_PAGES {
        let Some(flood) = maps::flood(&FloodKey { vni, page: first | page }) else { break };
        if flood.lost_ports != 0 {
            count_drops(flood.lost_ports, DropReason::FloodOverflow, direction, len);
        }
        for slot in 0..FLOOD_MAX {
            if slot as u32 >= flood.port_count {
                break 'pages;
            }
            let ifindex = flood.ports[slot];
            if ifindex != except && ctx.clone_redirect(ifindex, 0).is_err() {
                lost = black_box(lost + 1);
            }
        }
    }
    count_drops(lost, DropReason::RedirectFailed, direction, len);
}

/// Sends a copy of what an endpoint of this node sends to everybody else on the pages that begin with `key`. `tos_mask`
/// says which bits of the type of service the outer headers get.
#[inline(always)]
pub fn replicate(ctx: &TcContext, key: FloodKey, tos_mask: u8) -> Result<Decision, DropReason> {
    let Some(first) = maps::flood(&key) else {
        return Err(DropReason::BroadcastOff);
    };
    let vni = key.vni;
    let len = ctx.len();
    to_local_ports(ctx, key, frame::ifindex(ctx), Direction::FromEndpoint, len);
    if first.lost_hops != 0 {
        count_drops(first.lost_hops, DropReason::FloodOverflow, Direction::FromEndpoint, len);
    }
    if first.hop_count == 0 {
        return Ok(Decision::Replicated);
    }
    // Read again, and not kept over the loop: whatever was found out about it before would make the verifier walk the
    // loop once for each of it.
    let eth: Eth = *header(ctx, 0)?;
    let tos = encap::outer_tos(ctx, eth) & tos_mask;
    let hash = encap::flow_hash(ctx, eth);
    let gso = frame::gso_size(ctx);
    let bare_mask = if encap::needs_next_hop(ctx, eth) { 0 } else { u32::MAX };
    let bare_mask = opaque_to_verifier(ctx, bare_mask);
    // Room is made once; each copy gets the headers of its VTEP. The neighbours have their copies already, so
    // a failure loses copies and not the packet.
    let (eth, tags) = match encap::make_room(ctx, eth) {
        Ok(made) => made,
        Err(reason) => {
            count_drop(reason, Direction::FromEndpoint, len);
            return Ok(Decision::Replicated);
        }
    };
    encap::write_inner(ctx, eth, &tags)?;
    let fields = encap::with_tags(ctx, Fields { vni, tos, hash, len });
    // The segments that GSO will cut are not checked. Were the verifier to know the 0, or to see the lengths compared
    // in each round, it would walk the loop once for each outcome.
    let longest = if gso == 0 { fields.len + outer::PACKET } else { 0 };
    let longest = opaque_to_verifier(ctx, longest);
    let packed = fields.packed();
    for page in 0..FLOOD_PAGES {
        let Some(flood) = maps::flood(&FloodKey { vni, page: key.page | page }) else { break };
        for slot in 0..FLOOD_MAX {
            if slot as u32 >= flood.hop_count {
                return Ok(Decision::Replicated);
            }
            if let Err(reason) = copy_to(ctx, flood.hops[slot], packed, longest, bare_mask) {
                let reason = opaque_to_verifier(ctx, reason as u32);
                count(reason, Direction::FromEndpoint, len);
            }
        }
    }
    Ok(Decision::Replicated)
}

/// Sends a copy of the frame, for which there is room already, to the VTEP at `index` of HOPS. `bare_mask` is as for
/// [`Exit::of_copy`].
#[inline(always)]
fn copy_to(
    ctx: &TcContext,
    index: u32,
    packed: Packed,
    longest: u32,
    bare_mask: u32,
) -> Result<(), DropReason> {
    let Some(hop) = maps::hop(index) else { return Err(DropReason::UnknownNode) };
    let device = Exit::of_copy(hop, bare_mask);
    if device == 0 {
        return Err(DropReason::UnresolvedNextHop);
    }
    // The sender gets no answer: a sender of broadcast keeps no path MTU of one receiver.
    if is_more(longest, hop.mtu.into()) {
        return Err(DropReason::TooBig);
    }
    encap::write_outer(ctx, hop, packed)?;
    ctx.clone_redirect(device, 0).map_err(|_| DropReason::RedirectFailed)
}

/// Whether `a` is more than `b`, by their difference: the verifier remembers what a comparison says of its two
/// sides, and would treat each round of the loop as a different state.
#[inline(always)]
fn is_more(a: u32, b: u32) -> bool {
    black_box(a.wrapping_sub(b)).cast_signed() > 0
}
