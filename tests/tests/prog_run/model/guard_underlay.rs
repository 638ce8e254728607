//! The packets that are dropped before the kernel makes an skb: the plainest of those that
//! [`super::from_underlay`] would drop as well.

use overlay_common::{CONFIG_SHARED, DropReason, NodeKey};

use super::{
    End, Incoming,
    bytes::{Bytes, ETHERNET, IPV4},
};
use crate::world::World;

pub(super) fn decide(world: &World, incoming: Incoming<'_>) -> Result<End, DropReason> {
    const UDP: u8 = 17;
    let ip = Bytes(incoming.bytes).from(ETHERNET);
    let Some(config) = world.configured() else { return Ok(End::Up) };
    // Ethernet, IPv4 without options, and UDP to this node's VTEP and port, and no later fragment.
    let is_vxlan_to_us = ip.at_least(20 + 8).is_ok()
        && Bytes(incoming.bytes).be16(12)? == IPV4
        && ip.byte(0)? == 0x45
        && ip.byte(9)? == UDP
        && ip.be16(6)? & 0x1fff == 0
        && ip.ip(16)? == config.vtep
        && ip.be16(22)? == config.vxlan_port;
    // Where another program has the port too, the later program decides.
    if !is_vxlan_to_us || config.flags & CONFIG_SHARED != 0 {
        return Ok(End::Up);
    }
    let (more_follow, vtep) = (ip.be16(6)? & 0x2000 != 0, ip.ip(12)?);
    if more_follow {
        Err(DropReason::OuterFragment)
    } else if vtep == config.vtep {
        Err(DropReason::OwnVtep)
    } else if !world.nodes.contains_key(&NodeKey { vtep }) {
        Err(DropReason::UnknownVtep)
    } else {
        Ok(End::Up)
    }
}
