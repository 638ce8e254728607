//! Nodes of one cluster, talking to each other.
//!
//! There are two connections to each peer: one for Raft's messages alone, and one for everything else. Every call and
//! every answer carries the cluster's id and its generation, so that a node of another cluster at a reused address is refused,
//! and one from before the cluster was restored or recovered.
//!
//! Nodes tell each other where they listen, in the messages of those streams. So they find each other also where their
//! rows say addresses that are gone.

mod calls;
mod directory;
mod generations;
mod incarnations;
mod link;
mod outage;
mod places;
mod processes;
pub(super) mod raft;
mod stamp;

#[cfg(test)]
mod tests;

pub use calls::{CallError, cluster_at, join, mark_elsewhere, mark_removed};
pub use directory::Directory;
pub use generations::{Generations, Newer};
pub use incarnations::StreamHold;
pub use link::{connect_lazy, part_connections};
pub use outage::Outage;
pub use places::Peer;
pub use processes::{Incarnation, is_another};
pub use raft::carry_raft_messages;
pub use stamp::{Admission, Admitted, OF_GENERATION, PeerChannel};

use crate::proto::internal::peers_client::PeersClient;

/// Metadata key under which a call says for which cluster it is, and an answer from which one it is.
const CLUSTER: &str = "overlay-cluster";
/// Metadata key of the generation of that cluster. A caller, or an answer, without it is of generation 1.
const GENERATION: &str = "overlay-generation";
/// Longest message between nodes, in bytes: a snapshot of the whole state travels as one.
pub const MESSAGE_MAX: usize = 1 << 30;

/// A client of the service between nodes.
pub type Client = PeersClient<PeerChannel>;
