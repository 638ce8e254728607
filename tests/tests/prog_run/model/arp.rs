//! ARP (RFC 826). A request for an endpoint's address is answered on the asker's node. Stations behind bridging endpoints
//! are in no table: they alone are asked for any other address, and they alone answer.

use overlay_common::{DropReason, FLAG_BRIDGING, Ip16, MacBytes, NeighKey};

use super::{
    bytes::{Bytes, is_group, is_reserved_group},
    sender::Sender,
};
use crate::world::World;

/// A checked ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A request for an address that is at this MAC.
    Known(MacBytes),
    /// A packet for all stations behind bridging endpoints.
    ForStations,
    /// An answer to the destination of its frame.
    ForOne,
}

/// Checks the ARP packet in a frame to `to`. `own` is the address of the endpoint whose port the frame came from.
pub(super) fn hear(
    world: &World,
    sender: &Sender,
    to: MacBytes,
    arp: Bytes<'_>,
    own: Option<Ip16>,
) -> Result<Heard, DropReason> {
    arp.at_least(28)?;
    let is_for_ipv4 = arp.array(0)? == [0, 1, 8, 0, 6, 4];
    let is_request = match arp.be16(6)? {
        1 if is_for_ipv4 => true,
        2 if is_for_ipv4 && sender.has(FLAG_BRIDGING) => false,
        _ => return Err(DropReason::ArpNotRequest),
    };
    let (sender_mac, sender_ip, target) = (arp.mac(8)?, arp.ip(14)?, arp.ip(24)?);
    if sender_mac != sender.mac {
        return Err(DropReason::SpoofedMac);
    }
    // A host that has no address yet asks without a sender's address (RFC 5227, section 2.1.1).
    if sender_ip[12..] != [0; 4] {
        sender.check_ip(world, sender_ip)?;
    }
    if is_request && own == Some(target) {
        return Err(DropReason::ArpOwnAddress);
    }
    let known = world.neigh.get(&NeighKey { ip: target, vni: sender.vni });
    match known.filter(|_| is_request) {
        Some(known) => Ok(Heard::Known(known.mac)),
        None if is_reserved_group(to) => Err(DropReason::ReservedGroup),
        None if is_request || is_group(to) => Ok(Heard::ForStations),
        None => Ok(Heard::ForOne),
    }
}
