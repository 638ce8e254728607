//! Logs who leads and counts how often that changes, and, on the leader, logs which members have fallen silent: a partition
//! leaves a line on each of its sides.

use super::Core;
use crate::control::consensus::{PeerStatus, StateMachine, Status};
use std::collections::{BTreeMap, BTreeSet};

/// Which members a leader has not heard for a while.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// The term that this node leads.
    led: Option<u64>,
    /// Since which tick each has been a member, no earlier than this node leads.
    members: BTreeMap<u64, u64>,
    silent: BTreeSet<u64>,
}

/// The last leader that this node knew, and its term. A pre-candidate knows none for a moment, and the same one after it: that
/// is no change of the leader.
#[derive(Debug, Default)]
pub(super) struct LastLeader(Option<(u64, u64)>);

impl LastLeader {
    /// Returns true if `leader`, who leads `term`, is another one than before, or leads a later term.
    fn is_news(&mut self, term: u64, leader: Option<u64>) -> bool {
        let Some(leader) = leader else { return false };
        self.0.replace((term, leader)) != Some((term, leader))
    }
}

/// A member that has fallen silent, or was heard again.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    member: u64,
    is_silent: bool,
}

impl Silence {
    /// Compares what a leader hears with what it heard before. `term` is the term that this node leads, if it leads. A new
    /// leader has heard nobody but those who elected it, and nobody has heard a new member: each gets `patience` ticks.
    fn look(
        &mut self,
        term: Option<u64>,
        peers: &[PeerStatus],
        now: u64,
        patience: u64,
    ) -> Vec<Change> {
        let Some(term) = term else {
            *self = Self::default();
            return Vec::new();
        };
        if self.led.replace(term) != Some(term) {
            self.members.clear();
        }
        let since = |id| (id, self.members.get(&id).copied().unwrap_or(now));
        self.members = peers.iter().map(|peer| since(peer.id)).collect();
        self.silent.retain(|member| peers.iter().any(|peer| peer.id == *member));
        let mut changes = Vec::new();
        for PeerStatus { id: member, recent_active, .. } in peers {
            let (member, is_silent) = (*member, !recent_active);
            let is_news = match is_silent {
                true => {
                    let since = self.members.get(&member).copied().unwrap_or(now);
                    now >= since + patience && self.silent.insert(member)
                }
                false => self.silent.remove(&member),
            };
            if is_news {
                changes.push(Change { member, is_silent });
            }
        }
        changes
    }
}

impl<S: StateMachine> Core<S> {
    /// Logs what has changed between two states, each change once.
    pub(super) fn log_changes(&mut self, old: &Status, new: &Status) {
        let (id, term) = (new.id, new.term);
        if self.last_leader.is_news(term, new.leader) {
            self.measures.note_leader();
        }
        if new.leader != old.leader || (new.leader.is_some() && new.term != old.term) {
            match new.leader {
                Some(leader) if leader == id => tracing::info!(term, "this node leads"),
                Some(leader) => tracing::info!(leader, term, "another node leads"),
                None => tracing::info!(term, "no leader is known"),
            }
        }
        let led = (new.leader == Some(id)).then_some(term);
        let patience = self.config.max_election_ticks as u64;
        for Change { member, is_silent } in self.silence.look(led, &new.peers, self.ticks, patience)
        {
            if is_silent {
                tracing::warn!(
                    member,
                    "a member is silent: it is down, or this node and it do not reach each other"
                );
            } else {
                tracing::info!(member, "the member is heard again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: u64 = 20;
    const NOTHING: [Vec<u64>; 2] = [Vec::new(), Vec::new()];

    fn peers(heard: &[(u64, bool)]) -> Vec<PeerStatus> {
        let peer = |(id, recent_active): &(u64, bool)| PeerStatus {
            id: *id,
            matched: 0,
            recent_active: *recent_active,
        };
        heard.iter().map(peer).collect()
    }

    /// The members that fell silent, and those that were heard again.
    fn look(
        silence: &mut Silence,
        term: Option<u64>,
        heard: &[(u64, bool)],
        now: u64,
    ) -> [Vec<u64>; 2] {
        let changes = silence.look(term, &peers(heard), now, PATIENCE);
        [true, false].map(|silent| {
            changes.iter().filter(|it| it.is_silent == silent).map(|it| it.member).collect()
        })
    }

    #[test]
    fn a_moment_without_a_leader_is_no_change_of_the_leader() {
        let mut last = LastLeader::default();
        let mut changes = |seen: &[(u64, Option<u64>)]| {
            seen.iter().filter(|(term, leader)| last.is_news(*term, *leader)).count()
        };
        assert_eq!(changes(&[(0, None), (3, None), (3, Some(2))]), 1, "the first one");
        assert_eq!(changes(&[(3, Some(2)), (3, None), (3, Some(2)), (3, None), (3, Some(2))]), 0);
        assert_eq!(changes(&[(4, None), (4, Some(2))]), 1, "it was elected again");
        assert_eq!(changes(&[(5, Some(1)), (6, None), (6, None), (7, Some(2))]), 2);
    }

    #[test]
    fn each_change_is_told_once() {
        let mut silence = Silence::default();
        let silence = &mut silence;
        // A new leader gives the others time.
        assert_eq!(look(silence, Some(3), &[(2, true), (3, false)], 100), NOTHING);
        assert_eq!(look(silence, Some(3), &[(2, true), (3, false)], 119), NOTHING);
        assert_eq!(look(silence, Some(3), &[(2, true), (3, false)], 120), [vec![3], vec![]]);
        assert_eq!(look(silence, Some(3), &[(2, false), (3, false)], 121), [vec![2], vec![]]);
        assert_eq!(look(silence, Some(3), &[(2, false), (3, true)], 122), [vec![], vec![3]]);
        // Who was removed and comes back is no member that was silent.
        assert_eq!(look(silence, Some(3), &[(3, true)], 123), NOTHING);
        assert_eq!(look(silence, Some(3), &[(2, true), (3, true)], 124), NOTHING);
        // It gets time, as each new member does.
        assert_eq!(look(silence, Some(3), &[(2, false), (3, true)], 143), NOTHING);
        assert_eq!(look(silence, Some(3), &[(2, false), (3, true)], 144), [vec![2], vec![]]);
        // Who leads a later term begins anew.
        assert_eq!(look(silence, None, &[], 145), NOTHING);
        assert_eq!(look(silence, Some(4), &[(2, false), (3, true)], 146), NOTHING);
    }
}
