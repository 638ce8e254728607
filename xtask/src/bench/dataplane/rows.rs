//! The rows of the benchmark, and the goals of the project for each.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{
    scene::{
        BESIDE, BRIDGE, HUNDRED, KERNEL, MILLION, OURS, Place, Topology, UNDERLAY, Underlay, Wire,
    },
    traffic::Traffic,
};

/// One comparison. Its order is that of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) traffic: Traffic,
    pub(super) wire: Wire,
}

/// A goal that a contestant must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    /// The contestant whose figure is judged.
    pub(super) judged: &'static str,
    /// The contestant that it is compared with.
    pub(super) base: &'static str,
    pub(super) bound: Bound,
}

/// A bound of the ratio of two figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const UNDERLAYS: [Underlay; 3] = [
    Underlay::USUAL,
    Underlay { topology: Topology::Wire, mtu: 9000 },
    Underlay { topology: Topology::Router, mtu: 1500 },
];

impl Place {
    /// The contestant whose figure is the 1 of every ratio.
    pub(super) fn base(self) -> &'static str {
        match self {
            Self::TwoHosts(_) => UNDERLAY,
            Self::OneHost => BRIDGE,
            Self::Crowd => HUNDRED,
        }
    }
}

impl Row {
    /// All rows.
    pub(super) fn all() -> Vec<Self> {
        let row = |place, traffic, wire| Self { place, traffic, wire };
        let mut rows = Vec::new();
        for underlay in UNDERLAYS {
            for wire in [Wire::Tso, Wire::Packets] {
                for streams in [1, 4] {
                    rows.push(row(Place::TwoHosts(underlay), Traffic::Tcp { streams }, wire));
                }
            }
        }
        let udp = |bytes| Traffic::Udp { bytes };
        let one_stream = Traffic::Tcp { streams: 1 };
        let small = [Traffic::Latency, Traffic::Connect, udp(64), udp(1400)];
        for underlay in UNDERLAYS.into_iter().filter(|underlay| underlay.mtu == 1500) {
            rows.extend(small.map(|traffic| row(Place::TwoHosts(underlay), traffic, Wire::Tso)));
        }
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
            Place::TwoHosts(Underlay { topology: Topology::Wire, .. }) => String::new(),
            Place::TwoHosts(_) => "across a router: ".to_owned(),
            Place::OneHost => "one host: ".to_owned(),
            Place::Crowd => "by endpoints in the maps: ".to_owned(),
        };
        title += &self.short_title();
        if let (Place::TwoHosts(Underlay { mtu, .. }), Traffic::Tcp { .. }) =
            (self.place, self.traffic)
        {
            title += &format!(", MTU {mtu}");
        }
        format!("{title} ({})", self.traffic.unit())
    }

    /// The title without the place.
    pub(super) fn short_title(self) -> String {
        let mut title = self.traffic.to_string();
        if let (Place::TwoHosts(_), Traffic::Tcp { .. }) = (self.place, self.traffic) {
            title += match self.wire {
                Wire::Tso => ", TSO",
                Wire::Packets => ", real packets",
            };
        }
        title
    }

    /// The goals of this row, with the options that a node has by default.
    pub(super) fn goals(self) -> Vec<Goal> {
        let goal = |judged, bound, base| Goal { judged, base, bound };
        let at_least = |bound, base| goal(OURS, Bound::AtLeast(bound), base);
        let at_most = |bound, base| goal(OURS, Bound::AtMost(bound), base);
        match (self.place, self.traffic) {
            (Place::TwoHosts(underlay), traffic) => {
                let mut goals = self.goals_of_two_hosts(underlay.topology);
                // What a node costs the traffic of its own host.
                let bound = match traffic {
                    Traffic::Latency => Bound::AtMost(1.03),
                    _ => Bound::AtLeast(0.97),
                };
                goals.push(goal(BESIDE, bound, UNDERLAY));
                goals
            }
            (Place::OneHost, Traffic::Latency) => vec![at_most(1.0, BRIDGE)],
            (Place::OneHost, _) => vec![at_least(1.3, BRIDGE)],
            (Place::Crowd, _) => vec![goal(MILLION, Bound::AtLeast(0.97), HUNDRED)],
        }
    }

    /// The goals of the traffic between two endpoints on two hosts. Beside the underlay itself they are those of one
    /// wire: a bridge cuts the super-packets of every tunnel, but not those of the hosts.
    fn goals_of_two_hosts(self, topology: Topology) -> Vec<Goal> {
        let at_least = |bound, base| Goal { judged: OURS, base, bound: Bound::AtLeast(bound) };
        let at_most = |bound, base| Goal { judged: OURS, base, bound: Bound::AtMost(bound) };
        let (beside_kernel, beside_underlay) = match (self.traffic, self.wire) {
            (Traffic::Tcp { .. }, Wire::Tso) => {
                (at_least(1.15, KERNEL), Some(at_least(0.95, UNDERLAY)))
            }
            (Traffic::Tcp { .. }, Wire::Packets) => {
                (at_least(1.1, KERNEL), Some(at_least(0.85, UNDERLAY)))
            }
            (Traffic::Udp { bytes: 64 }, _) => {
                (at_least(1.4, KERNEL), Some(at_least(0.8, UNDERLAY)))
            }
            (Traffic::Latency, _) => (at_most(1.0, KERNEL), Some(at_most(1.1, UNDERLAY))),
            (Traffic::Connect | Traffic::Udp { .. }, _) => (at_least(1.0, KERNEL), None),
        };
        let beside_underlay = beside_underlay.filter(|_| topology == Topology::Wire);
        beside_underlay.into_iter().chain([beside_kernel]).collect()
    }
}

impl fmt::Display for Row {
    /// Writes the row's name on the command line and in files: `tcp-1-tso-1500`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::TwoHosts(Underlay { topology: Topology::Wire, .. }) => {}
            Place::TwoHosts(_) => f.write_str("router-")?,
            Place::OneHost => f.write_str("host-")?,
            Place::Crowd => f.write_str("crowd-")?,
        }
        f.write_str(&self.traffic.name())?;
        if let (Place::TwoHosts(Underlay { mtu, .. }), Traffic::Tcp { .. }) =
            (self.place, self.traffic)
        {
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
        assert_eq!(chosen("tcp-1-tso-1500").len(), 2);
        assert_eq!(chosen("router-tcp-1-tso-1500").len(), 1);
        assert_eq!(chosen("9000").len(), 4);
        assert!(chosen("nothing").is_empty());
        assert_eq!(Row::matching(&[]), all);
    }

    #[test]
    fn no_row_is_without_a_goal_and_none_may_fall_below_the_kernel() {
        for row in Row::all() {
            let goals = row.goals();
            assert!(!goals.is_empty(), "{row}");
            let two_hosts = matches!(row.place, Place::TwoHosts(_));
            assert_eq!(two_hosts, goals.iter().any(|goal| goal.base == KERNEL), "{row}");
            assert_eq!(two_hosts, goals.iter().any(|goal| goal.judged == BESIDE), "{row}");
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
