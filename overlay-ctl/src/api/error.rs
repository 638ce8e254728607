use crate::{model::Invalid, state::Refusal};
use tonic::{Code, Status};

/// The one place where a refusal becomes a gRPC status.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::EndpointExists(_)
        | Refusal::NetworkExists(_)
        | Refusal::NodeExists(_)
        | Refusal::VtepExists { .. }
        | Refusal::VniExists { .. }
        | Refusal::AddressInUse { .. }
        | Refusal::MacInUse { .. } => Code::AlreadyExists,
        Refusal::Invalid { .. } | Refusal::Ambiguous(_) => Code::InvalidArgument,
        Refusal::AddressesExhausted { .. } | Refusal::SubnetsExhausted | Refusal::VnisExhausted => {
            Code::ResourceExhausted
        }
        Refusal::NoNetwork(_) | Refusal::NoEndpoint(_) | Refusal::NoNode(_) => Code::NotFound,
        Refusal::NetworkInUse { .. } | Refusal::NodeInUse { .. } => Code::FailedPrecondition,
        Refusal::UnknownCommand(_) => Code::Unimplemented,
    };
    Status::new(code, refusal.to_string())
}

/// A field that can't be what it says.
pub(super) fn invalid(invalid: Invalid) -> Status {
    Status::invalid_argument(invalid.to_string())
}
