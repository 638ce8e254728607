//! How the voters are, as any node says it, with a quorum and without.

use overlay_ctl::proto::v1::{
    Condition, MemberRequest, MembersRequest, MembersResponse, Membership, NodeRole,
};

use crate::{
    fixture::{NODE, Node, eventually},
    lab::skip,
};

/// The first of two nodes has the only vote; the second one holds the log.
#[test]
fn each_node_says_how_the_voters_are_also_without_a_quorum() {
    if skip() {
        return;
    }
    let [first, second] = Node::start_pair();
    second.call(async move |_, mut api| {
        let mut ask = async |condition: Condition| -> MembersResponse {
            eventually("the condition is told", async || {
                let answer = api.cluster.members(MembersRequest::default()).await.unwrap();
                Some(answer.into_inner()).filter(|answer| answer.condition() == condition)
            })
            .await
        };
        let healthy = ask(Condition::Healthy).await;
        assert_eq!(healthy.verdict, "healthy: h1 is the only voter, and must not be lost");
        assert_eq!((healthy.leader.as_str(), healthy.asked.as_str()), (NODE, "h2"));
        assert!(healthy.faults.is_empty(), "{healthy:#?}");
        let [h1, h2] = &healthy.members[..] else { panic!("{healthy:#?}") };
        assert_eq!((h1.membership(), h1.leads, h1.lag), (Membership::Voter, true, Some(0)));
        assert!(h2.membership() != Membership::Voter && h2.has_seat, "{h2:#?}");
        let log = h1.status.as_ref().and_then(|status| status.voter.as_ref()).unwrap();
        assert!(log.has_quorum && log.writes > 0 && log.log_bytes > 0, "{log:#?}");

        drop(first);
        let lost = ask(Condition::NoQuorum).await;
        assert!(lost.verdict.starts_with("no quorum: 0 of 1 voters answer h2"), "{lost:#?}");
        assert!(lost.faults[0].what.contains("h1 ("), "{lost:#?}");
        let log = eventually("it finds that it has no quorum", async || {
            let own = api.cluster.member(MemberRequest {}).await.unwrap().into_inner();
            own.voter.filter(|log| !log.has_quorum)
        })
        .await;
        assert_eq!(log.role(), NodeRole::Learner);
        let stale = api.cluster.members(MembersRequest { stale: true }).await.unwrap();
        assert!(stale.metadata().contains_key("overlay-as-of"), "it is marked");
        let unasked = &stale.get_ref().members[0].unanswered;
        assert_eq!(unasked, "it was not asked");
    });
}
