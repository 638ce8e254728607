//! A node gets a seat and gives it up, and its views and its folder go along.

use super::*;
use crate::control::{
    consensus::Role,
    peers::Peer,
    state::{Command, Envelope, Mutation},
};
use std::{net::SocketAddr, time::Duration};
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

const BOUND: Duration = Duration::from_secs(60);
/// Virtual time: what has not happened by then never will.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn life(number: u64) -> Option<RaftId> {
    RaftId::new(number)
}

/// Node 4, an agent whose view is at revision 9.
struct Node {
    dir: TempDir,
    run: TempDir,
    told: sync_watch::Sender<Option<RaftId>>,
    views: sync_watch::Receiver<Option<Arc<View>>>,
    part: Part,
    _raft: RaftThread,
    _ends: (sync_watch::Sender<Revision>, sync_watch::Sender<LocalStatus>),
}

impl Node {
    fn new() -> Self {
        let (dir, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cluster = Uuid::new_v4();
        let mut home = Home::open(dir.path(), &"h4".parse().unwrap()).unwrap();
        let member = Member { cluster, id: 4, voter: false, epoch: 5, raft_id: None };
        home.set_member(member.clone()).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 1));
        let other = Peer { id: 1, listen, voter: true, raft_id: life(1) };
        let held = View { revision: 9, ..View::default() };
        let (view, views) = sync_watch::channel(Some(Arc::new(held)));
        let (epoch, epochs) = sync_watch::channel(member.epoch);
        let (status_sender, status) = sync_watch::channel(LocalStatus::default());
        let (told, hears) = sync_watch::channel(None);
        let wiring = Wiring {
            home: Arc::new(Mutex::new(home)),
            run_folder: run.path().to_owned(),
            directory: Directory::new(cluster, [other]),
            epochs,
            view,
            status,
            told: hears,
            raise_version_after: Duration::from_secs(300),
            lease: Duration::from_secs(30),
            replace_voter_after: None,
        };
        let raft = RaftThread::start().unwrap();
        let part = Part::begin(wiring, &raft, member, None).unwrap();
        Self { dir, run, told, views, part, _raft: raft, _ends: (epoch, status_sender) }
    }

    /// Has the node told, and carries out what comes of it.
    async fn tell(&mut self, to: Option<RaftId>) -> Result<(), String> {
        self.told.send_replace(to);
        let event = timeout(BOUND, self.part.next()).await.expect("it is told");
        let Event::Told(told) = event else { panic!("its part ended") };
        assert_eq!(told, to);
        self.part.change(told).await.map_err(|error| crate::error_chain(&error))
    }

    /// The Raft ids of the folder's record, of its log, and of the seat.
    fn lives(&self) -> [Option<u64>; 3] {
        let record = self.part.home().record().member.clone().unwrap();
        let voter = self.part.seat().get();
        let seat = voter.map(|voter| voter.consensus.status().borrow().id);
        let identity = std::fs::read_to_string(self.dir.path().join("identity.json"));
        let log = identity.ok().map(|text| {
            let identity: serde_json::Value = serde_json::from_str(&text).unwrap();
            identity["raft_id"].as_u64().unwrap()
        });
        [record.life().map(RaftId::get), log, seat]
    }

    fn marks(&self) -> usize {
        std::fs::read_dir(self.run.path()).unwrap().count()
    }
}

#[tokio::test]
async fn each_seat_has_a_log_of_its_own_and_an_agent_has_none() {
    let mut node = Node::new();
    assert_eq!((node.lives(), node.marks()), ([None; 3], 0));
    for number in [4, 7] {
        node.tell(life(number)).await.unwrap();
        assert_eq!((node.lives(), node.marks()), ([Some(number); 3], 1));
        assert_eq!(machine::moved(node.dir.path()), None, "the folder is bound to this log");
        let voter = node.part.seat().get().unwrap();
        assert_eq!(voter.consensus.status().borrow().role, Role::Learner, "it waits for a leader");
        let held = node.views.borrow().as_ref().map(|view| view.revision);
        assert_eq!(held, Some(9), "its kernel keeps what it has until the log is as new");
        node.tell(None).await.unwrap();
        assert_eq!((node.lives(), node.marks()), ([None; 3], 0));
    }
    let record = node.part.home().record().member.clone().unwrap();
    assert_eq!((record.epoch, record.raft_id), (5, life(7)), "it knows its last life");
}

#[tokio::test]
async fn a_life_that_is_over_is_not_begun_again() {
    let mut node = Node::new();
    node.tell(life(4)).await.unwrap();
    node.tell(None).await.unwrap();
    node.tell(life(4)).await.unwrap();
    assert_eq!(node.lives(), [None; 3], "it stays an agent");
    assert!(node.part.again.is_some(), "and looks again later");
}

/// Two seats came one after the other, and the node did not hear that it had lost the first one.
#[tokio::test]
async fn a_voter_that_is_another_member_by_now_says_so() {
    let mut node = Node::new();
    node.tell(life(4)).await.unwrap();
    let over = node.tell(life(6)).await.unwrap_err();
    assert!(over.contains("this node runs as member 4, and is member 6 by now"), "{over}");
}

/// Goes on into a newer generation when it is dropped, as a registration does that is answered at that moment.
struct Adopts(Directory);

impl Drop for Adopts {
    fn drop(&mut self) {
        assert!(self.0.generations().adopt(Generation::from_wire(2)));
    }
}

#[tokio::test]
async fn a_seat_is_not_taken_with_a_log_of_an_older_generation_than_the_node_is_of_by_then() {
    let mut node = Node::new();
    let adopts = Adopts(node.part.wiring.directory.clone());
    // It ends with the agent's tasks: the log is there by then, and does not vote yet.
    node.part.tasks.spawn("adopts", async move {
        let _adopts = adopts;
        std::future::pending::<()>().await;
    });
    let over = node.tell(life(4)).await.unwrap_err();
    let older = "this node's log is of generation 1 of the cluster, and a node is of generation 2:";
    assert!(over.starts_with(older), "{over}");
    node.part.shut_down().await;
}

/// What is in the way of the log, as a full disk would be.
#[tokio::test(start_paused = true)]
async fn a_seat_that_can_not_be_taken_is_tried_again() {
    let mut node = Node::new();
    let began = Instant::now();
    let in_the_way = node.dir.path().join("consensus.redb");
    std::fs::create_dir(&in_the_way).unwrap();
    node.tell(life(4)).await.unwrap();
    assert_eq!(node.lives()[2], None);
    std::fs::remove_dir(&in_the_way).unwrap();
    node.tell(life(4)).await.unwrap();
    assert!(began.elapsed() >= TAKE_AGAIN, "{:?}", began.elapsed());
    assert_eq!(node.lives(), [Some(4); 3]);
}

/// The views of a voter whose log is behind the view of the agent that it was.
#[tokio::test(start_paused = true)]
async fn no_view_is_older_than_the_one_before() {
    let (mut machine, state) = crate::control::voter::Machine::new();
    let held = View { revision: 2, ..View::default() };
    let (view, mut views) = sync_watch::channel(Some(Arc::new(held)));
    let directory = Directory::new(Uuid::new_v4(), []);
    tokio::spawn(watch::publish_views(1, state, directory, view));
    let mut apply = |revision: u64, command: Command| {
        use crate::control::consensus::StateMachine as _;
        let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
        let entry = Envelope::new(request, command).encode().unwrap();
        machine.apply(revision, &entry).unwrap().unwrap();
        machine.batch_applied(revision);
    };
    let node = |id: u8| Command::RegisterNode {
        instance: [id; 16],
        name: format!("h{id}").parse().unwrap(),
        vtep: [10, 0, 0, id].into(),
        listen: ([10, 0, 0, id], 7400).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
    };
    views.mark_unchanged();
    apply(1, node(1));
    let older = timeout(FOR_EVER, views.changed()).await;
    assert!(older.is_err(), "{:?}", views.borrow().as_ref().map(|view| view.revision));
    apply(2, node(2));
    timeout(BOUND, views.changed()).await.expect("a view").unwrap();
    let shown = views.borrow().as_ref().map(|view| (view.revision, view.nodes.len()));
    assert_eq!(shown, Some((2, 2)));
}
