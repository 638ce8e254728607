//! The agent's side of a watch stream: it keeps a view up to date from one voter, reports the node's status, and leaves a
//! voter that cannot serve it.

use super::{HEARTBEAT, key_from_wire, sources::Sources};
use crate::{
    control::{
        peers::{Directory, Incarnation, Peer},
        state::{Delta, View},
        voter::to_wire,
    },
    dataplane::kernel::LocalStatus,
    model::{Generation, NodeId, Revision, SPEAKS, Version},
    proto::internal::{WatchDown, WatchHello, WatchUp, watch_up::Up},
};
use std::{mem, net::SocketAddr, sync::Arc, time::Duration};
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
    /// This version can't read what a voter sent: a later view would lack it, and the kernel with it.
    #[error(transparent)]
    Unreadable(Unreadable),
}

/// A change of the view that this version can't read.
#[derive(Debug, thiserror::Error)]
#[error(
    "what the voter, node {voter}, sent of revision {revision} can't be read: {why}. Nothing of it was applied, and packets flow \
     on by what came before. Install the newer version that the voters run; `overlay status` there shows which one that is"
)]
pub struct Unreadable {
    /// The voter.
    pub voter: NodeId,
    /// The revision that the change leads to.
    pub revision: Revision,
    /// What can't be read, and why.
    pub why: String,
}

/// Keeps `view` equal to what any voter sends, and reports the node's status to that voter. Returns when the node is
/// removed, when a voter sends what this version can't read, or when nobody reads the view any more.
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
    let mut sources = Sources::of(view.borrow().as_deref());
    loop {
        // Its own row may still say that it is a voter itself, or say so already.
        for voter in directory.voters().into_iter().filter(|voter| voter.id != id) {
            let kept = (&mut served, &mut sources);
            let ended = follow(id, epoch.clone(), &voter, &directory, &view, status.clone(), kept);
            let ended = ended.await;
            directory.lost(voter.id, voter.listen);
            let why = match ended {
                Ok(()) => Status::unavailable("the voter ended the stream"),
                Err(StreamEnd::Unreadable(error)) => return Ended::Unreadable(error),
                Err(StreamEnd::Status(error)) if error.code() == tonic::Code::NotFound => {
                    return Ended::Removed;
                }
                Err(StreamEnd::Status(error)) => error,
            };
            if why.code() == tonic::Code::FailedPrecondition {
                // Another epoch: the voter knows a later registration than this node does.
                directory.ask_to_register();
            }
            let (voter, code, why) = (voter.id, why.code(), why.message());
            if served.ended() {
                tracing::info!(voter, ?code, why, "the watch ended: asking the next voter");
            } else {
                tracing::debug!(voter, ?code, why, "not watching");
            }
            if view.is_closed() {
                return Ended::Stopped;
            }
        }
        if !served.this_round {
            // The leader that the last voter told of may be gone, and nobody is left to say so.
            directory.set_leader(None);
        }
        if served.round_ended() {
            tracing::warn!(
                "no voter with a quorum serves this node: what its kernel holds stays as it is; see `overlay cluster status`"
            );
        }
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
    /// A voter sent a message. Returns true if it is the first in this stream by which the voter serves this node.
    fn heard(&mut self, leader: NodeId) -> bool {
        let begins = leader != 0 && !self.this_stream;
        if begins {
            *self = Self { this_stream: true, this_round: true, said_nobody: false };
        }
        begins
    }

    /// The stream ended, or was not opened. Returns true if its voter served this node until now.
    fn ended(&mut self) -> bool {
        mem::take(&mut self.this_stream)
    }

    /// Every voter was asked. Returns true if it is to be said that none serves this node.
    fn round_ended(&mut self) -> bool {
        let nobody = !mem::take(&mut self.this_round);
        nobody && !mem::replace(&mut self.said_nobody, nobody)
    }
}

/// Why a stream ended, or was not opened.
enum StreamEnd {
    /// The voter said so, or does not answer. The next voter is asked.
    Status(Status),
    /// No other voter is asked: all of them hold the same rows.
    Unreadable(Unreadable),
}

impl From<Status> for StreamEnd {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

async fn follow(
    id: NodeId,
    epoch: watch::Receiver<Revision>,
    voter: &Peer,
    directory: &Directory,
    view: &watch::Sender<Option<Arc<View>>>,
    status: watch::Receiver<LocalStatus>,
    (served, sources): (&mut Served, &mut Sources),
) -> Result<(), StreamEnd> {
    let (up, receiver) = mpsc::channel(4);
    let held = view.borrow().clone().unwrap_or_default();
    let incarnation = directory.incarnation();
    let mut hello = hello(id, (*epoch.borrow(), incarnation), &held, directory.own());
    hello.cursor = sources.cursor(&held);
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
    let mut generation = directory.generations().changes();
    let mut current = View::clone(&held);
    let mut patience = FIRST_TIMEOUT;
    loop {
        tokio::select! {
            () = &mut statuses => return Ok(()),
            // The voter may be of the older one. The directory itself has the sender.
            _ = generation.changed() => return Ok(()),
            delta = tokio::time::timeout(patience, deltas.next()) => {
                let silent = |_| Status::deadline_exceeded("the voter has fallen silent");
                let Some(delta) = delta.map_err(silent)? else { return Ok(()) };
                let delta = delta?;
                patience = SILENCE;
                if served.heard(delta.leader) {
                    tracing::info!(voter = voter.id, revision = held.revision, "watching");
                    directory.served_by(voter.id, voter.listen);
                }
                directory.set_leader(Some(delta.leader).filter(|leader| *leader != 0));
                sources.check(&delta, &held)?;
                let (revision, complete) = (delta.revision, delta.complete);
                let is_new = take(delta, &mut current).map_err(|why| {
                    StreamEnd::Unreadable(Unreadable { voter: voter.id, revision, why })
                })?;
                if !is_new {
                    continue;
                }
                directory.replace(current.nodes.values().map(|node| Peer::from(&**node)));
                view.send_replace(Some(Arc::new(current.clone())));
                sources.note(voter.id, complete, &current)?;
            },
        }
    }
}

fn says_nothing_new(delta: &WatchDown, held: &View) -> bool {
    // The version rises by a command that changes rows.
    let WatchDown { complete, revision, upserts, removes, leader: _, version: _, generation: _ } =
        delta;
    !complete && *revision == held.revision && upserts.is_empty() && removes.is_empty()
}

/// Whether a kernel that may already be of `at_least` can be made that of a view.
pub(crate) fn is_new_enough(view: Revision, at_least: Revision) -> bool {
    view >= at_least || planted!(SweptEarly)
}

/// What an agent says first, so that a voter can bring it on from what it holds.
pub(crate) fn hello(
    id: NodeId,
    (epoch, incarnation): (Revision, Incarnation),
    held: &View,
    listen: Option<SocketAddr>,
) -> WatchHello {
    WatchHello {
        node_id: id,
        epoch,
        cursor: held.revision,
        generation: held.generation.number(),
        networks: held.networks.keys().copied().collect(),
        listen: listen.map(|listen| listen.to_string()).unwrap_or_default(),
        oldest_version: SPEAKS.oldest().number(),
        newest_version: SPEAKS.newest().number(),
        incarnation: incarnation.as_bytes().to_vec(),
    }
}

/// Brings what an agent holds up to date. Returns false if it is already.
///
/// # Errors
/// What this version can't read, and why. Nothing was changed.
pub(crate) fn take(down: WatchDown, held: &mut View) -> Result<bool, String> {
    let is_new = !says_nothing_new(&down, held);
    if is_new {
        held.apply(from_wire(down)?);
    }
    Ok(is_new)
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

/// Reads a change, or says why it can't be read.
fn from_wire(down: WatchDown) -> Result<Delta, String> {
    let unknown = |error| format!("this version does not know a row ({error})");
    let upserts = down
        .upserts
        .iter()
        .map(|row| rmp_serde::from_slice(&row.value).map_err(unknown))
        .collect::<Result<_, _>>()?;
    let removes = down
        .removes
        .iter()
        .map(|key| {
            let unknown = || format!("this version does not know rows of kind {}", key.kind);
            key_from_wire(key).ok_or_else(unknown)
        })
        .collect::<Result<_, _>>()?;
    // A voter that says none is of version 1.
    let version = Version::try_from(down.version).unwrap_or_default();
    let generation = Generation::from_wire(down.generation);
    let WatchDown { complete, revision, .. } = down;
    Ok(Delta { complete, revision, version, generation, upserts, removes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_that_a_voter_serves_and_once_that_it_does_so_no_more() {
        let mut served = Served::default();
        assert!(!served.heard(0), "a voter that knows no leader does not serve");
        assert!(!served.ended(), "no voter had served");
        assert!(served.heard(1));
        assert!(!served.heard(1) && !served.heard(2), "it was said");
        assert!(served.ended());
        assert!(!served.ended(), "it was said");
        assert!(served.heard(1), "in the next stream it is news again");
    }

    #[test]
    fn it_is_said_once_that_nobody_serves_until_somebody_did() {
        let mut served = Served::default();
        for _ in 0..2 {
            assert!(served.round_ended());
            served.heard(0);
            assert!(!served.round_ended(), "it was said");
            served.heard(1);
            served.ended();
            assert!(!served.round_ended(), "somebody served in this round");
        }
        // The round in which somebody served last is over.
        assert!(served.round_ended());
    }
}
