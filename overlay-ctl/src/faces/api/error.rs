//! The one place where failures become gRPC statuses.

use crate::{
    control::{controller::ControllerError, peers::mark_removed, state::Refusal},
    model::Invalid,
};
use tonic::{Code, Status};

impl From<ControllerError> for Status {
    fn from(error: ControllerError) -> Self {
        let code = match &error {
            ControllerError::Refused(refusal) => return refused(refusal),
            ControllerError::NodeDown { .. }
            | ControllerError::CannotMake { .. }
            | ControllerError::NotMade { .. }
            | ControllerError::Members { .. } => Code::FailedPrecondition,
            ControllerError::NotLoggable { .. } => Code::InvalidArgument,
            ControllerError::Overloaded { .. }
            | ControllerError::ListsBusy
            | ControllerError::ListTooLong { .. } => Code::ResourceExhausted,
            ControllerError::NoLeader { .. } | ControllerError::Stopping { .. } => {
                Code::Unavailable
            }
            ControllerError::PeerRefused { .. } | ControllerError::Defect { .. } => Code::Internal,
            ControllerError::Version(_) => Code::Unimplemented,
        };
        Self::new(code, error.to_string())
    }
}

fn refused(refusal: &Refusal) -> Status {
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
        mark_removed(status.metadata_mut());
    }
    status
}

/// A field has a value that is not possible.
pub(super) fn invalid(invalid: Invalid) -> Status {
    Status::invalid_argument(invalid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{controller::Effect, peers::CallError};

    #[test]
    fn a_caller_can_tell_failures_apart_by_their_code() {
        let (effect, why) = (Effect::Unknown, || "why".to_owned());
        let node = || "h1".parse().unwrap();
        for (error, code) in [
            (Refusal::VnisExhausted.into(), Code::ResourceExhausted),
            (
                ControllerError::NodeDown { node: node(), why: why(), effect },
                Code::FailedPrecondition,
            ),
            (ControllerError::CannotMake { why: why(), effect }, Code::FailedPrecondition),
            (
                ControllerError::NotMade { node: node(), reason: why(), taken_back: true },
                Code::FailedPrecondition,
            ),
            (ControllerError::Members { why: why(), effect }, Code::FailedPrecondition),
            (ControllerError::NotLoggable { why: why(), effect }, Code::InvalidArgument),
            (ControllerError::Overloaded { effect }, Code::ResourceExhausted),
            (ControllerError::ListsBusy, Code::ResourceExhausted),
            (ControllerError::ListTooLong { limit_mib: 256 }, Code::ResourceExhausted),
            (ControllerError::NoLeader { why: why(), effect }, Code::Unavailable),
            (ControllerError::Stopping { effect }, Code::Unavailable),
            (ControllerError::PeerRefused { node: 1, why: why(), effect }, Code::Internal),
            (ControllerError::Version(why()), Code::Unimplemented),
            (ControllerError::Defect { why: why(), effect }, Code::Internal),
        ] {
            let text = error.to_string();
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, &*text));
        }
    }

    #[test]
    fn a_removed_node_understands_its_refusal() {
        let removed = ControllerError::from(Refusal::NodeRemoved("h1".parse().unwrap()));
        assert_eq!(CallError::from(Status::from(removed)), CallError::Removed);
        let other = ControllerError::from(Refusal::NoNode("h1".parse().unwrap()));
        assert!(matches!(CallError::from(Status::from(other)), CallError::Refused(_)));
    }
}
