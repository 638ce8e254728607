//! The printed form of one member: what Raft knows of it, and what it says of its program and its disk.

use super::super::{NONE, non_empty, non_zero, or_dash};
use crate::proto::v1::{self, Membership};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct Member {
    /// None = it is no node's.
    node_id: Option<u64>,
    /// None = it is no node's.
    node: Option<String>,
    listen: Option<String>,
    raft_id: Option<u64>,
    /// By Raft's configuration: leader, voter, learner, none, unknown
    raft: &'static str,
    /// By the rows: it is to hold the log.
    has_seat: bool,
    /// Committed entries that it lacks; None = nobody says.
    lag: Option<u64>,
    /// None = nobody says.
    heard_ms_ago: Option<u64>,
    /// Why it gave no answer; None = it did.
    unanswered: Option<String>,
    /// What it says itself; None = it gave no answer.
    says: Option<Says>,
}

#[derive(Debug, Serialize)]
struct Says {
    version: String,
    oldest_version: u32,
    newest_version: u32,
    /// None = not known.
    cluster_version: Option<u32>,
    generation: u64,
    revision: u64,
    /// None = it knows none by which it can have a request answered.
    leader: Option<String>,
    /// None = its disk does not say.
    free_bytes: Option<u64>,
    alarms: Vec<String>,
    troubles: Vec<String>,
    /// None = it holds no log.
    log: Option<Log>,
}

#[derive(Debug, Serialize)]
struct Log {
    has_quorum: bool,
    term: u64,
    applied: u64,
    commit: u64,
    /// Of the last entry on its disk; 0 = not known.
    last_term: u64,
    last_index: u64,
    voters: Vec<u64>,
    outgoing: Vec<u64>,
    learners: Vec<u64>,
    /// 0 = there is none.
    snapshot_revision: u64,
    snapshot_bytes: u64,
    /// None = none was stored since the node started.
    snapshot_age_ms: Option<u64>,
    log_bytes: u64,
    writes: u64,
    last_write_us: u64,
    /// None = there was none since the node started, or its program does not say.
    last_write_age_ms: Option<u64>,
    average_write_us: u64,
    waiting: u64,
    refused: u64,
    agents: u32,
}

impl From<v1::Member> for Member {
    fn from(member: v1::Member) -> Self {
        let raft = match member.membership() {
            Membership::Voter if member.leads => "leader",
            Membership::Voter => "voter",
            Membership::Learner => "learner",
            Membership::None => "none",
            Membership::Unspecified => "unknown",
        };
        let v1::Member {
            node_id,
            node,
            listen,
            raft_id,
            membership: _,
            has_seat,
            leads: _,
            lag,
            heard_ms_ago,
            unanswered,
            status,
        } = member;
        Self {
            node_id: non_zero(node_id),
            node: non_empty(node),
            listen: non_empty(listen),
            raft_id: non_zero(raft_id),
            raft,
            has_seat,
            lag,
            heard_ms_ago,
            unanswered: non_empty(unanswered),
            says: status.map(Into::into),
        }
    }
}

impl From<v1::MemberStatus> for Says {
    fn from(status: v1::MemberStatus) -> Self {
        let v1::MemberStatus {
            node: _,
            node_id: _,
            version,
            oldest_version,
            newest_version,
            cluster_version,
            generation,
            revision,
            leader,
            free_bytes,
            alarms,
            troubles,
            seats: _,
            voters_wished: _,
            nodes: _,
            voter,
        } = status;
        Self {
            version,
            oldest_version,
            newest_version,
            cluster_version: non_zero(cluster_version),
            generation,
            revision,
            leader: non_empty(leader),
            free_bytes,
            alarms: alarms.into_iter().map(|alarm| alarm.text).collect(),
            troubles,
            log: voter.map(Into::into),
        }
    }
}

impl From<v1::VoterStatus> for Log {
    fn from(status: v1::VoterStatus) -> Self {
        let v1::VoterStatus {
            raft_id: _,
            role: _,
            leader: _,
            has_quorum,
            term,
            applied,
            commit,
            voters,
            outgoing,
            learners,
            contacts: _,
            snapshot_revision,
            snapshot_bytes,
            snapshot_age_ms,
            log_bytes,
            writes,
            last_write_us,
            last_write_age_ms,
            average_write_us,
            waiting,
            refused,
            agents,
            hashes: _,
            hash_version: _,
            leads: _,
            last_term,
            last_index,
        } = status;
        Self {
            has_quorum,
            term,
            applied,
            commit,
            last_term,
            last_index,
            voters,
            outgoing,
            learners,
            snapshot_revision,
            snapshot_bytes,
            snapshot_age_ms,
            log_bytes,
            writes,
            last_write_us,
            last_write_age_ms,
            average_write_us,
            waiting,
            refused,
            agents,
        }
    }
}

/// Bytes in MiB, with one digit behind the point below ten.
fn mib(bytes: u64) -> String {
    const TENTH: u64 = (1 << 20) / 10;
    match bytes / TENTH {
        tenths @ 0..100 => format!("{}.{} MiB", tenths / 10, tenths % 10),
        tenths => format!("{} MiB", tenths / 10),
    }
}

fn ms(us: u64) -> String {
    format!("{}.{} ms", us / 1_000, us % 1_000 / 100)
}

fn ago(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3_600),
    }
}

impl Member {
    pub(super) const RAFT: [&str; 10] = [
        "NODE",
        "RAFT ID",
        "RAFT",
        "SEAT",
        "TERM",
        "APPLIED",
        "LOG ENDS AT",
        "LAG",
        "HEARD",
        "AGENTS",
    ];
    pub(super) const DISK: [&str; 9] = [
        "NODE",
        "VERSION",
        "SPEAKS",
        "FREE",
        "LOG",
        "LAST WRITE",
        "AVERAGE",
        "SNAPSHOT AT",
        "STORED",
    ];

    fn name(&self) -> String {
        or_dash(self.node.as_ref())
    }

    /// What the member says of its log, shown by `show`.
    fn of_log(&self, show: impl FnOnce(&Log) -> String) -> String {
        let log = self.says.as_ref().and_then(|says| says.log.as_ref());
        log.map_or_else(|| NONE.to_owned(), show)
    }

    /// Its row of [`Self::RAFT`].
    pub(super) fn raft(&self) -> [String; 10] {
        [
            self.name(),
            or_dash(self.raft_id.as_ref()),
            self.raft.to_owned(),
            if self.has_seat { "yes" } else { "no" }.to_owned(),
            self.of_log(|log| log.term.to_string()),
            self.of_log(|log| log.applied.to_string()),
            self.of_log(|log| format!("{} (term {})", log.last_index, log.last_term)),
            or_dash(self.lag.as_ref()),
            or_dash(self.heard_ms_ago.map(ago).as_ref()),
            self.of_log(|log| log.agents.to_string()),
        ]
    }

    /// Its row of [`Self::DISK`].
    pub(super) fn disk(&self) -> [String; 9] {
        let says = self.says.as_ref();
        let speaks = |says: &Says| format!("{} to {}", says.oldest_version, says.newest_version);
        [
            self.name(),
            or_dash(says.map(|says| &says.version)),
            or_dash(says.map(speaks).as_ref()),
            or_dash(says.and_then(|says| says.free_bytes).map(mib).as_ref()),
            self.of_log(|log| mib(log.log_bytes)),
            self.of_log(|log| ms(log.last_write_us)),
            self.of_log(|log| ms(log.average_write_us)),
            self.of_log(|log| format!("{} ({})", log.snapshot_revision, mib(log.snapshot_bytes))),
            self.of_log(|log| or_dash(log.snapshot_age_ms.map(ago).as_ref())),
        ]
    }
}
