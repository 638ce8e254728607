//! Frames that no network stack sends by itself.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder, VlanId};

/// A text in each of these frames, by which a capture recognises it anywhere.
pub(crate) const MARK: &str = "never-to-be-heard";

/// One end of a frame: a MAC and an IPv4 address.
#[derive(Clone, Copy)]
pub(crate) struct Party {
    pub(crate) mac: [u8; 6],
    pub(crate) ip: Ipv4Addr,
}

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

impl Party {
    /// Parses the MAC as `ip` prints it.
    pub(crate) fn new(mac: &str, ip: Ipv4Addr) -> Result<Self> {
        let bytes: Vec<u8> = mac
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()
            .with_context(|| format!("the MAC {mac}"))?;
        Ok(Self { mac: bytes.try_into().ok().context("six bytes")?, ip })
    }

    /// Keeps the address, and replaces the MAC.
    pub(crate) fn behind(self, mac: [u8; 6]) -> Self {
        Self { mac, ..self }
    }

    /// Keeps the MAC, and replaces the address.
    pub(crate) fn with(self, ip: impl Into<Ipv4Addr>) -> Self {
        Self { ip: ip.into(), ..self }
    }
}

/// A UDP datagram in a frame.
pub(crate) fn udp(from: Party, to: Party, port: u16) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from.mac, to.mac)
        .ipv4(from.ip.octets(), to.ip.octets(), 64)
        .udp(40_000, port);
    write(|bytes| packet.write(bytes, MARK.as_bytes()))
}

/// A TCP segment that opens a connection (SYN), with data in it.
pub(crate) fn syn(from: Party, to: Party, port: u16) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from.mac, to.mac)
        .ipv4(from.ip.octets(), to.ip.octets(), 64)
        .tcp(40_000, port, 1, 1024)
        .syn();
    write(|bytes| packet.write(bytes, MARK.as_bytes()))
}

/// A TCP segment with these flags, with data in it.
pub(crate) fn tcp(from: Party, to: Party, port: u16, flags: u8) -> Vec<u8> {
    /// Offset of the flags, behind the headers of Ethernet and IPv4 (RFC 9293, section 3.1).
    const FLAGS_AT: usize = 14 + 20 + 13;
    let mut frame = syn(from, to, port);
    frame[FLAGS_AT] = flags;
    frame
}

/// A frame like that of [`udp`], with a tag of VLAN 0.
pub(crate) fn tagged(from: Party, to: Party, port: u16) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from.mac, to.mac)
        .single_vlan(VlanId::ZERO)
        .ipv4(from.ip.octets(), to.ip.octets(), 64)
        .udp(40_000, port);
    write(|bytes| packet.write(bytes, MARK.as_bytes()))
}

/// An IPv6 packet to all nodes of the link.
pub(crate) fn ipv6(from: Party) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from.mac, [0x33, 0x33, 0, 0, 0, 1])
        .ipv6(
            [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            64,
        )
        .udp(40_000, 5353);
    write(|bytes| packet.write(bytes, MARK.as_bytes()))
}

/// An ARP message from `sender` about `target`, in a frame to `to`.
pub(crate) fn arp(
    operation: ArpOperation,
    sender: Party,
    target: Party,
    to: [u8; 6],
) -> Result<Vec<u8>> {
    let arp = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &sender.mac,
        &sender.ip.octets(),
        &target.mac,
        &target.ip.octets(),
    )?;
    let packet = PacketBuilder::ethernet2(sender.mac, to).arp(arp);
    let mut frame = Vec::new();
    packet.write(&mut frame)?;
    // The mark is behind the packet, where Ethernet has padding.
    frame.extend(MARK.as_bytes());
    Ok(frame)
}

fn write<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes).expect("memory takes every byte");
    bytes
}
