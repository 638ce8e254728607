//! The printed form of the voters and of what is wrong with them.

mod member;
#[cfg(test)]
mod tests;

use super::{View, columns, fields, non_empty, non_zero, or_dash, or_none};
use crate::proto::v1::{self, Condition};
use member::Member;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(in super::super) struct ClusterStatus {
    /// healthy, degraded, no leader, unknown
    condition: &'static str,
    /// In one line.
    pub(in super::super) verdict: String,
    /// The worst first.
    faults: Vec<Fault>,
    /// What is as it is to be, and worth knowing.
    notes: Vec<String>,
    cluster: String,
    generation: u64,
    /// None = not known.
    cluster_version: Option<u32>,
    /// None = there is none, as far as the asked node can tell.
    leader: Option<String>,
    term: u64,
    /// The last one that is known to be committed.
    revision: u64,
    /// The node that was asked.
    asked: String,
    nodes: u32,
    /// The latest revision at which states were compared and found the same; None = there is none.
    same_state_revision: Option<u64>,
    /// The nodes that have it.
    same_state: Vec<String>,
    members: Vec<Member>,
}

#[derive(Debug, Serialize)]
struct Fault {
    what: String,
    /// What to do.
    remedy: String,
    /// Of docs/operations.md.
    section: String,
}

impl From<v1::MembersResponse> for ClusterStatus {
    fn from(answer: v1::MembersResponse) -> Self {
        let condition = condition_name(answer.condition());
        let v1::MembersResponse {
            condition: _,
            verdict,
            faults,
            notes,
            cluster,
            generation,
            cluster_version,
            leader,
            term,
            revision,
            asked,
            members,
            nodes,
            same_state_revision,
            same_state,
        } = answer;
        let fault = |v1::Fault { what, remedy, section }| Fault { what, remedy, section };
        Self {
            condition,
            verdict,
            faults: faults.into_iter().map(fault).collect(),
            notes,
            cluster,
            generation,
            cluster_version: non_zero(cluster_version),
            leader: non_empty(leader),
            term,
            revision,
            asked,
            nodes,
            same_state_revision: non_zero(same_state_revision),
            same_state,
            members: members.into_iter().map(Into::into).collect(),
        }
    }
}

const HEALTHY: &str = "healthy";

fn condition_name(condition: Condition) -> &'static str {
    match condition {
        Condition::Healthy => HEALTHY,
        Condition::Degraded => "degraded",
        Condition::NoLeader => "no leader",
        Condition::NoQuorum => "no quorum",
        Condition::Unknown | Condition::Unspecified => "unknown",
    }
}

impl ClusterStatus {
    pub(in super::super) fn is_healthy(&self) -> bool {
        self.condition == HEALTHY
    }

    fn state(&self) -> String {
        match self.same_state_revision {
            Some(revision) => {
                format!("the same at revision {revision} on {}", or_none(&self.same_state))
            }
            None => "not compared".to_owned(),
        }
    }
}

impl View for ClusterStatus {
    fn text(&self) -> String {
        let mut parts = vec![self.verdict.clone()];
        for (number, Fault { what, remedy, section }) in (1..).zip(&self.faults) {
            parts.push(format!(
                "{number}. {what}\n   to do: {remedy}\n   more:  docs/operations.md, \"{section}\""
            ));
        }
        parts.extend(self.notes.iter().map(|note| format!("note: {note}")));
        parts.push(fields([
            ("cluster", format!("{}, generation {}", self.cluster, self.generation)),
            ("cluster version", or_dash(self.cluster_version.as_ref())),
            ("leader", or_dash(self.leader.as_ref())),
            ("term", self.term.to_string()),
            ("revision", self.revision.to_string()),
            ("states", self.state()),
            ("nodes", self.nodes.to_string()),
            ("asked", self.asked.clone()),
        ]));
        if !self.members.is_empty() {
            parts.push(columns(Member::RAFT, self.members.iter().map(Member::raft)));
            parts.push(columns(Member::DISK, self.members.iter().map(Member::disk)));
        }
        parts.join("\n\n")
    }
}
