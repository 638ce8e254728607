//! What one scrape reads of a voter's consensus: where its log is, how long its disk takes, and what waits.

use crate::{
    control::consensus::{Contact, Status, Writes},
    faces::ServedNode,
    model::Revision,
};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::{collections::BTreeMap, fmt, time::Duration};

/// The readings of a voter. An agent has none.
#[derive(Debug)]
pub(super) struct RaftReadings {
    status: Status,
    writes: Writes,
    waiting: u64,
    refused: u64,
    has_quorum: bool,
    failed: Vec<(&'static str, u64)>,
    leader_changes: u64,
    contacts: BTreeMap<u64, Contact>,
    snapshot_age: Option<Duration>,
    snapshot_took: Option<Duration>,
    snapshot_bytes: u64,
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
            has_quorum: voter.quorum.holds(),
            failed: measures.failed_proposals(),
            leader_changes: measures.leader_changes(),
            contacts: measures.contacts(),
            snapshot_age: measures.snapshot_age(),
            snapshot_took: measures.snapshot_took(),
            snapshot_bytes: measures.snapshot_bytes(),
            watchers: voter.table.watchers().count(),
            agreed: voter.state.hashes().agreed(),
            differences: voter.state.hashes().findings(),
        })
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Self {
            status,
            writes,
            waiting,
            refused,
            has_quorum,
            failed,
            leader_changes,
            contacts,
            snapshot_age,
            snapshot_took,
            snapshot_bytes,
            watchers,
            agreed,
            differences,
        } = self;
        for (name, help, value) in [
            (
                "overlay_raft_has_leader",
                "1 on a voter that knows who leads",
                u64::from(status.leader.is_some()),
            ),
            (
                "overlay_raft_has_quorum",
                "1 on a voter that takes part in a quorum: a linearizable read succeeded within the last seconds",
                u64::from(*has_quorum),
            ),
            ("overlay_raft_term", "Term of the voter", status.term),
            ("overlay_raft_commit_revision", "Last revision known to be committed", status.commit),
            ("overlay_raft_applied_revision", "Last revision that was applied", status.applied),
            (
                "overlay_raft_snapshot_revision",
                "Revision of the stored snapshot; 0 = there is none",
                status.snapshot,
            ),
            (
                "overlay_raft_snapshot_bytes",
                "Bytes of the stored snapshot; 0 = there is none",
                *snapshot_bytes,
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
        for (name, help, time) in [
            (
                "overlay_raft_snapshot_age_seconds",
                "Seconds since a snapshot was stored, if that was since the node started",
                snapshot_age,
            ),
            (
                "overlay_raft_snapshot_seconds",
                "Seconds that the voter took to make and store its last snapshot, and did nothing else, if that was since the node started",
                snapshot_took,
            ),
        ] {
            if let Some(time) = time {
                let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(time.as_secs_f64()).encode(gauge)?;
            }
        }
        let help = "Requests and messages that the voter refused because too many waited";
        let name = "overlay_raft_refused";
        let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(*refused).encode(counter)?;
        let help = "How often this leader found that a voter has another state than others";
        let name = "overlay_state_differences";
        let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(*differences).encode(counter)?;
        let help = "How often the voter saw a leader begin to lead";
        let name = "overlay_raft_leader_changes";
        let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(*leader_changes).encode(counter)?;
        failures(failed, encoder)?;
        lag(status, encoder)?;
        heard(contacts, encoder)?;
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

/// The proposals that came to nothing. All reasons are there, so that a rate can be told from the first one on.
fn failures(failed: &[(&'static str, u64)], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Commands that this voter was to log and did not, by the reason. Those of `dropped`, `stalled` and `stopped` may have been logged all the same";
    let name = "overlay_raft_proposals_failed";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (reason, count) in failed {
        let labels = [("reason", *reason)];
        ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// When the other members were heard. A follower hears none but the leader, and those that want to lead.
fn heard(contacts: &BTreeMap<u64, Contact>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let heard = contacts.iter().filter_map(|(member, contact)| Some((member, contact.heard?)));
    let heard: Vec<_> = heard.collect();
    if heard.is_empty() {
        return Ok(());
    }
    let help = "Seconds since another member, by its id, was heard. The leader hears all, the others hear the leader";
    let name = "overlay_raft_heard_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (member, ago) in heard {
        let labels = [("member", member.to_string())];
        ConstGauge::new(ago.as_secs_f64()).encode(family.encode_family(&labels)?)?;
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
            has_quorum: true,
            failed: vec![("not_leader", 6), ("stopped", 0)],
            leader_changes: 5,
            contacts: [
                (2, Contact { heard: Some(ms(200)), stuck: Duration::ZERO }),
                (3, Contact { heard: None, stuck: ms(9_000) }),
            ]
            .into(),
            snapshot_age: Some(ms(2_500)),
            snapshot_took: Some(ms(40)),
            snapshot_bytes: 4_096,
            watchers: 2,
            agreed: 64,
            differences: 1,
        };
        let expected = [
            "overlay_raft_has_leader 1",
            "overlay_raft_has_quorum 1",
            "overlay_raft_term 7",
            "overlay_raft_commit_revision 90",
            "overlay_raft_applied_revision 88",
            "overlay_raft_snapshot_revision 60",
            "overlay_raft_snapshot_bytes 4096",
            "overlay_raft_waiting 4",
            "overlay_watchers 2",
            "overlay_state_agreed_revision 64",
            "overlay_raft_snapshot_age_seconds 2.5",
            "overlay_raft_snapshot_seconds 0.04",
            "overlay_raft_refused_total 3",
            "overlay_state_differences_total 1",
            "overlay_raft_leader_changes_total 5",
            "overlay_raft_proposals_failed_total{reason=\"not_leader\"} 6",
            "overlay_raft_proposals_failed_total{reason=\"stopped\"} 0",
            "overlay_raft_lag{member=\"2\"} 0",
            "overlay_raft_lag{member=\"3\"} 50",
            "overlay_raft_heard_seconds{member=\"2\"} 0.2",
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
            has_quorum: false,
            failed: Vec::new(),
            leader_changes: 0,
            contacts: BTreeMap::new(),
            snapshot_age: None,
            snapshot_took: None,
            snapshot_bytes: 0,
            watchers: 0,
            agreed: 0,
            differences: 0,
        };
        let found = lines(follower);
        assert_eq!(found[0], "overlay_raft_has_leader 0");
        for absent in [
            "overlay_raft_lag",
            "overlay_raft_snapshot_age",
            "overlay_raft_snapshot_sec",
            "overlay_raft_heard",
        ] {
            assert!(!found.iter().any(|line| line.starts_with(absent)), "{found:?}");
        }
    }
}
