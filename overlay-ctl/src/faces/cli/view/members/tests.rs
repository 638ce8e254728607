//! Tests of the exact printed form.

use super::*;

fn answer() -> v1::MembersResponse {
    let log = v1::VoterStatus {
        raft_id: 4,
        has_quorum: true,
        term: 7,
        applied: 90,
        commit: 91,
        last_term: 6,
        last_index: 93,
        voters: vec![4, 5],
        snapshot_revision: 60,
        snapshot_bytes: 1 << 19,
        snapshot_age_ms: Some(7_300_000),
        log_bytes: 25 << 20,
        writes: 9,
        last_write_us: 1_250,
        average_write_us: 930,
        agents: 2,
        ..v1::VoterStatus::default()
    };
    let status = v1::MemberStatus {
        node: "h1".to_owned(),
        node_id: 1,
        version: "0.1.0".to_owned(),
        oldest_version: 1,
        newest_version: 2,
        generation: 1,
        free_bytes: Some(12 << 30),
        voter: Some(log),
        ..v1::MemberStatus::default()
    };
    let h1 = v1::Member {
        node_id: 1,
        node: "h1".to_owned(),
        raft_id: 4,
        membership: v1::Membership::Voter.into(),
        has_seat: true,
        leads: true,
        lag: Some(0),
        status: Some(status),
        ..v1::Member::default()
    };
    let h2 = v1::Member {
        node_id: 2,
        node: "h2".to_owned(),
        raft_id: 5,
        membership: v1::Membership::Voter.into(),
        lag: Some(12),
        heard_ms_ago: Some(150_000),
        unanswered: "connection refused".to_owned(),
        ..v1::Member::default()
    };
    v1::MembersResponse {
        condition: Condition::Degraded.into(),
        verdict: "degraded: h1 leads".to_owned(),
        faults: vec![v1::Fault {
            what: "h2 is gone".to_owned(),
            remedy: "start it".to_owned(),
            section: "Replace a voter".to_owned(),
        }],
        notes: vec!["h3 is to vote".to_owned()],
        cluster: "9f3c".to_owned(),
        generation: 1,
        cluster_version: 2,
        leader: "h1".to_owned(),
        term: 7,
        revision: 91,
        asked: "h4".to_owned(),
        nodes: 4,
        members: vec![h1, h2],
        same_state_revision: 64,
        same_state: vec!["h1".to_owned(), "h2".to_owned()],
    }
}

#[test]
fn the_verdict_comes_first_and_the_tables_last() {
    assert_eq!(
        ClusterStatus::from(answer()).text(),
        "\
degraded: h1 leads

1. h2 is gone
   to do: start it
   more:  docs/operations.md, \"Replace a voter\"

note: h3 is to vote

cluster           9f3c, generation 1
cluster version   2
leader            h1
term              7
revision          91
states            the same at revision 64 on h1, h2
nodes             4
asked             h4

NODE   RAFT ID   RAFT     SEAT   TERM   APPLIED   LOG ENDS AT   LAG   HEARD       AGENTS
h1     4         leader   yes    7      90        93 (term 6)   0     -           2
h2     5         voter    no     -      -         -             12    2 min ago   -

NODE   VERSION   SPEAKS   FREE        LOG      LAST WRITE   AVERAGE   SNAPSHOT AT    STORED
h1     0.1.0     1 to 2   12288 MiB   25 MiB   1.2 ms       0.9 ms    60 (0.5 MiB)   2 h ago
h2     -         -        -           -        -            -         -              -"
    );
}

#[test]
fn what_is_not_known_is_null() {
    let json = serde_json::to_value(ClusterStatus::from(answer())).unwrap();
    assert_eq!((&json["condition"], &json["leader"]), (&"degraded".into(), &"h1".into()));
    let [h1, h2] = [0, 1].map(|member| &json["members"][member]);
    assert_eq!((&h1["raft"], &h1["unanswered"]), (&"leader".into(), &serde_json::Value::Null));
    assert_eq!(h1["says"]["log"]["last_write_us"], 1_250);
    assert!(h1["heard_ms_ago"].is_null() && h2["says"].is_null(), "{json:#}");
    let unknown = v1::MembersResponse { members: Vec::new(), leader: String::new(), ..answer() };
    let json = serde_json::to_value(ClusterStatus::from(unknown)).unwrap();
    assert!(json["leader"].is_null(), "{json:#}");
}
