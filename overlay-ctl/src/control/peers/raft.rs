//! Carries Raft's messages to the other members: one stream to each, over a connection of its own.

use super::Directory;
use crate::{
    control::consensus::{Consensus, Outgoing, PeerQueues, StateMachine},
    model::NodeId,
    proto::internal::RaftMessage,
};
use std::{collections::BTreeMap, collections::BTreeSet, time::Duration};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;

/// Pause before a stream that broke is opened again.
const REOPEN: Duration = Duration::from_millis(200);
/// How many messages may be on their way into one stream. The peer's own queue, which is bounded, is behind it.
const IN_FLIGHT: usize = 64;

/// Carries consensus messages to every other member until consensus stops: one stream for each peer, on a connection
/// that carries nothing else.
pub async fn carry_raft_messages<S: StateMachine>(
    id: NodeId,
    consensus: Consensus<S>,
    queues: PeerQueues,
    directory: Directory,
) {
    let mut status = consensus.status();
    let mut tasks = JoinSet::new();
    let mut carriers: BTreeMap<NodeId, AbortHandle> = BTreeMap::new();
    loop {
        // A node that joins is told nothing of its members before it hears from the leader, but
        // must answer it: whoever the directory knows as a voter counts too.
        let members: BTreeSet<NodeId> = {
            let status = status.borrow_and_update();
            let known = directory.peers().into_iter().filter(|peer| peer.voter).map(|p| p.id);
            let members = status.voters.iter().chain(&status.outgoing).chain(&status.learners);
            let members = members.chain(&status.leader);
            members.copied().chain(known).filter(|member| *member != id).collect()
        };
        carriers.retain(|peer, task| {
            let stays = members.contains(peer);
            if !stays {
                task.abort();
                queues.disconnect(*peer);
            }
            stays
        });
        for peer in members {
            carriers.entry(peer).or_insert_with(|| {
                tasks.spawn(carry(peer, consensus.clone(), queues.clone(), directory.clone()))
            });
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

async fn carry<S: StateMachine>(
    peer: NodeId,
    consensus: Consensus<S>,
    queues: PeerQueues,
    directory: Directory,
) {
    loop {
        if let Some(place) = directory.peer(peer) {
            let messages = queues.connect(peer);
            let (sender, receiver) = mpsc::channel(IN_FLIGHT);
            let mut client = directory.raft_client(&place);
            let call = client.raft(ReceiverStream::new(receiver));
            let ended = tokio::select! {
                answer = call => answer.err(),
                () = pump(peer, messages, sender, &consensus) => None,
            };
            if let Some(status) = ended {
                tracing::debug!(peer, code = ?status.code(), message = status.message(), "raft stream ended");
            }
            queues.disconnect(peer);
        }
        consensus.report_unreachable(peer);
        tokio::time::sleep(REOPEN).await;
    }
}

async fn pump<S: StateMachine>(
    peer: NodeId,
    mut messages: mpsc::Receiver<Outgoing>,
    sender: mpsc::Sender<RaftMessage>,
    consensus: &Consensus<S>,
) {
    while let Some(Outgoing { bytes, is_snapshot }) = messages.recv().await {
        let sent = sender.send(RaftMessage { to: peer, data: bytes }).await.is_ok();
        if is_snapshot {
            // Handed to the connection is the best that is known here: a snapshot lost behind it is
            // found missing when the peer refuses the next append, and sent again.
            consensus.report_snapshot(peer, sent);
        }
        if !sent {
            return;
        }
    }
}
