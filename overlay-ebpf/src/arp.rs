//! ARP (RFC 826), answered on the asker's host: no request ever leaves it.

use crate::{
    frame::{self, header, linear, same_mac},
    headers::{Arp, Ethernet, L3},
    maps,
    verdict::Decision,
};
use aya_ebpf::{helpers::bpf_redirect, programs::TcContext};
use overlay_common::{DropReason, FLAG_FORWARDS, MacBytes, NeighKey, PortEntry, ip16_from_v4};

/// Answers the request of the endpoint on `port`, be it broadcast or unicast: the kernel probes neighbours
/// that it knows by unicast.
#[inline(always)]
pub fn answer(ctx: &TcContext, port: &PortEntry) -> Result<Decision, DropReason> {
    linear(ctx, L3 + size_of::<Arp>())?;
    let arp: &mut Arp = header(ctx, L3)?;
    if !arp.is_request() {
        return Err(DropReason::ArpNotRequest);
    }
    let forwards = port.flags & FLAG_FORWARDS != 0;
    if !forwards && !same_mac(&arp.sender_mac, &port.mac) {
        return Err(DropReason::SpoofedMac);
    }
    // A sender that does not have the address yet asks with none (RFC 5227, section 2.1.1).
    let is_probe = u32::from_ne_bytes(arp.sender_ip) == 0;
    if !forwards && !is_probe && !frame::is_v4(&port.ip, arp.sender_ip) {
        return Err(DropReason::SpoofedIp);
    }
    if frame::is_v4(&port.ip, arp.target_ip) {
        return Err(DropReason::ArpOwnAddress);
    }
    let asked = NeighKey { vni: port.vni, ip: ip16_from_v4(arp.target_ip) };
    let Some(found) = maps::neigh(&asked) else { return Err(DropReason::ArpUnknownTarget) };
    send_answer(ctx, arp, found.mac)
}

/// Turns the request into the answer that the address belongs to `mac`, and sends it back.
#[inline(always)]
pub fn send_answer(ctx: &TcContext, arp: &mut Arp, mac: MacBytes) -> Result<Decision, DropReason> {
    arp.answer(mac);
    let eth: &mut Ethernet = header(ctx, 0)?;
    eth.dst = eth.src;
    eth.src = mac;
    // Out of the device on which it came in: back to the asker.
    // SAFETY: no preconditions.
    let action = unsafe { bpf_redirect(frame::ifindex(ctx), 0) };
    Ok(Decision::Redirect(action as i32))
}
