//! What is looked at after each turn of a voter: the truth is shown what it has applied and whom it takes for members, and
//! the reach table what has changed.

use super::{
    host::{Host, Seen},
    truth::Truth,
    world::{World, note},
};
use crate::control::consensus::{Role, core::Logged};

impl World {
    /// Looks at a host after a turn.
    pub(super) fn check(&mut self, number: u64) {
        let truth = self.truth_of(number);
        let host = self.host(number);
        let (Some(core), Some(life)) = (&mut host.core, host.life) else { return };
        for entry in core.take_applied() {
            truth.committed(life, entry);
        }
        let (ledger, status) = (core.machine(), core.seen().clone());
        let applied = ledger.published;
        truth.next_learners(life, applied, &core.next_learners());
        let leads_anew = status.role == Role::Leader && truth.leads(status.term, life);
        let now = Seen {
            role: status.role,
            term: status.term,
            members: ledger.members.clone(),
            range: core.log_range(),
            last_term: core.term_of(core.log_range().1).unwrap_or(0),
            restored: ledger.restored,
            alarms: status.alarms.iter().map(|alarm| alarm.kind()).collect(),
        };
        // The term of the entry that was the last one.
        let then = core.term_of(host.seen.range.1);
        let before = std::mem::replace(&mut host.seen, now.clone());
        if leads_anew {
            self.host(number).table.listen_anew();
            note!(self, "host {number} leads term {}", now.term);
            self.reach.hit("raft: leader elected");
        }
        if self.compare(&before, &now, then) {
            self.check_logs(number);
        }
    }

    /// Says whether entries were replaced.
    fn compare(&mut self, before: &Seen, now: &Seen, then: Option<u64>) -> bool {
        let is_restored = now.restored > before.restored;
        let is_replaced = before.range.1 > 0
            && !is_restored
            && then != Some(before.last_term)
            && before.range.1 >= now.range.0;
        let is_candidate = before.role == Role::Candidate && now.role == Role::Candidate;
        let [voters, outgoing, learners] = &now.members;
        let [old_voters, _, old_learners] = &before.members;
        let is_old = |id: &u64| old_voters.contains(id) || old_learners.contains(id);
        let is_known = !old_voters.is_empty();
        let is_gone = |id: &u64| !voters.contains(id) && !learners.contains(id);
        let old = old_voters.iter().chain(old_learners);
        for (is_so, row) in [
            (before.role == Role::Leader && now.role != Role::Leader, "raft: leader deposed"),
            (is_candidate && before.term != now.term, "raft: election without a result"),
            (is_restored, "raft: snapshot installed"),
            (is_known && !is_restored && now.range.0 > before.range.0, "raft: log compacted"),
            (is_replaced, "raft: entries replaced"),
            (!outgoing.is_empty(), "members: joint configuration"),
            (is_known && learners.iter().any(|id| !is_old(id)), "members: learner"),
            (is_known && voters.iter().any(|id| old_learners.contains(id)), "members: promoted"),
            (learners.iter().any(|id| old_voters.contains(id)), "members: demoted"),
            (old.into_iter().any(is_gone), "members: removed"),
        ] {
            if is_so {
                self.reach.hit(row);
            }
        }
        for alarm in now.alarms.difference(&before.alarms) {
            self.reach.hit(&format!("alarm: {alarm}"));
        }
        is_replaced
    }

    /// Compares the log of a host with those of all others.
    pub(super) fn check_logs(&self, number: u64) {
        fn log(host: &Host) -> Option<(u64, Vec<Logged>)> {
            Some((host.number, host.core.as_ref()?.logged(0)))
        }
        let Some((_, own)) = self.hosts.get(&number).and_then(log) else { return };
        let generation = self.hosts[&number].generations.ours();
        let is_of_it = |host: &&Host| host.generations.ours() == generation;
        assert!(
            own.is_sorted_by_key(|entry| entry.term),
            "the log of host {number} has an entry of an earlier term behind one of a later term"
        );
        for (other, theirs) in self.hosts.values().filter(is_of_it).filter_map(log) {
            if other != number {
                Truth::logs((number, own.as_slice()), (other, theirs.as_slice()));
            }
        }
    }
}
