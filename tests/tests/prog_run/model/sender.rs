//! What the sender of a frame may say of itself. An endpoint has one MAC and one address. With the permission to route it
//! may use other addresses, and with the permission to bridge it stands for stations with other MACs and addresses. MACs
//! and addresses of the network's endpoints are never among these.

use overlay_common::{
    BridgeKey, DropReason, FLAG_BRIDGING, FLAG_ROUTING, FdbEntry, FdbKey, Ip16, MacBytes, NeighKey,
    PortEntry,
};

use super::bytes::is_group;
use crate::world::World;

/// The sender of a frame, whose MAC was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) vni: u32,
    pub(super) mac: MacBytes,
    pub(super) flags: u32,
    /// The address of the endpoint; `None` for a station behind it.
    own: Option<Ip16>,
    /// The slot of an endpoint of this node.
    pub(super) slot: Option<u32>,
}

impl Sender {
    /// The sender of a frame from this port, if it may have that MAC.
    pub(super) fn at_port(
        world: &World,
        port: &PortEntry,
        mac: MacBytes,
    ) -> Result<Self, DropReason> {
        let PortEntry { vni, flags, .. } = *port;
        let is_own = mac == port.mac;
        if !is_own && (flags & FLAG_BRIDGING == 0 || !is_station(world, vni, mac)) {
            return Err(DropReason::SpoofedMac);
        }
        let own = is_own.then_some(port.ip);
        Ok(Self { vni, mac, flags, own, slot: Some(port.slot) })
    }

    /// The sender of a frame from this VTEP, if there can be one with that MAC.
    pub(super) fn behind(world: &World, vtep: Ip16, vni: u32, mac: MacBytes) -> Option<Self> {
        let endpoint = world.fdb.get(&FdbKey { vni, mac, pad: [0; 2] });
        let of = |entry: &FdbEntry, own| Self { vni, mac, flags: entry.flags, own, slot: None };
        match endpoint {
            Some(entry) => (entry.vtep == vtep).then(|| of(entry, Some(entry.ip))),
            None => {
                let stations = world.bridges.get(&BridgeKey::behind(vni, vtep));
                stations.filter(|_| !is_group(mac)).map(|entry| of(entry, None))
            }
        }
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Returns true for the address of the endpoint itself.
    pub(super) fn is_its_own(&self, ip: Ip16) -> bool {
        self.own == Some(ip)
    }

    /// Returns true if the sender may be a router: it routes, or is a station of which nothing is known.
    pub(super) fn routes(&self) -> bool {
        self.own.is_none() || self.has(FLAG_ROUTING)
    }

    /// Checks an IPv4 address that the sender uses as its own.
    pub(super) fn check_ip(&self, world: &World, ip: Ip16) -> Result<(), DropReason> {
        let is_nobodys = || {
            !world.neigh.contains_key(&NeighKey { ip, vni: self.vni })
                && !is_gateways(world, ip)
                && ip[12] != 127
                && ip[12] < 224
        };
        match self.own {
            Some(own) if own == ip => Ok(()),
            Some(_) if !self.has(FLAG_ROUTING) => Err(DropReason::SpoofedIp),
            _ if is_nobodys() => Ok(()),
            _ => Err(DropReason::SpoofedIp),
        }
    }
}

/// Returns true for an address of the subnet of the node's gateway bridge.
fn is_gateways(world: &World, ip: Ip16) -> bool {
    let Some(config) = world.config else { return false };
    let in_subnet = |at: usize| ip[12 + at] & config.gateway_mask[at] == config.gateway[at];
    config.gateway_mask != [0; 4] && (0..4).all(in_subnet)
}

/// Returns true for a MAC that is neither an endpoint's nor a group's.
fn is_station(world: &World, vni: u32, mac: MacBytes) -> bool {
    !is_group(mac) && !world.fdb.contains_key(&FdbKey { vni, mac, pad: [0; 2] })
}
