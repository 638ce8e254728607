//! A voter that is alone, with a real log: it leads, and its members follow the rows.

use super::*;
use crate::{
    control::{
        consensus::{ConsensusConfig, Identity, LogStore, PeerQueues, Status},
        state::{Command, Mutation, State},
    },
    model::{NodeId, SPEAKS},
};
use std::{net::Ipv4Addr, sync::mpsc, time::Duration};
use tempfile::TempDir;
use tokio::time::{self, timeout};
use uuid::Uuid;

const BOUND: Duration = Duration::from_secs(60);

/// A voter with id 1. What it writes is in the folder, for as long as that lives.
pub(super) fn alone() -> (TempDir, VoterParts) {
    alone_in(Uuid::new_v4(), &State::default())
}

/// The same of a cluster with this id, whose log begins with this state.
pub(in crate::control) fn alone_in(cluster: Uuid, first: &State) -> (TempDir, VoterParts) {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity { cluster, name: "h1".to_owned(), raft_id: 1 };
    let log = LogStore::bootstrap(dir.path(), identity, &first.snapshot()).unwrap();
    (dir, start(log))
}

/// A voter with this log.
pub(super) fn start(log: LogStore) -> VoterParts {
    let (machine, state) = Machine::new();
    let config = ConsensusConfig { tick: Duration::from_millis(10), ..Default::default() };
    let consensus = Consensus::start(config, log, machine, PeerQueues::new(8)).unwrap();
    VoterParts {
        consensus,
        state,
        table: StatusTable::default(),
        leaving: Leaving::default(),
        quorum: Quorum::default(),
    }
}

/// Registers a node, as itself or again.
pub(super) async fn register(voter: &VoterParts, number: u8) {
    let address = Ipv4Addr::new(10, 0, 0, number);
    let command = Command::RegisterNode {
        instance: [number; 16],
        name: format!("h{number}").parse().unwrap(),
        vtep: address.into(),
        listen: (address, 7400).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: voter.state.read(|state| (!state.version().is_first()).then_some(SPEAKS)),
    };
    write(voter, command).await;
}

pub(super) async fn write(voter: &VoterParts, command: Command) {
    let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
    let entry = voter.state.read(|state| state.entry(request, command)).encode().unwrap();
    timeout(BOUND, voter.consensus.propose(entry)).await.unwrap().unwrap().1.unwrap();
}

pub(super) async fn until(voter: &VoterParts, is_so: impl FnMut(&Status) -> bool) {
    let mut status = voter.consensus.status();
    timeout(BOUND, status.wait_for(is_so)).await.expect("within the bound").unwrap();
}

/// Makes virtual time stand still, but for what the test advances it, until the returned value is dropped.
pub(super) fn stand_still() -> mpsc::Sender<()> {
    let (still, over) = mpsc::channel();
    // It passes by itself only while no such task runs.
    tokio::task::spawn_blocking(move || over.recv());
    still
}

#[tokio::test(start_paused = true)]
async fn nodes_have_the_time_to_report_from_when_their_leader_begins() {
    let _still = stand_still();
    let (_dir, voter) = alone();
    until(&voter, |status| status.leader == Some(1)).await;
    register(&voter, 1).await;
    time::advance(NODE_DOWN_AFTER).await;
    assert!(voter.table.is_down(9), "it might have reported to the leader before");
    tokio::spawn(follow_the_rows(voter.clone()));
    // Once the rows are followed the leader has begun.
    register(&voter, 2).await;
    until(&voter, |status| status.learners == [2]).await;
    assert!(!voter.table.is_down(9), "it had no time to report here");
    time::advance(NODE_DOWN_AFTER).await;
    register(&voter, 3).await;
    until(&voter, |status| status.learners == [2, 3]).await;
    assert!(voter.table.is_down(9), "it had the time");
}

#[tokio::test]
async fn a_leader_makes_those_members_that_have_a_row() {
    let (_dir, voter) = alone();
    until(&voter, |status| status.leader == Some(1)).await;
    register(&voter, 1).await;
    let follows = tokio::spawn(follow_the_rows(voter.clone()));
    let is_member = |status: &Status, id: NodeId| {
        [&status.voters, &status.learners].iter().any(|ids| ids.contains(&id))
    };
    register(&voter, 2).await;
    until(&voter, |status| is_member(status, 2)).await;
    let remove =
        Command::RemoveNode { name: "h2".parse().unwrap(), only: None, with_endpoints: false };
    write(&voter, remove).await;
    until(&voter, |status| !is_member(status, 2)).await;
    voter.consensus.shutdown().await;
    timeout(BOUND, follows).await.expect("consensus ended").unwrap();
}
