//! What all nodes of a cluster must agree on, index by index, checked at every apply: a node that
//! applied something else and was healed by a snapshot later would not be noticed at the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use raft::eraftpb::Entry;

use crate::control::state;

/// One for a cluster; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle(Arc<Mutex<Truth>>);

#[derive(Debug, Default)]
struct Truth {
    /// Committed writes were lost on purpose: from here on nodes may disagree.
    retired: bool,
    /// What was committed at an index, as a log holds it.
    entries: BTreeMap<u64, Entry>,
    /// The commands among them, and what came of each.
    commands: BTreeMap<u64, (Vec<u8>, state::Outcome)>,
    /// Voters, those who voted before a joint configuration, and learners, from an index on.
    members: BTreeMap<u64, [Vec<u64>; 3]>,
    /// Who becomes a learner when the joint configuration ends that began at an index.
    learners_next: BTreeMap<u64, Vec<u64>>,
}

impl Oracle {
    fn truth(&self) -> MutexGuard<'_, Truth> {
        // A node that disagreed has failed the test already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges no more: the test makes a cluster lose committed writes.
    pub(crate) fn retire(&self) {
        self.truth().retired = true;
    }

    /// A node applied `command` at `index`.
    pub(crate) fn applied(&self, index: u64, command: &[u8], outcome: &state::Outcome) {
        let mut truth = self.truth();
        if truth.retired {
            return;
        }
        let (known, result) =
            truth.commands.entry(index).or_insert_with(|| (command.to_vec(), outcome.clone()));
        assert_eq!(known, command, "two commands were applied at {index}");
        assert_eq!(result, outcome, "one command came to two outcomes at {index}");
    }

    /// A node's state is a snapshot's at `index`, and holds these commands.
    pub(crate) fn restored(&self, index: u64, commands: &[(u64, Vec<u8>)]) {
        let truth = self.truth();
        if truth.retired {
            return;
        }
        let known = truth.commands.range(..=index).map(|(index, (command, _))| (index, command));
        assert!(
            known.eq(commands.iter().map(|(index, command)| (index, command))),
            "the snapshot at {index} is not what was applied up to there"
        );
    }

    /// A node holds `entry` in its log and has applied it.
    pub(crate) fn committed(&self, node: u64, entry: &Entry) {
        let mut truth = self.truth();
        if truth.retired {
            return;
        }
        let known = truth.entries.entry(entry.index).or_insert_with(|| entry.clone());
        assert_eq!(known, entry, "node {node} applied another entry than others did");
    }

    /// A node learned that from `index` on, or from some index before it, the members are these.
    pub(crate) fn members(&self, index: u64, members: &[Vec<u64>; 3]) {
        let mut truth = self.truth();
        if truth.retired {
            return;
        }
        let newest = truth.members.last_key_value().map_or(0, |(index, _)| *index);
        let known = truth.members.range(..=index).next_back().map(|(_, members)| members);
        if known != Some(members) {
            assert!(index > newest, "members at {index}: {members:?}, to others {known:?}");
            truth.members.insert(index, members.clone());
        }
    }

    /// A node has applied everything up to `applied`, and takes these voters of the joint configuration for its next
    /// learners. A node that forgets them ends the joint configuration with fewer members than the others.
    pub(crate) fn learners_next(&self, node: u64, applied: u64, next: &[u64]) {
        let mut truth = self.truth();
        if truth.retired {
            return;
        }
        // The members change whenever a joint configuration begins or ends.
        let Some((&since, _)) = truth.members.range(..=applied).next_back() else { return };
        let known = truth.learners_next.entry(since).or_insert_with(|| next.to_vec());
        assert_eq!(known, next, "node {node} has other next learners than others since {since}");
    }

    /// What came of the command at `index`.
    pub(crate) fn outcome(&self, index: u64) -> state::Outcome {
        self.truth().commands[&index].1.clone()
    }
}
