//! How a node becomes, or comes back as, a member of a cluster.

use super::{Home, HomeError, Member};
use crate::{
    control::{
        consensus::{
            self, Consensus, ConsensusConfig, FatalError, Identity, LogStore, OpenError, PeerQueues,
        },
        peers::{self, CallError, Directory, Peer},
        state::{Applied, Command, Envelope, Mutation, State},
        voter::{Leaving, Machine, Quorum, StatusTable, VoterParts},
        watch::Ended,
    },
    model::{NodeId, NodeName, Revision, Subnet},
    proto::v1::{self, JoinRequest, JoinResponse, NodeRole},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// How long a join may take; the cluster may be electing a leader meanwhile.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// How often a registration that was accepted is repeated.
const REGISTER_AGAIN: Duration = Duration::from_secs(30);
/// A voter that hears no leader for this long asks whether it still belongs to the cluster: a removed node gets no more
/// messages, and so does not hear of its removal.
const LEADERLESS: Duration = Duration::from_secs(1);
/// Pause before the next attempt if no node accepted the registration.
const REGISTER_RETRY: Duration = Duration::from_millis(500);
/// How many messages may wait for one peer.
const PEER_QUEUE: usize = 4096;

/// Why a node did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The state folder can't be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The log in the state folder can't be used.
    #[error("the state folder can't be used")]
    Log(#[from] OpenError),
    /// No node answers.
    #[error(
        "no node answers at {join}: is it running, and is the address the one it listens on ({why})"
    )]
    NobodyThere {
        /// The address that was asked.
        join: SocketAddr,
        /// What went wrong.
        why: String,
    },
    /// The cluster refuses the node.
    #[error("the cluster at {join} does not take this node in: {why}")]
    Refused {
        /// The address that was asked.
        join: SocketAddr,
        /// The reason that it gave.
        why: String,
    },
    /// The cluster has removed the node.
    #[error("this node was removed from the cluster")]
    Removed,
    /// The answer can't be read.
    #[error(
        "the node at {join} answered what this version can't read: {what}; all nodes must run the same version"
    )]
    Malformed {
        /// The address that was asked.
        join: SocketAddr,
        /// What can't be read.
        what: String,
    },
    /// Consensus did not start, or ended.
    #[error("the log can't be used")]
    Consensus(#[source] FatalError),
}

impl From<FatalError> for ClusterError {
    fn from(error: FatalError) -> Self {
        match error {
            // The text is the same now and at every later start.
            FatalError::Unfit(error) => Self::Log(error),
            error => Self::Consensus(error),
        }
    }
}

/// The addresses of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// Its VTEP.
    pub(super) vtep: Ipv4Addr,
    /// Its API.
    pub(super) listen: SocketAddr,
    /// The subnet of its gateway bridge.
    pub(super) gateway: Subnet,
    /// Its metrics, if other hosts reach them.
    pub(super) metrics: Option<SocketAddr>,
}

/// What the node is in its cluster, and its log if it is a voter.
pub(super) struct Membership {
    pub(super) member: Member,
    pub(super) directory: Directory,
    pub(super) log: Option<LogStore>,
}

/// Becomes a member of the cluster at `join`, of the one that the state folder names, or of a new one. The content of
/// `run_folder` lasts until the machine is started again.
///
/// # Errors
/// See [`ClusterError`].
pub(super) async fn enter(
    home: &mut Home,
    registration: &Registration,
    join: Option<SocketAddr>,
    run_folder: &Path,
) -> Result<Membership, ClusterError> {
    let mut membership = match (home.record().member.clone(), join) {
        (Some(member), join) => come_back(home, member, join).await,
        (None, Some(join)) => join_first(home, registration, join).await,
        (None, None) => bootstrap(home, registration.addresses),
    }?;
    if let Some(log) = &mut membership.log {
        log.mark_beside(run_folder)?;
    }
    Ok(membership)
}

fn identity(home: &Home, cluster: Uuid, id: NodeId) -> Identity {
    Identity { cluster, name: home.record().name.to_string(), raft_id: id }
}

/// Fails if the log belongs to another node than the state folder names.
fn check_log(home: &Home, log: &LogStore, cluster: Uuid, id: NodeId) -> Result<(), ClusterError> {
    let found = log.identity();
    if found.raft_id == id && found.cluster == cluster {
        return Ok(());
    }
    Err(OpenError::ForeignState {
        path: home.dir().to_owned(),
        expected: format!("node {id} of cluster {cluster}"),
        found: format!("node {} of cluster {}", found.raft_id, found.cluster),
    }
    .into())
}

/// A new cluster, whose first revision is this node's registration.
fn bootstrap(home: &mut Home, addresses: Addresses) -> Result<Membership, ClusterError> {
    const FIRST_REVISION: u64 = 1;
    let mut state = State::default();
    let command = Command::RegisterNode {
        instance: *home.record().instance.as_bytes(),
        name: home.record().name.clone(),
        vtep: addresses.vtep,
        listen: addresses.listen,
        returning: None,
        gateway: Some(addresses.gateway),
        metrics: addresses.metrics,
    };
    let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
    let entry = Envelope::new(request, command)
        .encode()
        .unwrap_or_else(|error| unreachable!("a registration encodes: {error}"));
    let node = match state.apply(FIRST_REVISION, &entry) {
        Ok(Applied::Node(node)) => node,
        other => unreachable!("an empty state takes any node in: {other:?}"),
    };
    // A crash between the making of the log and the note in the folder leaves a log: its cluster is this node's.
    let log = match LogStore::open(home.dir(), None)? {
        Some(log) => log,
        None => {
            let identity = identity(home, Uuid::new_v4(), node.id);
            LogStore::bootstrap(home.dir(), identity, &state.snapshot())?
        }
    };
    let cluster = log.identity().cluster;
    check_log(home, &log, cluster, node.id)?;
    let member = Member { cluster, id: node.id, voter: true, epoch: node.epoch };
    home.set_member(member.clone())?;
    tracing::info!(%cluster, "a new cluster of one");
    let directory = Directory::new(cluster, [Peer::from(&node)]);
    Ok(Membership { member, directory, log: Some(log) })
}

async fn join_first(
    home: &mut Home,
    registration: &Registration,
    join: SocketAddr,
) -> Result<Membership, ClusterError> {
    // A folder that can't be used is refused before the cluster is told of the node.
    let existing = LogStore::open(home.dir(), None)?;
    let answer = registration.join(join).await?;
    let (member, peers) = read_answer(join, &answer)?;
    let log = match (member.voter, existing) {
        (false, _) => None,
        (true, Some(log)) => {
            check_log(home, &log, member.cluster, member.id)?;
            Some(log)
        }
        (true, None) => {
            Some(LogStore::join(home.dir(), identity(home, member.cluster, member.id))?)
        }
    };
    home.set_peers(&peers)?;
    home.set_member(member.clone())?;
    tracing::info!(cluster = %member.cluster, id = member.id, voter = member.voter, "joined");
    let directory = Directory::new(member.cluster, peers);
    Ok(Membership { member, directory, log })
}

/// Comes back without asking another node: a cluster that lost its quorum must be able to come back, one node after the
/// other. [`keep_registered`] tells the other nodes once this one runs.
async fn come_back(
    home: &Home,
    member: Member,
    join: Option<SocketAddr>,
) -> Result<Membership, ClusterError> {
    if let Some(join) = join
        && let Some(found) = cluster_at(join).await
        && found != member.cluster
    {
        return Err(HomeError::AnotherCluster {
            path: home.dir().to_owned(),
            found: member.cluster,
            asked: found,
            join,
        }
        .into());
    }
    let log = if member.voter {
        let log = LogStore::open(home.dir(), Some(member.cluster))?;
        // The folder says that the node is a voter: without its log it could vote twice in one term.
        let log = log.ok_or_else(|| OpenError::Amnesia {
            path: home.dir().to_owned(),
            raft_id: member.id,
            detail: "the log is missing".to_owned(),
        })?;
        check_log(home, &log, member.cluster, member.id)?;
        Some(log)
    } else {
        None
    };
    let directory = Directory::new(member.cluster, home.peers()?);
    tracing::info!(cluster = %member.cluster, id = member.id, voter = member.voter, "back");
    Ok(Membership { member, directory, log })
}

/// Repeats the node's registration without end: its addresses may have changed, or it may have been removed. Returns when
/// it was removed. `consensus` is `None` on an agent, which hears of its removal from the voter that it follows.
pub(super) async fn keep_registered(
    registration: Registration,
    member: Member,
    directory: Directory,
    join: Option<SocketAddr>,
    consensus: Option<watch::Receiver<consensus::Status>>,
    epoch: watch::Sender<Revision>,
) -> Ended {
    let mut said = None;
    loop {
        let own = registration.addresses.listen;
        let voters = directory.voters().into_iter().map(|peer| peer.listen);
        let ask = voters.filter(|listen| *listen != own).chain([own]).chain(join);
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
        if !taken && refused.is_some() && refused != said {
            tracing::warn!(why = refused, "the cluster does not take this node's registration");
        }
        said = refused.filter(|_| !taken);
        if epoch.is_closed() {
            return Ended::Stopped;
        }
        if taken {
            tokio::select! {
                () = tokio::time::sleep(REGISTER_AGAIN) => {}
                () = without_a_leader(consensus.clone()) => {}
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

async fn cluster_at(join: SocketAddr) -> Option<Uuid> {
    tokio::time::timeout(JOIN_DEADLINE, peers::cluster_at(join)).await.ok()?
}

/// What a node tells the cluster of itself when it joins or comes back.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) name: NodeName,
    pub(super) instance: Uuid,
    pub(super) addresses: Addresses,
    pub(super) token: Option<String>,
}

impl Registration {
    /// Asks the node at `place`, of whatever cluster it is, to accept this node.
    async fn join(&self, place: SocketAddr) -> Result<JoinResponse, ClusterError> {
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
        }
    }
}

/// The result of a registration at `place`.
async fn registered(
    place: SocketAddr,
    call: impl Future<Output = Result<JoinResponse, CallError>>,
) -> Result<JoinResponse, ClusterError> {
    let nobody = |why: String| ClusterError::NobodyThere { join: place, why };
    match tokio::time::timeout(JOIN_DEADLINE, call).await {
        Err(_) => Err(nobody("no answer in time".to_owned())),
        Ok(Err(CallError::Unavailable(why) | CallError::Broken(why))) => Err(nobody(why)),
        Ok(Err(CallError::Removed)) => Err(ClusterError::Removed),
        Ok(Err(CallError::Refused(why) | CallError::Unknown(why))) => {
            Err(ClusterError::Refused { join: place, why })
        }
        Ok(Ok(answer)) => Ok(answer),
    }
}

fn read_answer(
    join: SocketAddr,
    answer: &JoinResponse,
) -> Result<(Member, Vec<Peer>), ClusterError> {
    let malformed = |what: &str| ClusterError::Malformed { join, what: what.to_owned() };
    let cluster = answer.cluster.parse().map_err(|_| malformed("the cluster's id"))?;
    let peer = |peer: &v1::Node| {
        let listen = peer.listen.parse().map_err(|_| malformed("a peer's address"))?;
        Ok(Peer { id: peer.id, listen, voter: true })
    };
    let peers = answer.peers.iter().map(peer).collect::<Result<_, ClusterError>>()?;
    let voter = answer.role() == NodeRole::Voter;
    Ok((Member { cluster, id: answer.node_id, voter, epoch: answer.epoch }, peers))
}

/// Starts the parts that only a voter has. The receiver gets the errors after which the node ends in order; any other
/// error after which consensus can't go on ends the process.
///
/// # Errors
/// The log can't be used.
pub(super) fn start_voter(
    log: LogStore,
) -> Result<(VoterParts, PeerQueues, mpsc::Receiver<FatalError>), ClusterError> {
    let (machine, state) = Machine::new();
    let queues = PeerQueues::new(PEER_QUEUE);
    let (sender, ended) = mpsc::channel(1);
    let on_fatal = move |error| match error {
        // The process is sound and the disk holds what it should: the node can end in order and say why.
        FatalError::Unfit(_) | FatalError::Overwritten { .. } => drop(sender.try_send(error)),
        error => consensus::abort(error),
    };
    let config = ConsensusConfig { on_fatal: Arc::new(on_fatal), ..ConsensusConfig::default() };
    let consensus = Consensus::start(config, log, machine, queues.clone())?;
    let (table, leaving, quorum) = (StatusTable::default(), Leaving::default(), Quorum::default());
    Ok((VoterParts { consensus, state, table, leaving, quorum }, queues, ended))
}
