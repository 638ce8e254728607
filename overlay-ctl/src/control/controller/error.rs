//! Why a request to the cluster failed, and whether anything came of it all the same.

use crate::{
    control::{
        consensus::{ProposeError, STALLED},
        state::{Refusal, State},
        voter::VoterParts,
    },
    model::{NodeId, NodeName, RaftId},
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What is known of the effect of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The request has no effect, now or later: it changed nothing, or what it made is gone again.
    None,
    /// The request may have been carried out, or may still be. Repeat it with the same request id to find out.
    Unknown,
}

impl Effect {
    /// The effect of two attempts.
    pub(super) fn or(self, other: Self) -> Self {
        if self == Self::None { other } else { self }
    }
}

/// Why a request to the cluster failed. [`ControllerError::effect`] says whether it changed anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ControllerError {
    /// The state refuses the request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The node of the new endpoint does not answer.
    #[error("node {node} is down ({why}); start it, or choose another with --node")]
    NodeDown {
        /// The node.
        node: NodeName,
        /// What was tried.
        why: String,
        /// An earlier attempt may be carried out still.
        effect: Effect,
    },
    /// The node of the new endpoint looked, and could not make it.
    #[error("{why}")]
    CannotMake {
        /// What the node said.
        why: String,
        /// An earlier attempt may be carried out still.
        effect: Effect,
    },
    /// The endpoint was created, and its node failed to make it.
    #[error("node {node} could not make the endpoint: {reason}; {}", now(*.taken_back))]
    NotMade {
        /// The node.
        node: NodeName,
        /// What the node reported.
        reason: String,
        /// The endpoint was removed again. Otherwise it may still be there, shown as down.
        taken_back: bool,
    },
    /// A name or an address that is asked for is held back until nodes have forgotten its former owner.
    #[error("{refusal} (not yet: {})", list(.nodes))]
    HeldBack {
        /// What is held back.
        refusal: Refusal,
        /// The nodes that are late.
        nodes: Vec<NodeName>,
    },
    /// Another process runs as the node that asks to register.
    #[error(
        "node {node} runs at {listen} already, and this is a second process with a copy of its state folder: end one of the two; to have both, run `overlay node reset` for the copy and let it join as a new node"
    )]
    RunsElsewhere {
        /// The node.
        node: NodeName,
        /// Where it runs.
        listen: SocketAddr,
    },
    /// The consensus group refuses to change its members.
    #[error("{why}")]
    Members {
        /// The reason.
        why: String,
        /// An earlier attempt may be carried out still.
        effect: Effect,
    },
    /// The command is none that the log takes.
    #[error("{why}")]
    NotLoggable {
        /// The reason.
        why: String,
        /// An earlier attempt may be carried out still.
        effect: Effect,
    },
    /// The leader's queue is full.
    #[error("too many requests wait already; try again later")]
    Overloaded {
        /// An earlier attempt may have reached the log.
        effect: Effect,
    },
    /// The leader's state folder has no room, and no other voter leads in its place.
    #[error("node {node} leads and takes no writes: {why}; make room there")]
    NoRoom {
        /// The leader's name.
        node: String,
        /// The folder, and what does not fit.
        why: String,
        /// An earlier attempt may have reached the log.
        effect: Effect,
    },
    /// A majority of the voters answers the leader and takes no entries.
    #[error("{}", STALLED)]
    Stalled {
        /// The request may be in the leader's log.
        effect: Effect,
    },
    /// Too many long lists are being made.
    #[error(
        "too many long lists are asked for at once; try again later, or list one network or node"
    )]
    ListsBusy,
    /// The list is longer than a caller takes.
    #[error("the list is longer than {limit_mib} MiB; list one network or node at a time")]
    ListTooLong {
        /// The limit in MiB.
        limit_mib: usize,
    },
    /// Too many backups are being made.
    #[error(
        "{at_once} backups are being made by this node at once; try again when one is done, or ask another node"
    )]
    BackupsBusy {
        /// How many a node makes at once.
        at_once: usize,
    },
    /// No leader that has a quorum was found in time.
    #[error(
        "the cluster has no leader with a quorum ({why}); `overlay cluster status` says which voters are missing, and what to do"
    )]
    NoLeader {
        /// How the last attempt ended.
        why: String,
        /// An attempt may have reached the log.
        effect: Effect,
    },
    /// An agent holds only what its endpoints need, and no voter answers it.
    #[error(
        "no voter answers ({why}), and this node holds only the networks of its own endpoints; ask a voter, or start one"
    )]
    NoVoter {
        /// How the last attempt ended.
        why: String,
    },
    /// What changes something was asked of a state that may be stale.
    #[error("only what changes nothing can be asked of a state that may be stale")]
    StaleWrite,
    /// The leader is stopping.
    #[error("the node is stopping")]
    Stopping {
        /// The request may have reached the log.
        effect: Effect,
    },
    /// Another node does not serve the request, though it was reached.
    #[error("node {node} does not serve the request: {why}")]
    PeerRefused {
        /// The node's id.
        node: NodeId,
        /// What it said.
        why: String,
        /// This attempt or an earlier one may have reached the log.
        effect: Effect,
    },
    /// An error that this version does not know, of a node with a later one, in the words of that node.
    #[error("{why}")]
    Later {
        /// What it says.
        why: String,
        /// What is known of the effect.
        effect: Effect,
    },
    /// Two nodes run versions that do not understand each other.
    #[error("{0}; all nodes must run the same version")]
    Version(String),
    /// A defect of this program.
    #[error("{why}")]
    Defect {
        /// What was found.
        why: String,
        /// The request may have reached the log.
        effect: Effect,
    },
}

/// The names in one line.
fn list(nodes: &[NodeName]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What became of an endpoint that its node could not make.
fn now(taken_back: bool) -> &'static str {
    if taken_back {
        "the endpoint was removed again"
    } else {
        "the endpoint may still be there, shown as down; `overlay endpoint rm` removes it"
    }
}

impl ControllerError {
    /// Whether the request may have changed anything.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Self::Refused(_)
            | Self::HeldBack { .. }
            | Self::RunsElsewhere { .. }
            | Self::ListsBusy
            | Self::BackupsBusy { .. }
            | Self::ListTooLong { .. }
            | Self::NoVoter { .. }
            | Self::StaleWrite => Effect::None,
            Self::NotMade { taken_back: true, .. } => Effect::None,
            // The answer of a version that is not understood may be that of a success.
            Self::NotMade { taken_back: false, .. } | Self::Version(_) => Effect::Unknown,
            Self::NodeDown { effect, .. }
            | Self::CannotMake { effect, .. }
            | Self::Members { effect, .. }
            | Self::NotLoggable { effect, .. }
            | Self::NoLeader { effect, .. }
            | Self::NoRoom { effect, .. }
            | Self::Overloaded { effect }
            | Self::Stalled { effect }
            | Self::Stopping { effect }
            | Self::PeerRefused { effect, .. }
            | Self::Later { effect, .. }
            | Self::Defect { effect, .. } => *effect,
        }
    }

    /// The error of an attempt that comes after other attempts, whose effect is `earlier`. A refusal is decided by the
    /// state, which shows what became of the other attempts. Every other error says nothing of them: an attempt may
    /// still run on the node where it began.
    pub(super) fn after(mut self, earlier: Effect) -> Self {
        if let Self::NodeDown { effect, .. }
        | Self::CannotMake { effect, .. }
        | Self::Members { effect, .. }
        | Self::NotLoggable { effect, .. }
        | Self::NoLeader { effect, .. }
        | Self::NoRoom { effect, .. }
        | Self::Overloaded { effect }
        | Self::Stalled { effect }
        | Self::Stopping { effect }
        | Self::PeerRefused { effect, .. }
        | Self::Later { effect, .. }
        | Self::Defect { effect, .. } = &mut self
            && earlier == Effect::Unknown
        {
            *effect = Effect::Unknown;
        }
        self
    }

    /// A defect that was found before anything was logged.
    pub(super) fn defect(why: impl ToString) -> Self {
        Self::Defect { why: why.to_string(), effect: Effect::None }
    }
}

/// Why one attempt to carry out a request at the leader gave no answer.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The request failed. Another attempt would fail, too.
    Failed(ControllerError),
    /// This node does not lead (any more), or it lost its quorum meanwhile: find the leader and try again
    /// with the same request id.
    Again {
        /// What ended the attempt.
        why: &'static str,
        /// Whether the attempt may have reached the log.
        effect: Effect,
    },
}

impl Attempt {
    /// The failure of an attempt that had an effect: what it was to do after that is not done, or not known to be.
    pub(super) fn of_an_effect(self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(error.after(Effect::Unknown)),
            Self::Again { why, effect: _ } => Self::Again { why, effect: Effect::Unknown },
        }
    }

    /// A read of the log failed. It changed nothing.
    pub(super) fn of_read(error: ProposeError) -> Self {
        Self::new(error, Effect::None)
    }

    /// A write to the log failed, at the voter that leads.
    pub(super) fn of_write(leader: &VoterParts, error: ProposeError) -> Self {
        let ProposeError::NoRoom(lack) = error else { return Self::new(error, Effect::Unknown) };
        // The caller may have asked another node.
        let id = leader.consensus.status().borrow().id;
        let name = |state: &State| Some(state.node_of(RaftId::new(id)?)?.name.to_string());
        let name = leader.state.read(name);
        Self::Failed(ControllerError::NoRoom {
            node: name.unwrap_or_else(|| id.to_string()),
            why: lack.to_string(),
            effect: Effect::None,
        })
    }

    fn new(error: ProposeError, effect: Effect) -> Self {
        match error {
            ProposeError::NotLeader { .. } => {
                Self::Again { why: "the leader is not known", effect: Effect::None }
            }
            ProposeError::Dropped => Self::Again { why: "the leader changed", effect },
            ProposeError::NoQuorum => {
                Self::Again { why: "no quorum of the voters answers", effect }
            }
            ProposeError::Overloaded => {
                Self::Failed(ControllerError::Overloaded { effect: Effect::None })
            }
            ProposeError::NoRoom(lack) => {
                Self::Failed(ControllerError::defect(format!("a read needs no room: {lack}")))
            }
            ProposeError::Stalled { is_logged } => {
                let effect = if is_logged { effect } else { Effect::None };
                Self::Failed(ControllerError::Stalled { effect })
            }
            ProposeError::Stopped => Self::Failed(ControllerError::Stopping { effect }),
            ProposeError::Invalid(why) => {
                let (why, effect) = (why.to_owned(), Effect::None);
                Self::Failed(ControllerError::NotLoggable { why, effect })
            }
            ProposeError::Refused(why) => {
                Self::Failed(ControllerError::Members { why, effect: Effect::None })
            }
        }
    }
}

impl<E: Into<ControllerError>> From<E> for Attempt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_a_majority_does_not_take_may_be_carried_out_if_it_is_in_the_log() {
        for (is_logged, expected) in [(true, Effect::Unknown), (false, Effect::None)] {
            match Attempt::new(ProposeError::Stalled { is_logged }, Effect::Unknown) {
                Attempt::Failed(error @ ControllerError::Stalled { .. }) => {
                    assert_eq!(error.effect(), expected);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
