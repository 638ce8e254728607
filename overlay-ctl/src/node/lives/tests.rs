//! What a voter does with the log that its folder holds, by what the cluster says of it.

use super::*;
use crate::{
    control::state::State,
    node::{
        addresses::Addresses,
        fake_voter::{at, serve},
    },
    proto::v1::{self, JoinResponse, NodeRole, StatusResponse},
};
use tempfile::TempDir;

const LIFE: RaftId = RaftId::after(RaftId::new(2));

/// A voter's folder, in which its log is whole, and what it knows of the cluster: the voter at the first address.
struct Node {
    dir: TempDir,
    run: TempDir,
    member: Member,
    registration: Registration,
    directory: Directory,
}

impl Node {
    fn new() -> Self {
        let (dir, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cluster = Uuid::new_v4();
        let identity = Identity { cluster, name: "h2".to_owned(), raft_id: LIFE.get() };
        let log = LogStore::bootstrap(dir.path(), identity, &State::default().snapshot()).unwrap();
        assert_eq!(log.last(), 1);
        let member = Member { cluster, id: 2, voter: true, epoch: 1, raft_id: Some(LIFE) };
        let addresses = Addresses {
            vtep: [10, 0, 0, 2].into(),
            listen: at(2),
            local_listen: None,
            gateway: "172.18.0.0/16".parse().unwrap(),
            metrics: None,
        };
        let registration = Registration {
            name: "h2".parse().unwrap(),
            instance: Uuid::new_v4(),
            addresses,
            vxlan_port: 4789,
            token: None,
            incarnation: Uuid::new_v4(),
        };
        let own = Peer { id: 2, listen: at(2), voter: true, raft_id: Some(LIFE) };
        let other = Peer { id: 1, listen: at(1), voter: true, raft_id: RaftId::new(1) };
        let directory = Directory::new(cluster, [own, other]);
        Self { dir, run, member, registration, directory }
    }

    fn held(&self) -> Held {
        held(self.dir.path(), self.member.cluster, LIFE, self.run.path()).unwrap()
    }

    fn lost(&self) -> String {
        match self.held() {
            Held::Lost(why) => why,
            Held::Log(_) => panic!("it is whole"),
        }
    }

    /// The voter answers so.
    fn hears(&self, raft_id: u64, acknowledged: u64) {
        self.hears_as(NodeRole::Voter, raft_id, acknowledged);
    }

    fn hears_as(&self, role: NodeRole, raft_id: u64, acknowledged: u64) {
        let answer = JoinResponse {
            cluster: self.member.cluster.to_string(),
            node_id: 2,
            epoch: 5,
            role: role.into(),
            peers: vec![v1::Node { id: 1, listen: at(1).to_string(), ..v1::Node::default() }],
            raft_id,
            acknowledged,
            ..JoinResponse::default()
        };
        let voter = (&self.directory, at(1));
        // Kept for as long as the test runs: without the receiver it refuses.
        std::mem::forget(serve(self.member.cluster, voter, StatusResponse::default(), answer));
    }

    async fn doubt(&self) -> Option<String> {
        let Held::Log(log) = self.held() else { panic!("its log is whole") };
        self.asks(Some((&*log, LIFE))).await.unwrap()
    }

    async fn asks(&self, log: Option<(&LogStore, RaftId)>) -> Result<Option<String>, ClusterError> {
        let places = places(&self.member, &self.directory, None);
        doubt(log, &self.registration, &self.member, &self.directory, &places).await
    }

    async fn begin_anew(
        &self,
        places: &[SocketAddr],
    ) -> Result<(Member, Option<LogStore>), ClusterError> {
        let mut home = Home::open(self.dir.path(), &self.registration.name).unwrap();
        home.set_member(self.member.clone()).unwrap();
        let asks = (&self.member, &self.directory);
        let why = "it is gone".to_owned();
        begin_anew(&mut home, &self.registration, asks, places, self.run.path(), why).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_is_doubted_if_the_leader_knows_more_of_it_or_another_life() {
    for (raft_id, acknowledged, doubted) in [
        (3, 0, None),
        (3, 1, None),
        // An earlier program says nothing.
        (0, 9, None),
        (3, 2, Some("it ends at revision 1, and the leader has this node's word for revision 2")),
        (4, 0, Some("it is that of member 3, and the node is member 4 by now")),
    ] {
        let node = Node::new();
        node.hears(raft_id, acknowledged);
        assert_eq!(node.doubt().await.as_deref(), doubted, "{raft_id} {acknowledged}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_a_leader_gets_this_vote_soon() {
    let node = Node::new();
    let began = Instant::now();
    assert_eq!(node.doubt().await, None);
    assert!(began.elapsed() <= CONFIRM, "{:?}", began.elapsed());
}

#[tokio::test]
async fn only_the_whole_log_of_the_present_life_is_held() {
    let node = Node::new();
    assert!(matches!(node.held(), Held::Log(_)));
    // Of another life: the folder says that this one is over.
    let next = RaftId::after(Some(LIFE));
    let of_next = held(node.dir.path(), node.member.cluster, next, node.run.path()).unwrap();
    let Held::Lost(why) = of_next else { panic!("it is another life's") };
    assert_eq!(why, "it is that of member 3, and this is member 4");
    // Another cluster's is refused, and nobody asks for another life.
    let of_another = held(node.dir.path(), Uuid::new_v4(), LIFE, node.run.path()).map(drop);
    assert!(matches!(of_another, Err(OpenError::ForeignState { .. })), "{of_another:?}");

    std::fs::remove_file(node.dir.path().join("consensus.redb")).unwrap();
    assert_eq!(node.lost(), "the database does not exist");
    std::fs::remove_file(node.dir.path().join("identity.json")).unwrap();
    assert_eq!(node.lost(), "there is none");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_log_is_lost_begins_that_of_its_next_life() {
    let node = Node::new();
    LogStore::note_unfit(node.dir.path(), "it forgot something").unwrap();
    assert_eq!(node.lost(), "it forgot something");
    node.hears(7, 0);
    let places = places(&node.member, &node.directory, None);
    let (member, log) = node.begin_anew(&places).await.unwrap();
    let log = log.expect("it is to hold the log");
    let life = RaftId::new(7);
    let expected = Member { raft_id: life, epoch: 5, ..node.member.clone() };
    assert_eq!((member.clone(), log.last(), log.identity().raft_id), (expected, 0, 7));
    drop(log);
    let home = Home::open(node.dir.path(), &node.registration.name).unwrap();
    assert_eq!(home.record().member, Some(member));
    let held = held(node.dir.path(), node.member.cluster, life.unwrap(), node.run.path());
    assert!(matches!(held, Ok(Held::Log(_))), "its next start finds it");
}

#[tokio::test(start_paused = true)]
async fn who_can_get_no_other_life_keeps_its_folder_and_says_why() {
    // The voter runs a program that knows of no lives, or answers the life that is over.
    for raft_id in [0, LIFE.get()] {
        let node = Node::new();
        node.hears(raft_id, 0);
        let places = places(&node.member, &node.directory, None);
        let refused = node.begin_anew(&places).await.map(drop).unwrap_err();
        assert!(matches!(refused, ClusterError::NoOtherLife { .. }), "{refused}");
        assert!(matches!(node.held(), Held::Log(_)), "nothing was let go of");
    }
    let alone = Node::new();
    let refused = alone.begin_anew(&[]).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("overlay cluster recover"), "{refused}");
    assert!(matches!(alone.held(), Held::Log(_)));
}

/// The folder was copied to a host with another address, and no leader answers.
#[tokio::test(start_paused = true)]
async fn a_process_that_finds_itself_at_its_last_address_is_the_second_one() {
    for (own, is_second) in [(false, true), (true, false)] {
        let mut node = Node::new();
        node.registration.addresses.listen = at(22);
        let found = if own { node.registration.incarnation } else { Uuid::new_v4() };
        let status = StatusResponse {
            node_id: 2,
            incarnation: found.as_bytes().to_vec(),
            ..StatusResponse::default()
        };
        let first = (&node.directory, at(2));
        let _joins = serve(node.member.cluster, first, status, JoinResponse::default());
        let Held::Log(log) = node.held() else { panic!("its log is whole") };
        for log in [Some((&*log, LIFE)), None] {
            let asked = node.asks(log).await;
            let refused = matches!(asked, Err(ClusterError::RunsElsewhere(_)));
            assert_eq!(refused, is_second, "{asked:?}");
        }
    }
}

#[test]
fn a_log_that_has_moved_votes_only_where_it_decides_alone() {
    let node = Node::new();
    let Held::Log(log) = node.held() else { panic!("its log is whole") };
    assert_eq!(distrust(&log, LIFE, None).unwrap(), None);
    for moved in [Moved::Copied, Moved::Machine] {
        assert_eq!(distrust(&log, LIFE, Some(moved)).unwrap(), None, "it is the only voter");
    }
    // One of several, or one that does not know.
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity { cluster: Uuid::new_v4(), name: "h2".to_owned(), raft_id: LIFE.get() };
    let log = LogStore::join_generation(dir.path(), identity, 1).unwrap();
    assert_eq!(distrust(&log, LIFE, None).unwrap(), None);
    for moved in [Moved::Copied, Moved::Machine] {
        assert_eq!(distrust(&log, LIFE, Some(moved)).unwrap(), Some(moved.to_string()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_log_is_lost_and_whose_seat_another_has_is_an_agent() {
    let node = Node::new();
    LogStore::note_unfit(node.dir.path(), "it forgot something").unwrap();
    node.hears_as(NodeRole::Agent, 0, 0);
    let places = places(&node.member, &node.directory, None);
    let (member, log) = node.begin_anew(&places).await.unwrap();
    let expected = Member { voter: false, epoch: 5, ..node.member.clone() };
    assert_eq!((member.clone(), member.life(), log.is_some()), (expected, None, false));
    let home = Home::open(node.dir.path(), &node.registration.name).unwrap();
    assert_eq!(home.record().member, Some(member));
    let left = LogStore::open(node.dir.path(), None).unwrap();
    assert!(left.is_none(), "its log is let go of");
}
