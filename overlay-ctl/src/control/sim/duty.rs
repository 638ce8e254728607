//! The leader's duty towards membership, as `voter/members.rs` decides it: the group gets the members that the rows name.

use super::{
    host::{Duty, Item},
    world::{World, note},
};
use crate::{
    control::{
        consensus::ProposeError,
        voter::members::{Change, next_change},
    },
    model::{Node, RaftId},
};
use std::collections::BTreeSet;
use tokio::sync::oneshot::{self, error::TryRecvError};

/// How often it looks, in ticks.
const PERIOD: u64 = 10;
/// How long it waits for one change, in steps.
const PATIENCE: u64 = 500;

impl World {
    /// What a host does for the members after a turn, if it leads.
    pub(super) fn do_duty(&mut self, number: u64) {
        let now = self.now;
        let host = self.host(number);
        if let Some(duty) = &mut host.duty {
            let answer = match duty.answer.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) if now < duty.until => return,
                Err(_) => Err(ProposeError::Stopped),
            };
            let change = duty.change;
            // A removal that was not begun is called off.
            host.duty = None;
            note!(self, "host {number} changed the members: {change:?} {answer:?}");
            match (change, answer) {
                (Change::Add(_), Ok(_)) => self.reach.hit("answer: member added"),
                (Change::Remove(_), Ok(_)) => self.reach.hit("answer: member removal done"),
                (_, Err(error)) => self.hit_error(&error),
            }
            return;
        }
        if !host.leads() || !host.ticks.is_multiple_of(PERIOD) {
            return;
        }
        let Some(status) = host.status() else { return };
        let Some(core) = &host.core else { return };
        let wanted: BTreeSet<RaftId> =
            core.machine().state.read(|state| state.nodes().filter_map(Node::life).collect());
        let members = [status.voters, status.outgoing, status.learners].concat();
        let members: BTreeSet<RaftId> = members.into_iter().filter_map(RaftId::new).collect();
        let leaves = |life: RaftId| host.leaving.contains(&life.get());
        let own = RaftId::new(status.id);
        let Some(change) = next_change(own, &wanted, &members, leaves) else { return };
        let (reply, answer) = oneshot::channel();
        host.ask(match change {
            Change::Add(life) => Item::Add(life.get(), reply),
            Change::Remove(life) => Item::Remove(life.get(), reply),
        });
        host.duty = Some(Duty { change, answer, until: now + PATIENCE });
    }

    /// Counts why a request was not carried out.
    pub(super) fn hit_error(&mut self, error: &ProposeError) {
        self.reach.hit(match error {
            ProposeError::NotLeader { .. } => "answer: not the leader",
            ProposeError::Dropped => "answer: dropped",
            ProposeError::NoRoom(_) => "answer: no room",
            ProposeError::Stalled { .. } => "answer: stalled",
            ProposeError::NoQuorum => "answer: read without quorum",
            ProposeError::Refused(_) => "answer: refused by the members",
            ProposeError::Stopped => "answer: stopped",
            ProposeError::Overloaded | ProposeError::Invalid(_) => {
                panic!("nobody asks for so much: {error}")
            }
        });
    }
}
