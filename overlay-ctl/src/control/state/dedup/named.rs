//! The memory of version 1. Programs that speak no more keep the same requests, to the last one, so that a repetition has the
//! same answer on every voter: neither its length nor its form can change.

use super::{Did, Kind, Used};
use crate::{
    control::state::{Applied, Command, Digest, Outcome, Refusal, RequestId},
    model::{EndpointId, EndpointName, NetworkId, NetworkName, NodeId, NodeName, Revision},
};
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// The number of removals, and of other requests, that are kept. Removals are counted apart, because a removal
/// that is carried out twice could remove a later object of the same name: no number of creations may push it
/// out.
pub(super) const REMEMBERED: usize = 65_536;

/// The requests that were carried out lately.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::control::state) struct Named {
    pub(super) done: OrdMap<RequestId, Done>,
    /// Oldest first.
    pub(super) removals: Vector<RequestId>,
    /// Oldest first.
    others: Vector<RequestId>,
}

/// One request: a digest of what it asked for, and its result. The result has the ids of rows and no copies,
/// so that many requests can be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Done {
    /// `None` = an older version logged the request, without a digest.
    pub(super) asked: Option<Digest>,
    pub(super) did: NamedDid,
}

/// The result of a request, with the name of what it made or removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum NamedDid {
    MakeNetwork(NetworkId, NetworkName),
    MakeEndpoint(EndpointId, EndpointName),
    Register(NodeId, NodeName),
    RemoveNetwork(Revision, NetworkName),
    RemoveEndpoint(Revision, EndpointName),
    RemoveNode(Revision, NodeName),
    /// A removal that an older version logged, without the kind of the object.
    Remove(Revision),
    Refuse(Arc<Refusal>),
}

impl NamedDid {
    /// The result of `command`. `None` = nobody repeats the command, so that it is not remembered: a raise of the version is
    /// the leader's own, and carried out once by its number. At version 1, no refusal is remembered that only version 2 has.
    pub(super) fn new(command: &Command, outcome: &Outcome) -> Option<Self> {
        Some(match (outcome, command) {
            (_, Command::RaiseVersion { .. }) => return None,
            (Ok(Applied::Removed(revision)), Command::RemoveNetwork { name, .. }) => {
                Self::RemoveNetwork(*revision, name.clone())
            }
            (Ok(Applied::Removed(revision)), Command::RemoveEndpoint { name, .. }) => {
                Self::RemoveEndpoint(*revision, name.clone())
            }
            (Ok(Applied::Removed(revision)), Command::RemoveNode { name, .. }) => {
                Self::RemoveNode(*revision, name.clone())
            }
            _ => return Self::of(outcome),
        })
    }

    fn is_removal(&self) -> bool {
        match self {
            Self::RemoveNetwork(..)
            | Self::RemoveEndpoint(..)
            | Self::RemoveNode(..)
            | Self::Remove(_) => true,
            Self::MakeNetwork(..)
            | Self::MakeEndpoint(..)
            | Self::Register(..)
            | Self::Refuse(_) => false,
        }
    }

    /// Returns true if `command` can have had this result, judged by its verb and name.
    fn can_be_of(&self, command: &Command) -> bool {
        match (self, command) {
            (Self::MakeNetwork(_, made), Command::CreateNetwork { name, .. }) => made == name,
            (Self::MakeEndpoint(_, made), Command::CreateEndpoint { name, .. }) => made == name,
            (Self::Register(_, made), Command::RegisterNode { name, .. }) => made == name,
            (Self::RemoveNetwork(_, gone), Command::RemoveNetwork { name, .. }) => gone == name,
            (Self::RemoveEndpoint(_, gone), Command::RemoveEndpoint { name, .. }) => gone == name,
            (Self::RemoveNode(_, gone), Command::RemoveNode { name, .. }) => gone == name,
            (
                Self::Remove(_),
                Command::RemoveNetwork { .. }
                | Command::RemoveEndpoint { .. }
                | Command::RemoveNode { .. },
            )
            | (Self::Refuse(_), _) => true,
            _ => false,
        }
    }
}

impl NamedDid {
    /// The result of a command that had this outcome.
    fn of(outcome: &Outcome) -> Option<Self> {
        Some(match outcome {
            Ok(Applied::Network(network)) => Self::MakeNetwork(network.id, network.name.clone()),
            Ok(Applied::Endpoint(endpoint)) => {
                Self::MakeEndpoint(endpoint.id, endpoint.name.clone())
            }
            Ok(Applied::Node(node)) => Self::Register(node.id, node.name.clone()),
            Ok(Applied::Removed(revision)) => Self::Remove(*revision),
            // Version 1 has neither.
            Ok(Applied::Raised(_) | Applied::Voters(_)) => return None,
            Err(refusal) => Self::Refuse(Arc::new(refusal.clone())),
        })
    }
}

impl NamedDid {
    /// The same without the name.
    pub(super) fn without_name(&self) -> Did {
        match self {
            Self::MakeNetwork(id, _) => Did::Make(Kind::Network, *id),
            Self::MakeEndpoint(id, _) => Did::Make(Kind::Endpoint, *id),
            Self::Register(id, _) => Did::Make(Kind::Node, *id),
            Self::RemoveNetwork(revision, _) => Did::Remove(Kind::Network, *revision),
            Self::RemoveEndpoint(revision, _) => Did::Remove(Kind::Endpoint, *revision),
            Self::RemoveNode(revision, _) => Did::Remove(Kind::Node, *revision),
            // Endpoints are what is removed most.
            Self::Remove(revision) => Did::Remove(Kind::Endpoint, *revision),
            Self::Refuse(refusal) => Did::Refuse(Arc::clone(refusal)),
        }
    }
}

impl fmt::Display for NamedDid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeNetwork(_, name) => write!(f, "the creation of network {name}"),
            Self::MakeEndpoint(_, name) => write!(f, "the creation of endpoint {name}"),
            Self::Register(_, name) => write!(f, "the registration of node {name}"),
            Self::RemoveNetwork(_, name) => write!(f, "the removal of network {name}"),
            Self::RemoveEndpoint(_, name) => write!(f, "the removal of endpoint {name}"),
            Self::RemoveNode(_, name) => write!(f, "the removal of node {name}"),
            Self::Remove(revision) => write!(f, "the removal of revision {revision}"),
            Self::Refuse(refusal) => write!(f, "a request that was refused ({refusal})"),
        }
    }
}

impl Named {
    /// As [`Dedup::recall`](super::Dedup::recall).
    pub(super) fn recall(
        &self,
        request: &RequestId,
        asked: Option<Digest>,
        command: &Command,
    ) -> Option<Result<Did, Used>> {
        let Done { asked: before, did } = self.done.get(request)?;
        let is_repeated = match (*before, asked) {
            (Some(before), Some(asked)) => before == asked,
            // One of the two was logged by a version that wrote no digest.
            _ => did.can_be_of(command),
        };
        Some(if is_repeated { Ok(did.without_name()) } else { Err(Used::Named(did.to_string())) })
    }

    pub(super) fn insert(&mut self, request: RequestId, done: Done) {
        let order = if done.did.is_removal() { &mut self.removals } else { &mut self.others };
        order.push_back(request);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            self.done.remove(&oldest);
        }
        self.done.insert(request, done);
    }
}

impl Named {
    /// All requests of which the digest is known: the removals, oldest first, and then the others.
    pub(super) fn digested(&self) -> impl Iterator<Item = (RequestId, Digest, Did)> {
        self.removals.iter().chain(&self.others).filter_map(|id| {
            let Done { asked, did } = self.done.get(id)?;
            Some((*id, (*asked)?, did.without_name()))
        })
    }
}

/// The form in a snapshot: lists with the oldest request first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::control::state) struct Lists {
    removals: Vec<(Uuid, Done)>,
    others: Vec<(Uuid, Done)>,
}

impl From<&Named> for Lists {
    fn from(dedup: &Named) -> Self {
        let list = |order: &Vector<RequestId>| {
            let done = |id: &RequestId| Some((Uuid::from_bytes(*id), dedup.done.get(id)?.clone()));
            order.iter().filter_map(done).collect()
        };
        Self { removals: list(&dedup.removals), others: list(&dedup.others) }
    }
}

impl From<Lists> for Named {
    fn from(Lists { removals, others }: Lists) -> Self {
        let mut dedup = Self::default();
        for (request, done) in removals.into_iter().chain(others) {
            dedup.insert(request.into_bytes(), done);
        }
        dedup
    }
}

/// The form in snapshots before format 3.
impl From<Vec<(RequestId, Outcome)>> for Named {
    fn from(list: Vec<(RequestId, Outcome)>) -> Self {
        let mut dedup = Self::default();
        for (request, outcome) in list {
            if let Some(did) = NamedDid::of(&outcome) {
                dedup.insert(request, Done { asked: None, did });
            }
        }
        dedup
    }
}
