//! What a voter does for itself instead of a watch stream: it publishes its own view, and reports to the leader.

use super::HEARTBEAT;
use crate::{
    control::{
        consensus,
        peers::{Directory, Outage, Peer},
        state::{State, StateHash, View},
        voter::{Hashes, SharedState, StatusTable, Verdict, to_wire, with_disk},
    },
    dataplane::kernel::LocalStatus,
    model::{NodeId, Revision},
    proto::internal::{ReportResponse, StatusReport},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Pause before a report stream that broke is opened again.
const REOPEN: Duration = Duration::from_millis(100);

/// Keeps `view` equal to the part of this voter's own state that concerns this node. Returns when the node is removed,
/// or when nobody reads the view any more.
pub async fn publish_views(
    id: NodeId,
    state: SharedState,
    directory: Directory,
    view: watch::Sender<Option<Arc<View>>>,
) -> super::Ended {
    let mut revision = state.revision();
    let mut own = OwnView::new(id);
    loop {
        let now = *revision.borrow_and_update();
        match own.follow(&state.copy(), now) {
            Own::Removed => return super::Ended::Removed,
            Own::NotYet => {}
            // One that was an agent until now has a view that is newer than what it has received of the log so far.
            Own::View(_) if view.borrow().as_ref().is_some_and(|held| held.revision > now) => {}
            Own::View(current) => {
                directory.replace(current.nodes.values().map(|node| Peer::from(&**node)));
                if view.send(Some(Arc::new(current))).is_err() {
                    return super::Ended::Stopped;
                }
            }
        }
        if revision.changed().await.is_err() {
            return super::Ended::Stopped;
        }
    }
}

/// A voter's view of its own state.
pub(crate) struct OwnView {
    id: NodeId,
    current: View,
    /// The state has had its node.
    seen: bool,
}

/// What a voter's own state says of its node.
pub(crate) enum Own {
    /// The node was removed.
    Removed,
    /// The node is not in the state yet: a voter that has just joined has not received the log.
    NotYet,
    /// What the node is to hold.
    View(View),
}

impl OwnView {
    pub(crate) fn new(id: NodeId) -> Self {
        Self { id, current: View::default(), seen: false }
    }

    /// Brings the view up to a state to which everything up to `now` was applied.
    pub(crate) fn follow(&mut self, state: &State, now: Revision) -> Own {
        let Self { id, current, seen } = self;
        if state.node(*id).is_none() {
            return if *seen { Own::Removed } else { Own::NotYet };
        }
        *seen = true;
        let held = current.networks.keys().copied().collect();
        current.apply(state.delta_for(*id, current.revision, &held));
        current.revision = now;
        Own::View(current.clone())
    }
}

/// Records this voter's own status, and passes on to the leader what nodes report to this voter. Returns when the node
/// ends.
pub async fn report_to_leader(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    cluster: watch::Receiver<consensus::Status>,
    directory: Directory,
    table: StatusTable,
    status: watch::Receiver<LocalStatus>,
    hashes: Hashes,
) {
    let own = record_own(id, epoch, cluster.clone(), table.clone(), status, hashes.clone());
    let pass_on = pass_on(id, cluster, directory, table, hashes);
    tokio::join!(own, pass_on);
}

async fn record_own(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    cluster: watch::Receiver<consensus::Status>,
    table: StatusTable,
    mut status: watch::Receiver<LocalStatus>,
    hashes: Hashes,
) {
    loop {
        let now = to_wire(id, *epoch.borrow(), &status.borrow_and_update());
        let disk = cluster.borrow().disk;
        table.record(hashes.tell(with_disk(now, disk)));
        if let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT, status.changed()).await {
            return;
        }
    }
}

async fn pass_on(
    id: NodeId,
    mut cluster: watch::Receiver<consensus::Status>,
    directory: Directory,
    table: StatusTable,
    hashes: Hashes,
) {
    let (mut told, mut outage) = (None, Outage::default());
    loop {
        let member = cluster.borrow_and_update().leader;
        let leader = member.and_then(|member| directory.node_of(member));
        let leader = leader.filter(|leader| *leader != id);
        let (Some(member), Some(peer)) = (member, leader.and_then(|id| directory.peer(id))) else {
            // This node leads and needs no report, or no leader is known.
            tokio::select! {
                changed = cluster.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            continue;
        };
        let (up, receiver) = mpsc::channel(1);
        let mut client = directory.client(&peer);
        let leader = peer.id;
        if told.replace(leader) != Some(leader) {
            outage = Outage::default();
        }
        let reported = async {
            tokio::select! {
                ended = client.report(ReceiverStream::new(receiver)) => match ended {
                    Ok(answer) => {
                        hashes.note(verdict(&answer.into_inner()));
                        None
                    }
                    Err(error) => Some(error),
                },
                () = send_reports(id, &table, &hashes, up) => None,
            }
        };
        let again = || tracing::info!(leader, "statuses go to the leader again");
        tokio::select! {
            ended = outage.follow(reported, again) => if let Some(error) = ended {
                let (code, why) = (error.code(), error.message());
                if outage.ended(code) {
                    tracing::info!(leader, ?code, why, "statuses do not go to the leader: trying again");
                } else {
                    tracing::debug!(leader, ?code, why, "report ended");
                }
            },
            another = another_leader(&mut cluster, member) => {
                if another.is_err() {
                    return;
                }
                continue;
            }
        }
        tokio::time::sleep(REOPEN).await;
    }
}

async fn another_leader(
    cluster: &mut watch::Receiver<consensus::Status>,
    member: u64,
) -> Result<(), watch::error::RecvError> {
    cluster.wait_for(|status| status.leader != Some(member)).await.map(drop)
}

/// What the leader found of this node's state.
fn verdict(answer: &ReportResponse) -> Option<Verdict> {
    let revision = Some(answer.differs_at).filter(|revision| *revision > 0)?;
    Some(Verdict { revision, majority: StateHash::try_from(&*answer.majority).ok() })
}

async fn send_reports(
    node_id: NodeId,
    table: &StatusTable,
    hashes: &Hashes,
    up: mpsc::Sender<StatusReport>,
) {
    let mut changed = table.watch();
    loop {
        let differs_at = hashes.own().borrow().map_or(0, |verdict| verdict.revision);
        let report = StatusReport { nodes: table.first_hand(), node_id, differs_at };
        if up.send(report).await.is_err() {
            return;
        }
        if let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT, changed.changed()).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{
        consensus::{DiskTimes, StateMachine as _},
        state::{Command, Envelope, Mutation},
        voter::Machine,
        watch::Ended,
    };
    use std::net::Ipv4Addr;
    use tokio::{task::JoinHandle, time::timeout};
    use uuid::Uuid;

    /// Virtual time: what has not happened by then never will.
    const FOR_EVER: Duration = Duration::from_secs(3600);

    type Views = watch::Receiver<Option<Arc<View>>>;

    /// A voter whose log is written by hand. Its node has id 1, the first that is given.
    struct Voter {
        machine: Machine,
        revision: Revision,
        directory: Directory,
        views: Option<Views>,
        publishes: JoinHandle<Ended>,
    }

    impl Voter {
        fn new() -> Self {
            let (machine, state) = Machine::new();
            let listen = (Ipv4Addr::new(10, 10, 10, 9), 7400).into();
            let directory = Directory::new(
                Uuid::new_v4(),
                [Peer { id: 9, listen, voter: true, raft_id: None }],
            );
            let (sender, views) = watch::channel(None);
            let publishes = tokio::spawn(publish_views(1, state, directory.clone(), sender));
            Self { machine, revision: 0, directory, views: Some(views), publishes }
        }

        fn apply(&mut self, command: Command) {
            self.revision += 1;
            let request = u128::from(self.revision).to_be_bytes();
            let entry = Envelope::new(Mutation::new(request, &command), command).encode().unwrap();
            self.machine.apply(self.revision, &entry).unwrap().unwrap();
            self.machine.batch_applied(self.revision);
        }

        fn register(&mut self, number: u8) {
            let address = Ipv4Addr::new(10, 10, 10, number);
            self.apply(Command::RegisterNode {
                instance: [number; 16],
                name: format!("h{number}").parse().unwrap(),
                vtep: address.into(),
                listen: (address, 7400).into(),
                returning: None,
                gateway: None,
                metrics: None,
                local_listen: None,
                speaks: None,
            });
        }

        fn remove(&mut self, name: &str) {
            self.apply(Command::RemoveNode {
                name: name.parse().unwrap(),
                only: None,
                with_endpoints: false,
            });
        }

        /// The nodes in the view once it is as new as the log, and those in the directory.
        async fn nodes(&mut self) -> [Vec<NodeId>; 2] {
            let newest = self.revision;
            let is_newest =
                |view: &Option<Arc<View>>| view.as_ref().is_some_and(|v| v.revision == newest);
            let views = self.views.as_mut().unwrap();
            let view = timeout(FOR_EVER, views.wait_for(is_newest)).await.unwrap().unwrap();
            let nodes = view.as_ref().unwrap().nodes.keys().copied().collect();
            [nodes, self.directory.peers().iter().map(|peer| peer.id).collect()]
        }

        async fn ended(self) -> Ended {
            timeout(FOR_EVER, self.publishes).await.unwrap().unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_publishes_its_own_state_to_itself() {
        let mut voter = Voter::new();
        voter.register(1);
        assert_eq!(voter.nodes().await, [[1], [1]]);
        voter.register(2);
        assert_eq!(voter.nodes().await, [[1, 2], [1, 2]]);
        voter.remove("h2");
        assert_eq!(voter.nodes().await, [[1], [1]]);
        // An entry of the consensus layer's own, which changes no row.
        voter.revision += 1;
        voter.machine.batch_applied(voter.revision);
        assert_eq!(voter.nodes().await, [[1], [1]], "the view is as new as the log");
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_that_was_removed_ends() {
        let mut voter = Voter::new();
        voter.register(1);
        voter.register(2);
        voter.nodes().await;
        voter.remove("h1");
        assert!(matches!(voter.ended().await, Ended::Removed));
    }

    /// A log that is still being received begins before the node was registered.
    #[tokio::test(start_paused = true)]
    async fn a_voter_that_is_not_yet_in_its_own_state_waits() {
        let mut voter = Voter::new();
        let network = "net".parse().unwrap();
        voter.apply(Command::CreateNetwork {
            name: network,
            pool: None,
            vni: None,
            options: crate::model::NetworkOptions::default(),
        });
        let published = timeout(FOR_EVER, voter.views.as_mut().unwrap().changed()).await;
        assert!(published.is_err(), "{published:?}");
        voter.register(1);
        assert_eq!(voter.nodes().await, [[1], [1]]);
        voter.views = None;
        voter.register(2);
        assert!(matches!(voter.ended().await, Ended::Stopped), "nobody reads its views");
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_records_its_own_status_at_each_change() {
        let table = StatusTable::default();
        let status = watch::Sender::new(LocalStatus { programmed: 5, ..LocalStatus::default() });
        let (epoch, seen) = (watch::Sender::new(7), status.subscribe());
        let disk = DiskTimes { writes: 3, average: Duration::from_millis(7) };
        let cluster = watch::Sender::new(consensus::Status { disk, ..Default::default() });
        let members = cluster.subscribe();
        let hashes = Hashes::default();
        let records = record_own(1, epoch.subscribe(), members, table.clone(), seen, hashes);
        let records = tokio::spawn(records);
        let recorded = |table: &StatusTable| -> Vec<(NodeId, Revision, Revision)> {
            let own = table.first_hand();
            own.iter().map(|s| (s.node_id, s.epoch, s.programmed_revision)).collect()
        };
        let mut changed = table.watch();
        timeout(FOR_EVER, changed.wait_for(|version| *version == 1)).await.unwrap().unwrap();
        assert_eq!(recorded(&table), [(1, 7, 5)]);
        assert_eq!(table.disk(1), Some(disk), "and how long its disk takes");
        status.send_modify(|status| status.programmed = 6);
        timeout(FOR_EVER, changed.wait_for(|version| *version == 2)).await.unwrap().unwrap();
        assert_eq!(recorded(&table), [(1, 7, 6)]);
        drop(status);
        timeout(FOR_EVER, records).await.unwrap().unwrap();
    }
}
