//! The kernel's own treatment of packets, which no program can change.

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

/// The receiver of a frame from the underlay, as the kernel classifies it (linux/if_packet.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketType {
    Host,
    Broadcast,
    Multicast,
    OtherHost,
}

/// Classifies a frame by its destination and the device's own address (eth_type_trans).
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

/// Returns true if BPF_PROG_TEST_RUN may refuse the packet: one without its Ethernet header, and, from 6.18
/// on, one that is shorter than the IP header of its ethertype.
pub(crate) fn may_refuse(packet: &[u8]) -> bool {
    let bytes = Bytes(packet);
    match bytes.be16(12) {
        Err(_) => true,
        Ok(IPV4) => packet.len() < ETHERNET + 20,
        Ok(IPV6) => packet.len() < ETHERNET + 40,
        Ok(_) => packet.len() <= ETHERNET,
    }
}

/// Returns true if the kernel takes the frame for an IP packet.
pub(super) fn is_ip(frame: &[u8]) -> bool {
    matches!(Bytes(frame).be16(12), Ok(IPV4 | IPV6))
}

/// Returns true if the copy can leave by the device. A super-packet can, however long it is, because it is
/// cut where necessary.
pub(crate) fn takes_copy(ifindex: u32, frame: &Frame) -> bool {
    let is_there = DEVICES.contains(&ifindex) || ifindex == FAR_PORT;
    is_there && (frame.bulk.is_some() || frame.bytes.len() <= DEVICE_TAKES)
}

/// Returns true if a frame from a device reaches a program. The kernel takes the tag out before, and drops a
/// tagged frame with less than a type and two bytes behind the tag (skb_vlan_untag).
pub(crate) fn arrives(frame: &[u8]) -> bool {
    !Bytes(frame).be16(12).is_ok_and(is_tag) || frame.len() >= ETHERNET + TAG + 2
}

/// Returns true for a tagged frame of IP's ethertype that is shorter than an Ethernet and an IPv4 header. If
/// it is sent to another node over a veth, it does not come out there (seen on 6.18), because a veth hands on
/// the sending kernel's notes about a packet. From a real wire it does.
pub(crate) fn is_short_ip_on_vlan(frame: &[u8]) -> bool {
    let mut at = 12;
    while Bytes(frame).be16(at).is_ok_and(is_tag) {
        at += TAG;
    }
    let is_ip = matches!(Bytes(frame).be16(at), Ok(IPV4 | IPV6));
    at != 12 && is_ip && frame.len() < ETHERNET + 20
}

/// Returns true for an IPv6 packet with extension headers before its transport header (those of IANA's list
/// that the kernel's flow dissector knows).
pub(crate) fn has_extensions(frame: &[u8]) -> bool {
    let frame = Bytes(frame);
    frame.be16(12) == Ok(IPV6) && matches!(frame.byte(ETHERNET + 6), Ok(0 | 43 | 44 | 60))
}

/// The unfinished checksum of a frame that came in. A kernel that takes a tag out forgets a checksum whose
/// sum begins before the tag's end (skb_postpull_rcsum).
pub(super) fn unfinished(incoming: Incoming<'_>) -> Option<Unfinished> {
    let is_tagged = incoming.tag_beside && Bytes(incoming.bytes).be16(12).is_ok_and(is_tag);
    let from = if is_tagged { ETHERNET + TAG } else { 0 };
    incoming.unfinished.filter(|sum| usize::from(sum.start) >= from)
}

/// Makes room for outer headers. The kernel cannot do so for a super-packet of BPF_PROG_TEST_RUN, which has
/// no protocol; it can for a sender's. If tags lie beside the frame, two can be put back into it.
pub(super) fn make_room(incoming: Incoming<'_>) -> Result<(), DropReason> {
    let frame = Bytes(incoming.bytes);
    if incoming.tag_beside && is_tag(frame.be16(12)?) {
        // The kernel takes out further tags only while the frame is at least as long as a tagged header.
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
        _ if is_ip(incoming.bytes) => Err(DropReason::UncutSuperPacket),
        _ => Err(DropReason::VlanUnsupported),
    }
}

/// The frame without its outer headers. The kernel leaves at least the length of an IPv4 header behind the
/// Ethernet header, whatever the frame contains, so a shorter frame is padded with zeros. A super-packet
/// without a protocol cannot shrink, as it cannot grow, but a padded frame is no super-packet any more.
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
