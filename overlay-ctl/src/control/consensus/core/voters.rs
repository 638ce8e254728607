//! Decides which members vote: the leader's next step, as a pure function of what it knows.
//!
//! The rules, each step of which keeps a majority of the members that are alive:
//!
//! 1. One change at a time. A joint configuration is left before anything else is decided.
//! 2. At rest the number of voters is odd. Two voters survive no more failures than one, and stop when
//!    either is gone: the second of two members is a learner, which holds the log and has no vote.
//! 3. Learners become voters in pairs, when both hold the log. Where an even number of voters is found
//!    (an older version's, or a leader that died between two steps), one learner fills it up, or else one
//!    voter becomes a learner.
//! 4. Voters that are to be removed leave in one joint change, which also makes the rest odd: learners
//!    that hold the log move up, or voters become learners. The leader stays, then who is alive.
//! 5. A leader that is to be removed hands over first. Where nobody else votes, a learner that holds the
//!    log gets a vote for that; where there is none, the removal is refused.
//! 6. A voter that is silent keeps its vote, because it may be back in a moment. Only a removal ends it.
//!    One that is replaced leaves only in the change in which a learner that holds the log gets its vote.
//! 7. More voters than are wished for become fewer in one joint change. The leader stays, then who is alive.

use std::collections::BTreeSet;

/// What the leader knows of the members when it decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// The leader that decides.
    pub(super) leader: u64,
    /// The voters; in a joint configuration, the voters after it.
    pub(super) voters: BTreeSet<u64>,
    /// In a joint configuration, the voters before it, which still vote; otherwise empty.
    pub(super) outgoing: BTreeSet<u64>,
    /// The learners: members without a vote.
    pub(super) learners: BTreeSet<u64>,
    /// The members to be removed.
    pub(super) leaving: BTreeSet<u64>,
    /// The members that were heard lately, the leader itself included.
    pub(super) alive: BTreeSet<u64>,
    /// The learners that hold the log.
    pub(super) caught_up: BTreeSet<u64>,
    /// The greatest number of voters at rest.
    pub(super) max_voters: usize,
}

/// One change of the configuration. A change of more than one member makes it a joint configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Learners that get a vote.
    pub(super) promote: BTreeSet<u64>,
    /// Voters that become learners.
    pub(super) demote: BTreeSet<u64>,
    /// Members that are removed.
    pub(super) remove: BTreeSet<u64>,
}

/// The leader's next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing to do.
    Rest,
    /// The leader proposes this change.
    Change(Change),
    /// The leader proposes to leave the joint configuration.
    LeaveJoint,
    /// The leader hands the leadership over to a voter that stays.
    HandOver,
    /// The leader cannot be removed, because no member could take over.
    Refuse(&'static str),
}

const ONLY_MEMBER: &str =
    "it is the cluster's only voter; to end the cluster, end the node and run `overlay node reset`";
const NOBODY_CAUGHT_UP: &str = "it is the cluster's only voter, and no other node that is up holds the \
     whole log yet; start another node or wait until one has caught up, then try again";

/// The next step towards the configuration that the rules want.
pub(super) fn next_step(members: &Members) -> Step {
    let Members { leader, voters, outgoing, leaving, alive, .. } = members;
    if !outgoing.is_empty() {
        // A leader that stays ends the joint configuration: the engine would let this one go on without a vote.
        return if voters.contains(leader) { Step::LeaveJoint } else { Step::HandOver };
    }
    let spare = members.spare();
    if leaving.contains(leader) {
        return if voters.iter().any(|id| !leaving.contains(id) && alive.contains(id)) {
            Step::HandOver
        } else if let Some(successor) = spare.first() {
            promote([*successor])
        } else if voters.len() + members.learners.len() > 1 {
            Step::Refuse(NOBODY_CAUGHT_UP)
        } else {
            Step::Refuse(ONLY_MEMBER)
        };
    }
    if voters.intersection(leaving).next().is_some() || voters.len() > members.max_voters {
        return members.without_those_leaving(&spare);
    }
    if let Some(gone) = members.learners.intersection(leaving).next() {
        return Step::Change(Change { remove: [*gone].into(), ..Change::default() });
    }
    let vacancies = members.max_voters.saturating_sub(voters.len());
    match (voters.len() % 2, spare.len().min(vacancies)) {
        (1, 2..) => promote(spare.into_iter().take(2)),
        (0, 1..) => promote(spare.into_iter().take(1)),
        (0, 0) => members.one_fewer(),
        _ => Step::Rest,
    }
}

fn promote(ids: impl IntoIterator<Item = u64>) -> Step {
    Step::Change(Change { promote: ids.into_iter().collect(), ..Change::default() })
}

impl Members {
    /// The learners that could vote at once: alive, with the whole log.
    fn spare(&self) -> BTreeSet<u64> {
        let able = self.learners.intersection(&self.caught_up);
        able.filter(|id| self.alive.contains(id) && !self.leaving.contains(id)).copied().collect()
    }

    /// Those of `replaced` whose vote no learner could take over now: without them, fewer would vote than do and than are wished
    /// for. They are to stay.
    pub(super) fn without_a_successor(&self, replaced: &BTreeSet<u64>) -> BTreeSet<u64> {
        let replaced: BTreeSet<u64> = replaced.intersection(&self.leaving).copied().collect();
        if !self.outgoing.is_empty() || replaced.is_disjoint(&self.voters) {
            return BTreeSet::new();
        }
        // An even number does not rest.
        let wanted = self.voters.len().min(self.max_voters).saturating_sub(1) | 1;
        let left = self.voters.difference(&self.leaving).count();
        let able = left + self.spare().len();
        if able >= wanted { BTreeSet::new() } else { replaced }
    }

    /// Removes the voters that leave, and makes the number of the others odd: the largest odd number of which a
    /// majority is alive, and which is no more than is wished for.
    fn without_those_leaving(&self, spare: &BTreeSet<u64>) -> Step {
        let stay: BTreeSet<u64> = self.voters.difference(&self.leaving).copied().collect();
        let mut preferred: Vec<u64> = stay.union(spare).copied().collect();
        preferred.sort_by_key(|id| {
            (*id != self.leader, !self.alive.contains(id), spare.contains(id), *id)
        });
        let most = preferred.len().min(self.max_voters);
        let has_quorum = |count: &usize| {
            let alive = preferred.iter().take(*count).filter(|id| self.alive.contains(id)).count();
            count % 2 == 1 && alive * 2 > *count
        };
        // The leader comes first and is alive, so one voter is always possible.
        let count = (1..=most).rev().find(has_quorum).unwrap_or(1);
        let vote: BTreeSet<u64> = preferred.into_iter().take(count).collect();
        Step::Change(Change {
            promote: vote.difference(&stay).copied().collect(),
            demote: stay.difference(&vote).copied().collect(),
            remove: self.voters.intersection(&self.leaving).copied().collect(),
        })
    }

    /// Takes one vote away: that of a silent voter if there is one, and never the leader's.
    fn one_fewer(&self) -> Step {
        let others = self.voters.iter().filter(|id| **id != self.leader);
        match others.max_by_key(|id| (!self.alive.contains(id), **id)) {
            Some(id) => Step::Change(Change { demote: [*id].into(), ..Change::default() }),
            None => Step::Rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leader is 1. Written as a test reads best: voters, learners, leaving, and who is dead; all
    /// learners that live hold the log.
    fn members(voters: &[u64], learners: &[u64], leaving: &[u64], dead: &[u64]) -> Members {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let all = set(voters).union(&set(learners)).copied().collect::<BTreeSet<u64>>();
        Members {
            leader: 1,
            voters: set(voters),
            outgoing: BTreeSet::new(),
            learners: set(learners),
            leaving: set(leaving),
            alive: all.difference(&set(dead)).copied().collect(),
            caught_up: set(learners),
            max_voters: 3,
        }
    }

    fn change(promote: &[u64], demote: &[u64], remove: &[u64]) -> Step {
        let set = |ids: &[u64]| ids.iter().copied().collect();
        Step::Change(Change { promote: set(promote), demote: set(demote), remove: set(remove) })
    }

    #[test]
    fn learners_become_voters_in_pairs() {
        assert_eq!(next_step(&members(&[1], &[], &[], &[])), Step::Rest);
        assert_eq!(next_step(&members(&[1], &[2], &[], &[])), Step::Rest);
        assert_eq!(next_step(&members(&[1], &[2, 3], &[], &[])), change(&[2, 3], &[], &[]));
        assert_eq!(next_step(&members(&[1], &[2, 3], &[], &[3])), Step::Rest);
        assert_eq!(next_step(&members(&[1], &[2, 3, 4], &[], &[2])), change(&[3, 4], &[], &[]));
        assert_eq!(next_step(&members(&[1, 2, 3], &[4, 5], &[], &[3])), Step::Rest);
        let behind = Members { caught_up: [3].into(), ..members(&[1], &[2, 3], &[], &[]) };
        assert_eq!(next_step(&behind), Step::Rest);
        let of_five = Members { max_voters: 5, ..members(&[1, 2, 3], &[4, 5], &[], &[3]) };
        assert_eq!(next_step(&of_five), change(&[4, 5], &[], &[]));
    }

    #[test]
    fn an_even_number_is_not_left_as_it_is() {
        assert_eq!(next_step(&members(&[1, 2], &[], &[], &[])), change(&[], &[2], &[]));
        assert_eq!(next_step(&members(&[1, 2], &[3], &[], &[])), change(&[3], &[], &[]));
        assert_eq!(next_step(&members(&[1, 2], &[3], &[], &[3])), change(&[], &[2], &[]));
        assert_eq!(next_step(&members(&[1, 2, 3, 4], &[], &[], &[3])), change(&[], &[3], &[]));
    }

    #[test]
    fn whoever_leaves_takes_the_others_along_to_an_odd_number() {
        assert_eq!(next_step(&members(&[1, 2, 3], &[], &[3], &[])), change(&[], &[2], &[3]));
        assert_eq!(next_step(&members(&[1, 2, 3], &[], &[3], &[3])), change(&[], &[2], &[3]));
        assert_eq!(next_step(&members(&[1, 2, 3], &[], &[2], &[3])), change(&[], &[3], &[2]));
        assert_eq!(next_step(&members(&[1, 2, 3], &[4], &[3], &[])), change(&[4], &[], &[3]));
        assert_eq!(next_step(&members(&[1, 2, 3], &[4], &[3], &[4])), change(&[], &[2], &[3]));
        assert_eq!(next_step(&members(&[1, 2, 3], &[], &[2, 3], &[])), change(&[], &[], &[2, 3]));
        assert_eq!(next_step(&members(&[1, 2], &[], &[2], &[])), change(&[], &[], &[2]));
        // Of those who stay, the silent ones lose their votes.
        let five = members(&[1, 2, 3, 4, 5], &[], &[5], &[2]);
        assert_eq!(next_step(&five), change(&[], &[2], &[5]));
        assert_eq!(next_step(&members(&[1], &[2], &[2], &[])), change(&[], &[], &[2]));
        assert_eq!(next_step(&members(&[1], &[2, 3], &[2], &[])), change(&[], &[], &[2]));
    }

    #[test]
    fn who_is_replaced_leaves_when_a_learner_can_take_its_vote() {
        let stays = |members: Members| members.without_a_successor(&members.leaving);
        let none = BTreeSet::new();
        assert_eq!(stays(members(&[1, 2, 3], &[4], &[3], &[3])), none);
        assert_eq!(stays(members(&[1, 2, 3], &[4], &[3], &[3, 4])), [3].into());
        assert_eq!(stays(members(&[1, 2, 3], &[], &[3], &[3])), [3].into());
        let behind = Members { caught_up: none.clone(), ..members(&[1, 2, 3], &[4], &[3], &[3]) };
        assert_eq!(stays(behind), [3].into());
        assert_eq!(stays(members(&[1, 2, 3], &[4], &[4], &[4])), none, "it has no vote");
        let fewer = Members { max_voters: 1, ..members(&[1, 2, 3], &[], &[3], &[3]) };
        assert_eq!(stays(fewer), none, "fewer are wished for");
        let of_five = |learners: &[u64], dead: &[u64]| Members {
            max_voters: 5,
            ..members(&[1, 2, 3, 4, 5], learners, &[5], dead)
        };
        assert_eq!(stays(of_five(&[6], &[4, 5])), none);
        assert_eq!(stays(of_five(&[6], &[5, 6])), [5].into());
        // Who is removed is not in the way of who is replaced.
        let both = members(&[1, 2, 3], &[], &[2, 3], &[3]);
        assert_eq!(both.without_a_successor(&[3].into()), [3].into());
    }

    #[test]
    fn more_voters_than_are_wished_for_become_fewer_at_once() {
        let five = |max_voters, dead: &[u64]| Members {
            max_voters,
            ..members(&[1, 2, 3, 4, 5], &[6], &[], dead)
        };
        assert_eq!(next_step(&five(5, &[])), Step::Rest);
        assert_eq!(next_step(&five(3, &[])), change(&[], &[4, 5], &[]));
        assert_eq!(next_step(&five(3, &[2])), change(&[], &[2, 5], &[]));
        assert_eq!(next_step(&five(1, &[2, 3])), change(&[], &[2, 3, 4, 5], &[]));
    }

    #[test]
    fn a_leader_that_leaves_hands_over_or_stays() {
        assert_eq!(next_step(&members(&[1, 2, 3], &[], &[1], &[])), Step::HandOver);
        assert_eq!(next_step(&members(&[1, 2, 3], &[], &[1, 2], &[])), Step::HandOver);
        assert_eq!(next_step(&members(&[1, 2], &[], &[1], &[])), Step::HandOver);
        assert_eq!(next_step(&members(&[1], &[2], &[1], &[])), change(&[2], &[], &[]));
        assert_eq!(next_step(&members(&[1], &[2], &[1], &[2])), Step::Refuse(NOBODY_CAUGHT_UP));
        assert_eq!(next_step(&members(&[1], &[2], &[1, 2], &[])), Step::Refuse(NOBODY_CAUGHT_UP));
        assert_eq!(next_step(&members(&[1], &[], &[1], &[])), Step::Refuse(ONLY_MEMBER));
    }

    #[test]
    fn a_joint_configuration_is_left_first_and_by_whoever_stays() {
        let joint = |voters: &[u64]| Members {
            outgoing: [1, 2, 3].into(),
            ..members(voters, &[4, 5], &[5], &[])
        };
        assert_eq!(next_step(&joint(&[1])), Step::LeaveJoint);
        assert_eq!(next_step(&joint(&[2])), Step::HandOver);
    }

    /// From every configuration of up to five members in which the cluster can decide, whoever leaves
    /// and whoever is dead: the steps come to an end, each keeps a majority alive on both sides of a
    /// joint configuration, no even number of voters rests, and who was to leave is gone.
    #[test]
    fn every_way_ends_in_a_cluster_that_can_decide() {
        const MEMBERS: u32 = 5;
        let subset = |bits: u32| (1..=MEMBERS).filter(move |id| bits >> (id - 1) & 1 == 1);
        let ids = |bits: u32| subset(bits).map(u64::from).collect::<BTreeSet<u64>>();
        let mut cases = 0;
        for role in 0..3u32.pow(MEMBERS) {
            let of = |kind: u32| {
                let here = (0..MEMBERS).filter(|place| role / 3u32.pow(*place) % 3 == kind);
                here.map(|place| u64::from(place + 1)).collect::<BTreeSet<u64>>()
            };
            let (voters, learners) = (of(0), of(1));
            for max_voters in [1, 3, 5] {
                for bits in 0..1 << (2 * MEMBERS) {
                    let (alive, leaving) = (ids(bits), ids(bits >> MEMBERS));
                    let all: BTreeSet<u64> = voters.union(&learners).copied().collect();
                    if !alive.is_subset(&all) || !leaving.is_subset(&all) {
                        continue;
                    }
                    let live = voters.intersection(&alive).copied().collect::<Vec<u64>>();
                    if live.len() * 2 <= voters.len() {
                        continue;
                    }
                    // Voters of the same kind differ by their ids alone: the first leads, and the last.
                    for leader in [live[0], live[live.len() - 1]] {
                        let start = Members {
                            leader,
                            voters: voters.clone(),
                            outgoing: BTreeSet::new(),
                            learners: learners.clone(),
                            leaving: leaving.clone(),
                            alive: alive.clone(),
                            caught_up: learners.clone(),
                            max_voters,
                        };
                        run_to_rest(start);
                        cases += 1;
                    }
                }
            }
        }
        assert!(cases > 100_000, "{cases}");
    }

    fn run_to_rest(start: Members) {
        let mut now = start.clone();
        for _ in 0..20 {
            let step = next_step(&now);
            match step {
                Step::Rest => {
                    assert_eq!(now.voters.len() % 2, 1, "{start:?} rests at {now:?}");
                    assert!(now.voters.contains(&now.leader), "{start:?} rests at {now:?}");
                    assert!(now.voters.len() <= now.max_voters, "{start:?} rests at {now:?}");
                    let members = now.voters.union(&now.learners).copied().collect();
                    assert!(now.leaving.is_disjoint(&members), "{start:?} rests at {now:?}");
                    return;
                }
                Step::Change(change) => apply(&mut now, change),
                Step::LeaveJoint => {
                    let demoted = now.outgoing.difference(&now.voters).copied();
                    let stay: Vec<u64> = demoted.filter(|id| !now.leaving.contains(id)).collect();
                    now.learners.extend(stay);
                    now.outgoing.clear();
                }
                Step::HandOver => {
                    let able = now.voters.intersection(&now.alive);
                    let next = able.filter(|id| !now.leaving.contains(id)).max();
                    now.leader = *next.unwrap_or_else(|| panic!("{start:?}: nobody at {now:?}"));
                }
                Step::Refuse(_) => {
                    // Nobody who stays holds the log.
                    let stays = |id: &u64| now.alive.contains(id) && !now.leaving.contains(id);
                    let able = now.voters.union(&now.learners).filter(|id| stays(id));
                    assert_eq!(able.count(), 0, "{start:?} refuses at {now:?}");
                    now.leaving.remove(&now.leader.clone());
                }
            }
            for voters in [&now.voters, &now.outgoing] {
                let alive = voters.intersection(&now.alive).count();
                assert!(
                    voters.is_empty() || alive * 2 > voters.len(),
                    "{start:?} has no majority at {now:?}"
                );
            }
        }
        panic!("{start:?} never rests: {now:?}");
    }

    /// As the engine does it.
    fn apply(now: &mut Members, change: Change) {
        let Change { promote, demote, remove } = change;
        let is_joint = promote.len() + demote.len() + remove.len() > 1;
        let before = now.voters.clone();
        now.voters.extend(&promote);
        for id in promote.iter().chain(&remove) {
            now.learners.remove(id);
        }
        for id in demote.iter().chain(&remove) {
            now.voters.remove(id);
        }
        if is_joint {
            now.outgoing = before;
        } else {
            now.learners.extend(&demote);
        }
    }
}
