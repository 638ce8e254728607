//! What a voter does besides consensus: it proves its quorum, follows its own state, and passes on to the leader what nodes
//! report.

use super::{
    host::Item,
    net::Packet,
    world::{World, note},
};
use crate::{
    control::{
        peers::Peer,
        voter::to_wire,
        watch::{Own, OwnView, is_new_enough},
    },
    dataplane::kernel::{LocalStatus, Probed},
    model::{NodeId, SPEAKS, Speaks},
    node::probing::{ROUNDS, note as note_answers, reported, targets},
    proto::internal::NodeStatus,
};
use std::collections::BTreeSet;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::Instant,
};

/// A step, in milliseconds of virtual time.
pub(super) const STEP: u64 = 10;
/// How many steps after a proof of its quorum a voter asks for the next one, and after a failure.
const PROOF: [u64; 2] = [100, 10];
/// How much later than a lease a probe may have been sent, in steps.
const LATE: u64 = 300;
/// How often a status is repeated, in steps.
pub(super) const HEARTBEAT: u64 = 50;

/// So many steps a time has.
pub(super) fn steps(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap() / STEP
}

impl World {
    /// After a turn of a host's driver.
    pub(super) fn do_the_rest(&mut self, number: u64) {
        self.prove(number);
        self.follow_own(number);
        self.report_on(number);
        self.do_duties(number);
    }

    /// What the program of a host speaks.
    pub(super) fn speaks(&self, number: u64) -> Speaks {
        if self.old.contains(&number) { Speaks::UNSAID } else { SPEAKS }
    }

    /// A node's own status, as it reports it.
    pub(super) fn own_status(&self, number: u64) -> Option<NodeStatus> {
        let host = self.hosts.get(&number)?;
        let probes = reported(&host.probed, self.terms.lease);
        let programmed = host.kernel.held.revision;
        let status = LocalStatus { programmed, probes, ..LocalStatus::default() };
        let mut status = to_wire(host.node?, host.epoch, &status);
        let speaks = self.speaks(number);
        (status.oldest_version, status.newest_version) =
            (speaks.oldest().number(), speaks.newest().number());
        Some(status)
    }

    /// A node asks the data paths of others, when it is time.
    pub(super) fn probe(&mut self, number: u64) {
        let (now, lease) = (self.now, self.terms.lease);
        let Some(host) = self.hosts.get_mut(&number) else { return };
        let Some(node) = host.node.filter(|_| now >= host.next_probe) else { return };
        host.next_probe = now + steps(lease) / u64::from(ROUNDS);
        let mut results = std::mem::take(&mut host.probed);
        let view = host.kernel.held.clone();
        results.retain(|node, _| view.nodes.contains_key(node));
        let rng = &mut self.rng;
        let any = |bound: u64| if bound == 0 { 0 } else { rng.below(bound) };
        let asked = targets(&view, node, &results, lease, any);
        let answered: BTreeSet<NodeId> =
            asked.keys().copied().filter(|node| self.answers(number, *node)).collect();
        note_answers(&mut results, &asked, &answered, Instant::now());
        if results.values().any(|Probed { unanswered, .. }| *unanswered > 0) {
            self.reach.hit("lease: probe without an answer");
        }
        self.host(number).probed = results;
    }

    /// Whether the data path of a node answers this host.
    fn answers(&self, from: u64, node: NodeId) -> bool {
        let Some(to) = self.machines.get(&node) else { return false };
        !self.off.contains_key(to) && self.reaches(from, *to)
    }

    /// Whether each of two hosts hears the other.
    pub(super) fn reaches(&self, from: u64, to: u64) -> bool {
        from == to || !(self.net.is_cut(from, to) || self.net.is_cut(to, from))
    }

    /// A leader says that a node is lost. Its data path must not have answered everybody for as long as its lease.
    pub(super) fn may_be_lost(&self, node: NodeId) {
        let Some(number) = self.machines.get(&node) else { return };
        let since = self.now.saturating_sub(steps(self.terms.lease) + LATE);
        let is_off = self.off.contains_key(number);
        let on_since = self.on_since.get(number).copied().unwrap_or(0);
        let has_answered = !is_off && on_since <= since && self.net.cut_last(*number) <= since;
        assert!(
            since == 0 || !has_answered,
            "node {node} counts as lost, and its data path has answered everybody for {} steps",
            self.now - since
        );
    }

    fn prove(&mut self, number: u64) {
        let now = self.now;
        let host = self.host(number);
        let Some((asked, answer)) = &mut host.proof else {
            if now >= host.next_proof {
                let (reply, answer) = oneshot::channel();
                host.proof = Some((Instant::now(), answer));
                host.ask(Item::Read(reply));
            }
            return;
        };
        let proved = match answer.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(Ok(index)) => {
                host.quorum.proved_at(*asked);
                let kernel = &mut host.kernel;
                kernel.gate = kernel.gate.or(Some(kernel.newest().max(index)));
                true
            }
            Ok(Err(_)) | Err(TryRecvError::Closed) => false,
        };
        host.proof = None;
        host.next_proof = now + PROOF[usize::from(!proved)];
    }

    fn follow_own(&mut self, number: u64) {
        self.probe(number);
        if self.program_own(number)
            && let Some(status) = self.own_status(number)
        {
            self.host(number).table.record(status);
        }
    }

    /// Makes a voter's kernel that of its own state. Returns true if it did so.
    fn program_own(&mut self, number: u64) -> bool {
        let generation = self.hosts[&number].generations.ours();
        let Self { hosts, truth, truths, .. } = self;
        let Some(host) = hosts.get_mut(&number) else { return false };
        let (Some(core), Some(node)) = (&host.core, host.node) else { return false };
        let ledger = core.machine();
        let kernel = &mut host.kernel;
        if kernel.gate.is_none() && kernel.is_empty() {
            kernel.gate = Some(0);
        }
        let own = host.own.get_or_insert_with(|| OwnView::new(node));
        if host.owned == ledger.published && kernel.held.revision >= ledger.published {
            return false;
        }
        let Own::View(view) = own.follow(&ledger.state.copy(), ledger.published) else {
            return false;
        };
        if std::mem::replace(&mut host.owned, ledger.published) != ledger.published {
            host.directory.replace(view.nodes.values().map(|node| Peer::from(&**node)));
        }
        // One that was an agent until now has a view that is newer than what it has received of the log so far.
        let Some(gate) = kernel.gate.filter(|_| kernel.held.revision < view.revision) else {
            return false;
        };
        let is_programmed = is_new_enough(view.revision, gate);
        if is_programmed {
            kernel.program(node, view, truths.get(&generation).unwrap_or(truth));
        }
        is_programmed
    }

    /// Tells the leader what is known first hand.
    fn report_on(&mut self, number: u64) {
        let now = self.now;
        let host = self.host(number);
        if now < host.next_report {
            return;
        }
        host.next_report = now + HEARTBEAT / 2;
        let own = self.own_status(number);
        let host = self.host(number);
        own.into_iter().for_each(|status| host.table.record(status));
        let Some(core) = &host.core else { return };
        let (own, leader) = (core.id(), core.seen().leader);
        let Some(life) = leader.filter(|leader| *leader != own) else { return };
        let reports = host.table.first_hand();
        let Some(to) = self.way_to(number, life) else { return };
        let packet = Packet { from: number, to, life, reports, ..Packet::default() };
        self.net.send(packet, now, &mut self.rng);
    }

    /// A report arrives.
    pub(super) fn take_reports(&mut self, to: u64, reports: Vec<NodeStatus>) {
        note!(self, "host {to} hears of {} nodes", reports.len());
        let host = self.host(to);
        reports.into_iter().for_each(|status| host.table.record_report(status));
    }
}
