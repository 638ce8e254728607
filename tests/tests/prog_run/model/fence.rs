//! The addresses and messages that may be sent in an IP packet. Messages of routers and DHCP servers need the permission
//! to advertise.

use overlay_common::{DropReason, FLAG_ADVERTISING};

use super::{
    bytes::{Bytes, ETHERNET, IPV4, IPV6},
    checksum::Carries,
    icmp::{self, May},
    sender::Sender,
    vlan::{Inside, TAG},
};
use crate::world::World;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Checks the packet in a frame of this sender. Returns the places where a checksum may be written into the frame.
pub(super) fn check(
    world: &World,
    sender: &Sender,
    frame: Bytes<'_>,
    inside: Inside,
    gso_size: u32,
) -> Result<Carries, DropReason> {
    match inside {
        Inside::Packet(IPV4, at) => {
            let ip = frame.from(at);
            ipv4(world, sender, ip)?;
            let payload = at + header_len(ip)?;
            Ok(Carries::of_ipv4(ip.byte(9)?, ip.be16(6)? & 0x1fff != 0, payload))
        }
        Inside::Packet(IPV6, at) => {
            let (ip, payload) = (frame.from(at), at + 40);
            ipv6(sender, ip, gso_size)?;
            // The hop-by-hop header of a super-packet, with the jumbo option alone.
            let is_jumbo = gso_size != 0 && ip.be16(4)? == 0 && is_jumbo(ip.from(40));
            Ok(match ip.byte(6)? {
                0 if is_jumbo => Carries::of(TCP, payload + 8),
                protocol => Carries::of(protocol, payload),
            })
        }
        inside => Ok(unchecked(inside)),
    }
}

/// The places for a checksum in a frame of which only the Ethernet header and the first tag were checked.
pub(super) fn unchecked(inside: Inside) -> Carries {
    match inside {
        Inside::Packet(_, at) => Carries::Anything(at),
        Inside::OnVlan => Carries::Anything(ETHERNET + TAG),
    }
}

/// Returns true for a hop-by-hop header before TCP, with the jumbo option alone (RFC 2675).
fn is_jumbo(header: Bytes<'_>) -> bool {
    header.array::<3>(0) == Ok([TCP, 0, 194])
}

/// An IPv4 packet must have an address that the sender may use. It must not go to the port of a DHCP client (RFC 2131,
/// section 4.1), because a client takes answers from any port.
fn ipv4(world: &World, sender: &Sender, ip: Bytes<'_>) -> Result<(), DropReason> {
    ip.at_least(20)?;
    sender.check_ip(world, ip.ip(12)?)?;
    // A later fragment has no ports.
    if ip.be16(6)? & 0x1fff != 0 {
        return Ok(());
    }
    let payload = ip.from(header_len(ip)?);
    let may_advertise = sender.has(FLAG_ADVERTISING);
    match ip.byte(9)? {
        UDP if payload.array::<4>(0).is_ok_and(|ports| ports[2..] == [0, 68]) && !may_advertise => {
            Err(DropReason::DhcpServer)
        }
        ICMP => {
            let may = May { report_mtu: sender.routes(), redirect: may_advertise };
            icmp::check(|to| sender.check_ip(world, to).is_ok(), payload, may)
        }
        _ => Ok(()),
    }
}

/// Bytes of the IPv4 header with its options: at least twenty, even if the header gives less (RFC 791,
/// section 3.1).
fn header_len(ip: Bytes<'_>) -> Result<usize, DropReason> {
    Ok((usize::from(ip.byte(0)? & 0xf) * 4).max(20))
}

/// An IPv6 packet must not be a message of a router (RFC 4861, sections 4.2 and 4.5; RFC 6105) or of a DHCPv6
/// server (RFC 8415, section 7.2). It must not be able to hide one behind an extension header either (RFC
/// 7113).
fn ipv6(sender: &Sender, ip: Bytes<'_>, gso_size: u32) -> Result<(), DropReason> {
    ip.at_least(40)?;
    let may_advertise = sender.has(FLAG_ADVERTISING);
    let is_link_local = |at: usize| Ok(ip.be16(at)? & 0xffc0 == 0xfe80);
    // A receiver ignores a router that is not on the link (RFC 4861, sections 6.1.2 and 8.1).
    let is_from_here = ip.byte(7)? == 255;
    let believed = is_from_here && is_link_local(8)?;
    let (next, payload) = (ip.byte(6)?, ip.from(40));
    match next {
        58 if believed && !may_advertise && matches!(payload.byte(0), Ok(134 | 137)) => {
            Err(DropReason::RouterAdvertisement)
        }
        UDP if payload.be16(2) == Ok(546) && !may_advertise => Err(DropReason::DhcpServer),
        // The kernel makes TCP super-packets with a hop-by-hop header that has the jumbo option alone, and
        // with a length of 0 (RFC 2675).
        0 if gso_size != 0 && ip.be16(4)? == 0 && is_jumbo(payload) => Ok(()),
        // The extension headers (IANA) behind which the next header can be read. A DHCPv6 server reaches a
        // client that has no address yet at its link-local address.
        0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 | 253 | 254 => match is_link_local(24)? {
            _ if believed && !may_advertise => Err(DropReason::RouterAdvertisement),
            // A message of a neighbour, which may have any source.
            _ if is_from_here => Err(DropReason::SpoofedNeighbour),
            true if !may_advertise => Err(DropReason::DhcpServer),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}
