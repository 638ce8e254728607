//! The rules for frames that an endpoint sends, and the places where they go.

use overlay_common::{
    DropReason, FLAG_FORWARDS, FLAG_ICC_OFF, FLAG_MULTICAST, FdbKey, Limit, NeighKey, PortEntry,
};

use super::{
    End, Fate, Frame, Incoming, Way,
    bytes::{ARP, Bytes, ETHERNET, is_group, is_reserved_group},
    checksum::{self, Carries},
    claim, fence, kernel,
    memory::Memory,
    too_big, tunnel,
    vlan::{self, Inside},
};
use crate::world::World;

pub(super) fn decide(
    world: &World,
    memory: &mut Memory,
    incoming: Incoming<'_>,
    fate: &mut Fate,
) -> Result<End, DropReason> {
    let Incoming { bytes, skb, .. } = incoming;
    let port = world.ports.get(&skb.ifindex).ok_or(DropReason::UnknownPort)?;
    let has = |flag| port.flags & flag != 0;
    let frame = Bytes(bytes);
    let (to, from) = (frame.mac(0)?, frame.mac(6)?);
    frame.at_least(ETHERNET)?;

    // Checks of the sender's addresses.
    if from != port.mac && !has(FLAG_FORWARDS) {
        return Err(DropReason::SpoofedMac);
    }
    let inside = vlan::inside(frame)?;
    if let Inside::Packet(ARP, _) = inside {
        checksum::check(incoming, Carries::NoChecksum)?;
        let end = answer(world, incoming, port)?;
        fate.count(port.slot, bytes.len(), |traffic| &mut traffic.sent);
        return Ok(end);
    }
    let carries = match has(FLAG_FORWARDS) {
        false => {
            let carries = fence::check(frame, inside, &port.ip, skb.gso_size)?;
            claim::check(world, memory, (port.vni, from), frame, inside, Some(port.slot))?;
            carries
        }
        true => fence::unchecked(inside),
    };
    checksum::check(incoming, carries)?;

    // Choice of the receivers.
    if is_group(to) {
        match (has(FLAG_MULTICAST), has(FLAG_ICC_OFF)) {
            (false, _) => return Err(DropReason::BroadcastOff),
            (true, _) if is_reserved_group(to) => return Err(DropReason::ReservedGroup),
            (true, true) => return Err(DropReason::IccOff),
            (true, false) => {
                let limit = world.config.map_or(Limit::NONE, |config| config.storm);
                if !memory.allows_storm(limit, port.slot) {
                    return Err(DropReason::Storm);
                }
                replicate(world, incoming, port, fate)?;
            }
        }
        fate.count(port.slot, bytes.len(), |traffic| &mut traffic.sent);
        return Ok(End::Copied);
    }
    let key = FdbKey { vni: port.vni, mac: to, pad: [0; 2] };
    let destination = world.fdb.get(&key).ok_or(DropReason::UnknownDestination)?;
    if has(FLAG_ICC_OFF) {
        return Err(DropReason::IccOff);
    }
    let end = match destination.ifindex {
        0 => send_away(world, memory, incoming, port, destination.hop())?,
        own if own == skb.ifindex => return Err(DropReason::HairpinDestination),
        other => {
            fate.count(destination.slot(), bytes.len(), |traffic| &mut traffic.from_neighbours);
            End::Redirected(Way::OutOf(other), Frame::plain(bytes))
        }
    };
    if matches!(end, End::Redirected(..)) {
        fate.count(port.slot, bytes.len(), |traffic| &mut traffic.sent);
    }
    Ok(end)
}

/// Sends the frame to an endpoint behind the VTEP with this index in HOPS.
fn send_away(
    world: &World,
    memory: &mut Memory,
    incoming: Incoming<'_>,
    port: &PortEntry,
    index: u32,
) -> Result<End, DropReason> {
    let hop = world.hop(index).ok_or(DropReason::UnknownNode)?;
    let fits = memory.paths.fits(hop, index, too_big::tag_beside(incoming));
    if let Some(fits) = too_big::limit(incoming, fits) {
        let limit = world.config.map_or(Limit::NONE, |config| config.answers);
        if !memory.allows_answer(limit, port.slot) {
            return Err(DropReason::TooBig);
        }
        return too_big::answer(incoming, fits);
    }
    let way = if hop.ifindex != 0 {
        Way::OutOf(hop.ifindex)
    } else if hop.via_device() == 0 {
        return Err(DropReason::UnknownNode);
    } else if !kernel::is_ip(incoming.bytes) {
        // The kernel's own routes exist for IP alone.
        return Err(DropReason::UnresolvedNextHop);
    } else {
        Way::ByNeighbour(hop.via_device())
    };
    kernel::make_room(incoming)?;
    Ok(End::Redirected(way, tunnel::around(incoming.bytes, hop, port.vni, tos_mask(world))))
}

/// The bits of the type of service that outer headers get. Without a configuration it is none.
fn tos_mask(world: &World) -> u8 {
    world.config.map_or(0, |config| config.tos_mask)
}

/// Answers an ARP request (RFC 826) for an address of the network from the map, whatever the destination of
/// its frame. Any other ARP packet is dropped.
fn answer(world: &World, incoming: Incoming<'_>, port: &PortEntry) -> Result<End, DropReason> {
    let forwards = port.flags & FLAG_FORWARDS != 0;
    let frame = Bytes(incoming.bytes);
    let arp = frame.from(ETHERNET);
    arp.at_least(28)?;
    let is_request = [0, 1, 8, 0, 6, 4, 0, 1];
    if arp.array(0)? != is_request {
        return Err(DropReason::ArpNotRequest);
    }
    let (sender_mac, sender, target) = (arp.mac(8)?, arp.ip(14)?, arp.ip(24)?);
    if sender_mac != port.mac && !forwards {
        return Err(DropReason::SpoofedMac);
    }
    // A host that has no address yet asks without a sender's address (RFC 5227, section 2.1.1).
    let is_probe = sender[12..] == [0; 4];
    if sender != port.ip && !is_probe && !forwards {
        return Err(DropReason::SpoofedIp);
    }
    if target == port.ip {
        return Err(DropReason::ArpOwnAddress);
    }
    let asked = NeighKey { ip: target, vni: port.vni };
    let found = world.neigh.get(&asked).ok_or(DropReason::ArpUnknownTarget)?;
    Ok(End::Redirected(Way::OutOf(incoming.skb.ifindex), turned_around(frame, found.mac)))
}

/// The answer to an ARP request, which says that the wanted address is at `mac`. Bytes behind the request
/// stay.
pub(super) fn turned_around(frame: Bytes<'_>, mac: [u8; 6]) -> Frame {
    let asker = &frame.0[6..12];
    let (sender, target) = (&frame.0[22..32], &frame.0[38..42]);
    let answer = [asker, &mac, &frame.0[12..20], &[0, 2], &mac, target, sender, &frame.0[42..]];
    Frame::plain(&answer.concat())
}

/// Head-end replication: sends a copy to every other port and every VTEP of the network.
fn replicate(
    world: &World,
    incoming: Incoming<'_>,
    port: &PortEntry,
    fate: &mut Fate,
) -> Result<(), DropReason> {
    let flood = world.flood.get(&port.vni).ok_or(DropReason::BroadcastOff)?;
    fate.overflow(flood.lost[1]);
    for ifindex in &flood.ports {
        if *ifindex != incoming.skb.ifindex {
            fate.copy(*ifindex, Frame::plain(incoming.bytes));
        }
    }
    fate.overflow(flood.lost[0]);
    let refused = kernel::make_room(incoming).err();
    if let Some(refused) = refused.filter(|_| !flood.hops.is_empty()) {
        // The neighbours have their copies already, and those for the VTEPs are lost.
        fate.lost.push(refused);
        return Ok(());
    }
    for index in &flood.hops {
        match world.hop(*index) {
            None => fate.lost.push(DropReason::UnknownNode),
            Some(hop) => {
                let device = match hop.ifindex {
                    // The kernel looks no next hop up for a copy. Where packets leave without an Ethernet header, none
                    // is needed, and only IP can leave.
                    0 if hop.is_bare() && kernel::is_ip(incoming.bytes) => hop.via_device(),
                    0 => {
                        fate.lost.push(DropReason::UnresolvedNextHop);
                        continue;
                    }
                    device => device,
                };
                let packet = tunnel::around(incoming.bytes, hop, port.vni, tos_mask(world));
                // The sender of a copy that is too big gets no answer, because a group has no path of which
                // one could learn. A super-packet is cut later, and is not checked.
                let is_whole = incoming.skb.gso_size == 0;
                if is_whole && packet.bytes.len() - ETHERNET > usize::from(hop.mtu) {
                    fate.lost.push(DropReason::TooBig);
                } else {
                    fate.copy(device, packet);
                }
            }
        }
    }
    Ok(())
}
