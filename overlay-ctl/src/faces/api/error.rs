//! Refusals and failures as gRPC statuses.

use crate::{control::state::Refusal, model::Invalid};
use tonic::{Code, Status, metadata::MetadataValue};

/// The one place where a refusal becomes a gRPC status.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::EndpointExists(_)
        | Refusal::NetworkExists(_)
        | Refusal::NodeExists(_)
        | Refusal::VtepExists { .. }
        | Refusal::VniExists { .. }
        | Refusal::AddressInUse { .. }
        | Refusal::MacInUse { .. }
        | Refusal::HostPortInUse { .. }
        | Refusal::AliasIsName { .. }
        | Refusal::NameIsAlias { .. } => Code::AlreadyExists,
        Refusal::Invalid { .. }
        | Refusal::Ambiguous(_)
        | Refusal::HostPortTwice { .. }
        | Refusal::RequestIdUsed { .. } => Code::InvalidArgument,
        Refusal::AddressesExhausted { .. }
        | Refusal::SubnetsExhausted
        | Refusal::VnisExhausted
        | Refusal::GatewayExhausted { .. }
        | Refusal::HostPortsExhausted { .. } => Code::ResourceExhausted,
        Refusal::NoNetwork(_)
        | Refusal::NoEndpoint(_)
        | Refusal::NoNode(_)
        | Refusal::Replaced { .. } => Code::NotFound,
        Refusal::NetworkInUse { .. }
        | Refusal::NodeInUse { .. }
        | Refusal::NodeRemoved(_)
        | Refusal::Gone { .. }
        | Refusal::NamespaceInUse { .. }
        | Refusal::GatewayOverlap { .. }
        | Refusal::CannotPublish { .. } => Code::FailedPrecondition,
        Refusal::UnknownCommand(_) => Code::Unimplemented,
    };
    let mut status = Status::new(code, refusal.to_string());
    if matches!(refusal, Refusal::NodeRemoved(_)) {
        status.metadata_mut().insert(REMOVED, MetadataValue::from_static("1"));
    }
    status
}

/// Metadata of a refusal that a removed node must understand.
const REMOVED: &str = "overlay-node-removed";

/// Whether a call was lost on its way: it may or may not have been carried out. A connection that
/// breaks during a call gives whatever code its transport error maps to, with that error as source.
#[must_use]
pub fn is_lost(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

/// Whether the answer is that the asking node was removed from the cluster.
#[must_use]
pub fn says_removed(status: &Status) -> bool {
    status.metadata().contains_key(REMOVED)
}

/// A field that can't be what it says.
pub(crate) fn invalid(invalid: Invalid) -> Status {
    Status::invalid_argument(invalid.to_string())
}
