//! Reports of routers about the path between two nodes (RFC 1191), and the longest packet that fits the path.

use std::collections::BTreeMap;

use overlay_common::{Config, HopEntry, Ip16, NodeKey, SOURCE_PORT_MIN};

use super::bytes::Bytes;
use crate::world::World;

/// The longest outer packet, in bytes, that routers reported for each index of HOPS. A report is valid for
/// ten minutes, which is longer than the model runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths(BTreeMap<u32, u32>);

impl Paths {
    /// Bytes of the longest frame that fits the path by the device's MTU and the routers' reports. The outer
    /// IPv4, UDP and VXLAN headers come around the frame, and `tag` bytes of the frame lie beside it. IPv6's
    /// smallest packet always fits, whatever routers report.
    pub(super) fn fits(&self, hop: &HopEntry, index: u32, tag: usize) -> usize {
        let takes = |mtu: u32| mtu as usize - 20 - 8 - 8;
        let by_device = takes(hop.mtu.into());
        let by_routers = self.0.get(&index).map(|said| takes(*said).max(14 + tag + 1280));
        by_routers.map_or(by_device, |by_routers| by_routers.min(by_device))
    }

    /// Notes an ICMP message to this node if it is "fragmentation needed" about a packet of this node's to a
    /// VTEP.
    pub(super) fn hear(&mut self, world: &World, config: &Config, ip: Bytes<'_>) {
        let Some((vtep, said)) = word(config, ip) else { return };
        let Some(node) = world.nodes.get(&NodeKey { vtep }) else { return };
        let Some(hop) = world.hop(node.hop) else { return };
        // The least MTU that is accepted, and the one that is used if a router does not give one (RFC 1191,
        // section 5). With less, IPv6's smallest packet of 1280 bytes (RFC 8200, section 5) would not fit,
        // and neither would TCP's over IPv4, which the kernel makes no smaller than 552.
        const LEAST: u32 = 1280 + 50;
        let mtu = said.max(LEAST);
        let known = self.0.get(&node.hop);
        if mtu < u32::from(hop.mtu) && known.is_none_or(|known| mtu <= *known) {
            self.0.insert(node.hop, mtu);
        }
    }
}

/// The VTEP and the MTU of the message, or `None` if it is not about a packet of this node's.
fn word(config: &Config, ip: Bytes<'_>) -> Option<(Ip16, u32)> {
    const ICMP: u8 = 1;
    const UDP: u8 = 17;
    let icmp = ip.from(20);
    let quoted = icmp.from(8);
    let ours = ip.byte(0) == Ok(0x45)
        && ip.byte(9) == Ok(ICMP)
        && icmp.array(0) == Ok([3, 4])
        && quoted.byte(0) == Ok(0x45)
        && quoted.byte(9) == Ok(UDP)
        && quoted.ip(12) == Ok(config.vtep)
        // The quoted packet is from one of this node's source ports, and is longer than the MTU in the
        // message.
        && quoted.be16(20).is_ok_and(|port| port >= SOURCE_PORT_MIN)
        && quoted.be16(2) > icmp.be16(6)
        && quoted.be16(22) == Ok(config.vxlan_port);
    ours.then_some((quoted.ip(16).ok()?, icmp.be16(6).ok()?.into()))
}
