//! The printed form of nodes.

use super::{View, columns, fields, non_empty, or_dash};
use crate::proto::v1::{self, NodeRole, NodeState};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(in super::super) struct Node {
    id: u64,
    name: String,
    /// voter, agent, leader
    role: &'static str,
    /// ready, down, lost, unknown
    state: &'static str,
    vtep: String,
    listen: String,
    epoch: u64,
    programmed_revision: u64,
    endpoint_count: u32,
    /// None = the node has not reported one.
    gateway_subnet: Option<String>,
    /// None = it holds no log.
    raft_id: Option<u64>,
    /// None = no node's probe was answered, as far as the controllers know.
    answered_ms_ago: Option<u64>,
}

/// How many nodes are to vote.
#[derive(Debug, Serialize)]
pub(in super::super) struct Voters {
    pub(in super::super) voters: u32,
}

impl View for Voters {
    fn text(&self) -> String {
        fields([("voters", self.voters.to_string())])
    }
}

impl From<v1::Node> for Node {
    fn from(node: v1::Node) -> Self {
        let v1::Node {
            id,
            name,
            role,
            state,
            vtep,
            listen,
            epoch,
            programmed_revision,
            endpoint_count,
            gateway_subnet,
            raft_id,
            answered_ms_ago,
        } = node;
        Self {
            id,
            name,
            role: role_name(role),
            state: state_name(state),
            vtep,
            listen,
            epoch,
            programmed_revision,
            endpoint_count,
            gateway_subnet: non_empty(gateway_subnet),
            raft_id: Some(raft_id).filter(|id| *id != 0),
            answered_ms_ago,
        }
    }
}

pub(super) fn role_name(role: i32) -> &'static str {
    match NodeRole::try_from(role) {
        Ok(NodeRole::Agent) => "agent",
        Ok(NodeRole::Voter) => "voter",
        Ok(NodeRole::Leader) => "leader",
        Ok(NodeRole::Learner) => "learner",
        Ok(NodeRole::Unspecified) | Err(_) => "unknown",
    }
}

fn state_name(state: i32) -> &'static str {
    match NodeState::try_from(state) {
        Ok(NodeState::Ready) => "ready",
        Ok(NodeState::Down) => "down",
        Ok(NodeState::Lost) => "lost",
        Ok(NodeState::Unspecified) | Err(_) => "unknown",
    }
}

/// How long ago a VTEP answered, in whole seconds.
fn answered(ms: Option<u64>) -> String {
    or_dash(ms.map(|ms| format!("{} s ago", ms / 1000)).as_ref())
}

impl View for Vec<Node> {
    fn text(&self) -> String {
        columns(
            ["NAME", "ROLE", "STATE", "VTEP", "ANSWERED", "LISTEN", "PROGRAMMED", "ENDPOINTS"],
            self.iter().map(|node| {
                [
                    node.name.clone(),
                    node.role.to_owned(),
                    node.state.to_owned(),
                    node.vtep.clone(),
                    answered(node.answered_ms_ago),
                    node.listen.clone(),
                    node.programmed_revision.to_string(),
                    node.endpoint_count.to_string(),
                ]
            }),
        )
    }
}

impl View for Node {
    fn text(&self) -> String {
        fields([
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("Raft id", or_dash(self.raft_id.as_ref())),
            ("role", self.role.to_owned()),
            ("state", self.state.to_owned()),
            ("VTEP", self.vtep.clone()),
            ("VTEP answered", answered(self.answered_ms_ago)),
            ("listen", self.listen.clone()),
            ("gateway subnet", or_dash(self.gateway_subnet.as_ref())),
            ("epoch", self.epoch.to_string()),
            ("programmed revision", self.programmed_revision.to_string()),
            ("endpoints", self.endpoint_count.to_string()),
        ])
    }
}
