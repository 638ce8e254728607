//! Where the other nodes are, and the connections to them.

use super::{
    Client, Generations, MESSAGE_MAX, Peer, PeerChannel,
    link::{connect_lazy, connect_raft_lazy},
    places::{Places, Source, TOLD_MAX},
    processes::{Incarnation, Processes},
    stamp::Strangers,
};
use crate::{
    model::{Generation, NodeId, RaftId},
    proto::internal::{Place, peers_client::PeersClient},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tonic::transport::Channel;
use uuid::Uuid;

/// The nodes of the cluster, and the connections to them. Clones share both.
///
/// A node may be known at several places, until a quorum is reached at the addresses that the rows of the state say.
#[derive(Clone)]
pub struct Directory {
    cluster: Uuid,
    generations: Generations,
    inner: Arc<Mutex<Inner>>,
    strangers: Strangers,
    /// Changes with each change of the places.
    news: watch::Sender<u64>,
    register: Arc<Notify>,
    pub(super) incarnation: Incarnation,
}

#[derive(Default)]
pub(super) struct Inner {
    leader: Option<NodeId>,
    /// When it was last heard that a node leads; `None` = never.
    led: Option<Instant>,
    places: Places,
    pub(super) processes: Processes,
    /// Where a second process asked to be this node.
    pub(super) own_copy: Option<SocketAddr>,
    channels: BTreeMap<SocketAddr, Channel>,
}

impl Directory {
    /// A directory of the cluster `cluster` that knows `peers`. Of several places of one node the best comes last.
    #[must_use]
    pub fn new(cluster: Uuid, peers: impl IntoIterator<Item = Peer>) -> Self {
        let inner = Inner { places: Places::new(peers), ..Inner::default() };
        let (inner, strangers) = (Arc::new(Mutex::new(inner)), Strangers::default());
        Self {
            cluster,
            generations: Generations::default(),
            inner,
            strangers,
            news: watch::Sender::default(),
            register: Arc::default(),
            incarnation: Incarnation::new_v4(),
        }
    }

    /// The same directory, of a node of `generation`. Without this the node is of generation 1.
    #[must_use]
    pub fn of(self, generation: Generation) -> Self {
        Self { generations: Generations::new(generation), ..self }
    }

    /// This node's generation of the cluster, and the newest that was met.
    #[must_use]
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    pub(super) fn lock<T>(&self, with: impl FnOnce(&mut Inner) -> T) -> T {
        with(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// Changes the places, and lets go of the connections to those that are none any more if `change` returns true.
    fn change(&self, change: impl FnOnce(&mut Places) -> bool) -> bool {
        let is_news = self.lock(|inner| {
            let is_news = change(&mut inner.places);
            if is_news {
                let known: BTreeSet<_> = inner.places.all().map(|peer| peer.listen).collect();
                inner.channels.retain(|listen, _| known.contains(listen));
                self.strangers.retain(|listen| known.contains(&listen));
            }
            is_news
        });
        if is_news {
            self.news.send_modify(|version| *version += 1);
        }
        is_news
    }

    /// Takes the nodes that the rows of the state name now. An empty list is ignored: a node that knows no other could not
    /// come back.
    pub fn replace(&self, rows: impl IntoIterator<Item = Peer>) {
        self.confirm(|places| places.replace(rows));
    }

    /// Notes who this node is, and where the others reach it: that is what it tells its peers.
    pub fn introduce(&self, id: NodeId, listen: SocketAddr) {
        self.change(|places| places.introduce(id, listen));
    }

    /// Notes that this Raft id is the node's.
    pub fn note_life(&self, id: NodeId, life: RaftId) {
        self.lock(|inner| inner.places.note_life(id, life));
    }

    /// Notes that these nodes vote by the answer to a registration. Until newer rows have come they are asked as voters,
    /// whatever the rows say.
    pub fn name_voters(&self, voters: impl IntoIterator<Item = NodeId>) {
        self.change(|places| places.name_voters(voters));
    }

    /// The node that has this Raft id, or had it. `member` is the id as consensus has it.
    #[must_use]
    pub fn node_of(&self, member: u64) -> Option<NodeId> {
        let life = RaftId::new(member)?;
        self.lock(|inner| inner.places.node_of(life))
    }

    /// Notes that the others reach this node at `listen` from now on, and lets go of all connections: those from an
    /// address that is gone would be given up only after seconds.
    pub fn moved(&self, listen: SocketAddr) {
        self.change(|places| match places.own() {
            Some((id, _)) => places.introduce(id, listen),
            None => false,
        });
        self.disconnect();
    }

    /// Where the others reach this node; `None` before it was introduced.
    #[must_use]
    pub fn own(&self) -> Option<SocketAddr> {
        self.lock(|inner| inner.places.own().map(|(_, listen)| listen))
    }

    /// Notes that the node `id` itself said where it listens, or answered there.
    pub fn heard_from(&self, id: NodeId, listen: SocketAddr) {
        if self.change(|places| places.teach(id, listen, Source::Itself)) {
            tracing::info!(node = id, %listen, "a node says where it listens");
        }
    }

    /// Notes that another node said where the node `id` listens.
    pub fn heard_of(&self, id: NodeId, listen: SocketAddr) {
        if self.change(|places| places.teach(id, listen, Source::Another)) {
            tracing::info!(node = id, %listen, "a node is said to listen elsewhere than its row says");
        }
    }

    /// Takes what a peer told: where it listens itself, first, and where it knows other voters.
    pub fn told(&self, places: &[Place]) {
        for (position, place) in places.iter().take(TOLD_MAX).enumerate() {
            // An earlier program says none: there the sender's, which is a member, is its node's id.
            let of_earlier = RaftId::new(place.node_id).filter(|_| position == 0);
            if let Some(life) = RaftId::new(place.raft_id).or(of_earlier) {
                self.note_life(place.node_id, life);
            }
            // An address that can't be read is nobody's.
            match (place.listen.parse(), position) {
                (Ok(listen), 0) => self.heard_from(place.node_id, listen),
                (Ok(listen), _) => self.heard_of(place.node_id, listen),
                (Err(_), _) => {}
            }
        }
    }

    /// What this node is to tell a peer that was told the version `seen`, which becomes the newest: nothing if nothing
    /// has changed since.
    pub(in crate::control) fn to_tell(&self, seen: &mut Option<u64>) -> Vec<Place> {
        let version = *self.news.borrow();
        if seen.replace(version) == Some(version) {
            return Vec::new();
        }
        self.lock(|Inner { places, .. }| {
            let place = |(node_id, listen): (_, SocketAddr)| Place {
                node_id,
                listen: listen.to_string(),
                raft_id: places.life_of(node_id).map_or(0, RaftId::get),
            };
            places.told().into_iter().map(place).collect()
        })
    }

    /// A number that changes with each change of the places.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Notes that a stream to the node `id` is open at `place`.
    pub fn reached(&self, id: NodeId, place: SocketAddr) {
        self.confirm(|places| places.reached(id, place));
    }

    /// Notes that the voter `id`, which takes part in a quorum, serves this agent at `place`.
    pub fn served_by(&self, id: NodeId, place: SocketAddr) {
        self.confirm(|places| places.served_by(id, place));
    }

    /// Notes that the stream to the node `id` at `place` ended. Returns true if it was one that is open for a while.
    pub fn lost(&self, id: NodeId, place: SocketAddr) -> bool {
        self.change(|places| places.lost(id, place))
    }

    /// Changes the places by what may confirm the rows, and says so if it does.
    fn confirm(&self, change: impl FnOnce(&mut Places) -> bool) {
        let was = self.is_confirmed();
        if self.change(change) && !was && self.is_confirmed() {
            tracing::debug!("a quorum is reached at the addresses that the nodes' rows say");
        }
    }

    /// A quorum is reached at the addresses that the rows say.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.lock(|inner| inner.places.is_confirmed())
    }

    /// No stream to another node is open.
    #[must_use]
    pub fn reaches_nobody(&self) -> bool {
        self.lock(|inner| inner.places.reaches_nobody())
    }

    /// Whether the node has said that it listens elsewhere than at `listen`.
    #[must_use]
    pub fn has_left(&self, id: NodeId, listen: SocketAddr) -> bool {
        self.lock(|inner| inner.places.has_left(id, listen))
    }

    /// Whether the node itself has said that its address is another one than `from`.
    #[must_use]
    pub fn has_moved(&self, id: NodeId, from: IpAddr) -> bool {
        self.lock(|inner| inner.places.has_moved(id, from))
    }

    /// Has this node registered anew at once: what the cluster knows of it may be no longer true, or it was found again.
    pub fn ask_to_register(&self) {
        self.register.notify_one();
    }

    /// Returns when this node is to be registered anew at once.
    pub async fn asked_to_register(&self) {
        self.register.notified().await;
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

    /// The voters in the order in which an agent asks them: the leader first. A voter that is known at several places
    /// comes as often, in the order in which they are tried.
    #[must_use]
    pub fn voters(&self) -> Vec<Peer> {
        self.lock(|inner| {
            let mut voters: Vec<Peer> = inner.places.voters().collect();
            voters.sort_by_key(|peer| Some(peer.id) != inner.leader);
            voters
        })
    }

    /// The node `id`, if it is known, at the place that is tried first.
    #[must_use]
    pub fn peer(&self, id: NodeId) -> Option<Peer> {
        self.lock(|inner| inner.places.peer(id))
    }

    /// The places of the node `id`, in the order in which they are tried.
    #[must_use]
    pub fn places(&self, id: NodeId) -> Vec<SocketAddr> {
        self.lock(|inner| inner.places.of(id))
    }

    /// All nodes of the rows, by id, each at the place that is tried first.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.lock(|inner| inner.places.peers())
    }

    /// All nodes at all their places, for the state folder: of the places of one node the best comes last.
    #[must_use]
    pub fn to_keep(&self) -> Vec<Peer> {
        self.lock(|inner| inner.places.to_keep())
    }

    /// A connection to the node of this cluster that listens at `listen`. It is opened at the first use, and again after
    /// it broke. It is kept for the next call if it leads to the place of a node that is known: others may name any number of
    /// other places.
    #[must_use]
    pub fn channel(&self, listen: SocketAddr) -> PeerChannel {
        let channel = self.lock(|inner| {
            if let Some(channel) = inner.channels.get(&listen) {
                return channel.clone();
            }
            let channel = connect_lazy(listen);
            if inner.places.all().any(|peer| peer.listen == listen) {
                inner.channels.insert(listen, channel.clone());
            }
            channel
        });
        self.stamped(channel, listen)
    }

    fn stamped(&self, channel: Channel, listen: SocketAddr) -> PeerChannel {
        let (generations, strangers) = (self.generations.clone(), self.strangers.clone());
        PeerChannel::new(channel, listen, self.cluster, generations, strangers)
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

    #[cfg(test)]
    pub(super) fn kept_channels(&self) -> Vec<SocketAddr> {
        self.lock(|inner| inner.channels.keys().copied().collect())
    }

    /// A client of the peer's service between nodes.
    #[must_use]
    pub fn client(&self, peer: &Peer) -> Client {
        PeersClient::new(self.channel(peer.listen))
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// A client of the service between nodes at `place`, over a new connection that only Raft's messages use.
    #[must_use]
    pub fn raft_client(&self, place: SocketAddr) -> Client {
        PeersClient::new(self.stamped(connect_raft_lazy(place), place))
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }
}
