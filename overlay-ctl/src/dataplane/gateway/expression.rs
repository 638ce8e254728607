//! The expressions and statements that rules are made of, in nft's JSON.

use std::{borrow::Cow, net::Ipv4Addr};

use nftables::{
    expr::{
        CT, Expression, Map as Lookup, Meta, MetaKey, NamedExpression, Payload, PayloadField,
        Prefix, Range, SetItem,
    },
    stmt::{AnonymousCounter, Counter, Match, NAT, Operator, Statement},
};

pub(super) fn dnat(
    key: Vec<Expression<'static>>,
    to_address: &str,
    to_port: &str,
) -> Statement<'static> {
    let lookup = |map: &str| {
        let key = named(NamedExpression::Concat(key.clone()));
        named(NamedExpression::Map(Box::new(Lookup { key, data: text(format!("@{map}")) })))
    };
    Statement::DNAT(Some(NAT {
        addr: Some(lookup(to_address)),
        family: None,
        port: Some(lookup(to_port)),
        flags: None,
    }))
}

/// By one of these ports, where the protocol has ports.
pub(super) fn masquerade_to(ports: Expression<'static>) -> Statement<'static> {
    Statement::Masquerade(Some(NAT { addr: None, family: None, port: Some(ports), flags: None }))
}

/// Returns true if the kernel tracks the connections of the whole host for this statement, from the moment it is written.
pub(super) fn needs_tracking(statement: &Statement<'_>) -> bool {
    match statement {
        Statement::Masquerade(_) | Statement::DNAT(_) => true,
        Statement::Match(Match { left, .. }) => {
            matches!(left, Expression::Named(NamedExpression::CT(_)))
        }
        _ => false,
    }
}

pub(super) fn counter() -> Statement<'static> {
    let zero = AnonymousCounter { packets: Some(0), bytes: Some(0) };
    Statement::Counter(Counter::Anonymous(Some(zero)))
}

/// Matches if a bit field of the packet's connection has one of these bits.
pub(super) fn has(key: &'static str, bits: Expression<'static>) -> Statement<'static> {
    let key = NamedExpression::CT(CT { key: key.into(), family: None, dir: None });
    compare(named(key), Operator::IN, bits)
}

pub(super) fn equal(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    compare(left, Operator::EQ, right)
}

pub(super) fn compare(
    left: Expression<'static>,
    op: Operator,
    right: Expression<'static>,
) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

pub(super) fn either(names: &[&str]) -> Expression<'static> {
    let items = names.iter().map(|name| SetItem::Element(text((*name).to_owned())));
    named(NamedExpression::Set(items.collect()))
}

pub(super) fn ip(field: &'static str) -> Expression<'static> {
    field_of("ip", field)
}

/// The destination port, which TCP, UDP and SCTP have at the same offset.
pub(super) fn destination_port() -> Expression<'static> {
    field_of("th", "dport")
}

/// Matches what goes to a port.
pub(super) fn to_port(protocol: &'static str, port: u16) -> Statement<'static> {
    equal(field_of(protocol, "dport"), number(port))
}

pub(super) fn field_of(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    named(NamedExpression::Payload(Payload::PayloadField(field)))
}

pub(super) fn meta(key: MetaKey) -> Expression<'static> {
    named(NamedExpression::Meta(Meta { key }))
}

/// Two properties of a packet, looked up together.
pub(super) fn both(first: MetaKey, second: MetaKey) -> Expression<'static> {
    named(NamedExpression::Concat(vec![meta(first), meta(second)]))
}

/// The set with this name.
pub(super) fn in_set(name: &str) -> Expression<'static> {
    text(format!("@{name}"))
}

pub(super) fn prefix(address: Ipv4Addr, length: u8) -> Expression<'static> {
    let prefix = Prefix { addr: Box::new(text(address.to_string())), len: length.into() };
    named(NamedExpression::Prefix(prefix))
}

/// From the first to the last.
pub(super) fn range(first: u16, last: u16) -> Expression<'static> {
    let ends = [number(first), number(last)];
    Expression::Range(Box::new(Range { range: ends }))
}

pub(super) fn named(expression: NamedExpression<'static>) -> Expression<'static> {
    Expression::Named(expression)
}

pub(super) fn text(text: impl Into<Cow<'static, str>>) -> Expression<'static> {
    Expression::String(text.into())
}

pub(super) fn number(number: impl Into<u32>) -> Expression<'static> {
    Expression::Number(number.into())
}
