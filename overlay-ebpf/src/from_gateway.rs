//! What an endpoint sends on its gateway leg. It may reach the gateway, and through it the world. It never
//! reaches its neighbours on the bridge, whatever the frame is and whatever the node's firewall does at the
//! moment.
//!
//! Nothing that passes can be for a neighbour: the frame is to the bridge's own MAC, and the packet's
//! destination is the gateway or lies beyond its subnet, so that no route leads back. What passes is put
//! into the bridge as received by the bridge itself, past its ports: no table of MACs is used, and on a host
//! where netfilter sees bridged frames (`bridge-nf-call-iptables`, which Docker and Kubernetes switch on) a
//! packet to a port that a neighbour publishes is routed to it as any other, and not taken for one
//! between two ports that are isolated from each other. ARP never enters the bridge but as a unicast
//! answer to the gateway.
//!
//! An ICMP error quotes a packet, and the host's connection tracking delivers the error to the sender of that
//! packet. An endpoint has received only what was for its own address, so it has no error to send about any
//! other packet, and none passes: it would reach a neighbour, or end a neighbour's flow. "Fragmentation needed"
//! counts for all packets between that sender and this host, whose address the endpoint has outside. Only one that
//! may route says it, and never of less than any way carries; a stream can be made to fit instead (clamping).
//!
//! Two things are left to the node's stack, which treats them as from any host: tunnels such as IP in IP (they
//! end where somebody set one up), and link-local destinations (the bridge's subnet is the only one behind it,
//! and an answer to ARP for another address is dropped here). FLAG_ROUTING makes no other difference: an endpoint
//! that routes for its network does not route for the gateway bridge.

use crate::{
    arp,
    checksum::{self, Payload},
    frame::{self, header, linear, same_mac},
    headers::{
        Arp, ETH_P_ARP, ETH_P_IP, Ethernet, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IcmpAbout,
        Ipv4, L3, Ports, is_vlan,
    },
    icmp::{self, May},
    maps,
    verdict::{Decision, opaque_to_verifier},
};
use aya_ebpf::{bindings::BPF_F_INGRESS, helpers::bpf_redirect, programs::TcContext};
use overlay_common::{ApiKey, Config, DropReason, FLAG_ROUTING, GatewayPortEntry, ip16_from_v4};

#[inline(always)]
pub fn handle(ctx: &TcContext) -> Result<Decision, DropReason> {
    let ifindex = frame::ifindex(ctx);
    let Some(port) = maps::gateway_port(&ifindex) else { return Err(DropReason::UnknownPort) };
    linear(ctx, L3)?;
    let eth = *header::<Ethernet>(ctx, 0)?;
    if frame::has_stripped_tag(ctx) || is_vlan(eth.ethertype()) {
        return Err(DropReason::VlanUnsupported);
    }
    if !same_mac(&eth.src, &port.mac) {
        return Err(DropReason::SpoofedMac);
    }
    match eth.ethertype() {
        ETH_P_IP => check_ipv4(ctx, port, &eth),
        ETH_P_ARP => check_arp(ctx, port, &eth),
        // IPv6 too: the leg has no IPv6 address, and the bridge's node would answer.
        _ => Err(DropReason::GatewayProtocol),
    }
}

/// A request for the gateway is answered here; an answer to the gateway's own question passes.
#[inline(always)]
fn check_arp(
    ctx: &TcContext,
    port: &GatewayPortEntry,
    eth: &Ethernet,
) -> Result<Decision, DropReason> {
    checksum::check_none(ctx)?;
    linear(ctx, L3 + size_of::<Arp>())?;
    let arp: &mut Arp = header(ctx, L3)?;
    let is_request = arp.is_request();
    if !is_request && !arp.is_reply() {
        return Err(DropReason::ArpNotRequest);
    }
    if !same_mac(&arp.sender_mac, &port.mac) {
        return Err(DropReason::SpoofedMac);
    }
    // A sender that does not have the address yet asks with none (RFC 5227, section 2.1.1).
    let is_probe = is_request && u32::from_ne_bytes(arp.sender_ip) == 0;
    if !is_probe && !frame::is_v4(&port.ip, arp.sender_ip) {
        return Err(DropReason::SpoofedIp);
    }
    if frame::is_v4(&port.ip, arp.target_ip) {
        return Err(DropReason::ArpOwnAddress);
    }
    if !frame::is_v4(&port.gateway, arp.target_ip) {
        return Err(DropReason::GatewayNeighbour);
    }
    if is_request {
        return arp::send_answer(ctx, arp, port.gateway_mac);
    }
    if !same_mac(&eth.dst, &port.gateway_mac) {
        return Err(DropReason::GatewayNeighbour);
    }
    Ok(hand_on(port))
}

/// Hands a packet that may pass to the gateway.
#[inline(always)]
fn hand_on(port: &GatewayPortEntry) -> Decision {
    if port.bridge == 0 {
        return Decision::Allow;
    }
    // SAFETY: no preconditions.
    Decision::Redirect(unsafe { bpf_redirect(port.bridge, u64::from(BPF_F_INGRESS)) } as i32)
}

#[inline(always)]
fn check_ipv4(
    ctx: &TcContext,
    port: &GatewayPortEntry,
    eth: &Ethernet,
) -> Result<Decision, DropReason> {
    linear(ctx, L3 + size_of::<Ipv4>())?;
    let ip = *header::<Ipv4>(ctx, L3)?;
    let payload = payload_len(ctx, &ip)?;
    if !frame::is_v4(&port.ip, ip.src) {
        return Err(DropReason::SpoofedIp);
    }
    if eth.is_to_group() {
        return Err(DropReason::BroadcastOff);
    }
    if !same_mac(&eth.dst, &port.gateway_mac) {
        return Err(DropReason::GatewayNeighbour);
    }
    check_destination(port, ip.dst)?;
    if ip.has_options() || ip.protocol == IPPROTO_ICMP {
        frame::keep(ctx, L3 + ip.header_len() + payload.min(READ_MAX))?;
    }
    if ip.has_options() {
        refuse_source_route(ctx, ip.header_len())?;
    }
    let Some(config) = maps::config() else { return Err(DropReason::NotConfigured) };
    // A fragment after the first has no ports. It is useless without the first, and it cannot replace what was
    // checked there: the kernel drops fragments that overlap.
    let protocol = if ip.is_later_fragment() { Payload::OTHER } else { ip.protocol };
    match protocol {
        IPPROTO_UDP => check_udp(ctx, config, &ip, payload)?,
        IPPROTO_TCP => check_tcp(ctx, &ip, payload)?,
        IPPROTO_ICMP => {
            let may = May { report_mtu: port.flags & FLAG_ROUTING != 0, redirect: false };
            let is_about_it = |destination| frame::is_v4(&port.ip, destination);
            icmp::check(ctx, L3 + ip.header_len(), payload, is_about_it, may)?;
        }
        _ => {}
    }
    checksum::check(ctx, Payload { protocol, at: L3 + ip.header_len() })?;
    Ok(hand_on(port))
}

/// Bytes of the payload that are read at most.
const READ_MAX: usize = size_of::<IcmpAbout>();

/// How many bytes follow the header, as the header says, which must fit into the frame. Ethernet's padding is
/// not among them.
#[inline(always)]
fn payload_len(ctx: &TcContext, ip: &Ipv4) -> Result<usize, DropReason> {
    let room = ctx.len() as usize - L3;
    let total = match ip.total_len() {
        // A super-packet that is too long for the field.
        0 if frame::gso_size(ctx) != 0 => room,
        total => total,
    };
    let header = ip.header_len();
    if ip.version() != 4 || header < size_of::<Ipv4>() || total < header || total > room {
        return Err(DropReason::Malformed);
    }
    Ok(total - header)
}

/// Checks that the destination is the gateway, or lies beyond it.
#[inline(always)]
fn check_destination(port: &GatewayPortEntry, dst: [u8; 4]) -> Result<(), DropReason> {
    let gateway = frame::v4(&port.gateway);
    let differs = u32::from_ne_bytes(dst) ^ u32::from_ne_bytes(gateway);
    if differs == 0 {
        return Ok(());
    }
    // The subnet's broadcast and network addresses are among these.
    if differs & u32::from_ne_bytes(port.mask) == 0 {
        return Err(DropReason::GatewayNeighbour);
    }
    match dst[0] {
        // The bridge routes these to the node itself, where a port may be published on localhost.
        127 => Err(DropReason::LoopbackDestination),
        // "This network" is nobody's address, and 0.0.0.0 an old form of broadcast (RFC 1122, section
        // 3.3.6).
        0 | 224..=239 => Err(DropReason::BroadcastOff),
        255 if u32::from_ne_bytes(dst) == u32::MAX => Err(DropReason::BroadcastOff),
        _ => Ok(()),
    }
}

/// Numbers of options (RFC 791, section 3.1).
const OPTIONS_END: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;
/// Bytes of the longest options: the longest header without its fixed part.
const OPTIONS_MAX: usize = 15 * 4 - size_of::<Ipv4>();

/// Refuses an IPv4 source route, which hides the real destination in the options: it could be a neighbour, by
/// way of the gateway. The node's sysctl against source routes may have been switched off.
#[cold]
#[inline(never)]
fn refuse_source_route(ctx: &TcContext, header_len: usize) -> Result<(), DropReason> {
    // Otherwise the verifier walks the loop once for each path that leads here: seven times the work, and a
    // tenth of a second of each node's start.
    let options = opaque_to_verifier(ctx, (header_len - size_of::<Ipv4>()) as u32) as usize;
    let byte = |at: usize| -> Result<u8, DropReason> {
        ctx.load(L3 + size_of::<Ipv4>() + at).map_err(|_| DropReason::Malformed)
    };
    // Byte by byte, and not option by option: the verifier then knows each position, and need not follow each
    // sum of lengths.
    let mut inside = 0;
    for at in 0..OPTIONS_MAX {
        if at >= options {
            break;
        }
        if inside > 0 {
            inside -= 1;
            continue;
        }
        match byte(at)? {
            OPTIONS_END => break,
            NO_OPERATION => {}
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(DropReason::SourceRoute),
            _ => {
                let len = usize::from(byte(at + 1)?);
                if len < 2 || at + len > options {
                    return Err(DropReason::Malformed);
                }
                inside = len - 1;
            }
        }
    }
    Ok(())
}

/// Refuses UDP to or from the VXLAN port. To it: masqueraded, the packet would come from a VTEP's address and
/// look like its VXLAN. From it: the answer goes to the VXLAN port, and an answer from a VTEP's address would
/// look like VXLAN of that VTEP.
#[inline(always)]
fn check_udp(
    ctx: &TcContext,
    config: &Config,
    ip: &Ipv4,
    payload: usize,
) -> Result<(), DropReason> {
    let ports = ports(ctx, ip, payload)?;
    if ports.destination() == config.vxlan_port || ports.source() == config.vxlan_port {
        return Err(DropReason::VxlanFromEndpoint);
    }
    Ok(())
}

/// Refuses every TCP segment to a node's API. Even a segment that opens no connection would make one known to
/// the host's connection tracking, and let the API's answers through.
#[inline(always)]
fn check_tcp(ctx: &TcContext, ip: &Ipv4, payload: usize) -> Result<(), DropReason> {
    let port = ports(ctx, ip, payload)?.destination();
    let api = ApiKey { ip: ip16_from_v4(ip.dst), port: u32::from(port) };
    if maps::api(&api).is_some() {
        return Err(DropReason::ControllerPort);
    }
    Ok(())
}

/// The ports of UDP or TCP.
#[inline(always)]
fn ports(ctx: &TcContext, ip: &Ipv4, payload: usize) -> Result<Ports, DropReason> {
    if payload < size_of::<Ports>() {
        return Err(DropReason::Malformed);
    }
    if ip.has_options() {
        return ctx.load(L3 + ip.header_len()).map_err(|_| DropReason::Malformed);
    }
    const L4: usize = L3 + size_of::<Ipv4>();
    linear(ctx, L4 + size_of::<Ports>())?;
    Ok(*header::<Ports>(ctx, L4)?)
}
