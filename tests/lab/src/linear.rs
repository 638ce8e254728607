//! Checks a history of concurrent calls on one object for linearizability: whether each call can have taken effect at
//! one moment between its sending and its answer, so that all answers are those of one call after the other.
//!
//! The search is that of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with Lowe's memory
//! ("Testing for linearizability", 2017): what was taken already, and the state after it, is never searched twice.
//! No crate is used, because none was found that knows calls without an answer: such a call may have taken effect at any
//! time since, or never.

#[cfg(test)]
mod tests;

use std::{collections::HashSet, hash::Hash};

/// An object, as what one call after another does to it.
pub trait Object {
    /// What there is to know of the object.
    type State: Clone + Eq + Hash;
    /// A call with its answer.
    type Operation: Clone;

    /// The state after a call. `None` if the call would have had another answer in this state.
    fn apply(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;

    /// Returns true if the operation changes the object in no state.
    fn only_reads(&self, operation: &Self::Operation) -> bool;
}

/// A call of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<O> {
    /// When it was sent, in any unit.
    pub sent: u64,
    /// Until when it took effect, if it did: when it was answered. `u64::MAX` if there was no answer.
    pub until: u64,
    /// Returns false for a call that may never have taken effect.
    pub is_sure: bool,
    /// What was asked and answered.
    pub operation: O,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains all answers.
    Linearizable,
    /// There is none.
    NotLinearizable,
    /// The search was given up at its limit.
    Undecided,
}

/// Searches an order of the calls that explains all answers. The search is given up after `most` different steps, each of which
/// takes some hundred bytes.
pub fn check<B: Object>(
    object: &B,
    start: &B::State,
    calls: &[Call<B::Operation>],
    most: usize,
) -> Verdict {
    let mut calls: Vec<&Call<B::Operation>> = calls.iter().collect();
    calls.sort_by_key(|call| (call.sent, call.until));
    let sure = calls.iter().filter(|call| call.is_sure).count();
    let first = Step { taken: Taken::none(calls.len()), sure: 0, latest: 0, state: start.clone() };
    let (mut seen, mut open) = (HashSet::new(), vec![first]);
    while let Some(step) = open.pop() {
        if step.sure == sure {
            return Verdict::Linearizable;
        }
        for next in step.next(object, &calls) {
            if seen.insert((next.taken.clone(), next.state.clone())) {
                open.push(next);
            }
        }
        if seen.len() > most {
            return Verdict::Undecided;
        }
    }
    Verdict::NotLinearizable
}

/// The part of a history that shows why it is not linearizable: all until the first answer that nothing explains, without
/// the reads that are not needed to show it. A history that is linearizable, or about which `most` steps do not decide, comes
/// back as it is.
pub fn shortest<B: Object>(
    object: &B,
    start: &B::State,
    calls: &[Call<B::Operation>],
    most: usize,
) -> Vec<Call<B::Operation>> {
    let is_wrong = |calls: &[Call<B::Operation>]| {
        check(object, start, calls, most) == Verdict::NotLinearizable
    };
    if !is_wrong(calls) {
        return calls.to_vec();
    }
    let mut answers: Vec<u64> =
        calls.iter().filter(|call| call.is_sure).map(|call| call.until).collect();
    answers.sort_unstable();
    answers.dedup();
    // What is linearizable, is so until each of its answers.
    let first = answers.partition_point(|&answer| !is_wrong(&until(calls, answer)));
    let mut left = answers.get(first).map_or_else(|| calls.to_vec(), |&it| until(calls, it));
    left.sort_by_key(|call| (call.sent, call.until));
    let mut place = 0;
    while let Some(call) = left.get(place) {
        if object.only_reads(&call.operation) {
            let call = left.remove(place);
            if is_wrong(&left) {
                continue;
            }
            left.insert(place, call);
        }
        place += 1;
    }
    left
}

/// The history as it was known at a moment: what was not answered by then may have had its effect, or not.
fn until<O: Clone>(calls: &[Call<O>], moment: u64) -> Vec<Call<O>> {
    let sent = calls.iter().filter(|call| call.sent <= moment);
    sent.map(|call| Call { is_sure: call.is_sure && call.until <= moment, ..call.clone() })
        .collect()
}

/// What has been taken so far, and the state after it.
struct Step<S> {
    taken: Taken,
    /// How many of what was taken are sure.
    sure: usize,
    /// When the last of them was sent: what was over by then can't follow.
    latest: u64,
    state: S,
}

impl<S: Clone + Eq> Step<S> {
    /// The steps that may follow, the most promising one last.
    fn next<B: Object<State = S>>(&self, object: &B, calls: &[&Call<B::Operation>]) -> Vec<Self> {
        // The first answer among what was not taken: what was sent later must wait.
        let mut answer = u64::MAX;
        let mut places = Vec::new();
        for (place, call) in calls.iter().enumerate().skip(self.taken.first_missing()) {
            if call.sent > answer {
                break;
            }
            if self.taken.has(place) || call.until < self.latest {
                continue;
            }
            places.push(place);
            if call.is_sure {
                answer = answer.min(call.until);
            }
        }
        places.retain(|&place| calls[place].sent <= answer);
        places.sort_by_key(|&place| (calls[place].is_sure, u64::MAX - calls[place].until));
        // What is over before this moment can't follow a call that was sent later.
        let over = places.iter().map(|&place| calls[place].until).min().unwrap_or(u64::MAX);
        let mut steps = Vec::new();
        for place in places {
            let call = calls[place];
            let Some(state) = object.apply(&self.state, &call.operation) else { continue };
            // A read that fits now fits here in any order that it fits in later, if it keeps nothing from following.
            let is_settled = call.is_sure
                && call.sent <= over
                && state == self.state
                && object.only_reads(&call.operation);
            let step = Self {
                taken: self.taken.with(place),
                sure: self.sure + usize::from(call.is_sure),
                latest: self.latest.max(call.sent),
                state,
            };
            if is_settled {
                return vec![step];
            }
            steps.push(step);
        }
        steps
    }
}

/// A set of the places of calls.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Box<[u64]>);

impl Taken {
    fn none(calls: usize) -> Self {
        Self(vec![0; calls.div_ceil(64)].into())
    }

    fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn with(&self, place: usize) -> Self {
        let mut taken = self.clone();
        taken.0[place / 64] |= 1 << (place % 64);
        taken
    }

    fn first_missing(&self) -> usize {
        let full = self.0.iter().take_while(|&&word| word == u64::MAX).count();
        let rest = self.0.get(full).map_or(0, |word| word.trailing_ones());
        full * 64 + usize::try_from(rest).unwrap_or_default()
    }
}
