//! Where the other nodes are, and the connections to them.

use super::{
    Client, MESSAGE_MAX, PeerChannel,
    link::{connect_lazy, connect_raft_lazy},
    stamp::Strangers,
};
use crate::{
    model::{Node, NodeId},
    proto::internal::peers_client::PeersClient,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::transport::Channel;
use uuid::Uuid;

/// A node of the cluster, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its Raft id.
    pub id: NodeId,
    /// Address that serves its API and its peers.
    pub listen: SocketAddr,
    /// It is a voter, or is to become one.
    pub voter: bool,
}

impl From<&Node> for Peer {
    fn from(node: &Node) -> Self {
        Self { id: node.id, listen: node.listen, voter: node.voter }
    }
}

/// The nodes of the cluster, and the connections to them. Clones share both.
#[derive(Clone)]
pub struct Directory {
    cluster: Uuid,
    inner: Arc<Mutex<Inner>>,
    strangers: Strangers,
}

#[derive(Default)]
struct Inner {
    leader: Option<NodeId>,
    /// When it was last heard that a node leads; `None` = never.
    led: Option<Instant>,
    peers: BTreeMap<NodeId, Peer>,
    channels: BTreeMap<SocketAddr, Channel>,
}

impl Directory {
    /// A directory of the cluster `cluster` that knows `peers`.
    #[must_use]
    pub fn new(cluster: Uuid, peers: impl IntoIterator<Item = Peer>) -> Self {
        let directory = Self { cluster, inner: Arc::default(), strangers: Strangers::default() };
        directory.replace(peers);
        directory
    }

    fn lock<T>(&self, with: impl FnOnce(&mut Inner) -> T) -> T {
        with(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// Replaces the known nodes. An empty list is ignored: a node that knows no other could not come back.
    pub fn replace(&self, peers: impl IntoIterator<Item = Peer>) {
        let peers: BTreeMap<NodeId, Peer> = peers.into_iter().map(|peer| (peer.id, peer)).collect();
        if peers.is_empty() {
            return;
        }
        self.lock(|inner| {
            let known = |listen| peers.values().any(|peer| peer.listen == listen);
            inner.channels.retain(|listen, _| known(*listen));
            self.strangers.retain(known);
            inner.peers = peers;
        });
    }

    /// Notes which node leads, as an agent is told.
    pub fn set_leader(&self, leader: Option<NodeId>) {
        self.lock(|inner| {
            if leader.or(inner.leader).is_some() {
                inner.led = Some(Instant::now());
            }
            inner.leader = leader;
        });
    }

    /// Whether a node leads, as last heard, or did so until less than `lapse` ago.
    #[must_use]
    pub fn is_led(&self, lapse: Duration) -> bool {
        let lately = |inner: &Inner| inner.led.is_some_and(|last| last.elapsed() < lapse);
        self.lock(|inner| inner.leader.is_some() || lately(inner))
    }

    /// Which node leads, as last heard. Only agents are told; a voter knows it from consensus.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.lock(|inner| inner.leader)
    }

    /// The voters in the order in which an agent asks them: the leader first.
    #[must_use]
    pub fn voters(&self) -> Vec<Peer> {
        self.lock(|inner| {
            let mut voters: Vec<Peer> =
                inner.peers.values().filter(|peer| peer.voter).cloned().collect();
            voters.sort_by_key(|peer| Some(peer.id) != inner.leader);
            voters
        })
    }

    /// The node `id`, if it is known.
    #[must_use]
    pub fn peer(&self, id: NodeId) -> Option<Peer> {
        self.lock(|inner| inner.peers.get(&id).cloned())
    }

    /// All known nodes, by id.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.lock(|inner| inner.peers.values().cloned().collect())
    }

    /// A connection to the node of this cluster that listens at `listen`. It is opened at the first use, and again after
    /// it broke.
    #[must_use]
    pub fn channel(&self, listen: SocketAddr) -> PeerChannel {
        let channel = self.lock(|inner| {
            inner.channels.entry(listen).or_insert_with(|| connect_lazy(listen)).clone()
        });
        PeerChannel::new(channel, listen, self.cluster, self.strangers.clone())
    }

    /// Lets go of all connections: the next use of each opens a new one.
    pub fn disconnect(&self) {
        self.lock(|inner| inner.channels.clear());
    }

    /// Uses a connection that a test made as the one to `listen`.
    #[cfg(test)]
    pub(crate) fn put_channel(&self, listen: SocketAddr, channel: Channel) {
        self.lock(|inner| inner.channels.insert(listen, channel));
    }

    /// A client of the peer's service between nodes.
    #[must_use]
    pub fn client(&self, peer: &Peer) -> Client {
        PeersClient::new(self.channel(peer.listen))
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// A client of the peer's service between nodes, over a new connection that only Raft's messages use.
    #[must_use]
    pub fn raft_client(&self, peer: &Peer) -> Client {
        let channel = connect_raft_lazy(peer.listen);
        let strangers = self.strangers.clone();
        PeersClient::new(PeerChannel::new(channel, peer.listen, self.cluster, strangers))
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }
}
