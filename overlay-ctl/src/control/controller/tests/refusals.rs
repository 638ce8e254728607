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
