//! What a voter does besides consensus: it proves its quorum, follows its own state, and passes on to the leader what nodes
//! report.

use super::{
    host::Item,
    net::Packet,
    world::{World, note},
};
use crate::{
    control::{
        voter::to_wire,
        watch::{Own, OwnView, is_new_enough},
    },
    dataplane::kernel::LocalStatus,
    model::{NodeId, Revision},
    proto::internal::NodeStatus,
};
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::Instant,
};

/// A step, in milliseconds of virtual time.
pub(super) const STEP: u64 = 10;
/// How many steps after a proof of its quorum a voter asks for the next one, and after a failure.
const PROOF: [u64; 2] = [100, 10];
/// How often a status is repeated, in steps.
pub(super) const HEARTBEAT: u64 = 50;

/// A node's own status, as it reports it.
pub(super) fn status(node: NodeId, epoch: Revision, programmed: Revision) -> NodeStatus {
    to_wire(node, epoch, &LocalStatus { programmed, ..LocalStatus::default() })
}

impl World {
    /// After a turn of a host's driver.
    pub(super) fn do_the_rest(&mut self, number: u64) {
        self.prove(number);
        self.follow_own(number);
        self.report_on(number);
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
        let truth = self.truth.clone();
        let host = self.host(number);
        let (Some(core), Some(node)) = (&host.core, host.node) else { return };
        let ledger = core.machine();
        let kernel = &mut host.kernel;
        if kernel.gate.is_none() && kernel.is_empty() {
            kernel.gate = Some(0);
        }
        let Some(gate) = kernel.gate else { return };
        let own = host.own.get_or_insert_with(|| OwnView::new(node));
        if kernel.held.revision >= ledger.published {
            return;
        }
        let Own::View(view) = own.follow(&ledger.state.copy(), ledger.published) else { return };
        if is_new_enough(view.revision, gate) {
            kernel.program(node, view, &truth);
            host.table.record(status(node, host.epoch, kernel.held.revision));
        }
    }

    /// Tells the leader what is known first hand.
    fn report_on(&mut self, number: u64) {
        let now = self.now;
        let host = self.host(number);
        if now < host.next_report {
            return;
        }
        host.next_report = now + HEARTBEAT / 5;
        if let Some(node) = host.node {
            host.table.record(status(node, host.epoch, host.kernel.held.revision));
        }
        let Some(status) = host.status() else { return };
        let reports = host.table.first_hand();
        let Some(life) = status.leader.filter(|leader| *leader != status.id) else { return };
        let Some(&to) = self.lives.get(&life) else { return };
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
