//! What the controller speaks of: validated types, an illegal one can't be built. No I/O.

mod mac;
mod name;
mod publish;
mod rows;
mod subnet;
mod vni;

pub use mac::Mac;
pub use name::{EndpointName, NetworkName, NodeName};
pub use publish::{EndpointPort, FIRST_FREE_PORT, Publish, Published, Transport};
pub use rows::{
    Endpoint, EndpointId, Location, Network, NetworkId, NetworkOptions, Node, NodeId, Revision,
};
pub use subnet::{Pool, Subnet};
pub use vni::Vni;

/// A value that can't be what its field asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} {why}")]
pub struct Invalid {
    /// The field's name in the API.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// Why it can't be, as the end of a sentence.
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
