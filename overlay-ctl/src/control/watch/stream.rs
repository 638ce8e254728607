//! The voter's side of a watch stream: it sends each agent the changes since the agent's cursor, and takes its status.

use super::{key_to_wire, row_to_wire};
use crate::{
    control::{
        peers::{Directory, StreamHold},
        state::{Delta, RowKey, State},
        voter::{LAPSE, Quorum, SharedState, StatusTable},
    },
    model::{Generation, NetworkId, NodeId, Speaks},
    proto::internal::{WatchDown, WatchHello, WatchUp, watch_up::Up},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

/// How often the agent is told that nothing changed: it leaves a voter that is silent.
const BOOKMARK: Duration = Duration::from_secs(1);
/// How long a voter without a proof of a quorum keeps an agent all the same: the proof may come, and the agent should not
/// hurry from voter to voter while there is no quorum anywhere.
const WELCOME: Duration = Duration::from_secs(1);

/// Serves one agent: receives its statuses and sends it deltas. `directory` is told where it listens.
///
/// # Errors
/// The stream does not begin with a hello from a node of this cluster, at its present epoch.
pub async fn serve_agent(
    state: SharedState,
    table: StatusTable,
    cluster: watch::Receiver<crate::control::consensus::Status>,
    quorum: Quorum,
    directory: Directory,
    mut up: Streaming<WatchUp>,
) -> Result<impl Stream<Item = Result<WatchDown, Status>> + Send, Status> {
    let hello = match up.next().await {
        Some(Ok(WatchUp { up: Some(Up::Hello(hello)) })) => hello,
        Some(Err(status)) => return Err(status),
        _ => return Err(Status::invalid_argument("a watch begins with a hello")),
    };
    let follower = state.read(|state| Follower::admit(state, &hello))?;
    let WatchHello { node_id, listen, incarnation, .. } = hello;
    let hold = directory.hold_stream(node_id, &incarnation, &listen)?;
    if let Ok(listen) = listen.parse() {
        directory.heard_from(node_id, listen);
    }
    let watches = table.watchers().hold();
    // One delta in the channel and one that waits for room: that is all that a slow agent costs.
    let (sender, receiver) = mpsc::channel(1);
    // The end of the deltas is that of the stream.
    let down = sender.downgrade();
    tokio::spawn(async move {
        while let Some(Ok(message)) = up.next().await {
            if let Some(Err(status)) = hold.as_ref().map(StreamHold::check) {
                // The rows of the process that took its place are those of the node: it says by itself what it has.
                drop(hold);
                if let Some(down) = down.upgrade() {
                    drop(down.send(Err(status)).await);
                }
                return;
            }
            if let Some(Up::Status(status)) = message.up
                && status.node_id == node_id
            {
                table.record(status);
            }
        }
        table.stream_ended(node_id);
        drop(hold);
    });
    tokio::spawn(async move {
        send_deltas(state, cluster, quorum, directory, follower, sender).await;
        drop(watches);
    });
    Ok(ReceiverStream::new(receiver))
}

/// An agent, as far as its voter has brought it.
pub(crate) struct Follower {
    node: NodeId,
    /// Up to this revision.
    cursor: u64,
    /// The networks that it holds.
    held: BTreeSet<NetworkId>,
}

/// What an agent is sent next.
pub(crate) enum Next {
    /// Nothing before this voter has caught up: an older view would make the agent forget what it rightly holds.
    Behind,
    /// That its node was removed.
    Removed,
    /// What changed, or that nothing did.
    Message(Box<WatchDown>),
}

impl Follower {
    /// Takes an agent in.
    ///
    /// # Errors
    /// The agent is no node of this cluster at its present epoch, or can't read its rows.
    pub(crate) fn admit(state: &State, hello: &WatchHello) -> Result<Self, Status> {
        let WatchHello {
            node_id,
            epoch,
            cursor,
            networks,
            listen: _,
            incarnation: _,
            oldest_version,
            newest_version,
            generation,
        } = hello;
        let node = *node_id;
        let speaks = Speaks::from_wire(*oldest_version, *newest_version)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        match state.node(node).map(|node| node.epoch) {
            None if state.was_removed(node) => {
                return Err(Status::not_found("the node was removed from the cluster"));
            }
            // This voter may be behind: the agent tries another voter, or this one again.
            None => return Err(Status::unavailable("this voter does not know the node (yet)")),
            Some(now) if now > *epoch => {
                return Err(Status::failed_precondition("the node has registered anew since"));
            }
            Some(_) => {}
        }
        // Before any row is sent: the node may read it as something else.
        state
            .check_speaks(speaks)
            .map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
        // A view of another generation is no part of this one's history: all of it is replaced.
        let is_ours = state.generation() == Generation::from_wire(*generation);
        let cursor = if is_ours { *cursor } else { 0 };
        Ok(Self { node, cursor, held: networks.iter().copied().collect() })
    }

    /// What the agent is sent next, where the voter has applied everything up to `now` and this node is its leader.
    ///
    /// # Errors
    /// None in practice: all rows can be encoded.
    pub(crate) fn next(&mut self, state: &State, now: u64, leader: NodeId) -> Result<Next, Status> {
        if now < self.cursor {
            return Ok(Next::Behind);
        }
        if state.node(self.node).is_none() {
            return Ok(Next::Removed);
        }
        // Where nothing changed, this is the message that says so.
        let delta = state.delta_for(self.node, self.cursor, &self.held);
        self.cursor = delta.revision.max(now);
        note_held(&delta, &mut self.held);
        to_wire(delta, self.cursor, leader).map(|message| Next::Message(Box::new(message)))
    }
}

async fn send_deltas(
    state: SharedState,
    mut cluster: watch::Receiver<crate::control::consensus::Status>,
    quorum: Quorum,
    directory: Directory,
    mut follower: Follower,
    down: mpsc::Sender<Result<WatchDown, Status>>,
) {
    let opened = Instant::now();
    let mut revision = state.revision();
    loop {
        let now = *revision.borrow_and_update();
        let leader = cluster.borrow_and_update().leader;
        // Without a quorum this voter can't know that the leader it hears leads.
        let told = leader.filter(|_| quorum.holds()).and_then(|leader| directory.node_of(leader));
        let told = told.unwrap_or_default();
        let mut behind = false;
        match follower.next(&state.copy(), now, told) {
            Ok(Next::Behind) => behind = true,
            Ok(Next::Removed) => {
                let gone = Status::not_found("the node was removed from the cluster");
                drop(down.send(Err(gone)).await);
                return;
            }
            Ok(Next::Message(message)) => {
                if down.send(Ok(*message)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                drop(down.send(Err(error)).await);
                return;
            }
        }
        let ended = tokio::select! {
            changed = revision.changed() => changed.is_err(),
            changed = leader_changed(&mut cluster, leader) => changed.is_err(),
            () = down.closed() => true,
            () = sleep(BOOKMARK) => false,
            () = quorum.lapsed(opened + WELCOME) => {
                send_away(&down, "this voter takes part in no quorum").await;
                true
            }
            () = sleep_until(opened + LAPSE), if behind => {
                send_away(&down, "this voter is behind what the node holds").await;
                true
            }
        };
        if ended {
            return;
        }
    }
}

/// Ends the stream, so that the agent asks another voter.
async fn send_away(down: &mpsc::Sender<Result<WatchDown, Status>>, why: &str) {
    // An agent that has gone needs no reason.
    drop(down.send(Err(Status::unavailable(why))).await);
}

async fn leader_changed(
    cluster: &mut watch::Receiver<crate::control::consensus::Status>,
    leader: Option<u64>,
) -> Result<(), watch::error::RecvError> {
    cluster.wait_for(|status| status.leader != leader).await.map(drop)
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
        version: delta.version.number(),
        generation: delta.generation.number(),
        upserts: upserts.map_err(|error| Status::internal(error.to_string()))?,
        removes: delta.removes.into_iter().map(key_to_wire).collect(),
        leader,
    })
}
