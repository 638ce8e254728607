//! What the runs came by: each fault, refusal and transition has a row, and a row that stays empty shows that the simulator
//! does not try what it says.

use std::{collections::BTreeMap, fmt};

/// All rows. A row that is hit and not here is a mistake.
const ROWS: &[&str] = &[
    "fault: killed",
    "fault: power cut",
    "fault: stopped in order",
    "fault: stood still",
    "fault: disk failed in a turn",
    "fault: disk failed at the start",
    "fault: disk failed while its log was made",
    "fault: disk failed before the operation",
    "fault: disk failed after the operation",
    "fault: fsync failed",
    "fault: write torn",
    "fault: disk full",
    "fault: disk full for all but votes",
    "fault: disk full to the last byte",
    "fault: disk slow",
    "fault: clock at another rate",
    "fault: log rolled back",
    "fault: wiped",
    "fault: asked to hand over",
    "network: message lost",
    "network: message doubled",
    "network: message overtaken",
    "network: message late",
    "network: message to nobody",
    "network: snapshot lost",
    "network: snapshot lost unnoticed",
    "network: snapshot doubled",
    "partition: one from all",
    "partition: in two halves",
    "partition: in two halves and a bridge",
    "partition: a leader with writes from all",
    "partition: two of them",
    "partition: one way between two",
    "partition: one hears nobody",
    "partition: one is heard by nobody",
    "partition: healed",
    "partition: an agent from voters",
    "partition: an agent from voters, and not from agents",
    "raft: leader elected",
    "raft: leader deposed",
    "raft: election without a result",
    "raft: entries replaced",
    "raft: log compacted",
    "raft: snapshot sent",
    "raft: snapshot arrived",
    "raft: snapshot installed",
    "raft: snapshot interrupted by a crash",
    "raft: restarted from a snapshot",
    "members: joined",
    "members: learner",
    "members: promoted",
    "members: demoted",
    "members: removed",
    "members: joint configuration",
    "members: leader removed",
    "members: wiped one came as another",
    "members: rolled-back one came as another",
    "members: forgot, and was refused",
    "members: came back as another life of its node",
    "members: came back as an agent",
    "members: its life was another by then",
    "clone: a voter's log is not used on another machine",
    "clone: refused, as the original runs",
    "clone: came back as another life of its node",
    "clone: the original ended, as the copy runs",
    "generation: recovery refused, as the cluster lives",
    "generation: recovered",
    "generation: restored",
    "generation: message of another one refused",
    "generation: a voter of an older one ended",
    "generation: an agent goes on into a newer one",
    "generation: a node that is unknown by now joined anew",
    "places: hosts swapped their addresses",
    "places: hosts got new addresses",
    "places: an operator says where a voter is",
    "places: nobody there",
    "places: another node there, or none",
    "places: a node that moved is registered",
    "places: the address is another node's still",
    "places: two rows exchanged their addresses",
    "version: raised",
    "version: raise refused",
    "version: waits for a node",
    "version: a later program is installed",
    "version: an earlier program is installed",
    "version: an old program is not registered",
    "version: an agent with an old program is refused",
    "version: an old program stops before what it can't read",
    "version: an old program does not start with what it can't read",
    "lease: probe without an answer",
    "lease: doubted",
    "lease: lost",
    "lease: held again",
    "lease: heard before it was noted",
    "lease: noted too late",
    "lease: half of the nodes are silent",
    "seat: given",
    "seat: given instead of another's",
    "seat: taken by its node",
    "seat: taken",
    "seat: can't be taken now",
    "seat: refused",
    "seat: done already, or not needed any more",
    "seat: left",
    "seat: another life of its own was begun",
    "operator: demoted",
    "operator: not demoted, as it had another seat by then",
    "operator: promoted",
    "operator: not promoted, as there is no room",
    "operator: number of voters set",
    "agent: joined",
    "agent: registered anew",
    "agent: killed",
    "agent: without power",
    "agent: stood still",
    "agent: stream opened",
    "agent: stream broke",
    "agent: sent away",
    "agent: left a silent voter",
    "agent: voter is behind",
    "agent: refused, as the voter does not know it",
    "agent: refused, as its epoch is over",
    "agent: first view",
    "agent: changes",
    "agent: whole view, as the changes are forgotten",
    "agent: heard that nothing changed",
    "agent: view older than its kernel",
    "agent: kernel goes back to an older view",
    "answer: acknowledged",
    "answer: acknowledged again",
    "answer: not the leader",
    "answer: dropped",
    "answer: stopped",
    "answer: no room",
    "answer: stalled",
    "answer: none in time",
    "answer: read",
    "answer: read without quorum",
    "answer: member added",
    "answer: member removal done",
    "answer: refused by the members",
    "alarm: entries",
    "alarm: snapshot",
    "alarm: received_snapshot",
    "alarm: stalled",
    "refused: NetworkExists",
    "refused: EndpointExists",
    "refused: NoNetwork",
    "refused: NoEndpoint",
    "refused: NoNode",
    "refused: NetworkInUse",
    "refused: AddressesExhausted",
    "refused: Gone",
    "refused: NodeInUse",
    "refused: NotForgotten",
    "refused: AddressesHeldBack",
];

/// Rows that need several rare events at once: a run of 500 seeds has them a few times, or not at all. A run of
/// [`MANY`] seeds must hit these, too.
const RARE: &[&str] = &[
    "members: came back as an agent",
    "members: its life was another by then",
    "generation: a node that is unknown by now joined anew",
    "version: raise refused",
    "lease: noted too late",
    "seat: can't be taken now",
    "seat: refused",
    "seat: another life of its own was begun",
    "operator: not demoted, as it had another seat by then",
    "operator: promoted",
    "alarm: stalled",
    "refused: Gone",
];

/// So many seeds must hit every row but the rare ones.
pub(super) const ENOUGH: u64 = 500;
/// So many seeds must hit every row.
pub(super) const MANY: u64 = 20_000;

/// How often each row was hit.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach(BTreeMap<&'static str, u64>);

impl Reach {
    /// Counts one of the rows.
    pub(super) fn hit(&mut self, row: &str) {
        let known = ROWS.iter().find(|known| **known == row);
        let known = known.unwrap_or_else(|| panic!("the reach table has no row {row:?}"));
        *self.0.entry(*known).or_default() += 1;
    }

    /// Counts what a refusal is, if the table has it.
    pub(super) fn hit_refusal(&mut self, refusal: &impl fmt::Debug) {
        let text = format!("{refusal:?}");
        let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let row = format!("refused: {name}");
        if ROWS.contains(&row.as_str()) {
            self.hit(&row);
        }
    }

    /// Adds what another run came by.
    pub(super) fn add(&mut self, other: &Self) {
        for (row, times) in &other.0 {
            *self.0.entry(*row).or_default() += times;
        }
    }

    /// The rows that so many runs must hit, and did not.
    pub(super) fn missing(&self, runs: u64) -> Vec<&'static str> {
        let is_due = |row: &str| runs >= MANY || (runs >= ENOUGH && !RARE.contains(&row));
        ROWS.iter().filter(|row| is_due(row) && !self.0.contains_key(*row)).copied().collect()
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in ROWS {
            writeln!(f, "{:>10}  {row}", self.0.get(row).copied().unwrap_or_default())?;
        }
        Ok(())
    }
}
