//! The leader's duty to say which nodes have fallen silent: an agent that is down or cut off leaves a line, too.

use crate::{
    control::{
        consensus::Role,
        state::State,
        voter::{NODE_DOWN_AFTER, StatusTable, VoterParts},
    },
    model::NodeId,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep};

/// How often the nodes are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// So many nodes are named in one line.
const NAMED: usize = 8;

/// The nodes of which it was said that they are silent.
#[derive(Debug, Default)]
struct Silent(BTreeSet<NodeId>);

/// What is to be said.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    silent: Vec<NodeId>,
    heard: Vec<NodeId>,
}

impl Silent {
    /// Compares the nodes that are silent now with those of which it was said. A node that was removed is no news.
    fn look(&mut self, nodes: &BTreeSet<NodeId>, silent: BTreeSet<NodeId>) -> News {
        let news = News {
            silent: silent.difference(&self.0).copied().collect(),
            heard: self.0.difference(&silent).filter(|id| nodes.contains(id)).copied().collect(),
        };
        self.0 = silent;
        news
    }
}

/// While this node leads: logs which nodes have fallen silent, and which are heard again, all of one moment in one line.
/// Ends with consensus.
pub async fn watch_the_nodes(voter: VoterParts) {
    let VoterParts { consensus, state, table, .. } = voter;
    let mut said = Silent::default();
    let mut led: Option<(u64, Instant)> = None;
    let status = consensus.status();
    while status.has_changed().is_ok() {
        let (role, term) = {
            let status = status.borrow();
            (status.role, status.term)
        };
        let before = led.filter(|(led, _)| *led == term && role == Role::Leader);
        led = before.or((role == Role::Leader).then(|| (term, Instant::now())));
        if before.is_none() {
            // A new leader says all that it finds, once the nodes had the time to report.
            said = Silent::default();
        }
        if led.is_some_and(|(_, since)| since.elapsed() > NODE_DOWN_AFTER) {
            let state = state.copy();
            let News { silent, heard } = look(&mut said, &state, &table);
            if !silent.is_empty() {
                tracing::warn!(
                    nodes = names(&state, &silent),
                    count = silent.len(),
                    "nodes are silent: they are down, or no voter reaches them"
                );
            }
            if !heard.is_empty() {
                let count = heard.len();
                tracing::info!(nodes = names(&state, &heard), count, "nodes are heard again");
            }
        }
        sleep(PERIOD).await;
    }
}

fn look(said: &mut Silent, state: &State, table: &StatusTable) -> News {
    let nodes: BTreeSet<NodeId> = state.nodes().map(|node| node.id).collect();
    let silent = silent(said, &nodes, table);
    said.look(&nodes, silent)
}

/// The nodes that are silent. One that has only registered has not had the time to report; one that was silent before is so
/// until it reports, however often it registers.
fn silent(said: &Silent, nodes: &BTreeSet<NodeId>, table: &StatusTable) -> BTreeSet<NodeId> {
    let had_time = |id| said.0.contains(id) || table.silence(*id) >= NODE_DOWN_AFTER;
    nodes.iter().filter(|id| table.is_down(**id) && had_time(id)).copied().collect()
}

fn names(state: &State, nodes: &[NodeId]) -> String {
    let named = nodes.iter().take(NAMED).filter_map(|id| state.node(*id));
    named.map(|node| node.name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut said = Silent::default();
        let mut look = |nodes: &[NodeId], silent: &[NodeId]| {
            let set = |ids: &[NodeId]| ids.iter().copied().collect();
            let News { silent, heard } = said.look(&set(nodes), set(silent));
            (silent, heard)
        };
        let nothing = || (vec![], vec![]);
        assert_eq!(look(&[1, 2, 3], &[]), nothing());
        assert_eq!(look(&[1, 2, 3], &[2, 3]), (vec![2, 3], vec![]));
        assert_eq!(look(&[1, 2, 3], &[2, 3]), nothing());
        assert_eq!(look(&[1, 2, 3], &[1, 3]), (vec![1], vec![2]));
        // Node 3 was removed.
        assert_eq!(look(&[1, 2], &[1]), nothing());
        assert_eq!(look(&[1, 2], &[]), (vec![], vec![1]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_has_only_registered_is_not_silent_yet() {
        let (table, nodes) = (StatusTable::default(), BTreeSet::from([1]));
        sleep(2 * NODE_DOWN_AFTER).await;
        table.signs().registered(1);
        let mut said = Silent::default();
        assert!(silent(&said, &nodes, &table).is_empty());
        sleep(NODE_DOWN_AFTER).await;
        let now = silent(&said, &nodes, &table);
        assert_eq!(now, nodes);
        said.look(&nodes, now);
        table.signs().registered(1);
        assert_eq!(silent(&said, &nodes, &table), nodes, "it has never reported");
    }
}
