//! What routers between two nodes say of the way (RFC 1191): an outer packet was too big for it. The node
//! hears it, and the sender inside is told when its next packet is too big.

use crate::{
    frame::{self, header, linear},
    headers::{Ethernet, IPPROTO_UDP, Ipv4, Ports, TooBig},
    maps::{self, PATHS},
};
use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::TcContext};
use overlay_common::{Config, NodeKey, PATH_MTU_MIN, SOURCE_PORT_MIN, ip16_from_v4};

/// As the kernel itself keeps such a word (net.ipv4.route.mtu_expires), in nanoseconds.
const KEPT: u64 = 600 * 1_000_000_000;

/// Learns from an ICMP message to this node, where it speaks of a packet of ours to a VTEP: from a port that
/// encapsulation uses, and longer than what gets through.
///
/// Who forges one must guess a VTEP of ours to be heard, and gets no more than smaller packets: none below
/// the floor, where streams would stop, and never larger ones. A router that does not say how much gets
/// through (RFC 1191, section 5) is taken to mean the floor.
#[cold]
#[inline(always)]
pub fn learn(ctx: &TcContext, config: &Config) {
    const ICMP: usize = size_of::<Ethernet>() + size_of::<Ipv4>();
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
    // true words.
    let path = unsafe { &mut *path };
    if mtu < u32::from(hop.mtu) && (now >= path.until_ns || mtu <= path.mtu) {
        path.mtu = mtu;
        path.until_ns = now + KEPT;
    }
}
