//! Which learners have caught up: those to which the log is brought in rounds that have become short.
//!
//! A round brings a learner what the log holds when the round begins. A learner under load never holds all of it, since new
//! entries come meanwhile; but each round is shorter than the one before where the learner is fast enough. If a round takes no
//! longer than an election timeout, the learner may vote: what it lacks then keeps the cluster waiting for no longer than a
//! change of the leader does (Ongaro, "Consensus: Bridging Theory and Practice", 4.2.1).

use std::collections::{BTreeMap, BTreeSet};

/// The learners to which this node, as the leader, brings the log.
#[derive(Debug, Default)]
pub(super) struct Rounds(BTreeMap<u64, Round>);

/// The present round of a learner.
#[derive(Debug)]
struct Round {
    /// The last index of the log when the round began.
    target: u64,
    /// The tick at which it began.
    began: u64,
    /// The last round was short, and this one is not longer yet.
    is_short: bool,
}

impl Rounds {
    /// Looks at the learners that take entries, each with the last index that it holds. `last` is that of the log, `now` the
    /// present tick, and `limit` how many ticks a short round takes at most. A learner that takes none begins again later.
    pub(super) fn look(&mut self, learners: &BTreeMap<u64, u64>, last: u64, now: u64, limit: u64) {
        self.0.retain(|id, _| learners.contains_key(id));
        for (id, held) in learners {
            let begin = |is_short| Round { target: last, began: now, is_short };
            let round = self.0.entry(*id).or_insert_with(|| begin(false));
            let is_short = now - round.began <= limit;
            if *held >= round.target {
                *round = begin(is_short);
            } else {
                round.is_short &= is_short;
            }
        }
    }

    /// The learners that have caught up.
    pub(super) fn caught_up(&self) -> BTreeSet<u64> {
        self.0.iter().filter(|(_, round)| round.is_short).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 10;

    /// Whether learner 2 has caught up after a look.
    fn look(rounds: &mut Rounds, held: u64, last: u64, now: u64) -> bool {
        rounds.look(&[(2, held)].into(), last, now, LIMIT);
        rounds.caught_up().contains(&2)
    }

    #[test]
    fn who_holds_all_has_caught_up_at_once() {
        let mut rounds = Rounds::default();
        assert!(look(&mut rounds, 7, 7, 100));
        assert!(rounds.caught_up() == [2].into());
    }

    /// A log of a million entries, and a thousand more at each tick.
    #[test]
    fn under_load_a_learner_catches_up_by_rounds_and_never_holds_all() {
        let mut rounds = Rounds::default();
        let (mut held, mut last) = (0, 1_000_000);
        let mut caught_up_at = None;
        for now in 0..1_000 {
            if look(&mut rounds, held, last, now) && caught_up_at.is_none() {
                caught_up_at = Some(now);
            }
            assert!(held < last, "it never holds all");
            held = (held + 4_000).min(last - 1);
            last += 1_000;
        }
        // The first round takes 250 ticks, the next 63, 16 and 4.
        let at = caught_up_at.expect("it catches up");
        assert!((300..400).contains(&at), "{at}");
    }

    #[test]
    fn who_is_slower_than_the_load_does_not_catch_up() {
        let mut rounds = Rounds::default();
        let (mut held, mut last) = (0, 1_000_000);
        for now in 0..10_000 {
            assert!(!look(&mut rounds, held, last, now), "at {now}");
            held += 900;
            last += 1_000;
        }
    }

    #[test]
    fn who_falls_behind_again_has_not_caught_up_any_more() {
        let mut rounds = Rounds::default();
        assert!(look(&mut rounds, 7, 7, 0));
        assert!(look(&mut rounds, 7, 9, 1), "a new round, which takes no time yet");
        assert!(!look(&mut rounds, 7, 50_000, 2 + LIMIT));
        assert!(!look(&mut rounds, 50_000, 50_001, 20), "the round was long");
        assert!(look(&mut rounds, 50_001, 50_001, 21), "the next one was not");
        // It takes no entries for a moment.
        rounds.look(&BTreeMap::new(), 60_000, 22, LIMIT);
        assert_eq!(rounds.caught_up(), BTreeSet::new());
        assert!(!look(&mut rounds, 50_001, 60_000, 23));
    }
}
