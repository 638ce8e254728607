//! Which process runs as each node: a table, without any I/O.
//!
//! A copy of a state folder makes a second process of a node. The streams of only one of them are taken at a time, so that a
//! voter hears no two processes under one Raft id, and the leader lets only one register (`control/controller/copies.rs`). Both
//! know processes by a number that each chooses at its start.

use crate::{model::NodeId, proto::v1::StatusResponse};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// One run of a node's program: chosen by chance at its start, and kept nowhere.
pub type Incarnation = Uuid;

/// A process that was registered in this time runs still: it registers twice meanwhile. For as long the first process of a
/// node is told of a second one.
const LATELY: Duration = Duration::from_secs(90);
/// Former processes of one node that are remembered.
const FORMER_MAX: usize = 8;

/// Returns true if what answers so is the node `id`, and another process than the one that is `known` as it. A process of an
/// earlier program does not say which it is, and counts as another one.
#[must_use]
pub fn is_another(answer: &StatusResponse, id: NodeId, known: Option<Incarnation>) -> bool {
    let said = Incarnation::from_slice(&answer.incarnation).ok();
    answer.node_id == id && (said.is_none() || said != known)
}

/// Which process runs as each node.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// Whose streams are open here.
    streams: BTreeMap<NodeId, Open>,
    registered: BTreeMap<NodeId, Registered>,
    /// Where a second process of each node asked last.
    copies: BTreeMap<NodeId, (SocketAddr, Instant)>,
}

/// The streams of one process of a node.
#[derive(Debug)]
struct Open {
    incarnation: Incarnation,
    /// Where it listens, as it says.
    listen: Option<SocketAddr>,
    count: usize,
    /// Those whose place it has taken, the latest last: none of them takes it back.
    former: VecDeque<Incarnation>,
}

/// Adds a process to those that were before, of which only the latest are remembered.
fn remember(former: &mut VecDeque<Incarnation>, before: Incarnation) {
    former.push_back(before);
    if former.len() > FORMER_MAX {
        former.pop_front();
    }
}

/// What a leader knows of the processes of one node.
#[derive(Debug)]
struct Registered {
    now: Incarnation,
    at: Instant,
    /// Those before it, the latest last.
    former: VecDeque<Incarnation>,
}

impl Processes {
    /// Opens a stream of a process that listens at `listen`. Returns false if another process of the node has one open.
    ///
    /// One that listens where the other one did takes its place: the end of a machine without power is seen late, and it may
    /// be back before. The streams of the other one are no longer [current](Self::is_current).
    pub(super) fn open(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        listen: Option<SocketAddr>,
    ) -> bool {
        let first = || Open { incarnation, listen, count: 0, former: VecDeque::new() };
        let open = self.streams.entry(node).or_insert_with(first);
        let is_there = listen.is_some() && open.listen == listen;
        if open.incarnation != incarnation && is_there && !open.former.contains(&incarnation) {
            remember(&mut open.former, open.incarnation);
            (open.incarnation, open.count) = (incarnation, 0);
        }
        let is_its = open.incarnation == incarnation;
        if is_its {
            open.listen = listen.or(open.listen);
            open.count += 1;
        }
        is_its
    }

    /// Whether this is the process whose streams are taken: another one may have taken its place since it opened one.
    pub(super) fn is_current(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.streams.get(&node).is_some_and(|open| open.incarnation == incarnation)
    }

    /// The end of a stream that was opened.
    pub(super) fn close(&mut self, node: NodeId, incarnation: Incarnation) {
        let open = self.streams.get_mut(&node).filter(|open| open.incarnation == incarnation);
        if let Some(open) = open {
            open.count -= 1;
            if open.count == 0 {
                self.streams.remove(&node);
            }
        }
    }

    /// Notes that a process was registered as the node.
    pub(super) fn register(&mut self, node: NodeId, incarnation: Incarnation) {
        let at = Instant::now();
        let first = || Registered { now: incarnation, at, former: VecDeque::new() };
        let known = self.registered.entry(node).or_insert_with(first);
        known.at = at;
        if known.now != incarnation {
            remember(&mut known.former, std::mem::replace(&mut known.now, incarnation));
        }
    }

    /// Whether a process was registered after this one, and runs: a process that comes back after its successor is no
    /// predecessor that has ended.
    pub(super) fn is_superseded(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let lately = self.registered.get(&node).filter(|known| known.at.elapsed() < LATELY);
        lately.is_some_and(|known| known.now != incarnation && known.former.contains(&incarnation))
    }

    /// Notes that a second process asked at `place` to be the node.
    pub(super) fn note_copy(&mut self, node: NodeId, place: SocketAddr) {
        self.copies.insert(node, (place, Instant::now()));
    }

    /// Where a second process asked lately to be the node.
    pub(super) fn copy_of(&self, node: NodeId) -> Option<SocketAddr> {
        let (place, at) = *self.copies.get(&node)?;
        (at.elapsed() < LATELY).then_some(place)
    }

    /// Forgets a node that was removed.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.registered.remove(&node);
        self.copies.remove(&node);
    }
}

#[cfg(test)]
mod tests;
