//! What is as it is to be, and worth knowing.

use super::{
    facts::{Facts, Life},
    faults::{self, SEE_WHY},
};
use std::collections::BTreeSet;

/// One sentence each.
pub(super) fn find(facts: &Facts<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(best) = facts.best else { return notes };
    let [voters, outgoing] = facts.votes();
    if !outgoing.is_empty() {
        let (to, from) = (facts.names(voters.clone()), facts.names(outgoing));
        notes.push(format!("the voters are being changed from {from} to {to}"));
    }
    let members = facts.members();
    let is_seated = |member: u64| !matches!(facts.life(member), Life::NotSeated);
    let votes: BTreeSet<u64> = facts.votes().into_iter().flatten().collect();
    for seat in facts.seats.values().filter(|seat| !votes.contains(&seat.raft_id)) {
        if !is_seated(seat.raft_id) && !faults::waits_long(facts, seat.raft_id) {
            notes.push(format!(
                "{} is to hold the log and has not taken its seat yet: {SEE_WHY}",
                seat.node
            ));
        }
    }
    let absent = facts.seats.values().filter(|seat| !members.contains(&seat.raft_id));
    for seat in absent.filter(|seat| is_seated(seat.raft_id)) {
        notes.push(format!("{} is to hold the log and is no member of Raft (yet)", seat.node));
    }
    for learner in best.log.learners.iter().filter(|learner| is_seated(**learner)) {
        let name = facts.name(*learner);
        notes.push(format!("{name} holds the log without a vote: it catches up, or the number of votes would be even"));
    }
    for member in members.iter().filter(|member| facts.node_of(**member).is_none()) {
        notes.push(format!("member {member} of Raft is no node's, and is about to be removed"));
    }
    let wished = usize::try_from(best.node.voters_wished).unwrap_or_default();
    if voters.len() < wished {
        notes.push(format!(
            "{wished} nodes are to vote and {} do: let further nodes join, or promote some (`overlay node promote NAME`)",
            voters.len()
        ));
    }
    let waits = facts.leader.and_then(|leader| leader.told?.log.leads.as_ref());
    let waits = waits.map(|leads| leads.version_waits_for.clone()).unwrap_or_default();
    if !waits.is_empty() {
        notes.push(format!(
            "the cluster stays at version {} until these nodes run the newer program: {}",
            best.node.cluster_version,
            waits.join(", ")
        ));
    }
    notes
}
