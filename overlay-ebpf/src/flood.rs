//! Broadcast and multicast, by head-end replication: the sender's node makes a copy for every local
//! port and every VTEP of the network; a receiving node makes one for every local port.

use crate::{
    encap,
    frame::{self, header},
    headers::{Ethernet, Outer},
    maps,
    verdict::{Decision, count_drop},
};
use aya_ebpf::programs::TcContext;
use overlay_common::{
    Config, Direction, DropReason, FLAG_FORWARDS, FLOOD_MAX, FloodEntry, NODE_NEXT_HOP, NodeKey,
    PortEntry,
};

/// Copies to every local port but `except`.
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

/// Copies what the endpoint on `port` sends to everybody else on its network.
#[inline(always)]
pub fn replicate(
    ctx: &TcContext,
    config: &Config,
    port: &PortEntry,
    eth: Ethernet,
    tos: u8,
) -> Result<Decision, DropReason> {
    let Some(flood) = maps::flood(&port.vni) else { return Err(DropReason::BroadcastOff) };
    let len = ctx.len();
    to_local_ports(ctx, flood, frame::ifindex(ctx), Direction::FromEndpoint, len);
    if flood.vtep_count == 0 {
        return Ok(Decision::Replicated);
    }
    // Headers are pushed once; each copy gets another destination.
    let forwards = port.flags & FLAG_FORWARDS != 0;
    encap::push(ctx, config, eth, tos, port.vni, [0; 4], ([0; 6], [0; 6]), forwards)?;
    for slot in 0..FLOOD_MAX {
        if slot as u32 >= flood.vtep_count {
            break;
        }
        let key = NodeKey { vtep: flood.vteps[slot] };
        let node = maps::node(&key).filter(|node| node.flags & NODE_NEXT_HOP != 0);
        // A copy can't take the kernel's own route: one whose next hop is not resolved is lost.
        let Some(node) = node else {
            count_drop(DropReason::UnknownNode, Direction::FromEndpoint, len);
            continue;
        };
        let outer: &mut Outer = header(ctx, 0)?;
        outer.eth.dst = node.next_hop_mac;
        outer.eth.src = node.source_mac;
        outer.ip.set_destination(frame::v4(&key.vtep));
        if ctx.clone_redirect(node.ifindex, 0).is_err() {
            count_drop(DropReason::RedirectFailed, Direction::FromEndpoint, len);
        }
    }
    Ok(Decision::Replicated)
}
