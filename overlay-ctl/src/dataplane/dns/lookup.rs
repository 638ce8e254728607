//! Decides what is answered to a question. Pure.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::Query,
    rr::{DNSClass, Name, RecordType},
};

use crate::{
    dataplane::kernel::{Names, NetworkNames},
    model::{NetworkId, Subnet},
};

/// The decision about a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    /// The question is about an endpoint, and there is an answer.
    Answer(Answer<'a>),
    /// The name is an endpoint's or a network's but has no record of that type.
    NoData(Zone),
    /// The name does not exist, and no other resolver is asked.
    NxDomain(Zone),
    /// The name is not an endpoint's: the host's resolvers are asked.
    Forward,
    /// The resolver does not serve this kind of question.
    Unsupported,
}

/// The zone that a name is denied in: the last labels of the name, so many. An answer without records names it by its
/// SOA record (RFC 2308, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Zone(pub(super) usize);

impl Zone {
    /// The zone that holds the top-level domains.
    const ROOT: Self = Self(0);

    /// A zone that begins at the name itself.
    fn at(name: &Name) -> Self {
        Self(name.iter().len())
    }

    /// The zone of the reverse names of a subnet: that of the whole octets of its prefix.
    fn reverse(subnet: &Subnet) -> Self {
        Self(REVERSE_LABELS + usize::from(subnet.net().prefix_len() / 8))
    }
}

/// The records about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// The addresses of the endpoints that have the name. Never empty.
    Addresses(&'a [Ipv4Addr]),
    /// The name of an address: the endpoint's name and its network's.
    Pointer { endpoint: &'a str, network: &'a str },
    /// The SOA record of a network's name.
    Authority(Zone),
}

/// Octets of the longest name as text: 255 on the wire, minus the first length octet and the root label
/// (RFC 1035, section 2.3.4).
const TEXT_MAX: usize = 253;
/// Labels of `in-addr.arpa`.
const REVERSE_LABELS: usize = 2;

/// Decides about a question from a namespace on `networks`. A name without a network's name is that of the
/// first network that has it. All names below the name of one of `networks` are the overlay's: the one that no endpoint
/// has does not exist, because a name that an endpoint had a moment ago must not lead to a stranger on the Internet.
pub(super) fn decide<'a>(names: &'a Names, networks: &[NetworkId], query: &Query) -> Decision<'a> {
    // The class CHAOS asks about the server itself, and the class ANY is obsolete: a relayed answer would
    // describe another server. A zone transfer is a stream of messages, which is not relayed.
    if query.query_class != DNSClass::IN
        || matches!(query.query_type, RecordType::AXFR | RecordType::IXFR)
    {
        return Decision::Unsupported;
    }
    let own = || networks.iter().filter_map(|id| names.networks.get(id));
    let mut buffer = [0; TEXT_MAX];
    // No endpoint's name contains another octet, or a dot inside a label.
    let text = lower_text(&query.name, &mut buffer);
    if let Some(address) = text.and_then(reverse_address) {
        return pointer(own(), address, query.query_type);
    }
    let zone = own().filter_map(|network| zone_of(network, &query.name)).max_by_key(|zone| zone.0);
    match text.and_then(|text| addresses(own, text)) {
        None => not_an_endpoint(query, zone),
        Some([_, ..]) if !matches!(query.query_type, RecordType::A | RecordType::ANY) => {
            Decision::NoData(zone.unwrap_or(Zone::at(&query.name)))
        }
        Some([]) => Decision::NoData(zone.unwrap_or(Zone::at(&query.name))),
        Some(addresses) => Decision::Answer(Answer::Addresses(addresses)),
    }
}

/// Decides about a name that no endpoint has, in the `zone` of an own network's name, if it is in one.
fn not_an_endpoint(query: &Query, zone: Option<Zone>) -> Decision<'static> {
    match zone {
        Some(zone) if zone != Zone::at(&query.name) => Decision::NxDomain(zone),
        Some(zone) if matches!(query.query_type, RecordType::SOA | RecordType::ANY) => {
            Decision::Answer(Answer::Authority(zone))
        }
        // The name exists, since other names are below it (RFC 8020).
        Some(zone) => Decision::NoData(zone),
        None if query.name.iter().len() == 1 && is_about_a_host(query.query_type) => {
            Decision::NxDomain(Zone::ROOT)
        }
        None => Decision::Forward,
    }
}

/// Returns true for the types that a program asks for in order to reach a host. A single label of such a question can
/// only mean an endpoint and is never relayed: a program does not connect to top-level domains, and a mistyped
/// endpoint's name would leak. All other types are relayed, because a resolver inside the namespace asks for the
/// delegations and keys of top-level domains.
fn is_about_a_host(wanted: RecordType) -> bool {
    matches!(
        wanted,
        RecordType::A
            | RecordType::AAAA
            | RecordType::MX
            | RecordType::SRV
            | RecordType::HTTPS
            | RecordType::SVCB
            | RecordType::ANY
    )
}

/// The zone of a network's name, if the name of a question is in it. Names are compared by their labels, since the rest
/// of the name may have any octets.
fn zone_of(network: &NetworkNames, name: &Name) -> Option<Zone> {
    let mut labels = name.iter().rev();
    let mut count = 0;
    for label in network.name.as_str().rsplit('.') {
        if !labels.next()?.eq_ignore_ascii_case(label.as_bytes()) {
            return None;
        }
        count += 1;
    }
    Some(Zone(count))
}

/// The addresses of the endpoints with the name `text`. It is looked up as an endpoint's name first, then as
/// an endpoint's name followed by a network's name, the longest endpoint's name first, since both may contain
/// dots.
fn addresses<'a, I>(own: impl Fn() -> I, text: &str) -> Option<&'a [Ipv4Addr]>
where
    I: Iterator<Item = &'a NetworkNames>,
{
    if let Some(addresses) = own().find_map(|network| network.records.get(text)) {
        return Some(addresses);
    }
    text.rmatch_indices('.').find_map(|(dot, _)| {
        let (endpoint, network) = (&text[..dot], &text[dot + 1..]);
        // Names of two networks may differ in case only, which DNS ignores.
        own()
            .filter(|known| known.name.as_str().eq_ignore_ascii_case(network))
            .find_map(|known| known.records.get(endpoint))
            .map(Vec::as_slice)
    })
}

fn pointer<'a>(
    own: impl Iterator<Item = &'a NetworkNames>,
    address: Ipv4Addr,
    wanted: RecordType,
) -> Decision<'a> {
    let mut inside = None;
    for network in own {
        if let Some(endpoint) = network.pointers.get(&address) {
            return match wanted {
                RecordType::PTR | RecordType::ANY => {
                    Decision::Answer(Answer::Pointer { endpoint, network: network.name.as_str() })
                }
                _ => Decision::NoData(Zone::reverse(&network.subnet)),
            };
        }
        if network.subnet.net().contains(&address) {
            inside = Some(Zone::reverse(&network.subnet));
        }
    }
    inside.map_or(Decision::Forward, Decision::NxDomain)
}

/// The address whose reverse name is `text` (RFC 1035, section 3.5).
fn reverse_address(text: &str) -> Option<Ipv4Addr> {
    let reversed: Ipv4Addr = text.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = reversed.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

/// The name in lower case with dots between its labels; `None` if it has an octet that no endpoint's name
/// has.
fn lower_text<'b>(name: &Name, buffer: &'b mut [u8; TEXT_MAX]) -> Option<&'b str> {
    let mut end = 0;
    for label in name.iter() {
        if end > 0 {
            *buffer.get_mut(end)? = b'.';
            end += 1;
        }
        for octet in label {
            if !octet.is_ascii_alphanumeric() && !matches!(octet, b'-' | b'_') {
                return None;
            }
            *buffer.get_mut(end)? = octet.to_ascii_lowercase();
            end += 1;
        }
    }
    std::str::from_utf8(&buffer[..end]).ok()
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
