//! The snapshot: the encoding of the whole state. Older formats stay readable.

use super::{
    ChangeLog, Outcome, RequestId, State,
    dedup::{Compact, Dedup, Lists, Named},
    withdrawn::Row,
};
use crate::model::{
    Endpoint, Generation, LegId, Network, NetworkId, Node, NodeId, RaftId, Revision, SPEAKS,
    Version, Vni, Voters,
};
use serde::{Deserialize, Serialize};
use std::{io, net::Ipv4Addr, sync::Arc};

/// Newest format of the snapshot; a reader refuses a greater one. 2 has gateway legs, published ports and
/// aliases, which a reader of 1 would lose. 3 has `requests` in the place of `dedup`. 4 has legs with ids. 5 has the
/// cluster's version and generation, `withdrawn`, and `recent` in the place of `requests`.
const FORMAT: u32 = 5;

/// The format in which the state of a cluster at `version` is written: no newer one than each of its nodes reads.
fn format(version: Version) -> u32 {
    if version < Version::V2 { 4 } else { FORMAT }
}

/// What every format has, and the version that those from 5 on have.
#[derive(Deserialize)]
struct Head {
    format: u32,
    #[serde(default)]
    version: Version,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    format: u32,
    #[serde(default, skip_serializing_if = "Version::is_first")]
    version: Version,
    #[serde(default, skip_serializing_if = "Generation::is_first")]
    generation: Generation,
    revision: Revision,
    networks: Vec<Arc<Network>>,
    nodes: Vec<Arc<Node>>,
    endpoints: Vec<Arc<Endpoint>>,
    last_node_id: NodeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_raft_id: Option<RaftId>,
    #[serde(default, skip_serializing_if = "Voters::is_default")]
    voters: Voters,
    last_vni: Option<Vni>,
    last_address: Vec<(NetworkId, Ipv4Addr)>,
    #[serde(default)]
    last_leg: Vec<(NodeId, Ipv4Addr)>,
    #[serde(default)]
    last_leg_id: LegId,
    /// Only in formats up to 2.
    #[serde(default, skip_serializing)]
    dedup: Vec<(RequestId, Outcome)>,
    /// Only in formats 3 and 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requests: Option<Lists>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recent: Option<Compact>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    withdrawn: Vec<Arc<Row>>,
}

/// A snapshot that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes are no snapshot of a format that this version knows.
    #[error("it can't be decoded")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A newer version wrote the snapshot.
    #[error("it has format {0}, and this version reads formats up to {FORMAT}")]
    Newer(u32),
    /// The state is of a version of the cluster that this program does not speak.
    #[error("it is of cluster version {0}, and this program speaks {SPEAKS}")]
    Version(Version),
}

impl State {
    /// Encodes everything from which a node can continue.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_snapshot(&mut bytes)
            .unwrap_or_else(|error| unreachable!("the types here all encode: {error}"));
        bytes
    }

    /// Writes what [`State::snapshot`] encodes, piece by piece: the encoding of a large state is never in memory as a whole.
    ///
    /// # Errors
    /// As `out`.
    pub fn write_snapshot(&self, out: &mut impl io::Write) -> io::Result<()> {
        let Self {
            revision,
            version,
            generation,
            networks,
            nodes,
            endpoints,
            last_node_id,
            last_raft_id,
            voters,
            last_vni,
            last_address,
            last_leg,
            last_leg_id,
            dedup,
            withdrawn,
            ..
        } = self;
        let (requests, recent) = match dedup {
            Dedup::Named(named) => (Some(named.into()), None),
            Dedup::Compact(compact) => (None, Some(compact.clone())),
        };
        let snapshot = Snapshot {
            format: format(*version),
            version: *version,
            generation: *generation,
            revision: *revision,
            networks: networks.values().cloned().collect(),
            nodes: nodes.values().cloned().collect(),
            endpoints: endpoints.values().cloned().collect(),
            last_node_id: *last_node_id,
            last_raft_id: *last_raft_id,
            voters: *voters,
            last_vni: *last_vni,
            last_address: last_address.iter().map(|(id, address)| (*id, *address)).collect(),
            last_leg: last_leg.iter().map(|(id, address)| (*id, *address)).collect(),
            last_leg_id: *last_leg_id,
            dedup: Vec::new(),
            requests,
            recent,
            withdrawn: withdrawn.rows().cloned().collect(),
        };
        rmp_serde::encode::write_named(out, &snapshot).map_err(io::Error::other)
    }

    /// Decodes the state that [`State::snapshot`] encoded.
    ///
    /// # Errors
    /// The bytes are no snapshot, or a newer version wrote them.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        // Before the rows: those of a newer format may be nothing that this version can decode.
        let Head { format, version } = rmp_serde::from_slice(bytes)?;
        if format > FORMAT {
            return Err(SnapshotError::Newer(format));
        }
        if !SPEAKS.covers(version) {
            return Err(SnapshotError::Version(version));
        }
        let snapshot: Snapshot = rmp_serde::from_slice(bytes)?;
        let dedup = match (snapshot.recent, snapshot.requests) {
            (Some(recent), _) => Dedup::Compact(recent),
            (None, Some(requests)) => Dedup::Named(requests.into()),
            (None, None) => Dedup::Named(Named::from(snapshot.dedup)),
        };
        let mut state = Self {
            revision: snapshot.revision,
            version: snapshot.version,
            generation: snapshot.generation,
            last_node_id: snapshot.last_node_id,
            // Where a snapshot of version 2 names none, those that were given out are ids of nodes.
            last_raft_id: snapshot.last_raft_id.or_else(|| {
                RaftId::new(snapshot.last_node_id).filter(|_| !snapshot.version.is_first())
            }),
            voters: snapshot.voters,
            last_vni: snapshot.last_vni,
            last_address: snapshot.last_address.into_iter().collect(),
            last_leg: snapshot.last_leg.into_iter().collect(),
            last_leg_id: snapshot.last_leg_id,
            dedup: dedup.at(snapshot.version),
            changes: ChangeLog::starting_after(snapshot.revision),
            ..Self::default()
        };
        for row in snapshot.withdrawn {
            state.withdrawn.insert(row);
        }
        for network in snapshot.networks {
            state.insert_network(network);
        }
        for node in snapshot.nodes {
            state.insert_node(node);
        }
        for endpoint in snapshot.endpoints {
            state.insert_endpoint(endpoint);
        }
        Ok(state)
    }
}
