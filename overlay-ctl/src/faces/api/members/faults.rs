//! What is wrong with the voters, and what to do: one sentence each, and the section of `docs/operations.md` that says more.

mod nodes;

use super::{
    ask::Answer,
    facts::{Count, Facts, Life, STUCK_MS, Voter, list},
    states,
};
use crate::{model::NodeId, proto::v1::Fault};
use nodes::{is_of_another_generation, of_alarm, of_disk, of_generation, of_nodes, of_version};
use std::collections::BTreeSet;

/// A node that was given a seat has taken it within this.
const SEATED_WITHIN_MS: u64 = 30_000;

/// Where it is said why a node does not take its seat.
pub(super) const SEE_WHY: &str = "see FREE, and its log for `this node is to vote, and can't`";

/// The sections of the handbook, `docs/operations.md`, to which faults refer.
pub(super) const NO_QUORUM: &str = "No quorum";
pub(super) const REPLACE: &str = "Replace a voter";
pub(super) const LAGS: &str = "A voter lags";
pub(super) const DISK: &str = "A disk is full or slow";
pub(super) const DIFFERS: &str = "A voter's state differs";
pub(super) const DOWN: &str = "A node is down";
pub(super) const NOT_READY: &str = "A node is not ready";
pub(super) const COPIES: &str = "Move, copy or put back a state folder";
pub(super) const WAYS_BACK: &str = "Which way back";
pub(super) const VOTERS: &str = "Choose the voters";
pub(super) const UPGRADE: &str = "Upgrade";

pub(super) fn fault(what: String, remedy: impl Into<String>, section: &str) -> Fault {
    Fault { what, remedy: remedy.into(), section: section.to_owned() }
}

/// What is wrong, the worst first.
pub(super) fn find(facts: &Facts<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let answers = facts.survey.answers.iter();
    let of_generations: Vec<Fault> =
        answers.filter_map(|(node, answer)| of_generation(facts, *node, answer)).collect();
    match (facts.best, facts.leader) {
        (None, _) if of_generations.is_empty() => faults.extend(nobody(facts)),
        (None, _) => {}
        (Some(_), None) => faults.extend(no_leader(facts)),
        (Some(_), Some(_)) => {}
    }
    faults.extend(states::differing(facts).map(|(what, remedy)| fault(what, remedy, DIFFERS)));
    faults.extend(of_generations);
    let rejoins = |(node, answer): (&NodeId, &Answer)| {
        is_of_another_generation(answer).and_then(|_| facts.node_name(*node))
    };
    let mut said: BTreeSet<String> = facts.survey.answers.iter().filter_map(rejoins).collect();
    if facts.leader.is_some() {
        for member in facts.members() {
            if !said.contains(&facts.name(member))
                && let Some(absent) = absent(facts, member)
            {
                said.insert(facts.name(member));
                faults.push(absent);
            }
        }
        faults.extend(facts.members().into_iter().filter_map(|member| lagging(facts, member)));
    }
    for told in facts.survey.told() {
        faults.extend(told.alarms.iter().map(|alarm| of_alarm(&told.node, alarm)));
        faults.extend(of_disk(&told.node, told.voter.as_ref()));
        faults.extend(of_version(facts, told));
        // Who takes part in no quorum is not ready, which was said.
        let has_quorum = told.voter.as_ref().is_none_or(|log| log.has_quorum);
        let troubles = told.troubles.iter().filter(|_| has_quorum && facts.leader.is_some());
        faults.extend(troubles.map(|why| {
            let what = format!("{} is not ready: {why}", told.node);
            fault(what, format!("see `overlay status` and the log on {}", told.node), NOT_READY)
        }));
    }
    faults.extend(of_nodes(facts, &said));
    if faults.is_empty() && facts.unknown().is_empty() {
        faults.extend(nothing_to_spare(facts));
    }
    faults
}

/// All that there is keeps up, and it is too little.
fn nothing_to_spare(facts: &Facts<'_>) -> Option<Fault> {
    let best = facts.leader.and(facts.best)?.node;
    let count = facts.count();
    let Count { live, all, .. } = count;
    // Of an even number of nodes one does not vote.
    let allowed = best.voters_wished.min(best.nodes);
    if count.spare() > 0 || (live == 1 && all == 1 && allowed < 3) {
        return None;
    }
    let what = format!(
        "{live} of {all} voters keep up, so that none may be lost; {} nodes are to vote",
        best.voters_wished
    );
    let remedy = "ask again in a minute, since those that have a seat vote as soon as they have caught up; if it stays: `overlay node promote NAME`, or say with `overlay cluster voters` that fewer are to vote";
    Some(fault(what, remedy, VOTERS))
}

fn nobody(facts: &Facts<'_>) -> Option<Fault> {
    let own = &facts.survey.own.node;
    let answer = |(node, answer): (&u64, &Answer)| {
        let name = facts.node_name_or_id(*node);
        match answer {
            Answer::Silent(why) => Some(format!("{name} ({why})")),
            Answer::NotAsked => Some(format!("{name} (not asked)")),
            Answer::Earlier => {
                Some(format!("{name} (runs an earlier program, which does not say)"))
            }
            Answer::Told(told) if told.node == *own => None,
            Answer::Told(_) => Some(format!("{name} (runs, and holds no log)")),
        }
    };
    let asked = list(facts.survey.answers.iter().filter_map(answer));
    let leader = &facts.survey.own.leader;
    if !leader.is_empty() {
        // An agent that a voter serves knows more than it could ask.
        let what = format!(
            "no voter answers {own}, though one serves it and says that {leader} leads: {asked}"
        );
        return Some(fault(what, "ask again, or ask on a voter's host", NO_QUORUM));
    }
    Some(fault(
        format!("none of those that {own} knows as voters answers it: {asked}"),
        format!(
            "start them; where they run, see that {own} reaches them (TCP, {}); then ask one of them",
            facts.places(
                facts
                    .survey
                    .answers
                    .keys()
                    .copied()
                    .filter(|node| *node != facts.survey.own.node_id)
            )
        ),
        NO_QUORUM,
    ))
}

fn no_leader(facts: &Facts<'_>) -> Vec<Fault> {
    let [voters, outgoing] = facts.votes();
    let votes: BTreeSet<u64> = voters.union(&outgoing).copied().collect();
    let (live, silent): (Vec<u64>, Vec<u64>) = votes.into_iter().partition(|id| facts.lives(*id));
    let voters = live.iter().filter_map(|id| match facts.life(*id) {
        Life::Told(voter) => Some(voter),
        Life::Earlier | Life::NotSeated | Life::Silent(_) | Life::NotAsked => None,
    });
    let latest = voters.max_by_key(|Voter { log, .. }| (log.last_term, log.last_index));
    let votes = live.iter().chain(&silent);
    let asked = &facts.survey.own.node;
    let how = |member: &u64| {
        let name = facts.name(*member);
        match facts.life(*member) {
            Life::Told(_) => format!("{name} (takes part in no quorum)"),
            Life::Earlier => format!("{name} (runs an earlier program, which does not say)"),
            Life::NotSeated => format!("{name} (runs, and has not taken its seat)"),
            Life::Silent(why) => format!("{name} ({why})"),
            Life::NotAsked => format!("{name} (not asked)"),
        }
    };
    if let Some((leader, by)) = facts.led_elsewhere() {
        let what = format!(
            "no voter that answers {asked} takes part in a quorum, though {by} says that {leader} leads: {}",
            list(votes.map(how))
        );
        let remedy = format!(
            "ask again on {leader}'s host: there may be a majority on its side; then mend the way between it and the others (TCP, {})",
            facts.places_of(live.into_iter().chain(silent))
        );
        return vec![fault(what, remedy, NO_QUORUM)];
    }
    if !facts.unknown().is_empty() {
        let what =
            format!("{asked} takes part in no quorum, and asked nobody: {}", list(votes.map(how)));
        return vec![fault(what, "ask without --stale: then the others are asked", NO_QUORUM)];
    }
    if facts.count().spare() >= 0 {
        let what = format!("{} run and elect no leader", facts.names(live.iter().copied()));
        let remedy = format!(
            "ask again in ten seconds, since an election takes some; if it lasts, see that they reach one another (TCP, {}), and what their alarms say",
            facts.places_of(live)
        );
        return vec![fault(what, remedy, NO_QUORUM)];
    }
    let what = format!("too few voters answer; these do not: {}", list(silent.iter().map(how)));
    let lost = match latest {
        Some(Voter { node, log }) => format!(
            "recover on {}, which has the latest log of the voters that answer (it ends at revision {} of term {})",
            node.node, log.last_index, log.last_term
        ),
        None => "restore a backup".to_owned(),
    };
    let remedy = format!(
        "ask on another host, too: there may be a majority on the other side. Start them, or mend the way to them: a majority goes on by itself. Only if they are lost for good: {lost}"
    );
    vec![fault(what, remedy, NO_QUORUM)]
}

/// A member that does not do its part, or that this node does not reach.
fn absent(facts: &Facts<'_>, member: u64) -> Option<Fault> {
    let (name, asked) = (facts.name(member), &facts.survey.own.node);
    let leader = facts.leader?;
    let leads = leader.raft_id == member;
    let votes = facts.votes().iter().any(|votes| votes.contains(&member));
    let part = if votes { "votes" } else { "holds the log" };
    let contact = facts.contact(member).and_then(|contact| contact.heard_ms_ago);
    let is_heard = leads || facts.is_heard(member);
    let heard = match (leader.told, contact) {
        (None, _) => String::new(),
        (Some(_), Some(ms)) => format!("; the leader heard it {} s ago", ms / 1_000),
        (Some(_), None) => "; the leader has not heard it".to_owned(),
    };
    let by = facts.name(leader.raft_id);
    if facts.node_of(member).is_none() {
        // While it is heard, or has no vote, nothing is lost with it.
        return (votes && !is_heard).then(|| {
            fault(
                format!("{name} votes and is no node's any more{heard}"),
                format!("wait: the leader removes it by itself; if it stays for longer than a minute, see the log on {by}"),
                REPLACE,
            )
        });
    }
    match facts.life(member) {
        Life::Told(_) | Life::Earlier | Life::NotSeated | Life::NotAsked if is_heard => None,
        Life::Told(voter) if leader.told.is_none() && voter.log.has_quorum => None,
        Life::Earlier | Life::NotAsked if leader.told.is_none() => None,
        Life::Told(_) => Some(fault(
            format!("{name} {part} and runs, and takes no part in the quorum{heard}"),
            format!(
                "see that {name} and {by} reach each other, both ways (TCP, {}), and what {name}'s log says",
                facts.places_of([member, leader.raft_id])
            ),
            LAGS,
        )),
        // Of one without a vote it is worth a note at first.
        Life::NotSeated if !votes && !waits_long(facts, member) => None,
        Life::NotSeated => Some(fault(
            format!(
                "{name} {} and has not taken its seat{heard}",
                if votes { "votes" } else { "is to hold the log" }
            ),
            format!("{SEE_WHY}; it takes its seat by itself as soon as it can"),
            LAGS,
        )),
        Life::Earlier => Some(fault(
            format!(
                "{name} {part} and takes no part in the quorum, though an earlier program answers for it{heard}"
            ),
            format!(
                "see that it is {name} that answers (TCP, {}), and that {by} reaches it there",
                facts.places_of([member])
            ),
            LAGS,
        )),
        Life::NotAsked => Some(fault(
            format!("{name} {part} and was not asked{heard}"),
            "ask without --stale: then it is asked itself",
            LAGS,
        )),
        Life::Silent(why) if is_heard => Some(fault(
            format!("{name} does not answer {asked} ({why}), though other voters hear it"),
            format!("see that {asked} reaches {name} (TCP, {})", facts.places_of([member])),
            REPLACE,
        )),
        Life::Silent(why) => Some(fault(
            format!("{name} {part} and does not answer ({why}){heard}"),
            format!(
                "start it: `systemctl start overlay` on {name}; if it is lost for good: `overlay node rm {name}`"
            ),
            REPLACE,
        )),
    }
}

/// The leader has had nothing to show for the member for so long that it is no matter of starting any more.
pub(super) fn waits_long(facts: &Facts<'_>, member: u64) -> bool {
    facts.contact(member).is_some_and(|contact| contact.stuck_ms >= SEATED_WITHIN_MS)
}

/// A member that is heard, and lacks too much.
fn lagging(facts: &Facts<'_>, member: u64) -> Option<Fault> {
    let (contact, lag) = (facts.contact(member)?, facts.lag(member)?);
    let is_seated = !matches!(facts.life(member), Life::NotSeated);
    if !facts.lags(member) || !facts.is_heard(member) || !is_seated {
        return None;
    }
    let name = facts.name(member);
    let taken = match contact.stuck_ms / 1_000 {
        seconds if contact.stuck_ms >= STUCK_MS => format!("and has taken none for {seconds} s"),
        _ => "and takes some".to_owned(),
    };
    let entries = if lag == 1 { "entry" } else { "entries" };
    Some(fault(
        format!("{name} lacks {lag} {entries} of the log, {taken}"),
        format!(
            "see {name}'s alarms, disk and log; it can't stand in for another voter before it has caught up"
        ),
        LAGS,
    ))
}
