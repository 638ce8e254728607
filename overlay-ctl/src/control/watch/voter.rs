//! What a voter does for itself instead of a watch stream: it publishes its own view, and reports to the leader.

use super::HEARTBEAT;
use crate::{
    control::{
        consensus::Consensus,
        peers::{Directory, Peer},
        state::View,
        voter::{Machine, SharedState, StatusTable, to_wire},
    },
    dataplane::kernel::LocalStatus,
    model::{NodeId, Revision},
    proto::internal::StatusReport,
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
    let mut current = View::default();
    let mut seen = false;
    loop {
        let now = *revision.borrow_and_update();
        let held = current.networks.keys().copied().collect();
        let (delta, known) = state
            .read(|state| (state.delta_for(id, current.revision, &held), state.node(id).is_some()));
        if seen && !known {
            return super::Ended::Removed;
        }
        // A voter that has just joined is not in its own state before it has received the log.
        if known {
            seen = true;
            current.apply(delta);
            current.revision = now;
            directory.replace(current.nodes.values().map(|node| Peer::from(&**node)));
            if view.send(Some(Arc::new(current.clone()))).is_err() {
                return super::Ended::Stopped;
            }
        }
        if revision.changed().await.is_err() {
            return super::Ended::Stopped;
        }
    }
}

/// Records this voter's own status, and passes on to the leader what nodes report to this voter. Returns when the node
/// ends.
pub async fn report_to_leader(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    consensus: Consensus<Machine>,
    directory: Directory,
    table: StatusTable,
    status: watch::Receiver<LocalStatus>,
) {
    let own = record_own(id, epoch, table.clone(), status);
    let pass_on = pass_on(id, consensus, directory, table);
    tokio::join!(own, pass_on);
}

async fn record_own(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    table: StatusTable,
    mut status: watch::Receiver<LocalStatus>,
) {
    loop {
        let now = to_wire(id, *epoch.borrow(), &status.borrow_and_update());
        table.record(now);
        if let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT, status.changed()).await {
            return;
        }
    }
}

async fn pass_on(
    id: NodeId,
    consensus: Consensus<Machine>,
    directory: Directory,
    table: StatusTable,
) {
    let mut members = consensus.status();
    loop {
        let leader = members.borrow_and_update().leader.filter(|leader| *leader != id);
        let Some(peer) = leader.and_then(|leader| directory.peer(leader)) else {
            // This node leads and needs no report, or no leader is known.
            tokio::select! {
                changed = members.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            continue;
        };
        let (up, receiver) = mpsc::channel(1);
        let mut client = directory.client(&peer);
        tokio::select! {
            ended = client.report(ReceiverStream::new(receiver)) => {
                if let Err(error) = ended {
                    tracing::debug!(leader = peer.id, code = ?error.code(), "report ended");
                }
            }
            () = send_reports(&table, up) => {}
            () = another_leader(&mut members, peer.id) => continue,
        }
        tokio::time::sleep(REOPEN).await;
    }
}

async fn another_leader(
    members: &mut watch::Receiver<crate::control::consensus::Status>,
    leader: NodeId,
) {
    // An error means that consensus has stopped; then the loop above ends.
    drop(members.wait_for(|status| status.leader != Some(leader)).await);
}

async fn send_reports(table: &StatusTable, up: mpsc::Sender<StatusReport>) {
    let mut changed = table.watch();
    loop {
        changed.borrow_and_update();
        if up.send(StatusReport { nodes: table.first_hand() }).await.is_err() {
            return;
        }
        if let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT, changed.changed()).await {
            return;
        }
    }
}
