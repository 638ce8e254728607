use super::{HEARTBEAT, key_from_wire};
use crate::{
    control::{
        peers::{Directory, Peer},
        state::{Delta, View},
        voter::to_wire,
    },
    dataplane::kernel::LocalStatus,
    model::{NodeId, Revision},
    proto::internal::{WatchDown, WatchHello, WatchUp, watch_up::Up},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::Status;

/// After a round of all voters without one that serves.
const NEXT_ROUND: Duration = Duration::from_millis(300);
/// A voter that says nothing of the stream for so long does not serve it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why an agent stops following.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Somebody removed it: what it made must go.
    #[error("this node was removed from the cluster")]
    Removed,
    /// Nobody reads the view any more.
    #[error("stopped")]
    Stopped,
}

/// Keeps `view` at what any voter says, for ever, and tells that voter the node's status.
///
/// `view` stays `None` until the first complete one: nothing may be swept before.
pub async fn follow_a_voter(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    directory: Directory,
    view: watch::Sender<Option<Arc<View>>>,
    status: watch::Receiver<LocalStatus>,
) -> Ended {
    loop {
        for voter in directory.voters() {
            match follow(id, epoch.clone(), &voter, &directory, &view, status.clone()).await {
                Ok(()) => tracing::info!(voter = voter.id, "watch ended"),
                Err(error) if error.code() == tonic::Code::NotFound => return Ended::Removed,
                Err(error) => {
                    tracing::debug!(voter = voter.id, code = ?error.code(), message = error.message(), "watch ended");
                }
            }
            if view.is_closed() {
                return Ended::Stopped;
            }
        }
        tokio::time::sleep(NEXT_ROUND).await;
    }
}

async fn follow(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    voter: &Peer,
    directory: &Directory,
    view: &watch::Sender<Option<Arc<View>>>,
    status: watch::Receiver<LocalStatus>,
) -> Result<(), Status> {
    let (up, receiver) = mpsc::channel(4);
    let held = view.borrow().clone().unwrap_or_default();
    let hello = WatchHello {
        node_id: id,
        epoch: *epoch.borrow(),
        cursor: held.revision,
        networks: held.networks.keys().copied().collect(),
    };
    // There is room: nothing was sent yet.
    drop(up.try_send(WatchUp { up: Some(Up::Hello(hello)) }));
    let mut client = directory.client(voter);
    let opened = client.watch(ReceiverStream::new(receiver));
    let mut deltas = tokio::time::timeout(OPEN_TIMEOUT, opened)
        .await
        .map_err(|_| Status::deadline_exceeded("the voter does not answer"))??
        .into_inner();
    tracing::info!(voter = voter.id, revision = held.revision, "watching");
    let statuses = send_statuses(id, epoch, status, up);
    tokio::pin!(statuses);
    let mut current = View::clone(&held);
    loop {
        tokio::select! {
            () = &mut statuses => return Ok(()),
            delta = deltas.next() => match delta {
                None => return Ok(()),
                Some(delta) => {
                    let delta = delta?;
                    directory.set_leader(Some(delta.leader).filter(|leader| *leader != 0));
                    current.apply(from_wire(delta)?);
                    directory.replace(current.nodes.values().map(|node| Peer::from(&**node)));
                    view.send_replace(Some(Arc::new(current.clone())));
                }
            },
        }
    }
}

async fn send_statuses(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    mut status: watch::Receiver<LocalStatus>,
    up: mpsc::Sender<WatchUp>,
) {
    loop {
        let now = to_wire(id, *epoch.borrow(), &status.borrow_and_update());
        if up.send(WatchUp { up: Some(Up::Status(now)) }).await.is_err() {
            return;
        }
        // A change goes at once; silence is broken by the heartbeat.
        if let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT, status.changed()).await {
            return;
        }
    }
}

fn from_wire(down: WatchDown) -> Result<Delta, Status> {
    let malformed = |what: &str| Status::data_loss(format!("{what} can't be read"));
    let upserts = down
        .upserts
        .iter()
        .map(|row| rmp_serde::from_slice(&row.value).map_err(|_| malformed("a row")))
        .collect::<Result<_, _>>()?;
    let removes = down
        .removes
        .iter()
        .map(|key| key_from_wire(key).ok_or_else(|| malformed("a key")))
        .collect::<Result<_, _>>()?;
    Ok(Delta { complete: down.complete, revision: down.revision, upserts, removes })
}
