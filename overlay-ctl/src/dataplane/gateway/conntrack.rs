//! The door to the kernel's table of connections (conntrack): lists a part of it, deletes single connections, and says
//! how full it is.

use std::{io, net::IpAddr};

use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    conntrack::{ConntrackMessage, ConntrackMessageType, IPTuple, ProtoTuple, Tuple},
};
use nix::libc;
use rtnetlink::{
    packet_core::{
        DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
        NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
    },
    sys::{
        AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket,
        protocols::NETLINK_NETFILTER,
    },
};

use super::{
    contents::protocol_number,
    flow::{CTA_TUPLE_ORIG, CTA_TUPLE_REPLY},
    suspicion::Part,
};

/// linux/netfilter/nfnetlink_conntrack.h; the crate does not name these.
const GET_STATS_OF_CPUS: u8 = 4;
const GET_STATS: u8 = 5;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;
const CTA_STATS_DROP: u16 = 10;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const NLA_F_NESTED: u16 = libc::NLA_F_NESTED as u16;
/// net/netfilter/nf_internals.h: the flags of a filter, by which parts of a tuple are compared.
const BY_SOURCE: u32 = 1 << 0;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;
/// `struct nfgenmsg`: family, version, resource id.
const FAMILY_HEADER: usize = 4;
/// A list that the kernel could not complete is asked for again, so often at most.
const ATTEMPTS: usize = 3;

/// How full the table is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) entries: u32,
    /// No more are made than so many (nf_conntrack_max).
    pub(super) max: u32,
    /// Packets that were dropped, mostly since they found no room, for as long as the network namespace exists.
    pub(super) refused: u64,
}

/// A socket to the table of connections of the network namespace in which it was opened.
pub(super) struct Conntrack {
    socket: TokioSocket,
    sequence: u32,
}

impl Conntrack {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Passes the attributes of each IPv4 connection of the part to `each`. It may get connections of other parts,
    /// since the kernel compares no ports of SCTP, and it may get one twice.
    pub(super) async fn list(&mut self, part: Part, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let message = (ConntrackMessageType::Get.into(), filter(part));
            if self.exchange(NLM_F_DUMP, message, &mut each).await? {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the table changed while it was read"))
    }

    /// Deletes the connection with these attributes. Returns false if it ended by itself.
    pub(super) async fn delete(&mut self, identity: Vec<DefaultNla>) -> io::Result<bool> {
        let message = (ConntrackMessageType::Delete.into(), identity);
        match self.exchange(NLM_F_ACK, message, |_| {}).await {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How full the table is. Unlike the entries, `max` is that of all network namespaces.
    pub(super) async fn fill(&mut self) -> io::Result<Fill> {
        let mut fill = Fill::default();
        let number =
            |value: &[u8]| value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        self.exchange(NLM_F_ACK, (GET_STATS, Vec::new()), |attributes| {
            for attribute in NlasIterator::new(attributes).flatten() {
                match attribute.kind() {
                    CTA_STATS_GLOBAL_ENTRIES => fill.entries = number(attribute.value()),
                    CTA_STATS_GLOBAL_MAX_ENTRIES => fill.max = number(attribute.value()),
                    _ => {}
                }
            }
        })
        .await?;
        self.exchange(NLM_F_DUMP, (GET_STATS_OF_CPUS, Vec::new()), |attributes| {
            for attribute in NlasIterator::new(attributes).flatten() {
                if attribute.kind() == CTA_STATS_DROP {
                    fill.refused += u64::from(number(attribute.value()));
                }
            }
        })
        .await?;
        Ok(fill)
    }

    /// Sends a request and passes each answer to `each`, until the kernel says that there are no more. Returns false if
    /// there should be more.
    async fn exchange(
        &mut self,
        flags: u16,
        (message_type, attributes): (u8, Vec<DefaultNla>),
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        // In the crate's general form, because its form of these requests has no filter.
        let message = ConntrackMessage::Other { message_type, attributes };
        let family = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let payload = NetlinkPayload::from(NetfilterMessage::new(family, message));
        let mut request = NetlinkMessage::new(header, payload);
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0)).await?;

        let mut is_complete = true;
        loop {
            let (datagram, _) = self.socket.recv_from_full().await?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
                })?;
                // Messages are aligned to four bytes.
                let length = (message.length() as usize).next_multiple_of(4);
                rest = rest.get(length.max(1)..).unwrap_or_default();
                if message.sequence_number() != self.sequence {
                    continue;
                }
                is_complete &= message.flags() & NLM_F_DUMP_INTR == 0;
                let payload = message.payload();
                match message.message_type() {
                    NLMSG_DONE | NLMSG_ERROR => {
                        let code =
                            payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        if code < 0 {
                            return Err(io::Error::from_raw_os_error(-code));
                        }
                        return Ok(is_complete);
                    }
                    _ => each(payload.get(FAMILY_HEADER..).unwrap_or_default()),
                }
            }
        }
    }
}

/// The attributes by which the kernel leaves out what is not of the part.
fn filter(part: Part) -> Vec<DefaultNla> {
    let source = |address| Tuple::Ip(vec![IPTuple::SourceAddress(IpAddr::V4(address))]);
    let (tuple, parts, flags_of, flags) = match part {
        Part::All => return Vec::new(),
        Part::From(address) => {
            (CTA_TUPLE_ORIG, vec![source(address)], CTA_FILTER_ORIG_FLAGS, BY_SOURCE)
        }
        Part::AnsweredBy(address) => {
            (CTA_TUPLE_REPLY, vec![source(address)], CTA_FILTER_REPLY_FLAGS, BY_SOURCE)
        }
        Part::To((transport, host, port)) => {
            let protocol = ProtoTuple::Protocol(protocol_number(transport).into());
            let port = ProtoTuple::DestinationPort(port.get());
            let mut parts = vec![Tuple::Proto(vec![protocol, port])];
            let mut flags = BY_PROTOCOL | BY_DESTINATION_PORT;
            if !host.is_unspecified() {
                parts.push(Tuple::Ip(vec![IPTuple::DestinationAddress(IpAddr::V4(host))]));
                flags |= BY_DESTINATION;
            }
            (CTA_TUPLE_ORIG, parts, CTA_FILTER_ORIG_FLAGS, flags)
        }
    };
    let flags = DefaultNla::new(flags_of, flags.to_ne_bytes().into());
    vec![nested(tuple, &parts.as_slice()), nested(CTA_FILTER, &flags)]
}

fn nested(kind: u16, inner: &impl Emitable) -> DefaultNla {
    let mut bytes = vec![0; inner.buffer_len()];
    inner.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}
