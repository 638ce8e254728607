//! What a directory tells of this process, and knows of those of the other nodes: see [`processes`](super::processes).

use super::{Directory, Incarnation, mark_elsewhere};
use crate::model::NodeId;
use std::net::SocketAddr;
use tonic::Status;

/// Holds a stream of one process of a node open in the table of processes, for as long as it lives.
pub struct StreamHold {
    node: NodeId,
    incarnation: Incarnation,
    directory: Directory,
}

impl StreamHold {
    /// Fails once another process has taken the place of the one whose stream this is: nothing more of it is to be heard.
    ///
    /// # Errors
    /// The process is not the node's present one, which the refusal tells it.
    pub fn check(&self) -> Result<(), Status> {
        let Self { node, incarnation, directory } = self;
        match directory.lock(|inner| inner.processes.is_current(*node, *incarnation)) {
            true => Ok(()),
            false => Err(another_runs(*node)),
        }
    }
}

/// The refusal of a process of a node that is not its present one.
fn another_runs(node: NodeId) -> Status {
    let why = format!("another process runs as node {node}, and its stream is open");
    let mut status = Status::failed_precondition(why);
    mark_elsewhere(status.metadata_mut());
    status
}

impl Drop for StreamHold {
    fn drop(&mut self) {
        self.directory.lock(|inner| inner.processes.close(self.node, self.incarnation));
    }
}

impl Directory {
    /// The same directory, of this run of a node's program. Without this it is a run of its own.
    #[must_use]
    pub fn run_by(mut self, incarnation: Incarnation) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// Which run of the node's program this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Holds a stream of the process `incarnation` of a node, which listens at `listen`, open; nothing is held of one that does
    /// not say which it is, as those of earlier programs. The hold is [checked](StreamHold::check) before each message.
    ///
    /// # Errors
    /// Another process of the node has one open.
    pub fn hold_stream(
        &self,
        node: NodeId,
        incarnation: &[u8],
        listen: &str,
    ) -> Result<Option<StreamHold>, Status> {
        let Ok(incarnation) = Incarnation::from_slice(incarnation) else { return Ok(None) };
        if !self.lock(|inner| inner.processes.open(node, incarnation, listen.parse().ok())) {
            return Err(another_runs(node));
        }
        Ok(Some(StreamHold { node, incarnation, directory: self.clone() }))
    }

    /// Notes, on the leader, that the process was registered as the node.
    pub fn note_registered(&self, node: NodeId, incarnation: Incarnation) {
        self.lock(|inner| inner.processes.register(node, incarnation));
    }

    /// Whether another process was registered as the node after this one, and runs.
    #[must_use]
    pub fn is_superseded(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.lock(|inner| inner.processes.is_superseded(node, incarnation))
    }

    /// Notes, on the leader, that a second process asked at `place` to be the node.
    pub fn note_copy(&self, node: NodeId, place: SocketAddr) {
        self.lock(|inner| inner.processes.note_copy(node, place));
    }

    /// Where a second process asked this leader lately to be the node.
    #[must_use]
    pub fn copy_of(&self, node: NodeId) -> Option<SocketAddr> {
        self.lock(|inner| inner.processes.copy_of(node))
    }

    /// Forgets, on the leader, the processes of a node that was removed.
    pub fn forget_processes(&self, node: NodeId) {
        self.lock(|inner| inner.processes.forget(node));
    }

    /// Notes where a second process asked to be this node, as the leader says; `None` = lately nowhere.
    pub fn note_own_copy(&self, place: Option<SocketAddr>) {
        let before = self.lock(|inner| std::mem::replace(&mut inner.own_copy, place));
        if let (Some(place), true) = (place, before != place) {
            tracing::warn!(
                copy = %place,
                "a second process, with a copy of this node's state folder, asks to be this node, and is refused: end it; to have both, run `overlay node reset` for the copy and let it join as a new node"
            );
        }
    }

    /// Where a second process asks to be this node.
    #[must_use]
    pub fn own_copy(&self) -> Option<SocketAddr> {
        self.lock(|inner| inner.own_copy)
    }
}
