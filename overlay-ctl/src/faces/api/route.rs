//! Finds the leader for a call: answers here where this node leads, and forwards the call where another node does.

use super::is_lost;
use crate::control::{
    consensus::Role,
    controller::{Attempt, Controller},
    peers::{PATIENCE, Peer, PeerChannel},
    voter::VoterParts,
};
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Response, Status};

/// A call that found no leader within this fails: callers are promised an answer within 5 s, and the
/// last attempt may take a moment longer.
const LEADER_DEADLINE: Duration = Duration::from_millis(3500);
/// Less than this is not worth another hop.
const PATIENCE_MIN: Duration = Duration::from_millis(100);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// What an attempt may take beyond the deadline: a leader without a quorum notices within this.
const LAST_ATTEMPT: Duration = Duration::from_millis(1200);
/// Longest answer of a leader, in bytes: the list of everything.
pub(super) const ANSWER_MAX: usize = 256 << 20;

enum Place<'a> {
    Here(&'a VoterParts),
    There(Vec<Peer>),
}

impl Controller {
    fn place(&self) -> Place<'_> {
        let Some(voter) = &self.voter else {
            return Place::There(self.directory.voters());
        };
        let status = voter.consensus.status().borrow().clone();
        if status.role == Role::Leader {
            return Place::Here(voter);
        }
        let leader = status.leader.filter(|leader| *leader != self.id);
        Place::There(leader.and_then(|leader| self.directory.peer(leader)).into_iter().collect())
    }

    /// Answers a call at the leader: here if this node leads, else there. Tries again while there is
    /// none, until the deadline; `here` and `there` may therefore run more than once. `waits` is how
    /// long an attempt may legitimately wait for other things than the leader.
    pub(super) async fn at_leader<Q, R>(
        &self,
        request: Request<Q>,
        waits: Duration,
        here: impl Fn(&VoterParts, Q) -> BoxFuture<'static, Result<R, Attempt>> + Send + Sync,
        there: impl Fn(PeerChannel, Request<Q>) -> BoxFuture<'static, Result<Response<R>, Status>>
        + Send
        + Sync,
    ) -> Result<Response<R>, Status>
    where
        Q: Clone + Send + Sync + 'static,
        R: Send,
    {
        let mut deadline = Instant::now() + patience(&request);
        let message = request.into_inner();
        let mut why = "the leader is not known".to_owned();
        loop {
            match self.place() {
                Place::Here(voter) => {
                    let attempt = here(voter, message.clone());
                    match timeout_at(deadline + waits + LAST_ATTEMPT, attempt).await {
                        Ok(Ok(answer)) => return Ok(Response::new(answer)),
                        Ok(Err(Attempt::Failed(status))) => return Err(status),
                        Ok(Err(Attempt::Again(reason))) => reason.clone_into(&mut why),
                        Err(_) => "the leader did not answer in time".clone_into(&mut why),
                    }
                }
                Place::There(peers) => {
                    let count = peers.len();
                    for (asked, peer) in peers.into_iter().enumerate() {
                        let left = deadline.saturating_duration_since(Instant::now());
                        let Some(turn) = turn(left, count - asked) else { break };
                        let mut forwarded = Request::new(message.clone());
                        let millis = u64::try_from(turn.as_millis()).unwrap_or(u64::MAX);
                        forwarded.metadata_mut().insert(PATIENCE, millis.into());
                        let call = there(self.directory.channel(peer.listen), forwarded);
                        match timeout_at(deadline + waits + LAST_ATTEMPT, call).await {
                            Ok(Err(status)) if is_lost(&status) => {
                                status.message().clone_into(&mut why);
                                if status.code() != Code::Unavailable {
                                    // It broke in the middle, perhaps after a long wait: whoever leads
                                    // now is given the whole time.
                                    deadline = Instant::now() + LEADER_DEADLINE;
                                }
                            }
                            Ok(answer) => return answer,
                            Err(_) => {
                                format!("node {} does not answer", peer.id).clone_into(&mut why)
                            }
                        }
                    }
                }
            }
            let next = Instant::now() + PAUSE;
            if next >= deadline {
                return Err(Status::unavailable(no_quorum(&why)));
            }
            self.leader_may_have_changed(next).await;
        }
    }

    async fn leader_may_have_changed(&self, until: Instant) {
        let Some(voter) = &self.voter else {
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
/// it may: the others must have their turn. `None` where it is not worth another hop.
fn turn(left: Duration, still_to_ask: usize) -> Option<Duration> {
    let turn = left / u32::try_from(still_to_ask).unwrap_or(u32::MAX).max(1);
    (turn >= PATIENCE_MIN).then_some(turn)
}

fn no_quorum(why: &str) -> String {
    const WHAT: &str = "the cluster has no leader with a quorum";
    // A node that forwarded has it in words already.
    if why.starts_with(WHAT) {
        return why.to_owned();
    }
    format!("{WHAT} ({why}); see `overlay status` on the voters and start those that are down")
}

fn patience<Q>(request: &Request<Q>) -> Duration {
    let given = request.metadata().get(PATIENCE).and_then(|given| given.to_str().ok());
    let given = given.and_then(|given| given.parse().ok()).map(Duration::from_millis);
    given.map_or(LEADER_DEADLINE, |given| given.min(LEADER_DEADLINE))
}

#[cfg(test)]
mod tests {
    use super::*;

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
