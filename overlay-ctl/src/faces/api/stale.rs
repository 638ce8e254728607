//! Reads that may be stale: what a request says of that, and what its answer does.

use super::present;
use crate::{
    control::controller::{EndpointInfo, EndpointState as EndpointInfoState, NodeInfo, Reading},
    model::{Lease, Revision},
    proto::v1::{Endpoint, EndpointState, Node, NodeState},
};
use tonic::Response;

/// Metadata of an answer that may be stale: the revision that it shows. The API's description tells of it.
pub(super) const AS_OF: &str = "overlay-as-of";

/// How a request is to be answered that has `stale` set, or not.
pub(super) fn reading(stale: bool) -> Reading {
    if stale { Reading::Stale } else { Reading::Latest }
}

/// The answer, marked if it may be stale.
pub(super) fn answer<T>(message: T, as_of: Option<Revision>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(revision) = as_of {
        response.metadata_mut().insert(AS_OF, revision.into());
    }
    response
}

/// A node, as the answer shows it. Only the leader is told of all nodes: that a node is silent to another voter says nothing.
pub(super) fn node(info: NodeInfo, as_of: Option<Revision>) -> Node {
    let is_silent = info.is_down && info.node.lease != Lease::Lost;
    let mut shown = present::node(info);
    if as_of.is_some() && is_silent {
        shown.set_state(NodeState::Unspecified);
    }
    shown
}

/// The same of an endpoint.
pub(super) fn endpoint(info: EndpointInfo, as_of: Option<Revision>) -> Endpoint {
    let is_silent = info.state == EndpointInfoState::NodeDown;
    let mut shown = present::endpoint(info);
    if as_of.is_some() && is_silent {
        shown.set_state(EndpointState::Unspecified);
        shown.state_reason.clear();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{
            controller::NodeRole,
            state::{Row, golden::rows},
        },
        model::Node,
    };

    fn info(node: Node, is_down: bool, is_unknown: bool) -> NodeInfo {
        let (role, programmed, endpoints, answered_ms) = (NodeRole::Agent, 0, 0, None);
        NodeInfo { node, role, is_down, programmed, endpoints, is_unknown, answered_ms }
    }

    #[test]
    fn a_node_that_is_silent_to_a_voter_is_down_only_if_that_one_leads() {
        let row = rows().into_iter().find_map(|row| match row {
            Row::Node(node) => Some((*node).clone()),
            _ => None,
        });
        let row = row.unwrap();
        let (held, doubted, lost) = (Lease::Held, Lease::Doubted, Lease::Lost);
        for (lease, is_down, as_of, expected) in [
            (held, true, None, NodeState::Down),
            (held, true, Some(5), NodeState::Unspecified),
            (held, false, None, NodeState::Ready),
            (held, false, Some(5), NodeState::Ready),
            (doubted, true, None, NodeState::Down),
            (doubted, true, Some(5), NodeState::Unspecified),
            (lost, true, None, NodeState::Lost),
            // Of that the rows tell.
            (lost, true, Some(5), NodeState::Lost),
        ] {
            let info = info(Node { lease, ..row.clone() }, is_down, false);
            assert_eq!(node(info, as_of).state(), expected, "{lease:?} {is_down} {as_of:?}");
        }
        let unknown = info(row, false, true);
        assert_eq!(node(unknown, None).state(), NodeState::Unspecified, "nothing was heard yet");
    }

    #[test]
    fn so_is_an_endpoint_on_it() {
        let row = rows().into_iter().find_map(|row| match row {
            Row::Endpoint(endpoint) => Some((*endpoint).clone()),
            _ => None,
        });
        let row = row.unwrap();
        let down = || EndpointInfoState::Down { reason: "why".to_owned() };
        for (state, as_of, expected, reason) in [
            (EndpointInfoState::NodeDown, None, EndpointState::Down, "node  is down"),
            (EndpointInfoState::NodeDown, Some(5), EndpointState::Unspecified, ""),
            (down(), Some(5), EndpointState::Down, "why"),
            (EndpointInfoState::Pending, Some(5), EndpointState::Pending, ""),
        ] {
            let info = EndpointInfo { endpoint: row.clone(), network: None, node: None, state };
            let shown = endpoint(info, as_of);
            assert_eq!((shown.state(), shown.state_reason.as_str()), (expected, reason));
        }
    }

    #[test]
    fn only_an_answer_that_may_be_stale_is_marked() {
        let mark = |as_of| answer((), as_of).metadata().get(AS_OF).cloned();
        assert_eq!(mark(None), None);
        assert_eq!(mark(Some(812)).unwrap(), "812");
    }
}
