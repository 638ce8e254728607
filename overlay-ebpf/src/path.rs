//! Path MTU discovery between two nodes (RFC 1191). A router reports that an outer packet was too big; this node
//! remembers it, and the sender inside gets an answer when its next packet is too big.

use crate::{
    frame::{self, header, linear},
    headers::{IPPROTO_UDP, Ipv4, L3, Ports, TooBig},
    maps::{self, PATHS},
};
use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::TcContext};
use overlay_common::{Config, NodeKey, PATH_MTU_MIN, SOURCE_PORT_MIN, ip16_from_v4};

/// How long a report holds, in nanoseconds: as long as the kernel keeps one (net.ipv4.route.mtu_expires).
const KEPT: u64 = 600 * 1_000_000_000;

/// Learns from an ICMP message to this node, if it is about a packet of ours to a VTEP: from a port that
/// encapsulation uses, and longer than what gets through.
///
/// A forger must guess a VTEP of ours, and can only make packets smaller: never below the floor, where streams
/// would stop, and never larger. If a router does not say how much gets through (RFC 1191, section 5), the
/// floor counts.
#[cold]
#[inline(always)]
pub fn learn(ctx: &TcContext, config: &Config) {
    const ICMP: usize = L3 + size_of::<Ipv4>();
    const QUOTE: usize = ICMP + size_of::<TooBig>();
    const WHOLE: usize = QUOTE + size_of::<Ipv4>() + size_of::<Ports>();
    if linear(ctx, WHOLE).is_err() {
        return;
    }
    let Ok(message) = header::<TooBig>(ctx, ICMP) else { return };
    let Some(said) = message.ipv4_mtu() else { return };
    let Ok(ours) = header::<Ipv4>(ctx, QUOTE) else { return };
    let Ok(ports) = header::<Ports>(ctx, QUOTE + size_of::<Ipv4>()) else { return };
    if ours.has_options()
        || ours.protocol != IPPROTO_UDP
        || !frame::is_v4(&config.vtep, ours.src)
        || ports.destination() != config.vxlan_port
        || ports.source() < SOURCE_PORT_MIN
        || ours.total_len() <= said as usize
    {
        return;
    }
    let Some(node) = maps::node(&NodeKey { vtep: ip16_from_v4(ours.dst) }) else { return };
    let Some(hop) = maps::hop(node.hop) else { return };
    let mtu = said.max(PATH_MTU_MIN);
    let Some(path) = PATHS.get_ptr_mut(node.hop) else { return };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the element is valid while the program runs. Two CPUs that learn at once leave one of two
    // true reports.
    let path = unsafe { &mut *path };
    if mtu < u32::from(hop.mtu) && (now >= path.until_ns || mtu <= path.mtu) {
        path.mtu = mtu;
        path.until_ns = now + KEPT;
    }
}
