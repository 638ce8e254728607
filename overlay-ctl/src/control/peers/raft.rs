//! Carries Raft's messages to the other members: one stream to each, over a connection of its own.
//!
//! Consensus knows its members by their Raft ids; which node has one, and where that listens, the directory knows.
//!
//! Some messages tell the peer, beside Raft's words, where this node listens and where it knows others to listen.

use super::{Directory, Outage, calls::is_elsewhere};
use crate::{
    control::consensus::{Consensus, Outgoing, PeerQueues, StateMachine},
    model::{NodeId, RaftId},
    proto::internal::RaftMessage,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;

/// Pause before a stream that broke is opened again.
const REOPEN: Duration = Duration::from_millis(200);
/// A stream that is open for this long has reached its peer: a connection that nobody answers is given up before.
const REACHED: Duration = Duration::from_secs(5);
/// How many messages may be on their way into one stream. The peer's own queue, which is bounded, is behind it.
const IN_FLIGHT: usize = 64;

/// Carries consensus messages to every other member until consensus stops: one stream for each peer, on a connection
/// that carries nothing else.
pub async fn carry_raft_messages<S: StateMachine>(
    consensus: Consensus<S>,
    queues: PeerQueues,
    directory: Directory,
) {
    let mut status = consensus.status();
    let mut tasks = JoinSet::new();
    let mut carriers: BTreeMap<u64, AbortHandle> = BTreeMap::new();
    loop {
        // A node that joins is told nothing of its members before it hears from the leader, but
        // must answer it: whoever the directory knows as a voter counts too.
        let members: BTreeSet<u64> = {
            let status = status.borrow_and_update();
            let known =
                directory.peers().into_iter().filter_map(|peer| peer.life()).map(RaftId::get);
            let members = status.voters.iter().chain(&status.outgoing).chain(&status.learners);
            let members = members.chain(&status.leader);
            members.copied().chain(known).filter(|member| *member != status.id).collect()
        };
        carriers.retain(|member, task| {
            let stays = members.contains(member);
            if !stays {
                task.abort();
                queues.disconnect(*member);
            }
            stays
        });
        for member in members {
            carriers.entry(member).or_insert_with(|| {
                tasks.spawn(carry(member, consensus.clone(), queues.clone(), directory.clone()))
            });
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

async fn carry<S: StateMachine>(
    member: u64,
    consensus: Consensus<S>,
    queues: PeerQueues,
    directory: Directory,
) {
    let mut turn = Turn::default();
    let mut outage = Outage::default();
    loop {
        let peer = directory.node_of(member);
        let places = peer.map(|peer| directory.places(peer)).unwrap_or_default();
        if let (Some(peer), Some(place)) = (peer, turn.next(&places)) {
            let messages = queues.connect(member);
            let (sender, receiver) = mpsc::channel(IN_FLIGHT);
            let mut client = directory.raft_client(place);
            let carried = async {
                tokio::select! {
                    answer = client.raft(ReceiverStream::new(receiver)) => answer.err(),
                    () = pump(member, messages, sender, &consensus, &directory) => None,
                    () = note_reached(peer, place, &directory) => None,
                }
            };
            let again =
                || tracing::info!(peer, listen = %place, "Raft's messages go to the peer again");
            let open = Open { peer, place, directory: &directory };
            let ended = outage.follow(carried, again).await;
            if let Some(status) = ended {
                let (code, why) = (status.code(), status.message());
                if is_elsewhere(&status) {
                    // The leader decides which of the two has to end.
                    directory.ask_to_register();
                }
                if outage.ended(code) {
                    tracing::warn!(peer, member, listen = %place, ?code, why, "Raft's messages do not go to the peer: it is down, cut off, or refuses");
                } else {
                    tracing::debug!(peer, member, listen = %place, ?code, why, "raft stream ended");
                }
            }
            if open.end() {
                turn.was_right();
            }
            queues.disconnect(member);
        }
        consensus.report_unreachable(member);
        tokio::time::sleep(REOPEN).await;
    }
}

/// A stream that is open or is being opened. Its end is noted also where the peer is no member any more, and the task is
/// ended in the middle.
struct Open<'a> {
    peer: NodeId,
    place: SocketAddr,
    directory: &'a Directory,
}

impl Open<'_> {
    /// Notes the end. Returns true if the stream stood.
    fn end(&self) -> bool {
        self.directory.lost(self.peer, self.place)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Notes after a while that the stream is open still. Never returns.
async fn note_reached(peer: NodeId, place: SocketAddr, directory: &Directory) {
    tokio::time::sleep(REACHED).await;
    directory.reached(peer, place);
    std::future::pending().await
}

async fn pump<S: StateMachine>(
    member: u64,
    mut messages: mpsc::Receiver<Outgoing>,
    sender: mpsc::Sender<RaftMessage>,
    consensus: &Consensus<S>,
    directory: &Directory,
) {
    let mut told = None;
    while let Some(Outgoing { bytes, is_snapshot }) = messages.recv().await {
        let places = directory.to_tell(&mut told);
        let incarnation = match places.is_empty() {
            true => Vec::new(),
            false => directory.incarnation().as_bytes().to_vec(),
        };
        let message = RaftMessage { to: member, data: bytes, places, incarnation };
        let sent = sender.send(message).await.is_ok();
        if is_snapshot {
            // Handed to the connection is the best that is known here: a snapshot lost behind it is
            // found missing when the peer refuses the next append, and sent again.
            consensus.report_snapshot(member, sent);
        }
        if !sent {
            return;
        }
    }
}

/// Which of a node's places is tried next: each in its turn, and the best again after all of them.
#[derive(Debug, Default)]
pub(in crate::control) struct Turn {
    /// Tried since the last stream that stayed open.
    tried: Vec<SocketAddr>,
}

impl Turn {
    /// The next place of those that there are now, the best first.
    pub(in crate::control) fn next(&mut self, places: &[SocketAddr]) -> Option<SocketAddr> {
        self.tried.retain(|tried| places.contains(tried));
        let untried = places.iter().find(|place| !self.tried.contains(place));
        let next = match untried {
            Some(next) => *next,
            None => {
                self.tried.clear();
                *places.first()?
            }
        };
        self.tried.push(next);
        Some(next)
    }

    /// The last place was right: the best place is tried first again.
    pub(in crate::control) fn was_right(&mut self) {
        self.tried.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address of a node: its first, its second and so on.
    fn at(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 7400).into()
    }

    #[test]
    fn each_place_has_its_turn() {
        let mut turn = Turn::default();
        let places = [at(1), at(2)];
        for _ in 0..2 {
            assert_eq!(turn.next(&places), Some(at(1)));
            assert_eq!(turn.next(&places), Some(at(2)));
        }
        assert_eq!(turn.next(&places), Some(at(1)));
        // One that is new is tried before those that failed.
        assert_eq!(turn.next(&[at(3), at(1), at(2)]), Some(at(3)));
        assert_eq!(turn.next(&[at(3), at(1), at(2)]), Some(at(2)));
        turn.was_right();
        assert_eq!(turn.next(&places), Some(at(1)));
        assert_eq!(turn.next(&[]), None);
    }
}
