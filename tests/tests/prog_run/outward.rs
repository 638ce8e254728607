//! Packets that an endpoint sends on its gateway leg.

use etherparse::{IpFragOffset, IpNumber, Ipv4Header};
use overlay_common::{MacBytes, VXLAN_PORT};

use super::{
    packets::{Ask, BROADCAST, arp, other},
    world::{A_OUT, GATEWAY, OUTSIDE, Station},
};

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const RST: u8 = 0x04;

/// A packet on the gateway leg. By default it is a UDP packet to a name server outside.
#[derive(Clone, Debug)]
pub(crate) struct Outward {
    pub(crate) from: Station,
    pub(crate) to_mac: MacBytes,
    pub(crate) to: [u8; 4],
    pub(crate) protocol: IpNumber,
    /// IPv4 options, whose length in bytes is a multiple of four.
    pub(crate) options: Vec<u8>,
    pub(crate) more_fragments: bool,
    /// Fragment offset in units of eight bytes.
    pub(crate) fragment_offset: u16,
    /// All bytes behind the IPv4 header.
    pub(crate) payload: Vec<u8>,
}

impl Default for Outward {
    fn default() -> Self {
        Self {
            from: A_OUT,
            to_mac: GATEWAY.mac,
            to: OUTSIDE,
            protocol: IpNumber::UDP,
            options: Vec::new(),
            more_fragments: false,
            fragment_offset: 0,
            payload: udp(53),
        }
    }
}

impl Outward {
    /// A TCP segment with these flags.
    pub(crate) fn tcp(to: [u8; 4], port: u16, flags: u8) -> Self {
        Self { to, protocol: IpNumber::TCP, payload: tcp(port, flags), ..Self::default() }
    }

    /// A UDP packet to the VXLAN port.
    pub(crate) fn vxlan() -> Self {
        Self { payload: udp(VXLAN_PORT), ..Self::default() }
    }

    /// The whole frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut ip =
            Ipv4Header::new(0, 64, self.protocol, self.from.ip, self.to).expect("no length yet");
        ip.identification = 0x4242;
        ip.dont_fragment = !self.more_fragments && self.fragment_offset == 0;
        ip.more_fragments = self.more_fragments;
        ip.fragment_offset = IpFragOffset::try_new(self.fragment_offset).expect("13 bits");
        ip.options = self.options[..].try_into().expect("whole words");
        ip.set_payload_len(self.payload.len()).expect("short");
        ip.header_checksum = ip.calc_header_checksum();
        other(self.from.mac, self.to_mac, 0x0800, &[&ip.to_bytes()[..], &self.payload].concat())
    }
}

/// Twenty-four bytes of UDP, without a checksum.
pub(crate) fn udp(port: u16) -> Vec<u8> {
    let words = [40_000, port, 24, 0].map(u16::to_be_bytes).concat();
    [&words, super::packets::PAYLOAD].concat()
}

/// Twenty-four bytes of UDP from this port to a name server, without a checksum.
pub(crate) fn udp_from(port: u16) -> Vec<u8> {
    let mut udp = udp(53);
    udp[..2].copy_from_slice(&port.to_be_bytes());
    udp
}

/// Twenty-four bytes of TCP, without a checksum.
pub(crate) fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut tcp = [40_000, port].map(u16::to_be_bytes).concat();
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(*b"data");
    tcp
}

/// A's broadcast request for the gateway's MAC.
pub(crate) fn asks() -> Ask {
    Ask {
        from: A_OUT.mac,
        to: BROADCAST,
        operation: 1,
        sender: A_OUT,
        target: Station { mac: [0; 6], ..GATEWAY },
    }
}

/// A's answer to a request of the gateway.
pub(crate) fn answers() -> Ask {
    Ask { to: GATEWAY.mac, operation: 2, target: GATEWAY, ..asks() }
}

/// The gateway's answer to [`asks`].
pub(crate) fn gateways_answer() -> Vec<u8> {
    arp(Ask { from: GATEWAY.mac, to: A_OUT.mac, operation: 2, sender: GATEWAY, target: A_OUT })
}
