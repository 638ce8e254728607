//! The controller's nouns, as validated types: an illegal value cannot be built. No I/O.

mod address;
mod generation;
mod lease;
mod leg;
mod mac;
mod mtu;
mod name;
mod permission;
mod publish;
mod raft_id;
mod rows;
mod subnet;
mod version;
mod vni;
mod voters;

pub use address::{EndpointAddrs, Vtep, ip16};
pub use generation::Generation;
pub use lease::Lease;
pub use leg::{Leg, LegId};
pub use mac::Mac;
pub use mtu::{ENDPOINT_MTU_MIN, Encapsulation};
pub use name::{EndpointName, NetworkName, NodeName};
pub use permission::{Permission, Permissions};
pub use publish::{EndpointPort, FIRST_FREE_PORT, Publish, Published, Transport};
pub use raft_id::RaftId;
pub use rows::{
    Endpoint, EndpointId, Location, Network, NetworkId, NetworkOptions, Node, NodeId, Revision,
};
pub use subnet::{Pool, Subnet};
pub use version::{SPEAKS, Speaks, Version};
pub use vni::Vni;
pub use voters::{NoVoters, Voters};

/// The error for a value that its field does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} {why}")]
pub struct Invalid {
    /// The field's name in the API.
    pub field: &'static str,
    /// The value that was given.
    pub value: String,
    /// The reason, as the end of a sentence.
    pub why: String,
}

impl Invalid {
    pub(crate) fn new(
        field: &'static str,
        value: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self { field, value: value.into(), why: why.into() }
    }
}
