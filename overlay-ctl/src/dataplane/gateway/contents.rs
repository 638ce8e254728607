//! The elements of the maps and sets of the table `ip overlay`: published ports, and opened devices.

use super::{
    expression::{named, number, text},
    rules::{
        BRIDGED, FAMILY, ON_ALL_TO_ADDRESS, ON_ALL_TO_PORT, ON_ONE_TO_ADDRESS, ON_ONE_TO_PORT,
        OPENED, Rules, TABLE,
    },
};
use crate::{
    dataplane::kernel::{HostPort, Target},
    model::Transport,
};
use nftables::{
    expr::{Elem, Expression, NamedExpression},
    schema::Element,
};
use nix::libc;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of the longest comment. The kernel takes 128 with the terminating zero
/// (`NFTNL_UDATA_COMMENT_MAXLEN`).
const COMMENT_MAX: usize = 127;

/// The elements of the maps and of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) published: BTreeMap<HostPort, Target>,
    /// Names of devices. The kernel holds their indices, so that an element follows a device that is renamed.
    pub(super) opened: BTreeSet<String>,
    /// As in [`Rules::bridged`].
    pub(super) bridged: BTreeSet<(String, String)>,
}

impl Contents {
    /// The elements for `rules`, in the form in which the kernel will return them.
    pub(super) fn of(rules: &Rules) -> Self {
        let published = rules.published.iter().map(|(port, target)| {
            (*port, Target { comment: printable(&target.comment), ..target.clone() })
        });
        Self {
            published: published.collect(),
            opened: rules.forwarding.clone(),
            bridged: rules.bridged.clone(),
        }
    }

    /// The elements to add for each map and for each set. One without elements is left out.
    pub(super) fn elements(&self) -> Vec<Element<'static>> {
        let published = |on_all: bool, value: fn(&Target) -> Expression<'static>| {
            let some = self
                .published
                .iter()
                .filter(move |((_, host, _), _)| host.is_unspecified() == on_all);
            some.map(|(port, target)| mapping(*port, &target.comment, value(target))).collect()
        };
        let address = |target: &Target| text(target.address.to_string());
        let port = |target: &Target| number(target.port.get());
        let opened = self.opened.iter().map(|device| text(device.clone())).collect();
        let bridged = self.bridged.iter().map(|(from, bridge)| {
            let pair = vec![text(from.clone()), text(bridge.clone())];
            named(NamedExpression::Concat(pair))
        });
        let bridged = bridged.collect();
        let all: [(&'static str, Vec<Expression<'static>>); 6] = [
            (ON_ONE_TO_ADDRESS, published(false, address)),
            (ON_ONE_TO_PORT, published(false, port)),
            (ON_ALL_TO_ADDRESS, published(true, address)),
            (ON_ALL_TO_PORT, published(true, port)),
            (OPENED, opened),
            (BRIDGED, bridged),
        ];
        let some = all.into_iter().filter(|(_, elements)| !elements.is_empty());
        some.map(|(name, elements)| Element {
            family: FAMILY,
            table: TABLE.into(),
            name: name.into(),
            elem: elements.into(),
        })
        .collect()
    }
}

/// Makes `comment` readable for nft, which prints comments between quotes and escapes nothing: a comment
/// with a quote in it could not be read again.
pub(super) fn printable(comment: &str) -> String {
    let clean = comment.chars().map(|c| if c == '"' || c.is_control() { '?' } else { c });
    let mut text = String::new();
    for c in clean {
        if text.len() + c.len_utf8() > COMMENT_MAX {
            break;
        }
        text.push(c);
    }
    text
}

/// The protocol's number at IANA. A name would need /etc/protocols, which a small machine may lack.
pub(super) fn protocol_number(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => libc::IPPROTO_TCP as u8,
        Transport::Udp => libc::IPPROTO_UDP as u8,
        Transport::Sctp => libc::IPPROTO_SCTP as u8,
    }
}

fn mapping(
    (transport, host, port): HostPort,
    comment: &str,
    value: Expression<'static>,
) -> Expression<'static> {
    let mut key = vec![number(protocol_number(transport)), number(port.get())];
    if !host.is_unspecified() {
        key.insert(0, text(host.to_string()));
    }
    let key = NamedExpression::Elem(Elem {
        val: Box::new(named(NamedExpression::Concat(key))),
        comment: Some(comment.to_owned().into()),
        ..Elem::default()
    });
    Expression::List(vec![named(key), value])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn a_comment_can_be_printed_and_read_again() {
        assert_eq!(printable("web1 80/tcp"), "web1 80/tcp");
        assert_eq!(printable("a\"b\nc"), "a?b?c");
        let long = printable(&"ä".repeat(100));
        assert_eq!(long, "ä".repeat(63), "cut between characters");
    }
}
