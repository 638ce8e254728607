//! The rules for frames that an endpoint sends, and the places where they go.

use overlay_common::{
    BridgeKey, DropReason, FLAG_ICC_OFF, FLAG_MULTICAST, FdbEntry, FdbKey, Limit, PortEntry,
};

use super::{
    End, Fate, Frame, Incoming, Way,
    arp::{self, Heard},
    bytes::{ARP, Bytes, ETHERNET, is_group, is_reserved_group},
    checksum::{self, Carries},
    claim, fence, kernel,
    memory::Memory,
    sender::Sender,
    too_big, tunnel,
    vlan::{self, Inside},
};
use crate::world::{Flood, World};

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
    let sender = Sender::at_port(world, port, from)?;
    let inside = vlan::inside(frame)?;
    let heard = if let Inside::Packet(ARP, at) = inside {
        checksum::check(incoming, Carries::NoChecksum)?;
        let heard = arp::hear(world, &sender, to, frame.from(at), Some(port.ip))?;
        if let Heard::Known(mac) = heard {
            fate.count(port.slot, bytes.len(), |traffic| &mut traffic.sent);
            return Ok(End::Redirected(Way::OutOf(skb.ifindex), turned_around(frame, mac)));
        }
        Some(heard)
    } else {
        let carries = fence::check(world, &sender, frame, inside, skb.gso_size)?;
        claim::check(world, memory, &sender, frame, inside)?;
        checksum::check(incoming, carries)?;
        None
    };

    // Choice of the receivers.
    let receivers = if heard == Some(Heard::ForStations) {
        bridging(world, port, skb.ifindex).ok_or(DropReason::ArpUnknownTarget)?
    } else if is_group(to) {
        match has(FLAG_MULTICAST) {
            false => return Err(DropReason::BroadcastOff),
            true if is_reserved_group(to) => return Err(DropReason::ReservedGroup),
            true => Receivers::All(world.flood.get(&port.vni)),
        }
    } else {
        match world.fdb.get(&FdbKey { vni: port.vni, mac: to, pad: [0; 2] }) {
            Some(endpoint) => Receivers::One(endpoint),
            None => {
                let bridging = bridging(world, port, skb.ifindex);
                bridging.ok_or(DropReason::UnknownDestination)?
            }
        }
    };
    if has(FLAG_ICC_OFF) {
        return Err(DropReason::IccOff);
    }
    let end = match receivers {
        Receivers::All(flood) => {
            let limit = world.config.map_or(Limit::NONE, |config| config.storm);
            if !memory.allows_storm(limit, port.slot) {
                return Err(DropReason::Storm);
            }
            replicate(world, incoming, port, flood.ok_or(DropReason::BroadcastOff)?, fate);
            End::Copied
        }
        Receivers::One(endpoint) => match endpoint.ifindex {
            0 => send_away(world, memory, incoming, port, endpoint.hop())?,
            own if own == skb.ifindex => return Err(DropReason::HairpinDestination),
            other => {
                fate.count(endpoint.slot(), bytes.len(), |traffic| &mut traffic.from_neighbours);
                End::Redirected(Way::OutOf(other), Frame::plain(bytes))
            }
        },
    };
    if matches!(end, End::Redirected(..) | End::Copied) {
        fate.count(port.slot, bytes.len(), |traffic| &mut traffic.sent);
    }
    Ok(end)
}

/// The receivers of a frame.
enum Receivers<'a> {
    /// An endpoint of the network.
    One(&'a FdbEntry),
    /// Everybody on this list, if there is one.
    All(Option<&'a Flood>),
}

/// The receivers of a frame for a station that is no endpoint: the network's bridging endpoints other than the sender.
/// If there is only one, it gets the frame as any endpoint would.
fn bridging<'a>(world: &'a World, port: &PortEntry, from: u32) -> Option<Receivers<'a>> {
    match world.bridges.get(&BridgeKey::only(port.vni)) {
        Some(only) => (only.ifindex != from).then_some(Receivers::One(only)),
        None => world.bridging.get(&port.vni).map(|list| Receivers::All(Some(list))),
    }
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

/// The answer to an ARP request, which says that the wanted address is at `mac`. Bytes behind the request
/// stay.
pub(super) fn turned_around(frame: Bytes<'_>, mac: [u8; 6]) -> Frame {
    let asker = &frame.0[6..12];
    let (sender, target) = (&frame.0[22..32], &frame.0[38..42]);
    let answer = [asker, &mac, &frame.0[12..20], &[0, 2], &mac, target, sender, &frame.0[42..]];
    Frame::plain(&answer.concat())
}

/// Head-end replication: sends a copy to every other port and every VTEP on the list.
fn replicate(
    world: &World,
    incoming: Incoming<'_>,
    port: &PortEntry,
    flood: &Flood,
    fate: &mut Fate,
) {
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
        return;
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
}
