use super::{Controller, controller::Attempt};
use crate::{
    consensus::Role,
    peers::{Peer, VoterParts},
};
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Response, Status, transport::Channel};

/// Metadata key that counts how often a call was forwarded.
const HOPS: &str = "overlay-hops";
/// agent -> voter -> leader, and once more where the leader changed on the way.
const HOPS_MAX: u32 = 3;
/// A call that found no leader within this fails: callers are promised an answer within 5 s.
const LEADER_DEADLINE: Duration = Duration::from_millis(4500);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

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
    /// none, until the deadline; `here` and `there` may therefore run more than once.
    pub(super) async fn at_leader<Q, R>(
        &self,
        request: Request<Q>,
        here: impl Fn(&VoterParts, Q) -> BoxFuture<'static, Result<R, Attempt>> + Send + Sync,
        there: impl Fn(Channel, Request<Q>) -> BoxFuture<'static, Result<Response<R>, Status>>
        + Send
        + Sync,
    ) -> Result<Response<R>, Status>
    where
        Q: Clone + Send + Sync + 'static,
        R: Send,
    {
        let hops = hops(&request);
        if hops >= HOPS_MAX {
            return Err(Status::unavailable("no node knows the leader"));
        }
        let message = request.into_inner();
        let deadline = Instant::now() + LEADER_DEADLINE;
        let mut why = "the leader is not known".to_owned();
        loop {
            match self.place() {
                Place::Here(voter) => match here(voter, message.clone()).await {
                    Ok(answer) => return Ok(Response::new(answer)),
                    Err(Attempt::Failed(status)) => return Err(status),
                    Err(Attempt::Again(reason)) => reason.clone_into(&mut why),
                },
                Place::There(peers) => {
                    for peer in peers {
                        let mut forwarded = Request::new(message.clone());
                        forwarded.metadata_mut().insert(HOPS, (hops + 1).into());
                        let call = there(self.directory.channel(&peer), forwarded);
                        match call.await {
                            Err(status) if status.code() == Code::Unavailable => {
                                status.message().clone_into(&mut why);
                            }
                            answer => return answer,
                        }
                    }
                }
            }
            let next = Instant::now() + PAUSE;
            if next >= deadline {
                return Err(Status::unavailable(format!(
                    "the cluster has no leader with a quorum ({why}); see `overlay status` on the voters and start those that are down"
                )));
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

fn hops<Q>(request: &Request<Q>) -> u32 {
    let hops = request.metadata().get(HOPS).and_then(|hops| hops.to_str().ok());
    hops.and_then(|hops| hops.parse().ok()).unwrap_or(0)
}
