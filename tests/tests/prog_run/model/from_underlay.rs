//! The rules for packets from other nodes, and their receivers.

use overlay_common::{
    BridgeKey, CONFIG_SHARED, Config, DropReason, FLAG_ICC_OFF, FLAG_MULTICAST, FdbKey, Ip16,
    NodeKey,
};

use super::{
    End, Fate, Frame, Incoming, Way,
    arp::{self, Heard},
    bytes::{ARP, Bytes, ETHERNET, IPV4, is_group, is_reserved_group},
    claim, ecn, fence,
    kernel::{self, PacketType},
    memory::Memory,
    path::Paths,
    sender::Sender,
    vlan::{self, Inside},
};
use crate::world::World;

/// The largest VNI, which no network has: the device that only exists for GRO has it.
const RESERVED_VNI: u32 = 0xff_ffff;

/// Decides, and lets a packet of somebody else's overlay pass where another program has the port too.
pub(super) fn decide(
    world: &World,
    memory: &mut Memory,
    incoming: Incoming<'_>,
    fate: &mut Fate,
) -> Result<End, DropReason> {
    use DropReason::{
        OuterFragment, OuterGroupFrame, OuterOptions, UnknownVni, UnknownVtep, VxlanFlags,
    };
    let is_shared = world.configured().is_some_and(|config| config.flags & CONFIG_SHARED != 0);
    let untagged = vlan::beside(incoming).map(|(_, untagged)| untagged);
    let vni = Bytes(untagged.as_deref().unwrap_or(incoming.bytes)).be24(46);
    match decide_alone(world, memory, incoming, fate) {
        Err(OuterFragment | OuterOptions | OuterGroupFrame | VxlanFlags) if is_shared => {
            Ok(End::Up)
        }
        Err(UnknownVtep | UnknownVni) if is_shared && vni != Ok(RESERVED_VNI) => Ok(End::Up),
        decided => decided,
    }
}

fn decide_alone(
    world: &World,
    memory: &mut Memory,
    incoming: Incoming<'_>,
    fate: &mut Fate,
) -> Result<End, DropReason> {
    let Some(config) = world.configured() else { return Ok(End::Up) };
    // A packet on a VLAN of the underlay's device does not belong to the underlay. VLAN 0 means no VLAN, and
    // its tag is removed with the outer headers.
    let untagged = match vlan::beside(incoming) {
        Some((0, untagged)) => untagged,
        Some(_) => return Ok(End::Up),
        None => incoming.bytes.to_vec(),
    };
    let frame = Bytes(&untagged);
    if !is_vxlan_to_us(world, config, &mut memory.paths, incoming.skb.ifindex, frame)? {
        return Ok(End::Up);
    }

    // The outer headers: Ethernet 14, IPv4 20, UDP 8, VXLAN 8. The inner Ethernet header has 14 bytes.
    const VXLAN: usize = 42;
    const INNER: usize = 50;
    frame.at_least(INNER + ETHERNET)?;
    if frame.byte(VXLAN)? & 8 == 0 {
        return Err(DropReason::VxlanFlags);
    }
    let (tos, vtep, vni) = (frame.byte(15)?, frame.ip(26)?, frame.be24(VXLAN + 4)?);
    let inner = frame.from(INNER);
    let (to, from) = (inner.mac(0)?, inner.mac(6)?);

    // Checks of the sender.
    let Some(sender) = Sender::behind(world, vtep, vni, from) else {
        if vni == RESERVED_VNI && is_probe(world, config, frame, vtep)? {
            if !memory.allows_answer(config.answers, 0) {
                return Err(DropReason::ProbeLimit);
            }
            fate.count(0, untagged.len(), |traffic| &mut traffic.received);
            let answer = Frame::plain(&turned(&untagged));
            return Ok(End::Redirected(Way::OutOf(incoming.skb.ifindex), answer));
        }
        return Err(why_not(world, config, vtep, vni, inner.be16(12)?));
    };
    let inner = cut_to_length(frame, incoming.skb.gso_size)?.from(INNER);
    let inside = vlan::inside(inner)?;
    let here = world.bridging.get(&vni).filter(|list| !list.ports.is_empty());
    let heard = if let Inside::Packet(ARP, at) = inside {
        // Without bridging endpoints nothing else is looked at.
        if !world.bridging.contains_key(&vni) {
            return Err(DropReason::ArpFromUnderlay);
        }
        match arp::hear(world, &sender, to, inner.from(at), None)? {
            // The sender's node would have answered.
            Heard::Known(_) => return Err(DropReason::ArpFromUnderlay),
            Heard::ForStations if here.is_none() => return Err(DropReason::ArpFromUnderlay),
            heard => Some(heard),
        }
    } else {
        fence::check(world, &sender, inner, inside, incoming.skb.gso_size)?;
        claim::check(world, memory, &sender, inner, inside)?;
        None
    };
    if sender.has(FLAG_ICC_OFF) {
        return Err(DropReason::IccOff);
    }

    // Choice of the receivers.
    let endpoint = world.fdb.get(&FdbKey { vni, mac: to, pad: [0; 2] });
    let is_stations = heard == Some(Heard::ForStations) || !is_group(to) && endpoint.is_none();
    let only = world.bridges.get(&BridgeKey::only(vni)).filter(|only| only.ifindex != 0);
    if let Some(only) = only.filter(|_| is_stations && here.is_some()) {
        let bytes = kernel::stripped(ecn::taken_over(inner.0, tos)?, incoming)?;
        fate.count(only.slot(), untagged.len(), |traffic| &mut traffic.received);
        return Ok(End::Redirected(Way::OutOf(only.ifindex), Frame::plain(&bytes)));
    }
    let many = if heard == Some(Heard::ForStations) {
        here
    } else if is_group(to) {
        let flood = world.flood.get(&vni).filter(|_| sender.has(FLAG_MULTICAST));
        if flood.is_some() && is_reserved_group(to) {
            return Err(DropReason::ReservedGroup);
        }
        Some(flood.ok_or(DropReason::BroadcastOff)?)
    } else if endpoint.is_none() {
        Some(here.ok_or(DropReason::UnknownDestination)?)
    } else {
        None
    };
    if let Some(flood) = many {
        let bytes = kernel::stripped(ecn::taken_over(inner.0, tos)?, incoming)?;
        fate.overflow(flood.lost[1]);
        for ifindex in &flood.ports {
            fate.copy(*ifindex, Frame::plain(&bytes));
        }
        // A frame for many is counted in the slot that endpoints without their own slot share.
        fate.count(0, untagged.len(), |traffic| &mut traffic.received);
        return Ok(End::Copied);
    }
    let destination = endpoint.ok_or(DropReason::UnknownDestination)?;
    if destination.ifindex == 0 {
        return Err(DropReason::NotLocalDestination);
    }
    let bytes = kernel::stripped(ecn::taken_over(inner.0, tos)?, incoming)?;
    fate.count(destination.slot(), untagged.len(), |traffic| &mut traffic.received);
    Ok(End::Redirected(Way::OutOf(destination.ifindex), Frame::plain(&bytes)))
}

/// Returns true for what a node of the cluster sends to learn whether this one is alive. It is short, is from the MAC of
/// probes to none, and wants its answer at a port of its own.
fn is_probe(
    world: &World,
    config: &Config,
    frame: Bytes<'_>,
    vtep: Ip16,
) -> Result<bool, DropReason> {
    const EXPERIMENTAL: u16 = 0x88b5;
    let is_of_node = world.nodes.get(&NodeKey { vtep }).is_some_and(|node| node.node != 0);
    Ok(frame.0.len() <= 128
        && frame.be16(62)? == EXPERIMENTAL
        && frame.mac(50)? == [0; 6]
        && frame.mac(56)? == *b"\x02ovp\0\0"
        && is_of_node
        && vtep != config.vtep
        && frame.be16(34)? != config.vxlan_port)
}

/// The packet with source and destination exchanged: MACs, addresses, ports, and the MACs inside.
fn turned(packet: &[u8]) -> Vec<u8> {
    let mut turned = packet.to_vec();
    for (at, len) in [(0, 6), (26, 4), (34, 2), (50, 6)] {
        turned[at..at + len].copy_from_slice(&packet[at + len..at + 2 * len]);
        turned[at + len..at + 2 * len].copy_from_slice(&packet[at..at + len]);
    }
    turned
}

/// The packet as long as its outer headers say (RFC 791, RFC 768): bytes behind it are no part of it. The lengths of a
/// super-packet say nothing.
fn cut_to_length(frame: Bytes<'_>, gso_size: u32) -> Result<Bytes<'_>, DropReason> {
    if gso_size != 0 {
        return Ok(frame);
    }
    let (total, datagram) = (usize::from(frame.be16(16)?), usize::from(frame.be16(38)?));
    let is_whole = ETHERNET + total <= frame.0.len() && 20 + datagram <= total;
    if !is_whole || ETHERNET + 20 + datagram < 64 {
        return Err(DropReason::Malformed);
    }
    Ok(Bytes(&frame.0[..ETHERNET + 20 + datagram]))
}

/// Returns true if the packet is UDP to this node's VTEP and port. Such a packet is dropped here if no node
/// would send it in this form, because the host's own stack would take it otherwise. An ICMP message about
/// this node's packets is noted.
fn is_vxlan_to_us(
    world: &World,
    config: &Config,
    paths: &mut Paths,
    ifindex: u32,
    frame: Bytes<'_>,
) -> Result<bool, DropReason> {
    const UDP: u8 = 17;
    let Ok(to) = frame.mac(0) else { return Ok(false) };
    let packet_type = kernel::packet_type(ifindex, to);
    // The packet must have at least an IPv4 and a UDP header.
    if frame.at_least(ETHERNET + 28).is_err()
        || frame.be16(12)? != IPV4
        || packet_type == PacketType::OtherHost
    {
        return Ok(false);
    }
    let ip = frame.from(ETHERNET);
    let fragment = ip.be16(6)?;
    let (offset, more_follow) = (fragment & 0x1fff, fragment & 0x2000 != 0);
    // A later fragment has no ports. Its packet never becomes whole, because the first fragment is dropped
    // here.
    if ip.ip(16)? != config.vtep || offset != 0 {
        return Ok(false);
    }
    if ip.byte(9)? != UDP {
        paths.hear(world, config, ip);
        return Ok(false);
    }
    let version_and_length = ip.byte(0)?;
    let udp = ip.from(usize::from(version_and_length & 0xf) * 4);
    // The UDP header has eight bytes.
    if udp.at_least(8).is_err() || udp.be16(2)? != config.vxlan_port {
        return Ok(false);
    }
    if version_and_length != 0x45 {
        return Err(DropReason::OuterOptions);
    }
    if more_follow {
        return Err(DropReason::OuterFragment);
    }
    if packet_type != PacketType::Host {
        return Err(DropReason::OuterGroupFrame);
    }
    Ok(true)
}

/// The reason why the inner source is not behind the VTEP: the first check that fails, from the outer headers
/// to the inner ones.
fn why_not(world: &World, config: &Config, vtep: Ip16, vni: u32, ethertype: u16) -> DropReason {
    if vtep == config.vtep {
        DropReason::OwnVtep
    } else if !world.nodes.contains_key(&NodeKey { vtep }) {
        DropReason::UnknownVtep
    } else if !world.flood.contains_key(&vni) {
        DropReason::UnknownVni
    } else if ethertype == ARP {
        DropReason::ArpFromUnderlay
    } else {
        DropReason::SourceNotBehindVtep
    }
}
