//! When a node registers, and what it takes from the answer.

use super::*;
use crate::{
    control::{
        consensus::{Identity, LogStore},
        state::State,
    },
    node::{
        cluster::start_voter,
        fake_voter::{at, serve},
    },
    proto::v1::StatusResponse,
};
use tokio::time::timeout;

/// Virtual time: what has not happened by then never will.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn addresses(last: u8) -> Addresses {
    Addresses {
        vtep: [10, 0, 0, last].into(),
        listen: at(last),
        local_listen: None,
        gateway: "172.18.0.0/16".parse().unwrap(),
        metrics: None,
    }
}

fn of_h4() -> Registration {
    Registration {
        name: "h4".parse().unwrap(),
        instance: Uuid::new_v4(),
        addresses: addresses(4),
        vxlan_port: 4789,
        token: None,
        incarnation: Incarnation::new_v4(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_registers_at_once_if_it_is_asked_to_or_has_another_address() {
    let cluster = Uuid::new_v4();
    let directory =
        Directory::new(cluster, [Peer { id: 1, listen: at(1), voter: true, raft_id: None }]);
    let peers = vec![v1::Node { id: 2, listen: at(22).to_string(), ..v1::Node::default() }];
    let role = NodeRole::Voter.into();
    let answer = JoinResponse { epoch: 9, role, raft_id: 7, peers, ..JoinResponse::default() };
    let voter = (&directory, at(1));
    let mut joined = serve(cluster, voter, StatusResponse::default(), answer);
    let member = Member { cluster, id: 4, voter: false, epoch: 1, raft_id: None };
    let registration = of_h4();
    let (own, told) = watch::channel(registration.addresses);
    let (epoch, mut epochs) = watch::channel(member.epoch);
    let (life, mut lives) = watch::channel(None);
    let (shared, says) = (directory.clone(), (epoch, life));
    let seat = Seat::default();
    tokio::spawn(keep_registered(registration, told, member, shared, None, seat, says));
    let mut next = async || {
        let joined = timeout(FOR_EVER, joined.recv()).await;
        joined.expect("it registers").expect("the voter serves")
    };
    let first = next().await;
    timeout(FOR_EVER, epochs.wait_for(|epoch| *epoch == 9)).await.unwrap().unwrap();
    assert_eq!(directory.places(2), [at(22)], "the answer says where the voters are");
    let wanted = timeout(FOR_EVER, lives.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert_eq!(*wanted, RaftId::new(7), "and that this node has a seat");
    drop(wanted);

    directory.ask_to_register();
    let asked = next().await;
    assert_eq!(asked - first, ASKED_AGAIN);
    own.send_replace(addresses(44));
    let moved = next().await;
    assert_eq!(moved, asked);
    let last = next().await;
    assert_eq!(last - moved, REGISTER_AGAIN, "nothing else was new");
}

#[tokio::test(start_paused = true)]
async fn a_node_hears_that_a_second_process_asks_to_be_it() {
    let cluster = Uuid::new_v4();
    let peer = Peer { id: 1, listen: at(1), voter: true, raft_id: None };
    let directory = Directory::new(cluster, [peer]);
    let copy_at = at(77).to_string();
    let answer = JoinResponse { epoch: 9, copy_at, ..JoinResponse::default() };
    let voter = (&directory, at(1));
    let mut joined = serve(cluster, voter, StatusResponse::default(), answer);
    let member = Member { cluster, id: 4, voter: false, epoch: 1, raft_id: None };
    let registration = of_h4();
    let (_own, told) = watch::channel(registration.addresses);
    let (epoch, mut epochs) = watch::channel(member.epoch);
    let (life, _lives) = watch::channel(None);
    let (shown, seat, says) = (directory.clone(), Seat::default(), (epoch, life));
    tokio::spawn(keep_registered(registration, told, member, shown, None, seat, says));
    timeout(FOR_EVER, joined.recv()).await.expect("it registers").expect("it serves");
    timeout(FOR_EVER, epochs.wait_for(|epoch| *epoch == 9)).await.unwrap().unwrap();
    assert_eq!(directory.own_copy(), Some(at(77)));
}

/// An agent has no log: it goes on into the newer generation. A voter has to end first.
#[tokio::test(start_paused = true)]
async fn an_agent_goes_on_into_a_newer_generation_that_takes_its_registration() {
    for (has_log, ours) in [(false, 3), (true, 1)] {
        let cluster = Uuid::new_v4();
        let peer = Peer { id: 1, listen: at(1), voter: true, raft_id: None };
        let directory = Directory::new(cluster, [peer]);
        let answer = JoinResponse { epoch: 9, generation: 3, ..JoinResponse::default() };
        let voter = (&directory, at(1));
        let mut joined = serve(cluster, voter, StatusResponse::default(), answer);
        let member = Member { cluster, id: 4, voter: has_log, epoch: 1, raft_id: None };
        let registration = of_h4();
        let (_own, told) = watch::channel(registration.addresses);
        let (epoch, mut epochs) = watch::channel(member.epoch);
        let (life, lives) = watch::channel(RaftId::new(4));
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { cluster, name: "h4".to_owned(), raft_id: 4 };
        let snapshot = State::default().snapshot();
        let log = LogStore::bootstrap(folder.path(), identity, &snapshot).unwrap();
        let (parts, ..) = start_voter(log).unwrap();
        let seat = Seat::from(has_log.then_some(parts));
        let (shown, says) = (directory.clone(), (epoch, life));
        tokio::spawn(keep_registered(registration, told, member, shown, None, seat, says));
        timeout(FOR_EVER, joined.recv()).await.expect("it registers").expect("it serves");
        timeout(FOR_EVER, epochs.wait_for(|epoch| *epoch == 9)).await.unwrap().unwrap();
        tokio::task::yield_now().await;
        assert_eq!(directory.generations().ours().number(), ours, "has a log: {has_log}");
        let keeps_its_seat = lives.borrow().is_some();
        assert_eq!(
            keeps_its_seat, has_log,
            "a newer generation takes no log from a node that runs"
        );
    }
}

/// The folder of an agent may be a copy from before the node had its seat.
#[tokio::test(start_paused = true)]
async fn an_agent_asks_for_another_life_where_the_one_that_it_is_told_may_have_voted() {
    for (life_used, has_log, told_life) in [(true, false, 8), (false, false, 7), (true, true, 7)] {
        let cluster = Uuid::new_v4();
        let peer = Peer { id: 1, listen: at(1), voter: true, raft_id: None };
        let directory = Directory::new(cluster, [peer]);
        let role = NodeRole::Voter.into();
        let answer =
            JoinResponse { epoch: 9, role, raft_id: 7, life_used, ..JoinResponse::default() };
        let voter = (&directory, at(1));
        let _joins = serve(cluster, voter, StatusResponse::default(), answer);
        let member = Member { cluster, id: 4, voter: has_log, epoch: 1, raft_id: None };
        let registration = of_h4();
        let (_own, told) = watch::channel(registration.addresses);
        let (epoch, mut epochs) = watch::channel(member.epoch);
        let (life, lives) = watch::channel(None);
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { cluster, name: "h4".to_owned(), raft_id: 7 };
        let snapshot = State::default().snapshot();
        let log = LogStore::bootstrap(folder.path(), identity, &snapshot).unwrap();
        let (parts, ..) = start_voter(log).unwrap();
        let seat = Seat::from(has_log.then_some(parts));
        let (shared, says) = (directory.clone(), (epoch, life));
        tokio::spawn(keep_registered(registration, told, member, shared, None, seat, says));
        timeout(FOR_EVER, epochs.wait_for(|epoch| *epoch == 9)).await.unwrap().unwrap();
        assert_eq!(*lives.borrow(), RaftId::new(told_life), "used: {life_used}, log: {has_log}");
    }
}
