//! Probes: what a node sends to another node's VTEP to learn whether the data path there is alive. The answer is made here,
//! so that it needs no process on this host.
//!
//! A probe is VXLAN of the VNI that no network has. The answer is the same packet with its addresses and ports exchanged: so
//! it is for the prober's own socket, and goes up the stack there, as it is not for the VXLAN port. Only a VTEP of the
//! cluster is answered, once for each packet and with no more bytes, so that a forged probe gains nothing; and never to the
//! VXLAN port, so that no answer is itself answered.

use crate::{
    frame::{self, header},
    headers::{Eth, Ipv4, L3, Ports},
    maps,
    outer::ipv4::Outer,
};
use aya_ebpf::{helpers::bpf_redirect, programs::TcContext};
use overlay_common::{Config, Ip16, NodeKey, PROBE_ETHERTYPE, PROBE_LEN_MAX};

/// Turns the packet into the answer and sends it back by the device on which it came; the return value of the helper. `None`
/// where it is no probe of a VTEP of the cluster: then the packet is as it was.
#[cold]
#[inline(always)]
pub fn answer(ctx: &TcContext, config: &Config, from: &Ip16) -> Option<i32> {
    const PORTS: usize = L3 + size_of::<Ipv4>();
    if ctx.len() > PROBE_LEN_MAX
        || header::<Outer>(ctx, 0).ok()?.inner.ethertype() != PROBE_ETHERTYPE
    {
        return None;
    }
    let node = maps::node(&NodeKey { vtep: *from })?;
    let is_of_cluster = node.node != 0 && !frame::same_ip(&config.vtep, from);
    if !is_of_cluster || header::<Ports>(ctx, PORTS).ok()?.source() == config.vxlan_port {
        return None;
    }
    let eth = header::<Eth>(ctx, 0).ok()?;
    *eth = eth.turned();
    let ip = header::<Ipv4>(ctx, L3).ok()?;
    (ip.src, ip.dst) = (ip.dst, ip.src);
    // The sums of IPv4 and UDP do not depend on the order of what they sum.
    let ports = header::<Ports>(ctx, PORTS).ok()?;
    *ports = ports.turned();
    // SAFETY: no preconditions.
    Some(unsafe { bpf_redirect(frame::ifindex(ctx), 0) } as i32)
}
