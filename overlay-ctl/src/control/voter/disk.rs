//! A voter's duty towards its disk: it says that the disk is slow, and a leader lets a voter with a faster one lead.
//!
//! Each write of the cluster waits for the leader's disk, and then for the fastest disks of a majority. So a slow disk costs
//! most on the leader, and nothing on one of two followers.

use crate::{
    control::{
        consensus::{Consensus, DiskTimes, PeerStatus, Role, Status},
        state::State,
        voter::{Machine, StatusTable, VoterParts},
    },
    model::RaftId,
    proto::internal::NodeStatus,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A disk whose writes take longer than this is slow: heartbeats wait for them, too.
const SLOW: Duration = Duration::from_millis(250);
/// A disk is judged by no fewer writes. One that took long says nothing of the next one.
const WRITES: u64 = 5;
/// Another disk is worth a change of leader if it is so many times as fast.
const TIMES_FASTER: u32 = 3;
/// Shortest time between two hand-overs, and between two lines that say the same.
const PAUSE: Duration = Duration::from_secs(60);
/// A voter has caught up if it lacks at most so many of the committed entries.
const BEHIND: u64 = 16;
/// How often the disk is looked at.
const PERIOD: Duration = Duration::from_millis(250);

/// Another voter, as the leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    /// Which.
    pub(crate) member: RaftId,
    /// How long its disk takes.
    pub(crate) disk: DiskTimes,
}

/// What is to be done about the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Rest,
    /// It is to be said that the disk is slow.
    SaySlow,
    /// It is to be said that the disk is slow, and the voter is to be asked to lead.
    HandOver(Other),
    /// It is to be said that the disk is fast again.
    SayFast,
}

/// What is remembered of a node's own disk.
#[derive(Debug, Default)]
pub(crate) struct DiskWatch {
    /// The number of writes before the one since which the disk is slow.
    slow_after: Option<u64>,
    /// When it was last said that the disk is slow, and the number of writes then.
    said: Option<(Duration, u64)>,
    /// When another voter was last asked to lead.
    handed_over: Option<Duration>,
}

impl DiskWatch {
    /// Says what is to be done at `now`, which counts from any moment. `others` are the voters that could lead in place of
    /// this node: none if it does not lead.
    pub(crate) fn look(&mut self, now: Duration, own: DiskTimes, others: &[Other]) -> Step {
        if own.average <= SLOW {
            self.slow_after = None;
            return if self.said.take().is_some() { Step::SayFast } else { Step::Rest };
        }
        let before = *self.slow_after.get_or_insert(own.writes.saturating_sub(1));
        if own.writes < before + WRITES {
            return Step::Rest;
        }
        let is_over = |at: Duration| now.saturating_sub(at) >= PAUSE;
        let next = faster(own, others).filter(|_| self.handed_over.is_none_or(is_over));
        // A disk that nobody writes to is as slow as it was, and no news.
        let is_news = self.said.is_none_or(|(at, writes)| is_over(at) && own.writes > writes);
        if next.is_some() || is_news {
            self.said = Some((now, own.writes));
        }
        match next {
            Some(next) => {
                self.handed_over = Some(now);
                Step::HandOver(next)
            }
            None if is_news => Step::SaySlow,
            None => Step::Rest,
        }
    }
}

/// The voter with the fastest disk, if that is much faster than this node's.
fn faster(own: DiskTimes, others: &[Other]) -> Option<Other> {
    let is_faster = |other: &&Other| {
        other.disk.writes >= WRITES && other.disk.average * TIMES_FASTER < own.average
    };
    others.iter().filter(is_faster).min_by_key(|other| (other.disk.average, other.member)).copied()
}

/// The voters that could lead in place of the leader with this status, since they have caught up and were heard lately.
/// `disk` answers what a voter reported of its disk.
pub(crate) fn successors(
    status: &Status,
    disk: impl Fn(RaftId) -> Option<DiskTimes>,
) -> Vec<Other> {
    if status.role != Role::Leader {
        return Vec::new();
    }
    let can_lead = |peer: &&PeerStatus| {
        let is_voter = status.voters.contains(&peer.id);
        is_voter && peer.recent_active && peer.matched + BEHIND >= status.commit
    };
    let able = status.peers.iter().filter(can_lead);
    let other = |member: RaftId| Some(Other { member, disk: disk(member)? });
    able.filter_map(|peer| RaftId::new(peer.id).and_then(other)).collect()
}

/// Looks after the disk of this voter until consensus stops.
pub async fn watch_the_disk(voter: VoterParts) {
    let VoterParts { consensus, state, table, .. } = voter;
    let began = Instant::now();
    let mut watch = DiskWatch::default();
    let mut status = consensus.status();
    while status.has_changed().is_ok() {
        let now = status.borrow_and_update().clone();
        let step = watch.look(began.elapsed(), now.disk, &of(&now, &state.copy(), &table));
        let write_ms = millis(now.disk);
        match step {
            Step::Rest => {}
            Step::SayFast => tracing::info!(write_ms, "the disk of the state folder is fast again"),
            Step::SaySlow if now.role == Role::Leader => tracing::warn!(
                write_ms,
                "the disk of the state folder is slow, and each write of the cluster waits for it: this node leads, and no voter that could lead has a much faster disk; see what else uses the disk"
            ),
            Step::SaySlow => tracing::warn!(
                write_ms,
                "the disk of the state folder is slow: the cluster waits for it if another voter is gone; see what else uses the disk"
            ),
            Step::HandOver(Other { member, disk }) => {
                let name = |state: &State| state.node_of(member).map(|row| row.name.to_string());
                let to = state.read(name).unwrap_or_else(|| member.to_string());
                tracing::warn!(
                    write_ms, %to, its_write_ms = millis(disk),
                    "the disk of the state folder is slow, and each write of the cluster waits for it: a voter with a faster disk is asked to lead; see what else uses the disk"
                );
                ask(&consensus, member).await;
            }
        }
        sleep(PERIOD).await;
    }
}

fn of(status: &Status, state: &State, table: &StatusTable) -> Vec<Other> {
    successors(status, |member| table.disk(state.node_of(member)?.id))
}

async fn ask(consensus: &Consensus<Machine>, member: RaftId) {
    if let Err(error) = consensus.hand_over(member.get()).await {
        // Another leader was elected, or is asked already.
        tracing::info!(%member, %error, "the voter is not asked to lead");
    }
}

fn millis(disk: DiskTimes) -> u64 {
    u64::try_from(disk.average.as_millis()).unwrap_or(u64::MAX)
}

/// A status, of a voter whose disk takes so long to write to the log.
#[must_use]
pub fn with_disk(status: NodeStatus, disk: DiskTimes) -> NodeStatus {
    let DiskTimes { writes, average } = disk;
    let disk_write_us = u64::try_from(average.as_micros()).unwrap_or(u64::MAX);
    NodeStatus { disk_writes: writes, disk_write_us, ..status }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(writes: u64, ms: u64) -> DiskTimes {
        DiskTimes { writes, average: Duration::from_millis(ms) }
    }

    fn other(member: u64, writes: u64, ms: u64) -> Other {
        Other { member: RaftId::new(member).unwrap(), disk: disk(writes, ms) }
    }

    #[test]
    fn a_leader_hands_over_to_the_fastest_disk_if_that_is_much_faster() {
        let fast = other(2, 9, 5);
        for (own, others, expected) in [
            (disk(9, 900), vec![fast], Step::HandOver(fast)),
            (disk(9, 900), vec![other(3, 9, 20), fast, other(4, 9, 6)], Step::HandOver(fast)),
            // Not slow.
            (disk(9, 250), vec![fast], Step::Rest),
            // All are slow.
            (disk(9, 300), vec![other(2, 9, 290), other(3, 9, 310)], Step::SaySlow),
            (disk(9, 300), vec![other(2, 9, 100)], Step::SaySlow),
            (disk(9, 301), vec![other(2, 9, 100)], Step::HandOver(other(2, 9, 100))),
            // What the other one says is not founded.
            (disk(9, 900), vec![other(2, 4, 5)], Step::SaySlow),
            // It does not lead.
            (disk(9, 900), vec![], Step::SaySlow),
        ] {
            let mut watch = DiskWatch::default();
            watch.look(Duration::ZERO, DiskTimes { writes: own.writes - 4, ..own }, &others);
            let step = watch.look(PERIOD, own, &others);
            assert_eq!(step, expected, "{own:?} {others:?}");
        }
    }

    /// What is done at each of these seconds, if the disk has this average after so many writes.
    fn steps(seen: &[(u64, DiskTimes)], others: &[Other]) -> Vec<Step> {
        let mut watch = DiskWatch::default();
        let look =
            |(secs, own): &(u64, DiskTimes)| watch.look(Duration::from_secs(*secs), *own, others);
        seen.iter().map(look).collect()
    }

    #[test]
    fn a_disk_is_slow_after_five_slow_writes() {
        let seen = [(1, disk(20, 8)), (2, disk(21, 400)), (3, disk(24, 900)), (4, disk(25, 900))];
        assert_eq!(steps(&seen, &[]), [Step::Rest, Step::Rest, Step::Rest, Step::SaySlow]);
        // One write that took long.
        let seen = [(1, disk(20, 8)), (2, disk(21, 400)), (3, disk(25, 130)), (4, disk(26, 400))];
        assert_eq!(steps(&seen, &[]), [Step::Rest; 4]);
    }

    #[test]
    fn it_is_said_once_a_minute_while_the_disk_is_written_to() {
        use Step::{Rest, SayFast, SaySlow};
        let slow = |secs, writes| (secs, disk(writes, 900));
        let seen = [
            slow(0, 1),
            slow(10, 5),
            slow(69, 50),
            slow(70, 51),
            // Nobody writes.
            slow(200, 51),
            slow(201, 52),
            (202, disk(60, 9)),
            (203, disk(61, 9)),
        ];
        let said = [Rest, SaySlow, Rest, SaySlow, Rest, SaySlow, SayFast, Rest];
        assert_eq!(steps(&seen, &[]), said);
    }

    #[test]
    fn a_leader_hands_over_once_a_minute() {
        let fast = other(2, 9, 5);
        let slow = |secs, writes| (secs, disk(writes, 900));
        // The first attempt came to nothing: it leads still.
        let seen = [slow(0, 1), slow(10, 5), slow(20, 20), slow(69, 50), slow(70, 51)];
        let over = Step::HandOver(fast);
        assert_eq!(steps(&seen, &[fast]), [Step::Rest, over, Step::Rest, Step::Rest, over]);
    }

    #[test]
    fn who_could_lead_is_a_voter_that_was_heard_and_has_caught_up() {
        let peer = |id, matched, recent_active| PeerStatus { id, matched, recent_active };
        let leader = Status {
            id: 1,
            role: Role::Leader,
            commit: 100,
            voters: vec![1, 2, 3, 4, 5],
            peers: vec![
                peer(2, 84, true),
                peer(3, 83, true),
                peer(4, 100, false),
                // It has reported nothing.
                peer(5, 100, true),
                // A learner.
                peer(6, 100, true),
            ],
            ..Status::default()
        };
        let known = |member: RaftId| (member.get() != 5).then(|| disk(9, member.get()));
        assert_eq!(successors(&leader, known), [other(2, 9, 2)]);
        let follower = Status { role: Role::Follower, ..leader };
        assert_eq!(successors(&follower, known), []);
    }
}
