//! How a node becomes, or comes back as, a member of a cluster.

use super::{Home, HomeError, Member};
use crate::{
    consensus::{Consensus, ConsensusConfig, Identity, LogStore, OpenError, PeerQueues},
    model::NodeId,
    peers::{Directory, Peer, VoterParts, connect_lazy},
    proto::v1::{
        self, JoinRequest, JoinResponse, NodeRole, StatusRequest, cluster_client::ClusterClient,
    },
    state::{Applied, Command, Envelope, Machine, State},
    watch::StatusTable,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tonic::Code;
use uuid::Uuid;

/// How long a join may take; the cluster may be electing a leader meanwhile.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// Messages that wait for one peer.
const PEER_QUEUE: usize = 4096;

/// Why a node did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The state folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The log.
    #[error("the state folder can't be used")]
    Log(#[from] OpenError),
    /// Nobody there.
    #[error(
        "no node answers at {join}: is it running, and is the address the one it listens on ({why})"
    )]
    NobodyThere {
        /// Who was asked.
        join: SocketAddr,
        /// What went wrong.
        why: String,
    },
    /// The cluster said no.
    #[error("the cluster at {join} does not take this node in: {why}")]
    Refused {
        /// Who was asked.
        join: SocketAddr,
        /// What it said.
        why: String,
    },
    /// The answer makes no sense.
    #[error(
        "the node at {join} answered what this version can't read: {what}; all nodes must run the same version"
    )]
    Malformed {
        /// Who was asked.
        join: SocketAddr,
        /// What can't be read.
        what: String,
    },
    /// Consensus did not start.
    #[error("the log can't be used")]
    Consensus(#[from] crate::consensus::FatalError),
}

/// Where a node is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// Its VTEP.
    pub(super) vtep: Ipv4Addr,
    /// Its API.
    pub(super) listen: SocketAddr,
}

/// A member, and the log that it keeps if it is a voter.
pub(super) struct Membership {
    pub(super) member: Member,
    pub(super) directory: Directory,
    pub(super) log: Option<LogStore>,
}

/// Becomes a member: of the cluster at `join`, of the one that the state folder remembers, or of a new
/// one.
///
/// # Errors
/// See [`ClusterError`].
pub(super) async fn enter(
    home: &mut Home,
    addresses: Addresses,
    join: Option<SocketAddr>,
    token: Option<String>,
) -> Result<Membership, ClusterError> {
    match (home.record().member.clone(), join) {
        (Some(member), join) => come_back(home, member, addresses, join, token).await,
        (None, Some(join)) => join_first(home, addresses, join, token).await,
        (None, None) => bootstrap(home, addresses),
    }
}

fn identity(home: &Home, cluster: Uuid, id: NodeId) -> Identity {
    Identity { cluster, name: home.record().name.to_string(), raft_id: id }
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
    };
    let entry = Envelope { request: *Uuid::new_v4().as_bytes(), command }
        .encode()
        .unwrap_or_else(|error| unreachable!("a registration encodes: {error}"));
    let node = match state.apply(FIRST_REVISION, &entry) {
        Ok(Applied::Node(node)) => node,
        other => unreachable!("an empty state takes any node in: {other:?}"),
    };
    // A crash after the log was made and before it was noted leaves a log whose cluster is the one.
    let log = match LogStore::open(home.dir(), None)? {
        Some(log) => log,
        None => {
            let identity = identity(home, Uuid::new_v4(), node.id);
            LogStore::bootstrap(home.dir(), identity, &state.snapshot())?
        }
    };
    let cluster = log.identity().cluster;
    let member = Member { cluster, id: node.id, voter: true, epoch: node.epoch };
    home.set_member(member.clone())?;
    tracing::info!(%cluster, "a new cluster of one");
    let directory = Directory::new(cluster, [Peer::from(&node)]);
    Ok(Membership { member, directory, log: Some(log) })
}

async fn join_first(
    home: &mut Home,
    addresses: Addresses,
    join: SocketAddr,
    token: Option<String>,
) -> Result<Membership, ClusterError> {
    let answer = register(home, addresses, join, token).await?;
    let (member, peers) = read_answer(join, &answer)?;
    let log = if member.voter {
        let existing = LogStore::open(home.dir(), Some(member.cluster))?;
        Some(match existing {
            Some(log) => log,
            None => LogStore::join(home.dir(), identity(home, member.cluster, member.id))?,
        })
    } else {
        None
    };
    home.set_peers(&peers)?;
    home.set_member(member.clone())?;
    tracing::info!(cluster = %member.cluster, id = member.id, voter = member.voter, "joined");
    let directory = Directory::new(member.cluster, peers);
    Ok(Membership { member, directory, log })
}

async fn come_back(
    home: &mut Home,
    mut member: Member,
    addresses: Addresses,
    join: Option<SocketAddr>,
    token: Option<String>,
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
        // The folder says that a voter lived here: without its log it would vote twice.
        Some(log.ok_or_else(|| OpenError::Amnesia {
            path: home.dir().to_owned(),
            raft_id: member.id,
            detail: "the log is missing".to_owned(),
        })?)
    } else {
        None
    };
    let peers = home.peers()?;
    let directory = Directory::new(member.cluster, peers.clone());
    // An address that changed since must be said before anybody can reach the node there.
    let voters = peers.iter().filter(|peer| peer.voter && peer.id != member.id);
    let ask = join.into_iter().chain(voters.map(|peer| peer.listen));
    for peer in ask {
        match register(home, addresses, peer, token.clone()).await {
            Ok(answer) => {
                let (again, _) = read_answer(peer, &answer)?;
                if again.epoch != member.epoch && again.id == member.id {
                    member.epoch = again.epoch;
                    home.set_member(member.clone())?;
                }
                break;
            }
            // Nobody to tell (yet): a cluster that lost its quorum must be able to come back.
            Err(ClusterError::NobodyThere { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    tracing::info!(cluster = %member.cluster, id = member.id, voter = member.voter, "back");
    Ok(Membership { member, directory, log })
}

async fn cluster_at(join: SocketAddr) -> Option<Uuid> {
    let mut client = ClusterClient::new(connect_lazy(join));
    let asked = tokio::time::timeout(JOIN_DEADLINE, client.status(StatusRequest {})).await;
    asked.ok()?.ok()?.into_inner().cluster.parse().ok()
}

async fn register(
    home: &Home,
    addresses: Addresses,
    join: SocketAddr,
    token: Option<String>,
) -> Result<JoinResponse, ClusterError> {
    let request = JoinRequest {
        name: home.record().name.to_string(),
        vtep: addresses.vtep.to_string(),
        listen: addresses.listen.to_string(),
        token: token.unwrap_or_default(),
        instance: home.record().instance.as_bytes().to_vec(),
    };
    let nobody = |why: String| ClusterError::NobodyThere { join, why };
    let mut client = ClusterClient::new(connect_lazy(join));
    match tokio::time::timeout(JOIN_DEADLINE, client.join(request)).await {
        Err(_) => Err(nobody("no answer in time".to_owned())),
        Ok(Err(status)) if status.code() == Code::Unavailable => {
            Err(nobody(status.message().to_owned()))
        }
        Ok(Err(status)) => Err(ClusterError::Refused { join, why: status.message().to_owned() }),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
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

/// Starts the voter's half.
///
/// # Errors
/// The log can't be used.
pub(super) fn start_voter(log: LogStore) -> Result<(VoterParts, PeerQueues), ClusterError> {
    let (machine, state) = Machine::new();
    let queues = PeerQueues::new(PEER_QUEUE);
    let consensus = Consensus::start(ConsensusConfig::default(), log, machine, queues.clone())?;
    Ok((VoterParts { consensus, state, table: StatusTable::default() }, queues))
}
