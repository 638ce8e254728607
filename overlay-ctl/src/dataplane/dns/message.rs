//! Reads questions and writes answers in the wire format (RFC 1035; EDNS: RFC 6891).

use hickory_proto::{
    ProtoError,
    op::{
        Edns, EmitAndCount, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
        emit_message_parts,
    },
    rr::{
        Name, RData, Record,
        rdata::{A, PTR, SOA},
    },
    serialize::binary::{BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder},
};

use super::lookup::{Answer, Decision, Zone};

/// Bytes of the longest answer that every client accepts by UDP (RFC 1035, section 2.3.4).
const UDP_MIN: u16 = 512;
/// Bytes of the longest UDP datagram over IPv4. The loopback device does not fragment it.
const UDP_MAX: u16 = 65_507;
/// Bytes of the longest question that is read from UDP; the OPT record of an answer tells it to the client
/// (RFC 6891, section 6.2.5).
pub(super) const UDP_QUERY_MAX: u16 = 4096;
/// Bytes of an OPT record without options.
const OPT_LEN: u16 = 11;

/// Seconds that a client may cache an answer about an endpoint. An endpoint may be removed or move at any
/// moment, and asking again over loopback costs little. 5 s, as in cluster DNS, spare a client that looks
/// up a name for each of its connections, and are short enough that a change seems immediate.
const TTL: u32 = 5;
/// Seconds that a client may cache that a name or a record does not exist: none, since a name must resolve as soon as
/// its endpoint is created.
const NEGATIVE_TTL: u32 = 0;
/// The primary server and the mailbox in the SOA records: there are none, as in other resolvers' own zones.
const NO_SERVER: &[&[u8]] = &[b"localhost"];
const NO_MAILBOX: &[&[u8]] = &[b"nobody", b"invalid"];
/// The times of a zone transfer, in seconds. There is no other server that could ask for one.
const REFRESH: i32 = 3600;
const RETRY: i32 = 1200;
const EXPIRE: i32 = 604_800;

/// The transport of a client's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A question that can be answered.
#[derive(Debug)]
pub(super) struct Request {
    metadata: Metadata,
    pub(super) query: Query,
    edns: Option<Edns>,
}

/// A message that is not a question that can be answered.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The message gets no answer: it is an answer itself (two servers would send answers to each other for
    /// ever), or it is not DNS.
    Ignore,
    /// The message is answered with an error.
    Reply(Metadata, ResponseCode),
}

impl Request {
    pub(super) fn parse(message: &[u8]) -> Result<Self, Unfit> {
        let mut decoder = BinDecoder::new(message);
        let Ok(Header { metadata, counts }) = Header::read(&mut decoder) else {
            return Err(Unfit::Ignore);
        };
        if metadata.message_type == MessageType::Response {
            return Err(Unfit::Ignore);
        }
        if metadata.op_code != OpCode::Query {
            return Err(Unfit::Reply(metadata, ResponseCode::NotImp));
        }
        let malformed = |_| Unfit::Reply(metadata, ResponseCode::FormErr);
        // A message has exactly one question (RFC 9619).
        if counts.queries != 1 {
            return Err(Unfit::Reply(metadata, ResponseCode::FormErr));
        }
        let query = Query::read(&mut decoder).map_err(malformed)?;
        let mut edns = None;
        for (count, last) in
            [(counts.answers, false), (counts.authorities, false), (counts.additionals, true)]
        {
            (_, edns, _) =
                Message::read_records(&mut decoder, count.into(), last, metadata.op_code)
                    .map_err(malformed)?;
        }
        Ok(Self { metadata, query, edns })
    }

    /// The id that the answer must carry.
    pub(super) fn id(&self) -> u16 {
        self.metadata.id
    }

    /// Bytes of the longest answer that the client accepts.
    pub(super) fn limit(&self, transport: Transport) -> u16 {
        match (transport, &self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_MIN, UDP_MAX),
            (Transport::Udp, None) => UDP_MIN,
        }
    }

    /// Returns true if the EDNS version is not 0, the only one that exists (RFC 6891, section 6.1.3).
    pub(super) fn bad_version(&self) -> bool {
        self.edns.as_ref().is_some_and(|edns| edns.version() != 0)
    }

    /// Writes the answer to `decision`, with the list of addresses rotated by `rotation` places.
    pub(super) fn answer(
        &self,
        decision: Decision<'_>,
        rotation: usize,
        transport: Transport,
        reply: &mut Vec<u8>,
    ) {
        let code = match decision {
            Decision::Answer(_) | Decision::NoData(_) => ResponseCode::NoError,
            Decision::NxDomain(_) => ResponseCode::NXDomain,
            Decision::Unsupported => ResponseCode::Refused,
            Decision::Forward => ResponseCode::ServFail,
        };
        let name = &self.query.name;
        let sections = match decision {
            Decision::Answer(answer) => records(name, answer, rotation)
                .map(|answers| Sections { answers, ..Sections::default() }),
            Decision::NoData(zone) | Decision::NxDomain(zone) => authority(name, zone)
                .map(|soa| Sections { authorities: vec![soa], ..Sections::default() }),
            Decision::Unsupported | Decision::Forward => Ok(Sections::default()),
        };
        let (code, sections) = sections.map_or_else(
            |error| {
                tracing::debug!(query = %self.query, %error, "an endpoint's name is not valid in DNS");
                (ResponseCode::ServFail, Sections::default())
            },
            |sections| (code, sections),
        );
        self.reply(self.metadata(code), &sections, transport, reply);
    }

    /// Writes an answer without records.
    pub(super) fn error(&self, code: ResponseCode, transport: Transport, reply: &mut Vec<u8>) {
        self.reply(self.metadata(code), &Sections::default(), transport, reply);
    }

    /// Writes the answer to a question that would have to leave a namespace without a way out: no recursion is
    /// available there.
    pub(super) fn stays_inside(&self, transport: Transport, reply: &mut Vec<u8>) {
        let mut metadata = self.metadata(ResponseCode::Refused);
        metadata.recursion_available = false;
        self.reply(metadata, &Sections::default(), transport, reply);
    }

    fn metadata(&self, code: ResponseCode) -> Metadata {
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.response_code = code;
        metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        metadata.recursion_available = true;
        metadata
    }

    /// Writes a truncated answer in place of another server's `answer`, which is too long for this client's
    /// datagrams: the client then asks again by TCP.
    pub(super) fn truncated(&self, answer: &[u8], reply: &mut Vec<u8>) {
        let mut metadata = Header::read(&mut BinDecoder::new(answer))
            .map_or(Metadata::response_from_request(&self.metadata), |header| header.metadata);
        metadata.id = self.metadata.id;
        metadata.truncation = true;
        self.reply(metadata, &Sections::default(), Transport::Udp, reply);
    }

    fn reply(
        &self,
        metadata: Metadata,
        sections: &Sections,
        transport: Transport,
        reply: &mut Vec<u8>,
    ) {
        let edns = self.edns.as_ref().map(|theirs| {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_QUERY_MAX);
            edns.set_dnssec_ok(theirs.flags().dnssec_ok);
            edns
        });
        let limit = self.limit(transport);
        reply.clear();
        let mut encoder = BinEncoder::new(reply);
        encoder.set_max_size(limit);
        let reserve = edns.as_ref().map_or(0, |_| OPT_LEN);
        let mut answers = Answers { records: &sections.answers, limit, reserve };
        let outcome = emit_message_parts(
            &metadata,
            &mut std::iter::once(&self.query),
            &mut answers,
            // Beside a question alone, one SOA record always fits.
            &mut sections.authorities.iter(),
            &mut std::iter::empty::<&Record>(),
            edns.as_ref(),
            None,
            &mut encoder,
        );
        if let Err(error) = outcome {
            tracing::debug!(query = %self.query, %error, "an answer could not be written");
            header_only(&self.metadata, ResponseCode::ServFail, reply);
        }
    }
}

/// The records of an answer.
#[derive(Default)]
struct Sections {
    answers: Vec<Record>,
    authorities: Vec<Record>,
}

/// The answer records, which leave room for the OPT record after them: it must never be the record that is
/// cut off (RFC 6891, section 6.1.1).
struct Answers<'a> {
    records: &'a [Record],
    limit: u16,
    reserve: u16,
}

impl EmitAndCount for Answers<'_> {
    fn emit(&mut self, encoder: &mut BinEncoder<'_>) -> Result<usize, ProtoError> {
        encoder.set_max_size(self.limit - self.reserve);
        let written = encoder.emit_all(self.records.iter());
        encoder.set_max_size(self.limit);
        written
    }
}

fn records(name: &Name, answer: Answer<'_>, rotation: usize) -> Result<Vec<Record>, ProtoError> {
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    Ok(match answer {
        Answer::Addresses(addresses) => {
            let (behind, ahead) = addresses.split_at(rotation % addresses.len().max(1));
            ahead.iter().chain(behind).map(|address| record(RData::A(A(*address)))).collect()
        }
        Answer::Pointer { endpoint, network } => {
            let labels = endpoint.split('.').chain(network.split('.')).map(str::as_bytes);
            vec![record(RData::PTR(PTR(Name::from_labels(labels)?)))]
        }
        Answer::Authority(zone) => vec![authority(name, zone)?],
    })
}

/// The SOA record of the zone that `name` is in.
fn authority(name: &Name, Zone(labels): Zone) -> Result<Record, ProtoError> {
    let server = Name::from_labels(NO_SERVER.iter().copied())?;
    let mailbox = Name::from_labels(NO_MAILBOX.iter().copied())?;
    let soa = SOA::new(server, mailbox, 1, REFRESH, RETRY, EXPIRE, NEGATIVE_TTL);
    Ok(Record::from_rdata(name.trim_to(labels), NEGATIVE_TTL, RData::SOA(soa)))
}

/// Writes an answer that consists of a header only, as the answer to a message that could not be read.
pub(super) fn header_only(request: &Metadata, code: ResponseCode, reply: &mut Vec<u8>) {
    let mut metadata = Metadata::response_from_request(request);
    metadata.response_code = code;
    metadata.recursion_available = true;
    reply.clear();
    let mut encoder = BinEncoder::new(reply);
    let header = Header { metadata, counts: Default::default() };
    // Twelve bytes always fit. If they were not written, the client would get no answer and ask again.
    if let Err(error) = header.emit(&mut encoder) {
        tracing::debug!(%error, "an answer could not be written");
    }
}

/// Replaces the id of `message`, a whole DNS message.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
}

/// A random id, which a forger cannot guess.
pub(super) fn random_id() -> u16 {
    Message::query().metadata.id
}

/// A message that asks `query` of a recursive server; `None` if it cannot be written.
pub(super) fn write_question(query: &Query) -> Option<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    message.to_vec().ok()
}

/// The kind of a message from another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does not answer the question.
    Foreign,
    /// It says that this server cannot answer; another server might.
    Failure,
    /// It answers the question.
    Answer,
}

/// Tells if a message is the answer to `query`, which was sent with `id`.
pub(super) fn judge(message: &[u8], id: u16, query: &Query) -> Verdict {
    let mut decoder = BinDecoder::new(message);
    let Ok(Header { metadata, counts }) = Header::read(&mut decoder) else {
        return Verdict::Foreign;
    };
    if metadata.id != id || metadata.message_type != MessageType::Response {
        return Verdict::Foreign;
    }
    // A server that does not understand a question need not repeat it. All others must.
    let repeated = match counts.queries {
        1 => Query::read(&mut decoder).is_ok_and(|theirs| theirs == *query),
        0 => matches!(metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp),
        _ => false,
    };
    match metadata.response_code {
        _ if !repeated => Verdict::Foreign,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp => Verdict::Failure,
        _ => Verdict::Answer,
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
