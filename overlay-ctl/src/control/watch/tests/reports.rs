//! What a voter that does not lead passes on to the one that does.

use super::*;
use crate::{
    control::{
        voter::{Hashes, NODE_DOWN_AFTER, Verdict},
        watch::report_to_leader,
    },
    proto::internal::NodeStatus,
};

/// The voter that reports.
const FOLLOWER: NodeId = 2;

/// A voter of three, and the two others.
struct Follower {
    table: StatusTable,
    cluster: watch::Sender<consensus::Status>,
    status: watch::Sender<LocalStatus>,
    hashes: Hashes,
    first: Voter,
    third: Voter,
    reports: JoinHandle<()>,
}

impl Follower {
    fn new() -> Self {
        let cluster = Uuid::new_v4();
        let directory = Directory::new(cluster, peers());
        let [first, third] = [1, 3].map(|id| {
            let voter = Voter::remembering(REMEMBERED);
            serve(cluster, id, &directory, &voter);
            voter
        });
        let table = StatusTable::default();
        let cluster = watch::Sender::new(consensus::Status::default());
        let status = watch::Sender::new(LocalStatus { programmed: 1, ..LocalStatus::default() });
        let (members, own) = (cluster.subscribe(), status.subscribe());
        let epoch = watch::channel(FOLLOWER).1;
        let hashes = Hashes::default();
        let reports = report_to_leader(
            FOLLOWER,
            epoch,
            members,
            directory,
            table.clone(),
            own,
            hashes.clone(),
        );
        Self { table, cluster, status, hashes, first, third, reports: tokio::spawn(reports) }
    }

    fn follow(&self, leader: Option<NodeId>) {
        self.cluster.send_modify(|status| status.leader = leader);
    }

    /// An agent reports to this voter.
    fn hear(&self, programmed_revision: Revision) {
        let status =
            NodeStatus { node_id: AGENT, epoch: AGENT, programmed_revision, ..Default::default() };
        self.table.record(status);
    }
}

#[tokio::test(start_paused = true)]
async fn the_leader_hears_from_each_voter_what_nodes_report_to_it() {
    let follower = Follower::new();
    follower.hear(5);
    follower.follow(Some(1));
    follower.first.status_of(AGENT, 5).await;
    follower.hear(6);
    follower.first.status_of(AGENT, 6).await;
    // What has not changed is repeated for as long as it is fresh.
    sleep(2 * NODE_DOWN_AFTER).await;
    let heard = |node| follower.first.service.table.programmed(node);
    assert_eq!((heard(FOLLOWER), heard(AGENT)), (Some(1), None));
    assert!(follower.first.service.table.first_hand().is_empty(), "it is not passed on again");
}

#[tokio::test(start_paused = true)]
async fn a_voter_hears_what_the_leader_found_of_its_state_and_goes_on_reporting() {
    let follower = Follower::new();
    follower.follow(Some(1));
    follower.first.status_of(FOLLOWER, 1).await;
    let found = follower.first.service.state.hashes().clone();
    let mut own = follower.hashes.own();
    for verdict in [
        Some(Verdict { revision: 1024, majority: None }),
        Some(Verdict { revision: 2048, majority: Some([7; 32]) }),
        None,
    ] {
        found.find(verdict.map(|verdict| (FOLLOWER, verdict)).into_iter().collect(), None);
        timeout(BOUND, own.wait_for(|own| *own == verdict)).await.unwrap().unwrap();
        sleep(2 * NODE_DOWN_AFTER).await;
        let heard = follower.first.service.table.programmed(FOLLOWER);
        assert_eq!(heard, Some(1), "it goes on after {verdict:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reports_go_to_whoever_leads() {
    let follower = Follower::new();
    let heard = |voter: &Voter| voter.service.table.programmed(FOLLOWER).is_some();
    for (leader, by) in [
        (Some(1), [true, false]),
        (Some(3), [false, true]),
        (None, [false, false]),
        (Some(1), [true, false]),
        (Some(FOLLOWER), [false, false]),
    ] {
        follower.follow(leader);
        // Until the status that the last leader heard is stale.
        sleep(2 * NODE_DOWN_AFTER).await;
        assert_eq!([heard(&follower.first), heard(&follower.third)], by, "{leader:?} leads");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_take_reports_is_asked_again_after_a_pause() {
    let follower = Follower::new();
    follower.first.set(Mode::Away);
    follower.follow(Some(1));
    let asked = follower.first.asked_next().await;
    assert!(is_ascending(&asked), "{asked:?}");
    follower.first.set(Mode::Serving);
    follower.first.status_of(FOLLOWER, 1).await;
}

#[tokio::test(start_paused = true)]
async fn reports_end_with_the_node_whoever_leads() {
    for leader in [None, Some(1), Some(FOLLOWER)] {
        let follower = Follower::new();
        follower.follow(leader);
        sleep(HEARTBEAT).await;
        drop((follower.cluster, follower.status));
        timeout(BOUND, follower.reports).await.expect("it ends").unwrap();
    }
}
