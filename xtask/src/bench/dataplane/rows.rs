//! The rows of the benchmark, and the goals of the project for each.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{
    scene::{BRIDGE, HUNDRED, KERNEL, MILLION, OURS, Place, UNDERLAY, Wire},
    traffic::Traffic,
};

/// One comparison. Its order is that of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) traffic: Traffic,
    pub(super) wire: Wire,
}

/// A goal that the judged contestant must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    /// The contestant that the judged one is compared with.
    pub(super) base: &'static str,
    pub(super) bound: Bound,
}

/// A bound of the ratio of two figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const MTUS: [u32; 2] = [1500, 9000];

impl Place {
    /// The contestant whose figure is the 1 of every ratio.
    pub(super) fn base(self) -> &'static str {
        match self {
            Self::TwoHosts { .. } => UNDERLAY,
            Self::OneHost => BRIDGE,
            Self::Crowd => HUNDRED,
        }
    }

    /// The contestant whose figures are compared with the goals.
    pub(super) fn judged(self) -> &'static str {
        match self {
            Self::TwoHosts { .. } | Self::OneHost => OURS,
            Self::Crowd => MILLION,
        }
    }
}

impl Row {
    /// All rows.
    pub(super) fn all() -> Vec<Self> {
        let row = |place, traffic, wire| Self { place, traffic, wire };
        let mut rows = Vec::new();
        for mtu in MTUS {
            for wire in [Wire::Tso, Wire::Packets] {
                for streams in [1, 4] {
                    rows.push(row(Place::TwoHosts { mtu }, Traffic::Tcp { streams }, wire));
                }
            }
        }
        let udp = |bytes| Traffic::Udp { bytes };
        let one_stream = Traffic::Tcp { streams: 1 };
        let small = [Traffic::Latency, Traffic::Connect, udp(64), udp(1400)];
        rows.extend(small.map(|traffic| row(Place::TwoHosts { mtu: 1500 }, traffic, Wire::Tso)));
        let beside = [one_stream, Traffic::Latency, udp(64)];
        rows.extend(beside.map(|traffic| row(Place::OneHost, traffic, Wire::Tso)));
        let crowd = [one_stream, udp(64)];
        rows.extend(crowd.map(|traffic| row(Place::Crowd, traffic, Wire::Packets)));
        rows.sort();
        rows
    }

    /// The rows whose name contains one of these words; all rows if there are no words.
    pub(super) fn matching(words: &[String]) -> Vec<Self> {
        let wanted = |row: &Self| {
            let name = row.to_string();
            words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
        };
        Self::all().into_iter().filter(wanted).collect()
    }

    /// The title for people: the traffic, the place, and the unit.
    pub(super) fn title(self) -> String {
        let mut title = match self.place {
            Place::TwoHosts { .. } => String::new(),
            Place::OneHost => "one host: ".to_owned(),
            Place::Crowd => "by endpoints in the maps: ".to_owned(),
        };
        title += &self.short_title();
        if let (Place::TwoHosts { mtu }, Traffic::Tcp { .. }) = (self.place, self.traffic) {
            title += &format!(", MTU {mtu}");
        }
        format!("{title} ({})", self.traffic.unit())
    }

    /// The title without the place.
    pub(super) fn short_title(self) -> String {
        let mut title = self.traffic.to_string();
        if let (Place::TwoHosts { .. }, Traffic::Tcp { .. }) = (self.place, self.traffic) {
            title += match self.wire {
                Wire::Tso => ", TSO",
                Wire::Packets => ", real packets",
            };
        }
        title
    }

    /// The goals of this row, from the issue of the fast data path.
    pub(super) fn goals(self) -> Vec<Goal> {
        let at_least = |bound, base| Goal { base, bound: Bound::AtLeast(bound) };
        let at_most = |bound, base| Goal { base, bound: Bound::AtMost(bound) };
        match (self.place, self.traffic, self.wire) {
            (Place::TwoHosts { .. }, Traffic::Tcp { .. }, Wire::Tso) => {
                vec![at_least(0.95, UNDERLAY), at_least(1.25, KERNEL)]
            }
            (Place::TwoHosts { .. }, Traffic::Tcp { .. }, Wire::Packets) => {
                vec![at_least(0.85, UNDERLAY), at_least(1.2, KERNEL)]
            }
            (Place::TwoHosts { .. }, Traffic::Udp { bytes: 64 }, _) => {
                vec![at_least(0.8, UNDERLAY), at_least(1.8, KERNEL)]
            }
            (Place::TwoHosts { .. }, Traffic::Latency, _) => {
                vec![at_most(1.1, UNDERLAY), at_most(1.0, KERNEL)]
            }
            (Place::TwoHosts { .. }, Traffic::Connect | Traffic::Udp { .. }, _) => {
                vec![at_least(1.0, KERNEL)]
            }
            (Place::OneHost, Traffic::Latency, _) => vec![at_most(1.0, BRIDGE)],
            (Place::OneHost, _, _) => vec![at_least(1.3, BRIDGE)],
            (Place::Crowd, _, _) => vec![at_least(0.97, HUNDRED)],
        }
    }
}

impl fmt::Display for Row {
    /// Writes the row's name on the command line and in files: `tcp-1-tso-1500`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::TwoHosts { .. } => {}
            Place::OneHost => f.write_str("host-")?,
            Place::Crowd => f.write_str("crowd-")?,
        }
        f.write_str(&self.traffic.name())?;
        if let (Place::TwoHosts { mtu }, Traffic::Tcp { .. }) = (self.place, self.traffic) {
            let wire = match self.wire {
                Wire::Tso => "tso",
                Wire::Packets => "packets",
            };
            write!(f, "-{wire}-{mtu}")?;
        }
        Ok(())
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Bound {
    pub(super) fn is_reached_by(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "at least {bound:.2}"),
            Self::AtMost(bound) => write!(f, "at most {bound:.2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_one_a_row_and_chosen_by_a_part() {
        let all = Row::all();
        let names: BTreeSet<String> = all.iter().map(Row::to_string).collect();
        assert_eq!(names.len(), all.len());
        let chosen = |word: &str| Row::matching(&[word.to_owned()]);
        assert_eq!(chosen("tcp-1-tso-1500").len(), 1);
        assert_eq!(chosen("9000").len(), 4);
        assert!(chosen("nothing").is_empty());
        assert_eq!(Row::matching(&[]), all);
    }

    #[test]
    fn no_row_is_without_a_goal_and_none_may_fall_below_the_kernel() {
        for row in Row::all() {
            let goals = row.goals();
            assert!(!goals.is_empty(), "{row}");
            let two_hosts = matches!(row.place, Place::TwoHosts { .. });
            assert_eq!(two_hosts, goals.iter().any(|goal| goal.base == KERNEL), "{row}");
        }
    }

    #[test]
    fn a_bound_holds_on_its_own_side() {
        assert!(
            Bound::AtLeast(0.95).is_reached_by(0.95) && !Bound::AtLeast(0.95).is_reached_by(0.9)
        );
        assert!(Bound::AtMost(1.1).is_reached_by(1.0) && !Bound::AtMost(1.1).is_reached_by(1.2));
        assert!(!Bound::AtLeast(1.0).is_reached_by(f64::NAN));
    }
}
