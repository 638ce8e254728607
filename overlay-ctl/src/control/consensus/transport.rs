//! Queues in which outgoing messages wait for the network.
//!
//! Raft tolerates the loss of any message, so nothing here blocks or retries. A message that finds its queue full
//! is dropped and its peer is reported unreachable; the leader then sends one message at a time to that peer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

/// Accepts messages for other nodes.
pub trait Transport: Send + 'static {
    /// Queues one message. Never blocks. The message may still get lost later.
    ///
    /// For a snapshot, the carrier reports the outcome by [`report_snapshot`](super::Consensus::report_snapshot).
    /// For any other message that is lost later it calls
    /// [`report_unreachable`](super::Consensus::report_unreachable).
    ///
    /// # Errors
    /// The message was dropped at once. The caller then reports it.
    fn send(&mut self, to: u64, message: Vec<u8>, is_snapshot: bool) -> Result<(), Undeliverable>;
}

/// The message was dropped: its peer is not connected, or too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for a message to this peer")]
pub struct Undeliverable;

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The encoded message.
    pub bytes: Vec<u8>,
    /// The outcome must be reported by [`report_snapshot`](super::Consensus::report_snapshot).
    pub is_snapshot: bool,
}

/// Bounded queues, one for each peer. The owner of the peer's connection empties its queue.
/// Clones share the queues.
#[derive(Debug, Clone)]
pub struct PeerQueues {
    capacity: usize,
    peers: Arc<Mutex<BTreeMap<u64, mpsc::Sender<Outgoing>>>>,
}

impl PeerQueues {
    /// Creates queues of `capacity` messages each.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, peers: Arc::default() }
    }

    /// Creates a new queue for `peer`. The previous queue, if any, ends.
    pub fn connect(&self, peer: u64) -> mpsc::Receiver<Outgoing> {
        let (tx, rx) = mpsc::channel(self.capacity);
        self.peers().insert(peer, tx);
        rx
    }

    /// Ends the queue of `peer`.
    pub fn disconnect(&self, peer: u64) {
        self.peers().remove(&peer);
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, mpsc::Sender<Outgoing>>> {
        // The map is consistent after any panic, because no change to it can panic half-way.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for PeerQueues {
    fn send(&mut self, to: u64, bytes: Vec<u8>, is_snapshot: bool) -> Result<(), Undeliverable> {
        let peers = self.peers();
        let queue = peers.get(&to).ok_or(Undeliverable)?;
        queue.try_send(Outgoing { bytes, is_snapshot }).map_err(|_| Undeliverable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_missing_queue_drops() {
        let mut queues = PeerQueues::new(1);
        assert_eq!(queues.send(2, vec![1], false), Err(Undeliverable));
        let mut rx = queues.connect(2);
        assert_eq!(queues.send(2, vec![1], false), Ok(()));
        assert_eq!(queues.send(2, vec![2], false), Err(Undeliverable));
        assert_eq!(rx.try_recv(), Ok(Outgoing { bytes: vec![1], is_snapshot: false }));
        assert_eq!(queues.send(2, vec![3], true), Ok(()));
        assert_eq!(rx.try_recv(), Ok(Outgoing { bytes: vec![3], is_snapshot: true }));
        queues.disconnect(2);
        assert_eq!(queues.send(2, vec![4], false), Err(Undeliverable));
        assert_eq!(rx.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }
}
