//! ARP (RFC 826). A request for an endpoint's address is answered on the asker's node. Stations behind bridging endpoints
//! are in no table: they alone are asked for any other address, and they alone answer.

use overlay_common::{DropReason, FLAG_BRIDGING, FLAG_MULTICAST, FdbKey, Ip16, MacBytes, NeighKey};

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
    /// A packet for the destination of its frame: an answer to one, or a station's news for all.
    AsAddressed,
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
    if let Some(known) = known.filter(|_| is_request) {
        let endpoint = world.fdb.get(&FdbKey { vni: sender.vni, mac: known.mac, pad: [0; 2] });
        // Nobody answers for an endpoint that cannot be reached.
        return match endpoint {
            Some(entry) if entry.ifindex != 0 || entry.hop() != 0 => Ok(Heard::Known(known.mac)),
            _ => Err(DropReason::ArpUnknownTarget),
        };
    }
    if is_reserved_group(to) {
        return Err(DropReason::ReservedGroup);
    }
    // Stations remember who asks, so nobody but they may have addresses that are not its own.
    let may_be_station = sender.has(FLAG_BRIDGING);
    if !may_be_station && sender_ip[12..] != [0; 4] && !sender.is_its_own(sender_ip) {
        return Err(DropReason::SpoofedIp);
    }
    // Without a request, an address changes its place: all have to know (RFC 5944, section 4.6).
    let is_news = !is_request || sender_ip == target;
    let for_all = is_group(to) && is_news && may_be_station && sender.has(FLAG_MULTICAST);
    let for_one = !is_group(to) && !is_request;
    Ok(if for_all || for_one { Heard::AsAddressed } else { Heard::ForStations })
}
