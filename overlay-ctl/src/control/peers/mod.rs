//! Nodes of one cluster, talking to each other.
//!
//! One connection a peer, shared by everything that is said to it. Every call carries the cluster's
//! id, so that a node of another cluster at a reused address is refused and not believed.

mod directory;
mod raft;

pub use directory::{Directory, Peer, connect_lazy};
pub use raft::carry_raft_messages;

use crate::proto::internal::peers_client::PeersClient;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::interceptor::InterceptedService,
    transport::Channel,
};

/// Metadata key under which a call says which cluster it means.
pub const CLUSTER: &str = "overlay-cluster";
/// Longest message between nodes, in bytes: a snapshot of the whole state travels as one.
pub const MESSAGE_MAX: usize = 1 << 30;

/// Stamps every call with the cluster's id.
#[derive(Clone)]
pub struct Stamp(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(CLUSTER, self.0.clone());
        Ok(request)
    }
}

/// A client of the service between nodes.
pub type Client = PeersClient<InterceptedService<Channel, Stamp>>;

/// A client over `channel`, for the cluster `cluster`.
#[must_use]
pub fn client(channel: Channel, cluster: uuid::Uuid) -> Client {
    let cluster = cluster.to_string();
    let stamp = MetadataValue::try_from(cluster.as_str())
        .unwrap_or_else(|_| unreachable!("a UUID is printable ASCII"));
    PeersClient::with_interceptor(channel, Stamp(stamp))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}
