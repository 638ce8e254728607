//! Nodes of one cluster, talking to each other.
//!
//! Two connections a peer: one that Raft's messages have for themselves, one for everything else that is
//! said to it. Every call carries the cluster's id and so does every answer, so that a node of another
//! cluster at a reused address is refused and not believed.

mod calls;
mod directory;
mod link;
mod raft;
mod stamp;

#[cfg(test)]
mod tests;

pub use calls::{CallError, cluster_at, join, mark_removed};
pub use directory::{Directory, Peer};
pub use link::{connect_lazy, part_connections};
pub use raft::carry_raft_messages;
pub use stamp::{Admission, Admitted, PeerChannel};

use crate::proto::internal::peers_client::PeersClient;

/// Metadata key under which a call says which cluster it means, and an answer which one it is from.
const CLUSTER: &str = "overlay-cluster";
/// Longest message between nodes, in bytes: a snapshot of the whole state travels as one.
pub const MESSAGE_MAX: usize = 1 << 30;

/// A client of the service between nodes.
pub type Client = PeersClient<PeerChannel>;
