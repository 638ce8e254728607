//! The change log: the rows that changed at each of the latest revisions. Delta streams are made from it.

use crate::model::{EndpointId, NetworkId, NodeId, Revision};
use imbl::OrdSet;
use std::collections::BTreeSet;

/// The number of changes that are kept. A stream with an older cursor gets a complete view.
pub const REMEMBERED: usize = 16_384;

/// The key of a row that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// A node.
    Node(NodeId),
    /// A network.
    Network(NetworkId),
    /// An endpoint, with its network, because the row itself may have been removed.
    Endpoint(NetworkId, EndpointId),
}

/// The latest changes, oldest first.
///
/// All logs compare equal: the number of revisions for which a node can serve deltas is not part of the
/// replicated state.
#[derive(Clone, Debug)]
pub struct ChangeLog {
    /// The log has all changes after this revision, and not all changes up to it.
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
    /// An empty log that is complete from the revision after `revision` on.
    pub(super) fn starting_after(revision: Revision) -> Self {
        Self { complete_after: revision, changes: OrdSet::new(), remembered: REMEMBERED }
    }

    /// The same log with another length.
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

    /// The rows that changed after `cursor`; `None` if the log does not reach back so far.
    #[must_use]
    pub fn since(&self, cursor: Revision) -> Option<BTreeSet<RowKey>> {
        if cursor < self.complete_after && !planted!(DeltasAcrossCompaction) {
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
        let mut short = ChangeLog::starting_after(0).remembering(2);
        for revision in 1..=3 {
            short.push(revision, RowKey::Node(revision));
        }
        assert_eq!(short.since(0), None);
        assert_eq!(short.since(1), Some([RowKey::Node(2), RowKey::Node(3)].into()));
        log.push(u64::MAX, RowKey::Node(1));
        assert_eq!(log.since(10), None);
        assert_eq!(log.since(11).map(|keys| keys.len()), Some(REMEMBERED));
    }
}
