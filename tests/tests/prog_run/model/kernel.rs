//! What the kernel does with a packet, whatever the programs want.

use overlay_common::{DropReason, MacBytes};

use super::{
    Frame, Incoming,
    bytes::{Bytes, ETHERNET, IPV4, IPV6},
    jumbo,
    vlan::{TAG, is_tag},
};
use crate::{
    tap::Unfinished,
    world::{DEVICE_TAKES, DEVICES, FAR_PORT, PEER, ROUTER_MAC, UNDERLAY, UNDERLAY_MAC},
};

/// Whom a frame from the underlay is for, as the kernel sees it (linux/if_packet.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketType {
    Host,
    Broadcast,
    Multicast,
    OtherHost,
}

/// Whom a frame is for, by its destination and the device's own address (eth_type_trans).
pub(super) fn packet_type(ifindex: u32, to: MacBytes) -> PacketType {
    const FAR_UNDERLAY: u32 = UNDERLAY + PEER;
    match to {
        ROUTER_MAC if ifindex == FAR_UNDERLAY => PacketType::Host,
        UNDERLAY_MAC if ifindex != FAR_UNDERLAY => PacketType::Host,
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => PacketType::Broadcast,
        [first, ..] if first & 1 == 1 => PacketType::Multicast,
        _ => PacketType::OtherHost,
    }
}

/// BPF_PROG_TEST_RUN refuses a packet without its Ethernet header, and, from 6.18 on, one that is
/// shorter than the IP header that its ethertype tells of.
pub(crate) fn may_refuse(packet: &[u8]) -> bool {
    let bytes = Bytes(packet);
    match bytes.be16(12) {
        Err(_) => true,
        Ok(IPV4) => packet.len() < ETHERNET + 20,
        Ok(IPV6) => packet.len() < ETHERNET + 40,
        Ok(_) => packet.len() <= ETHERNET,
    }
}

/// Whether the kernel takes the frame for an IP packet.
pub(super) fn is_ip(frame: &[u8]) -> bool {
    matches!(Bytes(frame).be16(12), Ok(IPV4 | IPV6))
}

/// Whether the copy can go out of the device. A super-packet can, however long it is: it is cut where it must be.
pub(crate) fn takes_copy(ifindex: u32, frame: &Frame) -> bool {
    let is_there = DEVICES.contains(&ifindex) || ifindex == FAR_PORT;
    is_there && (frame.bulk.is_some() || frame.bytes.len() <= DEVICE_TAKES)
}

/// Whether a frame that really comes in reaches a program. The kernel takes its tag out before, and drops a tagged frame
/// that has less than a type and two bytes behind the tag (skb_vlan_untag).
pub(crate) fn arrives(frame: &[u8]) -> bool {
    !Bytes(frame).be16(12).is_ok_and(is_tag) || frame.len() >= ETHERNET + TAG + 2
}

/// Whether it is a tagged frame that says to carry IP and is shorter than an IPv4 header behind an Ethernet header. Sent to
/// another node over a veth, which hands on what its sender's kernel remembers of a packet, it does not come out there
/// (seen on 6.18). From a wire it does.
pub(crate) fn is_short_ip_on_vlan(frame: &[u8]) -> bool {
    let mut at = 12;
    while Bytes(frame).be16(at).is_ok_and(is_tag) {
        at += TAG;
    }
    let is_ip = matches!(Bytes(frame).be16(at), Ok(IPV4 | IPV6));
    at != 12 && is_ip && frame.len() < ETHERNET + 20
}

/// Whether it is an IPv6 packet with extension headers before its transport header (of IANA's list, those that the
/// kernel's flow dissector knows).
pub(crate) fn has_extensions(frame: &[u8]) -> bool {
    let frame = Bytes(frame);
    frame.be16(12) == Ok(IPV6) && matches!(frame.byte(ETHERNET + 6), Ok(0 | 43 | 44 | 60))
}

/// The checksum that is still to be written into a frame that came in. A kernel that takes a tag out forgets one whose sum
/// begins before the end of the tag (skb_postpull_rcsum).
pub(super) fn unfinished(incoming: Incoming<'_>) -> Option<Unfinished> {
    let is_tagged = incoming.tag_beside && Bytes(incoming.bytes).be16(12).is_ok_and(is_tag);
    let from = if is_tagged { ETHERNET + TAG } else { 0 };
    incoming.unfinished.filter(|sum| usize::from(sum.start) >= from)
}

/// Makes room for outer headers. A super-packet as BPF_PROG_TEST_RUN makes it is of no protocol that the
/// kernel lets grow; what a sender makes is. Where tags lie beside the frame, two can be put back into it.
pub(super) fn make_room(incoming: Incoming<'_>) -> Result<(), DropReason> {
    let frame = Bytes(incoming.bytes);
    if incoming.tag_beside && is_tag(frame.be16(12)?) {
        // Each further one is taken out of what must be as long as a tagged header is.
        let mut tags = 1;
        while tags < 3 && frame.be16(12 + tags * TAG).is_ok_and(is_tag) {
            frame.at_least(ETHERNET + TAG + tags * TAG).map_err(|_| DropReason::EncapFailed)?;
            tags += 1;
        }
        if tags == 3 {
            return Err(DropReason::VlanUnsupported);
        }
    }
    match incoming.skb.gso_size {
        0 => Ok(()),
        _ if incoming.bulk.is_some() => Ok(()),
        _ if is_ip(incoming.bytes) => Err(DropReason::EncapFailed),
        _ => Err(DropReason::VlanUnsupported),
    }
}

/// A stripped frame. The kernel leaves an IPv4 header's length behind the Ethernet header, whatever the
/// frame carries: what is shorter is padded with zeros. A super-packet of no kind shrinks no more than it grows,
/// but padded it is none any more.
pub(super) fn stripped(mut inner: Vec<u8>, incoming: Incoming<'_>) -> Result<Vec<u8>, DropReason> {
    const LEAST: usize = ETHERNET + 20;
    if inner.len() < LEAST {
        inner.resize(LEAST, 0);
    } else if incoming.bulk.is_some() {
        return Ok(jumbo::put_in(inner));
    } else if incoming.skb.gso_size != 0 {
        return Err(DropReason::DecapFailed);
    }
    Ok(inner)
}
