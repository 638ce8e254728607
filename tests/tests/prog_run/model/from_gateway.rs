//! The rules for frames that an endpoint sends on its gateway leg.

use overlay_common::{ApiKey, DropReason, FLAG_ROUTING, GatewayPortEntry};

use super::{
    End, Frame, Incoming, Way,
    bytes::{ARP, Bytes, ETHERNET, IPV4, is_group},
    checksum::{self, Carries},
    from_endpoint::turned_around,
    icmp::{self, May},
    vlan::is_tag,
};
use crate::{bench::Skb, world::World};

pub(super) fn decide(world: &World, incoming: Incoming<'_>) -> Result<End, DropReason> {
    let Incoming { bytes: packet, skb, .. } = incoming;
    let leg = world.gateway_ports.get(&skb.ifindex).ok_or(DropReason::UnknownPort)?;
    let frame = Bytes(packet);
    let (to, from, ethertype) = (frame.mac(0)?, frame.mac(6)?, frame.be16(12)?);
    if is_tag(ethertype) {
        return Err(DropReason::VlanUnsupported);
    }
    if from != leg.mac {
        return Err(DropReason::SpoofedMac);
    }
    match ethertype {
        ARP => {
            checksum::check(incoming, Carries::NoChecksum)?;
            return arp(skb, leg, frame);
        }
        IPV4 => {}
        _ => return Err(DropReason::GatewayProtocol),
    }

    let ip = frame.from(ETHERNET);
    let (header, payload) = parts(ip, skb.gso_size)?;
    if ip.ip(12)? != leg.ip {
        return Err(DropReason::SpoofedIp);
    }
    if is_group(to) {
        return Err(DropReason::BroadcastOff);
    }
    if to != leg.gateway_mac {
        return Err(DropReason::GatewayNeighbour);
    }
    let destination = ip.array(16)?;
    check_destination(leg, destination)?;
    check_options(&header[20..])?;
    let config = world.configured().ok_or(DropReason::NotConfigured)?;
    // A later fragment has no ports, and is useless without the first one.
    let is_later = ip.be16(6)? & 0x1fff != 0;
    let port = |at| Bytes(payload).be16(at);
    match ip.byte(9)? {
        _ if is_later => {}
        17 => {
            let (from, to) = (port(0)?, port(2)?);
            if from == config.vxlan_port || to == config.vxlan_port {
                return Err(DropReason::VxlanFromEndpoint);
            }
        }
        6 => {
            let api = ApiKey { ip: ip.ip(16)?, port: port(2)?.into() };
            if world.apis.contains_key(&api) {
                return Err(DropReason::ControllerPort);
            }
        }
        1 => {
            let may = May { report_mtu: leg.flags & FLAG_ROUTING != 0, redirect: false };
            icmp::check(|destination| destination == leg.ip, Bytes(payload), may)?;
        }
        _ => {}
    }
    let at = ETHERNET + header.len();
    checksum::check(incoming, Carries::of_ipv4(ip.byte(9)?, is_later, at))?;
    Ok(handed_on(leg, packet))
}

/// The header with its options, and the payload, each with the length that the header gives.
fn parts(ip: Bytes<'_>, gso_size: u32) -> Result<(&[u8], &[u8]), DropReason> {
    ip.at_least(20)?;
    let (version, header) = (ip.byte(0)? >> 4, usize::from(ip.byte(0)? & 0xf) * 4);
    let total = match usize::from(ip.be16(2)?) {
        // A super-packet that is too long for the length field (BIG TCP).
        0 if gso_size != 0 => ip.0.len(),
        total => total,
    };
    if version != 4 || header < 20 || total < header {
        return Err(DropReason::Malformed);
    }
    let packet = ip.0.get(..total).ok_or(DropReason::Malformed)?;
    Ok(packet.split_at(header))
}

/// Answers a request for the gateway's address, and lets an answer to the gateway pass.
fn arp(skb: Skb, leg: &GatewayPortEntry, frame: Bytes<'_>) -> Result<End, DropReason> {
    let arp = frame.from(ETHERNET);
    arp.at_least(28)?;
    let is_request = match arp.array(0)? {
        [0, 1, 8, 0, 6, 4, 0, 1] => true,
        [0, 1, 8, 0, 6, 4, 0, 2] => false,
        _ => return Err(DropReason::ArpNotRequest),
    };
    if arp.mac(8)? != leg.mac {
        return Err(DropReason::SpoofedMac);
    }
    let is_probe = is_request && arp.array(14)? == [0; 4];
    if arp.ip(14)? != leg.ip && !is_probe {
        return Err(DropReason::SpoofedIp);
    }
    match arp.ip(24)? {
        own if own == leg.ip => Err(DropReason::ArpOwnAddress),
        other if other != leg.gateway => Err(DropReason::GatewayNeighbour),
        _ if is_request => {
            let answer = turned_around(frame, leg.gateway_mac);
            Ok(End::Redirected(Way::OutOf(skb.ifindex), answer))
        }
        _ if frame.mac(0)? != leg.gateway_mac => Err(DropReason::GatewayNeighbour),
        _ => Ok(handed_on(leg, frame.0)),
    }
}

fn handed_on(leg: &GatewayPortEntry, packet: &[u8]) -> End {
    match leg.bridge {
        0 => End::Allowed,
        bridge => End::Redirected(Way::IntoIngress(bridge), Frame::plain(packet)),
    }
}

/// The destination must be the gateway or a single host beyond it, and never this host's loopback.
fn check_destination(leg: &GatewayPortEntry, to: [u8; 4]) -> Result<(), DropReason> {
    let gateway: [u8; 4] = leg.gateway[12..].try_into().expect("four");
    if to == gateway {
        return Ok(());
    }
    let network = |ip: [u8; 4]| u32::from_be_bytes(ip) & u32::from_be_bytes(leg.mask);
    if network(to) == network(gateway) {
        return Err(DropReason::GatewayNeighbour);
    }
    match to {
        [127, ..] => Err(DropReason::LoopbackDestination),
        [0 | 224..=239, ..] | [255, 255, 255, 255] => Err(DropReason::BroadcastOff),
        _ => Ok(()),
    }
}

/// No option may be a source route, and each must end within the header (RFC 791, section 3.1).
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    loop {
        options = match options {
            [] | [0, ..] => return Ok(()),
            [1, rest @ ..] => rest,
            [131 | 137, ..] => return Err(DropReason::SourceRoute),
            [_, len, ..] if *len >= 2 => {
                options.get(usize::from(*len)..).ok_or(DropReason::Malformed)?
            }
            _ => return Err(DropReason::Malformed),
        };
    }
}
