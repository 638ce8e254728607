//! What is remembered of requests, for how long, and in which form.

use super::{
    compact::{CARRIED_OUT_MAX, REFUSED_MAX},
    named::REMEMBERED,
    *,
};
use crate::model::{EndpointName, NetworkName, NodeName};

fn id(n: usize) -> RequestId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    id
}

fn digest_of(n: usize) -> Digest {
    Digest::from_u128(n as u128)
}

fn done(did: NamedDid) -> Done {
    Done { asked: None, did }
}

fn named_removal(n: usize) -> Done {
    done(NamedDid::RemoveNetwork(n as u64, "net".parse().unwrap()))
}

fn refusal() -> Did {
    Did::Refuse(Arc::new(Refusal::VnisExhausted))
}

impl Compact {
    fn knows(&self, n: usize) -> bool {
        self.recall(&id(n), || digest_of(n)).is_some_and(|recalled| recalled.is_ok())
    }
}

/// Ten minutes of a thousand writes a second, and of refusals as many as have a place of their own.
#[test]
fn the_oldest_is_forgotten_first() {
    let mut dedup = Compact::default();
    let kinds = [Kind::Network, Kind::Endpoint, Kind::Node];
    dedup.insert(id(0), digest_of(0), refusal());
    for n in 1..=CARRIED_OUT_MAX + 1 {
        let (kind, number) = (kinds[n % 3], n as u64);
        let did = if n % 2 == 0 { Did::Make(kind, number) } else { Did::Remove(kind, number) };
        dedup.insert(id(n), digest_of(n), did);
    }
    assert_eq!([0, 1, 2, CARRIED_OUT_MAX + 1].map(|n| dedup.knows(n)), [true, false, true, true]);
    let more = CARRIED_OUT_MAX + 2..CARRIED_OUT_MAX + 2 + REFUSED_MAX;
    for n in more.clone() {
        dedup.insert(id(n), digest_of(n), refusal());
    }
    assert_eq!([0, 2, more.start].map(|n| dedup.knows(n)), [false, true, true]);
    let lengths =
        |dedup: &Compact| [dedup.carried_out.len(), dedup.refused.len(), dedup.done.len()];
    assert_eq!(lengths(&dedup), [CARRIED_OUT_MAX, REFUSED_MAX, CARRIED_OUT_MAX + REFUSED_MAX]);
    let bytes = rmp_serde::to_vec_named(&dedup).unwrap();
    let read: Compact = rmp_serde::from_slice(&bytes).unwrap();
    assert!(read == dedup, "a snapshot holds all of it, in order");
}

#[test]
fn a_request_has_41_bytes_in_a_snapshot() {
    let length = |requests: usize| {
        let mut dedup = Compact::default();
        for n in 0..requests {
            dedup.insert(id(n), digest_of(n), Did::Make(Kind::Endpoint, u64::MAX));
        }
        rmp_serde::to_vec_named(&dedup).unwrap().len()
    };
    assert_eq!(length(3_000) - length(2_000), 41_000);
}

/// Of each kind one is read as what it was.
#[test]
fn what_is_damaged_or_newer_is_no_memory() {
    let kinds = [Kind::Network, Kind::Endpoint, Kind::Node];
    let makes = kinds.into_iter().chain([Kind::Life, Kind::Seat]).map(|kind| Did::Make(kind, 7));
    let removes = kinds.map(|kind| Did::Remove(kind, u64::MAX));
    let mut dedup = Compact::default();
    for (n, did) in
        makes.chain(removes).chain([Did::SetVoters(Voters::Five), refusal()]).enumerate()
    {
        dedup.insert(id(n), digest_of(n), did);
    }
    let bytes = rmp_serde::to_vec_named(&dedup).unwrap();
    assert_eq!(rmp_serde::from_slice::<Compact>(&bytes).unwrap(), dedup);
    // The byte behind the first request's id and digest says what was done.
    let first = bytes.windows(16).position(|part| part == id(0)).unwrap();
    let mut newer = bytes.clone();
    // The last one that is known sets a number of voters, which can't be 7.
    for code in [9, 10] {
        newer[first + 32] = code;
        let error = rmp_serde::from_slice::<Compact>(&newer).unwrap_err().to_string();
        assert!(error.contains("of no kind"), "{error}");
    }
}

#[test]
fn an_id_is_that_of_one_request() {
    let mut dedup = Compact::default();
    dedup.insert(id(1), digest_of(1), Did::Make(Kind::Endpoint, 7));
    assert_eq!(dedup.recall(&id(1), || digest_of(1)), Some(Ok(Did::Make(Kind::Endpoint, 7))));
    let other = dedup.recall(&id(1), || digest_of(2));
    assert_eq!(other, Some(Err(Used::By(Did::Make(Kind::Endpoint, 7)))));
    assert_eq!(dedup.recall(&id(2), || digest_of(1)), None);
}

/// What version 1 remembers, version 2 does; but for requests without a digest, which no program wrote for long.
#[test]
fn a_raise_keeps_what_is_remembered() {
    let mut named = Named::default();
    let name = || "x".parse().unwrap();
    let dids = [
        NamedDid::MakeNetwork(1, "x".parse().unwrap()),
        NamedDid::RemoveEndpoint(9, name()),
        NamedDid::Register(3, "x".parse().unwrap()),
        NamedDid::Refuse(Arc::new(Refusal::VnisExhausted)),
    ];
    for (n, did) in dids.iter().cloned().enumerate() {
        named.insert(id(n), Done { asked: Some(digest_of(n)), did });
    }
    named.insert(id(9), done(NamedDid::MakeEndpoint(2, name())));
    let before = Dedup::Named(named);
    assert_eq!(before.clone().at(Version::V1), before);
    let Dedup::Compact(compact) = before.at(Version::V2) else { panic!("of version 1 still") };
    for (n, did) in dids.iter().enumerate() {
        let recalled = compact.recall(&id(n), || digest_of(n));
        assert_eq!(recalled, Some(Ok(did.without_name())), "{did}");
    }
    assert_eq!(compact.done.len(), dids.len());
    let again = Dedup::Compact(compact);
    assert_eq!(again.clone().at(Version::V2), again);
}

#[test]
fn at_version_1_the_oldest_is_forgotten_first() {
    let mut dedup = Named::default();
    for n in 0..=REMEMBERED {
        dedup.insert(id(n), named_removal(n));
    }
    assert_eq!(dedup.done.get(&id(0)), None);
    assert_eq!(dedup.done.get(&id(1)), Some(&named_removal(1)));
    assert_eq!((dedup.removals.len(), dedup.done.len()), (REMEMBERED, REMEMBERED));
    assert_eq!(Named::from(Lists::from(&dedup)), dedup);
}

#[test]
fn at_version_1_no_number_of_creations_makes_a_removal_forgotten() {
    let mut dedup = Named::default();
    dedup.insert(id(0), named_removal(0));
    for n in 1..=REMEMBERED + 1 {
        dedup.insert(id(n), done(NamedDid::MakeNetwork(n as u64, "net".parse().unwrap())));
    }
    assert_eq!(dedup.done.get(&id(0)), Some(&named_removal(0)));
    assert_eq!(dedup.done.get(&id(1)), None);
    assert_eq!(Named::from(Lists::from(&dedup)), dedup);
}

/// A request of a version that wrote no digest: its verb and name must do.
#[test]
fn without_a_digest_a_request_is_known_by_verb_and_name() {
    fn requests(word: &str) -> [(NamedDid, Command); 4] {
        let network: NetworkName = word.parse().unwrap();
        let endpoint: EndpointName = word.parse().unwrap();
        let node: NodeName = word.parse().unwrap();
        let create = Command::CreateNetwork {
            name: network.clone(),
            pool: None,
            vni: None,
            options: crate::model::NetworkOptions::default(),
        };
        [
            (NamedDid::MakeNetwork(1, network.clone()), create),
            (
                NamedDid::RemoveNetwork(1, network.clone()),
                Command::RemoveNetwork { name: network, only: None },
            ),
            (
                NamedDid::RemoveEndpoint(1, endpoint.clone()),
                Command::RemoveEndpoint { name: endpoint, network: None, only: None },
            ),
            (
                NamedDid::RemoveNode(1, node.clone()),
                Command::RemoveNode { name: node, only: None, with_endpoints: false },
            ),
        ]
    }
    for (did, repeated) in requests("one") {
        let mut dedup = Named::default();
        dedup.insert(id(1), done(did.clone()));
        let recall = |command: &Command| dedup.recall(&id(1), None, command);
        assert_eq!(recall(&repeated), Some(Ok(did.without_name())));
        for (other, command) in requests("one").into_iter().chain(requests("other")) {
            let is_refused = matches!(recall(&command), Some(Err(Used::Named(_))));
            assert_eq!(is_refused, other != did, "{did} and {command:?}");
        }
    }
}
