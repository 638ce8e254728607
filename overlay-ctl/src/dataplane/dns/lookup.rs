//! Decides what is answered to a question. Pure.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::Query,
    rr::{DNSClass, Name, RecordType},
};

use crate::{
    dataplane::kernel::{Names, NetworkNames},
    model::NetworkId,
};

/// The decision about a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    /// The question is about an endpoint, and there is an answer.
    Answer(Answer<'a>),
    /// The name is an endpoint's but has no record of that type.
    NoData,
    /// The name does not exist, and no other resolver is asked.
    NxDomain,
    /// The name is not an endpoint's: the host's resolvers are asked.
    Forward,
    /// The resolver does not serve this kind of question.
    Refuse,
}

/// The records about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// The addresses of the endpoints that have the name. Never empty.
    Addresses(&'a [Ipv4Addr]),
    /// The name of an address: the endpoint's name and its network's.
    Pointer { endpoint: &'a str, network: &'a str },
}

/// Octets of the longest name as text: 255 on the wire, minus the first length octet and the root label
/// (RFC 1035, section 2.3.4).
const TEXT_MAX: usize = 253;

/// Decides about a question from a namespace on `networks`. A name without a network's name is that of the
/// first network that has it.
pub(super) fn decide<'a>(names: &'a Names, networks: &[NetworkId], query: &Query) -> Decision<'a> {
    // The class CHAOS asks about the server itself, and the class ANY is obsolete: a relayed answer would
    // describe another server. A zone transfer is a stream of messages, which is not relayed.
    if query.query_class != DNSClass::IN
        || matches!(query.query_type, RecordType::AXFR | RecordType::IXFR)
    {
        return Decision::Refuse;
    }
    let mut buffer = [0; TEXT_MAX];
    let Some(text) = lower_text(&query.name, &mut buffer) else {
        // No endpoint's name contains such an octet, or a dot inside a label.
        return not_an_endpoint(&query.name);
    };
    let own = || networks.iter().filter_map(|id| names.networks.get(id));
    if let Some(address) = reverse_address(text) {
        return pointer(own(), address, query.query_type);
    }
    match addresses(own, text) {
        None => not_an_endpoint(&query.name),
        Some(_) if !matches!(query.query_type, RecordType::A | RecordType::ANY) => Decision::NoData,
        Some([]) => Decision::NoData,
        Some(addresses) => Decision::Answer(Answer::Addresses(addresses)),
    }
}

/// Decides about a name that no endpoint has. A single label can only mean an endpoint and is never relayed:
/// a container does not ask for top-level domains, and a mistyped endpoint's name would leak.
fn not_an_endpoint(name: &Name) -> Decision<'static> {
    if name.num_labels() == 1 { Decision::NxDomain } else { Decision::Forward }
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
    let mut inside = false;
    for network in own {
        if let Some(endpoint) = network.pointers.get(&address) {
            return match wanted {
                RecordType::PTR | RecordType::ANY => {
                    Decision::Answer(Answer::Pointer { endpoint, network: network.name.as_str() })
                }
                _ => Decision::NoData,
            };
        }
        inside |= network.subnet.net().contains(&address);
    }
    if inside { Decision::NxDomain } else { Decision::Forward }
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
