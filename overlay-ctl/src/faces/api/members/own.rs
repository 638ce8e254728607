//! What this node says of itself: its log, the voters as it hears them, its disk, and on the leader how the nodes are.

use crate::{
    control::{
        consensus::{self, Role},
        state::State,
        voter::{NODE_DOWN_AFTER, VoterParts},
    },
    faces::{ServedNode, Service, api::present::count, troubles},
    model::{Lease, Node, NodeId, RaftId, SPEAKS},
    proto::{
        internal,
        v1::{
            Alarm, LeaderStatus, MemberContact, MemberStatus, NodeRole, NodesNamed, Seat,
            StateHash, VoterStatus,
        },
    },
};
use std::{collections::BTreeSet, time::Duration};

/// How long the leader waits for the nodes to program what it had applied when it was asked. Agents are told once a second what
/// does not concern them.
const PROGRAMMED_WITHIN: Duration = Duration::from_millis(1_500);
/// So many nodes are named of each kind.
const NAMED_MAX: usize = 32;
/// What is said on a leader that hears too few nodes, and its kind.
const HALF_SILENT: [&str; 2] = [
    "half_silent",
    "half of the nodes or more are silent at once, so that none of them is given up: rather this node is cut off from them; see their own `overlay status`, and the network between",
];
/// The kind of the alarm of a node whose state folder was copied.
pub(super) const SECOND_PROCESS: &str = "second_process";

/// What a node knows of the rows.
#[derive(Default)]
struct Rows {
    revision: u64,
    version: u32,
    seats: Vec<Seat>,
    nodes: usize,
    voters_wished: u32,
}

/// The node's seat, if it has one.
pub(super) fn seat(node: &Node) -> Option<Seat> {
    Some(Seat {
        node_id: node.id,
        node: node.name.to_string(),
        listen: node.listen.to_string(),
        raft_id: node.life().map(RaftId::get)?,
    })
}

impl ServedNode {
    /// What an operator must see to, though the node goes on.
    pub(in super::super) fn alarms(&self) -> Vec<Alarm> {
        let alarm = |kind: &str, text: String| Alarm { kind: kind.to_owned(), text };
        let mut alarms = Vec::new();
        if let Some(voter) = self.controller.voter() {
            let raised = voter.consensus.status().borrow().alarms.clone();
            alarms.extend(raised.iter().map(|it| alarm(it.kind(), it.to_string())));
            let [kind, text] = HALF_SILENT;
            alarms.extend(voter.table.is_half_silent().then(|| alarm(kind, text.to_owned())));
        }
        alarms.extend(self.controller.directory().own_copy().map(|place| {
            let text = format!("a second process at {place}, with a copy of this node's state folder, asks to be this node, and is refused: end it; to have both, run `overlay node reset` for the copy and let it join as a new node");
            alarm(SECOND_PROCESS, text)
        }));
        alarms
    }

    /// What this node says of itself. A leader waits a moment for the nodes that have not programmed the latest revision.
    pub(in super::super) async fn member(&self) -> MemberStatus {
        let voter = self.controller.voter();
        let Rows { revision, version, seats, nodes, voters_wished } = self.rows(voter.as_ref());
        let log = async {
            match &voter {
                None => None,
                Some(voter) => Some(voter_status(voter).await),
            }
        };
        let (disk, log) = tokio::join!(self.disk.read(), log);
        let voter = log.map(|log| VoterStatus { log_bytes: disk.log_bytes, ..log });
        MemberStatus {
            node: self.name.to_string(),
            node_id: self.controller.id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            oldest_version: SPEAKS.oldest().number(),
            newest_version: SPEAKS.newest().number(),
            cluster_version: version,
            generation: self.controller.generation().number(),
            revision,
            leader: self.controller.leader().and_then(|id| self.name_of(id)).unwrap_or_default(),
            free_bytes: disk.free(),
            alarms: self.alarms(),
            troubles: troubles(Service::Node, &self.facts()),
            seats,
            voters_wished,
            nodes: count(nodes),
            voter,
        }
    }

    pub(in super::super) fn name_of(&self, id: NodeId) -> Option<String> {
        let view = self.view.borrow();
        view.as_ref()?.nodes.get(&id).map(|node| node.name.to_string())
    }

    /// The rows by the state, or by the view where there is no state (yet).
    fn rows(&self, voter: Option<&VoterParts>) -> Rows {
        let state = voter.map(|voter| voter.state.copy()).filter(|state| state.revision() > 0);
        if let Some(state) = state {
            return Rows {
                revision: state.revision(),
                version: state.version().number(),
                seats: state.seated().filter_map(seat).collect(),
                nodes: state.nodes().count(),
                voters_wished: count(state.voters().count()),
            };
        }
        let Some(view) = self.view.borrow().clone() else { return Rows::default() };
        Rows {
            revision: view.revision,
            version: view.version.number(),
            seats: view.nodes.values().filter_map(|node| seat(node)).collect(),
            nodes: view.nodes.len(),
            voters_wished: 0,
        }
    }
}

async fn voter_status(voter: &VoterParts) -> VoterStatus {
    let status = voter.consensus.status().borrow().clone();
    let measures = voter.consensus.measures();
    let internal::NodeStatus { state_hashes, hash_version, .. } =
        voter.state.hashes().tell(internal::NodeStatus::default());
    let role = match status.role {
        Role::Leader => NodeRole::Leader,
        Role::Follower | Role::Candidate => NodeRole::Voter,
        Role::Learner => NodeRole::Learner,
    };
    let leads = match status.role {
        Role::Leader => Some(leader_status(voter).await),
        Role::Follower | Role::Candidate | Role::Learner => None,
    };
    VoterStatus {
        raft_id: status.id,
        role: role.into(),
        leader: status.leader.unwrap_or_default(),
        has_quorum: voter.quorum.holds(),
        term: status.term,
        applied: status.applied,
        commit: status.commit,
        last_term: status.last_term,
        last_index: status.last_index,
        contacts: contacts(&status, measures),
        snapshot_revision: status.snapshot,
        snapshot_bytes: measures.snapshot_bytes(),
        snapshot_age_ms: measures.snapshot_age().map(millis),
        // The caller knows the folder.
        log_bytes: 0,
        writes: status.disk.writes,
        last_write_us: micros(measures.last_write()),
        last_write_age_ms: measures.last_write_age().map(millis),
        average_write_us: micros(status.disk.average),
        waiting: measures.waiting(),
        refused: measures.refused(),
        agents: count(voter.table.watchers().count()),
        hashes: state_hashes
            .into_iter()
            .map(|internal::StateHash { revision, hash }| StateHash { revision, hash })
            .collect(),
        hash_version,
        leads,
        voters: status.voters,
        outgoing: status.outgoing,
        learners: status.learners,
    }
}

fn contacts(status: &consensus::Status, measures: &consensus::Measures) -> Vec<MemberContact> {
    let matched = |id| status.peers.iter().find(|peer| peer.id == id).map(|peer| peer.matched);
    let contact = |(raft_id, contact): (u64, consensus::Contact)| MemberContact {
        raft_id,
        heard_ms_ago: contact.heard.map(millis),
        matched: matched(raft_id).unwrap_or_default(),
        stuck_ms: millis(contact.stuck),
    };
    measures.contacts().into_iter().map(contact).collect()
}

async fn leader_status(voter: &VoterParts) -> LeaderStatus {
    let (state, table) = (voter.state.copy(), &voter.table);
    let lost: BTreeSet<NodeId> = ids(state.nodes().filter(|node| node.lease == Lease::Lost));
    // One that has only registered has not had the time to report.
    let is_down = |id| table.is_down(id) && table.silence(id) >= NODE_DOWN_AFTER;
    let down = ids(state.nodes().filter(|node| is_down(node.id)));
    let asked = ids(state.nodes().filter(|node| !table.programs_nothing(node.id)));
    let mut late = table.wait_programmed(asked, state.revision(), PROGRAMMED_WITHIN).await;
    // What fell silent meanwhile is another thing.
    late.retain(|node| !table.programs_nothing(*node));
    LeaderStatus {
        down: Some(named(&state, &down.difference(&lost).copied().collect())),
        lost: Some(named(&state, &lost)),
        lagging: Some(named(&state, &late)),
        version_waits_for: voter.version_waits_for().iter().map(ToString::to_string).collect(),
    }
}

fn ids<'a>(nodes: impl Iterator<Item = &'a Node>) -> BTreeSet<NodeId> {
    nodes.map(|node| node.id).collect()
}

fn named(state: &State, nodes: &BTreeSet<NodeId>) -> NodesNamed {
    let names = nodes.iter().filter_map(|id| Some(state.node(*id)?.name.to_string()));
    NodesNamed { count: count(nodes.len()), names: names.take(NAMED_MAX).collect() }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
