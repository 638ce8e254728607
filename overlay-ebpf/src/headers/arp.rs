//! ARP.

use super::ethernet::ETH_P_IP;
use overlay_common::MacBytes;

/// ARP for IPv4 over Ethernet (RFC 826).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Arp {
    hardware: u16,
    protocol: u16,
    lengths: u16,
    operation: u16,
    pub sender_mac: MacBytes,
    pub sender_ip: [u8; 4],
    pub target_mac: MacBytes,
    pub target_ip: [u8; 4],
}

const ARP_ETHERNET: u16 = 1;
/// Lengths of the addresses: 6 and 4 bytes.
const ARP_LENGTHS: u16 = 0x0604;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

impl Arp {
    #[inline(always)]
    pub fn is_request(&self) -> bool {
        self.is_ipv4_over_ethernet() && self.operation == ARP_REQUEST.to_be()
    }

    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.is_ipv4_over_ethernet() && self.operation == ARP_REPLY.to_be()
    }

    #[inline(always)]
    fn is_ipv4_over_ethernet(&self) -> bool {
        self.hardware == ARP_ETHERNET.to_be()
            && self.protocol == ETH_P_IP.to_be()
            && self.lengths == ARP_LENGTHS.to_be()
    }

    /// Turns the request into the answer: the address that was asked for belongs to `mac`.
    #[inline(always)]
    pub fn answer(&mut self, mac: MacBytes) {
        self.operation = ARP_REPLY.to_be();
        let asked = self.target_ip;
        self.target_mac = self.sender_mac;
        self.target_ip = self.sender_ip;
        self.sender_mac = mac;
        self.sender_ip = asked;
    }
}

const _: () = assert!(size_of::<Arp>() == 28);
