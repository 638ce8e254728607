//! Who gets a seat and who gives one up, as the leader and an agent are asked.

use super::*;
use crate::{
    control::voter::follow_the_rows,
    model::{RaftId, SPEAKS, Version, Voters},
};

fn promote(request: u8, id: u8) -> PromoteNode {
    PromoteNode { request: [request; 16], name: format!("h{id}").parse().unwrap(), only: None }
}

fn demote(request: u8, id: u8) -> DemoteNode {
    DemoteNode { request: [request; 16], name: format!("h{id}").parse().unwrap(), only: None }
}

impl Cluster {
    /// At version 2, with four nodes, whose rows the members follow.
    async fn of_four() -> (Self, tokio::task::JoinHandle<()>) {
        let cluster = Self::new();
        let command = Command::RaiseVersion { to: Version::V2, speaks: [(1, SPEAKS)].into() };
        let request = Mutation::new(*Uuid::new_v4().as_bytes(), &command);
        let entry = cluster.voter.state.read(|state| state.entry(request, command));
        within(cluster.voter.consensus.propose(entry.encode().unwrap())).await.unwrap().1.unwrap();
        for id in 2..=4 {
            let said = Register { speaks: Some(SPEAKS), ..register(id) };
            within(cluster.leader.register(said)).await.unwrap();
        }
        let follows = tokio::spawn(follow_the_rows(cluster.voter.clone()));
        (cluster, follows)
    }

    async fn until_learners(&self, learners: &[u64]) {
        let mut status = self.voter.consensus.status();
        let is_so = within(status.wait_for(|status| status.learners == learners)).await;
        is_so.unwrap();
    }

    fn seats(&self) -> Vec<(NodeId, Option<u64>)> {
        self.voter.state.read(|state| {
            state.seated().map(|node| (node.id, node.life().map(RaftId::get))).collect()
        })
    }
}

#[tokio::test]
async fn a_seat_that_one_node_gives_up_another_gets_with_a_raft_id_of_its_own() {
    let (cluster, follows) = Cluster::of_four().await;
    cluster.until_learners(&[2, 3]).await;
    let full = within(cluster.leader.promote_node(promote(1, 4))).await.unwrap_err().to_string();
    assert_eq!(
        full,
        "the cluster has its 3 voters already (h1, h2, h3); take the seat of one of them with `overlay node demote`, or raise their number with `overlay cluster voters`"
    );
    // A refused request was not logged, and may be asked again.
    let gone = within(cluster.leader.demote_node(demote(2, 3))).await.unwrap();
    assert_eq!((gone.node.voter, gone.role), (false, NodeRole::Agent));
    assert_eq!(cluster.voter.consensus.status().borrow().learners, [2], "before its row changed");
    let seated = within(cluster.leader.promote_node(promote(3, 4))).await.unwrap();
    assert_eq!(seated.node.life(), RaftId::new(4));
    cluster.until_learners(&[2, 4]).await;
    // Repeated, each is answered and not carried out.
    for _ in 0..2 {
        within(cluster.leader.demote_node(demote(2, 3))).await.unwrap();
        within(cluster.leader.promote_node(promote(3, 4))).await.unwrap();
    }
    within(cluster.leader.demote_node(demote(4, 4))).await.unwrap();
    within(cluster.leader.promote_node(promote(5, 3))).await.unwrap();
    cluster.until_learners(&[2, 5]).await;
    assert_eq!(cluster.seats(), [(1, Some(1)), (2, Some(2)), (3, Some(5))]);
    follows.abort();
}

#[tokio::test]
async fn the_last_voter_keeps_its_seat_and_the_number_of_voters_is_a_wish() {
    let (cluster, follows) = Cluster::of_four().await;
    cluster.until_learners(&[2, 3]).await;
    // Nobody else has caught up, so that nobody could take over.
    let early = within(cluster.leader.demote_node(demote(1, 1))).await.unwrap_err().to_string();
    assert!(early.contains("it is the cluster's only voter, and no other node"), "{early}");
    let five = SetVoters { request: [2; 16], voters: Voters::Five };
    assert_eq!(
        within(cluster.leader.set_voters(five)).await.unwrap(),
        VotersSet { voters: Voters::Five }
    );
    within(cluster.leader.promote_node(promote(3, 4))).await.unwrap();
    for (request, id) in [(4, 2), (5, 3), (6, 4)] {
        within(cluster.leader.demote_node(demote(request, id))).await.unwrap();
    }
    let last = within(cluster.leader.demote_node(demote(7, 1))).await.unwrap_err().to_string();
    assert_eq!(
        last,
        "node h1 is the cluster's only voter; give another node a seat first: with `overlay node promote`, and where one voter is wished for with `overlay cluster voters 3`"
    );
    assert_eq!(cluster.seats(), [(1, Some(1))]);
    follows.abort();
}
