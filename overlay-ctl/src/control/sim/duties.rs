//! The leader's other duties, each as the product decides it: the version is raised (`voter/version.rs`), leases are noted
//! (`voter/leases.rs`), and seats are given and taken (`voter/seats.rs`). When a duty looks, and how it waits for what it asked
//! for, is a model of the product's tasks.

use super::{
    host::{Host, Item, Pending},
    world::{World, note},
};
use crate::{
    control::{
        consensus::ProposeError,
        state::{Command, Mutation, Outcome},
        voter::{
            leases::{Change, Found, Keeper},
            seats::{
                self, Next,
                followed::{Followed, Patience},
            },
            version,
        },
    },
    model::{Lease, RaftId, Version},
};
use std::{collections::VecDeque, time::Duration};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// How often the leader looks, in ticks.
const PERIOD: u64 = 5;
/// How long it waits for one answer, in steps.
const PATIENCE: u64 = 500;

/// What the cluster of a run is told at its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How long a node may be silent.
    pub(super) lease: Duration,
    /// After what time a voter, and a learner, is replaced.
    pub(super) patience: Patience,
    /// For how long each node must have spoken the next version.
    pub(super) hold: Duration,
}

/// A change of a seat that is under way.
enum Seating {
    /// Whether this leader leads still.
    Fresh(Next, Pending<u64>),
    /// The membership of the life ends.
    Ends(Next, RaftId, Pending<u64>),
    /// Its row is to change.
    Changes(Next, Option<RaftId>, Pending<(u64, Outcome)>),
}

/// What a host does as the leader, besides that for the members.
#[derive(Default)]
pub(super) struct Duties {
    /// It has led since they were looked at.
    leads: bool,
    raise: Option<(Pending<(u64, Outcome)>, u64)>,
    keeper: Option<Keeper>,
    /// What is to be noted of this look, and what is being noted.
    notes: VecDeque<Change>,
    half_is_silent: bool,
    noting: Option<(Change, Pending<(u64, Outcome)>, u64)>,
    followed: Followed,
    seat: Option<(Seating, u64)>,
}

/// What came of a request that is waited for until a step; `None` = nothing yet.
fn answer<T>(pending: &mut Pending<T>, now: u64, until: u64) -> Option<Result<T, ProposeError>> {
    match pending.try_recv() {
        Ok(answer) => Some(answer),
        Err(TryRecvError::Empty) if now < until => None,
        Err(_) => Some(Err(ProposeError::Stopped)),
    }
}

impl World {
    /// What a host does after a turn, if it leads.
    pub(super) fn do_duties(&mut self, number: u64) {
        let host = self.host(number);
        if !host.leads() {
            if !std::mem::take(&mut host.duties.leads) {
                return;
            }
            let duties = &mut host.duties;
            (duties.raise, duties.noting, duties.keeper) = (None, None, None);
            duties.notes.clear();
            duties.followed.end();
            if duties.seat.take().is_some_and(|(seating, _)| matches!(seating, Seating::Ends(..))) {
                host.leaving.clear();
            }
            return;
        }
        host.duties.leads = true;
        let looks = host.ticks.is_multiple_of(PERIOD) && host.looked != host.ticks;
        host.looked = host.ticks;
        self.raise(number, looks);
        self.keep_leases(number, looks);
        self.arrange_the_seats(number, looks);
    }

    /// The leader logs a command of its own.
    fn log_own(&mut self, number: u64, command: Command) -> Pending<(u64, Outcome)> {
        let id = [self.rng.next().to_be_bytes(), self.rng.next().to_be_bytes()].concat();
        let request = Mutation::new(id.try_into().expect("16 bytes"), &command);
        let (reply, answer) = oneshot::channel();
        self.host(number).ask(Item::Propose(request, command, reply));
        answer
    }

    fn raise(&mut self, number: u64, looks: bool) {
        let (now, hold) = (self.now, self.terms.hold);
        let is_old = self.old.contains(&number);
        let host = self.host(number);
        if let Some((pending, until)) = &mut host.duties.raise {
            let Some(answer) = answer(pending, now, *until) else { return };
            host.duties.raise = None;
            match answer {
                Ok((_, Ok(_))) => self.reach.hit("version: raised"),
                Ok((_, Err(refusal))) => {
                    note!(self, "host {number} does not raise the version: {refusal}");
                    self.reach.hit("version: raise refused");
                }
                Err(error) => self.hit_error(&error),
            }
            return;
        }
        let Some(core) = host.core.as_ref().filter(|_| looks && !is_old) else { return };
        let state = core.machine().state.copy();
        let Some(raise) = version::due(&state, &host.table, hold) else {
            if state.version() < Version::V2 {
                self.reach.hit("version: waits for a node");
            }
            return;
        };
        let pending = self.log_own(number, raise);
        self.host(number).duties.raise = Some((pending, now + PATIENCE));
    }

    fn keep_leases(&mut self, number: u64, looks: bool) {
        let (now, lease) = (self.now, self.terms.lease);
        let host = self.host(number);
        let duties = &mut host.duties;
        if duties.noting.is_none() && duties.notes.is_empty() && !looks {
            return;
        }
        let Some(core) = &host.core else { return };
        let state = core.machine().state.copy();
        if let Some((change, pending, until)) = &mut duties.noting {
            let Some(answer) = answer(pending, now, *until) else { return };
            let to = change.to();
            duties.noting = None;
            match answer {
                Ok((_, Ok(_))) => self.reach.hit(match to {
                    Lease::Held => "lease: held again",
                    Lease::Doubted => "lease: doubted",
                    Lease::Lost => "lease: lost",
                }),
                Ok((_, Err(refusal))) => {
                    note!(self, "host {number} does not note a lease: {refusal}");
                    self.reach.hit("lease: noted too late");
                }
                Err(error) => {
                    // Where there is no quorum, what was found out is old before the next one is.
                    self.host(number).duties.notes.clear();
                    self.hit_error(&error);
                }
            }
            return;
        }
        let keeper = duties.keeper.get_or_insert_with(|| Keeper::new(lease));
        if duties.notes.is_empty() {
            if !looks {
                return;
            }
            let Found { changes, half_is_silent } = keeper.find(&state, &host.table);
            duties.notes = changes.into();
            duties.half_is_silent = half_is_silent;
            keeper.end_of_look();
            if half_is_silent {
                self.reach.hit("lease: half of the nodes are silent");
            }
        }
        let host = self.host(number);
        let Host { duties, table, .. } = host;
        let Some(change) = duties.notes.pop_front() else { return };
        let is_right = duties
            .keeper
            .as_ref()
            .is_some_and(|keeper| keeper.is_right(&change, duties.half_is_silent, (&state, table)));
        if !is_right {
            self.reach.hit("lease: heard before it was noted");
            return;
        }
        if change.to() == Lease::Lost {
            self.may_be_lost(change.node());
        }
        note!(self, "host {number} notes {change:?}");
        let pending = self.log_own(number, change.command());
        self.host(number).duties.noting = Some((change, pending, now + PATIENCE));
    }

    fn arrange_the_seats(&mut self, number: u64, looks: bool) {
        let (now, patience) = (self.now, self.terms.patience);
        let host = self.host(number);
        let Some(seating) = host.duties.seat.take() else {
            if looks && let Some(next) = self.look_at_the_seats(number, patience) {
                let (reply, answer) = oneshot::channel();
                self.host(number).ask(Item::Read(reply));
                let fresh = Seating::Fresh(next, answer);
                self.host(number).duties.seat = Some((fresh, now + PATIENCE));
            }
            return;
        };
        let (seating, until) = seating;
        let went_on = self.go_on_with_a_seat(number, seating, until);
        self.host(number).duties.seat = went_on;
    }

    fn look_at_the_seats(&mut self, number: u64, patience: Patience) -> Option<Next> {
        let host = self.host(number);
        let status = host.status()?;
        let state = host.core.as_ref()?.machine().state.copy();
        let Host { duties, table, .. } = host;
        seats::look((&status, &state, table), &mut duties.followed, patience)
    }

    /// Goes on with a change of a seat; `None` = it is over.
    fn go_on_with_a_seat(
        &mut self,
        number: u64,
        seating: Seating,
        until: u64,
    ) -> Option<(Seating, u64)> {
        let (now, patience) = (self.now, self.terms.patience);
        match seating {
            Seating::Fresh(next, mut pending) => {
                let Some(answer) = answer(&mut pending, now, until) else {
                    return Some((Seating::Fresh(next, pending), until));
                };
                if let Err(error) = answer {
                    self.hit_error(&error);
                    return None;
                }
                if self.look_at_the_seats(number, patience) != Some(next) {
                    self.reach.hit("seat: done already, or not needed any more");
                    return None;
                }
                let state = self.host(number).core.as_ref()?.machine().state.copy();
                let step = next.step(&state).ok()??;
                note!(self, "host {number} arranges a seat: {next:?}");
                let Some(life) = step.ends else {
                    let pending = self.log_own(number, step.command);
                    return Some((Seating::Changes(next, None, pending), now + PATIENCE));
                };
                let (reply, answer) = oneshot::channel();
                let host = self.host(number);
                host.leaving.insert(life.get());
                host.ask(Item::Replace(life.get(), reply));
                Some((Seating::Ends(next, life, answer), now + PATIENCE))
            }
            Seating::Ends(next, life, mut pending) => {
                let Some(answer) = answer(&mut pending, now, until) else {
                    return Some((Seating::Ends(next, life, pending), until));
                };
                if let Err(error) = answer {
                    self.hit_error(&error);
                    self.host(number).leaving.remove(&life.get());
                    self.reach.hit("seat: can't be taken now");
                    return None;
                }
                let state = self.host(number).core.as_ref()?.machine().state.copy();
                let Ok(Some(step)) = next.step(&state) else {
                    self.host(number).leaving.remove(&life.get());
                    return None;
                };
                let pending = self.log_own(number, step.command);
                Some((Seating::Changes(next, Some(life), pending), now + PATIENCE))
            }
            Seating::Changes(next, ended, mut pending) => {
                let Some(answer) = answer(&mut pending, now, until) else {
                    return Some((Seating::Changes(next, ended, pending), until));
                };
                if let Some(life) = ended {
                    self.host(number).leaving.remove(&life.get());
                }
                note!(self, "host {number} arranged a seat: {next:?}, {answer:?}");
                match (next, answer) {
                    (Next::Promote { instead_of: Some(_), .. }, Ok((_, Ok(_)))) => {
                        self.reach.hit("seat: given instead of another's");
                    }
                    (Next::Promote { .. }, Ok((_, Ok(_)))) => self.reach.hit("seat: given"),
                    (_, Ok((_, Ok(_)))) => self.reach.hit("seat: taken"),
                    (_, Ok((_, Err(_)))) => self.reach.hit("seat: refused"),
                    (_, Err(error)) => self.hit_error(&error),
                }
                None
            }
        }
    }
}
