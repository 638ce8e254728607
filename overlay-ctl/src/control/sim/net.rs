//! The network between the hosts: it loses, doubles, delays and reorders messages, and can be cut in any shape.

use crate::{proto::internal::NodeStatus, seeded::Rng};
use std::collections::{BTreeMap, BTreeSet};

/// A message under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Packet {
    /// The hosts. The receiver's is that of the Raft id when it was sent.
    pub(super) from: u64,
    pub(super) to: u64,
    /// The receiver's Raft id.
    pub(super) life: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) is_snapshot: bool,
    /// A copy: its sender hears nothing of it.
    pub(super) is_double: bool,
    /// Statuses of nodes, which a voter passes on to the leader; otherwise it is a message of consensus.
    pub(super) reports: Vec<NodeStatus>,
}

/// What became of a message that was handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) is_lost: bool,
    pub(super) is_doubled: bool,
    pub(super) is_late: bool,
}

#[derive(Debug, Default)]
pub(super) struct Net {
    /// Of a hundred messages, so many are lost, come twice, or come late.
    pub(super) loss: u64,
    pub(super) doubles: u64,
    pub(super) late: u64,
    /// Every message takes up to so many steps more than another.
    pub(super) jitter: u64,
    /// From whom to whom nothing comes through.
    cut: BTreeSet<(u64, u64)>,
    /// When a way from or to a host was cut last; those that are, are now.
    cut_last: BTreeMap<u64, u64>,
    /// The present step.
    now: u64,
    /// How many steps more a message is under way, from whom to whom.
    delay: BTreeMap<(u64, u64), u64>,
    /// By when they arrive, and in which order they were sent.
    under_way: BTreeMap<(u64, u64), Packet>,
    sent: u64,
    /// The last number that arrived, by direction.
    arrived: BTreeMap<(u64, u64), u64>,
}

impl Net {
    /// Takes a message at `now`.
    pub(super) fn send(&mut self, packet: Packet, now: u64, rng: &mut Rng) -> Fate {
        let way = (packet.from, packet.to);
        let mut fate = Fate::default();
        if self.cut.contains(&way) || rng.percent(self.loss) {
            fate.is_lost = true;
            return fate;
        }
        let times = if rng.percent(self.doubles) { 2 } else { 1 };
        fate.is_doubled = times == 2;
        for time in 0..times {
            let mut due = now + 1 + rng.below(self.jitter + 1);
            due += self.delay.get(&way).copied().unwrap_or_default();
            if rng.percent(self.late) {
                fate.is_late = true;
                due += 10 + rng.below(300);
            }
            self.sent += 1;
            let packet = Packet { is_double: time > 0, ..packet.clone() };
            self.under_way.insert((due, self.sent), packet);
        }
        fate
    }

    /// A message that is due, and whether one that was sent later came before it.
    pub(super) fn arrive(&mut self, now: u64) -> Option<(Packet, bool)> {
        self.now = now;
        let (&(due, number), _) = self.under_way.first_key_value()?;
        if due > now {
            return None;
        }
        let packet = self.under_way.remove(&(due, number))?;
        let last = self.arrived.entry((packet.from, packet.to)).or_default();
        let is_overtaken = number < *last;
        *last = number.max(*last);
        Some((packet, is_overtaken))
    }

    /// Whether a message that arrives now would be lost all the same: the way was cut while it was under way.
    pub(super) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    /// When a way from or to the host was cut last; 0 = never.
    pub(super) fn cut_last(&self, host: u64) -> u64 {
        match self.cut.iter().any(|(from, to)| [*from, *to].contains(&host)) {
            true => self.now,
            false => self.cut_last.get(&host).copied().unwrap_or(0),
        }
    }

    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    pub(super) fn set_delay(&mut self, from: u64, to: u64, steps: u64) {
        self.delay.insert((from, to), steps);
    }

    pub(super) fn is_partitioned(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Every way is open again; what is lost and late by chance stays so.
    pub(super) fn mend(&mut self) {
        for host in self.cut.iter().flat_map(|(from, to)| [*from, *to]) {
            self.cut_last.insert(host, self.now);
        }
        self.cut.clear();
        self.delay.clear();
    }

    /// Nothing is lost or late any more.
    pub(super) fn heal(&mut self) {
        self.mend();
        (self.loss, self.doubles, self.late) = (0, 0, 0);
    }
}
