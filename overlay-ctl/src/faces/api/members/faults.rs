//! What is wrong with the voters, and what to do: one sentence each, and the section of `docs/operations.md` that says more.

use super::{
    ask::Answer,
    facts::{Facts, Life, STUCK_MS, Voter, list},
};
use crate::proto::v1::{Alarm, Fault, NodesNamed, StateHash};
use std::collections::{BTreeMap, BTreeSet};

/// A disk that takes this long for a write is slow: an election time-out is a second.
const SLOW_US: u64 = 250_000;

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

fn fault(what: String, remedy: impl Into<String>, section: &str) -> Fault {
    Fault { what, remedy: remedy.into(), section: section.to_owned() }
}

/// What is wrong, the worst first.
pub(super) fn find(facts: &Facts<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    match (facts.best, facts.leader) {
        (None, _) => faults.extend(nobody(facts)),
        (Some(_), None) => faults.extend(no_leader(facts)),
        (Some(_), Some(_)) => {}
    }
    faults.extend(differing(facts));
    let mut said = BTreeSet::new();
    if facts.leader.is_some() {
        for member in facts.members() {
            if let Some(absent) = absent(facts, member) {
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
    faults
}

fn nobody(facts: &Facts<'_>) -> Option<Fault> {
    let own = &facts.survey.own.node;
    let answer = |(node, answer): (&u64, &Answer)| {
        let name = facts.node_name(*node).unwrap_or_else(|| format!("node {node}"));
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
            "start them; where they run, see that {own} reaches them at their TCP port (7400); then ask one of them"
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
        Life::Earlier | Life::Silent(_) | Life::NotAsked => None,
    });
    let latest = voters.max_by_key(|Voter { log, .. }| (log.last_term, log.last_index));
    if facts.count().spare() >= 0 {
        let what = format!("{} run and elect no leader", facts.names(live));
        let remedy = "ask again in ten seconds, since an election takes some; if it lasts, see that they reach one another at their TCP port (7400), and what their alarms say";
        return vec![fault(what, remedy, NO_QUORUM)];
    }
    let why = silent.into_iter().map(|member| match facts.life(member) {
        Life::Silent(why) => format!("{} ({why})", facts.name(member)),
        Life::Told(_) | Life::Earlier => facts.name(member),
        Life::NotAsked => format!("{} (not asked)", facts.name(member)),
    });
    let what = format!("too few voters answer; these do not: {}", list(why));
    let lost = match latest {
        Some(Voter { node, log }) => format!(
            "recover on {}, which has the latest log of the voters that answer (it ends at revision {} of term {})",
            node.node, log.last_index, log.last_term
        ),
        None => "restore a backup".to_owned(),
    };
    let remedy = format!(
        "start them, or mend the way to them: a majority goes on by itself. Only if they are lost for good: {lost}"
    );
    vec![fault(what, remedy, NO_QUORUM)]
}

/// A member that does not do its part, or that this node does not reach.
fn absent(facts: &Facts<'_>, member: u64) -> Option<Fault> {
    let (name, asked) = (facts.name(member), &facts.survey.own.node);
    let leader = facts.leader?;
    // One that is no node's is a note.
    facts.node_of(member)?;
    let leads = leader.raft_id == member;
    let votes = facts.votes().iter().any(|votes| votes.contains(&member));
    let part = if votes { "votes" } else { "holds the log" };
    let contact = facts.contact(member).and_then(|contact| contact.heard_ms_ago);
    let heard = match (leader.told, contact) {
        (None, _) => String::new(),
        (Some(_), Some(ms)) => format!("; the leader heard it {} s ago", ms / 1_000),
        (Some(_), None) => "; the leader has not heard it".to_owned(),
    };
    let by = facts.name(leader.raft_id);
    match facts.life(member) {
        Life::Told(voter) if voter.log.has_quorum || leads || facts.is_heard(member) => None,
        Life::Told(_) => Some(fault(
            format!("{name} {part} and runs, and takes no part in the quorum{heard}"),
            format!(
                "see that {name} and {by} reach each other at their TCP port (7400), both ways, and what {name}'s log says"
            ),
            LAGS,
        )),
        Life::Earlier | Life::NotAsked => None,
        Life::Silent(why) if leads || facts.is_heard(member) => Some(fault(
            format!("{name} does not answer {asked} ({why}), though other voters hear it"),
            format!("see that {asked} reaches {name} at its TCP port (7400)"),
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

/// A member that is heard, and lacks too much.
fn lagging(facts: &Facts<'_>, member: u64) -> Option<Fault> {
    let (contact, lag) = (facts.contact(member)?, facts.lag(member)?);
    if !facts.lags(member) || !facts.is_heard(member) {
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

fn of_alarm(node: &str, Alarm { kind, text }: &Alarm) -> Fault {
    let section = match kind.as_str() {
        "entries" | "snapshot" | "received_snapshot" | "stalled" => DISK,
        "differs" => DIFFERS,
        "half_silent" => DOWN,
        _ => COPIES,
    };
    fault(format!("{node}: {text}"), format!("see to it on {node}, or where it says"), section)
}

fn of_disk(node: &str, log: Option<&crate::proto::v1::VoterStatus>) -> Option<Fault> {
    let log = log.filter(|log| log.average_write_us >= SLOW_US)?;
    let ms = log.average_write_us / 1_000;
    let what = format!("{node}'s disk takes {ms} ms for a write of the log");
    let remedy = format!(
        "see what else uses the disk of {node}'s state folder; it hands its lead over by itself"
    );
    Some(fault(what, remedy, DISK))
}

fn of_version(facts: &Facts<'_>, told: &crate::proto::v1::MemberStatus) -> Option<Fault> {
    let best = facts.best?.node;
    let (name, has) = (&told.node, best.cluster_version);
    if told.generation != best.generation {
        let what = format!(
            "{name} is of generation {} of the cluster, and {} of generation {}",
            told.generation, best.node, best.generation
        );
        let remedy = "the one of the older generation rejoins by itself; if it lasts, start it again with --join";
        return Some(fault(what, remedy, WAYS_BACK));
    }
    let speaks = told.oldest_version..=told.newest_version;
    (has != 0 && !speaks.contains(&has)).then(|| {
        let (oldest, newest) = (told.oldest_version, told.newest_version);
        let what = format!(
            "{name} speaks versions {oldest} to {newest}, and the cluster is at version {has}"
        );
        fault(what, format!("install on {name} the program that {} runs", best.node), NOT_READY)
    })
}

/// The states of the voters at each revision of which at least two told a hash: the nodes with each state.
fn states<'a>(facts: &Facts<'a>) -> BTreeMap<u64, Vec<Vec<&'a str>>> {
    let mut at: BTreeMap<u64, BTreeMap<&[u8], Vec<&str>>> = BTreeMap::new();
    let Some(best) = facts.best else { return BTreeMap::new() };
    for told in facts.survey.told() {
        let Some(log) = &told.voter else { continue };
        let same = (told.generation, log.hash_version);
        if same != (best.node.generation, best.log.hash_version) {
            continue;
        }
        for StateHash { revision, hash } in &log.hashes {
            at.entry(*revision).or_default().entry(hash).or_default().push(&told.node);
        }
    }
    let states = at.into_iter().map(|(revision, at)| (revision, at.into_values().collect()));
    let compared = states.filter(|(_, at): &(u64, Vec<Vec<&str>>)| at.iter().flatten().count() > 1);
    compared.collect()
}

/// The latest revision at which states could be compared, and the nodes whose states are the same there.
pub(super) fn same_state(facts: &Facts<'_>) -> Option<(u64, Vec<String>)> {
    let (revision, states) = states(facts).pop_last()?;
    let [nodes] = &states[..] else { return None };
    Some((revision, nodes.iter().map(|node| (*node).to_owned()).collect()))
}

/// Voters whose states differ at the latest revision that they have in common.
fn differing(facts: &Facts<'_>) -> Option<Fault> {
    let (revision, states) = states(facts).pop_last().filter(|(_, states)| states.len() > 1)?;
    let what = format!(
        "the voters hold different states at revision {revision}: {}",
        list(states.into_iter().map(|nodes| format!("one on {}", nodes.join(", "))))
    );
    let remedy = "a voter that differs from a majority ends and rejoins by itself; keep the logs, and report it";
    Some(fault(what, remedy, DIFFERS))
}

/// What the leader knows of the nodes, but for those of which it was said already that they do not answer.
fn of_nodes(facts: &Facts<'_>, said: &BTreeSet<String>) -> Vec<Fault> {
    let told = facts.leader.and_then(|leader| leader.told);
    let Some(leads) = told.and_then(|told| told.log.leads.as_ref()) else { return Vec::new() };
    let some = |nodes: &Option<NodesNamed>, is: &str, are: &str| {
        let NodesNamed { count, names } = nodes.as_ref()?;
        let all = usize::try_from(*count).unwrap_or(usize::MAX);
        let unnamed = all.saturating_sub(names.len());
        let named: Vec<String> =
            names.iter().filter(|name| !said.contains(*name)).cloned().collect();
        let count = named.len() + unnamed;
        let unnamed = (unnamed > 0).then(|| format!("{unnamed} more"));
        let names = list(named.into_iter().chain(unnamed));
        match count {
            0 => None,
            1 => Some(format!("{names} {is}")),
            count => Some(format!("{count} nodes {are}: {names}")),
        }
    };
    let lost = some(
        &leads.lost,
        "is lost: nothing is sent to its endpoints",
        "are lost: nothing is sent to their endpoints",
    );
    let down = some(
        &leads.down,
        "is down: the leader does not hear of it",
        "are down: the leader does not hear of them",
    );
    let late = some(
        &leads.lagging,
        "lags: its kernel does not hold what was decided more than a second ago",
        "lag: their kernels do not hold what was decided more than a second ago",
    );
    let seen_to = "look at the host; if it will not come back: `overlay node rm NAME`";
    let late_to = "see `overlay status` there, under `data plane`, and whether it is overloaded";
    let faults = [(lost, seen_to, DOWN), (down, seen_to, DOWN), (late, late_to, NOT_READY)];
    faults
        .into_iter()
        .filter_map(|(what, remedy, section)| Some(fault(what?, remedy, section)))
        .collect()
}

/// What is as it is to be, and worth knowing.
pub(super) fn notes(facts: &Facts<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(best) = facts.best else { return notes };
    let [voters, outgoing] = facts.votes();
    if !outgoing.is_empty() {
        let (to, from) = (facts.names(voters.clone()), facts.names(outgoing));
        notes.push(format!("the voters are being changed from {from} to {to}"));
    }
    let members = facts.members();
    for seat in facts.seats.values().filter(|seat| !members.contains(&seat.raft_id)) {
        notes.push(format!("{} is to hold the log and is no member of Raft (yet)", seat.node));
    }
    for learner in &best.log.learners {
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
