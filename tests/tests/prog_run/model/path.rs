//! What routers between two nodes say of the way (RFC 1191), and how long a packet may be on it.

use std::collections::BTreeMap;

use overlay_common::{Config, HopEntry, Ip16, NodeKey, PATH_MTU_MIN};

use super::bytes::Bytes;
use crate::world::World;

/// By index of HOPS: the bytes of the longest outer packet that a router told of. It holds for ten minutes:
/// for as long as the model runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths(BTreeMap<u32, u32>);

impl Paths {
    /// Bytes of the longest outer packet on the way, as the device and routers have it.
    pub(super) fn mtu(&self, hop: &HopEntry, index: u32) -> u32 {
        self.0.get(&index).map_or(u32::from(hop.mtu), |said| u32::from(hop.mtu).min(*said))
    }

    /// Listens to an ICMP message to this node: "fragmentation needed", about a packet that we sent to a
    /// VTEP.
    pub(super) fn hear(&mut self, world: &World, config: &Config, ip: Bytes<'_>) {
        let Some((vtep, said)) = word(config, ip) else { return };
        let Some(node) = world.nodes.get(&NodeKey { vtep }) else { return };
        let Some(hop) = world.hop(node.hop) else { return };
        // Where a router does not say how much, every host takes as much as that (RFC 1191, section 5).
        let mtu = if said == 0 { 576 } else { said.max(PATH_MTU_MIN) };
        let known = self.0.get(&node.hop);
        if mtu < u32::from(hop.mtu) && known.is_none_or(|known| mtu <= *known) {
            self.0.insert(node.hop, mtu);
        }
    }
}

/// The VTEP and the MTU that the message is about. None: it means nothing to us.
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
        && quoted.be16(22) == Ok(config.vxlan_port);
    ours.then_some((quoted.ip(16).ok()?, icmp.be16(6).ok()?.into()))
}
