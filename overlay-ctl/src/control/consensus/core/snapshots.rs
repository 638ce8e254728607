//! The snapshots that this leader sent to followers.

use super::Core;
use crate::control::consensus::StateMachine;
use raft::{SnapshotStatus, StateRole};
use std::collections::BTreeMap;

/// The snapshots that were sent, by follower.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Those that are under way: the index of each, and the tick at which it was sent.
    under_way: BTreeMap<u64, (u64, u64)>,
    /// Those that arrived.
    arrived: BTreeMap<u64, Arrived>,
}

/// A snapshot that arrived at a follower. Until its entries are acknowledged, the follower may have left it out, for lack
/// of room, or may have ended before it wrote it. It gets the next one after a pause, which doubles each time.
#[derive(Debug)]
struct Arrived {
    index: u64,
    /// Ticks until the next one.
    pause: u64,
    /// The tick at which the pause ends.
    until: u64,
}

impl<S: StateMachine> Core<S> {
    /// Reports whether a snapshot reached `to`. Until then the leader sends it nothing else.
    pub fn report_snapshot(&mut self, to: u64, delivered: bool) {
        let sent = self.snapshots.under_way.remove(&to);
        if let Some((index, _)) = sent
            && delivered
        {
            let first = self.config.max_election_ticks as u64;
            let pause = self.snapshots.arrived.get(&to).map_or(first, |last| 2 * last.pause);
            let pause = pause.min(self.config.room_ticks);
            let arrived = Arrived { index, pause, until: self.ticks + pause };
            self.snapshots.arrived.insert(to, arrived);
            self.withhold_snapshots();
        }
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to, status);
    }

    /// Notes that a snapshot leaves this node.
    pub(super) fn snapshot_leaves(&mut self, to: u64, index: u64) {
        self.snapshots.under_way.insert(to, (index, self.ticks));
    }

    /// Gives up the snapshots of which nobody reports that they arrived, and ends the pauses that are over.
    pub(super) fn look_after_snapshots(&mut self) {
        let lost = |sent: u64| self.ticks >= sent + self.config.snapshot_ticks;
        let under_way = self.snapshots.under_way.iter();
        let lost: Vec<u64> =
            under_way.filter(|(_, (_, sent))| lost(*sent)).map(|(to, _)| *to).collect();
        for to in lost {
            self.report_snapshot(to, false);
        }
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        let lags =
            |to: u64, index: u64| raft.prs().get(to).is_some_and(|peer| peer.matched < index);
        self.snapshots.arrived.retain(|to, arrived| leads && lags(*to, arrived.index));
        self.withhold_snapshots();
    }

    fn withhold_snapshots(&mut self) {
        let waits = self.snapshots.arrived.iter().filter(|(_, last)| self.ticks < last.until);
        let waits = waits.map(|(to, _)| *to).collect();
        self.node.mut_store().withhold_snapshots(waits);
    }
}
