//! Hosts register again and again, and take the part that their rows give them, as `node/registration.rs` and `node/part.rs`
//! do. The answer is a copy of the leader's state; how long it takes is a model.

use super::{
    host::Item,
    world::{World, note},
};
use crate::model::{Node, RaftId};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// How often a host looks whether an answer has come, in steps.
const LOOKS: u64 = 7;
/// How often a node registers again, in steps.
const RENEWAL: u64 = 150;

impl World {
    /// A host hears, as from the leader's answer to a registration, which part it is to have.
    pub(super) fn renew(&mut self, number: u64) {
        let now = self.now;
        if !(now + number).is_multiple_of(LOOKS) {
            return;
        }
        let host = self.host(number);
        let Some(node) = host.node.filter(|_| host.runs() && now >= host.paused_until) else {
            return;
        };
        self.go_on_moving(number);
        let host = self.host(number);
        if let Some((leader, mut pending)) = host.renewal.take() {
            match pending.try_recv() {
                Ok(Ok(_)) => {
                    let is_there = self.finds(number, leader);
                    let core = self.hosts.get(&leader).and_then(|host| host.core.as_ref());
                    let state = core.filter(|_| is_there).map(|core| core.machine().state.copy());
                    let Some(state) = state else { return };
                    let host = self.host(number);
                    let has_log = host.life.is_some();
                    let generations = host.generations.clone();
                    generations.compare(state.generation(), None);
                    if generations.adopt_unless(state.generation(), || has_log) {
                        self.reach.hit("generation: an agent goes on into a newer one");
                    }
                    if let Some(row) = state.node(node).cloned()
                        && generations.ours() == state.generation()
                    {
                        self.host(number).epoch = row.epoch;
                        self.learn(number, &state);
                        self.follow_the_move(number, &row);
                        self.take_part(number, &row);
                    }
                }
                Err(TryRecvError::Empty) if now < self.host(number).next_renewal => {
                    self.host(number).renewal = Some((leader, pending));
                }
                _ => {}
            }
            return;
        }
        if now < host.next_renewal {
            return;
        }
        host.next_renewal = now + RENEWAL;
        if self.is_healed {
            self.say_where(number);
        }
        let Some(leader) = self.leader().filter(|leader| self.finds(number, *leader)) else {
            return;
        };
        let (reply, answer) = oneshot::channel();
        self.host(leader).ask(Item::Read(reply));
        self.host(number).renewal = Some((leader, answer));
    }

    /// A host takes the part that its row says, as `node/part.rs` does: a seat and its log, or none.
    fn take_part(&mut self, number: u64, row: &Node) {
        // Its operator is about it.
        if self.in_hand == Some(number) {
            return;
        }
        let told = row.life().map(RaftId::get);
        let host = self.host(number);
        let (now, last) = (host.life, host.last_life);
        match (now, told) {
            (Some(life), None) => {
                note!(self, "host {number} has no seat any more, and lets go of log {life}");
                self.reach.hit("seat: left");
                let host = self.host(number);
                host.end();
                host.life = None;
                host.disk = Default::default();
                host.faults = Default::default();
            }
            (None, Some(life)) if last < Some(life) => {
                note!(self, "host {number} takes a seat as {life}");
                self.reach.hit("seat: taken by its node");
                let host = self.host(number);
                let kernel_gate = host.kernel.gate;
                host.disk = Default::default();
                host.faults = Default::default();
                (host.life, host.last_life) = (Some(life), Some(life));
                self.lives.insert(life, number);
                self.start(number);
                self.host(number).kernel.gate = kernel_gate;
            }
            (Some(life), Some(told)) if life != told => {
                // It lost its seat and got another one, and heard of neither.
                note!(self, "host {number} is {told} by now, and not {life}");
                self.reach.hit("seat: another life of its own was begun");
                self.over.insert(number);
                let host = self.host(number);
                host.end();
                host.faults.is_lost = true;
            }
            _ => {}
        }
    }
}
