//! The results of the latest requests. A repeated request is answered from here and not carried out again.

use super::{Applied, Command, Digest, Outcome, Refusal, RequestId};
use crate::model::{
    EndpointId, EndpointName, NetworkId, NetworkName, NodeId, NodeName, RaftId, Revision, Voters,
};
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// The number of removals, and of other requests, that are kept. Removals are counted apart, because a removal
/// that is carried out twice could remove a later object of the same name: no number of creations may push it
/// out. A client gives up after half a minute; no cluster was seen to reach either number in that time.
const REMEMBERED: usize = 65_536;

/// The requests that were carried out lately. The snapshot contains them, because a restored node must give the
/// same answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Dedup {
    done: OrdMap<RequestId, Done>,
    /// Oldest first.
    removals: Vector<RequestId>,
    /// Oldest first.
    others: Vector<RequestId>,
}

/// One request: a digest of what it asked for, and its result. The result has the ids of rows and no copies,
/// so that many requests can be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Done {
    /// `None` = an older version logged the request, without a digest.
    pub(super) asked: Option<Digest>,
    pub(super) did: Did,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Did {
    MakeNetwork(NetworkId, NetworkName),
    MakeEndpoint(EndpointId, EndpointName),
    Register(NodeId, NodeName),
    BeginLife(RaftId, NodeName),
    Promote(NodeId, NodeName),
    Demote(NodeId, NodeName),
    Voters(Voters),
    RemoveNetwork(Revision, NetworkName),
    RemoveEndpoint(Revision, EndpointName),
    RemoveNode(Revision, NodeName),
    /// A removal that an older version logged, without the kind of the object.
    Remove(Revision),
    Refuse(Arc<Refusal>),
}

impl Did {
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
            (Ok(Applied::Node(node)), Command::BeginLife { name, .. }) => {
                Self::BeginLife(node.life()?, name.clone())
            }
            (Ok(Applied::Node(node)), Command::Promote { name, .. }) => {
                Self::Promote(node.id, name.clone())
            }
            (Ok(Applied::Node(node)), Command::Demote { name, .. }) => {
                Self::Demote(node.id, name.clone())
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
            | Self::BeginLife(..)
            | Self::Promote(..)
            | Self::Demote(..)
            | Self::Voters(_)
            | Self::Refuse(_) => false,
        }
    }

    /// Returns true if `command` can have had this result, judged by its verb and name.
    fn can_be_of(&self, command: &Command) -> bool {
        match (self, command) {
            (Self::MakeNetwork(_, made), Command::CreateNetwork { name, .. }) => made == name,
            (Self::MakeEndpoint(_, made), Command::CreateEndpoint { name, .. }) => made == name,
            (Self::Register(_, made), Command::RegisterNode { name, .. }) => made == name,
            (Self::BeginLife(_, had), Command::BeginLife { name, .. }) => had == name,
            (Self::Promote(_, made), Command::Promote { name, .. })
            | (Self::Demote(_, made), Command::Demote { name, .. }) => made == name,
            (Self::Voters(set), Command::SetVoters { voters }) => set == voters,
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

impl Did {
    /// The result of a command that had this outcome.
    fn of(outcome: &Outcome) -> Option<Self> {
        Some(match outcome {
            Ok(Applied::Network(network)) => Self::MakeNetwork(network.id, network.name.clone()),
            Ok(Applied::Endpoint(endpoint)) => {
                Self::MakeEndpoint(endpoint.id, endpoint.name.clone())
            }
            Ok(Applied::Node(node)) => Self::Register(node.id, node.name.clone()),
            Ok(Applied::Voters(voters)) => Self::Voters(*voters),
            Ok(Applied::Removed(revision)) => Self::Remove(*revision),
            Ok(Applied::Raised(_)) => return None,
            Err(refusal) => Self::Refuse(Arc::new(refusal.clone())),
        })
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeNetwork(_, name) => write!(f, "the creation of network {name}"),
            Self::MakeEndpoint(_, name) => write!(f, "the creation of endpoint {name}"),
            Self::Register(_, name) => write!(f, "the registration of node {name}"),
            Self::BeginLife(life, name) => write!(f, "that node {name} became member {life}"),
            Self::Promote(_, name) => write!(f, "the promotion of node {name}"),
            Self::Demote(_, name) => write!(f, "the demotion of node {name}"),
            Self::Voters(voters) => write!(f, "the wish for {voters} voters"),
            Self::RemoveNetwork(_, name) => write!(f, "the removal of network {name}"),
            Self::RemoveEndpoint(_, name) => write!(f, "the removal of endpoint {name}"),
            Self::RemoveNode(_, name) => write!(f, "the removal of node {name}"),
            Self::Remove(revision) => write!(f, "the removal of revision {revision}"),
            Self::Refuse(refusal) => write!(f, "a request that was refused ({refusal})"),
        }
    }
}

impl Dedup {
    /// The result of the request with this id, if it was carried out.
    ///
    /// # Errors
    /// [`Refusal::RequestIdUsed`] if another request used the id, because its answer would be taken for this
    /// request's.
    pub(super) fn recall(
        &self,
        request: &RequestId,
        asked: Option<Digest>,
        command: &Command,
    ) -> Result<Option<&Did>, Refusal> {
        let Some(Done { asked: before, did }) = self.done.get(request) else { return Ok(None) };
        let is_repeated = match (*before, asked) {
            (Some(before), Some(asked)) => before == asked,
            // One of the two was logged by a version that wrote no digest.
            _ => did.can_be_of(command),
        };
        if is_repeated {
            Ok(Some(did))
        } else {
            let request = Uuid::from_bytes(*request);
            Err(Refusal::RequestIdUsed { request, by: did.to_string() })
        }
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

/// The form in a snapshot: lists with the oldest request first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Lists {
    removals: Vec<(Uuid, Done)>,
    others: Vec<(Uuid, Done)>,
}

impl From<&Dedup> for Lists {
    fn from(dedup: &Dedup) -> Self {
        let list = |order: &Vector<RequestId>| {
            let done = |id: &RequestId| Some((Uuid::from_bytes(*id), dedup.done.get(id)?.clone()));
            order.iter().filter_map(done).collect()
        };
        Self { removals: list(&dedup.removals), others: list(&dedup.others) }
    }
}

impl From<Lists> for Dedup {
    fn from(Lists { removals, others }: Lists) -> Self {
        let mut dedup = Self::default();
        for (request, done) in removals.into_iter().chain(others) {
            dedup.insert(request.into_bytes(), done);
        }
        dedup
    }
}

/// The form in snapshots before format 3.
impl From<Vec<(RequestId, Outcome)>> for Dedup {
    fn from(list: Vec<(RequestId, Outcome)>) -> Self {
        let mut dedup = Self::default();
        for (request, outcome) in list {
            if let Some(did) = Did::of(&outcome) {
                dedup.insert(request, Done { asked: None, did });
            }
        }
        dedup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> RequestId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        id
    }

    fn done(did: Did) -> Done {
        Done { asked: None, did }
    }

    fn remove(n: usize) -> Done {
        done(Did::RemoveNetwork(n as u64, "net".parse().unwrap()))
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut dedup = Dedup::default();
        for n in 0..=REMEMBERED {
            dedup.insert(id(n), remove(n));
        }
        assert_eq!(dedup.done.get(&id(0)), None);
        assert_eq!(dedup.done.get(&id(1)), Some(&remove(1)));
        assert_eq!((dedup.removals.len(), dedup.done.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(Dedup::from(Lists::from(&dedup)), dedup);
    }

    #[test]
    fn no_number_of_creations_makes_a_removal_forgotten() {
        let mut dedup = Dedup::default();
        dedup.insert(id(0), remove(0));
        for n in 1..=REMEMBERED + 1 {
            dedup.insert(id(n), done(Did::MakeNetwork(n as u64, "net".parse().unwrap())));
        }
        assert_eq!(dedup.done.get(&id(0)), Some(&remove(0)));
        assert_eq!(dedup.done.get(&id(1)), None);
        assert_eq!(Dedup::from(Lists::from(&dedup)), dedup);
    }

    /// A request of a version that wrote no digest: its verb and name must do.
    #[test]
    fn without_a_digest_a_request_is_known_by_verb_and_name() {
        fn requests(word: &str) -> [(Did, Command); 4] {
            let network: NetworkName = word.parse().unwrap();
            let endpoint: EndpointName = word.parse().unwrap();
            let node: NodeName = word.parse().unwrap();
            let create = Command::CreateNetwork {
                name: network.clone(),
                pool: None,
                vni: None,
                options: crate::model::NetworkOptions::default(),
            };
            [
                (Did::MakeNetwork(1, network.clone()), create),
                (
                    Did::RemoveNetwork(1, network.clone()),
                    Command::RemoveNetwork { name: network, only: None },
                ),
                (
                    Did::RemoveEndpoint(1, endpoint.clone()),
                    Command::RemoveEndpoint { name: endpoint, network: None, only: None },
                ),
                (Did::RemoveNode(1, node.clone()), Command::RemoveNode { name: node, only: None }),
            ]
        }
        for (did, repeated) in requests("one") {
            let mut dedup = Dedup::default();
            dedup.insert(id(1), done(did.clone()));
            let recall = |command: &Command| dedup.recall(&id(1), None, command);
            assert_eq!(recall(&repeated), Ok(Some(&did)));
            for (other, command) in requests("one").into_iter().chain(requests("other")) {
                let is_refused = matches!(recall(&command), Err(Refusal::RequestIdUsed { .. }));
                assert_eq!(is_refused, other != did, "{did} and {command:?}");
            }
        }
    }
}
