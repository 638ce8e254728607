//! Whether the voters hold the same state, by the hashes that they tell.

use super::facts::{Facts, list};
use crate::proto::v1::StateHash;
use std::collections::BTreeMap;

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

/// Voters whose states differ at the latest revision that they have in common: what is wrong, and what to do.
pub(super) fn differing(facts: &Facts<'_>) -> Option<(String, &'static str)> {
    let (revision, states) = states(facts).pop_last().filter(|(_, states)| states.len() > 1)?;
    let what = format!(
        "the voters hold different states at revision {revision}: {}",
        list(states.into_iter().map(|nodes| format!("one on {}", nodes.join(", "))))
    );
    let remedy = "a voter that differs from a majority ends and rejoins by itself; keep the logs, and report it";
    Some((what, remedy))
}
