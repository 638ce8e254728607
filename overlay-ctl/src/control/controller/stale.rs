//! Reads that may be stale: any voter answers them by its own state, without a leader and without a quorum.

use super::{
    Controller,
    error::{Attempt, ControllerError},
    leader::{LEADER_DEADLINE, turn},
    verb::{Travels as _, Verb, pack, read_error},
};
use crate::{
    control::{peers::CallError, state::Refusal, voter::VoterParts},
    model::Revision,
};
use tokio::time::{Instant, timeout};

/// By which state a read is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The leader's, behind the linearizable barrier: it shows every write that was acknowledged before.
    Latest,
    /// That of any voter: it may lack any number of the last writes, and is there without a quorum.
    Stale,
}

/// The answer to a read.
#[derive(Debug)]
pub struct Read<T> {
    /// What was asked for.
    pub answer: T,
    /// The revision of the state that it shows, if that may be stale; `None` = it shows all that was acknowledged.
    pub as_of: Option<Revision>,
}

impl Controller {
    /// Answers a request that changes nothing.
    pub(super) async fn read<V: Verb>(
        &self,
        verb: V,
        reading: Reading,
    ) -> Result<Read<V::Answer>, ControllerError> {
        match (reading, self.seat.get()) {
            (Reading::Latest, _) => {
                let answer = self.at_leader(verb, LEADER_DEADLINE).await?;
                Ok(Read { answer, as_of: None })
            }
            (Reading::Stale, Some(voter)) => self.by_own_state(&voter, verb).await,
            (Reading::Stale, None) => self.by_any_voter(&verb).await,
        }
    }

    /// Answers a stale request that another node forwarded.
    pub(super) async fn read_here<V: Verb>(
        &self,
        verb: V,
    ) -> Result<Read<V::Answer>, ControllerError> {
        match self.seat.get() {
            Some(voter) => self.by_own_state(&voter, verb).await,
            None => Err(ControllerError::NoVoter { why: "another agent was asked".to_owned() }),
        }
    }

    async fn by_own_state<V: Verb>(
        &self,
        voter: &VoterParts,
        verb: V,
    ) -> Result<Read<V::Answer>, ControllerError> {
        if V::CHANGES {
            return Err(ControllerError::StaleWrite);
        }
        verb.check().map_err(Refusal::from)?;
        let state = voter.state.copy();
        if state.revision() == 0 {
            // It has just joined, and 0 is also what a leader's answer says.
            return Err(ControllerError::NoVoter { why: "it has no state yet".to_owned() });
        }
        let as_of = Some(state.revision());
        match verb.carry_out(self.parts(voter, Some(state))).await {
            Ok(answer) => Ok(Read { answer, as_of }),
            Err(Attempt::Failed(error)) => Err(error),
            Err(Attempt::Again { why, .. }) => Err(ControllerError::defect(why)),
        }
    }

    /// Has any voter answer by its own state.
    async fn by_any_voter<V: Verb>(&self, verb: &V) -> Result<Read<V::Answer>, ControllerError> {
        let voters = self.other_voters();
        let deadline = Instant::now() + LEADER_DEADLINE;
        let mut why = "none is known".to_owned();
        for (asked, peer) in voters.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(turn) = turn(left, voters.len() - asked) else { break };
            let call = self.directory.forward_stale(peer, pack(verb)?, turn);
            why = match timeout(turn + V::WAITS, call).await {
                Ok(Ok((Ok(answer), as_of))) => {
                    let answer = V::Answer::unpack(answer, &self.lists)?;
                    return Ok(Read { answer, as_of });
                }
                Ok(Ok((Err(error), _))) => match read_error(&error) {
                    error @ (ControllerError::NoLeader { .. }
                    | ControllerError::NoVoter { .. }
                    | ControllerError::Stopping { .. }) => error.to_string(),
                    error => return Err(error),
                },
                Ok(Err(CallError::Unavailable(why))) => why,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("node {} does not answer", peer.id),
            };
        }
        Err(ControllerError::NoVoter { why })
    }
}
