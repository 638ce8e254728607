//! A tracked connection, as the kernel lists it (`linux/netfilter/nfnetlink_conntrack.h`).

use std::net::Ipv4Addr;

use nix::libc;
use rtnetlink::packet_core::{DefaultNla, NlasIterator, Parseable as _};

pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
/// Inside a tuple.
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Of `CTA_STATUS`: for a protocol with a handshake, both sides have completed it.
const IPS_ASSURED: u32 = 1 << 2;

/// An address, and a port where the protocol has ports; otherwise 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

/// The addresses of the packets in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) source: End,
    pub(super) destination: End,
}

/// A connection in the default zone. Without NAT the two directions are each other's reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    /// The protocol's number at IANA.
    pub(super) protocol: u8,
    /// From the side that began, before NAT.
    pub(super) original: Direction,
    /// The answers, before NAT is undone.
    pub(super) reply: Direction,
    pub(super) is_assured: bool,
}

impl Flow {
    /// Reads the attributes of one connection. `None` for one that is not IPv4, and for one in a zone: whoever uses
    /// zones has the same addresses more than once.
    pub(super) fn parse(attributes: &[u8]) -> Option<Self> {
        let (mut original, mut reply, mut is_assured) = (None, None, false);
        for attribute in NlasIterator::new(attributes).flatten() {
            match attribute.kind() {
                CTA_TUPLE_ORIG => original = Some(direction(attribute.value())?),
                CTA_TUPLE_REPLY => reply = Some(direction(attribute.value())?),
                CTA_STATUS => {
                    let status = u32::from_be_bytes(*attribute.value().first_chunk()?);
                    is_assured = status & IPS_ASSURED != 0;
                }
                CTA_ZONE => return None,
                _ => {}
            }
        }
        let ((protocol, original), (_, reply)) = (original?, reply?);
        Some(Self { protocol, original, reply, is_assured })
    }

    /// Returns true if the source or the destination was translated.
    pub(super) fn is_translated(&self) -> bool {
        let Direction { source, destination } = self.original;
        self.reply != Direction { source: destination, destination: source }
    }

    /// Returns true if both sides hold a state of their own, which another address would end: a connection of TCP, SCTP
    /// or DCCP after its handshake.
    pub(super) fn is_connected(&self) -> bool {
        const WITH_HANDSHAKE: [i32; 3] =
            [libc::IPPROTO_TCP, libc::IPPROTO_SCTP, libc::IPPROTO_DCCP];
        self.is_assured && WITH_HANDSHAKE.contains(&self.protocol.into())
    }
}

fn direction(tuple: &[u8]) -> Option<(u8, Direction)> {
    let (mut protocol, mut ports) = (None, [0; 2]);
    let (mut source, mut destination) = (None, None);
    for part in NlasIterator::new(tuple).flatten() {
        for field in NlasIterator::new(part.value()).flatten() {
            let value = field.value();
            match (part.kind(), field.kind()) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC) => source = Some(address(value)?),
                (CTA_TUPLE_IP, CTA_IP_V4_DST) => destination = Some(address(value)?),
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => protocol = value.first().copied(),
                (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => ports[0] = port(value)?,
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => ports[1] = port(value)?,
                _ => {}
            }
        }
        if part.kind() == CTA_TUPLE_ZONE {
            return None;
        }
    }
    let source = End { address: source?, port: ports[0] };
    let destination = End { address: destination?, port: ports[1] };
    Some((protocol?, Direction { source, destination }))
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*value.first_chunk::<4>()?))
}

fn port(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*value.first_chunk()?))
}

/// The attributes by which the kernel finds exactly this connection again, and no later one with the same addresses.
pub(super) fn identity(attributes: &[u8]) -> Vec<DefaultNla> {
    let all = NlasIterator::new(attributes).flatten();
    let own = all.filter(|attribute| [CTA_TUPLE_ORIG, CTA_ID].contains(&attribute.kind()));
    own.filter_map(|attribute| DefaultNla::parse(&attribute).ok()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// The attribute of one direction, in the kernel's form.
    fn tuple(kind: u16, protocol: u8, source: &str, destination: &str, more: &[u8]) -> Vec<u8> {
        let [source, destination] = [source, destination].map(end);
        let ip = [
            nla(CTA_IP_V4_SRC, &source.address.octets()),
            nla(CTA_IP_V4_DST, &destination.address.octets()),
        ];
        let proto = [
            nla(CTA_PROTO_NUM, &[protocol]),
            nla(CTA_PROTO_SRC_PORT, &source.port.to_be_bytes()),
            nla(CTA_PROTO_DST_PORT, &destination.port.to_be_bytes()),
        ];
        let nested = 0x8000;
        let parts = [
            nla(CTA_TUPLE_IP | nested, &ip.concat()),
            nla(CTA_TUPLE_PROTO | nested, &proto.concat()),
            more.to_vec(),
        ];
        nla(kind | nested, &parts.concat())
    }

    pub(crate) fn end(text: &str) -> End {
        let (address, port) = text.split_once(':').unwrap_or((text, "0"));
        End { address: address.parse().unwrap(), port: port.parse().unwrap() }
    }

    fn attributes(more: &[u8], of_tuple: &[u8]) -> Vec<u8> {
        let original = tuple(CTA_TUPLE_ORIG, 6, "10.0.0.2:40000", "10.0.0.1:8080", of_tuple);
        let reply = tuple(CTA_TUPLE_REPLY, 6, "172.18.0.2:80", "10.0.0.2:40000", &[]);
        let status = nla(CTA_STATUS, &(IPS_ASSURED | 2).to_be_bytes());
        [original, reply, status, nla(CTA_ID, &[1, 2, 3, 4]), more.to_vec()].concat()
    }

    #[test]
    fn a_connection_is_read_with_both_directions() {
        let bytes = attributes(&[], &[]);
        let flow = Flow::parse(&bytes).unwrap();
        assert_eq!((flow.protocol, flow.is_assured), (6, true));
        assert_eq!(flow.original.destination, end("10.0.0.1:8080"));
        assert_eq!(flow.reply.source, end("172.18.0.2:80"));
        assert_eq!(flow.reply.destination, flow.original.source);
        assert!(flow.is_translated() && flow.is_connected());
        assert_eq!(identity(&bytes).len(), 2, "its addresses and its id");
        // The kernel never sends half of an attribute.
        for length in 0..bytes.len() - 4 {
            let cut = Flow::parse(&bytes[..length]);
            assert!(cut.is_none_or(|cut| cut.reply == flow.reply));
        }
    }

    #[test]
    fn what_is_in_a_zone_is_another_users() {
        for (more, of_tuple) in [
            (nla(CTA_ZONE, &7u16.to_be_bytes()), vec![]),
            (vec![], nla(CTA_TUPLE_ZONE, &7u16.to_be_bytes())),
        ] {
            assert_eq!(Flow::parse(&attributes(&more, &of_tuple)), None);
        }
        assert!(Flow::parse(&attributes(&[], &[])).is_some());
    }
}
