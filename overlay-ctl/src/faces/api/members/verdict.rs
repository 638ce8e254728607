//! What is to be thought of the voters: a verdict in one line, and the table of the members.

use super::{
    ask::{Answer, Survey},
    facts::{Count, Facts, Life},
    faults, notes, states,
};
use crate::{
    model::NodeId,
    proto::v1::{Condition, Member, MembersResponse, Membership},
};

/// Judges the answers.
pub(super) fn judge(survey: &Survey) -> MembersResponse {
    let facts = Facts::new(survey);
    let (faults, notes) = (faults::find(&facts), notes::find(&facts));
    let condition = match (facts.best, facts.leader) {
        (None, _) => Condition::Unknown,
        (Some(_), _) if !facts.unknown().is_empty() => Condition::Unknown,
        (Some(_), None) if facts.led_elsewhere().is_some() => Condition::Unknown,
        (Some(_), None) if facts.count().spare() < 0 => Condition::NoQuorum,
        (Some(_), None) => Condition::NoLeader,
        (Some(_), Some(_)) if faults.is_empty() => Condition::Healthy,
        (Some(_), Some(_)) => Condition::Degraded,
    };
    let rows = facts.rows;
    let (same_state_revision, same_state) = states::same_state(&facts).unwrap_or_default();
    let latest_term = survey.told().filter_map(|told| Some(told.voter.as_ref()?.term)).max();
    MembersResponse {
        condition: condition.into(),
        verdict: verdict(&facts, condition, faults.len()),
        faults,
        notes,
        cluster: survey.cluster.clone(),
        generation: rows.generation,
        cluster_version: rows.cluster_version,
        leader: facts.leader.map(|leader| facts.name(leader.raft_id)).unwrap_or_default(),
        term: facts.leader.map_or(latest_term.unwrap_or_default(), |leader| leader.term),
        revision: facts.best.map_or(rows.revision, |best| best.log.commit),
        asked: survey.own.node.clone(),
        members: members(&facts),
        same_state_revision,
        same_state,
        nodes: rows.nodes,
    }
}

fn verdict(facts: &Facts<'_>, condition: Condition, faults: usize) -> String {
    let Count { live, all, needed } = facts.count();
    let asked = &facts.survey.own.node;
    let leader = facts.leader.map(|leader| facts.name(leader.raft_id)).unwrap_or_default();
    let spare = usize::try_from(facts.count().spare()).unwrap_or_default();
    match condition {
        Condition::Healthy if all == 1 => {
            format!("healthy: {leader} is the only voter, and must not be lost")
        }
        Condition::Healthy => {
            format!("healthy: {leader} leads {all} voters, and {spare} may be lost")
        }
        Condition::Degraded if spare == 0 && all > 1 => format!(
            "degraded: {leader} leads, {live} of {all} voters keep up, and no further one may be lost"
        ),
        Condition::Degraded => {
            let things = if faults == 1 { "one thing is" } else { "some things are" };
            format!(
                "degraded: {leader} leads, {live} of {all} voters keep up, and {things} to be seen to"
            )
        }
        Condition::NoQuorum => {
            let answer = if live == 1 { "answers" } else { "answer" };
            let are = if needed == 1 { "is" } else { "are" };
            format!(
                "no quorum: {live} of {all} voters {answer} {asked}, and {needed} {are} needed; packets flow on, and nothing can be changed"
            )
        }
        Condition::NoLeader => format!(
            "no leader: {live} of {all} voters answer {asked}, which is enough, and none leads; packets flow on, and nothing can be changed"
        ),
        Condition::Unknown | Condition::Unspecified => not_known(facts),
    }
}

/// Why it can't be said how the cluster is.
fn not_known(facts: &Facts<'_>) -> String {
    let asked = &facts.survey.own.node;
    let unknown = facts.unknown();
    if facts.best.is_none() {
        return format!(
            "unknown: no voter answers {asked}, so that it can't tell how the cluster is; packets flow on"
        );
    }
    if let Some((leader, by)) = facts.led_elsewhere() {
        return format!(
            "unknown: no voter that answers {asked} takes part in a quorum, though {leader} leads, as {by} says; packets flow on"
        );
    }
    let (is, were) = if unknown.len() == 1 { ("is", "was") } else { ("are", "were") };
    let how = format!("know how {} {is}, which {were} not asked", facts.names(unknown));
    match facts.leader {
        Some(leader) => {
            format!("unknown: {} leads, and {asked} does not {how}", facts.name(leader.raft_id))
        }
        None => format!("unknown: no voter leads, as far as {asked} knows, and it does not {how}"),
    }
}

/// The members of Raft and those that are to be, by node id; members that are no node's come last.
fn members(facts: &Facts<'_>) -> Vec<Member> {
    let of_raft = facts.members();
    let unclaimed = of_raft.iter().filter(|id| facts.node_of(**id).is_none());
    let mut nodes: Vec<NodeId> = facts.seats.keys().copied().collect();
    nodes.extend(of_raft.iter().filter_map(|id| facts.node_of(*id)));
    nodes.sort_unstable();
    nodes.dedup();
    let mut members: Vec<Member> = nodes.into_iter().map(|node| member_at(facts, node)).collect();
    members.extend(unclaimed.map(|id| member(facts, *id)));
    members
}

fn member_at(facts: &Facts<'_>, node: NodeId) -> Member {
    let seat = facts.seats.get(&node);
    let answer = facts.survey.answers.get(&node);
    let told = match answer {
        Some(Answer::Told(told)) => Some(&**told),
        _ => None,
    };
    let of_raft = facts.members();
    let itself = told.and_then(|told| Some(told.voter.as_ref()?.raft_id));
    // Its present life, unless an earlier one is still a member in its place.
    let raft_id = seat.map(|seat| seat.raft_id).or(itself).unwrap_or_default();
    let raft_id = match itself.filter(|id| of_raft.contains(id) && !of_raft.contains(&raft_id)) {
        Some(earlier) => earlier,
        None => raft_id,
    };
    Member {
        node_id: node,
        node: facts.node_name(node).unwrap_or_default(),
        listen: seat.map(|seat| seat.listen.clone()).unwrap_or_default(),
        has_seat: seat.is_some(),
        unanswered: match answer {
            Some(Answer::Told(_)) => String::new(),
            Some(Answer::Earlier) => "it runs, with an earlier program".to_owned(),
            Some(Answer::Silent(why)) => why.clone(),
            Some(Answer::NotAsked) | None => "it was not asked".to_owned(),
        },
        status: told.cloned(),
        ..member(facts, raft_id)
    }
}

/// What Raft knows of a member.
fn member(facts: &Facts<'_>, raft_id: u64) -> Member {
    let [voters, outgoing] = facts.votes();
    let is_learner = facts.best.is_some_and(|best| best.log.learners.contains(&raft_id));
    let membership = if voters.contains(&raft_id) || outgoing.contains(&raft_id) {
        Membership::Voter
    } else if is_learner {
        Membership::Learner
    } else if facts.best.is_some() {
        Membership::None
    } else {
        Membership::Unspecified
    };
    let leads = facts.leader.is_some_and(|leader| leader.raft_id == raft_id);
    Member {
        raft_id,
        membership: membership.into(),
        leads,
        lag: facts.lag(raft_id),
        heard_ms_ago: facts.contact(raft_id).and_then(|contact| contact.heard_ms_ago),
        unanswered: match facts.life(raft_id) {
            Life::Silent(why) => why,
            Life::NotSeated => "it runs, and does not hold the log as this member".to_owned(),
            Life::Told(_) | Life::Earlier | Life::NotAsked => String::new(),
        },
        ..Member::default()
    }
}
