//! What a repeated request is answered: the result that it had, as the rows are now.

use super::{
    Applied, Command, Digest, Outcome, Refusal, RequestId, State,
    dedup::{Did, Kind, Used},
};
use crate::model::RaftId;
use uuid::Uuid;

impl State {
    /// The answer to a request that was carried out before: the object that it made, in its present state, or a
    /// refusal. `None` = the request is new.
    #[must_use]
    pub fn recall(
        &self,
        request: &RequestId,
        asked: Option<Digest>,
        command: &Command,
    ) -> Option<Outcome> {
        let did = match self.dedup.recall(request, asked, command)? {
            Ok(did) => did,
            Err(used) => {
                let by = match used {
                    Used::Named(by) => by,
                    Used::By(did) => self.describe(&did),
                };
                let request = Uuid::from_bytes(*request);
                return Some(Err(Refusal::RequestIdUsed { request, by }));
            }
        };
        let made = match did {
            Did::Make(Kind::Network, id) => self.network(id).cloned().map(Applied::Network),
            Did::Make(Kind::Endpoint, id) => self.endpoint(id).cloned().map(Applied::Endpoint),
            Did::Make(Kind::Node | Kind::Seat, id) => self.node(id).cloned().map(Applied::Node),
            Did::Make(Kind::Life, life) => {
                let node = RaftId::new(life).and_then(|life| self.node_of(life));
                node.cloned().map(Applied::Node)
            }
            Did::Remove(_, revision) => Some(Applied::Removed(revision)),
            Did::SetVoters(voters) => Some(Applied::Voters(voters)),
            Did::Refuse(refusal) => return Some(Err(Refusal::clone(&refusal))),
        };
        // The command is the one that made it, so it has its name.
        Some(made.ok_or_else(|| match command {
            Command::RegisterNode { name, .. }
            | Command::Promote { name, .. }
            | Command::Demote { name, .. } => Refusal::NodeRemoved(name.clone()),
            Command::BeginLife { name, .. } => {
                Refusal::Gone { what: format!("the member that node {name} became") }
            }
            _ => Refusal::Gone { what: command.target() },
        }))
    }

    /// A request that had this result, in words.
    fn describe(&self, did: &Did) -> String {
        match did {
            Did::Make(Kind::Network, id) => match self.network(*id) {
                Some(network) => format!("the creation of network {}", network.name),
                None => "the creation of a network that is gone".to_owned(),
            },
            Did::Make(Kind::Endpoint, id) => match self.endpoint(*id) {
                Some(endpoint) => format!("the creation of endpoint {}", endpoint.name),
                None => "the creation of an endpoint that is gone".to_owned(),
            },
            Did::Make(Kind::Node, id) => match self.node(*id) {
                Some(node) => format!("the registration of node {}", node.name),
                None => "the registration of a node that is gone".to_owned(),
            },
            Did::Make(Kind::Life, life) => {
                let node = RaftId::new(*life).and_then(|life| self.node_of(life));
                match node {
                    Some(node) => format!("that node {} became member {life}", node.name),
                    None => format!("that a node became member {life}"),
                }
            }
            Did::Make(Kind::Seat, id) => match self.node(*id) {
                Some(node) => format!("the promotion or demotion of node {}", node.name),
                None => "the promotion or demotion of a node that is gone".to_owned(),
            },
            Did::SetVoters(voters) => format!("the wish for {voters} voters"),
            Did::Remove(kind, revision) => {
                let what = match kind {
                    Kind::Network => "a network",
                    Kind::Endpoint => "an endpoint",
                    Kind::Node | Kind::Life | Kind::Seat => "a node",
                };
                format!("the removal of {what} at revision {revision}")
            }
            Did::Refuse(refusal) => format!("a request that was refused ({refusal})"),
        }
    }
}
