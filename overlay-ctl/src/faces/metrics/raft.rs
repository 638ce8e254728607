//! What one scrape reads of a voter's consensus: where its log is, how long its disk takes, and what waits.

use crate::{
    control::consensus::{Status, Writes},
    faces::ServedNode,
    model::Revision,
};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::{fmt, time::Duration};

/// The readings of a voter. An agent has none.
#[derive(Debug)]
pub(super) struct RaftReadings {
    status: Status,
    writes: Writes,
    waiting: u64,
    refused: u64,
    snapshot_age: Option<Duration>,
    watchers: usize,
    agreed: Revision,
    differences: u64,
}

impl RaftReadings {
    pub(super) fn take(node: &ServedNode) -> Option<Self> {
        let voter = node.controller.voter()?;
        let measures = voter.consensus.measures();
        let status = voter.consensus.status().borrow().clone();
        Some(Self {
            status,
            writes: measures.writes(),
            waiting: measures.waiting(),
            refused: measures.refused(),
            snapshot_age: measures.snapshot_age(),
            watchers: voter.table.watchers().count(),
            agreed: voter.state.hashes().agreed(),
            differences: voter.state.hashes().findings(),
        })
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Self { status, writes, waiting, refused, snapshot_age, watchers, agreed, differences } =
            self;
        for (name, help, value) in [
            (
                "overlay_raft_has_leader",
                "1 on a voter that knows who leads",
                u64::from(status.leader.is_some()),
            ),
            ("overlay_raft_term", "Term of the voter", status.term),
            ("overlay_raft_commit_revision", "Last revision known to be committed", status.commit),
            ("overlay_raft_applied_revision", "Last revision that was applied", status.applied),
            (
                "overlay_raft_snapshot_revision",
                "Revision of the stored snapshot; 0 = there is none",
                status.snapshot,
            ),
            ("overlay_raft_waiting", "Requests and messages that wait for the voter", *waiting),
            ("overlay_watchers", "Agents that watch this voter", *watchers as u64),
            (
                "overlay_state_agreed_revision",
                "Last revision at which this leader found that a majority of the voters has the same state; 0 = it has compared none",
                *agreed,
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)?;
        }
        if let Some(age) = snapshot_age {
            let help = "Seconds since a snapshot was stored, if that was since the node started";
            let name = "overlay_raft_snapshot_age_seconds";
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(age.as_secs_f64()).encode(gauge)?;
        }
        let help = "Requests and messages that the voter refused because too many waited";
        let name = "overlay_raft_refused";
        let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(*refused).encode(counter)?;
        let help = "How often this leader found that a voter has another state than others";
        let name = "overlay_state_differences";
        let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(*differences).encode(counter)?;
        lag(status, encoder)?;
        durations(writes, encoder)
    }
}

/// What the other members lack, as the leader knows it.
fn lag(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if status.peers.is_empty() {
        return Ok(());
    }
    let help = "On the leader: committed entries that another member, by its id, does not have";
    let mut family =
        encoder.encode_descriptor("overlay_raft_lag", help, None, MetricType::Gauge)?;
    for peer in &status.peers {
        let labels = [("member", peer.id.to_string())];
        let lacks = status.commit.saturating_sub(peer.matched);
        ConstGauge::new(lacks).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn durations(writes: &Writes, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Durations of the writes to the voter's log, fsync included";
    let name = "overlay_raft_write_seconds";
    let mut histogram = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    // The encoder adds the bucket without a bound.
    let buckets = writes.buckets.iter().map(|(bound, count)| (bound.as_secs_f64(), *count));
    let buckets: Vec<(f64, u64)> = buckets.collect();
    let sum = writes.sum.as_secs_f64();
    histogram.encode_histogram::<NoLabelSet>(sum, writes.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::consensus::PeerStatus;
    use prometheus_client::{
        collector::Collector, encoding::prometheus_text::encode, registry::Registry,
    };

    #[derive(Debug)]
    struct Scraped(RaftReadings);

    impl Collector for Scraped {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            self.0.encode(&mut encoder)
        }
    }

    /// The lines with values.
    fn lines(readings: RaftReadings) -> Vec<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scraped(readings)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_voter_s_consensus_is_scraped() {
        let ms = Duration::from_millis;
        let status = Status {
            leader: Some(1),
            term: 7,
            commit: 90,
            applied: 88,
            snapshot: 60,
            peers: vec![
                PeerStatus { id: 2, matched: 90, recent_active: true },
                PeerStatus { id: 3, matched: 40, recent_active: false },
            ],
            ..Status::default()
        };
        let writes = Writes { buckets: vec![(ms(1), 5), (ms(250), 2)], above: 1, sum: ms(1_500) };
        let readings = RaftReadings {
            status: status.clone(),
            writes: writes.clone(),
            waiting: 4,
            refused: 3,
            snapshot_age: Some(ms(2_500)),
            watchers: 2,
            agreed: 64,
            differences: 1,
        };
        let expected = [
            "overlay_raft_has_leader 1",
            "overlay_raft_term 7",
            "overlay_raft_commit_revision 90",
            "overlay_raft_applied_revision 88",
            "overlay_raft_snapshot_revision 60",
            "overlay_raft_waiting 4",
            "overlay_watchers 2",
            "overlay_state_agreed_revision 64",
            "overlay_raft_snapshot_age_seconds 2.5",
            "overlay_raft_refused_total 3",
            "overlay_state_differences_total 1",
            "overlay_raft_lag{member=\"2\"} 0",
            "overlay_raft_lag{member=\"3\"} 50",
            "overlay_raft_write_seconds_bucket{le=\"0.001\"} 5",
            "overlay_raft_write_seconds_bucket{le=\"0.25\"} 7",
            "overlay_raft_write_seconds_bucket{le=\"+Inf\"} 8",
            "overlay_raft_write_seconds_sum 1.5",
            "overlay_raft_write_seconds_count 8",
        ];
        assert_eq!(lines(readings), expected);
        // A follower knows nothing of the others, and has stored no snapshot.
        let follower = RaftReadings {
            status: Status { peers: Vec::new(), leader: None, ..status },
            writes,
            waiting: 0,
            refused: 0,
            snapshot_age: None,
            watchers: 0,
            agreed: 0,
            differences: 0,
        };
        let found = lines(follower);
        assert_eq!(found[0], "overlay_raft_has_leader 0");
        for absent in ["overlay_raft_lag", "overlay_raft_snapshot_age"] {
            assert!(!found.iter().any(|line| line.starts_with(absent)), "{found:?}");
        }
    }
}
