//! Tests of the messages on the wire.

use std::net::Ipv4Addr;

use hickory_proto::rr::RecordType;
use proptest::prelude::*;

use super::*;

fn question(name: Name) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name, RecordType::A));
    message
}

/// A question as a client may write it, with some octets changed.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let labels = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..64), 0..4);
    let edns = prop::option::of(any::<u16>());
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (labels, edns, changes).prop_map(|(labels, payload, changes)| {
        let mut message = question(Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap());
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        let mut bytes = message.to_vec().unwrap();
        for (index, octet) in changes {
            let place = index.index(bytes.len());
            bytes[place] = octet;
        }
        bytes
    })
}

proptest! {
    /// A client gets a message within its limit or no message, whatever it sends.
    #[test]
    fn every_reply_is_a_message_that_fits(
        bytes in prop_oneof![mangled(), prop::collection::vec(any::<u8>(), 0..80)],
        holders in 0_usize..300,
        rotation in any::<usize>(),
    ) {
        let holders = vec![Ipv4Addr::new(10, 0, 0, 1); holders];
        let decisions = [
            Decision::Answer(Answer::Addresses(&holders)),
            Decision::Answer(Answer::Pointer { endpoint: "a..b", network: "n" }),
            Decision::Answer(Answer::Pointer { endpoint: "web.2", network: "my.net" }),
            Decision::NxDomain(Zone(0)),
            Decision::NoData(Zone(1)),
            Decision::Unsupported,
        ];
        let mut reply = Vec::new();
        match Request::parse(&bytes) {
            Ok(request) => {
                for (decision, transport) in decisions.iter().flat_map(|decision| {
                    [Transport::Udp, Transport::Tcp].map(|transport| (*decision, transport))
                }) {
                    request.answer(decision, rotation, transport, &mut reply);
                    prop_assert!(reply.len() <= usize::from(request.limit(transport)));
                    let answer = Message::from_vec(&reply).unwrap();
                    prop_assert_eq!(answer.metadata.id, request.id());
                    prop_assert_eq!(&answer.queries[..], std::slice::from_ref(&request.query));
                    prop_assert_eq!(answer.edns.is_some(), request.edns.is_some());
                }
            }
            Err(Unfit::Reply(header, code)) => {
                header_only(&header, code, &mut reply);
                prop_assert_eq!(Message::from_vec(&reply).unwrap().metadata.id, header.id);
            }
            Err(Unfit::Ignore) => {}
        }
    }

    /// Only a message that answers the question counts as its answer.
    #[test]
    fn strange_answers_are_foreign(bytes in mangled(), id in any::<u16>()) {
        let query = Query::query(Name::from_ascii("www.example.").unwrap(), RecordType::A);
        prop_assert_eq!(judge(&bytes, id, &query), Verdict::Foreign);
    }
}

#[test]
fn what_does_not_exist_has_the_soa_record_of_its_zone() {
    let longest = [[b'x'; 63]; 3].iter().map(|label| label.to_vec()).chain([vec![b'y'; 61]]);
    let names = [Name::from_ascii("a.b.MyOverlay.").unwrap(), Name::from_labels(longest).unwrap()];
    for (name, edns) in names.iter().flat_map(|name| [(name, false), (name, true)]) {
        let mut message = question(name.clone());
        if edns {
            message.set_edns(Edns::new());
        }
        let request = Request::parse(&message.to_vec().unwrap()).unwrap();
        let mut reply = Vec::new();
        let zones =
            [(0, ResponseCode::NXDomain), (1, ResponseCode::NXDomain), (3, ResponseCode::NoError)];
        for (labels, code) in zones {
            let zone = Zone(labels);
            let decision = match code {
                ResponseCode::NoError => Decision::NoData(zone),
                _ => Decision::NxDomain(zone),
            };
            request.answer(decision, 0, Transport::Udp, &mut reply);
            let answer = Message::from_vec(&reply).unwrap();
            assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0));
            assert!(answer.metadata.authoritative && !answer.metadata.truncation);
            assert_eq!(answer.edns.is_some(), edns);
            let soa = &answer.authorities[0];
            assert!(soa.name.zone_of(name) && soa.name.iter().len() == labels, "{}", soa.name);
            assert_eq!((soa.record_type(), soa.ttl), (RecordType::SOA, NEGATIVE_TTL));
        }
    }
}

#[test]
fn a_question_that_stays_inside_hears_that_there_is_no_recursion() {
    let message = question(Name::from_ascii("www.example.").unwrap());
    let request = Request::parse(&message.to_vec().unwrap()).unwrap();
    let mut reply = Vec::new();
    request.stays_inside(Transport::Udp, &mut reply);
    let answer = Message::from_vec(&reply).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert!(!answer.metadata.recursion_available && !answer.metadata.authoritative);
    assert_eq!(answer.queries, message.queries);
}

#[test]
fn an_answer_too_long_is_cut_to_its_question() {
    let mut message = question(Name::from_ascii("www.example.").unwrap());
    message.set_edns(Edns::new());
    let request = Request::parse(&message.to_vec().unwrap()).unwrap();
    let mut theirs = message.clone().into_response();
    theirs.metadata.response_code = ResponseCode::NXDomain;
    theirs.metadata.id = 7;
    let mut reply = Vec::new();
    request.truncated(&theirs.to_vec().unwrap(), &mut reply);
    let answer = Message::from_vec(&reply).unwrap();
    assert!(answer.metadata.truncation && answer.edns.is_some());
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.queries, message.queries);
}

#[test]
fn a_server_that_cannot_read_a_question_need_not_repeat_it() {
    let query = Query::query(Name::from_ascii("www.example.").unwrap(), RecordType::A);
    let bare = |code| Message::error_msg(7, OpCode::Query, code).to_vec().unwrap();
    assert_eq!(judge(&bare(ResponseCode::NotImp), 7, &query), Verdict::Failure);
    assert_eq!(judge(&bare(ResponseCode::FormErr), 7, &query), Verdict::Answer);
    assert_eq!(judge(&bare(ResponseCode::NoError), 7, &query), Verdict::Foreign);
    assert_eq!(judge(&bare(ResponseCode::FormErr), 8, &query), Verdict::Foreign);
}
