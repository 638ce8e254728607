//! Broadcast and multicast, by head-end replication: the sender's node makes a copy for every local
//! port and every VTEP of the network; a receiving node makes one for every local port.

use crate::{
    encap, frame,
    headers::Eth,
    maps,
    outer::ipv4::{self as outer, Fields},
    verdict::{Decision, count_drop},
};
use aya_ebpf::programs::TcContext;
use overlay_common::{Direction, DropReason, FLOOD_MAX, FloodEntry, NodeKey, PortEntry};

/// Sends a copy to every local port but `except`.
#[inline(always)]
pub fn to_local_ports(
    ctx: &TcContext,
    flood: &FloodEntry,
    except: u32,
    direction: Direction,
    len: u32,
) {
    for slot in 0..FLOOD_MAX {
        if slot as u32 >= flood.port_count {
            break;
        }
        let ifindex = flood.ports[slot];
        if ifindex != except && ctx.clone_redirect(ifindex, 0).is_err() {
            count_drop(DropReason::RedirectFailed, direction, len);
        }
    }
}

/// Sends a copy of what the endpoint on `port` sends to everybody else on its network.
#[inline(always)]
pub fn replicate(ctx: &TcContext, port: &PortEntry, eth: Eth) -> Result<Decision, DropReason> {
    let Some(flood) = maps::flood(&port.vni) else { return Err(DropReason::BroadcastOff) };
    let len = ctx.len();
    to_local_ports(ctx, flood, frame::ifindex(ctx), Direction::FromEndpoint, len);
    if flood.vtep_count == 0 {
        return Ok(Decision::Replicated);
    }
    let tos = encap::outer_tos(ctx, eth);
    let hash = encap::flow_hash(ctx, eth);
    let gso = frame::gso_size(ctx);
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
    let fields = encap::with_tags(ctx, Fields { vni: port.vni, tos, hash, len });
    // The segments that GSO will cut are not checked.
    let longest = if gso == 0 { fields.len + outer::PACKET } else { 0 };
    for slot in 0..FLOOD_MAX {
        if slot as u32 >= flood.vtep_count {
            break;
        }
        let key = NodeKey { vtep: flood.vteps[slot] };
        let hop = maps::node(&key).and_then(|node| maps::hop(node.hop));
        let Some(hop) = hop else {
            count_drop(DropReason::UnknownNode, Direction::FromEndpoint, len);
            continue;
        };
        // A copy can't take the kernel's own route.
        if hop.ifindex == 0 {
            count_drop(DropReason::UnresolvedNextHop, Direction::FromEndpoint, len);
            continue;
        }
        // The sender gets no answer: a sender of broadcast keeps no path MTU of one receiver.
        if is_more(longest, hop.mtu.into()) {
            count_drop(DropReason::TooBig, Direction::FromEndpoint, len);
            continue;
        }
        encap::write_outer(ctx, hop, fields)?;
        if ctx.clone_redirect(hop.ifindex, 0).is_err() {
            count_drop(DropReason::RedirectFailed, Direction::FromEndpoint, len);
        }
    }
    Ok(Decision::Replicated)
}

/// Whether `a` is more than `b`, by their difference: the verifier remembers what a comparison says of its two
/// sides, and would treat each round of the loop as a different state.
#[inline(always)]
fn is_more(a: u32, b: u32) -> bool {
    core::hint::black_box(a.wrapping_sub(b)).cast_signed() > 0
}
