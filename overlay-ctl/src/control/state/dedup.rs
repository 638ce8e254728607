//! The results of the latest requests. A repeated request is answered from here and not carried out again.

mod compact;
mod named;
#[cfg(test)]
mod tests;

pub(super) use compact::Compact;
pub(super) use named::{Lists, Named};

use super::{Applied, Command, Digest, Outcome, Refusal, RequestId};
use crate::model::{Revision, Version, Voters};
use named::{Done, NamedDid};
use std::sync::Arc;

/// The requests that were carried out lately. The snapshot contains them, because a restored node must give the
/// same answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dedup {
    /// At version 1.
    Named(Named),
    /// From version 2 on.
    Compact(Compact),
}

/// The result of a request: the ids of rows and no copies, so that many requests can be kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Did {
    /// It made the row with this id, or changed it.
    Make(Kind, u64),
    /// It removed a row at this revision.
    Remove(Kind, Revision),
    /// It set how many nodes are to vote.
    SetVoters(Voters),
    /// It was refused.
    Refuse(Arc<Refusal>),
}

/// The kind of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Network,
    Endpoint,
    Node,
    /// A node, by the Raft id of a life of its log.
    Life,
    /// A node that got a seat, or gave it up.
    Seat,
}

/// The request that used an id before another one.
#[derive(Debug, PartialEq)]
pub(super) enum Used {
    /// In words.
    Named(String),
    /// With this result.
    By(Did),
}

impl Did {
    /// The result of `command`. `None` = nobody repeats the command, so that it is not remembered: what is the leader's own
    /// has the same effect when it is applied twice.
    fn of(command: &Command, outcome: &Outcome) -> Option<Self> {
        let kind = match command {
            Command::CreateNetwork { .. } | Command::RemoveNetwork { .. } => Kind::Network,
            Command::CreateEndpoint { .. } | Command::RemoveEndpoint { .. } => Kind::Endpoint,
            Command::RegisterNode { .. } | Command::RemoveNode { .. } => Kind::Node,
            Command::BeginLife { .. } => Kind::Life,
            // What sets a number, and no row, has no kind: its outcome has none either.
            Command::Promote { .. } | Command::Demote { .. } | Command::SetVoters { .. } => {
                Kind::Seat
            }
            // The leader's own, like the raise.
            Command::KeepEndpoint { .. }
            | Command::ExchangeVteps { .. }
            | Command::NoteLease { .. }
            | Command::RaiseVersion { .. } => return None,
        };
        Some(match outcome {
            Ok(Applied::Network(network)) => Self::Make(kind, network.id),
            Ok(Applied::Endpoint(endpoint)) => Self::Make(kind, endpoint.id),
            Ok(Applied::Node(node)) if kind == Kind::Life => Self::Make(kind, node.life()?.get()),
            Ok(Applied::Node(node)) => Self::Make(kind, node.id),
            Ok(Applied::Removed(revision)) => Self::Remove(kind, *revision),
            Ok(Applied::Voters(voters)) => Self::SetVoters(*voters),
            Ok(Applied::Raised(_)) => return None,
            Err(refusal) => Self::Refuse(Arc::new(refusal.clone())),
        })
    }
}

impl Default for Dedup {
    fn default() -> Self {
        Self::Named(Named::default())
    }
}

impl Dedup {
    /// The same requests, as a cluster at `version` keeps them. Those of which no digest is known are forgotten from version
    /// 2 on: a program that does not write it can't have logged one within minutes of the raise.
    pub(super) fn at(self, version: Version) -> Self {
        match self {
            Self::Named(named) if version >= Version::V2 => {
                let mut compact = Compact::default();
                for (request, asked, did) in named.digested() {
                    compact.insert(request, asked, did);
                }
                Self::Compact(compact)
            }
            same => same,
        }
    }

    /// How many requests are remembered.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Named(named) => named.done.len(),
            Self::Compact(compact) => compact.done.len(),
        }
    }

    /// The result of the request with this id, if it was carried out. The error is what used the id, if that was another
    /// request, because its answer would be taken for this request's.
    pub(super) fn recall(
        &self,
        request: &RequestId,
        asked: Option<Digest>,
        command: &Command,
    ) -> Option<Result<Did, Used>> {
        match self {
            Self::Named(named) => named.recall(request, asked, command),
            Self::Compact(compact) => compact.recall(request, || digest(asked, command)),
        }
    }

    /// Notes the outcome of a request that is not known yet.
    pub(super) fn insert(
        &mut self,
        request: RequestId,
        asked: Option<Digest>,
        command: &Command,
        outcome: &Outcome,
    ) {
        match self {
            Self::Named(named) => {
                if let Some(did) = NamedDid::new(command, outcome) {
                    named.insert(request, Done { asked, did });
                }
            }
            Self::Compact(compact) => {
                if let Some(did) = Did::of(command, outcome) {
                    compact.insert(request, digest(asked, command), did);
                }
            }
        }
    }
}

/// The digest of a request. An entry without one was logged as it was asked for.
fn digest(asked: Option<Digest>, command: &Command) -> Digest {
    asked.unwrap_or_else(|| command.digest())
}
