//! Finds the leader for a request: the request is carried out here if this node leads, and forwarded if another one
//! does.

use super::{
    Controller,
    check::Check,
    error::{Attempt, ControllerError, Effect},
    verb::{Leader, Travels as _, Verb, pack, read_error},
};
use crate::control::{
    consensus::Role,
    peers::{CallError, Peer},
    state::{Refusal, State},
    voter::VoterParts,
};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest search for a leader: callers are promised an answer within 5 s, and the last attempt may take a moment
/// longer.
pub(super) const LEADER_DEADLINE: Duration = Duration::from_millis(3500);
/// Less than this is not worth another hop.
const PATIENCE_MIN: Duration = Duration::from_millis(100);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// What an attempt may take beyond the deadline: a leader without a quorum notices within this.
const LAST_ATTEMPT: Duration = Duration::from_millis(1200);

enum Place {
    Here(Box<Leader>),
    There(Vec<Peer>),
}

/// How the attempts so far ended.
struct Search {
    /// How long a leader may be looked for in one go.
    patience: Duration,
    /// When the search ends.
    deadline: Instant,
    /// The deadline is never moved beyond this. Who gave the patience waits for no longer either.
    limit: Instant,
    why: String,
    effect: Effect,
}

impl Search {
    /// A search that begins now, for a request that may wait at the leader for as long as `waits`.
    fn new(patience: Duration, waits: Duration) -> Self {
        let patience = patience.min(LEADER_DEADLINE);
        let deadline = Instant::now() + patience;
        Self {
            patience,
            deadline,
            limit: deadline + waits,
            why: "the leader is not known".to_owned(),
            effect: Effect::None,
        }
    }

    /// The connection broke in the middle of an attempt, perhaps after a long wait at the leader: the next leader is
    /// given the whole patience, up to the limit.
    fn broke(&mut self) {
        self.deadline = self.deadline.max(self.limit.min(Instant::now() + self.patience));
    }

    /// Notes that an attempt gave no answer.
    fn again(&mut self, why: impl Into<String>, effect: Effect) {
        self.why = why.into();
        self.effect = self.effect.or(effect);
    }
}

impl Controller {
    /// What a request is carried out with on this voter.
    pub(super) fn parts(&self, voter: &VoterParts, stale: Option<State>) -> Leader {
        let check =
            Check { own: self.id, here: self.check.clone(), directory: self.directory.clone() };
        let stale = stale.map(Box::new);
        Leader { voter: voter.clone(), check, lists: self.lists.clone(), stale }
    }

    /// The voters that an agent asks. Its own row may still say that it is one itself, or say so already.
    pub(super) fn other_voters(&self) -> Vec<Peer> {
        let mut voters = self.directory.voters();
        voters.retain(|peer| peer.id != self.id);
        voters
    }

    fn place(&self) -> Place {
        let Some(voter) = self.seat.get() else {
            return Place::There(self.other_voters());
        };
        let status = voter.consensus.status().borrow().clone();
        if status.role == Role::Leader {
            return Place::Here(Box::new(self.parts(&voter, None)));
        }
        let leader = status.leader.and_then(|leader| self.directory.node_of(leader));
        let leader = leader.filter(|leader| *leader != self.id);
        Place::There(leader.and_then(|leader| self.directory.peer(leader)).into_iter().collect())
    }

    /// Has the leader answer a request: this node if it leads, else the one that does. Tries again while there is no
    /// leader, until `patience` is over; the request may therefore be carried out more than once, each time with the
    /// same request id.
    pub(super) async fn at_leader<V: Verb>(
        &self,
        verb: V,
        patience: Duration,
    ) -> Result<V::Answer, ControllerError> {
        verb.check().map_err(Refusal::from)?;
        let mut search = Search::new(patience, V::WAITS);
        // What became of an attempt that was given up.
        let given_up = if V::CHANGES { Effect::Unknown } else { Effect::None };
        loop {
            match self.place() {
                Place::Here(leader) => {
                    let attempt = verb.clone().carry_out(*leader);
                    let until = search.deadline + V::WAITS + LAST_ATTEMPT;
                    match timeout_at(until, attempt).await {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(Attempt::Failed(error))) => return Err(error.after(search.effect)),
                        Ok(Err(Attempt::Again { why, effect })) => search.again(why, effect),
                        Err(_) => search.again("the leader did not answer in time", given_up),
                    }
                }
                Place::There(peers) => {
                    let count = peers.len();
                    for (asked, peer) in peers.iter().enumerate() {
                        let left = search.deadline.saturating_duration_since(Instant::now());
                        let Some(turn) = turn(left, count - asked) else { break };
                        if let Some(answer) =
                            self.ask(peer, &verb, turn, given_up, &mut search).await
                        {
                            return answer;
                        }
                    }
                }
            }
            let next = Instant::now() + PAUSE;
            if next >= search.deadline {
                let Search { why, effect, .. } = search;
                return Err(ControllerError::NoLeader { why, effect });
            }
            self.leader_may_have_changed(next).await;
        }
    }

    /// Forwards the request to `peer`. `None` if that gave no answer, and another attempt may.
    async fn ask<V: Verb>(
        &self,
        peer: &Peer,
        verb: &V,
        turn: Duration,
        given_up: Effect,
        search: &mut Search,
    ) -> Option<Result<V::Answer, ControllerError>> {
        let request = match pack(verb) {
            Ok(request) => request,
            Err(error) => return Some(Err(error)),
        };
        let call = self.directory.forward(peer, request, turn);
        match timeout_at(search.deadline + V::WAITS + LAST_ATTEMPT, call).await {
            Ok(Ok(Ok(answer))) => return Some(V::Answer::unpack(answer, &self.lists)),
            Ok(Ok(Err(error))) => match read_error(&error) {
                ControllerError::NoLeader { why, effect } => search.again(why, effect),
                error @ ControllerError::Stopping { effect } => {
                    search.again(error.to_string(), effect);
                }
                error => return Some(Err(error.after(search.effect))),
            },
            Ok(Err(CallError::Unavailable(why))) => search.again(why, given_up),
            Ok(Err(CallError::Broken(why))) => {
                search.again(why, given_up);
                search.broke();
            }
            Ok(Err(CallError::Unknown(why))) => {
                let why = format!("node {} takes no forwarded requests ({why})", peer.id);
                return Some(Err(ControllerError::Version(why)));
            }
            Ok(Err(
                error @ (CallError::Refused(_)
                | CallError::Failed(_)
                | CallError::Removed
                | CallError::RunsElsewhere(_)),
            )) => {
                let is_definite = !matches!(error, CallError::Failed(_));
                return Some(Err(ControllerError::PeerRefused {
                    node: peer.id,
                    why: error.to_string(),
                    effect: if is_definite { search.effect } else { search.effect.or(given_up) },
                }));
            }
            Err(_) => search.again(format!("node {} does not answer", peer.id), given_up),
        }
        None
    }

    async fn leader_may_have_changed(&self, until: Instant) {
        let Some(voter) = self.seat.get() else {
            tokio::time::sleep_until(until).await;
            return;
        };
        let mut status = voter.consensus.status();
        let leader = status.borrow().leader;
        let changed = status.wait_for(|status| status.leader.is_some() && status.leader != leader);
        // Either way there is another attempt.
        drop(timeout_at(until, changed).await);
    }
}

/// How long the next of `still_to_ask` peers may look for a leader. A voter that is cut off looks for as long as
/// it may: the others must have their turn. `None` if the time left is not worth another hop.
pub(super) fn turn(left: Duration, still_to_ask: usize) -> Option<Duration> {
    let turn = left / u32::try_from(still_to_ask).unwrap_or(u32::MAX).max(1);
    (turn >= PATIENCE_MIN).then_some(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_broken_connection_gives_the_search_no_more_than_the_caller_waits() {
        let (patience, waits) = (Duration::from_secs(2), Duration::from_secs(10));
        let began = Instant::now();
        let mut search = Search::new(patience, waits);
        assert_eq!(search.deadline, began + patience);
        tokio::time::advance(Duration::from_secs(7)).await;
        search.broke();
        assert_eq!(search.deadline, began + Duration::from_secs(9), "the whole patience again");
        for _ in 0..9 {
            tokio::time::advance(Duration::from_secs(1)).await;
            search.broke();
        }
        assert_eq!(search.deadline, began + patience + waits, "however often it breaks");
        // A request that waits for nothing at the leader.
        let began = Instant::now();
        let mut search = Search::new(patience, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(1)).await;
        search.broke();
        assert_eq!(search.deadline, began + patience);
    }

    #[test]
    fn every_voter_has_its_turn_however_long_the_others_take() {
        let mut left = LEADER_DEADLINE;
        let mut asked = 0;
        for still_to_ask in [3, 2, 1] {
            let turn = turn(left, still_to_ask).expect("a turn");
            assert!(turn >= Duration::from_secs(1), "{turn:?} is no time to elect a leader in");
            left -= turn;
            asked += 1;
        }
        assert_eq!((asked, left), (3, Duration::ZERO));
        assert_eq!(turn(left, 1), None);
        // A leader alone is given all there is.
        assert_eq!(turn(LEADER_DEADLINE, 1), Some(LEADER_DEADLINE));
    }
}
