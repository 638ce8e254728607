//! When the leader last saw each node that has a seat follow the log, and which nodes it gave up.

use super::Condition;
use crate::model::NodeId;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Least time that an agent has to take its seat and the log: it hears of the seat within half a minute, and one that can't
/// take it tries again every half a minute.
const TAKE: Duration = Duration::from_secs(120);
/// The same where voters are not replaced by themselves.
const TAKE_BY_DEFAULT: Duration = Duration::from_secs(600);

/// For how long a node with a seat may not follow the log before another gets its place.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct Patience {
    /// One that votes; `None` = it may for ever, since it may be needed for a quorum when it is back.
    pub(in crate::control) voter: Option<Duration>,
    /// One that does not: another in its place costs nothing.
    pub(in crate::control) learner: Duration,
}

impl Patience {
    /// Of a cluster in which a voter is replaced after that time; `None` = it never is.
    pub(super) fn new(replace_after: Option<Duration>) -> Self {
        let learner = replace_after.map_or(TAKE_BY_DEFAULT, |after| after.max(TAKE));
        Self { voter: replace_after, learner }
    }

    pub(super) fn of(self, votes: bool) -> Option<Duration> {
        if votes { self.voter } else { Some(self.learner) }
    }
}

/// How far the leader knows a node to have the log.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::control) struct Progress {
    /// It was heard lately as a member, and not only as a node: an agent that can't take its seat is up all the same.
    pub(super) is_heard: bool,
    /// The last index that it has.
    pub(super) matched: u64,
    /// It has all that is committed.
    pub(super) has_all: bool,
}

/// What the leader saw of the nodes that have a seat. Those that it never saw follow count from when it began to lead, or from
/// when they got their seat.
#[derive(Debug, Default)]
pub(in crate::control) struct Followed {
    /// The term that this node leads.
    led: Option<u64>,
    last: BTreeMap<NodeId, Last>,
    /// When nodes were given up. It outlives a change of the leader, and may name nodes that were removed since.
    given_up: BTreeMap<NodeId, Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    /// It did when it was looked at last.
    follows: bool,
    followed: Instant,
    matched: u64,
}

impl Followed {
    /// Notes how far the nodes with a seat have the log, in the term that this node leads. A node follows if it is heard, and
    /// has all of the log or more of it than before.
    pub(super) fn look(&mut self, term: u64, seats: &BTreeMap<NodeId, Progress>, now: Instant) {
        if self.led.replace(term) != Some(term) {
            self.last.clear();
        }
        self.last.retain(|node, _| seats.contains_key(node));
        for (node, Progress { is_heard, matched, has_all }) in seats {
            let last = self.last.entry(*node).or_insert(Last {
                follows: false,
                followed: now,
                matched: *matched,
            });
            last.follows = *is_heard && (*has_all || *matched > last.matched);
            if last.follows {
                last.followed = now;
            }
            last.matched = *matched;
        }
    }

    /// This node does not lead any more.
    pub(in crate::control) fn end(&mut self) {
        self.led = None;
        self.last.clear();
    }

    pub(super) fn condition(
        &self,
        node: NodeId,
        now: Instant,
        patience: Option<Duration>,
    ) -> Condition {
        let last = self.last.get(&node);
        if last.is_some_and(|last| last.follows) {
            return Condition::Follows;
        }
        let since = last.map_or(Duration::ZERO, |last| now.duration_since(last.followed));
        match patience {
            None => Condition::Away,
            Some(patience) if since >= patience => Condition::Gone,
            Some(_) => Condition::Late,
        }
    }

    /// Notes that these nodes are given up now, if they were not before.
    pub(super) fn give_up(&mut self, nodes: impl Iterator<Item = NodeId>, now: Instant) {
        for node in nodes {
            let last = self.last.get(&node).map_or(now, |last| last.followed);
            let at = self.given_up.entry(node).or_insert(now);
            // Given up in an earlier seat.
            if *at < last {
                *at = now;
            }
        }
    }

    /// When the node was given up; `None` = it never was.
    pub(super) fn given_up(&self, node: NodeId) -> Option<Instant> {
        self.given_up.get(&node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(600));
    const NOT_HEARD: Progress = Progress { is_heard: false, matched: 0, has_all: false };

    fn look(followed: &mut Followed, term: u64, progress: Progress) -> Condition {
        let now = Instant::now();
        followed.look(term, &[(2, progress)].into(), now);
        followed.condition(2, now, PATIENCE)
    }

    async fn seconds(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_when_the_leader_began_to_lead() {
        let mut followed = Followed::default();
        let at_first = look(&mut followed, 5, NOT_HEARD);
        assert_eq!(at_first, Condition::Late, "it had no time to be heard");
        seconds(599).await;
        assert_eq!(look(&mut followed, 5, NOT_HEARD), Condition::Late);
        seconds(1).await;
        assert_eq!(look(&mut followed, 5, NOT_HEARD), Condition::Gone);
        let for_ever = followed.condition(2, Instant::now(), None);
        assert_eq!(for_ever, Condition::Away, "without a limit");
        let back = Progress { is_heard: true, matched: 9, has_all: true };
        assert_eq!(look(&mut followed, 5, back), Condition::Follows);
        seconds(600).await;
        assert_eq!(look(&mut followed, 6, NOT_HEARD), Condition::Late, "a later term");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_heard_and_takes_nothing_of_the_log_does_not_follow() {
        let mut followed = Followed::default();
        let stands_still = Progress { is_heard: true, matched: 7, has_all: false };
        let more = |matched| Progress { matched, ..stands_still };
        look(&mut followed, 5, stands_still);
        seconds(300).await;
        assert_eq!(look(&mut followed, 5, stands_still), Condition::Late);
        assert_eq!(look(&mut followed, 5, more(8)), Condition::Follows, "it is behind, and comes");
        seconds(600).await;
        assert_eq!(look(&mut followed, 5, more(8)), Condition::Gone);
        // Nothing is written.
        let has_all = Progress { has_all: true, ..more(8) };
        assert_eq!(look(&mut followed, 5, has_all), Condition::Follows);
        seconds(600).await;
        let gone_quiet = Progress { is_heard: false, ..has_all };
        assert_eq!(look(&mut followed, 5, gone_quiet), Condition::Gone, "it had all when it went");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_given_up_first_is_asked_again_first() {
        let mut followed = Followed::default();
        let at = |followed: &Followed, node| followed.given_up(node);
        look(&mut followed, 5, NOT_HEARD);
        let first = Instant::now();
        followed.give_up([2].into_iter(), first);
        seconds(1).await;
        followed.give_up([2, 3].into_iter(), Instant::now());
        assert_eq!((at(&followed, 2), at(&followed, 4)), (Some(first), None));
        assert!(at(&followed, 2) < at(&followed, 3));
        // It has another seat, and does not take that one either.
        followed.look(5, &BTreeMap::new(), Instant::now());
        seconds(600).await;
        look(&mut followed, 5, NOT_HEARD);
        followed.give_up([2].into_iter(), Instant::now());
        assert!(at(&followed, 2) > at(&followed, 3));
        followed.end();
        assert!(at(&followed, 2).is_some(), "for as long as this node runs");
    }

    #[test]
    fn an_agent_has_time_to_take_its_seat_however_soon_a_voter_is_replaced() {
        let patience = Patience::new(Some(Duration::from_secs(3)));
        assert_eq!(patience.of(true), Some(Duration::from_secs(3)));
        assert_eq!(patience.of(false), Some(TAKE));
        let by_default = Patience::new(Some(TAKE_BY_DEFAULT));
        assert_eq!(
            (by_default.of(true), by_default.of(false)),
            (Some(TAKE_BY_DEFAULT), Some(TAKE_BY_DEFAULT))
        );
        let never = Patience::new(None);
        assert_eq!((never.of(true), never.of(false)), (None, Some(TAKE_BY_DEFAULT)));
    }
}
