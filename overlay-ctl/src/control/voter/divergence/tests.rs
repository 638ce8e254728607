//! Voters whose states differ, as a defect would make them: one of them applies another command.

use super::*;
use crate::{
    control::{
        consensus::{
            Alarm, ConsensusConfig, FatalError, FatalHook, Identity, LogStore, PeerQueues,
            StateMachine as _,
        },
        state::{Command, Envelope, Mutation},
        voter::{Leaving, Quorum, SharedState, tests::register},
    },
    model::NetworkOptions,
    proto::internal::NodeStatus,
};
use futures::future::join_all;
use std::sync::{Arc, mpsc};
use tokio::time::timeout;
use uuid::Uuid;

const BOUND: Duration = Duration::from_secs(60);
const DUE: Revision = 1024;

fn hash(of: u8) -> StateHash {
    [of; 32]
}

/// Compares what nodes 1 to 3, which vote, and the learner 4 told: a hash of each revision, as a letter.
fn compared(told: [&[(Revision, u8)]; 4]) -> Comparison {
    let told = (1..).zip(told).map(|(node, told)| {
        (node, told.iter().map(|(revision, of)| (*revision, hash(*of))).collect())
    });
    compare(&[1, 2, 3].into(), &told.collect())
}

fn differs(revision: Revision, majority: Option<u8>) -> Verdict {
    Verdict { revision, majority: majority.map(hash) }
}

#[test]
fn the_minority_differs_from_the_majority() {
    let same: &[_] = &[(1024, b'a'), (2048, b'b')];
    let found = compared([same, same, same, same]);
    assert_eq!(found, Comparison { agreed: Some(2048), ..Comparison::default() });
    let other: &[_] = &[(1024, b'a'), (2048, b'x')];
    for (who, told) in [
        (1, [other, same, same, same]),
        (3, [same, same, other, same]),
        // A learner does not count, and is judged.
        (4, [same, same, same, other]),
    ] {
        let found = compared(told);
        let differing = [(who, differs(2048, Some(b'b')))].into();
        assert_eq!(found, Comparison { differing, agreed: Some(2048) }, "node {who}");
    }
}

#[test]
fn a_node_is_judged_by_its_latest_revision_that_a_majority_told() {
    let same: &[_] = &[(1024, b'a'), (2048, b'b')];
    // It lags behind, and differed before.
    let found = compared([same, same, &[(1024, b'x')], &[]]);
    let differing = [(3, differs(1024, Some(b'a')))].into();
    assert_eq!(found, Comparison { differing, agreed: Some(2048) });
    // Its state was replaced since.
    let found = compared([same, same, &[(1024, b'x'), (2048, b'b')], &[]]);
    assert_eq!(found, Comparison { agreed: Some(2048), ..Comparison::default() });
    // It has come so far alone, or nobody else tells anything.
    let ahead: &[_] = &[(1024, b'a'), (2048, b'x')];
    let found = compared([ahead, &[(1024, b'a')], &[(1024, b'a')], &[]]);
    assert_eq!(found, Comparison { agreed: Some(1024), ..Comparison::default() });
    assert_eq!(compared([ahead, &[], &[], &[]]), Comparison::default());
    assert_eq!(compared([&[]; 4]), Comparison::default());
}

#[test]
fn where_no_majority_has_the_same_it_is_said_of_each() {
    let [a, b, c]: [&[(Revision, u8)]; 3] = [&[(1024, b'a')], &[(1024, b'b')], &[(1024, b'c')]];
    let all = |nodes: &[NodeId]| Comparison {
        differing: nodes.iter().map(|node| (*node, differs(1024, None))).collect(),
        agreed: None,
    };
    assert_eq!(compared([a, b, c, &[]]), all(&[1, 2, 3]));
    // The third one is down.
    assert_eq!(compared([a, b, &[], &[]]), all(&[1, 2]));
    // It may decide, as soon as it tells.
    let found = compared([a, b, b, &[]]);
    let differing = [(1, differs(1024, Some(b'b')))].into();
    assert_eq!(found, Comparison { differing, agreed: Some(1024) });
}

#[test]
fn of_one_voter_and_a_learner_the_voter_is_right() {
    let [a, b]: [Told; 2] = [b'a', b'b'].map(|of| [(1024, hash(of))].into());
    let found = compare(&[1].into(), &[(1, a), (2, b)].into());
    let differing = [(2, differs(1024, Some(b'a')))].into();
    assert_eq!(found, Comparison { differing, agreed: Some(1024) });
}

/// A voter's state machine, which applies commands that are given to it as if they were committed.
struct Voter {
    machine: Machine,
    state: SharedState,
    revision: Revision,
}

impl Voter {
    fn new() -> Self {
        let (machine, state) = Machine::new();
        Self { machine, state, revision: 0 }
    }

    fn apply(&mut self, name: &str) {
        self.revision += 1;
        let command = Command::CreateNetwork {
            name: name.parse().unwrap(),
            pool: None,
            vni: None,
            options: NetworkOptions::default(),
        };
        let request = u128::from(self.revision).to_be_bytes();
        let entry = Envelope::new(Mutation::new(request, &command), command).encode().unwrap();
        drop(self.machine.apply(self.revision, &entry).unwrap());
    }

    /// Applies commands until a hash is due, the one at `at` with another name; returns when the hash is made.
    async fn runs(&mut self, at: Option<Revision>) {
        let mut made = self.state.hashes().made();
        let before = *made.borrow_and_update();
        while self.revision < DUE {
            let number = self.revision + 1;
            // Most of them are refused, because the name is taken: refusals are part of the state, too.
            let name =
                if Some(number) == at { "planted".to_owned() } else { format!("n{}", number % 50) };
            self.apply(&name);
        }
        timeout(BOUND, made.wait_for(|made| *made > before)).await.unwrap().unwrap();
    }

    fn status(&self, node_id: NodeId) -> NodeStatus {
        self.state.hashes().tell(NodeStatus { node_id, ..NodeStatus::default() })
    }
}

#[tokio::test]
async fn the_same_log_has_one_hash_and_one_command_that_differs_another_one() {
    let mut voters = [Voter::new(), Voter::new(), Voter::new()];
    let [first, second, third] = &mut voters;
    first.runs(None).await;
    second.runs(None).await;
    third.runs(Some(700)).await;
    let table = StatusTable::default();
    let mut told = BTreeMap::new();
    for (node, voter) in (1..).zip(&voters) {
        table.record(voter.status(node));
        told.insert(node, table.state_hashes(node, HASH_VERSION).expect("it told"));
        assert_eq!(table.state_hashes(node, HASH_VERSION + 1), None, "of another program");
    }
    let right = voters[0].state.hashes().at(DUE).expect("it is due");
    let found = compare(&[1, 2, 3].into(), &told);
    let differing = [(3, Verdict { revision: DUE, majority: Some(right) })].into();
    assert_eq!(found, Comparison { differing, agreed: Some(DUE) });
}

#[tokio::test]
async fn a_state_that_was_replaced_is_not_judged_by_what_it_was() {
    let mut voter = Voter::new();
    voter.runs(Some(3)).await;
    let hashes = voter.state.hashes().clone();
    assert!(hashes.at(DUE).is_some());
    let other = Machine::new().0.snapshot();
    voter.machine.restore(Machine::read_snapshot(&other).unwrap());
    assert_eq!(hashes.at(DUE), None);
    assert!(hashes.tell(NodeStatus::default()).state_hashes.is_empty());
}

#[test]
fn what_is_found_is_told_until_it_is_noted() {
    let hashes = Hashes::default();
    let verdict = differs(DUE, Some(b'a'));
    let news = hashes.find([(3, verdict)].into(), Some(DUE));
    assert_eq!(news, [(3, verdict)]);
    assert_eq!(hashes.find([(3, verdict)].into(), Some(DUE)), [], "it was said");
    assert_eq!((hashes.findings(), hashes.agreed()), (1, DUE));
    assert_eq!(hashes.to_tell(2, 0), None, "it has the same");
    let told = hashes.to_tell(3, 0).expect("it does not know");
    assert_eq!((told.differs_at, told.majority), (DUE, hash(b'a').to_vec()));
    assert_eq!(hashes.to_tell(3, DUE), None, "it has noted it");
    hashes.find(BTreeMap::new(), None);
    assert_eq!(hashes.to_tell(3, DUE).map(|told| told.differs_at), Some(0), "it is over");
}

/// A voter that is alone, with a real log, and the errors that end it.
fn alone() -> (tempfile::TempDir, VoterParts, mpsc::Receiver<FatalError>) {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity { cluster: Uuid::new_v4(), name: "h1".to_owned(), raft_id: 1 };
    let log = LogStore::bootstrap(dir.path(), identity, &State::default().snapshot()).unwrap();
    let (machine, state) = Machine::new();
    let (sender, ended) = mpsc::channel();
    let on_fatal: FatalHook = Arc::new(move |error| drop(sender.send(error)));
    let tick = Duration::from_millis(10);
    let config = ConsensusConfig { tick, on_fatal, ..ConsensusConfig::default() };
    let consensus = Consensus::start(config, log, machine, PeerQueues::new(8)).unwrap();
    let parts = VoterParts {
        consensus,
        state,
        table: StatusTable::default(),
        leaving: Leaving::default(),
        quorum: Quorum::default(),
    };
    (dir, parts, ended)
}

/// Writes until a hash is made, which is that of the first revision that is due.
async fn fill(voter: &VoterParts) -> StateHash {
    let mut made = voter.state.hashes().made();
    let entries = (0..DUE).map(|number| {
        let name = format!("n{}", number % 50).parse().unwrap();
        let options = NetworkOptions::default();
        let command = Command::CreateNetwork { name, pool: None, vni: None, options };
        let request = Mutation::new(u128::from(number + 7_000).to_be_bytes(), &command);
        voter.state.read(|state| state.entry(request, command)).encode().unwrap()
    });
    let written = join_all(entries.map(|entry| voter.consensus.propose(entry)));
    for written in timeout(BOUND, written).await.unwrap() {
        drop(written.unwrap());
    }
    timeout(BOUND, made.wait_for(|made| *made > 0)).await.unwrap().unwrap();
    voter.state.hashes().at(DUE).expect("it is due")
}

/// Which alarm there is.
async fn has_alarm(voter: &VoterParts, alarm: Option<Alarm>) {
    let mut status = voter.consensus.status();
    let is_so = status.wait_for(|status| status.alarms.first() == alarm.as_ref());
    timeout(BOUND, is_so).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_leader_finds_the_voter_that_differs() {
    let (_dir, voter, ended) = alone();
    for number in [1, 2] {
        register(&voter, number).await;
    }
    let right = fill(&voter).await;
    let hashes = voter.state.hashes();
    let compares = tokio::spawn(compare_the_states(1, voter.clone()));
    let own = hashes.tell(NodeStatus { node_id: 1, ..NodeStatus::default() });
    let mut other = NodeStatus { node_id: 2, ..own.clone() };
    other.state_hashes[0].hash = hash(b'x').to_vec();
    let found = async {
        loop {
            for status in [&own, &other] {
                voter.table.record(status.clone());
            }
            if let Some(told) = hashes.to_tell(2, 0) {
                return told;
            }
            tokio::task::yield_now().await;
        }
    };
    let told = timeout(BOUND, found).await.expect("it is found");
    assert_eq!((told.differs_at, told.majority), (DUE, right.to_vec()));
    assert_eq!((*hashes.own().borrow(), hashes.agreed(), hashes.findings()), (None, DUE, 1));
    assert!(ended.try_recv().is_err(), "the leader itself goes on");
    voter.consensus.shutdown().await;
    timeout(BOUND, compares).await.expect("it ends with consensus").unwrap();
}

#[tokio::test]
async fn a_voter_heeds_what_is_found_of_a_state_that_it_had() {
    let (_dir, voter, ended) = alone();
    let right = fill(&voter).await;
    let hashes = voter.state.hashes().clone();
    let heeds = tokio::spawn(heed_the_comparison(hashes.clone(), voter.consensus.clone()));
    hashes.note(Some(differs(DUE, None)));
    has_alarm(&voter, Some(Alarm::Differs { revision: DUE })).await;
    // It had no such state, or the one that it is told of.
    for verdict in [differs(DUE + 1, Some(b'x')), Verdict { revision: DUE, majority: Some(right) }]
    {
        hashes.note(Some(verdict));
        has_alarm(&voter, None).await;
        hashes.note(Some(differs(DUE, None)));
        has_alarm(&voter, Some(Alarm::Differs { revision: DUE })).await;
    }
    assert!(ended.try_recv().is_err(), "it goes on");
    hashes.note(Some(differs(DUE, Some(b'x'))));
    timeout(BOUND, heeds).await.expect("it ends with consensus").unwrap();
    let error = ended.recv_timeout(BOUND).unwrap();
    assert!(matches!(error, FatalError::Differs { revision: DUE }), "{error}");
    assert!(error.ends_in_order());
}
