//! A mutation with a repeated request id is carried out once, and gets the same answer each time.

use overlay_ctl::proto::v1::{
    CreateEndpointRequest, CreateNetworkRequest, ListEndpointsRequest, ListNetworksRequest,
    RemoveEndpointRequest, RemoveNetworkRequest, RemoveNodeRequest,
};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    fixture::{BOUND, NETWORK, NODE, PEER, assert_refused, endpoint, external, with_node},
    lab::Netns,
};

const ID: [u8; 16] = [7; 16];

#[test]
fn a_network_is_made_and_removed_once() {
    with_node(async |_, mut api| {
        let create = CreateNetworkRequest {
            name: NETWORK.to_owned(),
            request_id: ID.to_vec(),
            ..Default::default()
        };
        let first = api.networks.create(create.clone()).await.unwrap().into_inner();
        assert_eq!(first.subnet, "10.128.0.0/24");
        let again = api.networks.create(create.clone()).await.unwrap().into_inner();
        assert_eq!(first, again);
        let listed = api.networks.list(ListNetworksRequest::default()).await.unwrap().into_inner();
        assert_eq!(listed.networks, std::slice::from_ref(&first));
        let another = CreateNetworkRequest { request_id: vec![8; 16], ..create };
        assert_refused(api.networks.create(another).await, Code::AlreadyExists, &[NETWORK]);
        // Neither the repeated request nor the refused one added an entry.
        assert_eq!(api.next_revision().await, first.created_revision + 1);

        let remove = RemoveNetworkRequest {
            name: NETWORK.to_owned(),
            request_id: vec![9; 16],
            ..Default::default()
        };
        let removed = api.networks.remove(remove.clone()).await.unwrap().into_inner();
        assert_eq!(api.networks.remove(remove).await.unwrap().into_inner(), removed);
        assert_eq!(api.next_revision().await, removed.revision + 1);
    });
}

#[test]
fn an_endpoint_is_made_and_removed_once() {
    with_node(async |node, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        let web = Netns::new("web");
        let create = CreateEndpointRequest { request_id: ID.to_vec(), ..endpoint("web1", &web) };
        let first = api.endpoints.create(create.clone()).await.unwrap().into_inner();
        let again = api.endpoints.create(create.clone()).await.unwrap().into_inner();
        assert_eq!(first, again);
        let listed = api.endpoints.list(ListEndpointsRequest::default()).await.unwrap();
        let made = first.endpoint.unwrap();
        assert_eq!(listed.into_inner().endpoints, std::slice::from_ref(&made));
        assert_eq!(api.next_revision().await, made.created_revision + 1);

        let remove = RemoveEndpointRequest {
            name: "web1".to_owned(),
            request_id: vec![9; 16],
            ..Default::default()
        };
        let removed = api.endpoints.remove(remove.clone()).await.unwrap().into_inner();
        assert!(!node.host.netns.sh("ip -o link").contains("ovp"), "its port went with it");
        // The repeated request must not remove the new endpoint of the same name.
        let successor = api.endpoints.create(endpoint("web1", &web)).await.unwrap().into_inner();
        assert_eq!(api.endpoints.remove(remove).await.unwrap().into_inner(), removed);
        let listed = api.endpoints.list(ListEndpointsRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().endpoints, [successor.endpoint.unwrap()]);

        // The endpoint that the first request created was removed, so the repeated request must not be
        // answered as if the endpoint existed.
        let begun = Instant::now();
        let gone = api.endpoints.create(create).await;
        assert_refused(gone, Code::FailedPrecondition, &["web1", "request_id"]);
        assert!(begun.elapsed() < BOUND / 4, "nothing is waited for");
    });
}

#[test]
fn the_id_of_one_request_is_no_other_s() {
    with_node(async |_, mut api| {
        let lab = CreateNetworkRequest {
            name: NETWORK.to_owned(),
            subnet: "172.16.16.0/24".to_owned(),
            request_id: ID.to_vec(),
            ..Default::default()
        };
        let made = api.networks.create(lab.clone()).await.unwrap().into_inner();
        let other = CreateNetworkRequest { name: "other".to_owned(), ..lab.clone() };
        let words = &["request_id"];
        assert_refused(api.networks.create(other).await, Code::InvalidArgument, words);
        let endpoint = CreateEndpointRequest {
            request_id: ID.to_vec(),
            ..external("sw1", PEER, "02:42:0a:00:00:63", "172.16.16.9")
        };
        assert_refused(api.endpoints.create(endpoint).await, Code::InvalidArgument, words);
        let remove = RemoveNetworkRequest {
            name: NETWORK.to_owned(),
            request_id: ID.to_vec(),
            ..Default::default()
        };
        assert_refused(api.networks.remove(remove).await, Code::InvalidArgument, words);
        let remove = RemoveEndpointRequest {
            name: "sw1".to_owned(),
            request_id: ID.to_vec(),
            ..Default::default()
        };
        assert_refused(api.endpoints.remove(remove).await, Code::InvalidArgument, words);
        assert_eq!(api.next_revision().await, made.created_revision + 1, "nothing was logged");
    });
}

#[test]
fn one_id_removes_one_thing() {
    with_node(async |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        let lonely = api.network("lonely", "172.16.17.0/24").await;
        for (name, last) in [("a", 8), ("b", 9)] {
            let ip = format!("172.16.16.{last}");
            let request = external(name, PEER, &format!("02:42:0a:00:00:0{last}"), &ip);
            api.endpoints.create(request).await.unwrap();
        }
        let remove = |name: &str, network: &str| RemoveEndpointRequest {
            name: name.to_owned(),
            network: network.to_owned(),
            request_id: ID.to_vec(),
            ..Default::default()
        };
        let removed = api.endpoints.remove(remove("a", NETWORK)).await.unwrap().into_inner();
        // The message names the id in hexadecimal, and the request that used it.
        let words = &["request_id 07070707", "the removal of an endpoint"];
        for other in [remove("b", NETWORK), remove("a", "lonely"), remove("a", "")] {
            assert_refused(api.endpoints.remove(other).await, Code::InvalidArgument, words);
        }
        let network = RemoveNetworkRequest {
            name: "lonely".to_owned(),
            request_id: ID.to_vec(),
            ..Default::default()
        };
        assert_refused(api.networks.remove(network).await, Code::InvalidArgument, words);
        let node = RemoveNodeRequest {
            name: NODE.to_owned(),
            request_id: ID.to_vec(),
            ..Default::default()
        };
        assert_refused(api.nodes.remove(node).await, Code::InvalidArgument, words);
        let create = CreateEndpointRequest {
            request_id: ID.to_vec(),
            ..external("a", PEER, "02:42:0a:00:00:08", "172.16.16.8")
        };
        assert_refused(api.endpoints.create(create).await, Code::InvalidArgument, words);
        let again = api.endpoints.remove(remove("a", NETWORK)).await.unwrap().into_inner();
        assert_eq!(again, removed);

        let listed = api.endpoints.list(ListEndpointsRequest::default()).await.unwrap();
        let names: Vec<_> = listed.into_inner().endpoints.into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["b"]);
        let listed = api.networks.list(ListNetworksRequest::default()).await.unwrap().into_inner();
        assert!(listed.networks.contains(&lonely), "{listed:?}");
        assert_eq!(api.next_revision().await, removed.revision + 1, "nothing else was logged");
    });
}

#[test]
fn one_id_makes_one_endpoint_whatever_its_name_elsewhere() {
    with_node(async |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        api.network("other", "172.16.17.0/24").await;
        let create = CreateEndpointRequest {
            request_id: ID.to_vec(),
            ..external("web1", PEER, "02:42:0a:00:00:63", "172.16.16.9")
        };
        let made = api.endpoints.create(create.clone()).await.unwrap().into_inner();
        let words = &["request_id", "the creation of endpoint web1"];
        for other in [
            CreateEndpointRequest { network: "other".to_owned(), ..create.clone() },
            CreateEndpointRequest { ip: "172.16.16.10".to_owned(), ..create.clone() },
            CreateEndpointRequest { forwards: true, ..create.clone() },
            CreateEndpointRequest { permissions: vec![1], ..create.clone() },
            CreateEndpointRequest { aliases: vec!["www".to_owned()], ..create.clone() },
        ] {
            assert_refused(api.endpoints.create(other).await, Code::InvalidArgument, words);
        }
        // The time to wait is no part of the request's identity.
        let again = CreateEndpointRequest { no_wait: true, ..create };
        assert_eq!(api.endpoints.create(again).await.unwrap().into_inner().endpoint, made.endpoint);
    });
}

#[test]
fn a_removal_that_names_an_id_leaves_a_successor() {
    with_node(async |_, mut api| {
        let network = api.network(NETWORK, "172.16.16.0/24").await;
        let create = || external("web1", PEER, "02:42:0a:00:00:63", "172.16.16.9");
        let first = api.endpoints.create(create()).await.unwrap().into_inner().endpoint.unwrap();
        let remove =
            |id| RemoveEndpointRequest { name: "web1".to_owned(), id, ..Default::default() };
        api.endpoints.remove(remove(first.id)).await.unwrap();
        let second = api.endpoints.create(create()).await.unwrap().into_inner().endpoint.unwrap();
        let words = &["web1", &first.id.to_string(), &second.id.to_string(), "nothing was removed"];
        assert_refused(api.endpoints.remove(remove(first.id)).await, Code::NotFound, words);
        api.endpoints.remove(remove(second.id)).await.unwrap();
        assert_refused(api.endpoints.remove(remove(second.id)).await, Code::NotFound, &["web1"]);

        let remove =
            |id| RemoveNetworkRequest { name: NETWORK.to_owned(), id, ..Default::default() };
        let words = &[NETWORK, "nothing was removed"];
        assert_refused(api.networks.remove(remove(network.id + 1)).await, Code::NotFound, words);
        api.networks.remove(remove(network.id)).await.unwrap();
        let remove = RemoveNodeRequest { name: NODE.to_owned(), id: 77, ..Default::default() };
        assert_refused(api.nodes.remove(remove).await, Code::NotFound, &[NODE, "77"]);
    });
}
