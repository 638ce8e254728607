//! What follows from the answers of the nodes: who the members are, who of them lives, and who leads.

use super::ask::{Answer, Survey};
use crate::{
    model::NodeId,
    proto::v1::{MemberContact, MemberStatus, NodeRole, Seat, VoterStatus},
};
use std::collections::{BTreeMap, BTreeSet};

/// A member that the leader has heard within this counts as alive, whoever else does not reach it: longer than any election.
const HEARD_MS: u64 = 3_000;
/// A member that lacks entries and has taken none for this long is stuck: an election and a snapshot are over by then.
pub(super) const STUCK_MS: u64 = 5_000;
/// A member that lacks more entries than this lags, though it takes some. It is what the log keeps behind a snapshot.
const LAG_MAX: u64 = 1_000;

/// The answers, put together.
pub(super) struct Facts<'a> {
    pub(super) survey: &'a Survey,
    /// Whose rows count: the same one's, or, where no voter answers, those of the node that knows the latest.
    pub(super) rows: &'a MemberStatus,
    /// The nodes that have a seat, by those rows.
    pub(super) seats: BTreeMap<NodeId, &'a Seat>,
    /// Whose word counts for Raft's configuration: the leader's, or that of the voter with the latest log.
    pub(super) best: Option<Voter<'a>>,
    pub(super) leader: Option<Leader<'a>>,
}

/// A node that holds the log.
#[derive(Clone, Copy)]
pub(super) struct Voter<'a> {
    pub(super) node: &'a MemberStatus,
    pub(super) log: &'a VoterStatus,
}

/// Who leads, by a voter that takes part in a quorum.
#[derive(Clone, Copy)]
pub(super) struct Leader<'a> {
    pub(super) raft_id: u64,
    pub(super) term: u64,
    /// What it says; `None` = it did not answer, and others name it.
    pub(super) told: Option<Voter<'a>>,
}

/// How a member of Raft answered.
pub(super) enum Life<'a> {
    Told(Voter<'a>),
    /// It runs, and its program is an earlier one.
    Earlier,
    /// Its node runs, and does not hold the log as this member (yet).
    NotSeated,
    /// Why there is no answer.
    Silent(String),
    /// Nobody asked it.
    NotAsked,
}

fn as_voter(node: &MemberStatus) -> Option<Voter<'_>> {
    Some(Voter { node, log: node.voter.as_ref()? })
}

impl<'a> Facts<'a> {
    pub(super) fn new(survey: &'a Survey) -> Self {
        let voters: Vec<Voter<'a>> = survey.told().filter_map(as_voter).collect();
        let leader = leader(&voters);
        let best = voters.iter().copied().max_by_key(|Voter { node, log }| {
            let leads = leader.is_some_and(|leader| leader.raft_id == log.raft_id);
            (node.generation, leads, log.commit, log.applied, log.term)
        });
        let latest = || survey.told().max_by_key(|told| (told.generation, told.revision));
        let rows = best.map(|best| best.node).or_else(latest).unwrap_or(&survey.own);
        let seats = rows.seats.iter().map(|seat| (seat.node_id, seat)).collect();
        Self { survey, rows, seats, best, leader }
    }

    /// The members that vote, as two sets: those of the configuration, and, while it changes, those of the one before. Each
    /// needs a majority.
    pub(super) fn votes(&self) -> [BTreeSet<u64>; 2] {
        let of = |ids: fn(&VoterStatus) -> &Vec<u64>| {
            self.best.map(|best| ids(best.log).iter().copied().collect()).unwrap_or_default()
        };
        [of(|log| &log.voters), of(|log| &log.outgoing)]
    }

    /// All members, whether they vote or not.
    pub(super) fn members(&self) -> BTreeSet<u64> {
        let [voters, outgoing] = self.votes();
        let learners = self.best.map(|best| best.log.learners.clone()).unwrap_or_default();
        voters.into_iter().chain(outgoing).chain(learners).collect()
    }

    /// The node that is this member, as the rows say, or as the node itself says.
    pub(super) fn node_of(&self, raft_id: u64) -> Option<NodeId> {
        let by_rows = self.seats.values().find(|seat| seat.raft_id == raft_id);
        let itself = || {
            let voters = self.survey.told().filter_map(as_voter);
            voters.filter(|it| it.log.raft_id == raft_id).map(|it| it.node.node_id).next()
        };
        by_rows.map(|seat| seat.node_id).or_else(itself)
    }

    /// What the member is called.
    pub(super) fn name(&self, raft_id: u64) -> String {
        let named = self.node_of(raft_id).and_then(|node| self.node_name(node));
        named.unwrap_or_else(|| format!("member {raft_id}"))
    }

    pub(super) fn node_name(&self, node: NodeId) -> Option<String> {
        let by_rows = self.seats.get(&node).map(|seat| seat.node.clone());
        by_rows.or_else(|| match self.survey.answers.get(&node) {
            Some(Answer::Told(told)) => Some(told.node.clone()),
            _ => None,
        })
    }

    pub(super) fn node_name_or_id(&self, node: NodeId) -> String {
        self.node_name(node).unwrap_or_else(|| format!("node {node}"))
    }

    /// Where the nodes listen, as their rows say.
    pub(super) fn places(&self, nodes: impl IntoIterator<Item = NodeId>) -> String {
        let seats = nodes.into_iter().filter_map(|node| self.seats.get(&node));
        let places: Vec<String> = seats.map(|seat| seat.listen.clone()).collect();
        if places.is_empty() { "the address where it listens".to_owned() } else { list(places) }
    }

    /// Where the members listen.
    pub(super) fn places_of(&self, members: impl IntoIterator<Item = u64>) -> String {
        self.places(members.into_iter().filter_map(|member| self.node_of(member)))
    }

    pub(super) fn names(&self, members: impl IntoIterator<Item = u64>) -> String {
        list(members.into_iter().map(|member| self.name(member)))
    }

    pub(super) fn life(&self, raft_id: u64) -> Life<'a> {
        let Some(node) = self.node_of(raft_id) else {
            return Life::Silent("no node is this member any more".to_owned());
        };
        match self.survey.answers.get(&node) {
            Some(Answer::Told(told)) => match as_voter(told) {
                Some(voter) if voter.log.raft_id == raft_id => Life::Told(voter),
                _ => Life::NotSeated,
            },
            Some(Answer::Earlier) => Life::Earlier,
            Some(Answer::Silent(why)) => Life::Silent(why.clone()),
            Some(Answer::NotAsked) => Life::NotAsked,
            None => Life::Silent("it was not found".to_owned()),
        }
    }

    /// What the leader hears of the member.
    pub(super) fn contact(&self, raft_id: u64) -> Option<&'a MemberContact> {
        let contacts = &self.leader?.told?.log.contacts;
        contacts.iter().find(|contact| contact.raft_id == raft_id)
    }

    /// The leader has heard the member lately.
    pub(super) fn is_heard(&self, raft_id: u64) -> bool {
        let contact = self.contact(raft_id);
        contact.and_then(|it| it.heard_ms_ago).is_some_and(|ago| ago < HEARD_MS)
    }

    /// The member lacks entries and takes none, or lacks very many: no majority can be made with it.
    pub(super) fn lags(&self, raft_id: u64) -> bool {
        let is_stuck = self.contact(raft_id).is_some_and(|contact| contact.stuck_ms >= STUCK_MS);
        self.lag(raft_id).is_some_and(|lag| lag > LAG_MAX || (lag > 0 && is_stuck))
    }

    /// Where no voter that answers takes part in a quorum: the leader that a node names all the same, and that node.
    pub(super) fn led_elsewhere(&self) -> Option<(&'a str, &'a str)> {
        let survey = self.survey;
        let mut told = std::iter::once(&*survey.own).chain(survey.told());
        let told = told.find(|told| self.leader.is_none() && !told.leader.is_empty())?;
        Some((&told.leader, &told.node))
    }

    /// Nobody says whether the member does its part: the leader did not tell, and the member was not asked.
    pub(super) fn is_unknown(&self, raft_id: u64) -> bool {
        let leads = self.leader.is_some_and(|leader| leader.raft_id == raft_id);
        let is_told = self.leader.is_some_and(|leader| leader.told.is_some());
        !leads && !is_told && matches!(self.life(raft_id), Life::NotAsked)
    }

    /// The voters of which that is so.
    pub(super) fn unknown(&self) -> BTreeSet<u64> {
        let voters = self.votes().into_iter().flatten();
        voters.filter(|voter| self.is_unknown(*voter)).collect()
    }

    /// Whether the member does its part, as far as can be told. What the leader hears counts more than what was answered.
    pub(super) fn lives(&self, raft_id: u64) -> bool {
        if self.lags(raft_id) {
            return false;
        }
        if let Some(leader) = self.leader
            && (leader.raft_id == raft_id || leader.told.is_some())
        {
            return leader.raft_id == raft_id || self.is_heard(raft_id);
        }
        match self.life(raft_id) {
            Life::Told(voter) => voter.log.has_quorum || self.leader.is_none(),
            Life::Earlier => true,
            Life::NotSeated | Life::NotAsked | Life::Silent(_) => false,
        }
    }

    /// How many of the voters live, how many there are, and how many more may be lost; negative = so many are missing.
    pub(super) fn count(&self) -> Count {
        let of = |votes: &BTreeSet<u64>| {
            let (all, live) = (votes.len(), votes.iter().filter(|id| self.lives(**id)).count());
            Count { live, all, needed: all / 2 + 1 }
        };
        let sets = self.votes();
        let counts = sets.iter().filter(|votes| !votes.is_empty()).map(of);
        counts.min_by_key(Count::spare).unwrap_or(Count { live: 0, all: 0, needed: 1 })
    }

    /// Committed entries that the member lacks, as the leader knows it.
    pub(super) fn lag(&self, raft_id: u64) -> Option<u64> {
        let leader = self.leader?.told?;
        if leader.log.raft_id == raft_id {
            return Some(0);
        }
        self.contact(raft_id).map(|contact| leader.log.commit.saturating_sub(contact.matched))
    }
}

/// Voters, by how they are.
#[derive(Clone, Copy)]
pub(super) struct Count {
    pub(super) live: usize,
    pub(super) all: usize,
    /// A majority.
    pub(super) needed: usize,
}

impl Count {
    /// How many more may be lost; negative = so many are missing.
    pub(super) fn spare(&self) -> isize {
        self.live.cast_signed() - self.needed.cast_signed()
    }
}

/// The leader of the latest term: one that has a quorum, or that voters with a quorum name.
fn leader<'a>(voters: &[Voter<'a>]) -> Option<Leader<'a>> {
    let quorate = voters.iter().filter(|voter| voter.log.has_quorum && voter.log.leader != 0);
    let Voter { node, log } =
        quorate.max_by_key(|voter| (voter.node.generation, voter.log.term))?;
    let is_it = |voter: &&Voter<'_>| {
        let leads = voter.log.role() == NodeRole::Leader && voter.log.raft_id == log.leader;
        leads && voter.node.generation == node.generation
    };
    let told = voters.iter().find(is_it).copied();
    Some(Leader { raft_id: log.leader, term: log.term, told })
}

/// The words with commas and an "and".
pub(super) fn list(words: impl IntoIterator<Item = String>) -> String {
    let mut words: Vec<String> = words.into_iter().collect();
    let Some(last) = words.pop() else { return "none".to_owned() };
    if words.is_empty() { last } else { format!("{} and {last}", words.join(", ")) }
}
