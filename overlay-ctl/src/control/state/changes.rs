//! The change log: which rows changed at which revision, for as many revisions as are remembered.

use crate::model::{EndpointId, NetworkId, NodeId, Revision};
use imbl::OrdSet;
use std::collections::BTreeSet;

/// How many changes are remembered. A stream whose cursor is older gets everything again.
pub const REMEMBERED: usize = 16_384;

/// Which row changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// A node.
    Node(NodeId),
    /// A network.
    Network(NetworkId),
    /// An endpoint of a network: the network is kept since the row itself may be gone.
    Endpoint(NetworkId, EndpointId),
}

/// The latest changes, oldest first.
///
/// Two logs are equal whatever they hold: how far back a node can serve deltas is no part of the
/// state.
#[derive(Clone, Debug)]
pub struct ChangeLog {
    /// Changes at or before this revision are not all here.
    complete_after: Revision,
    changes: OrdSet<(Revision, RowKey)>,
    remembered: usize,
}

impl Default for ChangeLog {
    fn default() -> Self {
        Self::starting_after(0)
    }
}

impl PartialEq for ChangeLog {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl ChangeLog {
    /// A log that knows nothing of what happened up to `revision`.
    pub(super) fn starting_after(revision: Revision) -> Self {
        Self { complete_after: revision, changes: OrdSet::new(), remembered: REMEMBERED }
    }

    /// The same log, which remembers so many changes from now on.
    #[must_use]
    pub(super) fn remembering(self, changes: usize) -> Self {
        Self { remembered: changes, ..self }
    }

    pub(super) fn push(&mut self, revision: Revision, key: RowKey) {
        self.changes.insert((revision, key));
        while self.changes.len() > self.remembered {
            if let Some((revision, _)) = self.changes.remove_min() {
                self.complete_after = revision;
            }
        }
    }

    /// The rows that changed after `cursor`; `None` where the log does not reach back so far.
    #[must_use]
    pub fn since(&self, cursor: Revision) -> Option<BTreeSet<RowKey>> {
        if cursor < self.complete_after {
            return None;
        }
        // The least key of the revision behind the cursor.
        let from = (cursor.saturating_add(1), RowKey::Node(NodeId::MIN));
        Some(self.changes.range(from..).map(|(_, key)| *key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_older_than_the_log_gets_nothing_rather_than_a_gap() {
        let mut log = ChangeLog::starting_after(10);
        assert_eq!(log.since(9), None);
        assert_eq!(log.since(10), Some(BTreeSet::new()));
        for revision in 11..11 + REMEMBERED as u64 {
            log.push(revision, RowKey::Node(revision));
        }
        assert_eq!(log.since(10).map(|keys| keys.len()), Some(REMEMBERED));
        log.push(u64::MAX, RowKey::Node(1));
        assert_eq!(log.since(10), None);
        assert_eq!(log.since(11).map(|keys| keys.len()), Some(REMEMBERED));
    }
}
