//! Tests of the decision about a question.

use std::str::FromStr as _;

use super::*;
use crate::dataplane::kernel::NetworkNames;
use imbl::OrdMap;

const WEB2: Ipv4Addr = Ipv4Addr::new(172, 16, 16, 4);
const DB: Ipv4Addr = Ipv4Addr::new(172, 16, 16, 5);
const OTHER_WEB2: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 9);

fn network(
    name: &str,
    subnet: &str,
    records: &[(&str, &[Ipv4Addr])],
    pointers: &[(Ipv4Addr, &str)],
) -> NetworkNames {
    NetworkNames {
        name: name.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        records: records.iter().map(|(name, to)| ((*name).to_owned(), to.to_vec())).collect(),
        pointers: pointers.iter().map(|(of, name)| (*of, (*name).to_owned())).collect(),
    }
}

/// Network 1 is myoverlay, 2 is back.end, 3 is end. Network 3's endpoint `web2.back` has the same full name
/// as network 2's `web2`.
fn names() -> Names {
    let mine = network(
        "MyOverlay",
        "172.16.16.0/24",
        &[("web2", &[WEB2]), ("db", &[DB]), ("app", &[WEB2, DB]), ("a.b", &[DB])],
        &[(WEB2, "Web2"), (DB, "db")],
    );
    let back =
        network("back.end", "10.128.0.0/24", &[("web2", &[OTHER_WEB2])], &[(OTHER_WEB2, "web2")]);
    let end = network("end", "10.128.1.0/24", &[("web2.back", &[DB]), ("web9", &[DB])], &[]);
    let networks = [(1u64, mine), (2, back), (3, end)].into_iter().collect();
    Names { networks, namespaces: OrdMap::new() }
}

fn query(name: &str, wanted: RecordType) -> Query {
    Query::query(Name::from_str(name).unwrap(), wanted)
}

/// A single label that no endpoint has.
const NO_HOST: Decision<'_> = Decision::NxDomain(Zone::ROOT);

#[track_caller]
fn check(networks: &[NetworkId], name: &str, wanted: RecordType, expected: Decision<'_>) {
    let names = names();
    assert_eq!(decide(&names, networks, &query(name, wanted)), expected, "{name} {wanted}");
}

fn found(addresses: &[Ipv4Addr]) -> Decision<'_> {
    Decision::Answer(Answer::Addresses(addresses))
}

#[test]
fn an_endpoint_is_found_by_its_name_with_and_without_its_network() {
    for name in ["web2", "web2.", "WEB2", "web2.myoverlay", "web2.myoverlay.", "wEb2.MYOVERLAY"] {
        check(&[1], name, RecordType::A, found(&[WEB2]));
    }
    check(&[1], "app", RecordType::A, found(&[WEB2, DB]));
    check(&[1], "app.myoverlay", RecordType::ANY, found(&[WEB2, DB]));
}

#[test]
fn a_name_of_ours_has_no_other_records() {
    for wanted in
        [RecordType::AAAA, RecordType::MX, RecordType::TXT, RecordType::PTR, RecordType::SOA]
    {
        check(&[1], "web2", wanted, Decision::NoData(Zone(1)));
        check(&[1], "a.b", wanted, Decision::NoData(Zone(2)));
        check(&[1], "web2.myoverlay", wanted, Decision::NoData(Zone(1)));
        check(&[2], "web2.back.end", wanted, Decision::NoData(Zone(2)));
    }
}

#[test]
fn only_own_networks_are_seen() {
    check(&[2], "web2", RecordType::A, found(&[OTHER_WEB2]));
    check(&[2], "db", RecordType::A, NO_HOST);
    check(&[2], "web2.myoverlay", RecordType::A, Decision::Forward);
    check(&[], "web2", RecordType::A, NO_HOST);
    check(&[2], "4.16.16.172.in-addr.arpa", RecordType::PTR, Decision::Forward);
}

#[test]
fn the_first_network_wins_for_a_bare_name() {
    check(&[1, 2], "web2", RecordType::A, found(&[WEB2]));
    check(&[2, 1], "web2", RecordType::A, found(&[OTHER_WEB2]));
    check(&[2, 1], "web2.myoverlay", RecordType::A, found(&[WEB2]));
    check(&[2, 7], "web2", RecordType::A, found(&[OTHER_WEB2]));
}

#[test]
fn names_with_dots_match_the_longest_endpoint_name_first() {
    check(&[1], "a.b", RecordType::A, found(&[DB]));
    check(&[1], "a.b.myoverlay", RecordType::A, found(&[DB]));
    check(&[2], "web2.back.end", RecordType::A, found(&[OTHER_WEB2]));
    check(&[2, 3], "web2.back.end", RecordType::A, found(&[DB]));
    check(&[3], "web9.end", RecordType::A, found(&[DB]));
}

#[test]
fn what_is_not_ours_is_handed_on_unless_it_is_a_single_label_of_a_host() {
    let of_a_host = [
        RecordType::A,
        RecordType::AAAA,
        RecordType::MX,
        RecordType::SRV,
        RecordType::HTTPS,
        RecordType::SVCB,
        RecordType::ANY,
    ];
    for wanted in of_a_host {
        check(&[1], "nosuch", wanted, NO_HOST);
        check(&[1], "*", wanted, NO_HOST);
    }
    let others = [
        RecordType::DS,
        RecordType::DNSKEY,
        RecordType::NS,
        RecordType::SOA,
        RecordType::TXT,
        RecordType::CNAME,
        RecordType::NSEC,
        RecordType::TLSA,
        RecordType::Unknown(65280),
    ];
    for wanted in others {
        check(&[1], "nosuch", wanted, Decision::Forward);
    }
    for wanted in of_a_host.into_iter().chain(others) {
        check(&[1], "example.com", wanted, Decision::Forward);
        check(&[1], "*.com", wanted, Decision::Forward);
        check(&[1], ".", wanted, Decision::Forward);
    }
}

#[test]
fn names_below_an_own_networks_name_never_leave() {
    for wanted in [RecordType::A, RecordType::AAAA, RecordType::NS, RecordType::DS, RecordType::TXT]
    {
        check(&[1], "nosuch.myoverlay", wanted, Decision::NxDomain(Zone(1)));
        check(&[1], "x.web2.MYOVERLAY", wanted, Decision::NxDomain(Zone(1)));
        check(&[1], "*.myoverlay", wanted, Decision::NxDomain(Zone(1)));
        check(&[2], "nosuch.back.end", wanted, Decision::NxDomain(Zone(2)));
        // The zone is that of the longest name of a network.
        check(&[3], "nosuch.back.end", wanted, Decision::NxDomain(Zone(1)));
        check(&[2, 3], "nosuch.back.end", wanted, Decision::NxDomain(Zone(2)));
        check(&[3, 2], "nosuch.back.end", wanted, Decision::NxDomain(Zone(2)));
        // The network's name itself exists, and has no such record.
        check(&[1], "myoverlay", wanted, Decision::NoData(Zone(1)));
        check(&[2], "back.end", wanted, Decision::NoData(Zone(2)));
        check(&[2], "a.end", wanted, Decision::Forward);
        check(&[1], "nosuch.myoverlay.com", wanted, Decision::Forward);
        check(&[1], "nosuch.notmyoverlay", wanted, Decision::Forward);
    }
    check(&[1], "MyOverlay", RecordType::SOA, Decision::Answer(Answer::Authority(Zone(1))));
    check(&[2], "back.end", RecordType::ANY, Decision::Answer(Answer::Authority(Zone(2))));
}

#[test]
fn an_address_has_its_endpoints_name() {
    let web2 = Decision::Answer(Answer::Pointer { endpoint: "Web2", network: "MyOverlay" });
    check(&[1], "4.16.16.172.in-addr.arpa", RecordType::PTR, web2);
    check(&[2, 1], "4.16.16.172.IN-ADDR.ARPA.", RecordType::PTR, web2);
    check(&[1], "4.16.16.172.in-addr.arpa", RecordType::A, Decision::NoData(Zone(5)));
    let none = Decision::NxDomain(Zone(5));
    check(&[1], "77.16.16.172.in-addr.arpa", RecordType::PTR, none);
    check(&[1], "77.16.16.172.in-addr.arpa", RecordType::A, none);
    for elsewhere in ["8.8.8.8.in-addr.arpa", "16.172.in-addr.arpa", "x.16.16.172.in-addr.arpa"] {
        check(&[1], elsewhere, RecordType::PTR, Decision::Forward);
    }
}

#[test]
fn what_no_resolver_for_endpoints_does_is_refused() {
    let names = names();
    let mut chaos = query("version.bind", RecordType::TXT);
    chaos.query_class = DNSClass::CH;
    assert_eq!(decide(&names, &[1], &chaos), Decision::Unsupported);
    check(&[1], "example.com", RecordType::AXFR, Decision::Unsupported);
    check(&[1], "web2", RecordType::IXFR, Decision::Unsupported);
}

#[test]
fn odd_octets_never_match() {
    let names = names();
    let dot_inside = Name::from_labels([b"web2.myoverlay".as_slice()]).unwrap();
    let query = Query::query(dot_inside, RecordType::A);
    assert_eq!(decide(&names, &[1], &query), NO_HOST);
    let binary = Name::from_labels([b"\xff\0".as_slice(), b"myoverlay"]).unwrap();
    let query = Query::query(binary, RecordType::A);
    assert_eq!(decide(&names, &[1], &query), Decision::NxDomain(Zone(1)));
    assert_eq!(decide(&names, &[2], &query), Decision::Forward);
    let longest =
        Name::from_labels([[b'x'; 63]; 3].iter().map(|label| &label[..]).chain([&[b'y'; 61][..]]));
    let query = Query::query(longest.unwrap(), RecordType::A);
    assert_eq!(decide(&names, &[1], &query), Decision::Forward);
}
