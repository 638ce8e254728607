//! Headers as they lie in a packet, one file a layer. The outer headers are in [`crate::outer`].
//!
//! Invariants: every type is packed, because nothing in a packet is aligned, and any bytes are a value of
//! it. Fields of more than one byte are big-endian; a method that converts returns the host's byte order.

mod arp;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod transport;

pub use arp::Arp;
pub use ethernet::{BehindTpid, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Eth, Ethernet, L3, Tag, is_vlan};
pub use icmp::{IcmpAbout, Icmpv6About, TooBig};
pub use ipv4::{FRAGMENT_OFFSET, Ipv4, Ipv4Ports};
pub use ipv6::{Ipv6, JumboOption};
pub use transport::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, Ports, TcpStart, Udp,
};
