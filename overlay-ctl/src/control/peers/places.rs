//! Where each node may be reached: a table, without any I/O.
//!
//! A node's row says where it listens, and only a quorum can change a row. Where a quorum of the nodes has new addresses at
//! once, no row leads to them, and the quorum that could change the rows can't form. So other places stand beside the rows:
//! those of the state folder's file, and those that nodes were heard at or heard of. The rows win when a quorum is reached
//! at the addresses that they say.

use crate::model::{Node, NodeId, RaftId};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

/// Places of one node beside its row, from the file and from peers, each.
const PLACES_MAX: usize = 4;
/// Nodes of which other places than that of the row are known. The rows of further ones follow when they register.
const TAUGHT_MAX: usize = 1024;
/// Places that one message tells.
pub(super) const TOLD_MAX: usize = 64;

/// A node of the cluster, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Address that serves its API and its peers.
    pub listen: SocketAddr,
    /// It is a voter, or is to become one.
    pub voter: bool,
    /// As [`Node::raft_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<RaftId>,
}

impl Peer {
    /// As [`Node::life`].
    #[must_use]
    pub fn life(&self) -> Option<RaftId> {
        self.raft_id.or(RaftId::new(self.id)).filter(|_| self.voter)
    }
}

impl From<&Node> for Peer {
    fn from(node: &Node) -> Self {
        let Node { id, listen, voter, raft_id, .. } = *node;
        Self { id, listen, voter, raft_id }
    }
}

/// Who said where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The node itself: what was said before is older.
    Itself,
    /// Another node, whose knowledge may be older than this one's.
    Another,
}

/// Where each node may be reached.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// This node, and where the others reach it.
    own: Option<(NodeId, SocketAddr)>,
    /// What the rows say; before they are read, what the file says.
    rows: BTreeMap<NodeId, Peer>,
    rows_are_read: bool,
    /// Whose each Raft id is: those of the rows, and those that peers told. An id is never another node's, so that one that is
    /// over does no harm.
    lives: BTreeMap<RaftId, NodeId>,
    /// Those that vote by the latest answer to a registration, whatever the rows say: where no voter of theirs votes any more,
    /// nobody else would send newer ones.
    named: BTreeSet<NodeId>,
    /// From the file, the best first.
    kept: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// Where nodes of the rows said themselves that they listen, last.
    said: BTreeMap<NodeId, IpAddr>,
    /// Heard from peers, the best first. None of them is the place of the row.
    taught: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// Where streams to nodes are open.
    reached: BTreeMap<NodeId, SocketAddr>,
    /// The voter that serves this agent, and takes part in a quorum.
    serves: Option<NodeId>,
    /// A quorum is reached at the addresses of the rows.
    confirmed: bool,
}

impl Places {
    /// A table of what the file says. Of the places of one node the best comes last: versions that know one
    /// place of a node read that one.
    pub(super) fn new(kept: impl IntoIterator<Item = Peer>) -> Self {
        let mut places = Self::default();
        for peer in kept {
            put_first(places.kept.entry(peer.id).or_default(), peer.listen);
            places.lives.extend(peer.life().map(|life| (life, peer.id)));
            places.rows.insert(peer.id, peer);
        }
        places
    }

    /// Notes who this node is, and where the others reach it. Returns true if that is news.
    pub(super) fn introduce(&mut self, id: NodeId, listen: SocketAddr) -> bool {
        let is_news = self.own.replace((id, listen)) != Some((id, listen));
        self.settle();
        is_news
    }

    /// Where the others reach this node.
    pub(super) fn own(&self) -> Option<(NodeId, SocketAddr)> {
        self.own
    }

    /// Takes what the rows say now. Returns true if that is news. An empty list is ignored: a node that knows no other
    /// could not come back.
    pub(super) fn replace(&mut self, rows: impl IntoIterator<Item = Peer>) -> bool {
        let rows: BTreeMap<NodeId, Peer> = rows.into_iter().map(|peer| (peer.id, peer)).collect();
        if rows.is_empty() || (self.rows_are_read && rows == self.rows) {
            return false;
        }
        self.named.clear();
        self.lives.extend(rows.values().filter_map(|row| Some((row.life()?, row.id))));
        self.said.retain(|id, _| rows.contains_key(id));
        self.rows = rows;
        self.rows_are_read = true;
        self.settle();
        true
    }

    /// Notes that the node `id` is said to listen at `listen`. Returns true if that is news.
    pub(super) fn teach(&mut self, id: NodeId, listen: SocketAddr, source: Source) -> bool {
        let is_own = self.own.is_some_and(|(own, _)| own == id);
        let is_of_the_row = self.rows.get(&id).is_some_and(|row| row.listen == listen);
        let is_none = listen.ip().is_unspecified() || listen.ip().is_multicast();
        if is_own || is_none || listen.port() == 0 {
            return false;
        }
        if source == Source::Itself && self.rows.contains_key(&id) {
            self.said.insert(id, listen.ip());
        }
        if is_of_the_row {
            // Where it says so itself, it has come back there.
            return source == Source::Itself && self.taught.remove(&id).is_some();
        }
        // See `settle`.
        if self.confirmed && !self.rows.contains_key(&id) {
            return false;
        }
        if !self.taught.contains_key(&id) && self.taught.len() >= TAUGHT_MAX {
            return false;
        }
        let places = self.taught.entry(id).or_default();
        match source {
            Source::Itself if places.first() == Some(&listen) => false,
            Source::Itself => {
                put_first(places, listen);
                true
            }
            // It never changes the order: two nodes that know different places would change each other's without end.
            Source::Another if places.contains(&listen) || places.len() >= PLACES_MAX => false,
            Source::Another => {
                places.push(listen);
                true
            }
        }
    }

    /// Notes that this Raft id is the node's.
    pub(super) fn note_life(&mut self, id: NodeId, life: RaftId) {
        if self.lives.len() < self.rows.len() + TAUGHT_MAX {
            self.lives.entry(life).or_insert(id);
        }
    }

    /// Notes that these nodes vote by the answer to a registration. Returns true if that is news.
    pub(super) fn name_voters(&mut self, voters: impl IntoIterator<Item = NodeId>) -> bool {
        let named: BTreeSet<NodeId> = voters.into_iter().take(TOLD_MAX).collect();
        std::mem::replace(&mut self.named, named) != self.named
    }

    /// The node that has this Raft id, or had it.
    pub(super) fn node_of(&self, life: RaftId) -> Option<NodeId> {
        self.lives.get(&life).copied()
    }

    /// The Raft id that the node has now, as far as it is known.
    pub(super) fn life_of(&self, id: NodeId) -> Option<RaftId> {
        // The latest one is the greatest.
        let known =
            || self.lives.iter().rev().find(|(_, node)| **node == id).map(|(life, _)| *life);
        self.rows.get(&id).and_then(Peer::life).max(known())
    }

    /// Notes that a stream to the node is open at `place`. Returns true if that is news.
    pub(super) fn reached(&mut self, id: NodeId, place: SocketAddr) -> bool {
        let is_news = self.reached.insert(id, place) != Some(place);
        self.settle();
        is_news
    }

    /// Notes that the voter `id`, which takes part in a quorum, serves this agent at `place`. Returns true if that is
    /// news.
    pub(super) fn served_by(&mut self, id: NodeId, place: SocketAddr) -> bool {
        let is_news = self.serves.replace(id) != Some(id);
        self.reached(id, place) || is_news
    }

    /// Notes that the stream to the node at `place` ended. Returns true if it was open.
    pub(super) fn lost(&mut self, id: NodeId, place: SocketAddr) -> bool {
        if self.reached.get(&id) != Some(&place) {
            return false;
        }
        self.reached.remove(&id);
        self.serves = self.serves.filter(|serving| *serving != id);
        self.settle();
        true
    }

    /// A quorum is reached at the addresses of the rows.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// No stream to another node is open.
    pub(super) fn reaches_nobody(&self) -> bool {
        self.reached.is_empty()
    }

    /// Whether the node has said that it listens elsewhere than at `listen`.
    pub(super) fn has_left(&self, id: NodeId, listen: SocketAddr) -> bool {
        self.taught.get(&id).and_then(|places| places.first()).is_some_and(|place| *place != listen)
    }

    /// Whether the node itself has said that its address is another one than `from`.
    pub(super) fn has_moved(&self, id: NodeId, from: IpAddr) -> bool {
        self.said.get(&id).is_some_and(|said| *said != from)
    }

    /// Where the node may be reached, in the order in which it is tried.
    pub(super) fn of(&self, id: NodeId) -> Vec<SocketAddr> {
        let row = self.rows.get(&id).map(|row| row.listen);
        let (before, behind) = if self.confirmed { (row, None) } else { (None, row) };
        let taught = self.taught.get(&id).into_iter().flatten().copied();
        let kept = self.kept.get(&id).into_iter().flatten().copied();
        let reached = self.reached.get(&id).copied();
        let mut places = Vec::new();
        for place in reached.into_iter().chain(before).chain(taught).chain(behind).chain(kept) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// The node, at the place that is tried first.
    pub(super) fn peer(&self, id: NodeId) -> Option<Peer> {
        let listen = match self.rows.get(&id) {
            // Nearly every node of many: no list is made for it.
            Some(row) if !self.is_elsewhere(row) => row.listen,
            _ => *self.of(id).first()?,
        };
        let (voter, raft_id) = (self.is_voter(id), self.raft_id(id));
        Some(Peer { id, listen, voter, raft_id })
    }

    /// Whether other places of the node than its row's are known.
    fn is_elsewhere(&self, row: &Peer) -> bool {
        self.kept.contains_key(&row.id)
            || self.taught.contains_key(&row.id)
            || self.reached.get(&row.id).is_some_and(|place| *place != row.listen)
    }

    /// Whether the node votes, or is to. A node that has no row yet is one that a voter told of: see `told`.
    fn is_voter(&self, id: NodeId) -> bool {
        self.named.contains(&id) || self.rows.get(&id).is_none_or(|row| row.voter)
    }

    fn raft_id(&self, id: NodeId) -> Option<RaftId> {
        let row = self.rows.get(&id)?;
        if self.named.contains(&id) && !row.voter { self.life_of(id) } else { row.raft_id }
    }

    /// All nodes of the rows, by id, each at the place that is tried first.
    pub(super) fn peers(&self) -> Vec<Peer> {
        self.rows.keys().filter_map(|id| self.peer(*id)).collect()
    }

    /// All nodes: those of the rows, and others that the file or a peer named.
    fn ids(&self) -> impl Iterator<Item = NodeId> {
        let others = self.kept.keys().chain(self.taught.keys());
        let others: BTreeSet<NodeId> =
            others.filter(|id| !self.rows.contains_key(id)).copied().collect();
        self.rows.keys().copied().chain(others)
    }

    /// The node at each of its places, in the order in which they are tried.
    fn at_each_place(&self, id: NodeId) -> impl Iterator<Item = Peer> {
        let (voter, raft_id) = (self.is_voter(id), self.raft_id(id));
        self.of(id).into_iter().map(move |listen| Peer { id, listen, voter, raft_id })
    }

    /// Every node at each of its places.
    pub(super) fn all(&self) -> impl Iterator<Item = Peer> {
        self.ids().flat_map(|id| self.at_each_place(id))
    }

    /// Every voter at each of its places.
    pub(super) fn voters(&self) -> impl Iterator<Item = Peer> {
        self.ids().filter(|id| self.is_voter(*id)).flat_map(|id| self.at_each_place(id))
    }

    /// What the file is to say: see [`Places::new`].
    pub(super) fn to_keep(&self) -> Vec<Peer> {
        let mut all: Vec<Peer> = self.all().collect();
        all.reverse();
        all.sort_by_key(|peer| peer.id);
        all
    }

    /// What this node tells its peers: where it listens itself, which comes first, and where other voters are said to
    /// listen. It is empty as long as this node does not know itself.
    pub(super) fn told(&self) -> Vec<(NodeId, SocketAddr)> {
        let Some(own) = self.own else { return Vec::new() };
        let others = self.taught.iter().filter(|(id, _)| self.is_voter(**id));
        let others = others.flat_map(|(id, places)| places.iter().map(|place| (*id, *place)));
        std::iter::once(own).chain(others).take(TOLD_MAX).collect()
    }

    /// Lets go of what the rows have caught up with. Where a quorum is reached at their addresses, it lets go of all that the
    /// file said, too, and of nodes that have no row.
    fn settle(&mut self) {
        let Self {
            own,
            rows,
            rows_are_read,
            lives,
            named: _,
            said: _,
            kept,
            taught,
            reached,
            serves,
            confirmed,
        } = self;
        let at_its_row = |row: &Peer| reached.get(&row.id) == Some(&row.listen);
        taught.retain(|id, places| {
            let Some(row) = rows.get(id) else { return true };
            places.first() != Some(&row.listen) && !at_its_row(row)
        });
        let voters = || rows.values().filter(|row| row.voter);
        let here = |row: &Peer| *own == Some((row.id, row.listen)) || at_its_row(row);
        let is_majority = voters().filter(|row| here(row)).count() > voters().count() / 2;
        let is_served = serves.and_then(|id| rows.get(&id)).is_some_and(at_its_row);
        *confirmed = *rows_are_read && (is_majority || is_served);
        if *confirmed {
            kept.clear();
            taught.retain(|id, _| rows.contains_key(id));
            lives.retain(|_, id| rows.contains_key(id));
        }
    }
}

/// Puts a place in front of the others.
fn put_first(places: &mut Vec<SocketAddr>, place: SocketAddr) {
    places.retain(|known| *known != place);
    places.insert(0, place);
    places.truncate(PLACES_MAX);
}

#[cfg(test)]
mod tests;
