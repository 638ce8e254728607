//! The rule for TCP segments that come in by a veth, from a node whose segments come in one by one.

use overlay_common::{CONFIG_SHARED, DropReason, NodeKey};

use super::{
    bytes::{Bytes, ETHERNET, IPV4, IPV6},
    kernel::{self, PacketType},
};
use crate::{bench::Skb, world::World};

/// Returns true if the packet goes through the merge pair. What cannot be read does not.
pub(in super::super) fn goes_through_the_pair(world: &World, skb: Skb, packet: &[u8]) -> bool {
    skb.gso_size == 0
        && is_plain_vxlan(world, skb, Bytes(packet)) == Ok(true)
        && is_segment(Bytes(packet).from(50)) == Ok(true)
}

/// The outer headers are such as a node of the cluster sends them to this one.
fn is_plain_vxlan(world: &World, skb: Skb, frame: Bytes<'_>) -> Result<bool, DropReason> {
    let Some(config) = world.configured() else { return Ok(false) };
    let (ip, udp, vxlan) = (frame.from(ETHERNET), frame.from(34), frame.from(42));
    frame.at_least(50 + ETHERNET)?;
    let to_us = kernel::packet_type(skb.ifindex, frame.mac(0)?) == PacketType::Host
        && ip.ip(16)? == config.vtep
        && udp.be16(2)? == config.vxlan_port;
    let from_node = world.nodes.contains_key(&NodeKey { vtep: ip.ip(12)? });
    let plain = frame.be16(12)? == IPV4
        && ip.byte(0)? == 0x45
        && ip.byte(9)? == 17
        && ip.be16(6)? & 0x3fff == 0
        && vxlan.byte(0)? & 8 != 0;
    let (total, datagram) = (usize::from(ip.be16(2)?), usize::from(udp.be16(4)?));
    let whole = frame.0.len() == ETHERNET + total && total == 20 + datagram;
    let alone = config.flags & CONFIG_SHARED == 0;
    Ok(to_us && from_node && plain && whole && alone)
}

/// The frame is a TCP segment with payload, or the last one of its sender.
fn is_segment(frame: Bytes<'_>) -> Result<bool, DropReason> {
    let ip = frame.from(ETHERNET);
    let (is_tcp, before, len) = match frame.be16(12)? {
        IPV4 => {
            ip.at_least(20)?;
            let is_whole = ip.byte(0)? == 0x45 && ip.be16(6)? & 0x3fff == 0;
            (is_whole && ip.byte(9)? == 6, 20, usize::from(ip.be16(2)?))
        }
        IPV6 => {
            ip.at_least(40)?;
            (ip.byte(6)? == 6, 40, 40 + usize::from(ip.be16(4)?))
        }
        _ => return Ok(false),
    };
    let tcp = ip.from(before);
    let (header, flags) = (usize::from(tcp.byte(12)? >> 4) * 4, tcp.byte(13)?);
    let is_last = flags & 0b101 != 0;
    Ok(is_tcp && (len > before + header || is_last))
}
