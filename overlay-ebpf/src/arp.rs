//! ARP (RFC 826), answered on the asker's host. Only a request for an address that no endpoint has leaves it, to bridging
//! endpoints alone, and so do the answers and announcements of stations behind one.

use crate::{
    frame::{self, header, linear},
    headers::{Arp, Ethernet},
    maps::{self, FdbWords},
    sender::Sender,
    verdict::{Decision, opaque_to_verifier},
};
use aya_ebpf::{helpers::bpf_redirect, programs::TcContext};
use core::hint::black_box;
use overlay_common::{
    DropReason, FLAG_BRIDGING, FLAG_MULTICAST, Ip16, MacBytes, NeighKey, ip16_from_v4,
};

/// An ARP packet that was checked.
pub enum Heard {
    /// A request for the address of an endpoint, whose MAC this is.
    Known(MacBytes),
    /// A request for an address that no endpoint has, or what a station announces to all where the network carries no
    /// broadcast: for bridging endpoints.
    Question,
    /// An answer to one, or an announcement to all: it goes where its destination MAC says.
    Answer,
}

/// Checks the ARP packet at `l3`, be it broadcast or unicast: the kernel probes neighbours that it knows by unicast.
/// `own` is the address of the endpoint that sends the frame, if it is one of this node.
#[inline(always)]
pub fn hear(
    ctx: &TcContext,
    l3: usize,
    sender: Sender,
    own: Option<&Ip16>,
) -> Result<Heard, DropReason> {
    linear(ctx, l3 + size_of::<Arp>())?;
    let arp: &Arp = header(ctx, l3)?;
    let is_request = arp.is_request();
    let is_answer = sender.has(FLAG_BRIDGING) && arp.is_reply();
    if !is_request && !is_answer {
        return Err(DropReason::ArpNotRequest);
    }
    if !sender.eth.is_from(&arp.sender_mac) {
        return Err(DropReason::SpoofedMac);
    }
    // A sender that does not have the address yet asks with none (RFC 5227, section 2.1.1).
    if u32::from_ne_bytes(arp.sender_ip) != 0 {
        sender.check_ip(arp.sender_ip)?;
    }
    if is_request {
        if own.is_some_and(|own| frame::is_v4(own, arp.target_ip)) {
            return Err(DropReason::ArpOwnAddress);
        }
        let asked = NeighKey { vni: sender.vni, ip: ip16_from_v4(arp.target_ip) };
        if let Some(found) = maps::neigh(&asked) {
            return match maps::fdb(FdbWords::of(sender.vni, found.mac).key()) {
                Some(endpoint) if endpoint.is_somewhere() => Ok(Heard::Known(found.mac)),
                // It answers nobody, and nobody else answers for it.
                _ => Err(DropReason::ArpUnknownTarget),
            };
        }
    }
    if sender.eth.is_to_reserved_group() {
        return Err(DropReason::ReservedGroup);
    }
    // Unknown numbers and no branches: the verifier would walk all that follows once for each way through them.
    let hidden = |number: u32| opaque_to_verifier(ctx, number);
    let flags = hidden(sender.flags);
    let [bridges, broadcast] =
        [FLAG_BRIDGING, FLAG_MULTICAST].map(|flag| flags >> flag.trailing_zeros() & 1);
    let from = hidden(u32::from_ne_bytes(arp.sender_ip));
    // Stations note the address of who asks them, and one that does not bridge has only its own there. (Linux asks with
    // another address of its host unless arp_announce is 2.)
    let is_foreign = is_not_zero(from) & is_not_zero(from ^ hidden(sender.own));
    if is_foreign & (bridges ^ 1) != 0 {
        return Err(DropReason::SpoofedIp);
    }
    let is_answer = hidden(is_answer.into());
    let is_of_itself = is_not_zero(from ^ hidden(u32::from_ne_bytes(arp.target_ip))) ^ 1;
    let is_announced = bridges & broadcast & (is_answer | is_of_itself);
    let to_group = hidden(sender.eth.is_to_group().into());
    if to_group & is_announced | (to_group ^ 1) & is_answer != 0 {
        Ok(Heard::Answer)
    } else {
        Ok(Heard::Question)
    }
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

/// 1 for a number that is not zero, else 0, without a branch.
#[inline(always)]
fn is_not_zero(number: u32) -> u32 {
    black_box((number | number.wrapping_neg()) >> 31)
}
