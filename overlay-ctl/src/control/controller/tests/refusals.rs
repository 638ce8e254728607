//! Why a request is refused, and what is said of it.

use super::*;

#[tokio::test]
async fn a_leader_without_room_is_named() {
    let cluster = Cluster::new();
    let lack = Lack { path: "/state".into(), what: Room::Entries, free: 0, needed: 1 << 20 };
    match error::Attempt::of_write(&cluster.voter, ProposeError::NoRoom(lack)) {
        error::Attempt::Failed(error) => {
            let said = error.to_string();
            assert!(said.starts_with("node h1 leads and takes no writes: the disk of"), "{said}");
            assert!(said.ends_with("make room there"), "{said}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_forwarded_request_is_checked_like_one_of_the_api() {
    async fn refusal<V: verb::Verb>(leader: &Controller, verb: V) -> ControllerError {
        let request = verb::pack(&verb).unwrap();
        let answer = within(leader.answer_forwarded(&request, Duration::from_secs(1))).await;
        verb::decode(&answer.unwrap_err()).unwrap()
    }
    let cluster = Cluster::new();
    let leader = &cluster.leader;
    let options = NetworkOptions { mtu: Some(67), ..Default::default() };
    let net = CreateNetwork { options, ..network([1; 16], "net") };
    let aliases = (0..=ALIASES_MAX).map(|n| format!("a{n}").parse().unwrap()).collect();
    let many = CreateEndpoint { aliases, ..endpoint([2; 16], "net", 9) };
    let group = Register { vtep: [224, 0, 0, 1].into(), ..register(2) };
    let nowhere = Register { listen: SocketAddr::from(([0; 4], 7400)), ..register(2) };
    for (field, error) in [
        ("mtu", refusal(leader, net).await),
        ("aliases", refusal(leader, many).await),
        ("vtep", refusal(leader, group).await),
        ("listen", refusal(leader, nowhere).await),
    ] {
        assert!(
            matches!(&error, ControllerError::Refused(Refusal::Invalid { field: of, .. }) if of == field),
            "{field}: {error:?}"
        );
    }
}

/// A later program has errors that this one does not know, and sends their words with them.
#[test]
fn an_error_of_a_later_program_is_passed_on_in_its_words() {
    #[derive(serde::Serialize)]
    enum OfALaterOne {
        Quota { used: u64 },
    }
    let known = ControllerError::Refused(Refusal::SubnetsExhausted);
    assert_eq!(verb::read_error(&verb::error_bytes(&known)), known);
    // As an earlier program reads it, and as that writes it.
    assert_eq!(verb::decode::<ControllerError>(&verb::error_bytes(&known)), Ok(known.clone()));
    assert_eq!(verb::read_error(&verb::encode(&known).unwrap()), known);

    let kind = verb::encode(&OfALaterOne::Quota { used: 9 }).unwrap();
    let words = verb::encode(&("the quota of 9 is used up", Effect::None)).unwrap();
    let later = verb::read_error(&[kind.clone(), words].concat());
    let (why, effect) = ("the quota of 9 is used up".to_owned(), Effect::None);
    assert_eq!(later, ControllerError::Later { why, effect });
    let without = verb::read_error(&kind);
    assert!(matches!(without, ControllerError::Version(_)), "{without:?}");
}
