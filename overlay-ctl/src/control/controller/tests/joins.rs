//! Who may register, by what the node's program speaks, and who gets another Raft id.

use super::*;
use crate::{
    control::{controller::nodes::unless_raised, voter::follow_the_rows},
    model::{Node, RaftId, Speaks, Version},
};

fn speaks(oldest: u32, newest: u32) -> Speaks {
    Speaks::from_wire(oldest, newest).unwrap()
}

impl Cluster {
    /// Node 1 and the cluster are upgraded.
    pub(super) async fn raise(&self) {
        let speaks = [(1, speaks(1, 2))].into();
        let command = Command::RaiseVersion { to: Version::V2, speaks };
        let request = Mutation::new(*Uuid::new_v4().as_bytes(), &command);
        let entry = self.voter.state.read(|state| state.entry(request, command));
        let raised = self.voter.consensus.propose(entry.encode().unwrap());
        within(raised).await.unwrap().1.unwrap();
    }

    fn revision(&self) -> u64 {
        self.voter.state.read(State::revision)
    }
}

#[tokio::test]
async fn a_node_is_taken_in_if_it_speaks_the_version_of_the_cluster() {
    let cluster = Cluster::new();
    let join = async |id: u8, speaks: Option<Speaks>| {
        within(cluster.leader.register(Register { speaks, ..register(id) })).await
    };
    // At version 1 no row says what its node speaks: voters of earlier programs would not hold it.
    for (id, said) in [(2, None), (3, Some(speaks(1, 2)))] {
        assert_eq!(join(id, said).await.unwrap().node.speaks, None);
    }
    let before = cluster.revision();
    let refused = join(4, Some(speaks(2, 3))).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "the cluster is at version 1, and the node's program speaks versions 2 to 3; start the node with the program that the other nodes run, which `overlay status` names there"
    );
    assert_eq!(cluster.revision(), before, "version 1 could not hold the refusal");
}

#[tokio::test]
async fn a_node_of_an_earlier_program_is_refused_once_the_version_is_raised() {
    let cluster = Cluster::new();
    cluster.raise().await;
    let join = async |id: u8, speaks: Option<Speaks>| {
        within(cluster.leader.register(Register { speaks, ..register(id) })).await
    };
    let joined = join(2, Some(speaks(2, 3))).await.unwrap();
    assert_eq!(joined.node.speaks, Some(speaks(2, 3)));
    let before = cluster.revision();
    for said in [None, Some(speaks(1, 1)), Some(speaks(3, 3))] {
        let refused = join(3, said).await.unwrap_err();
        let (speaks, cluster) = (said.unwrap_or(Speaks::UNSAID), Version::V2);
        let expected = Refusal::VersionNotSpoken { speaks, cluster };
        assert_eq!(refused, ControllerError::Refused(expected));
    }
    assert_eq!(cluster.revision(), before, "nothing was logged");
    // One that was removed hears of that, whatever it speaks: so it goes.
    let name = joined.node.name;
    let remove = RemoveNode { request: [9; 16], name, only: Some(joined.node.id), force: false };
    within(cluster.leader.remove_node(remove)).await.unwrap();
    let back = Register { returning: Some(joined.node.id), ..register(2) };
    let removed = within(cluster.leader.register(back)).await.unwrap_err();
    let removed_node = matches!(removed, ControllerError::Refused(Refusal::NodeRemoved(_)));
    assert!(removed_node, "{removed:?}");
    let before = cluster.revision();
    // The node that was there before says of itself what is known.
    let again = join(1, Some(speaks(1, 2))).await.unwrap();
    assert_eq!((again.node.epoch, cluster.revision()), (1, before), "nothing was logged");
}

#[test]
fn a_registration_that_a_raise_overtakes_is_tried_again() {
    let refused = |speaks, cluster| {
        let refusal = Refusal::VersionNotSpoken { speaks, cluster };
        error::Attempt::Failed(ControllerError::Refused(refusal))
    };
    let (v1, v2) = (Version::V1, Version::V2);
    for (failed, said, is_again) in [
        (refused(Speaks::UNSAID, v2), speaks(1, 2), true),
        (refused(Speaks::UNSAID, v2), speaks(1, 1), false),
        (refused(Speaks::UNSAID, v1), speaks(1, 2), false),
        (error::Attempt::Failed(ControllerError::ListsBusy), speaks(1, 2), false),
    ] {
        let text = format!("{failed:?}");
        let tried = unless_raised(failed, said, v1);
        assert_eq!(matches!(tried, error::Attempt::Again { .. }), is_again, "{text}: {said}");
    }
}

/// The old life is no member when the new one is told.
#[tokio::test]
async fn a_node_whose_log_is_lost_gets_one_other_life_for_each_wish() {
    let cluster = Cluster::new();
    cluster.raise().await;
    let said = Some(speaks(1, 2));
    let node = within(cluster.leader.register(Register { speaks: said, ..register(2) })).await;
    let node = node.unwrap().node;
    assert_eq!(node.life(), RaftId::new(2));
    let mut status = cluster.voter.consensus.status();
    let follows = tokio::spawn(follow_the_rows(cluster.voter.clone()));
    within(status.wait_for(|status| status.learners == [2])).await.unwrap();

    let ask = async |number: u8, wish: u8| {
        let log_lost = Some([wish; 16]);
        let lost = Register { log_lost, speaks: said, returning: None, ..register(number) };
        within(cluster.leader.register(lost)).await
    };
    let anew = ask(2, 1).await.unwrap().node;
    assert!(!status.borrow().learners.contains(&2), "{:?}", status.borrow());
    assert_eq!(anew, Node { raft_id: RaftId::new(3), ..node });
    assert_eq!(ask(2, 1).await.unwrap().node, anew, "the wish is told again");
    within(status.wait_for(|status| status.learners == [3])).await.unwrap();
    let third = ask(2, 2).await.unwrap().node;
    assert_eq!(third.life(), RaftId::new(4));
    within(status.wait_for(|status| status.learners == [4])).await.unwrap();
    let late = ask(2, 1).await.unwrap_err();
    assert!(matches!(late, ControllerError::Refused(Refusal::Gone { .. })), "{late:?}");

    // A copy of the leader's folder: the leader has its log.
    let own = ask(1, 3).await.unwrap_err().to_string();
    assert_eq!(own, "another process runs as node h1 and leads: end one of the two");
    assert_eq!(status.borrow().voters, [1]);
    follows.abort();
}

/// The leader vouches for a life that it gave itself, until it votes, has entries or is another leader's.
#[tokio::test]
async fn a_life_that_may_have_voted_is_said_to_be_used() {
    let cluster = Cluster::new();
    cluster.raise().await;
    let said = Some(speaks(1, 2));
    let ask = async |number: u8| {
        let joins = Register { speaks: said, ..register(number) };
        within(cluster.leader.register(joins)).await.unwrap()
    };
    assert!(ask(1).await.life_used, "the leader's own votes");
    for _ in 0..2 {
        let joined = ask(2).await;
        assert_eq!((joined.node.life(), joined.life_used), (RaftId::new(2), false));
    }
    let life = RaftId::new(2).unwrap();
    // As after an end that was called off, or for a later leader.
    drop(cluster.voter.leaving.hold(life));
    assert!(ask(2).await.life_used);
    let log_lost = Some([1; 16]);
    let lost = Register { log_lost, speaks: said, ..register(2) };
    let anew = within(cluster.leader.register(lost)).await.unwrap();
    assert_eq!((anew.node.life(), anew.life_used), (RaftId::new(3), false));
    assert!(!ask(2).await.life_used);
}

#[tokio::test]
async fn at_version_1_a_node_whose_log_is_lost_is_told_why_it_gets_no_other_life() {
    let cluster = Cluster::new();
    within(cluster.leader.register(register(2))).await.unwrap();
    let lost = Register { log_lost: Some([1; 16]), ..register(2) };
    let refused = within(cluster.leader.register(lost)).await.unwrap_err();
    let needs = Refusal::NeedsVersion { needs: Version::V2, has: Version::V1 };
    assert_eq!(refused, ControllerError::Refused(needs));
}
