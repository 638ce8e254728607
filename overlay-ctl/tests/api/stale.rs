//! Reads that may be stale: they are answered where there is no quorum, and say which revision they show.

use std::fmt::Debug;

use overlay_ctl::proto::v1::{
    CreateNetworkRequest, InspectEndpointRequest, InspectNetworkRequest, InspectNodeRequest,
    ListEndpointsRequest, ListNetworksRequest, ListNodesRequest, NodeState,
};
use tonic::{Code, Response, Status};

use crate::{
    fixture::{NETWORK, NODE, Node, assert_refused, eventually, external},
    lab::skip,
};

/// The revision that an answer shows, and the answer.
#[track_caller]
fn marked<T: Debug>(answer: Result<Response<T>, Status>) -> (u64, T) {
    let (metadata, message, _) = answer.unwrap().into_parts();
    let as_of = metadata.get("overlay-as-of").unwrap_or_else(|| panic!("no mark: {message:?}"));
    (as_of.to_str().unwrap().parse().unwrap(), message)
}

/// The first of two nodes has the only vote, so that nobody leads when it is gone.
#[test]
fn what_a_node_knows_can_be_read_without_a_quorum() {
    if skip() {
        return;
    }
    let [first, second] = Node::start_pair();
    second.call(async move |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        let sw1 = external("sw1", "10.0.0.99", "02:42:0a:00:00:63", "172.16.16.9");
        let made = api.endpoints.create(sw1).await.unwrap().into_inner().endpoint.unwrap();
        let latest = api.networks.list(ListNetworksRequest::default()).await.unwrap();
        assert!(!latest.metadata().contains_key("overlay-as-of"), "it is not stale");
        // The second node holds the log, and may lag.
        let revision = eventually("the second node has it", async || {
            let request = ListEndpointsRequest { stale: true, ..Default::default() };
            let (as_of, list) = marked(api.endpoints.list(request).await);
            (list.endpoints == std::slice::from_ref(&made)).then_some(as_of)
        })
        .await;
        assert!(revision >= made.created_revision);
        drop(first);

        let refused = api.networks.list(ListNetworksRequest::default()).await;
        assert_refused(refused, Code::Unavailable, &["no leader"]);
        let (as_of, list) = marked(api.networks.list(ListNetworksRequest { stale: true }).await);
        assert_eq!((as_of, list.networks[0].name.as_str()), (revision, NETWORK));
        let name = NETWORK.to_owned();
        let inspect = InspectNetworkRequest { name, brief: false, stale: true };
        let (as_of, detail) = marked(api.networks.inspect(inspect).await);
        assert_eq!((as_of, detail.endpoints), (revision, vec![made.clone()]));
        let name = "sw1".to_owned();
        let inspect = InspectEndpointRequest { name, stale: true, ..Default::default() };
        assert_eq!(marked(api.endpoints.inspect(inspect).await), (revision, made));
        let inspect = InspectNodeRequest { name: NODE.to_owned(), stale: true };
        eventually("nothing is known of the first node", async || {
            let (as_of, node) = marked(api.nodes.inspect(inspect.clone()).await);
            assert_eq!(as_of, revision);
            (node.state() == NodeState::Unspecified).then_some(())
        })
        .await;
        let (_, list) = marked(api.nodes.list(ListNodesRequest { stale: true }).await);
        let shown: Vec<_> = list.nodes.iter().map(|n| (n.name.as_str(), n.state())).collect();
        assert_eq!(shown, [(NODE, NodeState::Unspecified), ("h2", NodeState::Ready)]);
        let nothing = InspectNodeRequest { name: "h9".to_owned(), stale: true };
        assert_refused(api.nodes.inspect(nothing).await, Code::NotFound, &["h9"]);
        // A write needs a quorum, as ever.
        let more = CreateNetworkRequest { name: "more".to_owned(), ..Default::default() };
        assert_refused(api.networks.create(more).await, Code::Unavailable, &["no leader"]);
    });
}
