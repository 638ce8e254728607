//! The one place where failures become gRPC statuses.

use crate::{
    control::{
        controller::{ControllerError, Effect},
        peers::{mark_elsewhere, mark_removed},
        state::Refusal,
    },
    model::Invalid,
};
use tonic::{Code, Status, metadata::MetadataValue};

/// Metadata of an error: whether the request changed anything. The API's description tells of it.
const EFFECT: &str = "overlay-effect";

/// Says whether the request changed anything.
fn mark_effect(status: &mut Status, effect: Effect) {
    let effect = match effect {
        Effect::None => "none",
        Effect::Unknown => "unknown",
    };
    status.metadata_mut().insert(EFFECT, MetadataValue::from_static(effect));
}

impl From<ControllerError> for Status {
    fn from(error: ControllerError) -> Self {
        let code = match &error {
            ControllerError::Refused(refusal) => {
                let mut status = refused(refusal);
                mark_effect(&mut status, error.effect());
                return status;
            }
            ControllerError::HeldBack { refusal, .. } => refused(refusal).code(),
            ControllerError::NodeDown { .. }
            | ControllerError::CannotMake { .. }
            | ControllerError::NotMade { .. }
            | ControllerError::RunsElsewhere { .. }
            | ControllerError::Later { .. }
            | ControllerError::Members { .. } => Code::FailedPrecondition,
            ControllerError::NotLoggable { .. } | ControllerError::StaleWrite => {
                Code::InvalidArgument
            }
            ControllerError::Overloaded { .. }
            | ControllerError::NoRoom { .. }
            | ControllerError::ListsBusy
            | ControllerError::BackupsBusy { .. }
            | ControllerError::ListTooLong { .. } => Code::ResourceExhausted,
            ControllerError::NoLeader { .. }
            | ControllerError::NoVoter { .. }
            | ControllerError::Stalled { .. }
            | ControllerError::Stopping { .. } => Code::Unavailable,
            ControllerError::PeerRefused { .. } | ControllerError::Defect { .. } => Code::Internal,
            ControllerError::Version(_) => Code::Unimplemented,
        };
        let mut status = Self::new(code, error.to_string());
        mark_effect(&mut status, error.effect());
        if matches!(error, ControllerError::RunsElsewhere { .. }) {
            mark_elsewhere(status.metadata_mut());
        }
        status
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
        | Refusal::AddressesHeldBack { .. }
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
        | Refusal::NotForgotten { .. }
        | Refusal::NamespaceInUse { .. }
        | Refusal::GatewayOverlap { .. }
        | Refusal::CannotPublish { .. }
        | Refusal::NeedsVersion { .. }
        | Refusal::VersionNotSpoken { .. }
        | Refusal::SeatsTaken { .. }
        | Refusal::LastVoter(_)
        | Refusal::CannotRaise { .. } => Code::FailedPrecondition,
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
    use crate::control::peers::CallError;

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
            (
                ControllerError::RunsElsewhere {
                    node: node(),
                    listen: ([10, 0, 0, 1], 7400).into(),
                },
                Code::FailedPrecondition,
            ),
            (ControllerError::NotLoggable { why: why(), effect }, Code::InvalidArgument),
            (ControllerError::Overloaded { effect }, Code::ResourceExhausted),
            (ControllerError::NoRoom { node: why(), why: why(), effect }, Code::ResourceExhausted),
            (ControllerError::ListsBusy, Code::ResourceExhausted),
            (ControllerError::BackupsBusy { at_once: 2 }, Code::ResourceExhausted),
            (ControllerError::ListTooLong { limit_mib: 256 }, Code::ResourceExhausted),
            (ControllerError::NoLeader { why: why(), effect }, Code::Unavailable),
            (ControllerError::NoVoter { why: why() }, Code::Unavailable),
            (ControllerError::StaleWrite, Code::InvalidArgument),
            (ControllerError::Stalled { effect }, Code::Unavailable),
            (ControllerError::Stopping { effect }, Code::Unavailable),
            (ControllerError::PeerRefused { node: 1, why: why(), effect }, Code::Internal),
            (ControllerError::Version(why()), Code::Unimplemented),
            (ControllerError::Later { why: why(), effect }, Code::FailedPrecondition),
            (ControllerError::Defect { why: why(), effect }, Code::Internal),
        ] {
            let (text, effect) = (error.to_string(), error.effect());
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, &*text));
            let said = status.metadata().get(EFFECT).unwrap();
            assert_eq!(said, if effect == Effect::None { "none" } else { "unknown" }, "{text}");
        }
    }

    #[test]
    fn a_caller_is_told_whether_the_endpoint_still_stands() {
        let error = |taken_back| {
            let (node, reason) = ("h1".parse().unwrap(), "why".to_owned());
            ControllerError::NotMade { node, reason, taken_back }.to_string()
        };
        assert!(error(true).ends_with("why; the endpoint was removed again"), "{}", error(true));
        assert!(error(false).contains("may still be there"), "{}", error(false));
    }

    #[test]
    fn a_removed_node_and_a_second_process_understand_their_refusals() {
        let removed = ControllerError::from(Refusal::NodeRemoved("h1".parse().unwrap()));
        assert_eq!(CallError::from(Status::from(removed)), CallError::Removed);
        let (node, listen) = ("h1".parse().unwrap(), ([10, 0, 0, 1], 7400).into());
        let elsewhere = ControllerError::RunsElsewhere { node, listen };
        let said = elsewhere.to_string();
        assert_eq!(CallError::from(Status::from(elsewhere)), CallError::RunsElsewhere(said));
        let other = ControllerError::from(Refusal::NoNode("h1".parse().unwrap()));
        assert!(matches!(CallError::from(Status::from(other)), CallError::Refused(_)));
    }
}
