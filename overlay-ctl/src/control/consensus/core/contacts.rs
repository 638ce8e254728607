//! Notes, once a tick, when the other members were heard, and on the leader which of them take nothing.

use super::Core;
use crate::control::consensus::{Contact, StateMachine};
use raft::StateRole;
use std::collections::BTreeMap;

/// The members that lack entries that are committed: what each has, and since which tick it has had no more.
#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<u64, (u64, u64)>);

impl Progress {
    /// Compares what the members have with what they had before. Returns for how many ticks each of those that lack entries has
    /// taken none. `matched` is empty on a node that does not lead.
    fn look(&mut self, matched: &BTreeMap<u64, u64>, commit: u64, now: u64) -> BTreeMap<u64, u64> {
        let lacking = matched.iter().filter(|(_, matched)| **matched < commit);
        let since = |(member, matched): (&u64, &u64)| {
            let same = self.0.get(member).filter(|(had, _)| had == matched);
            (*member, (*matched, same.map_or(now, |(_, since)| *since)))
        };
        self.0 = lacking.map(since).collect();
        self.0.iter().map(|(member, (_, since))| (*member, now - since)).collect()
    }
}

impl<S: StateMachine> Core<S> {
    pub(super) fn note_contacts(&mut self) {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        let others = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        let others: BTreeMap<u64, u64> = others.map(|(id, peer)| (*id, peer.matched)).collect();
        let none = BTreeMap::new();
        let led = if leads { &others } else { &none };
        let stuck = self.progress.look(led, raft.raft_log.committed, self.ticks);
        let time = |ticks: u64| self.config.tick * u32::try_from(ticks).unwrap_or(u32::MAX);
        let contact = |member: &u64| Contact {
            heard: self.heard.get(member).map(|at| time(self.ticks.saturating_sub(*at))),
            stuck: stuck.get(member).map(|ticks| time(*ticks)).unwrap_or_default(),
        };
        self.measures
            .note_contacts(others.keys().map(|member| (*member, contact(member))).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_stuck_since_it_last_took_an_entry() {
        let mut progress = Progress::default();
        let mut look = |matched: &[(u64, u64)], commit, now| {
            let found = progress.look(&matched.iter().copied().collect(), commit, now);
            found.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(look(&[(2, 5), (3, 5)], 5, 10), [], "nobody lacks anything");
        assert_eq!(look(&[(2, 5), (3, 7)], 7, 11), [(2, 0)]);
        assert_eq!(look(&[(2, 5), (3, 7)], 9, 15), [(2, 4), (3, 0)]);
        // It takes some, though not all.
        assert_eq!(look(&[(2, 6), (3, 7)], 9, 16), [(2, 0), (3, 1)]);
        assert_eq!(look(&[(2, 6), (3, 9)], 9, 20), [(2, 4)]);
        assert_eq!(look(&[], 9, 21), [], "it leads no more");
        assert_eq!(look(&[(2, 6)], 9, 22), [(2, 0)], "and begins anew");
    }
}
