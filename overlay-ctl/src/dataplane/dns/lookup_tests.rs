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
        check(&[1], "web2", wanted, Decision::NoData);
        check(&[1], "web2.myoverlay", wanted, Decision::NoData);
    }
}

#[test]
fn only_own_networks_are_seen() {
    check(&[2], "web2", RecordType::A, found(&[OTHER_WEB2]));
    check(&[2], "db", RecordType::A, Decision::NxDomain);
    check(&[2], "web2.myoverlay", RecordType::A, Decision::Forward);
    check(&[], "web2", RecordType::A, Decision::NxDomain);
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
fn what_is_not_ours_is_handed_on_unless_it_is_a_single_label() {
    for wanted in [RecordType::A, RecordType::AAAA, RecordType::MX, RecordType::NS] {
        check(&[1], "nosuch", wanted, Decision::NxDomain);
        check(&[1], "myoverlay", wanted, Decision::NxDomain);
        check(&[1], "example.com", wanted, Decision::Forward);
        check(&[1], "nosuch.myoverlay", wanted, Decision::Forward);
        check(&[1], ".", wanted, Decision::Forward);
    }
}

#[test]
fn an_address_has_its_endpoints_name() {
    let web2 = Decision::Answer(Answer::Pointer { endpoint: "Web2", network: "MyOverlay" });
    check(&[1], "4.16.16.172.in-addr.arpa", RecordType::PTR, web2);
    check(&[2, 1], "4.16.16.172.IN-ADDR.ARPA.", RecordType::PTR, web2);
    check(&[1], "4.16.16.172.in-addr.arpa", RecordType::A, Decision::NoData);
    check(&[1], "77.16.16.172.in-addr.arpa", RecordType::PTR, Decision::NxDomain);
    check(&[1], "77.16.16.172.in-addr.arpa", RecordType::A, Decision::NxDomain);
    for elsewhere in ["8.8.8.8.in-addr.arpa", "16.172.in-addr.arpa", "x.16.16.172.in-addr.arpa"] {
        check(&[1], elsewhere, RecordType::PTR, Decision::Forward);
    }
}

#[test]
fn what_no_resolver_for_endpoints_does_is_refused() {
    let names = names();
    let mut chaos = query("version.bind", RecordType::TXT);
    chaos.query_class = DNSClass::CH;
    assert_eq!(decide(&names, &[1], &chaos), Decision::Refuse);
    check(&[1], "example.com", RecordType::AXFR, Decision::Refuse);
    check(&[1], "web2", RecordType::IXFR, Decision::Refuse);
}

#[test]
fn odd_octets_never_match() {
    let names = names();
    let dot_inside = Name::from_labels([b"web2.myoverlay".as_slice()]).unwrap();
    let query = Query::query(dot_inside, RecordType::A);
    assert_eq!(decide(&names, &[1], &query), Decision::NxDomain);
    let binary = Name::from_labels([b"\xff\0".as_slice(), b"myoverlay"]).unwrap();
    let query = Query::query(binary, RecordType::A);
    assert_eq!(decide(&names, &[1], &query), Decision::Forward);
    let longest =
        Name::from_labels([[b'x'; 63]; 3].iter().map(|label| &label[..]).chain([&[b'y'; 61][..]]));
    let query = Query::query(longest.unwrap(), RecordType::A);
    assert_eq!(decide(&names, &[1], &query), Decision::Forward);
}
