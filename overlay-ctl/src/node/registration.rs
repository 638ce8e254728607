//! What a node tells the cluster of itself: when it joins, when it comes back, and again and again while it runs.

use super::{Member, addresses::Addresses, error::ClusterError, named::TaskEnd};
use crate::{
    control::{
        controller::ControllerError,
        peers::{self, CallError, Directory, Incarnation, Peer, is_another},
        voter::{Seat, VoterParts},
    },
    model::{Generation, NodeName, RaftId, Revision, SPEAKS},
    proto::v1::{self, JoinRequest, JoinResponse, NodeRole},
};
use std::{net::SocketAddr, time::Duration};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

/// Longest wait for the answer of a cluster, which may be electing a leader meanwhile.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How often a registration that was accepted is repeated.
const REGISTER_AGAIN: Duration = Duration::from_secs(30);
/// A voter that hears no leader for this long asks whether it still belongs to the cluster: a removed node gets no more
/// messages, and so does not hear of its removal.
const LEADERLESS: Duration = Duration::from_secs(1);
/// Least time between a registration and the next one for which a voter asked: two processes with one state folder make
/// each other's registration the older one again and again.
const ASKED_AGAIN: Duration = Duration::from_secs(5);
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
    /// Which run of the node's program this is.
    pub(super) incarnation: Incarnation,
}

impl Registration {
    /// Asks the node at `place`, of whatever cluster it is, to accept this node.
    pub(super) async fn join(&self, place: SocketAddr) -> Result<JoinResponse, ClusterError> {
        registered(place, peers::join(place, self.request(None, None))).await
    }

    /// Repeats the registration at the node at `place`, whose answer counts only if it is of this node's cluster.
    pub(super) async fn renew(
        &self,
        place: SocketAddr,
        member: &Member,
        directory: &Directory,
    ) -> Result<JoinResponse, ClusterError> {
        registered(place, directory.join(place, self.request(Some(member), None))).await
    }

    /// The same of a node whose log is lost: it gets another Raft id, once for each `wish`.
    pub(super) async fn begin_life(
        &self,
        place: SocketAddr,
        member: &Member,
        wish: Uuid,
        directory: &Directory,
    ) -> Result<JoinResponse, ClusterError> {
        let request = self.request(Some(member), Some(wish));
        registered(place, directory.join(place, request)).await
    }

    /// The answer of an agent that is to hold the log: under the Raft id that it says, or under another one if that may have
    /// voted already. The folder of an agent knows nothing of a log, since there was none yet or it is put back from an older
    /// copy, and an empty log would take votes and entries back that the cluster counts on. A life that is given for this
    /// process' own wish is nobody else's.
    async fn unused(
        &self,
        place: SocketAddr,
        member: &Member,
        directory: &Directory,
        seat: &Seat,
        answered: Result<JoinResponse, ClusterError>,
    ) -> Result<JoinResponse, ClusterError> {
        let answer = answered?;
        let is_ours = directory.generations().ours() == Generation::from_wire(answer.generation);
        let Some(life) = life_of(&answer).filter(|_| answer.life_used && is_ours) else {
            return Ok(answer);
        };
        if seat.get().is_some() {
            return Ok(answer);
        }
        tracing::warn!(%life, "the life under which this node is to hold the log may have voted: it asks for another one");
        let other = self.begin_life(place, member, Uuid::new_v4(), directory).await?;
        match life_of(&other) {
            Some(now) if now == life => Err(ClusterError::NoOtherLife {
                why: format!("the node at {place} gives none but {life}, which may have voted"),
            }),
            _ => Ok(other),
        }
    }

    fn request(&self, returning: Option<&Member>, log_lost: Option<Uuid>) -> JoinRequest {
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
            oldest_version: SPEAKS.oldest().number(),
            newest_version: SPEAKS.newest().number(),
            log_lost: log_lost.map(|wish| wish.as_bytes().to_vec()).unwrap_or_default(),
            incarnation: self.incarnation.as_bytes().to_vec(),
        }
    }

    /// Asks the process at `place`, where this node was last, whether it is this node.
    ///
    /// # Errors
    /// It is, and is another process.
    pub(super) async fn meets_another(
        &self,
        place: SocketAddr,
        member: &Member,
        directory: &Directory,
    ) -> Result<(), ClusterError> {
        match directory.status_at(place).await {
            Ok(status) if is_another(&status, member.id, Some(self.incarnation)) => {
                let (node, listen) = (self.name.clone(), place);
                Err(ClusterError::RunsElsewhere(
                    ControllerError::RunsElsewhere { node, listen }.to_string(),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// What the cluster says of this node in the answer of the node at `place`, and who the other voters are.
pub(super) fn read_answer(
    place: SocketAddr,
    answer: &JoinResponse,
) -> Result<(Member, Vec<Peer>), ClusterError> {
    let malformed = |what: &str| ClusterError::Malformed { join: place, what: what.to_owned() };
    let cluster = answer.cluster.parse().map_err(|_| malformed("the cluster's id"))?;
    let peer = |peer: &v1::Node| {
        let listen = peer.listen.parse().map_err(|_| malformed("a peer's address"))?;
        Ok(Peer { id: peer.id, listen, voter: true, raft_id: RaftId::new(peer.raft_id) })
    };
    let peers = answer.peers.iter().map(peer).collect::<Result<_, ClusterError>>()?;
    let voter = answer.role() == NodeRole::Voter;
    let JoinResponse { node_id: id, epoch, raft_id, .. } = *answer;
    Ok((Member { cluster, id, voter, epoch, raft_id: RaftId::new(raft_id) }, peers))
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
        Ok(Err(CallError::RunsElsewhere(why))) => Err(ClusterError::RunsElsewhere(why)),
        Ok(Err(CallError::Refused(why) | CallError::Failed(why) | CallError::Unknown(why))) => {
            Err(ClusterError::Refused { join: place, why })
        }
        Ok(Ok(answer)) => Ok(answer),
    }
}

/// Repeats the node's registration without end: its addresses may have changed, or it may have been removed. Returns when
/// it was removed, or when another process runs as it. A change of `addresses` is told at once, and so is everything if a voter
/// knows another registration of this node, or if this node has a seat and hears no leader. An agent hears of its removal from
/// the voter that it follows. `life` is told under which Raft id the cluster wants this node to hold the log.
pub(super) async fn keep_registered(
    mut registration: Registration,
    mut addresses: watch::Receiver<Addresses>,
    member: Member,
    directory: Directory,
    join: Option<SocketAddr>,
    seat: Seat,
    (epoch, life): (watch::Sender<Revision>, watch::Sender<Option<RaftId>>),
) -> TaskEnd {
    let mut said = None;
    loop {
        registration.addresses = *addresses.borrow_and_update();
        let others = directory.voters().into_iter().filter(|peer| peer.id != member.id);
        let own = registration.addresses.bound();
        let ask = others.map(|peer| peer.listen).chain([own]).chain(join);
        let (mut taken, mut refused) = (false, None);
        for place in ask {
            let answered = registration.renew(place, &member, &directory).await;
            match registration.unused(place, &member, &directory, &seat, answered).await {
                Ok(answer) => {
                    learn(&directory, &answer);
                    directory.note_own_copy(answer.copy_at.parse().ok());
                    if adopt(&directory, &answer, &seat) {
                        let wanted = life_of(&answer);
                        life.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
                    }
                    epoch.send_if_modified(|now| {
                        let news = *now != answer.epoch;
                        *now = answer.epoch;
                        news
                    });
                    taken = true;
                    break;
                }
                Err(ClusterError::Removed) => return TaskEnd::Removed,
                // The first one says most: this node itself, the last that is asked, only passes on what it was told.
                Err(ClusterError::Refused { why, .. }) => drop(refused.get_or_insert(why)),
                Err(error @ ClusterError::RunsElsewhere(_)) => {
                    return TaskEnd::Failed(error.into());
                }
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
            return TaskEnd::Returned;
        }
        if taken {
            tokio::select! {
                () = tokio::time::sleep(REGISTER_AGAIN) => {}
                () = without_a_leader(&seat) => {}
                Ok(()) = addresses.changed() => {}
                () = asked(&directory, Instant::now()) => {}
            }
        } else {
            tokio::time::sleep(REGISTER_RETRY).await;
        }
    }
}

/// The Raft id under which the cluster wants this node to hold the log; `None` = it is to be an agent.
fn life_of(answer: &JoinResponse) -> Option<RaftId> {
    // An earlier program says none: there it is the node's id.
    let life = RaftId::new(answer.raft_id).or(RaftId::new(answer.node_id));
    life.filter(|_| answer.role() == NodeRole::Voter)
}

/// Learns from the answer to a registration where the voters are: an agent whose voters all have new addresses knows of
/// none of them, but may have found another agent. Nor does it if none of the voters of its rows votes any more.
fn learn(directory: &Directory, answer: &JoinResponse) {
    for peer in &answer.peers {
        if let Ok(listen) = peer.listen.parse() {
            directory.heard_of(peer.id, listen);
        }
        // An earlier program says none: there it is the node's id.
        if let Some(life) = RaftId::new(peer.raft_id).or(RaftId::new(peer.id)) {
            directory.note_life(peer.id, life);
        }
    }
    directory.name_voters(answer.peers.iter().map(|peer| peer.id));
}

/// Goes on into the generation of the cluster that has taken the registration, if that is newer. A node with a log can't: it
/// ends, and comes back without that log. Returns true if the node is of the answer's generation, so that what the answer says
/// of its seat counts: the log of an older one must not be let go of while the node runs, since it may be the last that is left
/// of it.
fn adopt(directory: &Directory, answer: &JoinResponse, seat: &Seat) -> bool {
    let generation = Generation::from_wire(answer.generation);
    if directory.generations().adopt_unless(generation, || seat.get().is_some()) {
        tracing::info!(%generation, "the cluster was restored or recovered: this node has rejoined, and takes the whole view");
    }
    directory.generations().ours() == generation
}

/// Waits until this node is to be registered at once, but not so soon after the `last` registration: if it is asked to, or a
/// newer generation of the cluster was met.
async fn asked(directory: &Directory, last: Instant) {
    tokio::select! {
        () = directory.asked_to_register() => {}
        _ = directory.generations().newer() => {}
    }
    tokio::time::sleep_until(last + ASKED_AGAIN).await;
}

/// Waits until this node has had a seat, and has known no leader, for a while.
async fn without_a_leader(seat: &Seat) {
    let mut changes = seat.watch();
    loop {
        let voter = changes.borrow_and_update().clone();
        tokio::select! {
            () = leaderless(voter) => return,
            changed = changes.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
        }
    }
}

async fn leaderless(voter: Option<VoterParts>) {
    let Some(voter) = voter else { return std::future::pending().await };
    let mut status = voter.consensus.status();
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

#[cfg(test)]
mod tests;
