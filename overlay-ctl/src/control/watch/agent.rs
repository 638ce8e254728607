//! The agent's side of a watch stream: it keeps a view up to date from one voter, reports the node's status, and leaves a
//! voter that cannot serve it.

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

/// Pause after every voter was asked and none serves.
const NEXT_ROUND: Duration = Duration::from_millis(300);
/// Longest wait for a voter to open the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the first message, which may be the whole view and may wait behind those of many other agents.
const FIRST_TIMEOUT: Duration = Duration::from_secs(30);
/// A voter that is silent for this long does not serve any more: a voter that serves sends a message every second, even
/// if nothing changed.
const SILENCE: Duration = Duration::from_secs(5);

/// Why an agent stops following.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The node was removed: what it made must go.
    #[error("this node was removed from the cluster")]
    Removed,
    /// Nobody reads the view any more.
    #[error("stopped")]
    Stopped,
}

/// Keeps `view` equal to what any voter sends, and reports the node's status to that voter. Returns when the node is
/// removed, or when nobody reads the view any more.
///
/// `view` stays `None` until a complete view has come: nothing may be removed from the kernel before.
pub async fn follow_a_voter(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    directory: Directory,
    view: watch::Sender<Option<Arc<View>>>,
    status: watch::Receiver<LocalStatus>,
) -> Ended {
    let mut served = Served::default();
    loop {
        served.this_round = false;
        for voter in directory.voters() {
            let ended =
                follow(id, epoch.clone(), &voter, &directory, &view, status.clone(), &mut served);
            match ended.await {
                Ok(()) => {
                    served.ended(voter.id, &Status::unavailable("the voter ended the stream"))
                }
                Err(error) if error.code() == tonic::Code::NotFound => return Ended::Removed,
                Err(error) => served.ended(voter.id, &error),
            }
            if view.is_closed() {
                return Ended::Stopped;
            }
        }
        served.round_ended();
        tokio::time::sleep(NEXT_ROUND).await;
    }
}

/// Whether a voter serves this node, so that each change is logged once.
#[derive(Default)]
struct Served {
    /// A voter that knows a leader served, in the stream that is open or was open last.
    this_stream: bool,
    /// A voter that knows a leader served, in one of the streams of this round.
    this_round: bool,
    /// It was logged that no voter serves.
    said_nobody: bool,
}

impl Served {
    fn heard(&mut self, voter: NodeId, leader: NodeId, revision: Revision) {
        if leader != 0 && !self.this_stream {
            tracing::info!(voter, revision, "watching");
            *self = Self { this_stream: true, this_round: true, said_nobody: false };
        }
    }

    fn ended(&mut self, voter: NodeId, why: &Status) {
        let (code, why) = (why.code(), why.message());
        if self.this_stream {
            tracing::info!(voter, ?code, why, "the watch ended: asking the next voter");
        } else {
            tracing::debug!(voter, ?code, why, "not watching");
        }
        self.this_stream = false;
    }

    fn round_ended(&mut self) {
        if !self.this_round && !self.said_nobody {
            tracing::warn!(
                "no voter with a quorum serves this node: what its kernel holds stays as it is; see `overlay status` on the voters"
            );
            self.said_nobody = true;
        }
    }
}

async fn follow(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    voter: &Peer,
    directory: &Directory,
    view: &watch::Sender<Option<Arc<View>>>,
    status: watch::Receiver<LocalStatus>,
    served: &mut Served,
) -> Result<(), Status> {
    let (up, receiver) = mpsc::channel(4);
    let held = view.borrow().clone().unwrap_or_default();
    let hello = WatchHello {
        node_id: id,
        epoch: *epoch.borrow(),
        cursor: held.revision,
        networks: held.networks.keys().copied().collect(),
    };
    // The channel has room: nothing was sent yet.
    drop(up.try_send(WatchUp { up: Some(Up::Hello(hello)) }));
    let mut client = directory.client(voter);
    let opened = client.watch(ReceiverStream::new(receiver));
    let mut deltas = tokio::time::timeout(OPEN_TIMEOUT, opened)
        .await
        .map_err(|_| Status::deadline_exceeded("the voter does not answer"))??
        .into_inner();
    let statuses = send_statuses(id, epoch, status, up);
    tokio::pin!(statuses);
    let mut current = View::clone(&held);
    let mut patience = FIRST_TIMEOUT;
    loop {
        tokio::select! {
            () = &mut statuses => return Ok(()),
            delta = tokio::time::timeout(patience, deltas.next()) => {
                let silent = |_| Status::deadline_exceeded("the voter has fallen silent");
                let Some(delta) = delta.map_err(silent)? else { return Ok(()) };
                let delta = delta?;
                patience = SILENCE;
                served.heard(voter.id, delta.leader, held.revision);
                directory.set_leader(Some(delta.leader).filter(|leader| *leader != 0));
                if says_nothing_new(&delta, &current) {
                    continue;
                }
                current.apply(from_wire(delta)?);
                directory.replace(current.nodes.values().map(|node| Peer::from(&**node)));
                view.send_replace(Some(Arc::new(current.clone())));
            },
        }
    }
}

fn says_nothing_new(delta: &WatchDown, held: &View) -> bool {
    let WatchDown { complete, revision, upserts, removes, leader: _ } = delta;
    !complete && *revision == held.revision && upserts.is_empty() && removes.is_empty()
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
        // A change is sent at once, and an unchanged status with each heartbeat.
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
