//! What the nodes say of themselves, and the leader of them: alarms, disks, versions, and who is down.

use super::{
    super::own::SECOND_PROCESS, Answer, COPIES, DIFFERS, DISK, DOWN, Facts, NOT_READY, UPGRADE,
    WAYS_BACK, fault, list,
};
use crate::{
    control::peers::OF_GENERATION,
    model::NodeId,
    proto::v1::{Alarm, Fault, MemberStatus, NodeRole, NodesNamed, VoterStatus},
};
use std::collections::BTreeSet;

/// A disk that takes this long for a write is slow: an election time-out is a second.
const SLOW_US: u64 = 250_000;
/// The average counts for so long after a write: on an idle cluster it does not change, whatever the disk does.
const IDLE_MS: u64 = 60_000;

pub(super) fn of_alarm(node: &str, Alarm { kind, text }: &Alarm) -> Fault {
    let elsewhere = format!("see to it on {node}, or where it says");
    let (remedy, section) = match kind.as_str() {
        "entries" | "snapshot" | "received_snapshot" => {
            ("free space there; nothing needs to be started again", DISK)
        }
        "stalled" => (
            "free space on the voters whose disks are full, as their alarms say; nothing needs to be started again",
            DISK,
        ),
        "differs" => (
            "compare `overlay endpoint ls --stale` and `overlay network ls --stale` on each voter, stop the voters, and recover on the one that is right; the others rejoin with its state",
            DIFFERS,
        ),
        "half_silent" => (
            "see `overlay status` on some of the silent nodes, and mend the network between; those that come back need nothing",
            DOWN,
        ),
        SECOND_PROCESS => ("end one of the two processes for good", COPIES),
        _ => (elsewhere.as_str(), NOT_READY),
    };
    fault(format!("{node}: {text}"), remedy, section)
}

pub(super) fn of_disk(node: &str, log: Option<&VoterStatus>) -> Option<Fault> {
    let log = log.filter(|log| log.average_write_us >= SLOW_US)?;
    if log.last_write_age_ms.is_some_and(|age| age >= IDLE_MS) {
        return None;
    }
    let ms = log.average_write_us / 1_000;
    let what = format!("{node}'s disk takes {ms} ms for a write of the log");
    let hands_over = match log.role() {
        NodeRole::Leader => "; it hands its lead over by itself",
        _ => "",
    };
    let remedy = format!("see what else uses the disk of {node}'s state folder{hands_over}");
    Some(fault(what, remedy, DISK))
}

pub(super) fn of_version(facts: &Facts<'_>, told: &MemberStatus) -> Option<Fault> {
    let best = facts.best?.node;
    let (name, has) = (&told.node, best.cluster_version);
    let speaks = told.oldest_version..=told.newest_version;
    (has != 0 && !speaks.contains(&has)).then(|| {
        let (oldest, newest) = (told.oldest_version, told.newest_version);
        let what = format!(
            "{name} speaks versions {oldest} to {newest}, and the cluster is at version {has}"
        );
        fault(what, format!("install on {name} the program that {} runs", best.node), UPGRADE)
    })
}

/// A node that gives no answer since it is of another generation of the cluster than the asked one.
pub(super) fn of_generation(facts: &Facts<'_>, node: NodeId, answer: &Answer) -> Option<Fault> {
    let why = is_of_another_generation(answer)?;
    let what = format!("{} does not take part: {why}", facts.node_name_or_id(node));
    let remedy = "the one of the older generation rejoins by itself; if it lasts longer than a minute, start that one again with --join";
    Some(fault(what, remedy, WAYS_BACK))
}

/// What a node of another generation than the asked one says of that.
pub(super) fn is_of_another_generation(answer: &Answer) -> Option<&str> {
    match answer {
        Answer::Silent(why) => Some(why.as_str()).filter(|why| why.contains(OF_GENERATION)),
        Answer::Told(_) | Answer::Earlier | Answer::NotAsked => None,
    }
}

/// What the leader knows of the nodes, but for those of which it was said already that they do not answer.
pub(super) fn of_nodes(facts: &Facts<'_>, said: &BTreeSet<String>) -> Vec<Fault> {
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
