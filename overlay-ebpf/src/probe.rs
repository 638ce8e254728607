//! Probes: what a node sends to another node's VTEP to learn whether the data path there is alive. The answer is made here,
//! so that it needs no process on this host.
//!
//! A probe is VXLAN of the VNI that no network has. The answer is the same packet with its addresses and ports exchanged: so
//! it is for the prober's own socket, and goes up the stack there, as it is not for the VXLAN port. Only a VTEP of the
//! cluster is answered, once for each packet, with no more bytes and not more often than the node's limit of answers allows,
//! so that a forged probe gains nothing; and never to the VXLAN port. The inner MACs are exchanged, too, and tell a probe
//! from an answer: so no answer is itself answered, also where a router between has changed its ports.

use crate::{
    frame::{self, header},
    headers::{Eth, Ipv4, L3, Ports},
    limit, maps,
    outer::ipv4::Outer,
};
use aya_ebpf::{helpers::bpf_redirect, programs::TcContext};
use overlay_common::{
    Config, DropReason, Ip16, NodeKey, PROBE_ETHERTYPE, PROBE_LEN_MAX, PROBE_MAC,
};

/// The slot of LIMITS by which the answers to all probes are counted.
const SLOT: u32 = 0;

/// Turns the packet into the answer and sends it back by the device on which it came; the return value of the helper. `None`
/// where it is no probe of a VTEP of the cluster: then the packet is as it was.
#[cold]
#[inline(always)]
pub fn answer(ctx: &TcContext, config: &Config, from: &Ip16) -> Result<Option<i32>, DropReason> {
    if !is_probe(ctx, config, from) {
        return Ok(None);
    }
    if !limit::allows(config.answers, SLOT, |limits| &mut limits.answers_ns) {
        return Err(DropReason::ProbeLimit);
    }
    Ok(turn(ctx))
}

/// Where the ports are.
const PORTS: usize = L3 + size_of::<Ipv4>();

#[inline(always)]
fn is_probe(ctx: &TcContext, config: &Config, from: &Ip16) -> bool {
    let Ok(outer) = header::<Outer>(ctx, 0) else { return false };
    let inner = outer.inner;
    if ctx.len() > PROBE_LEN_MAX
        || inner.ethertype() != PROBE_ETHERTYPE
        || !inner.is_from(&PROBE_MAC)
        || !inner.is_to_nobody()
    {
        return false;
    }
    let Some(node) = maps::node(&NodeKey { vtep: *from }) else { return false };
    let Ok(ports) = header::<Ports>(ctx, PORTS) else { return false };
    node.node != 0 && !frame::same_ip(&config.vtep, from) && ports.source() != config.vxlan_port
}

#[inline(always)]
fn turn(ctx: &TcContext) -> Option<i32> {
    // The sums of IPv4 and UDP do not depend on the order of what they sum.
    let outer = header::<Outer>(ctx, 0).ok()?;
    outer.inner = outer.inner.turned();
    let eth = header::<Eth>(ctx, 0).ok()?;
    *eth = eth.turned();
    let ip = header::<Ipv4>(ctx, L3).ok()?;
    (ip.src, ip.dst) = (ip.dst, ip.src);
    let ports = header::<Ports>(ctx, PORTS).ok()?;
    *ports = ports.turned();
    // SAFETY: no preconditions.
    Some(unsafe { bpf_redirect(frame::ifindex(ctx), 0) } as i32)
}
