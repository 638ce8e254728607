//! Deletes UDP flows that the kernel would keep translating to a port's former target.
//!
//! NAT is decided by a flow's first packet. A UDP flow ends only by silence: a client that keeps sending
//! to a port would never reach the endpoint that the port leads to now, or would go on to reach the
//! address of an endpoint that is gone. TCP and SCTP have handshakes, and need none of this.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    time::Duration,
};

use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, ConntrackMessageType, IPTuple, ProtoTuple, Protocol,
        Tuple,
    },
};
use nix::{ifaddrs::getifaddrs, libc};
use rtnetlink::{
    packet_core::{
        DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, Nla as _,
    },
    sys::{
        AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket,
        protocols::NETLINK_NETFILTER,
    },
};

use super::GatewayError;

/// UDP ports of the host (0.0.0.0 = all addresses) and their new targets; `None` = the host itself.
pub(super) type NewTargets = BTreeMap<(Ipv4Addr, NonZeroU16), Option<(Ipv4Addr, NonZeroU16)>>;

const BOUND: Duration = Duration::from_secs(10);
const ACTION: &str = "delete UDP flows";
/// linux/netfilter/nfnetlink_conntrack.h; the crate does not name these.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const NLA_F_NESTED: u16 = libc::NLA_F_NESTED as u16;
/// net/netfilter/nf_internals.h: the flag of a filter by which the tuple's protocol is compared.
const FILTER_PROTOCOL: u32 = 1 << 3;

/// Deletes UDP flows to a port in `targets` that go elsewhere than to its new target. Returns their number.
pub(super) async fn delete_stale_flows(targets: &NewTargets) -> Result<usize, GatewayError> {
    let work = async {
        let local = local_addresses()?;
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        let mut stale = Vec::new();
        exchange(&socket, request(NLM_F_DUMP, all_udp()), |attributes| {
            if let Some(flow) = Flow::of(&attributes)
                && flow.is_stale(targets, &local)
            {
                let identity = attributes.into_iter().filter(is_identity);
                stale.push(identity.collect::<Vec<_>>());
            }
        })
        .await?;
        let mut count = 0;
        for identity in stale {
            let delete = request(NLM_F_ACK, ConntrackMessage::Delete(identity));
            match exchange(&socket, delete, |_| {}).await {
                Ok(()) => count += 1,
                // The flow ended by itself.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    };
    let outcome = tokio::time::timeout(BOUND, work).await;
    outcome
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| GatewayError::Socket { action: ACTION, source })
}

fn local_addresses() -> io::Result<BTreeSet<Ipv4Addr>> {
    let all = getifaddrs()?.filter_map(|interface| interface.address);
    Ok(all.filter_map(|address| address.as_sockaddr_in().map(|v4| v4.ip())).collect())
}

/// One end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    address: Ipv4Addr,
    port: u16,
}

/// A UDP flow: the destination of its first packet before NAT, and the source of the replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    destination: End,
    reply_source: End,
}

impl Flow {
    /// `None` for a flow that is not UDP over IPv4.
    fn of(attributes: &[ConntrackAttribute]) -> Option<Self> {
        let destination = attributes.iter().find_map(|attribute| match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => end(tuple, Side::Destination),
            _ => None,
        })?;
        let reply_source = attributes.iter().find_map(|attribute| match attribute {
            ConntrackAttribute::CtaTupleReply(tuple) => end(tuple, Side::Source),
            _ => None,
        })?;
        Some(Self { destination, reply_source })
    }

    fn is_stale(self, targets: &NewTargets, local: &BTreeSet<Ipv4Addr>) -> bool {
        // A flow to another host, as an endpoint's query to port 53 of a DNS server, does not concern the
        // same port of this host.
        let End { address, port } = self.destination;
        if !(address.is_loopback() || local.contains(&address)) {
            return false;
        }
        let Some(port) = NonZeroU16::new(port) else { return false };
        let target =
            targets.get(&(address, port)).or_else(|| targets.get(&(Ipv4Addr::UNSPECIFIED, port)));
        target.is_some_and(|target| {
            let target = target.map(|(address, port)| End { address, port: port.get() });
            self.reply_source != target.unwrap_or(self.destination)
        })
    }
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn end(tuple: &[Tuple], side: Side) -> Option<End> {
    let (mut address, mut port, mut udp) = (None, None, false);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match (part, side) {
                        (IPTuple::SourceAddress(IpAddr::V4(v4)), Side::Source)
                        | (IPTuple::DestinationAddress(IpAddr::V4(v4)), Side::Destination) => {
                            address = Some(*v4);
                        }
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match (part, side) {
                        (ProtoTuple::SourcePort(number), Side::Source)
                        | (ProtoTuple::DestinationPort(number), Side::Destination) => {
                            port = Some(*number);
                        }
                        (ProtoTuple::Protocol(Protocol::Udp), _) => udp = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    udp.then_some(End { address: address?, port: port? })
}

/// Returns true if the kernel needs the attribute to find the flow again.
fn is_identity(attribute: &ConntrackAttribute) -> bool {
    match attribute {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        ConntrackAttribute::Other(other) => other.kind() == CTA_ZONE,
        _ => false,
    }
}

/// A request for all UDP flows (from kernel 5.8 on; an older kernel sends all flows, and the caller looks
/// through them). It is written in the crate's general form, because the crate's form of this request
/// would lose the flag that marks the filter as nested.
fn all_udp() -> ConntrackMessage {
    let udp = Tuple::Proto(vec![ProtoTuple::Protocol(Protocol::Udp)]);
    let by_protocol = DefaultNla::new(CTA_FILTER_ORIG_FLAGS, FILTER_PROTOCOL.to_ne_bytes().into());
    ConntrackMessage::Other {
        message_type: ConntrackMessageType::Get.into(),
        attributes: vec![nested(CTA_TUPLE_ORIG, &udp), nested(CTA_FILTER, &by_protocol)],
    }
}

fn nested(kind: u16, inner: &impl Emitable) -> DefaultNla {
    let mut bytes = vec![0; inner.buffer_len()];
    inner.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

fn request(flags: u16, message: ConntrackMessage) -> NetlinkMessage<NetfilterMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let family = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    let mut message =
        NetlinkMessage::new(header, NetlinkPayload::from(NetfilterMessage::new(family, message)));
    message.finalize();
    message
}

/// Sends a request and passes each flow of the answer to `each`, until the kernel ends the answer.
async fn exchange(
    socket: &TokioSocket,
    request: NetlinkMessage<NetfilterMessage>,
    mut each: impl FnMut(Vec<ConntrackAttribute>),
) -> io::Result<()> {
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0)).await?;
    loop {
        let (datagram, _) = socket.recv_from_full().await?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages are aligned to four bytes.
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(1)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => {
                    if let NetfilterMessageInner::Conntrack(
                        ConntrackMessage::New(attributes) | ConntrackMessage::Get(attributes),
                    ) = message.inner
                    {
                        each(attributes);
                    }
                }
                _ => {}
            }
        }
    }
}
