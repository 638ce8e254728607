//! What a node tells the cluster of itself: when it joins, when it comes back, and again and again while it runs.

use super::{Member, addresses::Addresses, error::ClusterError};
use crate::{
    control::{
        consensus,
        peers::{self, CallError, Directory},
        watch::Ended,
    },
    model::{NodeName, Revision},
    proto::v1::{JoinRequest, JoinResponse},
};
use std::{net::SocketAddr, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// Longest wait for the answer of a cluster, which may be electing a leader meanwhile.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How often a registration that was accepted is repeated.
const REGISTER_AGAIN: Duration = Duration::from_secs(30);
/// A voter that hears no leader for this long asks whether it still belongs to the cluster: a removed node gets no more
/// messages, and so does not hear of its removal.
const LEADERLESS: Duration = Duration::from_secs(1);
/// Pause before the next attempt if no node accepted the registration.
const REGISTER_RETRY: Duration = Duration::from_millis(500);

/// What a node tells the cluster of itself when it joins or comes back.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) name: NodeName,
    pub(super) instance: Uuid,
    pub(super) addresses: Addresses,
    /// UDP port of VXLAN, which must be that of every other node.
    pub(super) vxlan_port: u16,
    pub(super) token: Option<String>,
}

impl Registration {
    /// Asks the node at `place`, of whatever cluster it is, to accept this node.
    pub(super) async fn join(&self, place: SocketAddr) -> Result<JoinResponse, ClusterError> {
        registered(place, peers::join(place, self.request(None))).await
    }

    /// Repeats the registration at the node at `place`, whose answer counts only if it is of this node's cluster.
    async fn renew(
        &self,
        place: SocketAddr,
        member: &Member,
        directory: &Directory,
    ) -> Result<JoinResponse, ClusterError> {
        registered(place, directory.join(place, self.request(Some(member)))).await
    }

    fn request(&self, returning: Option<&Member>) -> JoinRequest {
        JoinRequest {
            gateway_subnet: self.addresses.gateway.to_string(),
            name: self.name.to_string(),
            vtep: self.addresses.vtep.to_string(),
            listen: self.addresses.listen.to_string(),
            token: self.token.clone().unwrap_or_default(),
            instance: self.instance.as_bytes().to_vec(),
            returning: returning.map_or(0, |member| member.id),
            cluster: returning.map(|member| member.cluster.to_string()).unwrap_or_default(),
            metrics: self.addresses.metrics.map(|address| address.to_string()).unwrap_or_default(),
            vxlan_port: self.vxlan_port.into(),
            local_listen: self.addresses.local_listen.map(|at| at.to_string()).unwrap_or_default(),
        }
    }
}

/// The result of a registration at `place`.
async fn registered(
    place: SocketAddr,
    call: impl Future<Output = Result<JoinResponse, CallError>>,
) -> Result<JoinResponse, ClusterError> {
    let nobody = |why: String| ClusterError::NobodyThere { join: place, why };
    match tokio::time::timeout(ANSWER_DEADLINE, call).await {
        Err(_) => Err(nobody("no answer in time".to_owned())),
        Ok(Err(CallError::Unavailable(why) | CallError::Broken(why))) => Err(nobody(why)),
        Ok(Err(CallError::Removed)) => Err(ClusterError::Removed),
        Ok(Err(CallError::Refused(why) | CallError::Failed(why) | CallError::Unknown(why))) => {
            Err(ClusterError::Refused { join: place, why })
        }
        Ok(Ok(answer)) => Ok(answer),
    }
}

/// Repeats the node's registration without end: its addresses may have changed, or it may have been removed. Returns when
/// it was removed. A change of `addresses` is told at once. `consensus` is `None` on an agent, which hears of its removal from the voter that it follows.
pub(super) async fn keep_registered(
    mut registration: Registration,
    mut addresses: watch::Receiver<Addresses>,
    member: Member,
    directory: Directory,
    join: Option<SocketAddr>,
    consensus: Option<watch::Receiver<consensus::Status>>,
    epoch: watch::Sender<Revision>,
) -> Ended {
    let mut said = None;
    loop {
        registration.addresses = *addresses.borrow_and_update();
        let others = directory.voters().into_iter().filter(|peer| peer.id != member.id);
        let own = registration.addresses.bound();
        let ask = others.map(|peer| peer.listen).chain([own]).chain(join);
        let (mut taken, mut refused) = (false, None);
        for place in ask {
            match registration.renew(place, &member, &directory).await {
                Ok(answer) => {
                    epoch.send_if_modified(|now| {
                        let news = *now != answer.epoch;
                        *now = answer.epoch;
                        news
                    });
                    taken = true;
                    break;
                }
                Err(ClusterError::Removed) => return Ended::Removed,
                Err(ClusterError::Refused { why, .. }) => refused = Some(why),
                Err(error) => {
                    tracing::debug!(peer = %place, error = %crate::error_chain(&error), "not registered there");
                }
            }
        }
        // What the cluster knows of this node is not true any more, and only somebody can mend that.
        // A node may refuse what its leader would take, as another port of VXLAN.
        if refused.is_some() && refused != said {
            tracing::warn!(why = refused, "the cluster does not take this node's registration");
        }
        said = refused;
        if epoch.is_closed() {
            return Ended::Stopped;
        }
        if taken {
            tokio::select! {
                () = tokio::time::sleep(REGISTER_AGAIN) => {}
                () = without_a_leader(consensus.clone()) => {}
                Ok(()) = addresses.changed() => {}
            }
        } else {
            tokio::time::sleep(REGISTER_RETRY).await;
        }
    }
}

/// Waits until this node has known no leader for a while.
async fn without_a_leader(consensus: Option<watch::Receiver<consensus::Status>>) {
    let Some(mut status) = consensus else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LEADERLESS).await;
        if status.wait_for(|status| status.leader.is_none()).await.is_err() {
            return std::future::pending().await;
        }
        let back = status.wait_for(|status| status.leader.is_some());
        if tokio::time::timeout(LEADERLESS, back).await.is_err() {
            return;
        }
    }
}
