//! From a question to what is said to it. Pure.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::Query,
    rr::{DNSClass, Name, RecordType},
};

use crate::{
    dataplane::kernel::{Names, NetworkNames},
    model::NetworkId,
};

/// What a question deserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    /// It is about one of ours, and there is an answer.
    Answer(Answer<'a>),
    /// The name is one of ours but has no record of that type.
    NoData,
    /// There is no such name, and nobody else is to be asked.
    NxDomain,
    /// Not ours: the host's resolvers know.
    Forward,
    /// Nothing that a resolver for endpoints does.
    Refuse,
}

/// Records of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// The holders of a name. Never empty.
    Addresses(&'a [Ipv4Addr]),
    /// The name of an address: the endpoint's and its network's.
    Pointer { endpoint: &'a str, network: &'a str },
}

/// Longest text of a name: 255 octets on the wire, less the first length octet and the root label
/// (RFC 1035, section 2.3.4).
const TEXT_MAX: usize = 253;

/// Decides for a namespace on `networks`; the first network that knows a bare name wins.
pub(super) fn decide<'a>(names: &'a Names, networks: &[NetworkId], query: &Query) -> Decision<'a> {
    // CHAOS asks who the server itself is, and ANY as a class is obsolete: to hand on either would
    // answer for somebody else. A zone transfer is a stream of messages, which is not relayed.
    if query.query_class != DNSClass::IN
        || matches!(query.query_type, RecordType::AXFR | RecordType::IXFR)
    {
        return Decision::Refuse;
    }
    let mut buffer = [0; TEXT_MAX];
    let Some(text) = lower_text(&query.name, &mut buffer) else {
        // No endpoint has such a name (an octet of it, or a dot inside a label, is none of ours).
        return elsewhere(&query.name);
    };
    let own = || networks.iter().filter_map(|id| names.networks.get(id));
    if let Some(address) = reverse_address(text) {
        return pointer(own(), address, query.query_type);
    }
    match addresses(own, text) {
        None => elsewhere(&query.name),
        Some(_) if !matches!(query.query_type, RecordType::A | RecordType::ANY) => Decision::NoData,
        Some([]) => Decision::NoData,
        Some(addresses) => Decision::Answer(Answer::Addresses(addresses)),
    }
}

/// A name that is none of ours. A single label means an endpoint here and is never sent out: what
/// stands above the root's children is not asked for by a container, and a mistyped name would leak.
fn elsewhere(name: &Name) -> Decision<'static> {
    if name.num_labels() == 1 { Decision::NxDomain } else { Decision::Forward }
}

/// The holders of `text`: first as an endpoint's bare name, then as ever shorter endpoint names
/// followed by a network's name, since both may contain dots.
fn addresses<'a, I>(own: impl Fn() -> I, text: &str) -> Option<&'a [Ipv4Addr]>
where
    I: Iterator<Item = &'a NetworkNames>,
{
    if let Some(addresses) = own().find_map(|network| network.records.get(text)) {
        return Some(addresses);
    }
    text.rmatch_indices('.').find_map(|(dot, _)| {
        let (endpoint, network) = (&text[..dot], &text[dot + 1..]);
        // Two networks may differ in case alone: for DNS they have one name.
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

/// The address that `text` is the reverse name of (RFC 1035, section 3.5).
fn reverse_address(text: &str) -> Option<Ipv4Addr> {
    let reversed: Ipv4Addr = text.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = reversed.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

/// The name in lower case with dots between its labels; `None` where it has an octet that no name of
/// ours has.
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
