//! What may be sent in an IP packet: an address that is the sender's own or, with FLAG_ROUTING and from a station behind
//! a bridging endpoint, no endpoint's; nothing that only a router or a DHCP server sends, unless with FLAG_ADVERTISING; and
//! no ICMP error about what cannot have been sent to the sender.
//!
//! It is checked on the sender's node and again on the receiver's, because the sending VTEP may not run our
//! programs.

use crate::{
    checksum::Payload,
    claim,
    frame::{self, header, linear, pulled},
    headers::{
        IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IcmpAbout, Ipv4, Ipv4Ports, Ipv6,
        JumboOption, Ports,
    },
    icmp::{self, May},
    sender::Sender,
};
use aya_ebpf::programs::TcContext;
use overlay_common::{DropReason, FLAG_ADVERTISING, FLAG_ROUTING, FLAG_STATIONS};

/// A DHCP client's port (RFC 2131, section 4.1). It alone tells a server's message: a server may send from any
/// port.
const DHCP_CLIENT: u16 = 68;
/// A DHCPv6 client's port (RFC 8415, section 7.2).
const DHCPV6_CLIENT: u16 = 546;
/// ICMPv6 (RFC 4861, sections 4.2 and 4.5).
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
/// A number that no message has (RFC 4443, section 2.1).
const NO_KIND: u8 = 255;
/// Receivers take neighbour discovery only with this limit, which proves that it comes from the same link
/// (RFC 4861, section 6.1.2).
const HOP_LIMIT: u8 = 255;

/// Checks the IPv4 packet at `l3`. Returns what it carries.
#[inline(always)]
pub fn ipv4(ctx: &TcContext, l3: usize, sender: Sender) -> Result<Payload, DropReason> {
    // A number and not an option: the compiler combines an option's two halves in ways that the verifier
    // refuses. A packet that is too short for ports is too short for a receiver, and 0 is no client's port.
    let (ip, destination) = match pulled::<Ipv4Ports>(ctx, l3) {
        Ok(start) => (&start.ip, start.ports.destination()),
        Err(_) => (&*pulled::<Ipv4>(ctx, l3)?, 0),
    };
    sender.check_ip(ip.src)?;
    // No receiver takes a header that claims to be shorter than it can be, and all of it was checked.
    const LEAST: usize = size_of::<Ipv4>();
    let at = l3 + if ip.has_options() { ip.header_len().max(LEAST) } else { LEAST };
    if ip.is_later_fragment() {
        return Ok(Payload { protocol: Payload::OTHER, at });
    }
    let payload = Payload { protocol: ip.protocol, at };
    match payload.protocol {
        IPPROTO_UDP => {
            let is_server = if ip.has_options() {
                destination_behind_options(ctx, at)? == DHCP_CLIENT
            } else {
                destination == DHCP_CLIENT
            };
            if is_server && !sender.has(FLAG_ADVERTISING) {
                return Err(DropReason::DhcpServer);
            }
            Ok(payload)
        }
        IPPROTO_ICMP => {
            let end = ctx.len() as usize;
            frame::keep(ctx, end.min(at + size_of::<IcmpAbout>()))?;
            let may = May {
                report_mtu: sender.has(FLAG_ROUTING | FLAG_STATIONS),
                redirect: sender.has(FLAG_ADVERTISING),
            };
            let is_about_it = |destination| sender.check_ip(destination).is_ok();
            icmp::check(ctx, at, end.saturating_sub(at), is_about_it, may)?;
            Ok(payload)
        }
        _ => Ok(payload),
    }
}

/// The destination's port; 0, which is no client's, of a packet that ends before it.
#[cold]
#[inline(always)]
fn destination_behind_options(ctx: &TcContext, at: usize) -> Result<u16, DropReason> {
    let whole = at + size_of::<Ports>();
    if (ctx.len() as usize) < whole {
        return Ok(0);
    }
    frame::keep(ctx, whole)?;
    let ports: Ports = ctx.load(at).map_err(|_| DropReason::Malformed)?;
    Ok(ports.destination())
}

/// Checks the IPv6 packet at `l3`, which must speak for no neighbour's address. Its source is not checked, because the
/// maps know no IPv6 address of an endpoint. Returns what the packet carries.
#[inline(always)]
pub fn ipv6(ctx: &TcContext, l3: usize, sender: Sender) -> Result<Payload, DropReason> {
    // The longest header that is read behind it is the jumbo option.
    let whole = l3 + size_of::<Ipv6>() + size_of::<JumboOption>();
    if linear(ctx, whole).is_err() {
        linear(ctx, l3 + size_of::<Ipv6>())?;
    }
    let ip: &Ipv6 = header(ctx, l3)?;
    let is_believed = ip.hop_limit == HOP_LIMIT;
    let from_router = is_believed && ip.is_from_link();
    let after = l3 + size_of::<Ipv6>();
    let mut payload = Payload { protocol: ip.next_header, at: after };
    match ip.next_header {
        IPPROTO_ICMPV6 => {
            // A number, as above.
            let kind = header::<u8>(ctx, after).map_or(NO_KIND, |kind| *kind);
            if from_router
                && matches!(kind, ROUTER_ADVERTISEMENT | REDIRECT)
                && !sender.has(FLAG_ADVERTISING)
            {
                return Err(DropReason::RouterAdvertisement);
            }
            icmp::check_v6(ctx, after, kind, sender)?;
            if is_believed {
                claim::check(ctx, l3, sender)?;
            }
        }
        IPPROTO_UDP => {
            if header::<Ports>(ctx, after).is_ok_and(|ports| ports.destination() == DHCPV6_CLIENT)
                && !sender.has(FLAG_ADVERTISING)
            {
                return Err(DropReason::DhcpServer);
            }
        }
        // A super-packet of TCP: see `jumbo`.
        0 if ip.is_without_length()
            && frame::gso_size(ctx) != 0
            && header::<JumboOption>(ctx, after)
                .is_ok_and(|option| option.is_before(IPPROTO_TCP)) =>
        {
            payload = Payload { protocol: IPPROTO_TCP, at: after + size_of::<JumboOption>() };
        }
        // Nothing is searched for behind these headers (RFC 7113): a sender that needs them need not look
        // like a router.
        extension if is_extension(extension) => {
            if from_router && !sender.has(FLAG_ADVERTISING) {
                return Err(DropReason::RouterAdvertisement);
            }
            // A neighbour speaks from any address.
            if is_believed {
                return Err(DropReason::SpoofedNeighbour);
            }
            // A client that asks for an address has only a link-local one, so a server answers to that.
            if ip.is_to_link() && !sender.has(FLAG_ADVERTISING) {
                return Err(DropReason::DhcpServer);
            }
        }
        _ => {}
    }
    Ok(payload)
}

/// Whether another header follows unencrypted: the extension headers of IANA's list.
#[inline(always)]
fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 | 253 | 254)
}
