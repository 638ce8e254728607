use super::{key_to_wire, row_to_wire};
use crate::{
    control::{
        state::{Delta, RowKey},
        voter::{SharedState, StatusTable},
    },
    model::{NetworkId, NodeId},
    proto::internal::{WatchDown, WatchHello, WatchUp, watch_up::Up},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

/// A voter that knows no leader for so long sends its agents to another one.
const LEADERLESS: Duration = Duration::from_secs(3);

/// Serves one agent: its statuses in, deltas out.
///
/// # Errors
/// The stream does not begin with a hello from a node of this cluster, at its present epoch.
pub async fn serve_agent(
    state: SharedState,
    table: StatusTable,
    cluster: watch::Receiver<crate::control::consensus::Status>,
    mut up: Streaming<WatchUp>,
) -> Result<impl Stream<Item = Result<WatchDown, Status>> + Send, Status> {
    let hello = match up.next().await {
        Some(Ok(WatchUp { up: Some(Up::Hello(hello)) })) => hello,
        Some(Err(status)) => return Err(status),
        _ => return Err(Status::invalid_argument("a watch begins with a hello")),
    };
    let WatchHello { node_id, epoch, cursor, networks } = hello;
    let known = state.read(|state| state.node(node_id).map(|node| node.epoch));
    match known {
        None if state.read(|state| state.was_removed(node_id)) => {
            return Err(Status::not_found("the node was removed from the cluster"));
        }
        // This voter may be behind; the agent tries another, or again.
        None => return Err(Status::unavailable("this voter does not know the node (yet)")),
        Some(now) if now > epoch => {
            return Err(Status::failed_precondition("the node has registered anew since"));
        }
        Some(_) => {}
    }
    tokio::spawn(async move {
        while let Some(Ok(message)) = up.next().await {
            if let Some(Up::Status(status)) = message.up
                && status.node_id == node_id
            {
                table.record(status);
            }
        }
        table.stream_ended(node_id);
    });
    // One in the channel, one being made: that is all a slow agent costs.
    let (sender, receiver) = mpsc::channel(1);
    let held = networks.into_iter().collect();
    tokio::spawn(send_deltas(state, cluster, node_id, cursor, held, sender));
    Ok(ReceiverStream::new(receiver))
}

async fn send_deltas(
    state: SharedState,
    mut cluster: watch::Receiver<crate::control::consensus::Status>,
    node: NodeId,
    mut cursor: u64,
    mut held: BTreeSet<NetworkId>,
    down: mpsc::Sender<Result<WatchDown, Status>>,
) {
    let mut revision = state.revision();
    // A voter that is behind the agent has nothing to say before it has caught up: going back would
    // make the agent forget what it rightly holds.
    while *revision.borrow_and_update() < cursor {
        tokio::select! {
            changed = revision.changed() => if changed.is_err() { return },
            () = down.closed() => return,
        }
    }
    let mut told = None;
    loop {
        let now = *revision.borrow_and_update();
        let leader = cluster.borrow_and_update().leader.unwrap_or_default();
        let removed = state.read(|state| state.node(node).is_none());
        if removed {
            let gone = Status::not_found("the node was removed from the cluster");
            drop(down.send(Err(gone)).await);
            return;
        }
        if now > cursor || cursor == 0 || told != Some(leader) {
            told = Some(leader);
            let delta = state.read(|state| state.delta_for(node, cursor, &held));
            cursor = delta.revision.max(now);
            note_held(&delta, &mut held);
            let message = to_wire(delta, cursor, leader);
            if down.send(message).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = revision.changed() => if changed.is_err() { return },
            changed = leader_changed(&mut cluster, leader) => if changed.is_err() { return },
            () = tokio::time::sleep(LEADERLESS), if leader == 0 => {
                // Cut off from the others it may miss everything: another voter may not.
                let alone = Status::unavailable("this voter has not heard of a leader for a while");
                drop(down.send(Err(alone)).await);
                return;
            }
            () = down.closed() => return,
        }
    }
}

async fn leader_changed(
    cluster: &mut watch::Receiver<crate::control::consensus::Status>,
    told: NodeId,
) -> Result<(), watch::error::RecvError> {
    cluster.wait_for(|status| status.leader.unwrap_or_default() != told).await.map(drop)
}

fn note_held(delta: &Delta, held: &mut BTreeSet<NetworkId>) {
    if delta.complete {
        held.clear();
    }
    for key in &delta.removes {
        if let RowKey::Network(id) = key {
            held.remove(id);
        }
    }
    for row in &delta.upserts {
        if let RowKey::Network(id) = row.key() {
            held.insert(id);
        }
    }
}

fn to_wire(delta: Delta, revision: u64, leader: NodeId) -> Result<WatchDown, Status> {
    let upserts = delta.upserts.iter().map(row_to_wire).collect::<Result<_, _>>();
    Ok(WatchDown {
        complete: delta.complete,
        revision,
        upserts: upserts.map_err(|error| Status::internal(error.to_string()))?,
        removes: delta.removes.into_iter().map(key_to_wire).collect(),
        leader,
    })
}
